//! See `remoteler_fuzz::saml_response`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::saml_response(octets));
