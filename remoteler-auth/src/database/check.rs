//! The look at the database before it is used: whether its pages are what SQLite wrote. Owns the time that may take; decides nothing else.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode};

use super::OpenError;

/// How long the check may hold up a start. It reads several hundred MiB in that time where they are in memory, so the state of any cluster; of a very large
/// audit log it sees a part, and `verify` sees the rest.
pub(super) const LIMIT: Duration = Duration::from_secs(1);

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// All of it.
    Whole,
    /// As much as could be in the time.
    InPart,
}

/// Runs `PRAGMA quick_check`, first over the state, which is small and which nothing works without, then over everything, for `limit` in all.
pub(super) fn check(connection: &mut Connection, path: &Path, limit: Duration) -> Result<Checked, OpenError> {
    let failed = |source| OpenError::from_sqlite(path, source);
    let end = Instant::now() + limit;
    connection.progress_handler(STEPS, Some(move || Instant::now() >= end)).map_err(failed)?;
    let outcome = run(connection);
    connection.progress_handler(0, None::<fn() -> bool>).map_err(failed)?;
    match outcome {
        Ok(None) => Ok(Checked::Whole),
        Ok(Some(found)) => Err(OpenError::Damaged { path: path.to_owned(), found }),
        Err(cause) if cause.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(Checked::InPart),
        Err(cause) => Err(failed(cause)),
    }
}

/// The first thing that is wrong.
fn run(connection: &Connection) -> rusqlite::Result<Option<String>> {
    for statement in ["PRAGMA quick_check('items')", "PRAGMA quick_check(1)"] {
        let said: String = connection.query_row(statement, [], |row| row.get(0))?;
        if said != "ok" {
            return Ok(Some(said.replace('\n', " ")));
        }
    }
    Ok(None)
}

/// Instructions of SQLite's machine between two looks at the clock.
const STEPS: i32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn database(rows: i64) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sqlite");
        let connection = Connection::open(&path).unwrap();
        super::super::migrations::apply(&connection, 0).unwrap();
        let filled = connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO items SELECT printf('key/%08d', i), randomblob(500), i, NULL FROM n",
            [rows],
        );
        filled.unwrap();
        (dir, path)
    }

    #[test]
    fn a_whole_database_passes_and_one_with_a_damaged_page_is_refused_with_what_to_do() {
        let (_dir, path) = database(1000);
        let mut connection = Connection::open(&path).unwrap();
        assert_eq!(check(&mut connection, &path, Duration::from_secs(60)).unwrap(), Checked::Whole);
        drop(connection);

        let mut octets = std::fs::read(&path).unwrap();
        let page = 40 * 4096;
        octets[page..page + 4096].fill(0xa5);
        std::fs::write(&path, &octets).unwrap();
        let mut connection = Connection::open(&path).unwrap();
        let refused = check(&mut connection, &path, Duration::from_secs(60)).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
        let said = refused.to_string();
        assert!(said.contains("backup") && said.contains("x.sqlite") && !said.contains('\n'), "{said}");
    }

    #[test]
    fn a_check_that_takes_too_long_is_left_and_stops_no_start() {
        let (_dir, path) = database(20_000);
        let mut connection = Connection::open(&path).unwrap();
        assert_eq!(check(&mut connection, &path, Duration::ZERO).unwrap(), Checked::InPart);
        // The clock is not looked at any more afterwards.
        let count: i64 = connection.query_row("SELECT count(*) FROM items", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 20_000);
    }
}
