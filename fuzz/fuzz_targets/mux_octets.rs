//! The multiplexer against octets as they come: handshake, headers, sequence. Input: what a peer sends.
#![no_main]

use std::time::Instant;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use remoteler_tunnel::{Limits, Mux, Side};

fuzz_target!(|octets: &[u8]| {
    let now = Instant::now();
    let mut mux = Mux::new(Side::Server, Limits::server(), now);
    let mut input = BytesMut::new();
    for piece in octets.chunks(37) {
        input.extend_from_slice(piece);
        if mux.handle_input(&mut input, now).is_err() {
            return;
        }
        while mux.poll_event().is_some() {}
    }
});
