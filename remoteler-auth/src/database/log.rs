//! The database's write-ahead log. Owns its emptying: what a record held before is in it, and in the pages of the file that it stands for, until
//! then.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};

use super::FILE_NAME;

/// Moves everything from the log into the file and cuts the log off, so that neither holds what was overwritten. Blocks; other connections may go
/// on. That it is not possible now, on a full disk for one, is told and stops nobody: the next start tries again.
pub(crate) fn empty(data_dir: &Path) {
    let path = data_dir.join(FILE_NAME);
    let said = match checkpoint(&path) {
        Ok(true) => return,
        Ok(false) => "it is in use".to_owned(),
        Err(cause) => cause.to_string(),
    };
    tracing::warn!(path = %path.display(), cause = said, "the database's log is not emptied; what was overwritten stays in it until the next start");
}

fn checkpoint(path: &Path) -> rusqlite::Result<bool> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(busy == 0)
}

/// How long others are waited for.
const PATIENCE: Duration = Duration::from_secs(5);
