//! See `remoteler_fuzz::ssh_key_file`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::ssh_key_file(octets));
