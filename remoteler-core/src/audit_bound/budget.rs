//! How many refusals may be recorded now: a bucket for each source and one for all. Pure: `now` comes in. Memory is bounded whatever the
//! sources are, and no refusal goes uncounted.

use std::{collections::HashMap, time::Duration};

use crate::{SourceNet, Timestamp};

/// Of one source: at once, and the time in which one more is earned.
const OF_ONE: (u64, Duration) = (100, Duration::from_secs(1));
/// Of all sources together.
const OF_ALL: (u64, Duration) = (1_000, Duration::from_millis(50));
/// How long refusals of a source are counted before the count is told.
const COUNTED_FOR: Duration = Duration::from_secs(60);
/// How often the counts are gone through: not for each refusal of a flood.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Sources remembered; past it those that are quiet for longest go, and their counts into the one of further sources.
const MAX_SOURCES: usize = 4_096;
/// Counts told one by one at once; more become one of further sources.
const MAX_TOLD: usize = 16;

/// Whose refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Net(SourceNet),
    Unknown,
    /// More than are told one by one.
    Further,
}

/// Refusals that were not recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Silenced {
    pub(super) source: Source,
    /// Where the last of them was.
    pub(super) service: String,
    pub(super) count: u64,
    /// When the first of them was.
    pub(super) since: Timestamp,
}

/// All buckets.
#[derive(Debug)]
pub(super) struct Budget {
    all: Bucket,
    sources: HashMap<Source, Bucket>,
    silenced: HashMap<Source, Silenced>,
    /// When it was last looked for counts to be told.
    looked: Option<Timestamp>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { all: Bucket::full(OF_ALL), sources: HashMap::new(), silenced: HashMap::new(), looked: None }
    }
}

impl Budget {
    /// Takes one refusal of a source, or counts it.
    pub(super) fn take(&mut self, source: Option<SourceNet>, service: &str, now: Timestamp) -> bool {
        let source = source.map_or(Source::Unknown, Source::Net);
        self.make_room(source, now);
        self.all.earn(OF_ALL, now);
        let own = self.sources.entry(source).or_insert_with(|| Bucket::full(OF_ONE));
        own.earn(OF_ONE, now);
        if own.left > 0 && self.all.left > 0 {
            own.left -= 1;
            self.all.left -= 1;
            return true;
        }
        self.put_back(Silenced { source, service: service.to_owned(), count: 1, since: now });
        false
    }

    /// Counts that have waited long enough, a bounded number of them.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<Silenced> {
        if self.silenced.is_empty() || self.looked.is_some_and(|looked| now >= looked && now.since(looked) < LOOK_EVERY)
        {
            return Vec::new();
        }
        self.looked = Some(now);
        // A clock that was set back must not hold a count for years.
        let due = |silenced: &Silenced| now < silenced.since || now.since(silenced.since) >= COUNTED_FOR;
        let (told, kept) = self.silenced.drain().map(|(_, one)| one).partition::<Vec<_>, _>(due);
        self.silenced = kept.into_iter().map(|one| (one.source, one)).collect();
        bounded(told)
    }

    /// All counts.
    pub(super) fn all(&mut self) -> Vec<Silenced> {
        bounded(self.silenced.drain().map(|(_, one)| one).collect())
    }

    /// Adds to what is counted of a source.
    pub(super) fn put_back(&mut self, more: Silenced) {
        let source = if self.silenced.len() >= MAX_SOURCES && !self.silenced.contains_key(&more.source) {
            Source::Further
        } else {
            more.source
        };
        match self.silenced.get_mut(&source) {
            Some(there) => {
                there.count = there.count.saturating_add(more.count);
                there.since = there.since.min(more.since);
                there.service = more.service;
            }
            None => {
                self.silenced.insert(source, Silenced { source, ..more });
            }
        }
    }

    fn make_room(&mut self, source: Source, now: Timestamp) {
        if self.sources.len() < MAX_SOURCES || self.sources.contains_key(&source) {
            return;
        }
        self.sources.retain(|_, bucket| {
            bucket.earn(OF_ONE, now);
            bucket.left < OF_ONE.0
        });
        if self.sources.len() >= MAX_SOURCES {
            // Who has most left has been quiet for longest.
            let quietest = self.sources.iter().max_by_key(|(_, bucket)| bucket.left).map(|(source, _)| *source);
            quietest.map(|source| self.sources.remove(&source));
        }
    }
}

/// The largest counts one by one, the others as one.
fn bounded(mut counts: Vec<Silenced>) -> Vec<Silenced> {
    counts.sort_by_key(|silenced| std::cmp::Reverse(silenced.count));
    let rest = counts.split_off(counts.len().min(MAX_TOLD));
    let further = rest.into_iter().reduce(|one, other| Silenced {
        source: Source::Further,
        service: one.service,
        count: one.count.saturating_add(other.count),
        since: one.since.min(other.since),
    });
    counts.extend(further.map(|further| Silenced { source: Source::Further, ..further }));
    counts
}

#[derive(Debug)]
struct Bucket {
    left: u64,
    since: Option<Timestamp>,
}

impl Bucket {
    const fn full((most, _): (u64, Duration)) -> Self {
        Self { left: most, since: None }
    }

    fn earn(&mut self, (most, each): (u64, Duration), now: Timestamp) {
        let since = *self.since.get_or_insert(now);
        let earned = u64::try_from(now.since(since).as_millis() / each.as_millis().max(1)).unwrap_or(u64::MAX);
        self.left = self.left.saturating_add(earned).min(most);
        // Also when the clock was set back: nothing is earned twice, and earning goes on from here.
        if earned > 0 || now < since {
            self.since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_unix_seconds(1_000_000);

    fn source(number: u32) -> Option<SourceNet> {
        Some(SourceNet::of(std::net::Ipv4Addr::from_bits(number).into()))
    }

    #[test]
    fn a_source_earns_one_a_second_also_after_the_clock_was_set_back() {
        let mut budget = Budget::default();
        let mut take = |now: Timestamp| budget.take(source(1), "node", now);
        assert_eq!((0..1000).filter(|_| take(START)).count(), 100); // I26
        assert!(take(START.plus(Duration::from_secs(1))));
        assert!(!take(START.plus(Duration::from_secs(1))));
        assert!(!take(START.minus(Duration::from_secs(3600))));
        assert!(take(START.minus(Duration::from_secs(3599))));
    }

    #[test]
    fn all_sources_together_have_a_bound_and_nothing_goes_uncounted() {
        let mut budget = Budget::default();
        let taken = (0..100_000).filter(|number| budget.take(source(*number), "node", START)).count();
        assert_eq!(taken, 1_000); // I26
        assert!(budget.sources.len() <= MAX_SOURCES && budget.silenced.len() <= MAX_SOURCES + 1);
        assert!(budget.due(START).is_empty());
        let told = budget.due(START.plus(COUNTED_FOR));
        assert_eq!(told.len(), MAX_TOLD + 1);
        assert_eq!(told.iter().map(|silenced| silenced.count).sum::<u64>(), 99_000);
        assert!(told.iter().any(|silenced| silenced.source == Source::Further));
    }

    #[test]
    fn a_count_from_the_future_is_told_at_once() {
        let mut budget = Budget::default();
        for _ in 0..101 {
            budget.take(None, "auth", START);
        }
        let told = budget.due(START.minus(Duration::from_secs(86_400)));
        assert_eq!(told, [Silenced { source: Source::Unknown, service: "auth".into(), count: 1, since: START }]);
        assert!(budget.all().is_empty());
    }
}
