//! Session recordings as files, one for each session: `<uuid>.part` while it grows, `<uuid>.cast` when it is whole.
//! Owns the files; who may write or read one is decided elsewhere. File names come only from parsed session ids (I66).

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use remoteler_core::{RecordingError, RecordingStore, SessionId};
use rustix::fs::OFlags;

use crate::database::{OpenError, private_dir};

/// Recordings in a directory.
#[derive(Clone, Debug)]
pub struct RecordingFiles {
    files: Arc<Files>,
}

/// Size and state of one recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordingState {
    /// Octets kept.
    pub size: u64,
    /// Whether its end has arrived.
    pub complete: bool,
}

#[derive(Debug)]
struct Files {
    dir: PathBuf,
    /// Writers of one session wait for each other; sessions share a lock by their id's first octet.
    locks: [Mutex<()>; LOCKS],
}

const LOCKS: usize = 16;

impl RecordingFiles {
    /// Over `dir`, which is made with mode 0700 when it is not there.
    ///
    /// # Errors
    /// [`OpenError`] when it cannot be used.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        private_dir(dir)?;
        let files = Files { dir: dir.to_owned(), locks: std::array::from_fn(|_| Mutex::new(())) };
        Ok(Self { files: Arc::new(files) })
    }

    /// How much of a recording there is; `None` when nothing.
    ///
    /// # Errors
    /// [`RecordingError::Store`]
    pub async fn state(&self, session: SessionId) -> Result<Option<RecordingState>, RecordingError> {
        self.blocking(move |files| files.state(session)).await
    }

    /// Ids and states of all recordings, newest file first, at most `limit`.
    ///
    /// # Errors
    /// [`RecordingError::Store`]
    pub async fn list(&self, limit: usize) -> Result<Vec<(SessionId, RecordingState)>, RecordingError> {
        self.blocking(move |files| files.list(limit)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> Result<T, RecordingError> + Send + 'static,
    ) -> Result<T, RecordingError> {
        let files = Arc::clone(&self.files);
        tokio::task::spawn_blocking(move || work(&files))
            .await
            .unwrap_or_else(|cause| Err(RecordingError::Store(Box::new(cause))))
    }
}

#[async_trait]
impl RecordingStore for RecordingFiles {
    async fn append(&self, session: SessionId, offset: u64, octets: &[u8], last: bool) -> Result<(), RecordingError> {
        let octets = octets.to_vec();
        self.blocking(move |files| files.append(session, offset, &octets, last)).await
    }

    async fn read(&self, session: SessionId, offset: u64, limit: usize) -> Result<Vec<u8>, RecordingError> {
        self.blocking(move |files| files.read(session, offset, limit)).await
    }
}

impl Files {
    fn growing(&self, session: SessionId) -> PathBuf {
        self.dir.join(format!("{session}.part"))
    }

    fn whole(&self, session: SessionId) -> PathBuf {
        self.dir.join(format!("{session}.cast"))
    }

    fn state(&self, session: SessionId) -> Result<Option<RecordingState>, RecordingError> {
        if let Some(size) = size(&self.whole(session))? {
            return Ok(Some(RecordingState { size, complete: true }));
        }
        Ok(size(&self.growing(session))?.map(|size| RecordingState { size, complete: false }))
    }

    fn append(&self, session: SessionId, offset: u64, octets: &[u8], last: bool) -> Result<(), RecordingError> {
        let lock = usize::from(session.uuid().as_bytes().first().copied().unwrap_or(0)) % LOCKS;
        let _turn = self.locks.get(lock).map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(size) = size(&self.whole(session))? {
            // The answer to the last part may have been lost; to end a recording twice changes nothing.
            let repeated = last && octets.is_empty() && offset == size;
            return if repeated { Ok(()) } else { Err(RecordingError::Complete(session)) };
        }
        let path = self.growing(session);
        let mut options = OpenOptions::new();
        let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(nofollow);
        let file = options.open(&path).map_err(store)?;
        let expected = file.metadata().map_err(store)?.len();
        if offset != expected {
            return Err(RecordingError::Offset { session, expected, offset });
        }
        if let Err(cause) = file.write_all_at(octets, offset).and_then(|()| file.sync_data()) {
            let _ = file.set_len(offset); // what is left of a full disk's write is taken back; if not, the writer asks for the size
            return Err(store(cause));
        }
        if offset == 0 || last {
            self.sync_dir()?;
        }
        if last {
            fs::rename(&path, self.whole(session)).map_err(store)?;
            self.sync_dir()?;
        }
        Ok(())
    }

    fn read(&self, session: SessionId, offset: u64, limit: usize) -> Result<Vec<u8>, RecordingError> {
        // The file may be renamed between the two attempts, so the first name is tried again.
        let names = [self.whole(session), self.growing(session), self.whole(session)];
        for path in names {
            match File::open(&path) {
                Ok(file) => return read_at(&file, offset, limit).map_err(store),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(store(cause)),
            }
        }
        Err(RecordingError::NotFound(session))
    }

    fn list(&self, limit: usize) -> Result<Vec<(SessionId, RecordingState)>, RecordingError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(store)? {
            let entry = entry.map_err(store)?;
            let name = entry.file_name();
            let Some((id, extension)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
            let (Ok(session), complete) = (id.parse::<SessionId>(), extension == "cast") else { continue };
            if !complete && extension != "part" {
                continue;
            }
            match entry.metadata() {
                Ok(metadata) => {
                    let state = RecordingState { size: metadata.len(), complete };
                    found.push((metadata.modified().map_err(store)?, session, state));
                }
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {} // renamed meanwhile
                Err(cause) => return Err(store(cause)),
            }
        }
        found.sort_by_key(|(modified, ..)| std::cmp::Reverse(*modified));
        Ok(found.into_iter().take(limit).map(|(_, session, state)| (session, state)).collect())
    }

    fn sync_dir(&self) -> Result<(), RecordingError> {
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(store)
    }
}

fn size(path: &Path) -> Result<Option<u64>, RecordingError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(store(cause)),
    }
}

fn read_at(file: &File, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
    let left = file.metadata()?.len().saturating_sub(offset);
    let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(limit);
    let mut octets = vec![0; wanted];
    let mut filled = 0;
    while let Some(rest) = octets.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
        match file.read_at(rest, at)? {
            0 => break,
            read => filled += read,
        }
    }
    octets.truncate(filled);
    Ok(octets)
}

fn store(cause: io::Error) -> RecordingError {
    RecordingError::Store(Box::new(cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionId {
        SessionId::from_uuid(uuid::Uuid::new_v4())
    }

    #[tokio::test]
    async fn a_recording_grows_in_order_and_takes_nothing_after_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let files = RecordingFiles::open(&dir.path().join("recordings")).unwrap();
        let id = session();

        files.append(id, 0, b"hello ", false).await.unwrap();
        let skipped = files.append(id, 7, b"world", false).await.unwrap_err();
        assert!(matches!(skipped, RecordingError::Offset { expected: 6, .. }), "{skipped}");
        files.append(id, 6, b"world", true).await.unwrap();

        assert_eq!(files.read(id, 3, 5).await.unwrap(), b"lo wo");
        assert_eq!(files.read(id, 11, 5).await.unwrap(), b"");
        assert_eq!(files.read(id, u64::MAX, 5).await.unwrap(), b"");
        assert!(matches!(files.append(id, 11, b"!", false).await, Err(RecordingError::Complete(_))));
        files.append(id, 11, b"", true).await.unwrap();
        let state = RecordingState { size: 11, complete: true };
        assert_eq!(files.list(10).await.unwrap(), [(id, state)]);
        assert!(matches!(files.read(session(), 0, 1).await, Err(RecordingError::NotFound(_))));
    }

    #[tokio::test]
    async fn files_are_for_the_owner_alone_and_links_are_not_followed() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let files = RecordingFiles::open(&dir.path().join("recordings")).unwrap();
        let id = session();
        files.append(id, 0, b"x", false).await.unwrap();
        let path = dir.path().join("recordings").join(format!("{id}.part"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600); // I67
        assert_eq!(fs::metadata(dir.path().join("recordings")).unwrap().mode() & 0o777, 0o700);

        let (other, elsewhere) = (session(), dir.path().join("elsewhere"));
        fs::write(&elsewhere, b"").unwrap();
        let link = dir.path().join("recordings").join(format!("{other}.part"));
        std::os::unix::fs::symlink(&elsewhere, link).unwrap();
        assert!(files.append(other, 0, b"x", false).await.is_err());
        assert_eq!(fs::read(&elsewhere).unwrap(), b"");
    }
}
