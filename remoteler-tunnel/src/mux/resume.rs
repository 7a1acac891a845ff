//! The machine when its connection is lost: what it keeps, and how it goes on over another one. Streams do not notice.

use std::time::{Duration, Instant};

use super::error::ProtocolError;
use super::{Mux, Phase};
use crate::replay::{Replay, ReplayBudget};

impl Mux {
    /// Keeps what it sends until it is acknowledged, if the peer does so too. Before the first octet.
    pub fn make_resumable(&mut self, budget: ReplayBudget) {
        self.replay = Some(Box::new(Replay::new(budget)));
    }

    /// Whether it can go on over another connection: both sides keep what they send.
    #[must_use]
    pub(crate) fn is_resumable(&self) -> bool {
        matches!(self.phase, Phase::Up { .. }) && self.replay.is_some()
    }

    /// Since when its connection has been silent, if that is longer than it should be; see [`crate::link::Sequence::is_doubted`].
    #[must_use]
    pub(crate) fn doubted_since(&self) -> Option<Instant> {
        (self.is_resumable() && self.link.is_doubted()).then(|| self.link.heard_at())
    }

    /// Since when nothing was heard, if its connection owes an answer for longer than one takes; see [`crate::link::Sequence::is_silent`].
    #[must_use]
    pub(crate) fn silent_since(&self, now: Instant) -> Option<Instant> {
        (self.is_resumable() && self.link.is_silent(now)).then(|| self.link.heard_at())
    }

    /// Sequenced octets received so far: what the peer must be told to go on.
    #[must_use]
    pub fn received_octets(&self) -> u64 {
        self.link.received_octets()
    }

    /// Octets of sequenced frames that were sent so far.
    #[must_use]
    pub fn sent_octets(&self) -> u64 {
        self.link.sent_octets()
    }

    /// The connection is lost, and with it what was in no whole frame and what is not sequenced.
    pub fn suspend(&mut self) {
        self.link.suspend();
        self.pool.give_up();
    }

    /// Goes on over another connection, whose peer has received so many octets: what it has not goes out again first.
    ///
    /// # Errors
    /// The peer cannot have received that. The link must be closed then.
    pub fn resume(&mut self, peer_received: u64, now: Instant) -> Result<(), ProtocolError> {
        self.suspend();
        let news = self.link.resume(peer_received, now)?;
        if let Some(replay) = &mut self.replay {
            replay.acknowledged(news, &mut self.pool);
            self.link.goes_again(replay.rewind() as u64);
        }
        self.budgets.give_back_ping(); // for the question that begins each connection
        Ok(())
    }

    /// The connection that it goes on over took so long to be made.
    pub(crate) fn made_within(&mut self, took: Duration) {
        self.link.made_within(took);
    }

    /// What an answer may take before the connection is doubted.
    #[must_use]
    pub(crate) fn patience(&self) -> Duration {
        self.link.patience()
    }

    /// Takes an acknowledgement; says whether it was news.
    pub(super) fn acknowledged(&mut self, ack: u32) -> Result<bool, ProtocolError> {
        let news = self.link.acknowledged(ack)?;
        if let Some(replay) = &mut self.replay
            && news > 0
        {
            replay.acknowledged(news, &mut self.pool);
        }
        Ok(news > 0)
    }

    /// Octets, headers included, that may still be sent before the peer acknowledges some.
    pub(super) fn room(&self) -> usize {
        let room = self.link.room();
        self.replay.as_ref().map_or(room, |replay| room.min(replay.room()))
    }
}
