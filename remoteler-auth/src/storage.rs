//! The two implementations of the state store: in memory and in SQLite. One contract test suite runs over both.

mod memory;
mod sqlite;

pub use memory::MemoryStorage;
pub use sqlite::SqliteStorage;

/// Largest number of items in one page.
const MAX_PAGE: usize = 10_000;
