//! The layer below the multiplexer: sequence numbers, acknowledgements and keepalive. Owns what is known of the
//! path to the peer: what was sent and not yet acknowledged, when the peer was last heard, the round-trip time.
//! Never looks into a payload, touches a socket or a clock.
//!
//! Like TCP, the sequence counts octets: a frame's number is how many sequenced octets (headers included) went
//! before it. So an acknowledgement is one number, and what a later resumption has to send again is a range.

use std::time::{Duration, Instant};

use crate::frame::{HEADER_LEN, Header, Payload};

/// Received sequenced octets after which an ACK is due at the latest.
pub const ACK_EVERY: u64 = 256 * 1024;

/// When a silent peer is asked, and when it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence after which a PING is sent.
    pub ping_after: Duration,
    /// Silence after which the link is dead.
    pub dead_after: Duration,
}

impl Keepalive {
    /// The side that made the connection asks after 30 s and gives up after 45 s: a PING, its PONG and their TCP
    /// acknowledgements are under 320 octets on the wire, 2,880 times a day, so under 1 MB a day.
    pub const CLIENT: Self = Self { ping_after: Duration::from_secs(30), dead_after: Duration::from_secs(45) };
    /// The other side hears those PINGs and asks only when they stay away.
    pub const SERVER: Self = Self { ping_after: Duration::from_secs(35), dead_after: Duration::from_secs(45) };
}

/// State of the path to one peer.
#[derive(Debug)]
pub struct Sequence {
    keepalive: Keepalive,
    max_unacked: u64,
    sent: u64,
    acked: u64,
    received: u64,
    ack_sent: u64,
    heard: Instant,
    ping: Ping,
    pong_due: Option<u64>,
    round_trip: RoundTrip,
}

/// Where the one PING in flight is.
#[derive(Clone, Copy, Debug)]
enum Ping {
    None { next: u64 },
    Due { nonce: u64 },
    Sent { nonce: u64, at: Instant },
}

/// The lowest round-trip time of late: queues that our own bulk data builds up do not count as distance.
#[derive(Clone, Copy, Debug, Default)]
struct RoundTrip {
    least: Option<(Duration, Instant)>,
    measured: Option<Instant>,
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
            heard: now,
            ping: Ping::None { next: 1 },
            pong_due: None,
            round_trip: RoundTrip::default(),
        }
    }

    /// Notes that something arrived, whatever it was.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
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
        self.received += (HEADER_LEN + header.length) as u64;
        Ok(())
    }

    /// Takes an acknowledgement: of an ACK, PING or PONG. Says whether it acknowledged anything new.
    ///
    /// # Errors
    /// It goes back, or ahead of what was sent.
    pub fn acknowledged(&mut self, ack: u32) -> Result<bool, LinkError> {
        let advance = u64::from(ack.wrapping_sub(self.acked as u32));
        if advance > self.sent - self.acked {
            return Err(LinkError::Ack { ack, acked: self.acked as u32, sent: self.sent as u32 });
        }
        self.acked += advance;
        Ok(advance > 0)
    }

    /// Notes that the peer wants a PONG. Of several PINGs before it is sent only the last is answered.
    pub fn pinged(&mut self, nonce: u64) {
        self.pong_due = Some(nonce);
    }

    /// Takes a PONG. One that was not asked for changes nothing; says whether it was.
    pub fn ponged(&mut self, nonce: u64, now: Instant) -> bool {
        let Ping::Sent { nonce: asked, at } = self.ping else { return false };
        if nonce != asked {
            return false;
        }
        self.round_trip.measured(now.saturating_duration_since(at), now);
        self.ping = Ping::None { next: asked + 1 };
        true
    }

    /// Asks for the round-trip time to be measured, unless that was done within the last second.
    pub fn probe(&mut self, now: Instant) {
        let fresh = self.round_trip.measured.is_some_and(|at| now.saturating_duration_since(at) < PROBE_EVERY);
        if let Ping::None { next } = self.ping
            && !fresh
        {
            self.ping = Ping::Due { nonce: next };
        }
    }

    /// Lowest round-trip time of the last half minute of measuring, if any was measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.least.map(|(least, _)| least)
    }

    /// Octets, headers included, that may still be sent before the peer acknowledges some.
    pub fn room(&self) -> usize {
        usize::try_from(self.max_unacked.saturating_sub(self.sent - self.acked)).unwrap_or(usize::MAX)
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
        if let Some(nonce) = self.pong_due.take() {
            self.ack_sent = self.received;
            return Some(Payload::Pong(nonce, ack));
        }
        if let Ping::Due { nonce } = self.ping {
            self.ping = Ping::Sent { nonce, at: now };
            self.ack_sent = self.received;
            return Some(Payload::Ping(nonce, ack));
        }
        if self.received - self.ack_sent >= ACK_EVERY {
            self.ack_sent = self.received;
            return Some(Payload::Ack(ack));
        }
        None
    }

    /// Whether [`poll_output`](Self::poll_output) has something.
    pub fn has_output(&self) -> bool {
        self.pong_due.is_some() || matches!(self.ping, Ping::Due { .. }) || self.received - self.ack_sent >= ACK_EVERY
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Instant {
        match self.ping {
            Ping::None { .. } => self.heard + self.keepalive.ping_after,
            Ping::Due { .. } | Ping::Sent { .. } => self.heard + self.keepalive.dead_after,
        }
    }

    /// Asks a silent peer, or gives it up.
    ///
    /// # Errors
    /// Nothing was heard for the whole of [`Keepalive::dead_after`].
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), LinkError> {
        let silence = now.saturating_duration_since(self.heard);
        if silence >= self.keepalive.dead_after {
            return Err(LinkError::Silent { silence });
        }
        if let Ping::None { next } = self.ping
            && silence >= self.keepalive.ping_after
        {
            self.ping = Ping::Due { nonce: next };
        }
        Ok(())
    }
}

impl RoundTrip {
    fn measured(&mut self, sample: Duration, now: Instant) {
        self.measured = Some(now);
        match self.least {
            Some((least, at)) if sample > least && now.saturating_duration_since(at) < LEAST_HOLDS => {}
            Some(_) | None => self.least = Some((sample, now)),
        }
    }
}

const PROBE_EVERY: Duration = Duration::from_secs(1);
const LEAST_HOLDS: Duration = Duration::from_secs(30);

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameType;

    fn sequence(now: Instant) -> Sequence {
        Sequence::new(Keepalive::CLIENT, 1000, now)
    }

    fn data(sequence: u32, length: usize) -> Header {
        Header { kind: FrameType::Data, length, stream: 1, sequence }
    }

    #[test]
    fn a_gap_and_a_repetition_are_refused() {
        let mut path = sequence(Instant::now());
        path.received(&data(0, 88)).unwrap();

        assert!(matches!(path.received(&data(0, 88)), Err(LinkError::Gap { expected: 100, .. })));
        assert!(matches!(path.received(&data(200, 88)), Err(LinkError::Gap { expected: 100, .. })));
        path.received(&data(100, 88)).unwrap();
    }

    #[test]
    fn the_sequence_goes_on_past_32_bits() {
        let mut path = sequence(Instant::now());
        path.received = u64::from(u32::MAX) - 11;
        path.sent = u64::from(u32::MAX) - 11;
        path.acked = path.sent;

        path.received(&data(u32::MAX - 11, 0)).unwrap();
        path.received(&data(0, 0)).unwrap();
        path.next(0);
        path.next(0);

        assert_eq!(path.acknowledged(12), Ok(true));
        assert_eq!(path.acknowledged(12), Ok(false));
    }

    #[test]
    fn acknowledgements_go_neither_back_nor_ahead() {
        let mut path = sequence(Instant::now());
        path.next(88);
        path.next(88);

        assert_eq!(path.acknowledged(100), Ok(true));
        assert!(path.acknowledged(99).is_err());
        assert!(path.acknowledged(201).is_err());
        assert_eq!(path.room(), 900);
    }

    #[test]
    fn a_silent_peer_is_asked_once_and_then_given_up() {
        let start = Instant::now();
        let mut path = sequence(start);
        let ping_at = path.poll_timeout();
        path.handle_timeout(ping_at).unwrap();

        assert!(matches!(path.poll_output(ping_at), Some(Payload::Ping(1, 0))));
        assert_eq!(path.poll_output(ping_at), None);
        let dead_at = path.poll_timeout();

        assert_eq!(dead_at, start + Duration::from_secs(45));
        assert!(matches!(path.handle_timeout(dead_at), Err(LinkError::Silent { .. })));
    }

    #[test]
    fn an_answered_ping_measures_the_distance_and_queues_do_not_count() {
        let start = Instant::now();
        let mut path = sequence(start);
        path.probe(start);
        path.poll_output(start);
        assert!(!path.ponged(7, start), "a PONG nobody asked for");
        assert!(path.ponged(1, start + Duration::from_millis(20)));

        let later = start + Duration::from_secs(2);
        path.probe(later);
        path.poll_output(later);
        path.ponged(2, later + Duration::from_millis(300));

        assert_eq!(path.round_trip(), Some(Duration::from_millis(20)));
    }

    #[test]
    fn an_idle_day_costs_less_than_a_megabyte() {
        // PING and PONG: frame, TLS record of 22 octets more, TCP and IPv6 with timestamps; plus one bare TCP ACK.
        let packet = HEADER_LEN + 12 + 22 + 72;
        let per_ping = 2 * packet + 72;
        let per_day = per_ping as u64 * (86_400 / Keepalive::CLIENT.ping_after.as_secs());

        assert!(per_day < 1_000_000, "{per_day} octets");
    }
}
