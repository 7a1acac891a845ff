//! The two implementations of the state store: in memory and in SQLite. One contract test suite runs over both.

#[cfg(feature = "storage-contract")]
pub mod contract;
mod history;
mod memory;
mod sealed;
mod sqlite;

pub(crate) use history::History;
pub use memory::MemoryStorage;
pub(crate) use sealed::SealedStorage;
pub use sqlite::SqliteStorage;
