//! The reader of dial headers. Input: JSON as a client may send it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remoteler_tunnel::DialHeader;

fuzz_target!(|octets: &[u8]| {
    if let Ok(header) = DialHeader::from_json(octets) {
        assert_eq!(DialHeader::from_json(&header.to_json()).expect("what was read can be read again"), header);
    }
});
