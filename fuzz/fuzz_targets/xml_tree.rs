//! See `remoteler_fuzz::xml_tree`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::xml_tree(octets));
