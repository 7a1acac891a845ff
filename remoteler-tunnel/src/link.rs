//! The layer below the multiplexer: sequence numbers, acknowledgements and keepalive. Owns what is known of the
//! path to the peer: what was sent and not yet acknowledged, when the peer was last heard, the round-trip time.
//! Never looks into a payload, touches a socket or a clock.
//!
//! Like TCP, the sequence counts octets: a frame's number is how many sequenced octets (headers included) went
//! before it. So an acknowledgement is one number, and what a later resumption has to send again is a range.

mod another;
mod brisk;
#[cfg(test)]
mod pace;
mod path;
mod silence;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use self::brisk::Brisk;
pub use self::brisk::{LEAST_UNDER_WAY, PROMPT_EVERY, PROMPT_LEAST};
use self::path::{Behind, Drain, RoundTrip, UNQUEUED};
pub(crate) use self::silence::STOOD_STILL;
use crate::frame::{HEADER_LEN, Header, Payload};

/// Received sequenced octets after which an ACK is due at the latest.
pub const ACK_EVERY: u64 = 256 * 1024;
/// Time after which an ACK for anything received is due at the latest.
pub const ACK_WITHIN: Duration = Duration::from_secs(1);
/// Silence, with something unacknowledged, after which the peer of a link that can be resumed is asked.
pub const ASK_WITHIN: Duration = Duration::from_secs(3);
/// Silence, with something unacknowledged, after which the connection of a link that can be resumed is given up.
pub const DOUBT_AFTER: Duration = Duration::from_secs(8);

/// When a silent peer is asked, and when it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence after which a PING is sent.
    pub ping_after: Duration,
    /// Silence after which the link is dead.
    pub dead_after: Duration,
}

impl Keepalive {
    /// The side that made the connection asks after 27 s and gives up after 30 s: a PING, its PONG and their TCP
    /// acknowledgements are under 310 octets on the wire, 3,200 times a day, so under 1 MB a day.
    pub const CLIENT: Self = Self { ping_after: Duration::from_secs(27), dead_after: Duration::from_secs(30) };
    /// The other side hears those PINGs and asks only when they stay away.
    pub const SERVER: Self = Self { ping_after: Duration::from_secs(28), dead_after: Duration::from_secs(30) };
    /// The client's where octets are paid for: 288 times those 310 octets are under 100 KB a day.
    pub const METERED_CLIENT: Self =
        Self { ping_after: Duration::from_secs(300), dead_after: Duration::from_secs(330) };
    /// The server's for such a client.
    pub const METERED_SERVER: Self =
        Self { ping_after: Duration::from_secs(310), dead_after: Duration::from_secs(330) };
}

/// The least that the side that made the connection waits before it asks so, and then before it looks for another connection; on paths with long
/// round trips it is two of them, and four.
pub const SOONEST: Duration = Duration::from_millis(250);

/// State of the path to one peer.
#[derive(Debug)]
pub struct Sequence {
    keepalive: Keepalive,
    max_unacked: u64,
    sent: u64,
    acked: u64,
    received: u64,
    ack_sent: u64,
    /// When an ACK has to go out, though little was received.
    ack_due: Option<Instant>,
    /// Since when something of ours is unacknowledged.
    unacked_since: Option<Instant>,
    /// When what was sent so far will have left, at the pace of the last acknowledgements or a part of that before; and how many of the octets sent that counts.
    clears: Instant,
    timed: u64,
    /// Whether silence is doubted early, because a lost connection loses no stream.
    resumable: bool,
    /// Whether this side can look for another connection, and asks soon.
    watchful: bool,
    /// Whether streams have moved since the peer last answered.
    stirred: bool,
    /// Whether it left a question unanswered for longer than this path takes.
    doubted: bool,
    /// How many connections one after the other have brought nothing of ours across: the next one has longer (RFC 6298 section 5.5), or a frame
    /// that takes longer than one is given never arrives.
    futile: u32,
    /// Of what was sent, octets that go out again on this connection and have not yet.
    again: u64,
    /// When the last two connections were let go that were doubted, and whether the present one is. Many within little time were made for nothing.
    replaced: [Option<Instant>; 2],
    let_go_doubted: bool,
    heard: Instant,
    /// When this process was last found to have stood still.
    awake_since: Instant,
    ping: Ping,
    pong_due: Option<u64>,
    round_trip: RoundTrip,
    drain: Drain,
    brisk: Brisk,
}

/// Where the one PING in flight is.
#[derive(Clone, Copy, Debug)]
enum Ping {
    None {
        next: u64,
    },
    Due {
        nonce: u64,
        since: Instant,
    },
    /// Behind all sequenced octets up to `sent`, which will have `left` then, and of which so many were `ahead` of it, unacknowledged; so many had been
    /// `received`.
    Sent {
        nonce: u64,
        at: Instant,
        sent: u64,
        left: Instant,
        ahead: u64,
        received: u64,
    },
}

impl Sequence {
    /// A path over which nothing went yet. At most `max_unacked` sequenced octets are in flight.
    pub fn new(keepalive: Keepalive, max_unacked: u64, now: Instant) -> Self {
        Self {
            keepalive,
            max_unacked,
            sent: 0,
            acked: 0,
            received: 0,
            ack_sent: 0,
            ack_due: None,
            unacked_since: None,
            clears: now,
            timed: 0,
            resumable: false,
            watchful: false,
            stirred: false,
            doubted: false,
            futile: 0,
            again: 0,
            replaced: [None; 2],
            let_go_doubted: false,
            heard: now,
            awake_since: now,
            ping: Ping::None { next: 1 },
            pong_due: None,
            round_trip: RoundTrip::default(),
            drain: Drain::default(),
            brisk: Brisk::default(),
        }
    }

    /// Notes that something arrived, whatever it was.
    pub fn heard(&mut self, now: Instant) {
        self.notice_standstill(now);
        self.heard = now;
        self.doubt_ends();
    }

    /// The next answer is waited for longer. Not before: a doubt puts off no end of the connection that it is about.
    fn doubt_ends(&mut self) {
        if std::mem::take(&mut self.doubted) {
            self.round_trip.overdue();
        }
    }

    /// Takes the header of a received frame into the count.
    ///
    /// # Errors
    /// A frame is missing before it, or it was here already.
    pub fn received(&mut self, header: &Header) -> Result<(), LinkError> {
        if !header.kind.is_sequenced() {
            return Ok(());
        }
        let expected = self.received as u32;
        if header.sequence != expected {
            return Err(LinkError::Gap { kind: header.kind.name(), sequence: header.sequence, expected });
        }
        if self.received == self.ack_sent {
            self.ack_due = Some(self.heard + ACK_WITHIN);
        }
        self.received += (HEADER_LEN + header.length) as u64;
        if header.prompt && self.received - self.ack_sent >= PROMPT_LEAST {
            self.ack_due = None;
        }
        self.stirred = true;
        Ok(())
    }

    /// Takes an acknowledgement: of an ACK, PING or PONG. Returns how many octets it acknowledged that were not before.
    ///
    /// # Errors
    /// It goes back, or ahead of what was sent.
    pub fn acknowledged(&mut self, ack: u32) -> Result<u64, LinkError> {
        let advance = u64::from(ack.wrapping_sub(self.acked as u32));
        if advance > self.sent - self.acked {
            return Err(LinkError::Ack { ack, acked: self.acked as u32, sent: self.sent as u32 });
        }
        if let Some(since) = self.unacked_since
            && advance > 0
            && self.sent - self.acked > UNQUEUED
            && self.awake_since <= since
        {
            self.drain.measured(advance, self.heard.saturating_duration_since(since));
        }
        self.acked += advance;
        if advance > 0 {
            self.futile = 0;
            self.unacked_since = (self.sent > self.acked).then_some(self.heard);
            self.clears = self.heard + self.drain.takes(self.timed.saturating_sub(self.acked));
            if let Ping::Sent { sent, left, .. } = &mut self.ping {
                *left = self.heard + self.drain.takes(sent.saturating_sub(self.acked));
            }
            self.ask_behind_no_queue(self.heard);
        }
        Ok(advance)
    }

    /// What the last answer took was a queue's that is gone: what one takes without it is asked now, for when the path is lost it is late.
    fn ask_behind_no_queue(&mut self, now: Instant) {
        if let Ping::None { next } = self.ping
            && self.watchful
            && self.round_trip.was_behind_queue()
            && self.sent - self.acked <= UNQUEUED
        {
            self.ping = Ping::Due { nonce: next, since: now };
        }
    }

    /// Notes that the peer wants a PONG. Of several PINGs before it is sent only the last is answered.
    pub fn pinged(&mut self, nonce: u64) {
        self.pong_due = Some(nonce);
    }

    /// Takes a PONG. One that was not asked for changes nothing; says whether it was.
    pub fn ponged(&mut self, nonce: u64, now: Instant) -> bool {
        let Ping::Sent { nonce: asked, at, ahead, received, .. } = self.ping else { return false };
        if nonce != asked {
            return false;
        }
        self.stirred = false;
        if self.awake_since > at {
            // It waited for this process, nobody knows how long.
            self.ping = Ping::Due { nonce: asked + 1, since: now };
            return true;
        }
        // What came meanwhile came before the answer.
        let behind = match (ahead > UNQUEUED, self.received - received > UNQUEUED) {
            (true, _) => Behind::Ours,
            (false, true) => Behind::Theirs,
            (false, false) => Behind::Nothing,
        };
        self.round_trip.measured(now.saturating_duration_since(at), behind, now);
        self.ping = Ping::None { next: asked + 1 };
        self.ask_behind_no_queue(now);
        true
    }

    /// Asks for the round-trip time to be measured, unless that was done within the last second.
    pub fn probe(&mut self, now: Instant) {
        let fresh = self.round_trip.measured_at().is_some_and(|at| now.saturating_duration_since(at) < PROBE_EVERY);
        if let Ping::None { next } = self.ping
            && !fresh
        {
            self.ping = Ping::Due { nonce: next, since: now };
        }
    }

    /// Lowest round-trip time of the last half minute of measuring, if any was measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.least()
    }

    /// Octets, headers included, that may still be sent before the peer acknowledges some.
    pub fn room(&self) -> usize {
        usize::try_from(self.max_unacked.saturating_sub(self.sent - self.acked)).unwrap_or(usize::MAX)
    }

    /// The peer acknowledges at once what asks for it.
    pub fn agree_on_prompt(&mut self) {
        self.brisk.agree();
    }

    /// A stream that had been quiet said little: for a second no more bulk data is sent ahead of the next such octets than the path needs.
    pub fn typed(&mut self, now: Instant) {
        self.brisk.typed(now);
    }

    /// What was said was the beginning of much.
    pub fn typed_nothing(&mut self) {
        self.brisk.rest();
    }

    /// Octets, headers included, that bulk data may add now.
    pub fn bulk_room(&self, now: Instant) -> usize {
        let room = self.room();
        let Some(round_trip) = self.round_trip.usual().filter(|_| self.brisk.holds(now)) else { return room };
        let most = self.brisk.room(self.acked, self.sent, self.drain.taken_in(round_trip));
        room.min(usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// Whether the next frame, with a payload of `length` octets, asks for an acknowledgement.
    pub fn asks(&mut self, length: usize, now: Instant) -> bool {
        self.brisk.asks(self.sent + (HEADER_LEN + length) as u64, now)
    }

    /// Takes the number of the next sequenced frame, whose payload has `length` octets.
    pub fn next(&mut self, length: usize) -> u32 {
        let sequence = self.sent as u32;
        self.sent += (HEADER_LEN + length) as u64;
        sequence
    }

    /// The frame of this layer that has to go out now, if any.
    pub fn poll_output(&mut self, now: Instant) -> Option<Payload> {
        let ack = self.received as u32;
        let payload = if let Some(nonce) = self.pong_due.take() {
            Payload::Pong(nonce, ack)
        } else if let Ping::Due { nonce, .. } = self.ping
            && !self.must_repeat_first()
        {
            let (sent, received) = (self.sent - self.again, self.received);
            self.count_sent(now);
            let (left, ahead) = (self.clears, sent.saturating_sub(self.acked));
            self.ping = Ping::Sent { nonce, at: now, sent, left, ahead, received };
            Payload::Ping(nonce, ack)
        } else if self.wants_ack() {
            Payload::Ack(ack)
        } else {
            return None;
        };
        self.ack_sent = self.received;
        self.ack_due = None;
        Some(payload)
    }

    /// Whether a frame that goes out again is next, and none is under way: a question in front of it would be answered also where the path never takes
    /// one of those frames, and would say that it does.
    pub fn must_repeat_first(&self) -> bool {
        self.again > 0 && self.sent - self.again <= self.acked
    }

    /// Whether an ACK is due: much was received, or [`handle_timeout`](Self::handle_timeout) found that it was long ago.
    fn wants_ack(&self) -> bool {
        let unsaid = self.received - self.ack_sent;
        unsaid >= ACK_EVERY || (unsaid > 0 && self.ack_due.is_none())
    }

    /// Notes that what was numbered so far is on its way.
    pub fn transmitted(&mut self, now: Instant) {
        if self.sent > self.acked {
            self.unacked_since.get_or_insert(now);
        }
        self.count_sent(now);
    }

    /// Octets wait for those before them only: while nothing was written the path took nothing.
    fn count_sent(&mut self, now: Instant) {
        let under_way = self.sent - self.again;
        let new = under_way.saturating_sub(self.timed);
        if new > 0 {
            self.timed = under_way;
            self.clears = self.clears.max(now) + self.drain.takes(new);
        }
    }

    /// So many of the octets that were sent go out again first.
    pub fn goes_again(&mut self, octets: u64) {
        self.again = octets;
    }

    /// So many of them are on their way.
    pub fn went_again(&mut self, octets: u64) {
        self.again = self.again.saturating_sub(octets);
    }

    /// Both sides have agreed on other times.
    pub fn set_keepalive(&mut self, keepalive: Keepalive) {
        self.keepalive = keepalive;
    }

    /// From now on a connection may be doubted early: the link outlives it. Who can make another one is `watchful`, unless octets are paid for.
    pub fn make_resumable(&mut self, watchful: bool) {
        self.resumable = true;
        self.watchful = watchful;
    }

    /// Whether the peer left a question unanswered for longer than this path takes, and nothing else is heard of it either: worth another
    /// connection beside this one, not yet the end of it.
    pub fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// Sequenced octets sent so far.
    pub fn sent_octets(&self) -> u64 {
        self.sent
    }

    /// Sequenced octets received so far.
    pub fn received_octets(&self) -> u64 {
        self.received
    }

    /// What an answer may take before this side doubts the connection.
    pub fn patience(&self) -> Duration {
        self.round_trip.patience()
    }

    /// Whether [`poll_output`](Self::poll_output) has something.
    pub fn has_output(&self) -> bool {
        self.pong_due.is_some() || matches!(self.ping, Ping::Due { .. }) || self.wants_ack()
    }
}

const PROBE_EVERY: Duration = Duration::from_secs(1);

/// What ends a link from below.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// A frame is out of sequence.
    #[error("a {kind} frame has sequence number {sequence}, {expected} is next")]
    Gap {
        /// The frame's name.
        kind: &'static str,
        /// Its number.
        sequence: u32,
        /// The number it must have.
        expected: u32,
    },
    /// An acknowledgement of what was never sent, or of less than before.
    #[error("octet {ack} was acknowledged, only {acked} to {sent} can be")]
    Ack {
        /// What was acknowledged.
        ack: u32,
        /// What was acknowledged before.
        acked: u32,
        /// What was sent.
        sent: u32,
    },
    /// The peer is gone.
    #[error("the peer was silent for {} s", silence.as_secs())]
    Silent {
        /// How long.
        silence: Duration,
    },
}
