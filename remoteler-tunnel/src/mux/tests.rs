//! Two machines, joined by wires that cut their octets anywhere.

mod again;
mod brisk;
mod properties;
mod silence;
mod stalled;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::error::{Code, OpenError, ProtocolError};
use super::limits::Limits;
use super::outbox::Outbox;
use super::stream::StreamError;
use super::{Mux, MuxEvent, ReadOutcome, Side};
use crate::frame::{DATA_LEN, HEADER_LEN, Header, Payload};
use crate::replay::ReplayBudget;

/// Both ends of a link and what is under way between them.
struct Pair {
    now: Instant,
    client: End,
    server: End,
}

struct End {
    mux: Mux,
    sent: BytesMut,
    arrived: BytesMut,
    events: Vec<MuxEvent>,
}

impl End {
    fn new(side: Side, limits: Limits, now: Instant) -> Self {
        Self { mux: Mux::new(side, limits, now), sent: BytesMut::new(), arrived: BytesMut::new(), events: Vec::new() }
    }

    /// Such as lasts longer than its connections.
    fn resumable(self) -> Self {
        let mut end = self;
        end.mux.make_resumable(ReplayBudget::default());
        end
    }

    fn transmit(&mut self, now: Instant) {
        let mut out = Outbox::default();
        self.mux.poll_transmit(&mut out, 64 * 1024, now);
        let mut slices = [std::io::IoSlice::new(&[]); 256];
        let used = out.fill(&mut slices);
        slices[..used].iter().for_each(|slice| self.sent.extend_from_slice(slice));
    }

    fn receive(&mut self, octets: &[u8], now: Instant) -> Result<(), ProtocolError> {
        self.arrived.extend_from_slice(octets);
        let result = self.mux.handle_input(&mut self.arrived, now);
        self.events.extend(std::iter::from_fn(|| self.mux.poll_event()));
        result
    }

    fn read_all(&mut self, id: u32, now: Instant) -> Vec<u8> {
        let mut read = Vec::new();
        while let Ok(ReadOutcome::Read(_)) = self.mux.read(id, 65536, now, &mut |piece| read.extend_from_slice(piece)) {
        }
        read
    }
}

impl Pair {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        let client = End::new(Side::Client, Limits { keepalive: Limits::client().keepalive, ..limits }, now);
        Self { now, client, server: End::new(Side::Server, limits, now) }
    }

    fn resumable(limits: Limits) -> Self {
        let Self { now, client, server } = Self::new(limits);
        Self { now, client: client.resumable(), server: server.resumable() }
    }

    /// Loses the connection with all that is under way, and goes on over another one.
    fn cut(&mut self) {
        let Self { now, client, server } = self;
        let received = [&client, &server].map(|end| end.mux.received_octets());
        for (end, of_peer) in [(client, received[1]), (server, received[0])] {
            end.sent.clear();
            end.arrived.clear();
            end.mux.suspend();
            end.mux.resume(of_peer, *now).unwrap();
        }
    }

    /// Moves at most `piece` octets each way; false when nothing moved.
    fn step(&mut self, piece: usize) -> bool {
        let Self { now, client, server } = self;
        client.transmit(*now);
        server.transmit(*now);
        let up = client.sent.split_to(client.sent.len().min(piece));
        let down = server.sent.split_to(server.sent.len().min(piece));
        server.receive(&up, *now).unwrap();
        client.receive(&down, *now).unwrap();
        !(up.is_empty() && down.is_empty())
    }

    fn run(&mut self) {
        while self.step(usize::MAX) {}
    }

    /// A stream of the client that the server accepted.
    fn stream(&mut self) -> u32 {
        let id = self.client.mux.open(Bytes::from_static(b"metadata"), self.now).unwrap();
        self.run();
        let (taken, metadata) = self.server.mux.next_incoming().unwrap();
        assert_eq!((taken, &metadata[..]), (id, &b"metadata"[..]));
        self.server.mux.accept(id).unwrap();
        self.run();
        assert_eq!(self.client.mux.answer(id), Some(Ok(())));
        id
    }
}

fn pair() -> Pair {
    Pair::new(Limits::server())
}

/// A frame as a peer might forge it.
fn frame(stream: u32, sequence: u32, payload: &Payload) -> BytesMut {
    let mut wire = BytesMut::new();
    Header { kind: payload.kind(), length: payload.wire_len(), stream, sequence, prompt: false }.put(&mut wire);
    payload.put(&mut wire);
    wire
}

/// A server that has said hello to a client that the test plays itself.
fn server_of_a_forger(limits: Limits) -> (End, Instant) {
    let now = Instant::now();
    let mut server = End::new(Side::Server, limits, now);
    let mut hello = BytesMut::new();
    limits.hello(0).put(&mut hello);
    server.receive(&hello, now).unwrap();
    (server, now)
}

#[test]
fn octets_written_with_the_open_arrive_with_it() {
    let mut pair = pair();
    pair.run();
    let id = pair.client.mux.open(Bytes::from_static(b"m"), pair.now).unwrap();
    assert_eq!(pair.client.mux.write(id, b"early").unwrap(), 5);

    pair.client.transmit(pair.now);
    let one_way = pair.client.sent.split();
    pair.server.receive(&one_way, pair.now).unwrap();

    let (taken, _) = pair.server.mux.next_incoming().unwrap();
    pair.server.mux.accept(taken).unwrap();
    assert_eq!(pair.server.read_all(taken, pair.now), b"early");
}

#[test]
fn each_half_closes_on_its_own() {
    let mut pair = pair();
    let id = pair.stream();
    pair.client.mux.write(id, b"question").unwrap();
    pair.client.mux.finish(id);
    pair.run();

    assert_eq!(pair.server.read_all(id, pair.now), b"question");
    assert_eq!(pair.server.mux.read(id, 1, pair.now, &mut |_| {}), Ok(ReadOutcome::End));
    assert_eq!(pair.client.mux.write(id, b"more"), Err(StreamError::Finished));
    pair.server.mux.write(id, b"answer").unwrap();
    pair.server.mux.finish(id);
    pair.run();
    assert_eq!(pair.client.read_all(id, pair.now), b"answer");

    pair.client.mux.release(id);
    pair.server.mux.release(id);
    assert!(pair.client.mux.is_idle() && pair.server.mux.is_idle());
}

#[test]
fn what_was_written_before_a_handle_is_dropped_still_arrives() {
    let mut pair = pair();
    let id = pair.stream();
    pair.client.mux.write(id, b"last words").unwrap();
    pair.client.mux.release(id);
    pair.run();

    assert_eq!(pair.server.read_all(id, pair.now), b"last words");
    let cut = pair.server.mux.read(id, 1, pair.now, &mut |_| {});
    assert_eq!(cut, Err(StreamError::Reset { code: Code::Cancelled.number() }));
    assert!(pair.client.mux.is_idle());
}

#[test]
fn a_finished_upload_whose_handle_is_dropped_ends_cleanly_for_the_reader() {
    let mut pair = pair();
    let id = pair.stream();
    pair.client.mux.write(id, b"upload").unwrap();
    pair.client.mux.finish(id);
    pair.client.mux.release(id);
    pair.run();

    assert_eq!(pair.server.read_all(id, pair.now), b"upload");
    assert_eq!(pair.server.mux.read(id, 1, pair.now, &mut |_| {}), Ok(ReadOutcome::End));
}

#[test]
fn a_refused_stream_says_why() {
    let mut pair = pair();
    let id = pair.client.mux.open(Bytes::from_static(b"m"), pair.now).unwrap();
    pair.run();
    pair.server.mux.next_incoming().unwrap();
    pair.server.mux.reject(id, Code::NotOffered.number(), "no such service");
    pair.run();

    let expected = StreamError::Rejected { code: Code::NotOffered.number(), reason: "no such service".into() };
    assert_eq!(pair.client.mux.answer(id), Some(Err(expected)));
    assert!(pair.server.mux.is_idle());
}

// I27
#[test]
fn a_stream_that_nobody_reads_holds_its_window_and_no_more_and_the_others_go_on() {
    let mut pair = pair();
    let [stalled, lively] = [pair.stream(), pair.stream()];
    let block = vec![7; 64 * 1024];
    for _ in 0..64 {
        let _ = pair.client.mux.write(stalled, &block).unwrap();
        pair.run();
    }
    assert_eq!(pair.server.mux.received_unread(), 64 * 1024);

    let mut moved = 0;
    for _ in 0..1000 {
        moved += pair.client.mux.write(lively, &block).unwrap();
        pair.run();
        pair.server.read_all(lively, pair.now);
    }

    assert!(moved > 32 << 20, "{moved} octets");
}

// I27
#[test]
fn streams_that_fill_the_link_unread_are_reset_so_that_the_others_go_on() {
    let limits = Limits { link_window: 256 * 1024, ..Limits::server() };
    let mut pair = Pair::new(limits);
    let stalled: Vec<u32> = (0..6).map(|_| pair.stream()).collect();
    let lively = pair.stream();
    for id in &stalled {
        pair.client.mux.write(*id, &[0; 64 * 1024]).unwrap();
    }
    pair.run();
    pair.client.mux.write(lively, b"am I heard?").unwrap();
    pair.run();
    assert_eq!(pair.server.read_all(lively, pair.now), b"");

    for _ in 0..12 {
        pair.now += Duration::from_secs(1);
        pair.server.mux.handle_timeout(pair.now).unwrap();
        pair.run();
    }

    assert_eq!(pair.server.read_all(lively, pair.now), b"am I heard?");
    let first = pair.server.mux.read(stalled[5], 1, pair.now, &mut |_| {});
    assert_eq!(first, Err(StreamError::Stalled { after: Duration::from_secs(10) }));
}

#[test]
fn a_window_grows_while_its_stream_moves_and_stays_small_while_it_does_not() {
    let mut pair = pair();
    let id = pair.stream();
    let mut in_flight = 0;
    for _ in 0..200 {
        while pair.client.mux.write(id, &[0; 16384]).unwrap() > 0 {
            pair.client.transmit(pair.now);
        }
        pair.step(usize::MAX);
        in_flight = in_flight.max(pair.server.mux.received_unread());
        pair.server.read_all(id, pair.now);
        pair.step(usize::MAX);
    }

    assert!(in_flight > 1 << 20, "at most {in_flight} octets were under way");
    assert!(in_flight <= 4 << 20);
}

#[test]
fn a_keystroke_goes_before_bulk_that_was_written_earlier() {
    let mut pair = pair();
    let [bulk, shell] = [pair.stream(), pair.stream()];
    while pair.client.mux.write(bulk, &[0; 16384]).unwrap() > 0 {}
    let mut out = Outbox::default();
    pair.client.mux.poll_transmit(&mut out, DATA_LEN, pair.now); // the bulk stream has had its first turn
    pair.client.mux.write(shell, b"k").unwrap();

    pair.client.transmit(pair.now);

    let first = Header::peek(&pair.client.sent).unwrap().unwrap();
    assert_eq!((first.stream, first.length), (shell, 1));
}

#[test]
fn bulk_streams_take_turns() {
    let mut pair = pair();
    let streams = [pair.stream(), pair.stream(), pair.stream()];
    for id in streams {
        pair.client.mux.write(id, &[0; 64 * 1024]).unwrap();
    }
    let mut order = Vec::new();
    for _ in 0..2 {
        pair.client.transmit(pair.now);
        while let Some(header) = Header::peek(&pair.client.sent).unwrap() {
            order.push(header.stream);
            let _ = pair.client.sent.split_to(HEADER_LEN + header.length);
        }
    }

    assert_eq!(order[..6], [streams[0], streams[1], streams[2], streams[0], streams[1], streams[2]]);
}

#[test]
fn after_going_away_open_streams_go_on_and_new_ones_are_refused() {
    let mut pair = pair();
    let id = pair.stream();
    pair.server.mux.go_away(Code::GoingAway, "the proxy restarts");
    let crossing = pair.client.mux.open(Bytes::from_static(b"m"), pair.now).unwrap();
    pair.run();

    let refusal = pair.client.mux.answer(crossing).unwrap().unwrap_err();
    assert!(matches!(refusal, StreamError::Rejected { code: 3, .. }), "{refusal}");
    let late = pair.client.mux.open(Bytes::from_static(b"m"), pair.now).unwrap_err();
    assert_eq!(late, OpenError::GoingAway { reason: "the proxy restarts".into() });
    pair.client.mux.write(id, b"still here").unwrap();
    pair.run();
    assert_eq!(pair.server.read_all(id, pair.now), b"still here");
}

#[test]
fn a_closed_link_tells_each_stream_why_after_what_had_arrived() {
    let mut pair = pair();
    let id = pair.stream();
    pair.client.mux.write(id, b"arrived").unwrap();
    pair.run();
    let reason: Arc<str> = "the peer was silent".into();
    pair.server.mux.close(&reason);

    assert_eq!(pair.server.read_all(id, pair.now), b"arrived");
    let end = pair.server.mux.read(id, 1, pair.now, &mut |_| {});
    assert_eq!(end, Err(StreamError::LinkClosed { reason }));
    pair.server.mux.release(id);
    assert!(pair.server.mux.is_idle());
}

// I25
#[test]
fn octets_beyond_the_credit_end_the_link() {
    let (mut server, now) = server_of_a_forger(Limits::server());
    server.receive(&frame(1, 0, &Payload::Open("m".into())), now).unwrap();
    let mut sequence = 13;
    let data = Payload::Data(vec![0; 16_000].into());
    for _ in 0..4 {
        server.receive(&frame(1, sequence, &data), now).unwrap();
        sequence += 16_012;
    }

    let end = server.receive(&frame(1, sequence, &data), now).unwrap_err();

    assert_eq!(end, ProtocolError::Credit { stream: 1, length: 16_000, credit: 65_536 - 64_000 });
}

// I25
#[test]
fn frames_that_the_state_does_not_allow_end_the_link() {
    let forged: [(u32, Payload); 9] = [
        (3, Payload::Data("never opened".into())),
        (2, Payload::Open("a number of the server's".into())),
        (1, Payload::Open("a number that was used".into())),
        (1, Payload::Accept),
        (2, Payload::Fin),
        (7, Payload::Window(1)),
        (9, Payload::Reset(1)),
        (1, Payload::Window(i32::MAX as u32)),
        (0, Payload::Window(i32::MAX as u32)),
    ];
    for (stream, payload) in forged {
        let (mut server, now) = server_of_a_forger(Limits::server());
        server.receive(&frame(1, 0, &Payload::Open("m".into())), now).unwrap();

        let end = server.receive(&frame(stream, 13, &payload), now);

        assert!(end.is_err(), "{payload:?} on stream {stream} was taken");
    }
}

#[test]
fn a_lost_or_repeated_frame_ends_the_link() {
    for sequence in [0, 14, 26] {
        let (mut server, now) = server_of_a_forger(Limits::server());
        server.receive(&frame(1, 0, &Payload::Open("m".into())), now).unwrap();

        assert!(matches!(server.receive(&frame(1, sequence, &Payload::Fin), now), Err(ProtocolError::Link(_))));
    }
}

// I26
#[test]
fn a_peer_that_opens_and_resets_without_end_is_cut_off() {
    let (mut server, now) = server_of_a_forger(Limits::server());
    let mut sequence = 0;
    let cut_off = (0..30_000u32).map(|round| round * 2 + 1).find_map(|id| {
        let mut wire = frame(id, sequence, &Payload::Open("m".into()));
        wire.unsplit(frame(id, sequence.wrapping_add(13), &Payload::Reset(1)));
        sequence = sequence.wrapping_add(27);
        let result = server.receive(&wire, now);
        while server.mux.next_incoming().is_some() {}
        result.err()
    });

    assert_eq!(cut_off, Some(ProtocolError::Flood { what: "RESET frames" }));
    assert!(server.mux.stream_count() <= 1);
}

// I26
#[test]
fn a_peer_that_pings_without_end_is_cut_off() {
    let (mut server, now) = server_of_a_forger(Limits::server());
    let cut_off = (0..1000).find_map(|nonce| server.receive(&frame(0, 0, &Payload::Ping(nonce, 0)), now).err());

    assert_eq!(cut_off, Some(ProtocolError::Flood { what: "PING or PONG frames" }));
}

// I26
#[test]
fn streams_that_nobody_takes_are_refused_beyond_the_backlog_and_then_the_link_ends() {
    let limits = Limits { max_backlog: 10, ..Limits::server() };
    let (mut server, now) = server_of_a_forger(limits);
    let mut opened = 0;
    let end = loop {
        let wire = frame(opened * 2 + 1, opened * 13, &Payload::Open("m".into()));
        if let Err(end) = server.receive(&wire, now) {
            break end;
        }
        opened += 1;
    };

    assert_eq!(server.mux.stream_count(), 10);
    assert_eq!(end, ProtocolError::Flood { what: "OPEN frames" });
}

#[test]
fn octets_under_way_to_a_stream_that_was_reset_cost_no_credit() {
    let mut pair = pair();
    let id = pair.stream();
    for _ in 0..400 {
        let id = if id == 1 { pair.stream() } else { id };
        pair.client.mux.write(id, &[0; 64 * 1024]).unwrap();
        pair.server.mux.reset(id, Code::Cancelled.number());
        pair.run();
        pair.client.mux.release(id);
        pair.run();
    }
    let last = pair.stream();
    pair.client.mux.write(last, b"credit is left").unwrap();
    pair.run();

    assert_eq!(pair.server.read_all(last, pair.now), b"credit is left");
}

#[test]
fn the_hello_has_a_deadline() {
    let now = Instant::now();
    let mut mux = Mux::new(Side::Server, Limits::server(), now);
    let deadline = mux.poll_timeout().unwrap();

    mux.handle_timeout(deadline - Duration::from_millis(1)).unwrap();
    assert!(mux.handle_timeout(deadline).is_err());
}

#[test]
fn ten_thousand_streams_and_not_one_more() {
    let mut pair = pair();
    pair.run();
    for round in 0..10_000 {
        pair.client.mux.open(Bytes::from_static(b"m"), pair.now).unwrap();
        if round % 500 == 0 {
            pair.run();
            while let Some((id, _)) = pair.server.mux.next_incoming() {
                pair.server.mux.accept(id).unwrap();
            }
        }
    }
    pair.run();

    let refused = pair.client.mux.open(Bytes::from_static(b"m"), pair.now).unwrap_err();

    assert_eq!(refused, OpenError::TooMany { most: 10_000 });
}

#[test]
fn the_hello_goes_out_first_also_when_the_peer_s_was_here_before() {
    let mut pair = Pair::new(Limits::server());
    let now = pair.now;
    pair.client.transmit(now);
    let hello = pair.client.sent.split();
    pair.server.receive(&hello, now).unwrap();
    assert!(pair.server.mux.wants_transmit());
    pair.server.transmit(now);
    assert!(pair.server.sent.starts_with(b"RLNK"));
    pair.run();
    assert!(pair.client.mux.is_up() && pair.server.mux.is_up());
}
