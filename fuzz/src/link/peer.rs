//! A link against a peer that lies about what it has.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use remoteler_tunnel::{BODY_LEN, Header, Hello, MINOR, Mux, Payload, RESUME, ReplayBudget, Side};

use super::{LINK_WINDOW, resumable, transmit};

const HEADER_LEN: usize = 12;

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
