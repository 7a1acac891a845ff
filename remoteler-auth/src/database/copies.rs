//! Whole copies of the database as files: the one that is made before a format is changed, and backups. Owns how a copy is made while others write,
//! and that it is on disk, whole and its owner's alone, before anybody is told of it (I67).

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, backup::Backup, backup::StepResult};

use super::{FILE_NAME, OpenError, data_dir::private_file};

/// Pages copied in one step; other work of the process goes on between two.
const STEP: i32 = 1024;

/// Makes a copy of `connection`'s database as it is now at `path`, replacing what is there. Others may go on writing: the copy is of one moment.
/// Returns when it is on disk. On an error nothing is left at `path`.
pub(super) fn copy(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    discard(path)?;
    let copied = private_file(path).map(drop).and_then(|()| fill(connection, path));
    if copied.is_err() {
        let _ = discard(path); // the first failure says what is wrong
    }
    copied
}

fn fill(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::from_sqlite(path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut into = Connection::open_with_flags(path, flags).map_err(failed)?;
    // Nobody reads it before it is whole, so it needs no journal; it is synced below.
    into.pragma_update(None, "journal_mode", "OFF").map_err(failed)?;
    into.pragma_update(None, "synchronous", "OFF").map_err(failed)?;
    // With a snapshot of its own held, what others write meanwhile neither restarts the copy nor is in it.
    connection.execute_batch("BEGIN").map_err(failed)?;
    let copied = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        .and_then(|()| steps(connection, &mut into));
    let _ = connection.execute_batch("ROLLBACK"); // nothing was written in it
    copied.map_err(failed)?;
    // One file that can be read without a journal beside it; the program that opens it in its place turns the log on again.
    into.pragma_update(None, "journal_mode", "DELETE").map_err(failed)?;
    drop(into);
    let io = |source| OpenError::from_io(path, source);
    File::open(path).and_then(|file| file.sync_all()).map_err(io)?;
    sync_dir_of(path).map_err(io)
}

fn steps(connection: &Connection, into: &mut Connection) -> rusqlite::Result<()> {
    let backup = Backup::new(connection, into)?;
    loop {
        match backup.step(STEP)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            // Nobody else has the new file open, and who reads a write-ahead log waits for nobody.
            StepResult::Busy | StepResult::Locked | _ => {
                let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
                return Err(rusqlite::Error::SqliteFailure(busy, Some("the copy is locked by somebody else".into())));
            }
        }
    }
}

/// Keeps the database of format `found` beside itself, as the way back. Of an older one nothing is left then.
pub(super) fn keep_format(connection: &Connection, data_dir: &Path, found: u32) -> Result<PathBuf, OpenError> {
    let path = data_dir.join(format!("{FILE_NAME}.format-{found}"));
    let part = data_dir.join(format!("{FILE_NAME}.format-{found}.part"));
    copy(connection, &part)?;
    let io = |source| OpenError::from_io(&path, source);
    fs::rename(&part, &path).map_err(io)?;
    sync_dir_of(&path).map_err(io)?;
    for old in kept_formats(data_dir).map_err(io)? {
        if old != path {
            discard(&old)?;
        }
    }
    Ok(path)
}

/// Removes copies of older formats in which keys of the authorities lie in the clear: to be called once those in the database are sealed (I8).
pub(crate) fn forget_clear_keys(data_dir: &Path) -> Result<(), OpenError> {
    for path in kept_formats(data_dir).map_err(|source| OpenError::from_io(data_dir, source))? {
        if holds_clear_keys(&path).map_err(|source| OpenError::from_sqlite(&path, source))? {
            discard(&path)?;
            tracing::info!(path = %path.display(), "the copy of the format before was removed: keys lay in the clear in it");
        }
    }
    Ok(())
}

fn holds_clear_keys(path: &Path) -> rusqlite::Result<bool> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM items WHERE key >= 'authorities/' AND key < 'authorities0' AND instr(value, CAST('PRIVATE KEY' AS BLOB)))",
        [],
        |row| row.get(0),
    )
}

fn kept_formats(data_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = format!("{FILE_NAME}.format-");
    let mut found = Vec::new();
    for entry in fs::read_dir(data_dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn discard(path: &Path) -> Result<(), OpenError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(OpenError::from_io(path, source)),
        _ => Ok(()),
    }
}

fn sync_dir_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::database::migrations;

    fn database(dir: &Path) -> Connection {
        let connection = Connection::open(dir.join(FILE_NAME)).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        migrations::apply(&connection, 0).unwrap();
        connection
    }

    fn put(connection: &Connection, key: &str, value: &str) {
        connection.execute("INSERT INTO items VALUES (?1, CAST(?2 AS BLOB), 1, NULL)", [key, value]).unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_copy_holds_what_was_there_and_is_one_file_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let source = database(dir.path());
        put(&source, "a", "1");
        let path = dir.path().join("copy");
        fs::write(&path, "an older one").unwrap();
        copy(&source, &path).unwrap();
        put(&source, "b", "2");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600); // I67
        assert!(!names(dir.path()).iter().any(|name| name.starts_with("copy-")), "{:?}", names(dir.path()));
        let copied = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let keys: String = copied.query_row("SELECT group_concat(key) FROM items", [], |row| row.get(0)).unwrap();
        assert_eq!(keys, "a");
    }

    #[test]
    fn a_copy_that_cannot_be_made_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let source = database(dir.path());
        let refused = copy(&source, &dir.path().join("no/where")).unwrap_err();
        assert!(matches!(refused, OpenError::Unusable { .. }), "{refused:?}");
        let before = names(dir.path());
        drop(source);
        let broken = Connection::open_in_memory().unwrap();
        broken.execute_batch("BEGIN; CREATE TABLE t (n)").unwrap(); // no copy is made in the midst of a transaction
        assert!(copy(&broken, &dir.path().join("copy")).is_err());
        assert!(!names(dir.path()).contains(&"copy".to_owned()), "{before:?}");
    }

    #[test]
    fn of_the_formats_before_the_last_one_is_kept_and_none_with_clear_keys_once_they_are_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let source = database(dir.path());
        put(&source, "authorities/user", r#"{"active":{"key":{"sealed":"PRIVATE but not the words"}}}"#);
        keep_format(&source, dir.path(), 1).unwrap();
        let second = keep_format(&source, dir.path(), 2).unwrap();
        let kept = || kept_formats(dir.path()).unwrap();
        assert_eq!(kept(), std::slice::from_ref(&second));
        forget_clear_keys(dir.path()).unwrap();
        assert_eq!(kept(), [second]);

        put(&source, "authorities/host", r#"{"active":{"key":"-----BEGIN PRIVATE KEY-----"}}"#);
        keep_format(&source, dir.path(), 3).unwrap();
        forget_clear_keys(dir.path()).unwrap();
        assert!(kept().is_empty()); // I8
    }
}
