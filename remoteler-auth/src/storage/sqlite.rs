//! The state store in SQLite. Expired items are removed in passing.

use std::sync::Arc;

use async_trait::async_trait;
use remoteler_core::{Expected, Item, Page, Revision, Storage, StorageError, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::MAX_PAGE;
use crate::{Database, DatabaseError};

/// Keys and values in a [`Database`].
#[derive(Clone, Debug)]
pub struct SqliteStorage(Arc<Database>);

/// Expired items are swept once in so many conditional writes.
const SWEEP_EVERY: i64 = 64;

impl SqliteStorage {
    /// Over an open database.
    #[must_use]
    pub const fn new(database: Arc<Database>) -> Self {
        Self(database)
    }
}

#[async_trait]
impl Storage for SqliteStorage {
    async fn get(&self, key: &str, now: Timestamp) -> Result<Option<Item>, StorageError> {
        let key = key.to_owned();
        self.0.read(move |c| live(c, &key, now)).await.map_err(engine)
    }

    async fn put(&self, key: &str, value: &[u8], expires: Option<Timestamp>) -> Result<Revision, StorageError> {
        let (key, value) = (key.to_owned(), value.to_vec());
        let revision = self.0.write(move |c| write(c, &key, &value, expires)).await.map_err(engine)?;
        Ok(revision_of(revision))
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Expected,
        value: &[u8],
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Revision, StorageError> {
        let (owned, value) = (key.to_owned(), value.to_vec());
        let written = self.0.write(move |c| {
            let found = live(c, &owned, now)?.map(|item| item.revision);
            let fits = match expected {
                Expected::Absent => found.is_none(),
                Expected::At(revision) => found == Some(revision),
            };
            if !fits {
                return Ok(None);
            }
            let revision = write(c, &owned, &value, expires)?;
            if revision % SWEEP_EVERY == 0 {
                c.prepare_cached("DELETE FROM items WHERE expires <= ?1")?.execute([now.unix_millis()])?;
            }
            Ok(Some(revision))
        });
        let written = written.await.map_err(engine)?;
        written.map(revision_of).ok_or_else(|| StorageError::Conflict { key: key.to_owned() })
    }

    async fn delete(&self, key: &str, now: Timestamp) -> Result<bool, StorageError> {
        let key = key.to_owned();
        let deleted = self.0.write(move |c| {
            let was_live = live(c, &key, now)?.is_some();
            c.prepare_cached("DELETE FROM items WHERE key = ?1")?.execute([&key])?;
            Ok(was_live)
        });
        deleted.await.map_err(engine)
    }

    async fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page, StorageError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let end = format!("{prefix}\u{10ffff}"); // keys are UTF-8 and compared octet by octet
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let wanted = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let found = self.0.read(move |c| {
            let mut statement = c.prepare_cached(
                "SELECT key, value, revision, expires FROM items
                 WHERE key >= ?1 AND key < ?2 AND (?3 IS NULL OR key > ?3) AND (expires IS NULL OR expires > ?4)
                 ORDER BY key LIMIT ?5",
            )?;
            let rows = statement.query_map(params![prefix, end, after, now.unix_millis(), wanted], item)?;
            rows.collect::<rusqlite::Result<Vec<Item>>>()
        });
        let mut items = found.await.map_err(engine)?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(|item| item.key.clone()) } else { None };
        Ok(Page { items, next })
    }
}

fn live(c: &Connection, key: &str, now: Timestamp) -> rusqlite::Result<Option<Item>> {
    c.prepare_cached(
        "SELECT key, value, revision, expires FROM items WHERE key = ?1 AND (expires IS NULL OR expires > ?2)",
    )?
    .query_row(params![key, now.unix_millis()], item)
    .optional()
}

fn write(c: &Connection, key: &str, value: &[u8], expires: Option<Timestamp>) -> rusqlite::Result<i64> {
    let revision: i64 = c
        .prepare_cached("UPDATE counter SET revision = revision + 1 RETURNING revision")?
        .query_row([], |row| row.get(0))?;
    c.prepare_cached(
        "INSERT INTO items (key, value, revision, expires) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (key) DO UPDATE SET value = ?2, revision = ?3, expires = ?4",
    )?
    .execute(params![key, value, revision, expires.map(Timestamp::unix_millis)])?;
    Ok(revision)
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
