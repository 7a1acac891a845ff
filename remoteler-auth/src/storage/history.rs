//! The last changes of a store, for watchers. Owns their number and their size; what is not kept any more, a watcher is told to list again for. Bounded
//! whatever watchers do: they hold a place in it, not a queue of their own.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use remoteler_core::{Change, Changes, MAX_PAGE, Revision, StorageError};
use tokio::sync::watch;

/// Most changes kept.
const MAX_CHANGES: usize = 8 * 1024;
/// Most octets of keys and values kept.
const MAX_OCTETS: usize = 8 * 1024 * 1024;

/// The last changes.
#[derive(Debug)]
pub(crate) struct History {
    ring: Mutex<Ring>,
    newest: watch::Sender<Revision>,
}

#[derive(Debug, Default)]
struct Ring {
    changes: VecDeque<Change>,
    octets: usize,
    /// Every change after this revision is in `changes`; not known before the first one was told.
    since: Option<Revision>,
    newest: Revision,
}

impl Default for History {
    fn default() -> Self {
        Self { ring: Mutex::default(), newest: watch::Sender::new(Revision(0)) }
    }
}

impl History {
    /// Tells the changes of one write. They are durable, and writes are told in their order.
    pub(crate) fn tell(&self, revision: Revision, changes: impl IntoIterator<Item = Change>) {
        self.with(|ring| ring.add(revision, changes));
        self.newest.send_replace(revision);
    }

    /// Answers as [`remoteler_core::Storage::watch`]. `present` is a revision of the store which has been reached: without it nobody could say of a store that did not change
    /// since it was opened whether `after` lies before that.
    pub(crate) async fn watch(
        &self,
        prefix: &str,
        after: Revision,
        limit: usize,
        present: Revision,
    ) -> Result<Changes, StorageError> {
        let limit = limit.clamp(1, MAX_PAGE);
        self.with(|ring| ring.begin(present));
        let mut newest = self.newest.subscribe();
        let mut from = after;
        loop {
            newest.mark_unchanged(); // before the look, so that nothing told after it is missed
            let (found, passed) =
                self.with(|ring| ring.after(prefix, from, limit)).map_err(|()| StorageError::TooOld { after })?;
            from = found.revision;
            // A watcher that waits long for one key must not fall out of the history because of all the others.
            if !found.changes.is_empty() || (passed > 0 && from.0.saturating_sub(after.0) > PASSED) {
                return Ok(found);
            }
            if newest.changed().await.is_err() {
                return Err(StorageError::Engine("it was closed".into())); // not while `self` is there
            }
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Ring) -> T) -> T {
        // Every change of the ring is one step, so it is whole even after a panic elsewhere.
        work(&mut self.ring.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Revisions that may pass before a watcher hears of them though none was for it.
const PASSED: u64 = 1024;

impl Ring {
    fn begin(&mut self, present: Revision) {
        if self.since.is_none() {
            self.since = Some(present);
            self.newest = self.newest.max(present);
        }
    }

    fn add(&mut self, revision: Revision, changes: impl IntoIterator<Item = Change>) {
        let since = *self.since.get_or_insert(Revision(revision.0.saturating_sub(1)));
        self.newest = self.newest.max(revision);
        if revision <= since {
            return; // it had happened, though it was not told yet, when the first watcher asked
        }
        for change in changes {
            self.octets += size(&change);
            self.changes.push_back(change);
        }
        while self.changes.len() > MAX_CHANGES || self.octets > MAX_OCTETS {
            let Some(gone) = self.changes.pop_front() else { break };
            self.octets -= size(&gone);
            // Of a write that is not here as a whole nothing counts.
            self.since = Some(gone.revision());
        }
    }

    /// The changes after `from` below `prefix`, and how many others were passed over.
    fn after(&self, prefix: &str, from: Revision, limit: usize) -> Result<(Changes, usize), ()> {
        let since = self.since.unwrap_or(self.newest);
        // A revision that was not reached yet is another store's, or this one's before it was restored.
        if from < since || from > self.newest {
            return Err(());
        }
        let start = self.changes.partition_point(|change| change.revision() <= from);
        let (mut found, mut passed) = (Vec::new(), 0);
        for change in self.changes.iter().skip(start) {
            let fits = change.key().starts_with(prefix);
            if found.len() >= limit && found.last().is_some_and(|last: &Change| last.revision() < change.revision()) {
                let revision = found.last().map_or(from, Change::revision);
                return Ok((Changes { changes: found, revision }, passed));
            }
            if fits {
                found.push(change.clone());
            } else {
                passed += 1;
            }
        }
        Ok((Changes { changes: found, revision: self.newest }, passed))
    }
}

fn size(change: &Change) -> usize {
    let value = match change {
        Change::Put(item) => item.value.len(),
        Change::Deleted { .. } => 0,
    };
    change.key().len() + value + std::mem::size_of::<Change>()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn deleted(key: &str, revision: u64) -> Change {
        Change::Deleted { key: key.into(), revision: Revision(revision) }
    }

    fn told(up_to: u64) -> History {
        let history = History::default();
        for revision in 1..=up_to {
            history.tell(Revision(revision), [deleted(&format!("k/{revision}"), revision)]);
        }
        history
    }

    async fn seen(history: &History, prefix: &str, after: u64, limit: usize) -> Result<(Vec<u64>, u64), StorageError> {
        let found = history.watch(prefix, Revision(after), limit, Revision(0)).await?;
        Ok((found.changes.iter().map(|change| change.revision().0).collect(), found.revision.0))
    }

    #[tokio::test]
    async fn what_is_older_than_the_history_is_too_old() {
        let count = u64::try_from(MAX_CHANGES).unwrap();
        let history = told(count + 10);
        assert!(matches!(seen(&history, "", 9, 10).await, Err(StorageError::TooOld { after: Revision(9) })));
        let (revisions, upto) = seen(&history, "", 10, 3).await.unwrap();
        assert_eq!((revisions, upto), (vec![11, 12, 13], 13));
        // Nor is one of the future believed: this is another store than the watcher's.
        assert!(matches!(seen(&history, "", count + 11, 10).await, Err(StorageError::TooOld { .. })));
    }

    #[tokio::test]
    async fn large_values_are_kept_in_bounds_too() {
        let history = History::default();
        for revision in (1..=64).map(Revision) {
            let item = remoteler_core::Item { key: "k".into(), value: vec![0; 1024 * 1024], revision, expires: None };
            history.tell(revision, [Change::Put(item)]);
        }
        assert!(history.with(|ring| ring.octets) <= MAX_OCTETS); // I25
        assert!(seen(&history, "", 1, 10).await.is_err());
        assert_eq!(seen(&history, "", 63, 10).await.unwrap(), (vec![64], 64));
    }

    #[tokio::test]
    async fn before_the_first_change_only_the_present_is_known() {
        let history = History::default();
        let early = history.watch("", Revision(6), 10, Revision(7)).await;
        assert!(matches!(early, Err(StorageError::TooOld { .. })));
        let waiting = history.watch("", Revision(7), 10, Revision(7));
        assert!(
            tokio::time::timeout(Duration::from_millis(20), waiting).await.is_err(),
            "there is nothing to tell yet"
        );
        // Told late: it was in the present that the watcher has read.
        history.tell(Revision(7), [deleted("k/7", 7)]);
        history.tell(Revision(8), [deleted("k/8", 8)]);
        let found = history.watch("", Revision(7), 10, Revision(7)).await.unwrap();
        assert_eq!(found.changes, [deleted("k/8", 8)]);
    }

    #[tokio::test]
    async fn one_write_is_never_cut_in_two() {
        let history = History::default();
        history.tell(Revision(1), (0..5).map(|n| deleted(&format!("a/{n}"), 1)));
        history.tell(Revision(2), [deleted("a/9", 2)]);
        assert_eq!(seen(&history, "a/", 0, 2).await.unwrap(), (vec![1; 5], 1));
    }

    #[tokio::test]
    async fn who_waits_for_a_quiet_prefix_is_carried_along() {
        let history = told(PASSED + 2);
        assert_eq!(seen(&history, "other/", 0, 10).await.unwrap(), (vec![], PASSED + 2));
    }
}
