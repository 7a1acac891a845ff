//! The state store in SQLite. Expired items are removed in passing.

use std::sync::Arc;

use async_trait::async_trait;
use remoteler_core::{
    Change, Changes, Expected, Item, MAX_PAGE, Operation, Page, Revision, Storage, StorageError, Timestamp,
    Transaction, check_key, check_size,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{Database, DatabaseError};

/// Keys and values in a [`Database`].
#[derive(Clone, Debug)]
pub struct SqliteStorage(Arc<Database>);

/// Expired items are swept once in so many conditional writes.
const SWEEP_EVERY: u64 = 64;

/// A write that was done: its revision, and what watchers are told of it.
type Done = (Revision, Vec<Change>);

impl SqliteStorage {
    /// Over an open database.
    #[must_use]
    pub const fn new(database: Arc<Database>) -> Self {
        Self(database)
    }

    /// Runs `work` in a transaction; what it has changed is told once it is durable.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<(Option<Done>, T)> + Send + 'static,
    ) -> Result<T, StorageError> {
        let history = Arc::clone(self.0.history());
        let done = self.0.write_then(work, move |(done, answer)| {
            if let Some((revision, changes)) = done {
                history.tell(revision, changes);
            }
            answer
        });
        done.await.map_err(engine)
    }
}

#[async_trait]
impl Storage for SqliteStorage {
    async fn get(&self, key: &str, now: Timestamp) -> Result<Option<Item>, StorageError> {
        check_key(key)?;
        let key = key.to_owned();
        self.0.read(move |c| live(c, &key, now)).await.map_err(engine)
    }

    async fn put(&self, key: &str, value: &[u8], expires: Option<Timestamp>) -> Result<Revision, StorageError> {
        check_key(key)?;
        check_size(value.len())?;
        let (key, value) = (key.to_owned(), value.to_vec());
        self.write(move |c| {
            let revision = next(c)?;
            let change = put(c, Item { key, value, revision, expires })?;
            Ok((Some((revision, vec![change])), revision))
        })
        .await
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
        let key = key.to_owned();
        self.write(move |c| {
            if !delete(c, &key, now)? {
                return Ok((None, false));
            }
            let revision = next(c)?;
            Ok((Some((revision, vec![Change::Deleted { key, revision }])), true))
        })
        .await
    }

    async fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page, StorageError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let end = format!("{prefix}{}", char::MAX); // keys are UTF-8 and compared octet by octet, and none holds this
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let wanted = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let found = self.0.read(move |c| {
            let mut statement = c.prepare_cached(
                "SELECT key, value, revision, expires FROM items
                 WHERE key >= ?1 AND key < ?2 AND (?3 IS NULL OR key > ?3) AND (expires IS NULL OR expires > ?4)
                 ORDER BY key LIMIT ?5",
            )?;
            let rows = statement.query_map(params![prefix, end, after, now.unix_millis(), wanted], item)?;
            Ok((rows.collect::<rusqlite::Result<Vec<Item>>>()?, reached(c)?))
        });
        let (mut items, revision) = found.await.map_err(engine)?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(|item| item.key.clone()) } else { None };
        Ok(Page { items, next, revision })
    }

    async fn transact(&self, transaction: Transaction, now: Timestamp) -> Result<Revision, StorageError> {
        transaction.check()?;
        let Transaction { conditions, operations } = transaction;
        let outcome = self.write(move |c| {
            for (key, expected) in conditions {
                let found = live_revision(c, &key, now)?;
                let fits = match expected {
                    Expected::Absent => found.is_none(),
                    Expected::At(revision) => found == Some(revision),
                };
                if !fits {
                    return Ok((None, Err(key)));
                }
            }
            if operations.is_empty() {
                return Ok((None, Ok(reached(c)?)));
            }
            let revision = next(c)?;
            let mut changes = Vec::with_capacity(operations.len());
            for operation in operations {
                match operation {
                    Operation::Put { key, value, expires } => {
                        changes.push(put(c, Item { key, value, revision, expires })?);
                    }
                    Operation::Delete { key } => {
                        if delete(c, &key, now)? {
                            changes.push(Change::Deleted { key, revision });
                        }
                    }
                }
            }
            if revision.0.is_multiple_of(SWEEP_EVERY) {
                c.prepare_cached("DELETE FROM items WHERE expires <= ?1")?.execute([now.unix_millis()])?;
            }
            Ok((Some((revision, changes)), Ok(revision)))
        });
        outcome.await?.map_err(|key| StorageError::Conflict { key })
    }

    async fn watch(&self, prefix: &str, after: Revision, limit: usize) -> Result<Changes, StorageError> {
        let present = self.0.read(reached).await.map_err(engine)?;
        self.0.history().watch(prefix, after, limit, present).await
    }
}

fn live(c: &Connection, key: &str, now: Timestamp) -> rusqlite::Result<Option<Item>> {
    c.prepare_cached(
        "SELECT key, value, revision, expires FROM items WHERE key = ?1 AND (expires IS NULL OR expires > ?2)",
    )?
    .query_row(params![key, now.unix_millis()], item)
    .optional()
}

fn live_revision(c: &Connection, key: &str, now: Timestamp) -> rusqlite::Result<Option<Revision>> {
    c.prepare_cached("SELECT revision FROM items WHERE key = ?1 AND (expires IS NULL OR expires > ?2)")?
        .query_row(params![key, now.unix_millis()], |row| row.get(0).map(revision_of))
        .optional()
}

/// The last revision there was.
fn reached(c: &Connection) -> rusqlite::Result<Revision> {
    c.prepare_cached("SELECT revision FROM counter")?.query_row([], |row| row.get(0).map(revision_of))
}

/// The revision of a write that is being done.
fn next(c: &Connection) -> rusqlite::Result<Revision> {
    c.prepare_cached("UPDATE counter SET revision = revision + 1 RETURNING revision")?
        .query_row([], |row| row.get(0).map(revision_of))
}

fn put(c: &Connection, item: Item) -> rusqlite::Result<Change> {
    c.prepare_cached(
        "INSERT INTO items (key, value, revision, expires) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (key) DO UPDATE SET value = ?2, revision = ?3, expires = ?4",
    )?
    .execute(params![
        item.key,
        item.value,
        i64::try_from(item.revision.0).unwrap_or(i64::MAX), // it came from the counter, which is an i64
        item.expires.map(Timestamp::unix_millis)
    ])?;
    Ok(Change::Put(item))
}

/// Whether there was something that is not expired.
fn delete(c: &Connection, key: &str, now: Timestamp) -> rusqlite::Result<bool> {
    let was_live = live_revision(c, key, now)?.is_some();
    c.prepare_cached("DELETE FROM items WHERE key = ?1")?.execute([key])?;
    Ok(was_live)
}

fn item(row: &Row<'_>) -> rusqlite::Result<Item> {
    let expires: Option<i64> = row.get(3)?;
    Ok(Item {
        key: row.get(0)?,
        value: row.get(1)?,
        revision: revision_of(row.get(2)?),
        expires: expires.map(Timestamp::from_unix_millis),
    })
}

fn revision_of(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0)) // the counter starts at 1 and only grows
}

fn engine(cause: DatabaseError) -> StorageError {
    StorageError::Engine(cause.to_string())
}
