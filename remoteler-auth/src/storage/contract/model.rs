//! Any sequence of operations against a map that is plainly right.

use std::{collections::BTreeMap, time::Duration};

use remoteler_core::{Change, Expected, Operation, Revision, Storage, StorageError, Timestamp, Transaction};

use super::{NOW, all};

/// What the store should hold: value, revision as the store told it, end.
type Model = BTreeMap<String, (Vec<u8>, Revision, Option<Timestamp>)>;

const KEYS: [&str; 6] = ["a", "a/1", "a/2", "b/", "b/ü", "c"];

/// Does what the octets say, four for each step, and compares each answer and at last all that is there, and what a watcher was told. Any octets are some operations, so that
/// a tool can draw and shrink them.
pub async fn agrees_with_the_model(store: &dyn Storage, octets: &[u8]) {
    let begin = store.range("", None, 1, NOW).await.unwrap().revision;
    let (mut model, mut now, mut last) = (Model::new(), NOW, begin);
    for step in octets.chunks_exact(4) {
        let [what, which, argument, time] = step else { continue };
        now = now.plus(Duration::from_secs(u64::from(time % 3)));
        let key = KEYS[usize::from(*which) % KEYS.len()];
        let expires = (argument % 3 == 0).then(|| now.plus(Duration::from_secs(u64::from(argument % 5))));
        let live = |model: &Model, key: &str| {
            model.get(key).filter(|(_, _, end)| end.is_none_or(|end| end > now)).map(|(_, r, _)| *r)
        };
        let expected = match argument % 4 {
            0 => Expected::Absent,
            1 => Expected::At(Revision(u64::from(*argument))),
            _ => live(&model, key).map_or(Expected::Absent, Expected::At),
        };
        let fits = |model: &Model, key: &str, expected| match expected {
            Expected::Absent => live(model, key).is_none(),
            Expected::At(revision) => live(model, key) == Some(revision),
        };
        match what % 6 {
            0 => {
                let revision = store.put(key, step, expires).await.unwrap();
                assert!(revision > last);
                last = revision;
                model.insert(key.into(), (step.to_vec(), revision, expires));
            }
            1 => {
                let outcome = store.compare_and_swap(key, expected, step, expires, now).await;
                assert_eq!(outcome.is_ok(), fits(&model, key, expected), "{step:?}: {outcome:?}");
                if let Ok(revision) = outcome {
                    assert!(revision > last);
                    last = revision;
                    model.insert(key.into(), (step.to_vec(), revision, expires));
                }
            }
            2 => {
                let there = live(&model, key).is_some();
                assert_eq!(store.delete(key, now).await.unwrap(), there, "{step:?}");
                model.remove(key);
            }
            3 => {
                let other = KEYS[usize::from(*argument) % KEYS.len()];
                let mut transaction = Transaction::new().expect(key, expected).put(key, step, expires);
                if other != key {
                    transaction = if argument % 2 == 0 {
                        transaction.delete(other)
                    } else {
                        transaction.put(other, "other", None)
                    };
                }
                let outcome = store.transact(transaction.clone(), now).await;
                assert_eq!(outcome.is_ok(), fits(&model, key, expected), "{step:?}: {outcome:?}");
                match outcome {
                    Ok(revision) => {
                        assert!(revision > last);
                        last = revision;
                        for operation in transaction.operations {
                            match operation {
                                Operation::Put { key, value, expires } => {
                                    drop(model.insert(key, (value, revision, expires)))
                                }
                                Operation::Delete { key } => drop(model.remove(&key)),
                            }
                        }
                    }
                    Err(StorageError::Conflict { key: named }) => assert_eq!(named, key),
                    Err(cause) => panic!("{cause}"),
                }
            }
            4 => {
                let found = store.get(key, now).await.unwrap();
                assert_eq!(found.map(|item| item.revision), live(&model, key), "{step:?}");
            }
            _ => {
                let prefix = ["", "a", "a/", "b/", "d"][usize::from(*argument) % 5];
                compare(store, &model, prefix, 1 + usize::from(*argument % 4), now).await;
            }
        }
    }
    compare(store, &model, "", 4, now).await;
    watch(store, begin, now).await;
}

async fn compare(store: &dyn Storage, model: &Model, prefix: &str, limit: usize, now: Timestamp) {
    let found = all(store, prefix, limit, now)
        .await
        .into_iter()
        .map(|item| (item.key, (item.value, item.revision, item.expires)));
    let expected = model.iter().filter(|(key, (_, _, end))| key.starts_with(prefix) && end.is_none_or(|end| end > now));
    let expected: Vec<_> = expected.map(|(key, kept)| (key.clone(), kept.clone())).collect();
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

/// Who watched from the beginning knows the same; if the store did not keep that much, there is nothing to compare.
async fn watch(store: &dyn Storage, begin: Revision, now: Timestamp) {
    let end = store.put("zz", b"", None).await.unwrap();
    let (mut at, mut copy) = (begin, BTreeMap::new());
    while at < end {
        let changes = match store.watch("", at, 3).await {
            Ok(changes) => changes,
            Err(StorageError::TooOld { .. }) => return,
            Err(cause) => panic!("{cause}"),
        };
        assert!(changes.revision > at);
        at = changes.revision;
        for change in changes.changes {
            match change {
                Change::Put(item) => drop(copy.insert(item.key.clone(), item)),
                Change::Deleted { key, .. } => drop(copy.remove(&key)),
            }
        }
    }
    let live = copy.into_values().filter(|item| item.expires.is_none_or(|end| end > now));
    assert_eq!(live.collect::<Vec<_>>(), all(store, "", 100, now).await);
}
