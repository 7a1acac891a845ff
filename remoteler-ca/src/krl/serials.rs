//! A set of serials, as ranges that neither overlap nor touch. Never holds zero unless it is put in; the callers refuse it.

use std::collections::BTreeMap;

/// First to last, both included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Serials(BTreeMap<u64, u64>);

impl Serials {
    /// Adds a range; those that it touches become one with it.
    pub(super) fn insert(&mut self, mut first: u64, mut last: u64) {
        // Every range that begins not after `last + 1` and ends not before `first - 1` is absorbed.
        while let Some((&start, &end)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if end < first.saturating_sub(1) {
                break;
            }
            self.0.remove(&start);
            (first, last) = (first.min(start), last.max(end));
        }
        self.0.insert(first, last);
    }

    pub(super) fn contains(&self, serial: u64) -> bool {
        self.0.range(..=serial).next_back().is_some_and(|(_, last)| serial <= *last)
    }

    /// In order.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(first, last)| (*first, *last))
    }
}
