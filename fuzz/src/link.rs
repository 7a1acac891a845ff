//! The link that is taken up again, with one input: against a peer that lies about what it has, and over a path that loses connections.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use remoteler_tunnel::{
    BODY_LEN, Code, Header, Hello, Limits, MINOR, Mux, Outbox, Payload, ProtocolError, RESUME, ReadOutcome,
    ReplayBudget, Side, StreamError,
};

const HEADER_LEN: usize = 12;
const LINK_WINDOW: u32 = 60_000;

fn limits(side: Side) -> Limits {
    let usual = if side == Side::Client { Limits::client() } else { Limits::server() };
    Limits { link_window: LINK_WINDOW, stream_window: 5000, max_streams: 20, max_backlog: 8, ..usual }
}

fn resumable(side: Side, now: Instant) -> (Mux, ReplayBudget) {
    let (mut mux, budget) = (Mux::new(side, limits(side), now), ReplayBudget::new(100_000));
    mux.make_resumable(budget.clone());
    (mux, budget)
}

/// All that one batch has.
fn transmit(mux: &mut Mux, now: Instant) -> Vec<u8> {
    let (mut out, mut octets) = (Outbox::default(), Vec::new());
    mux.poll_transmit(&mut out, 10_000, now);
    while !out.is_empty() {
        let mut slices = [IoSlice::new(&[]); 64];
        let used = out.fill(&mut slices);
        let before = octets.len();
        slices[..used].iter().for_each(|slice| octets.extend_from_slice(slice));
        out.advance(octets.len() - before);
    }
    octets
}

/// The length of a frame without a number that begins here.
fn unnumbered(octets: &[u8]) -> Option<usize> {
    let header = Header::peek(octets).ok()??;
    let length = HEADER_LEN + header.length;
    (!header.kind.is_sequenced() && length <= octets.len()).then_some(length)
}

/// What has a number among `frames`, if they are nothing but frames, the first number being `next`.
fn numbered(mut frames: &[u8], next: usize) -> Option<Vec<u8>> {
    let mut numbered = Vec::new();
    while !frames.is_empty() {
        let header = Header::peek(frames).ok()??;
        let (frame, behind) = frames.split_at_checked(HEADER_LEN + header.length)?;
        if header.kind.is_sequenced() {
            if header.sequence as usize != next + numbered.len() {
                return None;
            }
            numbered.extend_from_slice(frame);
        }
        frames = behind;
    }
    Some(numbered)
}

/// All ways to read `sent` as octets of `log` from one of these places on with frames without a number among them, which may begin with the octets
/// that they stand before: how many octets were read when the log or `sent` was used up, and up to where in the log.
fn readings(sent: &[u8], log: &[u8], from: &BTreeSet<usize>) -> BTreeSet<(usize, usize)> {
    let (mut ways, mut ends) = (BTreeSet::from_iter(from.iter().map(|from| (0, *from))), BTreeSet::new());
    while let Some((used, at)) = ways.pop_first() {
        let (rest, then) = (&sent[used..], &log[at..]);
        if rest.is_empty() || then.is_empty() {
            ends.insert((used, at));
            continue;
        }
        ways.extend(unnumbered(rest).map(|length| (used + length, at)));
        let same = rest.iter().zip(then).take_while(|(now, then)| now == then).count();
        let fork = (1..=same).find(|count| unnumbered(&rest[*count..]).is_some());
        ways.extend(
            fork.or((same == rest.len().min(then.len())).then_some(same)).map(|count| (used + count, at + count)),
        );
    }
    ends
}

/// What a machine sends in order, as one who takes notes sees it.
struct Notes {
    mux: Mux,
    budget: ReplayBudget,
    now: Instant,
    /// Every sequenced octet that was sent, once.
    log: Vec<u8>,
    acked: usize,
    /// How far what goes out again has come, by each reading of what was sent; all of it is out where that is the end.
    again: BTreeSet<usize>,
    greeted: bool,
}

impl Notes {
    fn transmit(&mut self) {
        let octets = transmit(&mut self.mux, self.now);
        let mut rest = &octets[..];
        if !std::mem::replace(&mut self.greeted, true) {
            rest = &rest[8 + BODY_LEN..];
        }
        let new = self.mux.sent_octets() as usize - self.log.len();
        let readings = readings(rest, &self.log, &self.again);
        let sent = readings.iter().filter_map(|(used, at)| {
            if *at < self.log.len() {
                return (*used == rest.len()).then_some((*at, Vec::new()));
            }
            let frames = numbered(&rest[*used..], self.log.len())?;
            Some((self.log.len() + frames.len(), frames))
        });
        let sent: Vec<_> = sent.filter(|(_, frames)| frames.len() == new).collect();
        let (_, frames) = sent.first().expect("a batch holds octets that went out before, and frames in order");
        self.log.extend_from_slice(frames);
        self.again = sent.iter().map(|(at, _)| *at).collect();
    }

    /// Something between what was acknowledged and what was sent.
    fn within(&self, with: u8) -> usize {
        self.acked + (self.log.len() - self.acked) * usize::from(with) / 255
    }

    /// An acknowledgement arrives, by a frame of any of three kinds; whether the link lives.
    fn hear_ack(&mut self, ack: u32, with: u8) -> bool {
        let news = ack.wrapping_sub(self.acked as u32) as usize;
        let good = news <= self.log.len() - self.acked;
        let payload = match with % 3 {
            0 => Payload::Ack(ack),
            1 => Payload::Ping(u64::from(with), ack),
            _ => Payload::Pong(u64::from(with), ack),
        };
        let lives = self.hear(0, 0, payload);
        assert!(good || !lives, "{ack} was believed, between {} and {}", self.acked, self.log.len());
        self.acked += if lives { news } else { 0 };
        lives
    }

    fn hear(&mut self, stream: u32, sequence: u32, payload: Payload) -> bool {
        let mut input = BytesMut::new();
        Header { kind: payload.kind(), length: payload.wire_len(), stream, sequence, prompt: false }.put(&mut input);
        payload.put(&mut input);
        self.mux.handle_input(&mut input, self.now).is_ok()
    }
}

/// A link that can be taken up again, against a peer that acknowledges and claims what it likes and loses connections at any time. Input: two octets
/// a step. Nothing is believed that cannot be, and what goes out again is what went out before, octet for octet.
pub fn link_peer(script: &[u8]) {
    let Some((first, script)) = script.split_first() else { return };
    let now = Instant::now();
    let (side, theirs) = if first.is_multiple_of(2) { (Side::Server, 1) } else { (Side::Client, 2) };
    let (mux, budget) = resumable(side, now);
    let mut link = Notes { mux, budget, now, log: Vec::new(), acked: 0, again: BTreeSet::from([0]), greeted: false };
    let mut input = BytesMut::new();
    let hello = Hello {
        minor: MINOR,
        features: RESUME,
        max_streams: 10,
        stream_window: 5000,
        link_window: 20_000,
        max_data: 2000,
        max_metadata: 4096,
    };
    hello.put(&mut input);
    link.mux.handle_input(&mut input, now).expect("the hello is good");
    let (mut suspended, mut opened, mut mine) = (false, theirs, Vec::new());
    for step in script.chunks_exact(2) {
        let (what, with) = (step[0] % 16, step[1]);
        let sequence = link.mux.received_octets() as u32;
        let lives = match what {
            // On the connection, while there is one.
            0..=5 if suspended => continue,
            0 => {
                link.transmit();
                true
            }
            1 => link.hear_ack(link.within(with) as u32, with),
            2 => link.hear_ack((link.acked as u32).wrapping_add(u32::from(with) * 97).wrapping_sub(4000), with),
            3 => {
                let wrong = u32::from(with.is_multiple_of(16));
                let lives = link.hear(opened, sequence.wrapping_add(wrong), Payload::Open(Bytes::from_static(b"m")));
                opened += 2;
                assert!(wrong == 0 || !lives, "a frame out of sequence was taken");
                lives
            }
            4 => link.hear(theirs, sequence, Payload::Data(vec![with; usize::from(with) * 6 + 1].into())),
            5 => link.hear(u32::from(with % 8), sequence, Payload::Window(u32::from(with) * 100 + 1)),
            // Here.
            6 | 7 => {
                mine.extend(link.mux.open(vec![b'm'; usize::from(with) + 1].into(), link.now).ok());
                true
            }
            8..=10 => {
                if let Some(id) = mine.get(usize::from(with) % mine.len().max(1)) {
                    let _ = link.mux.write(*id, &[with; 3000]);
                }
                true
            }
            11 => {
                if let Some((id, _)) = link.mux.next_incoming() {
                    mine.push(id);
                    let _ = link.mux.accept(id);
                }
                true
            }
            12 => {
                link.now += Duration::from_millis(u64::from(with) * 20);
                suspended || link.mux.handle_timeout(link.now).is_ok()
            }
            13 => {
                link.mux.suspend();
                suspended = true;
                true
            }
            // The peer says on another connection what it has: what can be, or anything.
            _ => {
                let claims = match what {
                    14 => link.within(with) as u64,
                    _ => (link.acked as u64).wrapping_add(u64::from(with) * 61).wrapping_sub(3000),
                };
                let can_be = (link.acked as u64..=link.log.len() as u64).contains(&claims);
                let lives = link.mux.resume(claims, link.now).is_ok();
                assert_eq!(lives, can_be, "{claims} of {} to {}", link.acked, link.log.len());
                if lives {
                    link.acked = claims as usize;
                    link.again = BTreeSet::from([link.acked]);
                    suspended = false;
                }
                lives
            }
        };
        if !lives {
            link.mux.close(&"the peer broke the protocol".into());
            return;
        }
        while link.mux.poll_event().is_some() {}
        assert_eq!(link.mux.sent_octets() as usize, link.log.len());
        assert_eq!(link.budget.kept(), link.log.len() - link.acked, "what is kept is what is not acknowledged");
        assert!(link.budget.kept() <= 170_000 && link.mux.received_unread() <= LINK_WINDOW as usize);
    }
}

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
