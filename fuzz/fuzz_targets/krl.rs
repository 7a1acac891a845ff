//! See `remoteler_fuzz::krl`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::krl(octets));
