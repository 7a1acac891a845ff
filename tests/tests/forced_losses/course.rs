//! When connections were lost, and when each stream was back. Owns the clock that lines are stamped with.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{Back, SOON, Shared};

/// What all streams know of the course of the test.
pub(crate) struct Course {
    begin: Instant,
    /// How often a connection was lost, and when last: microseconds after the beginning.
    round: AtomicU64,
    lost_at: AtomicU64,
    octets: AtomicU64,
    back: mpsc::UnboundedSender<(u64, usize, Duration)>,
    /// Cancelled when streams shall come to their end.
    pub(crate) stop: CancellationToken,
}

impl Course {
    pub(crate) fn new() -> (Shared, Back) {
        let (back, reports) = mpsc::unbounded_channel();
        let count = AtomicU64::default;
        let stop = CancellationToken::new();
        let course = Self { begin: Instant::now(), round: count(), lost_at: count(), octets: count(), back, stop };
        (Arc::new(course), reports)
    }

    /// Microseconds after the beginning.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_micros()).unwrap()
    }

    /// A connection is lost now.
    pub(crate) fn lose(&self) {
        self.lost_at.store(self.now(), Ordering::SeqCst);
        self.round.fetch_add(1, Ordering::SeqCst);
    }

    /// A line of stream `index` that was sent at `sent` is back, or there.
    pub(crate) fn arrived(&self, index: usize, sent: u64, octets: usize) {
        self.octets.fetch_add(octets as u64, Ordering::Relaxed);
        let (round, lost_at) = (self.round.load(Ordering::SeqCst), self.lost_at.load(Ordering::SeqCst));
        if sent > lost_at {
            // Fails only when nobody counts any more.
            let _ = self.back.send((round, index, Duration::from_micros(self.now() - lost_at)));
        }
    }

    pub(crate) fn octets(&self) -> u64 {
        self.octets.load(Ordering::Relaxed)
    }

    /// Waits until each of `count` streams has had a line that was sent after the loss.
    pub(crate) async fn all_back(&self, reports: &mut Back, count: usize, waits: &mut Waits) {
        let round = self.round.load(Ordering::SeqCst);
        let mut missing: HashSet<usize> = (0..count).collect();
        while !missing.is_empty() {
            let Ok(report) = timeout(SOON, reports.recv()).await else {
                panic!("loss {round}: streams {missing:?} are not back after {SOON:?}");
            };
            let (of, index, after) = report.unwrap();
            if of == round && missing.remove(&index) {
                waits.0.push(after);
            }
            assert!(self.since_loss() < SOON, "loss {round}: streams {missing:?} are not back after {SOON:?}");
        }
    }

    fn since_loss(&self) -> Duration {
        Duration::from_micros(self.now() - self.lost_at.load(Ordering::SeqCst))
    }
}

/// How long streams waited.
#[derive(Default)]
pub(crate) struct Waits(Vec<Duration>);

impl FromIterator<Waits> for Waits {
    fn from_iter<I: IntoIterator<Item = Self>>(parts: I) -> Self {
        Self(parts.into_iter().flat_map(|part| part.0).collect())
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort();
        let Some(longest) = sorted.last() else { return f.write_str("never") };
        let at = |share: usize| sorted[sorted.len() * share / 100];
        write!(f, "{} times: p50 {:?}, p99 {:?}, longest {longest:?}", sorted.len(), at(50), at(99))
    }
}
