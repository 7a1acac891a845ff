//! A link over a path that loses connections.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use remoteler_tunnel::{Code, Mux, ProtocolError, ReadOutcome, ReplayBudget, Side, StreamError};

use super::{resumable, transmit};

/// One end of an honest link.
struct End {
    mux: Mux,
    budget: ReplayBudget,
    /// On their way to the other end.
    wire: Vec<u8>,
    /// Arrived, and no whole frame yet.
    input: BytesMut,
    /// Whether it thinks that it has a connection.
    up: bool,
}

/// What became of a stream: octets written and read, by who wrote them.
#[derive(Default)]
struct Course {
    written: [u64; 2],
    read: [u64; 2],
    /// Somebody ended it before its time.
    cut: bool,
}

struct Path {
    ends: [End; 2],
    now: Instant,
    /// Whether octets arrive.
    whole: bool,
    streams: BTreeMap<u32, Course>,
}

impl Path {
    fn new() -> Self {
        let now = Instant::now();
        let ends = [Side::Client, Side::Server].map(|side| {
            let (mux, budget) = resumable(side, now);
            End { mux, budget, wire: Vec::new(), input: BytesMut::new(), up: true }
        });
        let mut path = Self { ends, now, whole: true, streams: BTreeMap::new() };
        path.carry(0, usize::MAX);
        path.carry(1, usize::MAX);
        path
    }

    /// Octets of `from` leave, and so many arrive at the other end.
    fn carry(&mut self, from: usize, most: usize) {
        let [client, server] = &mut self.ends;
        let (from, to) = if from == 0 { (client, server) } else { (server, client) };
        if from.up {
            from.wire.extend(transmit(&mut from.mux, self.now));
        }
        if !self.whole || !to.up {
            from.wire.clear();
            return;
        }
        let count = most.min(from.wire.len());
        to.input.extend(from.wire.drain(..count));
        to.mux.handle_input(&mut to.input, self.now).expect("both keep to the protocol");
    }

    fn lose(&mut self, end: usize) {
        self.whole = false;
        self.ends[end].mux.suspend();
        self.ends[end].up = false;
        self.ends.iter_mut().for_each(|end| end.wire.clear());
    }

    /// As the client and the server of a resumption do it: each lets go of what it has, says what it received, and goes on.
    fn take_up(&mut self) {
        self.lose(0);
        self.lose(1);
        let received = [0, 1].map(|end| self.ends[end].mux.received_octets());
        for (end, peer_received) in [(0, received[1]), (1, received[0])] {
            let end = &mut self.ends[end];
            end.input.clear();
            end.mux.resume(peer_received, self.now).expect("the other end has what it says");
            end.up = true;
        }
        self.whole = true;
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for end in 0..2 {
            if !self.ends[end].up {
                continue;
            }
            match self.ends[end].mux.handle_timeout(self.now) {
                Ok(()) => {}
                Err(ProtocolError::Link(_)) => self.lose(end), // silence
                Err(broken) => panic!("both keep to the protocol, and one says: {broken}"),
            }
        }
    }

    /// An end of a stream that only somebody's will explains.
    fn ended(&mut self, id: u32, cause: &StreamError) {
        let stream = self.streams.get_mut(&id).expect("opened here");
        // Too many, or not read for too long.
        stream.cut |= matches!(cause, StreamError::Stalled { .. } | StreamError::Rejected { .. })
            || *cause == StreamError::Reset { code: Code::Stalled.number() };
        assert!(stream.cut || *cause == StreamError::Finished, "stream {id}: {cause}");
    }

    fn write(&mut self, end: usize, id: u32, count: usize) {
        let from = self.streams[&id].written[end];
        let octets: Vec<u8> = (from..).take(count).map(|at| octet(id, end, at)).collect();
        match self.ends[end].mux.write(id, &octets) {
            Ok(taken) => self.streams.get_mut(&id).expect("opened here").written[end] += taken as u64,
            // Its OPEN is not here yet.
            Err(StreamError::Unknown) if id.is_multiple_of(2) != (end == 1) => {}
            Err(cause) => self.ended(id, &cause),
        }
    }

    fn read(&mut self, end: usize, id: u32, most: usize) {
        let course = self.streams.get_mut(&id).expect("opened here");
        let (writer, read) = (1 - end, &mut course.read[1 - end]);
        let outcome = self.ends[end].mux.read(id, most, self.now, &mut |piece| {
            for heard in piece {
                assert_eq!(*heard, octet(id, writer, *read), "stream {id}, octet {read}");
                *read += 1;
            }
        });
        match outcome {
            Ok(ReadOutcome::End) => assert_eq!(course.read[writer], course.written[writer], "the end of stream {id}"),
            Ok(ReadOutcome::Read(_) | ReadOutcome::Blocked) => {}
            Err(StreamError::Unknown) if id.is_multiple_of(2) != (end == 1) => {}
            Err(cause) => self.ended(id, &cause),
        }
    }

    fn accept_all(&mut self, end: usize) {
        while let Some((id, _)) = self.ends[end].mux.next_incoming() {
            let _ = self.ends[end].mux.accept(id);
        }
    }
}

fn octet(id: u32, end: usize, at: u64) -> u8 {
    ((u64::from(id) << 1 | end as u64).wrapping_mul(0x9e37).wrapping_add(at).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 56)
        as u8
}

/// Two ends that keep to the protocol, over a path that loses connections, for one end sooner than for the other and within frames; time passes, and
/// silence is found. Input: two octets a step. Every octet arrives once and in order, neither end ever finds a fault with the other, and in the
/// end nothing is kept.
pub fn link_path(script: &[u8]) {
    let mut path = Path::new();
    for step in script.chunks_exact(2) {
        let (what, with) = (step[0], usize::from(step[1]));
        let end = usize::from(what >> 7);
        let ids: Vec<u32> = path.streams.keys().copied().collect();
        let id = ids.get(with % ids.len().max(1)).copied();
        match (what % 16, id) {
            (0 | 1, _) => {
                if let Ok(id) = path.ends[end].mux.open(Bytes::from_static(b"m"), path.now) {
                    path.streams.insert(id, Course::default());
                }
            }
            (2, _) => path.accept_all(end),
            (3..=5, Some(id)) => path.write(end, id, with * 40 + 1),
            (6 | 7, Some(id)) => path.read(end, id, with * 40 + 1),
            (8, Some(id)) => path.ends[end].mux.finish(id),
            (9, Some(id)) if with.is_multiple_of(4) => {
                path.ends[end].mux.reset(id, Code::Cancelled.number());
                path.streams.get_mut(&id).expect("opened here").cut = true;
            }
            (10..=12, _) => path.carry(end, with * 64 + 1),
            (13, _) => path.lose(end),
            (14, _) => path.take_up(),
            (15, _) => path.pass(Duration::from_millis((with * with) as u64)),
            _ => {}
        }
        while path.ends.iter_mut().any(|end| end.mux.poll_event().is_some()) {}
        assert!(path.ends.iter().all(|end| end.budget.kept() <= 170_000), "more is kept than may be");
    }
    settle(&mut path);
}

/// From now on nothing is lost.
fn settle(path: &mut Path) {
    path.take_up();
    for _ in 0..200 {
        for end in 0..2 {
            path.carry(end, usize::MAX);
            path.accept_all(end);
            let ids: Vec<u32> = path.streams.keys().copied().collect();
            for id in ids {
                path.read(end, id, usize::MAX);
                path.write(end, id, 0); // who has read to the end learns here that the other reads no more
            }
        }
        path.pass(Duration::from_millis(300));
        while path.ends.iter_mut().any(|end| end.mux.poll_event().is_some()) {}
    }
    assert!(path.whole, "a path that loses nothing was left");
    for (id, stream) in &path.streams {
        assert!(stream.cut || stream.read == stream.written, "stream {id}: {:?} of {:?}", stream.read, stream.written);
    }
    assert_eq!([0, 1].map(|end| path.ends[end].budget.kept()), [0, 0], "octets are kept that both have");
}
