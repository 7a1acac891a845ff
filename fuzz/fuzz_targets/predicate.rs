//! See `remoteler_fuzz::predicate`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::predicate(octets));
