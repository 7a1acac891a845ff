//! The one SQLite database of an auth service. Owns its connections, each in a thread of its own, and the group commit of
//! writes. Knows no table: what is read and written comes as closures.

mod check;
mod copies;
mod data_dir;
mod log;
mod migrations;

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    thread::JoinHandle,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use check::Checked;
pub(crate) use copies::forget_clear_keys;
use data_dir::DataDir;
pub use data_dir::OpenError;
pub(crate) use data_dir::private_dir;
pub(crate) use log::empty as empty_log;

/// File name of the database in a data directory.
const FILE_NAME: &str = "auth.sqlite";
/// Writes that wait; more callers than that are held back.
const QUEUE: usize = 1024;
/// Most writes that share one commit.
const BATCH: usize = 256;

/// Why the database did not do it. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// No room.
    #[error("the disk of {0} is full; free some space, nothing was lost")]
    Full(String),
    /// SQLite failed.
    #[error("the database {path} failed: {reason}")]
    Engine {
        /// Which.
        path: String,
        /// What SQLite says.
        reason: String,
    },
    /// Its thread is gone: the service is shutting down.
    #[error("the database is closed")]
    Closed,
}

type Reply = Box<dyn FnOnce(Result<(), DatabaseError>) + Send>;
type Job = Box<dyn FnOnce(Result<&Connection, DatabaseError>) -> Reply + Send>;

/// An open database. The data directory belongs to this process until it is dropped.
#[derive(Debug)]
pub struct Database {
    name: String,
    writer: Option<mpsc::Sender<Job>>,
    reader: Option<mpsc::Sender<Job>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Database {
    /// Opens the database of a data directory, making both when they are not there. Directory 0700, files 0600.
    ///
    /// Looks for damage first, for a second at most. A database of an older format is copied to `auth.sqlite.format-N` beside it and then brought to
    /// the present one, in one transaction.
    ///
    /// # Errors
    /// [`OpenError`]; a directory of a newer version is left untouched, and so is a database that is damaged or cannot be brought to the present format.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let held = DataDir::hold(data_dir)?;
        let path = data_dir.join(FILE_NAME);
        let failed = |source| OpenError::from_sqlite(&path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut writer = Connection::open_with_flags(&path, flags).map_err(failed)?;
        prepare(&writer, true).map_err(failed)?;
        bring_up_to_date(&mut writer, data_dir, &path)?;
        let reader = Connection::open_with_flags(&path, flags).map_err(failed)?;
        prepare(&reader, true).map_err(failed)?;
        let name = path.display().to_string();
        let mut threads = Vec::new();
        let (write, jobs) = mpsc::channel(QUEUE);
        let thread_name = name.clone();
        threads.push(spawn("auth-db-write", move || {
            run_writes(&writer, &thread_name, jobs);
            drop(writer);
            drop(held); // last: another process may open the directory from here on
        })?);
        let (read, jobs) = mpsc::channel(QUEUE);
        threads.push(spawn("auth-db-read", move || run_reads(&reader, jobs))?);
        Ok(Self { name, writer: Some(write), reader: Some(read), threads: Mutex::new(threads) })
    }

    /// A database that lives in memory and ends with the value; for tests and embedders.
    ///
    /// # Errors
    /// [`OpenError`] when SQLite or the thread does not start.
    pub fn in_memory() -> Result<Self, OpenError> {
        let name = PathBuf::from(":memory:");
        let failed = |source| OpenError::from_sqlite(&name, source);
        let connection = Connection::open_in_memory().map_err(failed)?;
        prepare(&connection, false).map_err(failed)?;
        migrations::apply(&connection, 0).map_err(|cause| OpenError::migration(&name, cause))?;
        let (write, jobs) = mpsc::channel(QUEUE);
        let thread = spawn("auth-db", move || run_writes(&connection, ":memory:", jobs))?;
        let reader = Some(write.clone());
        Ok(Self { name: ":memory:".into(), writer: Some(write), reader, threads: Mutex::new(vec![thread]) })
    }

    /// Runs `work` in a transaction; durable when this returns. A dropped future does not stop a write that has been queued.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.submit(self.writer.as_ref(), work).await
    }

    /// Runs `work`, which only reads. It sees every write that has returned.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.submit(self.reader.as_ref(), work).await
    }

    async fn submit<T, F>(&self, queue: Option<&mpsc::Sender<Job>>, work: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let queue = queue.ok_or(DatabaseError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let name = self.name.clone();
        let job: Job = Box::new(move |connection| {
            let outcome = connection
                .and_then(|connection| work_in_savepoint(connection, work).map_err(|cause| failure(&name, &cause)));
            Box::new(move |committed| {
                // The caller may be gone; then nobody needs the answer.
                let _ = answer.send(committed.and(outcome));
            })
        });
        queue.send(job).await.map_err(|_| DatabaseError::Closed)?;
        answered.await.map_err(|_| DatabaseError::Closed)?
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.writer = None;
        self.reader = None;
        let threads = self.threads.get_mut().map(std::mem::take).unwrap_or_default();
        for thread in threads {
            let _ = thread.join(); // a panic in there was reported by the panic hook
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(OpenError::Thread)
}

fn prepare(connection: &Connection, on_disk: bool) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    if on_disk {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
    }
    // What is overwritten, a key in the clear for one, is not left in the file.
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "trusted_schema", false)
}

/// Checks what is there, and makes the present format of it.
fn bring_up_to_date(writer: &mut Connection, data_dir: &Path, path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::from_sqlite(path, source);
    let found: u32 = writer.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if found > migrations::LATEST {
        return Err(OpenError::newer(data_dir, found));
    }
    if found > 0 && check::check(writer, path, check::LIMIT)? == Checked::InPart {
        tracing::info!(path = %path.display(), "the database is large; it was looked at for damage in part");
    }
    if found == migrations::LATEST {
        return Ok(());
    }
    if found > 0 {
        let kept = copies::keep_format(writer, data_dir, found)?;
        tracing::info!(found, copy = %kept.display(), "the database is of an older format; a copy of it was kept");
    }
    migrations::apply(writer, found).map_err(|cause| OpenError::migration(path, cause))?;
    // The version must stand in the file itself: it is read from there before a journal is touched.
    let checkpoint = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    checkpoint.map_err(failed)
}

fn run_reads(connection: &Connection, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        job(Ok(connection))(Ok(()));
    }
}

/// Takes what has queued up, runs it in one transaction and answers when that is on disk.
fn run_writes(connection: &Connection, name: &str, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        if let Err(cause) = connection.execute_batch("BEGIN IMMEDIATE") {
            let failure = failure(name, &cause);
            for job in batch {
                job(Err(failure.clone()))(Err(failure.clone()));
            }
            continue;
        }
        let replies: Vec<Reply> = batch.into_iter().map(|job| job(Ok(connection))).collect();
        let committed = if connection.is_autocommit() {
            // A full disk makes SQLite roll the whole transaction back on its own.
            Err(DatabaseError::Full(name.to_owned()))
        } else {
            connection.execute_batch("COMMIT").map_err(|cause| failure(name, &cause))
        };
        if committed.is_err() && !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK"); // if it fails too, the next BEGIN reports it
        }
        for reply in replies {
            reply(committed.clone());
        }
    }
}

fn work_in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.execute_batch("SAVEPOINT job")?;
    let outcome = work(connection);
    if connection.is_autocommit() {
        return outcome; // rolled back as a whole; the writer tells everybody
    }
    if outcome.is_err() {
        connection.execute_batch("ROLLBACK TO job")?;
    }
    connection.execute_batch("RELEASE job")?;
    outcome
}

fn failure(name: &str, cause: &rusqlite::Error) -> DatabaseError {
    if cause.sqlite_error_code() == Some(ErrorCode::DiskFull) {
        return DatabaseError::Full(name.to_owned());
    }
    DatabaseError::Engine { path: name.to_owned(), reason: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_write_takes_nothing_of_its_neighbours_with_it() {
        let database = Database::in_memory().unwrap();
        let good = database.write(|c| c.execute("INSERT INTO items VALUES ('a', x'00', 1, NULL)", []));
        let bad = database.write(|c| {
            c.execute("INSERT INTO items VALUES ('b', x'00', 2, NULL)", [])?;
            c.execute("INSERT INTO nowhere VALUES (1)", [])
        });
        let (good, bad) = tokio::join!(good, bad);
        assert_eq!(good, Ok(1));
        assert!(matches!(bad, Err(DatabaseError::Engine { .. })));
        let count = database.read(|c| c.query_row("SELECT count(*) FROM items", [], |row| row.get::<_, i64>(0))).await;
        assert_eq!(count, Ok(1));
    }
}
