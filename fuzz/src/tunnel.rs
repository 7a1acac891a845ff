//! What the targets of the tunnel do with one input.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use remoteler_tunnel::{
    BODY_LEN, Code, FrameType, Header, Hello, Limits, MINOR, Mux, Outbox, Payload, ResumeKeys, ResumeRequest, Side,
};

const LINK_WINDOW: u32 = 100_000;

/// The multiplexer against octets as they come: handshake, headers, sequence. Input: what a peer sends.
pub fn mux_octets(octets: &[u8]) {
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
}

/// The exchange by which a link is taken up. Input: the body of either message. Nobody proves anything without the secret.
pub fn link_resume(octets: &[u8]) {
    let keys = ResumeKeys::new(&[0x5a; 48]);
    let channel = [0xa5; 32];
    if let Ok(request) = ResumeRequest::parse(octets) {
        let good = keys.request(request.attempt, request.received, &channel);
        assert_eq!(keys.proves(&request, &channel), good.ends_with(octets), "only what the holder of the secret says");
    }
    if let Ok(received) = keys.accepted(octets, &channel) {
        assert!(keys.answer(received, &channel).ends_with(octets));
    }
}

/// The multiplexer against a peer that speaks well-formed frames in any order, while this side uses its streams in any order.
/// Input: a script of two octets a step and what they ask for.
pub fn mux_peer(script: &[u8]) {
    let mut now = Instant::now();
    let limits = Limits { link_window: LINK_WINDOW, max_streams: 20, max_backlog: 8, ..Limits::server() };
    let mut mux = Mux::new(Side::Server, limits, now);
    let mut input = BytesMut::with_capacity(BODY_LEN);
    Hello {
        minor: MINOR,
        features: 0,
        max_streams: 10,
        stream_window: 5000,
        link_window: 20_000,
        max_data: 2000,
        max_metadata: 4096,
    }
    .put(&mut input);
    mux.handle_input(&mut input, now).expect("the hello is good");

    let (mut sequence, mut received) = (0u32, 0u32);
    let mut steps = script.iter().copied();
    let mut held = Vec::new();
    while let (Some(what), Some(with)) = (steps.next(), steps.next()) {
        let stream = u32::from(with % 16);
        let payload = match what % 24 {
            0 => Payload::Open(Bytes::from(vec![b'm'; usize::from(with) + 1])),
            1 => Payload::Accept,
            2 => Payload::Reject(u16::from(with), "no".to_owned()),
            3..=5 => Payload::Data(Bytes::from(vec![with; usize::from(with) * 60 + 1])),
            6 => Payload::Window(u32::from(with) * 100 + 1),
            7 => Payload::Fin,
            8 => Payload::Reset(u16::from(with)),
            9 => Payload::GoAway(u16::from(with), "bye".to_owned()),
            10 => Payload::Ack(received),
            11 => Payload::Ping(u64::from(with), received),
            12 => Payload::Pong(u64::from(with), received),
            local => {
                let id = if held.is_empty() { stream } else { held[usize::from(with) % held.len()] };
                match local {
                    13 => held.extend(mux.open(Bytes::from_static(b"m"), now).ok()),
                    14 => {
                        if let Some((id, _)) = mux.next_incoming() {
                            held.push(id);
                            let _ = mux.accept(id);
                        }
                    }
                    15 => {
                        if let Some((id, _)) = mux.next_incoming() {
                            mux.reject(id, Code::Busy.number(), "busy");
                        }
                    }
                    16 | 17 => drop(mux.write(id, &[with; 3000])),
                    18 => drop(mux.read(id, usize::from(with) * 40, now, &mut |_| {})),
                    19 => mux.finish(id),
                    20 => {
                        mux.release(id);
                        held.retain(|known| *known != id);
                    }
                    21 => {
                        mux.reset(id, u16::from(with));
                        held.retain(|known| *known != id);
                    }
                    22 => {
                        let mut out = Outbox::default();
                        mux.poll_transmit(&mut out, 10_000, now);
                        received = received.wrapping_add(sequenced(&out));
                    }
                    _ => {
                        now += Duration::from_millis(u64::from(with) * 20);
                        if mux.handle_timeout(now).is_err() {
                            return;
                        }
                    }
                }
                continue;
            }
        };
        let kind = payload.kind();
        let stream = match kind {
            FrameType::GoAway | FrameType::Ack | FrameType::Ping | FrameType::Pong => 0,
            FrameType::Open
            | FrameType::Accept
            | FrameType::Reject
            | FrameType::Data
            | FrameType::Window
            | FrameType::Fin
            | FrameType::Reset => stream,
        };
        let length = payload.wire_len();
        let number = if kind.is_sequenced() { sequence } else { 0 };
        Header { kind, length, stream, sequence: number, prompt: false }.put(&mut input);
        payload.put(&mut input);
        if kind.is_sequenced() {
            sequence = sequence.wrapping_add((12 + length) as u32);
        }
        if mux.handle_input(&mut input, now).is_err() {
            mux.close(&"the peer broke the protocol".into());
            return;
        }
        while mux.poll_event().is_some() {}
        assert!(mux.received_unread() <= LINK_WINDOW as usize);
        assert!(mux.stream_count() <= 40);
    }
}

/// Octets of the sequenced frames in a batch.
fn sequenced(out: &Outbox) -> u32 {
    let mut slices = [std::io::IoSlice::new(&[]); 64];
    let used = out.fill(&mut slices);
    let octets: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
    let mut rest = &octets[..];
    // The hello comes before the first frame.
    if rest.starts_with(b"RLNK") {
        rest = &rest[8 + BODY_LEN..];
    }
    let mut total = 0;
    while let Ok(Some(header)) = Header::peek(rest) {
        let length = 12 + header.length;
        assert!(rest.len() >= length, "a batch holds whole frames");
        total += if header.kind.is_sequenced() { length as u32 } else { 0 };
        rest = &rest[length..];
    }
    assert!(rest.is_empty(), "a batch holds frames and nothing else");
    total
}
