//! A state store that is forgotten with the process; for tests and embedders.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use remoteler_core::{
    Change, Changes, Expected, Item, MAX_PAGE, Operation, Page, Revision, Storage, StorageError, Timestamp,
    Transaction, check_key, check_size,
};

use super::History;

/// Keys and values in memory.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    state: Mutex<State>,
    history: History,
}

#[derive(Debug, Default)]
struct State {
    items: BTreeMap<String, Item>,
    revision: u64,
}

impl State {
    fn live(&self, key: &str, now: Timestamp) -> Option<&Item> {
        self.items.get(key).filter(|item| is_live(item, now))
    }

    fn meets(&self, key: &str, expected: Expected, now: Timestamp) -> Result<(), StorageError> {
        let found = self.live(key, now).map(|item| item.revision);
        let fits = match expected {
            Expected::Absent => found.is_none(),
            Expected::At(revision) => found == Some(revision),
        };
        if fits { Ok(()) } else { Err(StorageError::Conflict { key: key.to_owned() }) }
    }

    fn next(&mut self) -> Revision {
        self.revision += 1;
        Revision(self.revision)
    }

    fn write(&mut self, item: Item) -> Change {
        self.items.insert(item.key.clone(), item.clone());
        Change::Put(item)
    }
}

impl MemoryStorage {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Every change of the state is one step, so it is whole even after a panic elsewhere.
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Storage for MemoryStorage {
    async fn get(&self, key: &str, now: Timestamp) -> Result<Option<Item>, StorageError> {
        check_key(key)?;
        Ok(self.with(|state| state.live(key, now).cloned()))
    }

    async fn put(&self, key: &str, value: &[u8], expires: Option<Timestamp>) -> Result<Revision, StorageError> {
        self.transact(Transaction::new().put(key, value, expires), Timestamp::default()).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Expected,
        value: &[u8],
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Revision, StorageError> {
        check_size(value.len())?;
        self.transact(Transaction::new().expect(key, expected).put(key, value, expires), now).await
    }

    async fn delete(&self, key: &str, now: Timestamp) -> Result<bool, StorageError> {
        check_key(key)?;
        Ok(self.with(|state| {
            if state.items.remove(key).is_none_or(|item| !is_live(&item, now)) {
                return false;
            }
            let revision = state.next();
            self.history.tell(revision, [Change::Deleted { key: key.to_owned(), revision }]);
            true
        }))
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
            Ok(Page { items, next, revision: Revision(state.revision) })
        })
    }

    async fn transact(&self, transaction: Transaction, now: Timestamp) -> Result<Revision, StorageError> {
        transaction.check()?;
        let Transaction { conditions, operations } = transaction;
        self.with(|state| {
            conditions.iter().try_for_each(|(key, expected)| state.meets(key, *expected, now))?;
            if operations.is_empty() {
                return Ok(Revision(state.revision));
            }
            let revision = state.next();
            let mut changes = Vec::with_capacity(operations.len());
            for operation in operations {
                match operation {
                    Operation::Put { key, value, expires } => {
                        changes.push(state.write(Item { key, value, revision, expires }));
                    }
                    Operation::Delete { key } => {
                        if state.items.remove(&key).is_some_and(|item| is_live(&item, now)) {
                            changes.push(Change::Deleted { key, revision });
                        }
                    }
                }
            }
            // With the state still held, so that writes are told in their order.
            self.history.tell(revision, changes);
            Ok(revision)
        })
    }

    async fn watch(&self, prefix: &str, after: Revision, limit: usize) -> Result<Changes, StorageError> {
        let present = self.with(|state| Revision(state.revision));
        self.history.watch(prefix, after, limit, present).await
    }
}

fn is_live(item: &Item, now: Timestamp) -> bool {
    item.expires.is_none_or(|expires| expires > now)
}
