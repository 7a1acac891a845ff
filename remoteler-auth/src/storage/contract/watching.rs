//! What is promised to those who watch.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use remoteler_core::{Change, Item, Revision, Storage, StorageError, Transaction};

use super::{NOW, Subject, all};

/// How long a change may take to be told: never that long, but the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

async fn present(store: &dyn Storage) -> Revision {
    store.range("", None, 1, NOW).await.unwrap().revision
}

/// What a watcher knows: the items, and how far.
struct Copy {
    items: BTreeMap<String, Item>,
    at: Revision,
}

impl Copy {
    /// As the contract says that a watcher begins.
    async fn list(store: &dyn Storage, prefix: &str) -> Self {
        let (mut items, mut at, mut after): (_, Option<Revision>, Option<String>) = (BTreeMap::new(), None, None);
        loop {
            let page = store.range(prefix, after.as_deref(), 3, NOW).await.unwrap();
            at = at.or(Some(page.revision));
            items.extend(page.items.into_iter().map(|item| (item.key.clone(), item)));
            match page.next {
                Some(next) => after = Some(next),
                None => return Self { items, at: at.unwrap() },
            }
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Put(item) => {
                if self.items.get(&item.key).is_none_or(|kept| kept.revision <= item.revision) {
                    self.items.insert(item.key.clone(), item);
                }
            }
            Change::Deleted { key, revision } => {
                if self.items.get(&key).is_some_and(|kept| kept.revision < revision) {
                    self.items.remove(&key);
                }
            }
        }
    }

    /// Waits for the next changes; whether it had to list again.
    async fn follow(&mut self, store: &dyn Storage, prefix: &str, limit: usize) -> bool {
        match tokio::time::timeout(PATIENCE, store.watch(prefix, self.at, limit)).await.unwrap() {
            Ok(changes) => {
                assert!(changes.revision > self.at, "an answer is a step forward");
                let revisions: Vec<Revision> = changes.changes.iter().map(Change::revision).collect();
                assert!(revisions.is_sorted() && revisions.iter().all(|r| *r > self.at && *r <= changes.revision));
                assert!(changes.changes.iter().all(|change| change.key().starts_with(prefix)));
                changes.changes.into_iter().for_each(|change| self.apply(change));
                self.at = changes.revision;
                false
            }
            Err(StorageError::TooOld { after }) => {
                assert_eq!(after, self.at);
                *self = Self::list(store, prefix).await;
                true
            }
            Err(cause) => panic!("{cause}"),
        }
    }
}

/// See the name.
pub async fn a_watcher_is_told_of_its_prefix_in_order(subject: Box<dyn Subject>) {
    let store = subject.storage();
    store.put("a/0", b"before", None).await.unwrap();
    let mut copy = Copy::list(&*store, "a/").await;
    let first = store.put("a/1", b"x", None).await.unwrap();
    store.put("b/1", b"x", None).await.unwrap();
    assert!(store.delete("a/0", NOW).await.unwrap());
    let both = Transaction::new().put("a/2", "x", None).put("b/2", "x", None).delete("a/1").delete("a/not there");
    let last = store.transact(both, NOW).await.unwrap();
    let mut revisions = Vec::new();
    while copy.at < last {
        assert!(!copy.follow(&*store, "a/", 1).await, "so few changes are kept");
        revisions.push(copy.at);
    }
    assert!(first <= revisions[0] && revisions.is_sorted());
    let keys: Vec<&str> = copy.items.keys().map(String::as_str).collect();
    assert_eq!(keys, ["a/2"]);
    assert_eq!(copy.items.values().cloned().collect::<Vec<_>>(), all(&*store, "a/", 10, NOW).await);
}

/// See the name.
pub async fn a_watcher_waits_and_is_woken(subject: Box<dyn Subject>) {
    let store = subject.storage();
    store.put("a", b"1", None).await.unwrap();
    let at = present(&*store).await;
    let waiting = store.watch("", at, 10);
    assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err(), "nothing has changed");
    let watcher = Arc::clone(&store);
    let waiting = tokio::spawn(async move { watcher.watch("", at, 10).await });
    let revision = store.put("b", b"1", None).await.unwrap();
    let told = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!((told.changes.len(), told.changes[0].key(), told.revision), (1, "b", revision));
    // A refused write tells nothing.
    let refused = Transaction::new().expect("b", remoteler_core::Expected::Absent).put("c", "1", None);
    assert!(store.transact(refused, NOW).await.is_err());
    assert!(!store.delete("c", NOW).await.unwrap());
    let waiting = store.watch("", revision, 10);
    assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err(), "nothing has changed");
}

/// Several write while one lists and watches: at the end the copy is the store.
pub async fn a_list_and_the_changes_after_it_leave_no_gap(subject: Box<dyn Subject>) {
    let store = subject.storage();
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for round in 0..60 {
                    let key = format!("a/{}", (writer * 7 + round) % 11);
                    match round % 4 {
                        0 => drop(store.delete(&key, NOW).await.unwrap()),
                        1 => {
                            let other = format!("a/{}", 20 + round % 5);
                            let both = Transaction::new().put(&other, "both", None).delete(&key);
                            store.transact(both, NOW).await.unwrap();
                        }
                        _ => drop(store.put(&key, format!("{writer}.{round}").as_bytes(), None).await.unwrap()),
                    }
                }
            })
        })
        .collect();
    let mut copy = Copy::list(&*store, "a/").await;
    for writer in writers {
        writer.await.unwrap();
        copy.follow(&*store, "a/", 4).await;
    }
    let last = store.put("a/last", b"x", None).await.unwrap();
    while copy.at < last {
        copy.follow(&*store, "a/", 4).await;
    }
    assert_eq!(copy.items.into_values().collect::<Vec<_>>(), all(&*store, "a/", 10, NOW).await);
}

/// See the name.
pub async fn a_watcher_of_another_stores_revision_is_told_to_list_again(subject: Box<dyn Subject>) {
    let store = subject.storage();
    store.put("a", b"1", None).await.unwrap();
    let ahead = Revision(present(&*store).await.0 + 1_000);
    let told = tokio::time::timeout(PATIENCE, store.watch("", ahead, 10)).await.unwrap();
    assert!(matches!(told, Err(StorageError::TooOld { after }) if after == ahead));
}

/// See the name.
pub async fn a_watcher_who_comes_back_later_misses_nothing_or_is_told(subject: Box<dyn Subject>) {
    let store = subject.storage();
    store.put("a/0", b"x", None).await.unwrap();
    let mut copy = Copy::list(&*store, "a/").await;
    store.put("a/1", b"x", None).await.unwrap();
    drop(store);
    let Some(subject) = subject.restarted() else { return };
    let store = subject.storage();
    let last = store.put("a/2", b"x", None).await.unwrap();
    while copy.at < last {
        copy.follow(&*store, "a/", 10).await;
    }
    assert_eq!(copy.items.into_keys().collect::<Vec<_>>(), ["a/0", "a/1", "a/2"]);
}
