//! What the path to a peer is like: how long an octet and its answer take, and how fast what waits in front of them drains. Owns the estimates.
//! Never decides what follows from them.

use std::time::{Duration, Instant};

use super::{ACK_WITHIN, ASK_WITHIN, DOUBT_AFTER, SOONEST};

/// The lowest round-trip time of late: queues that our own bulk data builds up do not count as distance.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    least: Option<(Duration, Instant)>,
    /// The last one, queues included: what an answer takes as things are.
    last: Option<Duration>,
    measured: Option<Instant>,
}

impl RoundTrip {
    pub(super) fn measured(&mut self, sample: Duration, now: Instant) {
        self.measured = Some(now);
        self.last = Some(sample);
        match self.least {
            Some((least, at)) if sample > least && now.saturating_duration_since(at) < LEAST_HOLDS => {}
            Some(_) | None => self.least = Some((sample, now)),
        }
    }

    pub(super) fn measured_at(&self) -> Option<Instant> {
        self.measured
    }

    pub(super) fn least(&self) -> Option<Duration> {
        self.least.map(|(least, _)| least)
    }

    /// Silence, with something unacknowledged or after streams have moved, after which the side that watches asks.
    pub(super) fn rest(&self) -> Duration {
        self.least().map_or(UNMEASURED, |time| 2 * time).clamp(SOONEST, ASK_WITHIN)
    }

    /// What an answer may take before the side that watches looks for another connection: what it took last, queues included, and three times the
    /// path.
    pub(super) fn patience(&self) -> Duration {
        let times = self.last.zip(self.least());
        times.map_or(UNMEASURED, |(last, least)| last + 3 * least).clamp(SOONEST, DOUBT_AFTER - ASK_WITHIN)
    }
}

/// How fast the path takes what is sent into it, while more is sent than it takes: what waits in front of a question makes its answer late. Recent
/// acknowledgements count more than those before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drain {
    octets: u64,
    time: Duration,
}

impl Drain {
    /// So many octets were acknowledged after so long, and there was a queue.
    pub(super) fn measured(&mut self, octets: u64, time: Duration) {
        self.octets = self.octets - self.octets / 8 + octets;
        self.time = self.time - self.time / 8 + time;
    }

    /// Until an acknowledgement has to be there when so much is unacknowledged: of what has arrived, one comes at the latest after
    /// [`ACK_WITHIN`], however long the rest takes.
    pub(super) fn waits(&self, unacked: u64) -> Duration {
        if unacked <= UNQUEUED {
            return Duration::ZERO;
        }
        if self.octets == 0 {
            return ACK_WITHIN; // how fast the path is, nothing has shown yet
        }
        let nanos = self.time.as_nanos().saturating_mul(u128::from(unacked)) / u128::from(self.octets);
        u64::try_from(nanos).map_or(ACK_WITHIN, |nanos| Duration::from_nanos(nanos).min(ACK_WITHIN))
    }
}

/// While no round trip was measured.
const UNMEASURED: Duration = Duration::from_secs(1);
/// Octets that are no queue: on a path that takes them in more than [`SOONEST`], a round trip is as long.
pub(super) const UNQUEUED: u64 = 16 * 1024;
const LEAST_HOLDS: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_takes_as_long_as_its_octets_did_of_late_but_not_longer_than_an_acknowledgement_may() {
        let mut drain = Drain::default();
        assert_eq!(drain.waits(UNQUEUED), Duration::ZERO);
        assert_eq!(drain.waits(UNQUEUED + 1), ACK_WITHIN, "nothing is known yet");
        for _ in 0..50 {
            drain.measured(1_000_000, Duration::from_millis(100));
        }
        assert!(drain.waits(1_000_000).as_millis().abs_diff(100) <= 1, "{:?}", drain.waits(1_000_000));
        assert_eq!(drain.waits(4 << 30), ACK_WITHIN);
        for _ in 0..50 {
            drain.measured(64 * 1024, Duration::from_secs(1));
        }
        assert!(drain.waits(32 * 1024).as_millis() > 450, "{:?}", drain.waits(32 * 1024));
    }

    #[test]
    fn an_answer_may_take_what_the_last_one_took_and_three_times_the_path() {
        let (mut path, now) = (RoundTrip::default(), Instant::now());
        assert_eq!((path.rest(), path.patience()), (UNMEASURED, UNMEASURED));
        path.measured(Duration::from_millis(10), now);
        assert_eq!((path.rest(), path.patience()), (SOONEST, SOONEST));
        path.measured(Duration::from_millis(900), now);
        assert_eq!((path.rest(), path.patience()), (SOONEST, Duration::from_millis(930)));
        path.measured(Duration::from_millis(200), now + LEAST_HOLDS);
        assert_eq!((path.rest(), path.patience()), (Duration::from_millis(400), Duration::from_millis(800)));
    }
}
