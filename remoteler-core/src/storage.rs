//! The contract of the state store: keys and values with revisions. Owns the words and the limits; implementations stand in the auth service, and one
//! suite of tests runs over all of them (`remoteler-auth`, feature `storage-contract`).

use async_trait::async_trait;

use crate::Timestamp;

/// Counts changes of one store; each write gets a larger one, whatever its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
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
    /// No such item, or an expired one.
    Absent,
    /// The item at this revision, not expired.
    At(Revision),
}

/// Part of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In order of key.
    pub items: Vec<Item>,
    /// Pass as `after` to go on; absent at the end.
    pub next: Option<String>,
    /// The state that was read holds every write up to this one, and none after it.
    pub revision: Revision,
}

/// One write of a [`Transaction`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writes, whatever stood there.
    Put {
        /// Where.
        key: String,
        /// What.
        value: Vec<u8>,
        /// Its end.
        expires: Option<Timestamp>,
    },
    /// Removes, if there is something.
    Delete {
        /// What.
        key: String,
    },
}

impl Operation {
    /// What it writes to.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Writes that belong together, and what must be true for them: all are done, at one revision, or none is.
///
/// A key stands in at most one operation, and may stand in a condition besides. At most [`MAX_OPERATIONS`] conditions, as many operations, and
/// [`MAX_VALUE`] octets of values in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must be found.
    pub conditions: Vec<(String, Expected)>,
    /// What is done then.
    pub operations: Vec<Operation>,
}

impl Transaction {
    /// That does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Also expects this.
    #[must_use]
    pub fn expect(mut self, key: impl Into<String>, expected: Expected) -> Self {
        self.conditions.push((key.into(), expected));
        self
    }

    /// Also writes this.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>, expires: Option<Timestamp>) -> Self {
        self.operations.push(Operation::Put { key: key.into(), value: value.into(), expires });
        self
    }

    /// Also removes this.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.operations.push(Operation::Delete { key: key.into() });
        self
    }

    /// Whether it is within the limits; implementations ask before they do anything.
    ///
    /// # Errors
    /// [`StorageError::Refused`] names what is not.
    pub fn check(&self) -> Result<(), StorageError> {
        if self.conditions.len() > MAX_OPERATIONS || self.operations.len() > MAX_OPERATIONS {
            return Err(StorageError::Refused(format!(
                "a transaction has at most {MAX_OPERATIONS} conditions and as many operations"
            )));
        }
        let mut keys = std::collections::BTreeSet::new();
        let mut octets = 0;
        for operation in &self.operations {
            check_key(operation.key())?;
            if !keys.insert(operation.key()) {
                return Err(StorageError::Refused(format!("a transaction writes {} twice", operation.key())));
            }
            if let Operation::Put { value, .. } = operation {
                octets += value.len();
            }
        }
        check_size(octets)?;
        self.conditions.iter().try_for_each(|(key, _)| check_key(key))
    }
}

/// Something that happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was written.
    Put(Item),
    /// It was deleted.
    Deleted {
        /// What.
        key: String,
        /// By which write.
        revision: Revision,
    },
}

impl Change {
    /// What it happened to.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put(item) => &item.key,
            Self::Deleted { key, .. } => key,
        }
    }

    /// By which write.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        match self {
            Self::Put(item) => item.revision,
            Self::Deleted { revision, .. } => *revision,
        }
    }
}

/// What a watcher gets at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// In order of revision; those of one transaction together.
    pub changes: Vec<Change>,
    /// Pass as `after` to go on: nothing up to here is missing in `changes`.
    pub revision: Revision,
}

/// Longest key, in octets.
pub const MAX_KEY: usize = 512;
/// Largest value, and all values of a transaction, in octets: what etcd takes in one request leaves room for the keys.
pub const MAX_VALUE: usize = 1024 * 1024;
/// Most operations, and most conditions, of a transaction.
pub const MAX_OPERATIONS: usize = 96;
/// Most items or changes that are answered at once.
pub const MAX_PAGE: usize = 10_000;

/// Whether a key can be stored: 1 to [`MAX_KEY`] octets, without control characters and without U+10FFFF, after which no key sorts.
///
/// # Errors
/// [`StorageError::Refused`]
pub fn check_key(key: &str) -> Result<(), StorageError> {
    if key.is_empty() || key.len() > MAX_KEY || key.chars().any(|c| c.is_control() || c == char::MAX) {
        let start: String = key.chars().take(40).collect();
        return Err(StorageError::Refused(format!(
            "{start:?} cannot be a key: 1 to {MAX_KEY} octets without control characters are allowed"
        )));
    }
    Ok(())
}

/// Whether a value can be stored: at most [`MAX_VALUE`] octets.
///
/// # Errors
/// [`StorageError::Refused`]
pub fn check_size(octets: usize) -> Result<(), StorageError> {
    if octets > MAX_VALUE {
        return Err(StorageError::Refused(format!(
            "{octets} octets are too many: at most {MAX_VALUE} are stored at once"
        )));
    }
    Ok(())
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// A conditional write found something else; nothing was written.
    #[error("{key} was changed by somebody else meanwhile")]
    Conflict {
        /// Key; of several that do not fit, the first condition's.
        key: String,
    },
    /// The changes since the revision asked for are not kept any more, or are none of this store's.
    #[error("the changes since revision {} are not kept any more; list again and watch from there", after.0)]
    TooOld {
        /// As it was asked for.
        after: Revision,
    },
    /// What was asked for is beyond the limits; nothing was written, and the same will be refused again.
    #[error("{0}")]
    Refused(String),
    /// The engine failed; nothing was written.
    #[error("the state store failed: {0}")]
    Engine(String),
}

/// Keys and values.
///
/// **Durability.** Every write is durable when it returns, and survives `kill -9` and a loss of power. On an error nothing was written. All methods are cancel
/// safe: a dropped future has written all or nothing, and which of the two the next read tells.
///
/// **Order.** All writes have one order, and revisions count it: of two writes, that which returned before the other began has the smaller. A read sees every
/// write that has returned before it began. Revisions may have gaps. They go on after a restart, and never back.
///
/// **Keys and values.** Keys are compared octet by octet. [`check_key`] and [`check_size`] say what is allowed; anything else is
/// [`StorageError::Refused`] in every method that takes it, before anything is done. A prefix may be empty.
///
/// **Expiry.** Time is the caller's: `now` decides. An item is there while `expires > now`; from then on it is never returned, counts as [`Expected::Absent`],
/// and may be removed at any time, without a revision and without a [`Change`]: a watcher who keeps items applies `expires` itself. A clock that is set
/// back may find an expired item again, or not.
///
/// **Watching.** A watcher lists with [`Storage::range`], keeps the revision of the *first* page, and asks [`Storage::watch`] for what came after it; changes that
/// the later pages already had come again, and an item with a smaller revision than the one that is kept is passed over. Of several changes of one key between
/// two answers the earlier ones may be left out. How many changes are kept is bounded, and none need outlive a restart.
#[async_trait]
pub trait Storage: Send + Sync {
    /// The item at `key`.
    ///
    /// # Errors
    /// [`StorageError::Engine`], [`StorageError::Refused`]
    async fn get(&self, key: &str, now: Timestamp) -> Result<Option<Item>, StorageError>;

    /// Writes, whatever stood there.
    ///
    /// # Errors
    /// [`StorageError::Engine`], [`StorageError::Refused`]
    async fn put(&self, key: &str, value: &[u8], expires: Option<Timestamp>) -> Result<Revision, StorageError>;

    /// Writes if what stands there is as expected; an expired item counts as absent. Of several concurrent callers with the same expectation exactly
    /// one succeeds.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when it is not; [`StorageError::Engine`], [`StorageError::Refused`]
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
    /// [`StorageError::Engine`], [`StorageError::Refused`]
    async fn delete(&self, key: &str, now: Timestamp) -> Result<bool, StorageError>;

    /// Items whose key starts with `prefix`, after the key `after` if given, at most `limit` (1 to [`MAX_PAGE`]; what is outside is taken for the nearest). Each
    /// page is of one moment; two pages may be of two. `after` need not be a key that is there, nor start with `prefix`.
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

    /// Checks all conditions and, if they hold, does all operations, at one revision, which it returns. Nothing else is written between the check and the
    /// operations. Without operations it only checks.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when a condition does not hold; [`StorageError::Engine`], [`StorageError::Refused`]
    async fn transact(&self, transaction: Transaction, now: Timestamp) -> Result<Revision, StorageError>;

    /// Waits until something below `prefix` has changed after the revision `after`, and answers with at most `limit` changes (1 to [`MAX_PAGE`]; all those of
    /// one transaction come in one answer, even if they are more). Each change is told once it is durable. May answer without changes, to say that
    /// others happened and `after` has moved on. Costs the store nothing between two calls: a watcher is a revision.
    ///
    /// # Errors
    /// [`StorageError::TooOld`]: list again. [`StorageError::Engine`]
    async fn watch(&self, prefix: &str, after: Revision, limit: usize) -> Result<Changes, StorageError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_beyond_its_limits_is_refused_before_anything_is_done() {
        let many = (0..=MAX_OPERATIONS).fold(Transaction::new(), |all, n| all.delete(format!("k/{n}")));
        let asks =
            (0..=MAX_OPERATIONS).fold(Transaction::new(), |all, n| all.expect(format!("k/{n}"), Expected::Absent));
        let large = Transaction::new().put("a", vec![0; MAX_VALUE], None).put("b", vec![0], None);
        let twice = Transaction::new().delete("a").put("a", "x", None);
        let nameless = Transaction::new().expect("", Expected::Absent);
        for wrong in [many, asks, large, twice, nameless] {
            assert!(matches!(wrong.check(), Err(StorageError::Refused(_))));
        }
        let right = Transaction::new().expect("a", Expected::Absent).put("a", vec![0; MAX_VALUE], None).delete("b");
        assert!(right.check().is_ok());
    }

    #[test]
    fn a_key_is_short_and_can_be_printed() {
        for key in ["", "a\nb", "a\0", "a/\u{10ffff}", &"x".repeat(MAX_KEY + 1)] {
            assert!(matches!(check_key(key), Err(StorageError::Refused(_))), "{key:?}");
        }
        for key in ["a", "nodes/ü", &"x".repeat(MAX_KEY)] {
            assert!(check_key(key).is_ok(), "{key:?}");
        }
    }
}
