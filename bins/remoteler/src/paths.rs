//! Where things lie in the data directory.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use rustix::fs::FlockOperation;

/// The data directory, made and checked, and locked for this process.
#[derive(Debug)]
pub(crate) struct DataDir {
    dir: PathBuf,
    _lock: File,
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// It cannot be made or read.
    #[error("data directory {path} cannot be used; name another with --data-dir")]
    Io { path: PathBuf, source: io::Error },
    /// Somebody else's.
    #[error(
        "data directory {path} belongs to user id {owner}, this process runs as {own}; change its owner or name another with --data-dir"
    )]
    Foreign { path: PathBuf, owner: u32, own: u32 },
    /// Another daemon runs on it.
    #[error("data directory {path} is used by another daemon; stop it or name another directory with --data-dir")]
    InUse { path: PathBuf },
    /// Not a directory.
    #[error("data directory {path} is no directory")]
    NotADirectory { path: PathBuf },
}

impl DataDir {
    /// Makes the directory (0700) if it is not there, and checks that it is ours.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        let metadata = std::fs::metadata(path).map_err(io)?;
        if !metadata.is_dir() {
            return Err(DataDirError::NotADirectory { path: path.to_owned() });
        }
        let own = rustix::process::geteuid().as_raw();
        if metadata.uid() != own {
            return Err(DataDirError::Foreign { path: path.to_owned(), owner: metadata.uid(), own });
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io)?;
        }
        // Root reads everything; everybody else finds out here whether the directory can be read and written.
        std::fs::read_dir(path).map_err(io)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("daemon.lock"))
            .map_err(io)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DataDirError::InUse { path: path.to_owned() }),
            Err(cause) => Err(io(cause.into())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Status of this daemon, for `remoteler status`.
    pub(crate) fn status_socket(&self) -> PathBuf {
        self.dir.join("status.sock")
    }

    pub(crate) fn node_recordings(&self) -> PathBuf {
        self.dir.join("node-recordings")
    }

    /// Writes a file of this directory: 0600, whole or not at all, durable when this returns.
    pub(crate) fn write(&self, path: &Path, text: &str) -> anyhow::Result<()> {
        let temporary = path.with_extension("new");
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)?;
            File::open(&self.dir)?.sync_all()
        })();
        written.with_context(|| format!("{} cannot be written", path.display()))
    }

    /// What answered at the address this host joined through.
    pub(crate) fn peer_file(&self) -> PathBuf {
        self.dir.join("peer")
    }

    #[cfg(feature = "server")]
    pub(crate) fn web_certificate(&self) -> (PathBuf, PathBuf) {
        (self.dir.join("web.crt"), self.dir.join("web.key"))
    }
}
