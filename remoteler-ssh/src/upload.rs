//! Brings finished recordings from the disk of this machine to the auth service. Owns the files from their closing to their removal;
//! a file is removed only when the service has all of it. Recordings a killed process left open are closed and brought, too.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use remoteler_core::{ApiError, ApiErrorKind, Entropy, HostApi, RecordingChunk, SessionId, fill_random};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::recorder::{CLOSED, PART, sync_parent};

/// Uploads what lies in a directory of recordings. One for each directory.
pub struct Uploader {
    dir: PathBuf,
    api: Arc<dyn HostApi>,
    entropy: Arc<dyn Entropy>,
    finished: Arc<Notify>,
}

/// Why a recording could not be brought now. It stays where it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// The directory or a file cannot be read.
    #[error("recordings in {} cannot be read", .0.display())]
    Disk(PathBuf, #[source] io::Error),
    /// The auth service did not take it.
    #[error("the auth service did not take the recording of session {0}")]
    Service(SessionId, #[source] ApiError),
}

impl Uploader {
    /// Makes one for `dir`; `finished` is what [`crate::Node::recording_finished`] gives.
    #[must_use]
    pub fn new(dir: PathBuf, api: Arc<dyn HostApi>, entropy: Arc<dyn Entropy>, finished: Arc<Notify>) -> Self {
        Self { dir, api, entropy, finished }
    }

    /// Uploads until `shutdown`: at once what lies there, then each recording when it is finished, and again after failures, with
    /// growing pauses.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            let round = tokio::select! {
                round = self.upload_all() => round,
                () = shutdown.cancelled() => return,
            };
            match round {
                Ok(count) => {
                    failures = 0;
                    if count > 0 {
                        tracing::debug!(count, "recordings uploaded");
                    }
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "recordings wait on disk");
                }
            }
            let pause = tokio::time::sleep(self.pause(failures));
            tokio::select! {
                () = pause => {}
                // After a failure the pause is kept: a service that is down is not asked for each session.
                () = self.finished.notified(), if failures == 0 => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Uploads everything that is finished; yields how many recordings.
    ///
    /// # Errors
    /// The first failure, after all the others were tried.
    pub async fn upload_all(&self) -> Result<usize, UploadError> {
        let dir = self.dir.clone();
        let found = tokio::task::spawn_blocking(move || closed_recordings(&dir)).await;
        let found = found.unwrap_or_else(|error| Err(io::Error::other(error)));
        let found = found.map_err(|source| UploadError::Disk(self.dir.clone(), source))?;
        let mut count = 0;
        let mut failed = None;
        for (session, path) in found {
            match self.upload(session, path).await {
                Ok(()) => count += 1,
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(count), Err)
    }

    async fn upload(&self, session: SessionId, path: PathBuf) -> Result<(), UploadError> {
        let refused = |error| UploadError::Service(session, error);
        let mut offset = self.api.recording_size(session).await.map_err(refused)?;
        let mut conflicts = 0;
        loop {
            let (reading, from) = (path.clone(), offset);
            let piece = tokio::task::spawn_blocking(move || read_piece(&reading, from)).await;
            let piece = piece.unwrap_or_else(|error| Err(io::Error::other(error)));
            let (octets, size) = piece.map_err(|source| UploadError::Disk(path.clone(), source))?;
            let end = offset.saturating_add(octets.len() as u64);
            let last = end >= size;
            match self.api.append_recording(RecordingChunk { session_id: session, offset, octets, last }).await {
                Ok(()) if last => break,
                Ok(()) => offset = end,
                Err(error) if error.kind == ApiErrorKind::Conflict && conflicts < MAX_CONFLICTS => {
                    // Something arrived whose acknowledgement was lost. All of it: then this is the end.
                    conflicts += 1;
                    let stored = self.api.recording_size(session).await.map_err(refused)?;
                    if stored >= size && stored == offset {
                        break;
                    }
                    offset = stored;
                }
                Err(error) => return Err(refused(error)),
            }
        }
        let removed = tokio::task::spawn_blocking(move || fs::remove_file(&path).map_err(|error| (path, error))).await;
        match removed {
            Ok(Ok(())) => Ok(()),
            Ok(Err((path, error))) => Err(UploadError::Disk(path, error)),
            Err(error) => Err(UploadError::Disk(self.dir.clone(), io::Error::other(error))),
        }
    }

    /// A look at the directory now and then; after failures 1 s, doubled each time up to a minute. A half of it is random, so that many
    /// nodes do not come at once.
    fn pause(&self, failures: u32) -> Duration {
        if failures == 0 {
            return IDLE;
        }
        let longest = Duration::from_secs(1 << failures.min(6)).min(Duration::from_secs(60));
        let [octet] = fill_random::<1>(&*self.entropy);
        longest.mul_f64(0.5 + f64::from(octet) / 512.0)
    }
}

/// All closed recordings. Those left open by a process that is gone are closed first.
fn closed_recordings(dir: &Path) -> io::Result<Vec<(SessionId, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if let Some(session) = name.strip_suffix(PART).and_then(|id| id.parse().ok()) {
            if let Some(path) = close_abandoned(&path)? {
                found.push((session, path));
            }
        } else if let Some(session) = name.strip_suffix(CLOSED).and_then(|id| id.parse().ok()) {
            found.push((session, path));
        }
    }
    found.sort_by(|one, other| one.1.cmp(&other.1));
    Ok(found)
}

/// Cuts an abandoned recording after its last whole line and closes it. `None`: somebody is still writing, or nothing is in it.
fn close_abandoned(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Empty: made an instant ago and not locked yet, so it must not be locked here either; or its process was killed before the
    // header was on disk, and then nothing was ever shown to anybody.
    if file.metadata()?.len() == 0 || flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    let whole = whole_lines(&mut file)?;
    if whole == 0 {
        // Not even the header is whole, and nothing is shown to anybody before that: there is nothing to bring.
        fs::remove_file(path)?;
        return Ok(None);
    }
    file.set_len(whole)?;
    file.sync_all()?;
    let closed = path.with_extension("");
    fs::rename(path, &closed)?;
    sync_parent(&closed)?;
    Ok(Some(closed))
}

/// Octets up to and with the last end of a line.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = vec![0; 64 * 1024];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let length = usize::try_from(end - start).unwrap_or(block.len());
        let Some(part) = block.get_mut(..length) else { break };
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|octet| *octet == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// At most one chunk from `offset`, and the size of the whole.
fn read_piece(path: &Path, offset: u64) -> io::Result<(Vec<u8>, u64)> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(offset))?;
    let mut octets = Vec::new();
    file.take(CHUNK).read_to_end(&mut octets)?;
    Ok((octets, size))
}

/// As much as the service takes at once.
const CHUNK: u64 = 1024 * 1024;
const IDLE: Duration = Duration::from_secs(30);
const MAX_CONFLICTS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

    #[test]
    fn an_abandoned_recording_is_cut_after_its_last_whole_line_and_closed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(format!("{ID}{PART}")), "{}\n[0.1, \"o\", \"a\"]\n[0.2, \"o").unwrap();

        let found = closed_recordings(dir.path()).unwrap();

        assert_eq!(found, [(ID.parse().unwrap(), dir.path().join(format!("{ID}{CLOSED}")))]); // I77
        assert_eq!(fs::read_to_string(&found[0].1).unwrap(), "{}\n[0.1, \"o\", \"a\"]\n");
    }

    #[test]
    fn a_recording_that_is_still_written_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("{ID}{PART}"));
        fs::write(&path, "{}\n").unwrap();
        let writer = File::options().append(true).open(&path).unwrap();
        flock(&writer, FlockOperation::NonBlockingLockExclusive).unwrap();

        assert_eq!(closed_recordings(dir.path()).unwrap(), []);
        assert!(path.exists());
    }

    #[test]
    fn files_that_are_no_recordings_are_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["notes.txt", "x.cast", "../evil.cast".trim_start_matches("../")] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        assert_eq!(closed_recordings(dir.path()).unwrap(), []); // I66
    }
}
