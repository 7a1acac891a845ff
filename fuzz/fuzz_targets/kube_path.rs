//! See `remoteler_fuzz::kube_path`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| remoteler_fuzz::kube_path(octets));
