//! See `remoteler_fuzz::dial_header`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::dial_header(octets));
