//! Files that only their owner may read or change (I67). Owns how a directory is trusted, how a file is replaced as a whole, and
//! the lock between processes. Never follows a symlink, and never touches what somebody else owns.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use remoteler_core::{OsEntropy, random_uuid};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat},
    io::Errno,
};

/// Why a file or directory was not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a symlink, a device, or another thing than it should be.
    #[error("{} is not a {expected}; a symlink in its place is not followed, move it away", .path.display())]
    Kind {
        /// What.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to user id {owner}, not to {me}; change its owner or move it away", .path.display())]
    Owner {
        /// What.
        path: PathBuf,
        /// Whose.
        owner: u32,
        /// Who runs this.
        me: u32,
    },
    /// Others can write to it.
    #[error("others can write to {}; run chmod go-w on it", .path.display())]
    Writable {
        /// What.
        path: PathBuf,
    },
    /// Larger than any honest one.
    #[error("{} has more than {limit} octets", .path.display())]
    TooLarge {
        /// What.
        path: PathBuf,
        /// What is read.
        limit: u64,
    },
    /// Another process holds the lock.
    #[error("another process has been changing {} for {} s; try again, or end it", .path.display(), .waited.as_secs())]
    Locked {
        /// What.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// A name that would lead out of the directory.
    #[error("{name:?} cannot be a file name")]
    Name {
        /// As it was given.
        name: String,
    },
}

impl FileError {
    /// Whether another attempt may succeed without anybody changing anything.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Locked { .. })
    }
}

/// A directory of ours, held open: what is done in it is done in this very directory, whatever its path leads to later.
#[derive(Debug)]
pub(crate) struct PrivateDir {
    fd: OwnedFd,
    path: PathBuf,
}

/// What others may do with the entries of a directory that is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privacy {
    /// Nothing: the mode is made 0700.
    Tighten,
    /// Whatever its owner allows, but not write.
    Keep,
}

/// Held until it is dropped; at most one process has it.
#[derive(Debug)]
pub(crate) struct DirLock {
    fd: OwnedFd,
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing would do, were it not for a child between its fork and its exec: that holds the descriptor for a moment longer.
        let _ = rustix::fs::flock(&self.fd, FlockOperation::Unlock);
    }
}

impl PrivateDir {
    /// Opens `path`, making it and its parents (mode 0700) when they are missing.
    pub(crate) fn create(path: &Path, privacy: Privacy) -> Result<Self, FileError> {
        match Self::open(path, privacy)? {
            Some(dir) => Ok(dir),
            None => {
                make_all(path)?;
                Self::open(path, privacy)?.ok_or_else(|| failed("open", path, Errno::NOENT))
            }
        }
    }

    /// Opens `path`; `None` when it is missing.
    pub(crate) fn open(path: &Path, privacy: Privacy) -> Result<Option<Self>, FileError> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Self::open_at(CWD, path, path.to_owned(), privacy)
    }

    fn open_at(parent: impl AsFd, name: &Path, path: PathBuf, privacy: Privacy) -> Result<Option<Self>, FileError> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(FileError::Kind { path, expected: "directory" }),
            Err(cause) => return Err(failed("open", &path, cause)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|cause| failed("examine", &path, cause))?;
        check_owner(&stat, &path)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        match privacy {
            Privacy::Tighten if mode.intersects(Mode::RWXG | Mode::RWXO) => {
                rustix::fs::fchmod(&fd, Mode::RWXU).map_err(|cause| failed("chmod 0700", &path, cause))?;
            }
            Privacy::Keep if mode.intersects(Mode::WGRP | Mode::WOTH) => {
                return Err(FileError::Writable { path });
            }
            Privacy::Tighten | Privacy::Keep => {}
        }
        Ok(Some(Self { fd, path }))
    }

    /// A directory in this one, made when missing; mode 0700.
    pub(crate) fn create_dir(&self, name: &str) -> Result<Self, FileError> {
        let path = self.entry(name)?;
        match rustix::fs::mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) => self.sync()?,
            Err(Errno::EXIST) => {}
            Err(cause) => return Err(failed("make", &path, cause)),
        }
        self.open_dir(name)?.ok_or_else(|| failed("open", &path, Errno::NOENT))
    }

    /// A directory in this one; `None` when it is missing.
    pub(crate) fn open_dir(&self, name: &str) -> Result<Option<Self>, FileError> {
        let path = self.entry(name)?;
        Self::open_at(&self.fd, Path::new(name), path, Privacy::Tighten)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces `name` as a whole with a file of mode 0600. When this returns the new content survives a crash; before, the old
    /// one is there. A reader never sees a part.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<(), FileError> {
        let path = self.entry(name)?;
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => check_file(&stat, &path)?,
            Err(Errno::NOENT) => {}
            Err(cause) => return Err(failed("examine", &path, cause)),
        }
        let temporary = format!(".{name}.{}", random_uuid(&OsEntropy).simple());
        let written = self.create_file(&temporary).and_then(|mut file| {
            let io = |source| FileError::Io { action: "write", path: path.clone(), source };
            file.write_all(content).map_err(io)?;
            file.sync_all().map_err(io)?;
            rustix::fs::renameat(&self.fd, &temporary, &self.fd, name).map_err(|cause| failed("replace", &path, cause))
        });
        if written.is_err() {
            // Nothing to add when this fails too: the first error says what is wrong.
            let _ = rustix::fs::unlinkat(&self.fd, &temporary, AtFlags::empty());
        }
        written?;
        self.sync()
    }

    /// A new, empty file of mode 0600; an error when `name` is taken.
    pub(crate) fn create_file(&self, name: &str) -> Result<File, FileError> {
        let path = self.entry(name)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = rustix::fs::openat(&self.fd, name, flags, mode).map_err(|cause| failed("create", &path, cause))?;
        // A umask can only have taken bits away; the owner's must be there.
        rustix::fs::fchmod(&fd, mode).map_err(|cause| failed("chmod 0600", &path, cause))?;
        Ok(File::from(fd))
    }

    /// Makes `name`, of mode 0600, with `content` in one piece: nobody ever sees it with less, also after a loss of power. An error when `name` is taken. What an attempt
    /// that was killed left behind under `by` is replaced; only one at a time may use that name.
    pub(crate) fn create_whole(&self, name: &str, by: &str, content: &[u8]) -> Result<(), FileError> {
        let path = self.entry(name)?;
        self.remove(by)?;
        let mut file = self.create_file(by)?;
        let made = file
            .write_all(content)
            .and_then(|()| file.sync_all())
            .map_err(|source| FileError::Io { action: "write", path: self.path.join(by), source })
            .and_then(|()| {
                let renamed = rustix::fs::renameat_with(&self.fd, by, &self.fd, name, RenameFlags::NOREPLACE);
                let named = match renamed {
                    // File systems of other machines do not know that, but links.
                    Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                        rustix::fs::linkat(&self.fd, by, &self.fd, name, AtFlags::empty())
                            .and_then(|()| rustix::fs::unlinkat(&self.fd, by, AtFlags::empty()))
                    }
                    renamed => renamed,
                };
                named.map_err(|cause| failed("create", &path, cause))
            });
        if made.is_err() {
            // Nothing to add when this fails too: the first error says what is wrong.
            let _ = rustix::fs::unlinkat(&self.fd, by, AtFlags::empty());
        }
        made
    }

    /// The content of `name`, at most `limit` octets; `None` when it is missing.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, FileError> {
        let path = self.entry(name)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(FileError::Kind { path, expected: "regular file" }),
            Err(cause) => return Err(failed("open", &path, cause)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|cause| failed("examine", &path, cause))?;
        check_file(&stat, &path)?;
        if Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
            return Err(FileError::Writable { path });
        }
        let mut content = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0).min(64 * 1024));
        let io = |source| FileError::Io { action: "read", path: path.clone(), source };
        File::from(fd).take(limit.saturating_add(1)).read_to_end(&mut content).map_err(io)?;
        if u64::try_from(content.len()).unwrap_or(u64::MAX) > limit {
            return Err(FileError::TooLarge { path, limit });
        }
        Ok(Some(content))
    }

    /// Removes a file of ours; whether it was there.
    pub(crate) fn remove(&self, name: &str) -> Result<bool, FileError> {
        let path = self.entry(name)?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(cause) => Err(failed("remove", &path, cause)),
        }
    }

    /// Removes a directory if it is empty; whether it is gone.
    pub(crate) fn remove_dir_if_empty(&self, name: &str) -> Result<bool, FileError> {
        let path = self.entry(name)?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(cause) => Err(failed("remove", &path, cause)),
        }
    }

    /// Names of the regular files in it, in order.
    pub(crate) fn files(&self) -> Result<Vec<String>, FileError> {
        let listed = Dir::read_from(&self.fd).map_err(|cause| failed("list", &self.path, cause))?;
        let mut names = Vec::new();
        for entry in listed {
            let entry = entry.map_err(|cause| failed("list", &self.path, cause))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if entry.file_type() == FileType::RegularFile {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Makes what was created, renamed and removed in it survive a crash.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        rustix::fs::fsync(&self.fd).map_err(|cause| failed("sync", &self.path, cause))
    }

    /// Waits up to `patience` for the lock between processes that change files here. The lock is on the directory itself, so
    /// nothing is left behind by a process that is killed.
    pub(crate) fn lock(&self, patience: Duration) -> Result<DirLock, FileError> {
        // A descriptor of its own: a lock belongs to the open file description.
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, ".", flags, Mode::empty())
            .map_err(|cause| failed("lock", &self.path, cause))?;
        let started = Instant::now();
        loop {
            match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(DirLock { fd }),
                Err(Errno::WOULDBLOCK | Errno::INTR) if started.elapsed() < patience => {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    return Err(FileError::Locked { path: self.path.clone(), waited: patience });
                }
                Err(cause) => return Err(failed("lock", &self.path, cause)),
            }
        }
    }

    fn entry(&self, name: &str) -> Result<PathBuf, FileError> {
        let unusable = name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']);
        if unusable { Err(FileError::Name { name: name.into() }) } else { Ok(self.path.join(name)) }
    }
}

/// How long a change waits for another process that changes the same files.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How often it looks whether the other is done.
const LOCK_RETRY: Duration = Duration::from_millis(5);

fn make_all(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(|source| FileError::Io { action: "make", path: path.into(), source })
}

fn check_file(stat: &Stat, path: &Path) -> Result<(), FileError> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileError::Kind { path: path.into(), expected: "regular file" });
    }
    check_owner(stat, path)
}

fn check_owner(stat: &Stat, path: &Path) -> Result<(), FileError> {
    let me = rustix::process::geteuid().as_raw();
    if stat.st_uid == me {
        return Ok(());
    }
    Err(FileError::Owner { path: path.into(), owner: stat.st_uid, me })
}

fn failed(action: &'static str, path: &Path, cause: Errno) -> FileError {
    FileError::Io { action, path: path.into(), source: cause.into() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn files_are_0600_in_directories_0700_whatever_was_there_before() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();

        let dir = PrivateDir::create(&path, Privacy::Tighten).unwrap();
        dir.write("file", b"one").unwrap();
        dir.write("file", b"two").unwrap();

        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o700); // I67
        assert_eq!(std::fs::metadata(path.join("file")).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(dir.read("file", 10).unwrap().unwrap(), b"two");
        assert_eq!(dir.files().unwrap(), ["file"]);
        assert!(matches!(dir.read("file", 2), Err(FileError::TooLarge { .. })));
    }

    #[test]
    fn a_symlink_in_place_of_a_file_or_directory_is_neither_read_nor_replaced() {
        let home = tempfile::tempdir().unwrap();
        let outside = home.path().join("outside");
        std::fs::write(&outside, b"foreign").unwrap();
        let dir = PrivateDir::create(&home.path().join("dir"), Privacy::Tighten).unwrap();
        symlink(&outside, home.path().join("dir/file")).unwrap();
        symlink(home.path(), home.path().join("dir/sub")).unwrap();

        assert!(matches!(dir.write("file", b"x"), Err(FileError::Kind { .. }))); // I67
        assert!(matches!(dir.read("file", 10), Err(FileError::Kind { .. })));
        assert!(matches!(dir.create_dir("sub"), Err(FileError::Kind { .. })));
        assert_eq!(std::fs::read(&outside).unwrap(), b"foreign");
    }

    #[test]
    fn a_file_that_others_own_or_can_write_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let dir = PrivateDir::create(home.path(), Privacy::Tighten).unwrap();
        dir.write("open", b"x").unwrap();
        std::fs::set_permissions(home.path().join("open"), PermissionsExt::from_mode(0o666)).unwrap();
        assert!(matches!(dir.read("open", 10), Err(FileError::Writable { .. }))); // I67

        dir.write("foreign", b"x").unwrap();
        if std::os::unix::fs::chown(home.path().join("foreign"), Some(12345), None).is_err() {
            eprintln!("SKIPPED: only root can give a file away");
            return;
        }
        assert!(matches!(dir.read("foreign", 10), Err(FileError::Owner { owner: 12345, .. })));
        assert!(matches!(dir.write("foreign", b"y"), Err(FileError::Owner { .. })));
    }

    #[test]
    fn a_lock_is_waited_for_and_then_given_up() {
        let home = tempfile::tempdir().unwrap();
        let dir = PrivateDir::create(home.path(), Privacy::Tighten).unwrap();
        let held = dir.lock(Duration::ZERO).unwrap();
        assert!(matches!(dir.lock(Duration::from_millis(20)), Err(FileError::Locked { .. })));
        drop(held);
        dir.lock(Duration::ZERO).unwrap();
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_directory() {
        let home = tempfile::tempdir().unwrap();
        let dir = PrivateDir::create(home.path(), Privacy::Tighten).unwrap();
        for bad in ["", ".", "..", "a/b", "/etc/passwd", "a\0b"] {
            assert!(matches!(dir.write(bad, b"x"), Err(FileError::Name { .. })), "{bad:?}");
        }
    }
}
