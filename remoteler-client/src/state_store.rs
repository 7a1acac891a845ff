//! Where an agent keeps what must outlive its process: who it is, whom it believes, and a few copies. Owns the seam and its two kinds: a directory,
//! and memory. Never looks into what is kept.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use zeroize::Zeroizing;

use crate::{
    files::{FileError, PATIENCE, Privacy, PrivateDir},
    host_state,
};

/// A few named things of up to some MiB each, private keys among them.
///
/// Implementations: [`DirStore`] (files that only their owner may read), [`MemoryStore`] (gone with the process). One of somebody else's may be a
/// flash partition, a secure element, or a secret of the platform that the program runs on.
///
/// Names are short, of lower case letters, digits, `_` and `.`. An agent has its store for itself: two agents have two. Calls come from
/// the agent's tasks, may come from several at once, and are short: a store that is slow delays them. An error is a [`FileError::Io`] with the name as its path; an agent that
/// cannot keep what it was given goes on with what it had.
pub trait StateStore: Send + Sync + fmt::Debug {
    /// What was written under `name` last, if anything was.
    ///
    /// # Errors
    /// It is there and cannot be read, or has more than `limit` octets.
    fn read(&self, name: &str, limit: u64) -> Result<Option<Zeroizing<Vec<u8>>>, FileError>;

    /// Puts `content` in place of what was under `name`, as a whole: a crash leaves the one or the other. What is kept when this returns must be there as
    /// long as the store is.
    ///
    /// # Errors
    /// What was there before still is.
    fn write(&self, name: &str, content: &[u8]) -> Result<(), FileError>;

    /// Forgets what is under `name`; that nothing is, is no error.
    ///
    /// # Errors
    /// It is still there.
    fn remove(&self, name: &str) -> Result<(), FileError>;

    /// A directory in which audit events may wait for the auth service. Without one they are sent to it at once, and what cannot be sent is not
    /// allowed to happen: whoever dials while the auth service is away is refused.
    fn spool(&self) -> Option<&Path> {
        None
    }
}

/// Files in a directory that is made when missing, with mode 0700; each 0600 and replaced as a whole (I67).
#[derive(Clone, Debug)]
pub struct DirStore(PathBuf);

impl DirStore {
    /// In `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }
}

impl StateStore for DirStore {
    fn read(&self, name: &str, limit: u64) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
        match PrivateDir::open(&self.0, Privacy::Keep)? {
            Some(dir) => Ok(dir.read(name, limit)?.map(Into::into)),
            None => Ok(None),
        }
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), FileError> {
        let dir = PrivateDir::create(&self.0, Privacy::Keep)?;
        // A rejoin of another process may replace it at this moment.
        let _lock = if name == host_state::FILE { Some(dir.lock(PATIENCE)?) } else { None };
        dir.write(name, content)
    }

    fn remove(&self, name: &str) -> Result<(), FileError> {
        match PrivateDir::open(&self.0, Privacy::Keep)? {
            Some(dir) => dir.remove(name).map(drop),
            None => Ok(()),
        }
    }

    fn spool(&self) -> Option<&Path> {
        Some(&self.0)
    }
}

/// Gone with the process: for agents that join anew at each start, and for tests. Clones are the same store.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<BTreeMap<String, Zeroizing<Vec<u8>>>>>);

impl MemoryStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Zeroizing<Vec<u8>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.held().keys()).finish() // keys are among the values
    }
}

impl StateStore for MemoryStore {
    fn read(&self, name: &str, limit: u64) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
        let held = self.held();
        match held.get(name) {
            Some(content) if content.len() as u64 > limit => Err(FileError::TooLarge { path: name.into(), limit }),
            found => Ok(found.cloned()),
        }
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), FileError> {
        self.held().insert(name.to_owned(), content.to_vec().into());
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), FileError> {
        self.held().remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn every_store_gives_back_the_last_that_was_written_and_forgets_what_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let stores: [Box<dyn StateStore>; 2] =
            [Box::new(DirStore::new(dir.path().join("made"))), Box::new(MemoryStore::new())];
        for store in stores {
            assert!(store.read("a.json", 10).unwrap().is_none(), "{store:?}");
            store.remove("a.json").unwrap();
            store.write("a.json", b"first, longer").unwrap();
            store.write("a.json", b"second").unwrap();
            store.write("b.json", b"other").unwrap();
            assert_eq!(store.read("a.json", 6).unwrap().unwrap().as_slice(), b"second");
            let long = store.read("a.json", 5).unwrap_err();
            assert!(matches!(long, FileError::TooLarge { limit: 5, .. }), "{long}");
            store.remove("a.json").unwrap();
            assert!(store.read("a.json", 10).unwrap().is_none());
            assert_eq!(store.read("b.json", 10).unwrap().unwrap().as_slice(), b"other");
        }
    }

    // I67
    #[test]
    fn files_are_their_owners_alone_and_memory_shows_no_content() {
        let dir = tempfile::tempdir().unwrap();
        DirStore::new(dir.path().join("state")).write("host.json", b"secret").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("state")), 0o700);
        assert_eq!(mode(&dir.path().join("state/host.json")), 0o600);
        let memory = MemoryStore::new();
        memory.clone().write("host.json", b"secret").unwrap();
        assert_eq!(format!("{memory:?}"), r#"["host.json"]"#);
    }
}
