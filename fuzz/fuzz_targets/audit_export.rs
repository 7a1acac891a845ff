//! See `remoteler_fuzz::audit_export`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::audit_export(octets));
