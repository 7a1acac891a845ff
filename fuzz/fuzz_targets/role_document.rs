//! See `remoteler_fuzz::role_document`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::role_document(octets));
