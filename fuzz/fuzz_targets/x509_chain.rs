//! See `remoteler_fuzz::x509_chain`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::x509_chain(octets));
