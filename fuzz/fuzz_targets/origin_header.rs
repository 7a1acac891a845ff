//! See `remoteler_fuzz::origin_header`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::origin_header(octets));
