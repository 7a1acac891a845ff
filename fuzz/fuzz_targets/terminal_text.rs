//! See `remoteler_fuzz::terminal_text`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::terminal_text(octets));
