//! A state store that is forgotten with the process; for tests and embedders.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use remoteler_core::{Expected, Item, Page, Revision, Storage, StorageError, Timestamp};

use super::MAX_PAGE;

/// Keys and values in memory.
#[derive(Debug, Default)]
pub struct MemoryStorage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    items: BTreeMap<String, Item>,
    revision: u64,
}

impl State {
    fn live(&self, key: &str, now: Timestamp) -> Option<&Item> {
        self.items.get(key).filter(|item| is_live(item, now))
    }

    fn write(&mut self, key: &str, value: &[u8], expires: Option<Timestamp>) -> Revision {
        self.revision += 1;
        let revision = Revision(self.revision);
        self.items.insert(key.to_owned(), Item { key: key.to_owned(), value: value.to_vec(), revision, expires });
        revision
    }
}

impl MemoryStorage {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Every change of the state is one step, so it is whole even after a panic elsewhere.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Storage for MemoryStorage {
    async fn get(&self, key: &str, now: Timestamp) -> Result<Option<Item>, StorageError> {
        Ok(self.with(|state| state.live(key, now).cloned()))
    }

    async fn put(&self, key: &str, value: &[u8], expires: Option<Timestamp>) -> Result<Revision, StorageError> {
        Ok(self.with(|state| state.write(key, value, expires)))
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Expected,
        value: &[u8],
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Revision, StorageError> {
        self.with(|state| {
            let found = state.live(key, now).map(|item| item.revision);
            let fits = match expected {
                Expected::Absent => found.is_none(),
                Expected::At(revision) => found == Some(revision),
            };
            if fits {
                Ok(state.write(key, value, expires))
            } else {
                Err(StorageError::Conflict { key: key.to_owned() })
            }
        })
    }

    async fn delete(&self, key: &str, now: Timestamp) -> Result<bool, StorageError> {
        Ok(self.with(|state| state.items.remove(key).is_some_and(|item| is_live(&item, now))))
    }

    async fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page, StorageError> {
        let limit = limit.clamp(1, MAX_PAGE);
        self.with(|state| {
            let start = match after {
                Some(after) if after >= prefix => Bound::Excluded(after),
                _ => Bound::Included(prefix),
            };
            let mut found = state
                .items
                .range::<str, _>((start, Bound::Unbounded))
                .map(|(_, item)| item)
                .take_while(|item| item.key.starts_with(prefix))
                .filter(|item| is_live(item, now));
            let items: Vec<Item> = found.by_ref().take(limit).cloned().collect();
            let next = found.next().and_then(|_| items.last().map(|item| item.key.clone()));
            Ok(Page { items, next })
        })
    }
}

fn is_live(item: &Item, now: Timestamp) -> bool {
    item.expires.is_none_or(|expires| expires > now)
}
