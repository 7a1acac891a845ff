//! See `remoteler_fuzz::identity_file`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::identity_file(octets));
