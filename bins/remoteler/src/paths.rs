//! Where things lie in the data directory.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::Context;
use rustix::fs::FlockOperation;

/// The data directory, made and checked, and locked for this process. Until [`DataDir::keep`] it is on trial: dropped before, it takes
/// away what a start leaves that came to nothing.
#[derive(Debug)]
pub(crate) struct DataDir {
    dir: PathBuf,
    /// Whether the directory and the lock are of this start.
    made: (bool, bool),
    kept: AtomicBool,
    lock: File,
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            self.take_away();
        }
        // Closing would do, were it not for a child between its fork and its exec: that holds the descriptor for a moment longer.
        let _ = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }
}

impl DataDir {
    /// Under the lock, so none of it is of another daemon. What is not there need not be removed.
    fn take_away(&self) {
        let (made_dir, made_lock) = self.made;
        for socket in [self.status_socket(), self.dir.join("auth.sock")] {
            let _ = std::fs::remove_file(socket);
        }
        if made_lock {
            let _ = std::fs::remove_file(self.dir.join(LOCK));
        }
        if made_dir {
            // Keys and state of a start that went half way stay, and so does the directory then.
            let _ = std::fs::remove_dir(&self.dir);
        }
    }
}

const LOCK: &str = "daemon.lock";
/// Holds what answered at the address that this host joined through, and that address.
pub(crate) const PEER: &str = "peer";

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
        let made_dir = !path.exists();
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
        // A start that failed removes its lock, so what was locked may have no name any more: then it is another's turn again.
        for _ in 0..16 {
            let name = path.join(LOCK);
            let options = || OpenOptions::new().write(true).mode(0o600).clone();
            let (lock, made_lock) = match options().create_new(true).open(&name) {
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                    (options().create(true).open(&name), false)
                }
                made => (made, true),
            };
            let lock = lock.map_err(io)?;
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(DataDirError::InUse { path: path.to_owned() }),
                Err(cause) => return Err(io(cause.into())),
            }
            if still_named(&lock, &name).map_err(io)? {
                let kept = AtomicBool::new(false);
                return Ok(Self { dir: path.to_owned(), made: (made_dir, made_lock), kept, lock });
            }
        }
        Err(DataDirError::InUse { path: path.to_owned() })
    }

    /// Says that the start came to something: everything stays from now on.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Lets the next process of this daemon have the directory. What lies in it is not touched here until [`DataDir::take_back`].
    pub(crate) fn lend(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(&self.lock, FlockOperation::Unlock)?)
    }

    /// Takes the directory back from a process that has ended.
    pub(crate) fn take_back(&self) -> Result<(), DataDirError> {
        rustix::fs::flock(&self.lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| DataDirError::InUse { path: self.dir.clone() })
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

    /// Which directories outside hold sockets of forwarded agents.
    pub(crate) fn agent_notes(&self) -> PathBuf {
        self.dir.join("agent-sockets")
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
        self.dir.join(PEER)
    }

    #[cfg(feature = "server")]
    pub(crate) fn web_certificate(&self) -> (PathBuf, PathBuf) {
        (self.dir.join("web.crt"), self.dir.join("web.key"))
    }
}

/// Whether `file` is what `name` stands for.
fn still_named(file: &File, name: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match std::fs::metadata(name) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_start_that_fails_leaves_nothing_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("new");
        drop(DataDir::open(&new).unwrap());
        assert!(!new.exists(), "a directory made for nothing");
        std::fs::create_dir(&new).unwrap();
        std::fs::write(new.join("host.json"), "{}").unwrap();
        let opened = DataDir::open(&new).unwrap();
        std::fs::write(opened.status_socket(), "").unwrap();
        drop(opened);
        assert_eq!(left(&new), ["host.json"]);
    }

    #[test]
    fn what_an_earlier_start_left_stays_and_so_does_everything_after_a_start_that_worked() {
        let dir = tempfile::tempdir().unwrap();
        let opened = DataDir::open(dir.path()).unwrap();
        std::fs::write(opened.status_socket(), "").unwrap();
        opened.keep();
        drop(opened);
        assert_eq!(left(dir.path()), ["daemon.lock", "status.sock"]);
        drop(DataDir::open(dir.path()).unwrap());
        assert_eq!(left(dir.path()), ["daemon.lock"]);
    }

    #[test]
    fn of_two_daemons_one_has_the_directory_and_the_other_removes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::InUse { .. })));
        assert_eq!(left(dir.path()), ["daemon.lock"]);
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }
}
