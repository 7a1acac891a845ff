//! See `remoteler_fuzz::revocation_target`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::revocation_target(octets));
