//! The auth service's data directory: its permissions, the lock that keeps a second process out, and the version check
//! that runs before anything in it is touched.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;
use rustix::fs::{FlockOperation, OFlags, flock};

use super::{
    FILE_NAME,
    migrations::{self, LATEST},
};

/// Why the auth service's data could not be opened. Nothing in the directory was changed but its permissions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Written by a newer program.
    #[error("{} was written by a newer version (format {found}, this program reads up to {LATEST}); it was left untouched, start the newer program", dir.display())]
    Newer {
        /// Data directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Another process works on it.
    #[error("another process uses {}; stop it or give a different data directory", dir.display())]
    InUse {
        /// Data directory.
        dir: PathBuf,
    },
    /// Not a directory or file that can be read and written.
    #[error("cannot use {}; give a directory that this user can read and write", path.display())]
    Unusable {
        /// Path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to user id {owner}, this program runs as {own}; start it as the owner or change the owner", path.display())]
    ForeignOwner {
        /// Path.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Ours.
        own: u32,
    },
    /// No room.
    #[error("the disk of {} is full; free some space and start again", path.display())]
    Full {
        /// Path.
        path: PathBuf,
    },
    /// A file that is no database of ours.
    #[error("{} is not a database of this program: {reason}", path.display())]
    NotADatabase {
        /// Path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Its pages are not what was written.
    #[error("the database {} is damaged ({found}); nothing was changed: put the last backup in its place, or salvage it with the recover command of the sqlite3 shell", path.display())]
    Damaged {
        /// Path.
        path: PathBuf,
        /// The first thing that is wrong.
        found: String,
    },
    /// A step from an older format to this program's failed.
    #[error("{} could not be brought to format {version} ({name}): {reason}; it is as it was, and the program that wrote it still reads it", path.display())]
    Migration {
        /// Path.
        path: PathBuf,
        /// The format that was to be made.
        version: u32,
        /// What the step does.
        name: &'static str,
        /// Why not.
        reason: String,
    },
    /// The system gave no thread.
    #[error("cannot start the database thread")]
    Thread(#[source] io::Error),
}

impl OpenError {
    pub(super) fn newer(dir: &Path, found: u32) -> Self {
        Self::Newer { dir: dir.to_owned(), found }
    }

    pub(super) fn from_sqlite(path: &Path, cause: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match cause.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged { path, found: cause.to_string() },
            Some(ErrorCode::SystemIoFailure) if is_full(&path) => Self::Full { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::InUse { dir: path.parent().unwrap_or(&path).to_owned() }
            }
            Some(
                ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly,
            ) => Self::Unusable { path, source: io::Error::other(cause) },
            _ => Self::NotADatabase { path, reason: cause.to_string() },
        }
    }

    pub(super) fn migration(path: &Path, failed: migrations::Failed) -> Self {
        let migrations::Failed { version, name, source } = failed;
        let cause = Self::from_sqlite(path, source);
        if let Self::NotADatabase { path, reason } = cause {
            return Self::Migration { path, version, name, reason };
        }
        cause
    }

    /// From a failed call of the file system.
    pub(crate) fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::Full { path };
        }
        Self::Unusable { path, source }
    }
}

/// A directory that belongs to this process as long as the value lives.
#[derive(Debug)]
pub(super) struct DataDir {
    lock: File,
}

impl DataDir {
    pub(super) fn hold(dir: &Path) -> Result<Self, OpenError> {
        check_version(dir)?; // before the first change
        private_dir(dir)?;
        let lock = private_file(&dir.join("auth.lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| OpenError::InUse { dir: dir.to_owned() })?;
        check_version(dir)?; // nobody else can change it now
        private_file(&dir.join(FILE_NAME))?; // SQLite gives its journals the mode of this file
        Ok(Self { lock })
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Closing would do, were it not for a child between its fork and its exec: that holds the descriptor for a moment longer.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

/// Makes `dir` with mode 0700, or takes away what others may do in it.
pub(crate) fn private_dir(dir: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::from_io(dir, source);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let metadata = fs::metadata(dir).map_err(failed)?;
    owned(dir, &metadata)?;
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

pub(super) fn private_file(path: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::from_io(path, source);
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(nofollow);
    let file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    owned(path, &metadata)?;
    if metadata.mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
    }
    Ok(file)
}

fn owned(path: &Path, metadata: &fs::Metadata) -> Result<(), OpenError> {
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own {
        return Err(OpenError::ForeignOwner { path: path.to_owned(), owner: metadata.uid(), own });
    }
    Ok(())
}

/// Whether the file system of `path` has no room for a page: some of SQLite's failures then do not say so.
fn is_full(path: &Path) -> bool {
    let dir = path.parent().unwrap_or(path);
    rustix::fs::statvfs(dir).is_ok_and(|free| free.f_bavail.saturating_mul(free.f_frsize) < 64 * 1024)
}

/// Reads `user_version` from the file's header (SQLite file format section 1.3, offset 60): to open the file with SQLite
/// could already write to the directory.
fn check_version(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join(FILE_NAME);
    let mut header = [0; 100];
    let read = File::open(&path).and_then(|mut file| {
        let empty = file.metadata()?.len() == 0; // made by a start that was cut off
        if empty { Ok(false) } else { file.read_exact(&mut header).map(|()| true) }
    });
    match read {
        Ok(false) => return Ok(()),
        Ok(true) => {}
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(OpenError::NotADatabase { path, reason: "it is too short".into() });
        }
        Err(source) => return Err(OpenError::Unusable { path, source }),
    }
    let (magic, rest) = header.split_at(16);
    if magic != b"SQLite format 3\0" {
        return Err(OpenError::NotADatabase { path, reason: "it has no SQLite header".into() });
    }
    let version: [u8; 4] = rest.get(44..48).and_then(|octets| octets.try_into().ok()).unwrap_or_default();
    let found = u32::from_be_bytes(version);
    if found > LATEST {
        return Err(OpenError::newer(dir, found));
    }
    Ok(())
}
