//! See `remoteler_fuzz::link_peer`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::link_peer(octets));
