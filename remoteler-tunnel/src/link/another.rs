//! A path that goes on over another connection: what is forgotten of the one before, and what is believed of it. Never decides whether there is another one.

use std::time::{Duration, Instant};

use super::path::Drain;
use super::{LinkError, Ping, Sequence};

impl Sequence {
    /// Forgets what belonged to a connection that is lost: questions and answers under way.
    pub fn suspend(&mut self) {
        self.ping = match self.ping {
            Ping::Due { nonce, .. } | Ping::Sent { nonce, .. } => Ping::None { next: nonce + 1 },
            Ping::None { next } => Ping::None { next },
        };
        self.pong_due = None;
        self.let_go_doubted |= self.doubted;
        self.doubt_ends();
        self.drain = self.drain.carried_over();
    }

    /// Goes on over another connection, whose peer has received so many octets; returns how many of them are news. What this side has
    /// received, the peer was told as well.
    ///
    /// # Errors
    /// The peer has less than it acknowledged before, or more than was sent.
    pub fn resume(&mut self, peer_received: u64, now: Instant) -> Result<u64, LinkError> {
        if !(self.acked..=self.sent).contains(&peer_received) {
            let (ack, acked, sent) = (peer_received as u32, self.acked as u32, self.sent as u32);
            return Err(LinkError::Ack { ack, acked, sent });
        }
        self.round_trip.elsewhere();
        let advance = peer_received - self.acked;
        self.acked = peer_received;
        if advance > 0 || self.sent == self.acked {
            self.futile = 0;
        } else {
            self.futile = (self.futile + 1).min(MOST_FUTILE);
            self.drain = Drain::default(); // it may have been let go because the path is slower by more than was thought
        }
        if now.saturating_duration_since(self.heard) > STALE {
            self.drain = Drain::default();
        }
        if self.is_replaced_often(now) {
            self.drain = Drain::distrusted_until(now + YOUNG);
        }
        self.ack_sent = self.received;
        self.ack_due = None;
        self.heard = now;
        self.unacked_since = (self.sent > self.acked).then_some(now);
        (self.clears, self.timed) = (now, self.acked);
        if self.watchful
            && let Ping::None { next } = self.ping
        {
            self.ping = Ping::Due { nonce: next, since: now }; // what the path is like now
        }
        Ok(advance)
    }

    /// Whether this is the third connection within little time that follows one that was doubted: its first octets then say little of those after them.
    fn is_replaced_often(&mut self, now: Instant) -> bool {
        if !std::mem::take(&mut self.let_go_doubted) {
            return false;
        }
        let [before, last] = self.replaced;
        self.replaced = [last, Some(now)];
        before.is_some_and(|at| now.saturating_duration_since(at) <= OFTEN)
    }

    /// The connection that was taken up took so long to be made.
    pub fn made_within(&mut self, took: Duration) {
        self.round_trip.made_within(took);
    }
}

pub(super) const MOST_FUTILE: u32 = 2;
/// Silence after which nothing is known any more of how fast a path is.
const STALE: Duration = Duration::from_secs(30);
/// Three connections in a row that are doubted within that time are no accident.
const OFTEN: Duration = Duration::from_secs(10);
/// A connection of that age has shown what it carries.
const YOUNG: Duration = Duration::from_secs(3);
