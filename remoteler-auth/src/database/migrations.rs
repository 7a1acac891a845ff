//! The formats of the database: one migration for each, applied in order and in one transaction. Owns the list and the rule that a format which
//! was released is never changed again. Knows nothing of connections, threads or files.
//!
//! To add one: write `migrations/m000N_what_it_does.rs` with a `MIGRATION` of the next version, whose statements stand in `migrations/000N_what_it_does.sql`
//! if they are more than a line, add it to the `mod` lines and at the end of [`ALL`], and keep a data directory of the format before in
//! `tests/fixtures` (its README says how one is made).

mod m0001_items_and_events;
mod m0002_evidence;

use rusqlite::Connection;

/// One step from a format to the next.
pub(super) struct Migration {
    /// The format that it makes; they count from 1 without gaps.
    pub(super) version: u32,
    /// For messages: what it does, in words.
    pub(super) name: &'static str,
    /// Makes it, inside a transaction that holds everything before it and after it. Must not commit, and must not need any code outside its own file
    /// that may change later: what the program does tomorrow is not what this format was.
    pub(super) apply: fn(&Connection) -> rusqlite::Result<()>,
}

/// All of them, in order.
const ALL: &[Migration] = &[
    m0001_items_and_events::MIGRATION,
    m0002_evidence::MIGRATION,
    // The next one comes here.
];

/// The format that this program writes.
pub(super) const LATEST: u32 = ALL[ALL.len() - 1].version;

/// A migration that failed; the database is as it was.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) version: u32,
    pub(super) name: &'static str,
    pub(super) source: rusqlite::Error,
}

/// Brings a database of format `found` (0: an empty one) to the latest, whole or not at all.
pub(super) fn apply(connection: &Connection, found: u32) -> Result<(), Failed> {
    apply_list(connection, found, ALL)
}

fn apply_list(connection: &Connection, found: u32, all: &[Migration]) -> Result<(), Failed> {
    let mut at = (found, "begin");
    let outcome = connection.execute_batch("BEGIN IMMEDIATE").and_then(|()| {
        for migration in all.iter().filter(|migration| migration.version > found) {
            at = (migration.version, migration.name);
            (migration.apply)(connection)?;
            connection.pragma_update(None, "user_version", migration.version)?;
        }
        connection.execute_batch("COMMIT")
    });
    outcome.map_err(|source| {
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK"); // if it fails too, closing the connection does the same
        }
        Failed { version: at.0, name: at.1, source }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(connection: &Connection) -> u32 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    fn tables(connection: &Connection) -> Vec<String> {
        let mut statement =
            connection.prepare("SELECT sql FROM sqlite_schema WHERE sql NOT NULL ORDER BY name").unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn formats_count_from_one_without_gaps() {
        let versions: Vec<u32> = ALL.iter().map(|migration| migration.version).collect();
        let expected: Vec<u32> = (1..).take(ALL.len()).collect();
        assert_eq!(versions, expected);
    }

    #[test]
    fn every_format_comes_to_the_same_tables_as_an_empty_database() {
        let fresh = Connection::open_in_memory().unwrap();
        apply(&fresh, 0).unwrap();
        assert_eq!(version(&fresh), LATEST);
        for released in 1..=LATEST {
            let count = usize::try_from(released).unwrap();
            let old = Connection::open_in_memory().unwrap();
            apply_list(&old, 0, &ALL[..count]).unwrap();
            assert_eq!(version(&old), released);
            apply(&old, released).unwrap();
            assert_eq!((version(&old), tables(&old)), (LATEST, tables(&fresh)), "format {released}");
        }
    }

    #[test]
    fn a_migration_that_fails_leaves_the_format_before_and_all_that_was_in_it() {
        let list = [
            Migration {
                version: 1,
                name: "a table",
                apply: |c| c.execute_batch("CREATE TABLE a (n); INSERT INTO a VALUES (7)"),
            },
            Migration { version: 2, name: "another", apply: |c| c.execute_batch("DROP TABLE a; CREATE TABLE b (n)") },
            Migration { version: 3, name: "nonsense", apply: |c| c.execute_batch("INSERT INTO nowhere VALUES (1)") },
        ];
        let connection = Connection::open_in_memory().unwrap();
        apply_list(&connection, 0, &list[..1]).unwrap();
        let failed = apply_list(&connection, 1, &list).unwrap_err();
        assert_eq!((failed.version, failed.name), (3, "nonsense"));
        assert_eq!(version(&connection), 1);
        assert_eq!(connection.query_row("SELECT n FROM a", [], |row| row.get::<_, i64>(0)).unwrap(), 7);
        apply_list(&connection, 1, &list[..2]).unwrap();
        assert_eq!((version(&connection), tables(&connection)), (2, vec!["CREATE TABLE b (n)".to_owned()]));
    }
}
