//! What all links of an agent have done, those that have ended included. Owns the sums.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::connection::{Link, LinkCounters, LinkState};

/// What an agent has done since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentCounters {
    /// Links that were made; one that goes on over another connection is the same link.
    pub links: u64,
    /// Octets of sequenced frames that were sent, headers included; what was sent again after a loss counts once.
    pub sent: u64,
    /// Octets of sequenced frames that arrived, headers included.
    pub received: u64,
    /// Streams that are open now.
    pub streams: usize,
    /// How often a link went on over another connection.
    pub resumptions: u64,
    /// How long links have been without a connection, added up.
    pub suspended: Duration,
}

impl AgentCounters {
    fn add(&mut self, of_link: &LinkCounters) {
        self.sent = self.sent.saturating_add(of_link.sent);
        self.received = self.received.saturating_add(of_link.received);
        self.streams += of_link.streams;
        self.resumptions += of_link.resumptions;
        self.suspended = self.suspended.saturating_add(of_link.suspended);
    }
}

/// The links of an agent, and the sums of those that have ended.
#[derive(Default)]
pub(super) struct Tally(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    ended: AgentCounters,
    links: Vec<Link>,
}

impl Tally {
    /// Counts a new link from now on.
    pub(super) fn count(&self, link: Link) {
        let mut counted = self.lock();
        counted.ended.links += 1;
        let ended = counted.links.extract_if(.., |link| matches!(link.state(), LinkState::Closed(_)));
        let ended: Vec<Link> = ended.collect();
        for link in ended {
            counted.ended.add(&LinkCounters { streams: 0, ..link.counters() });
        }
        counted.links.push(link);
    }

    /// The sums now.
    pub(super) fn sums(&self) -> AgentCounters {
        let counted = self.lock();
        let mut sums = counted.ended;
        for link in &counted.links {
            let mut of_link = link.counters();
            if matches!(link.state(), LinkState::Closed(_)) {
                of_link.streams = 0;
            }
            sums.add(&of_link);
        }
        sums
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
