//! How long a peer may be silent: when it is asked, when it is doubted, and when it is given up. Never looks at a clock by itself.

use std::time::{Duration, Instant};

use super::{ASK_WITHIN, DOUBT_AFTER, Keepalive, LinkError, Ping, Sequence};

impl Sequence {
    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Instant {
        let ends = self.given_up_at().unwrap_or_else(|| {
            let quiet = self.heard + self.ping_after();
            self.unanswered_since().map_or(quiet, |since| quiet.min(since + self.ask_within()))
        });
        [self.doubt_at(), self.ack_due].into_iter().flatten().fold(ends, Instant::min)
    }

    /// When the peer is given up that was asked. Nobody is unasked, nor before an answer has had its time: when that comes late, it was this process
    /// that stood still.
    fn given_up_at(&self) -> Option<Instant> {
        let quiet = self.heard + self.keepalive.dead_after;
        let ends =
            self.unanswered_since().map_or(quiet, |since| quiet.min(since + DOUBT_AFTER * 2_u32.pow(self.futile)));
        Some(ends.max(self.waits_since()? + self.round_trip.patience()))
    }

    /// Since when a question waits to be sent, or to be answered.
    fn asked_at(&self) -> Option<Instant> {
        match self.ping {
            Ping::None { .. } => None,
            Ping::Due { since: at, .. } | Ping::Sent { at, .. } => Some(at),
        }
    }

    /// The same, and while this process runs.
    fn waits_since(&self) -> Option<Instant> {
        self.asked_at().map(|at| at.max(self.awake_since))
    }

    /// Since when something of ours has had no sign of the peer, if that is a reason for doubt. Where this side watches, that what moved has
    /// come to rest is one too: it may be the peer's octets that are lost.
    fn unanswered_since(&self) -> Option<Instant> {
        if self.watchful && self.stirred {
            return Some(self.heard);
        }
        self.unacked_since.filter(|_| self.resumable).map(|since| since.max(self.heard))
    }

    /// When a question that is out will have taken too long, if that is to be acted on and was not found yet.
    fn doubt_at(&self) -> Option<Instant> {
        if self.watchful && !self.doubted { self.answer_due() } else { None }
    }

    /// Whether a question that is out has taken too long, and nothing else is heard of the peer either: also where nothing follows for the connection,
    /// since this side can make no other one.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.resumable && self.answer_due().is_some_and(|at| now >= at)
    }

    /// When a question that is out will have taken too long.
    fn answer_due(&self) -> Option<Instant> {
        let waits = self.waits_since()?;
        // What was written behind the question delays no answer.
        let (asked, up_to, left) = match self.ping {
            Ping::Sent { sent, left, .. } => (waits.max(self.heard), sent, left),
            // What is full of our own octets takes no question either.
            Ping::Due { .. } => (waits.max(self.unanswered_since()? + self.ask_within()), self.sent, self.clears),
            Ping::None { .. } => return None,
        };
        let left = self.drain.left_by(up_to.saturating_sub(self.acked), left, asked);
        Some(left + self.round_trip.patience() * 2_u32.pow(self.futile))
    }

    /// A deadline that is long past was slept through. Noticed once for each question, so that nobody is waited for without end.
    pub(super) fn notice_standstill(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.poll_timeout());
        if late > STOOD_STILL && self.awake_since <= self.asked_at().unwrap_or(now) {
            self.awake_since = now;
        }
    }

    /// When the peer was last heard.
    pub fn heard_at(&self) -> Instant {
        self.heard
    }

    /// Silence after which the peer is asked in any case: so soon that an answer has its time before the connection is dead. Who made it asks first
    /// then, and early enough for the other side to hear of it before that asks as well.
    fn ping_after(&self) -> Duration {
        let Keepalive { ping_after, dead_after } = self.keepalive;
        let ahead = self.round_trip.least().filter(|_| self.watchful).map_or(Duration::ZERO, |least| least + least / 2);
        ping_after.min(dead_after.saturating_sub(self.round_trip.patience() + ahead))
    }

    pub(super) fn ask_within(&self) -> Duration {
        if self.watchful { self.round_trip.rest() } else { ASK_WITHIN }
    }

    /// Asks a silent peer, or gives it up.
    ///
    /// # Errors
    /// Nothing was heard for the whole of [`Keepalive::dead_after`], or of [`DOUBT_AFTER`] with something unacknowledged, and not in answer to a question.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), LinkError> {
        self.notice_standstill(now);
        if self.ack_due.is_some_and(|due| now >= due) {
            self.ack_due = None;
        }
        let silence = now.saturating_duration_since(self.heard);
        let unanswered = self.unanswered_since().map(|since| now.saturating_duration_since(since)).unwrap_or_default();
        if self.given_up_at().is_some_and(|at| now >= at) {
            return Err(LinkError::Silent { silence });
        }
        if self.doubt_at().is_some_and(|at| now >= at) {
            self.doubted = true;
        }
        let asks = self.unanswered_since().is_some() && unanswered >= self.ask_within();
        if let Ping::None { next } = self.ping
            && (silence >= self.ping_after() || asks)
        {
            self.ping = Ping::Due { nonce: next, since: now };
        }
        Ok(())
    }
}

/// A deadline that is found so late was slept through.
pub(crate) const STOOD_STILL: Duration = Duration::from_secs(1);
