//! The contract of the state store: keys and values with revisions. Implementations stand in the auth service.

use async_trait::async_trait;

use crate::Timestamp;

/// Counts changes of one store; each write gets a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Path of the item, `/`-separated, for example `roles/access`.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// Of the write that made it.
    pub revision: Revision,
    /// From when on it is as if deleted.
    pub expires: Option<Timestamp>,
}

/// What a conditional write expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No such item.
    Absent,
    /// The item at this revision.
    At(Revision),
}

/// Part of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In order of key.
    pub items: Vec<Item>,
    /// Pass as `after` to go on; absent at the end.
    pub next: Option<String>,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// A conditional write found something else.
    #[error("{key} was changed by somebody else meanwhile")]
    Conflict {
        /// Key.
        key: String,
    },
    /// The engine failed; nothing was written.
    #[error("the state store failed: {0}")]
    Engine(String),
}

/// Keys and values. Every write is durable when it returns. An item past its expiry is never returned and may be
/// removed at any time. All methods are cancel safe: a dropped future has written all or nothing.
#[async_trait]
pub trait Storage: Send + Sync {
    /// The item at `key`.
    ///
    /// # Errors
    /// [`StorageError::Engine`]
    async fn get(&self, key: &str, now: Timestamp) -> Result<Option<Item>, StorageError>;

    /// Writes, whatever stood there.
    ///
    /// # Errors
    /// [`StorageError::Engine`]
    async fn put(&self, key: &str, value: &[u8], expires: Option<Timestamp>) -> Result<Revision, StorageError>;

    /// Writes if what stands there is as expected; an expired item counts as absent.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when it is not.
    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Expected,
        value: &[u8],
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Revision, StorageError>;

    /// Removes; whether there was something to remove. Of several concurrent callers exactly one gets `true`.
    ///
    /// # Errors
    /// [`StorageError::Engine`]
    async fn delete(&self, key: &str, now: Timestamp) -> Result<bool, StorageError>;

    /// Items whose key starts with `prefix`, after the key `after` if given, at most `limit` (1 to 10,000).
    ///
    /// # Errors
    /// [`StorageError::Engine`]
    async fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page, StorageError>;
}
