//! See `remoteler_fuzz::cast_player`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::cast_player(octets));
