//! Writes the recording of one terminal session: asciicast v2 (docs.asciinema.org/manual/asciicast/v2), output and sizes, no input.
//! While it is written the file is `<session id>.cast.part` and locked; closed, it is `<session id>.cast`. Never loses what it took
//! without saying so: when the disk fails, [`Recorder::failed`] tells within seconds (I77).

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use remoteler_core::{SessionId, Timestamp};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

/// First line of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingHeader {
    /// 2.
    pub version: u32,
    /// Columns at the beginning.
    pub width: u16,
    /// Rows at the beginning.
    pub height: u16,
    /// Seconds since the epoch at the beginning.
    pub timestamp: i64,
    /// `TERM` and `SHELL`.
    #[serde(default)]
    pub env: std::collections::BTreeMap<String, String>,
    /// Whose session it is; a key of ours, which other players pass over.
    pub remoteler: RecordingOwner,
}

/// Whose session was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingOwner {
    /// Session id.
    pub session_id: String,
    /// User of the cluster.
    pub user: String,
    /// Operating-system account.
    pub login: String,
    /// Name of the node.
    pub node: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Command line, when it is not a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// Why a recording ended early. The session it belongs to must end, too.
#[derive(Clone, Debug, thiserror::Error)]
#[error("this session must be recorded, and the recording cannot be written: {0}")]
pub(crate) struct RecordingFailed(Arc<str>);

impl RecordingFailed {
    fn new(cause: &dyn std::fmt::Display) -> Self {
        Self(cause.to_string().into())
    }
}

/// The recording of one running session.
pub(crate) struct Recorder {
    queue: mpsc::Sender<Piece>,
    failure: watch::Receiver<Option<RecordingFailed>>,
    writer: JoinHandle<()>,
    began: Instant,
}

enum Piece {
    Output(f64, Bytes),
    Resize(f64, u16, u16),
}

impl Recorder {
    /// Begins a recording in `dir`. When it returns, the header is on disk.
    pub(crate) async fn begin(
        dir: &Path,
        session: SessionId,
        header: RecordingHeader,
    ) -> Result<Self, RecordingFailed> {
        let path = part_path(dir, session);
        let opened = tokio::task::spawn_blocking(move || Cast::create(path, &header)).await;
        let cast =
            opened.map_err(|error| RecordingFailed::new(&error))?.map_err(|error| RecordingFailed::new(&error))?;
        let (queue, pieces) = mpsc::channel(QUEUE);
        let (tell, failure) = watch::channel(None);
        let writer = tokio::spawn(async move {
            if let Err(error) = write(cast, pieces).await {
                tell.send_replace(Some(RecordingFailed::new(&error)));
            }
        });
        Ok(Self { queue, failure, writer, began: Instant::now() })
    }

    /// Takes output of the session. Waits while the disk is slow, but not long.
    pub(crate) async fn output(&self, octets: Bytes) -> Result<(), RecordingFailed> {
        self.put(Piece::Output(self.now(), octets)).await
    }

    /// Takes a change of size.
    pub(crate) async fn resize(&self, columns: u16, rows: u16) -> Result<(), RecordingFailed> {
        self.put(Piece::Resize(self.now(), columns, rows)).await
    }

    /// Waits until the recording has failed; never returns while it is well.
    pub(crate) async fn failed(&self) -> RecordingFailed {
        let mut failure = self.failure.clone();
        loop {
            if let Some(failed) = failure.borrow_and_update().clone() {
                return failed;
            }
            if failure.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Closes the recording: everything is on disk when it returns `true`.
    pub(crate) async fn finish(self) -> bool {
        let Self { queue, failure, mut writer, began: _ } = self;
        drop(queue);
        let ended = timeout(DISK_LIMIT, &mut writer).await;
        matches!(ended, Ok(Ok(()))) && failure.borrow().is_none()
    }

    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    async fn put(&self, piece: Piece) -> Result<(), RecordingFailed> {
        match timeout(DISK_LIMIT, self.queue.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => {
                Err(self.failure.borrow().clone().unwrap_or_else(|| RecordingFailed::new(&"the writer ended")))
            }
            Err(_) => Err(RecordingFailed::new(&"the disk does not answer")),
        }
    }
}

/// Makes `dir` with mode 0700, if it is not there. Removes recordings that a killed process began and wrote nothing of: nobody can be
/// writing there before the node serves.
pub(crate) fn prepare_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let session =
            name.to_str().and_then(|name| name.strip_suffix(PART)).and_then(|id| id.parse::<SessionId>().ok());
        if session.is_some() && entry.metadata()?.is_file() && entry.metadata()?.len() == 0 {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The beginning of every recording.
pub(crate) fn header(
    owner: RecordingOwner,
    size: (u16, u16),
    started: Timestamp,
    env: [(&str, String); 2],
) -> RecordingHeader {
    RecordingHeader {
        version: 2,
        width: size.0,
        height: size.1,
        timestamp: started.unix_seconds(),
        env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        remoteler: owner,
    }
}

pub(crate) fn part_path(dir: &Path, session: SessionId) -> PathBuf {
    dir.join(format!("{session}{PART}"))
}

/// Suffix of a closed recording.
pub(crate) const CLOSED: &str = ".cast";
/// Suffix of one being written.
pub(crate) const PART: &str = ".cast.part";

async fn write(mut cast: Cast, mut pieces: mpsc::Receiver<Piece>) -> io::Result<()> {
    let mut tail = Utf8Tail::default();
    let mut unsaved_since: Option<Instant> = None;
    loop {
        let due = unsaved_since.map(|since| since + SAVE_EVERY);
        let piece = match due {
            Some(due) => match tokio::time::timeout_at(due, pieces.recv()).await {
                Ok(piece) => piece,
                Err(_) => {
                    cast = saved(cast).await?;
                    unsaved_since = None;
                    continue;
                }
            },
            None => pieces.recv().await,
        };
        match piece {
            Some(Piece::Output(at, octets)) => {
                let text = tail.push(&octets);
                if !text.is_empty() {
                    cast.event(at, "o", &text)?;
                }
            }
            Some(Piece::Resize(at, columns, rows)) => cast.event(at, "r", &format!("{columns}x{rows}"))?,
            None => break,
        }
        unsaved_since.get_or_insert_with(Instant::now);
        if cast.waiting.len() >= SAVE_AT || due.is_some_and(|due| due <= Instant::now()) {
            cast = saved(cast).await?;
            unsaved_since = None;
        }
    }
    cast = saved(cast).await?;
    tokio::task::spawn_blocking(move || cast.close()).await.map_err(io::Error::other)?
}

async fn saved(mut cast: Cast) -> io::Result<Cast> {
    let save = tokio::task::spawn_blocking(move || cast.save().map(|()| cast));
    timeout(DISK_LIMIT, save).await?.map_err(io::Error::other)?
}

/// The file.
struct Cast {
    file: File,
    path: PathBuf,
    waiting: Vec<u8>,
}

impl Cast {
    fn create(path: PathBuf, header: &RecordingHeader) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        // Held as long as the file is open: the uploader knows by it that a recording is still written.
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut waiting = serde_json::to_vec(header)?;
        waiting.push(b'\n');
        let mut cast = Self { file, path, waiting };
        cast.save()?;
        sync_parent(&cast.path)?;
        Ok(cast)
    }

    fn event(&mut self, at: f64, code: &str, text: &str) -> io::Result<()> {
        write!(self.waiting, "[{at:.6}, \"{code}\", ")?;
        serde_json::to_writer(&mut self.waiting, text)?;
        self.waiting.extend_from_slice(b"]\n");
        Ok(())
    }

    fn save(&mut self) -> io::Result<()> {
        self.file.write_all(&self.waiting)?;
        self.waiting.clear();
        self.waiting.shrink_to(SAVE_AT);
        self.file.sync_data()
    }

    fn close(self) -> io::Result<()> {
        let Some(closed) = self.path.to_str().and_then(|path| path.strip_suffix(".part")) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        fs::rename(&self.path, closed)?;
        sync_parent(&self.path)
    }
}

pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Puts characters together that were cut in two between pieces. What is no UTF-8 becomes U+FFFD.
#[derive(Default)]
struct Utf8Tail(Vec<u8>);

impl Utf8Tail {
    fn push(&mut self, octets: &[u8]) -> String {
        self.0.extend_from_slice(octets);
        let keep = match std::str::from_utf8(&self.0) {
            Ok(_) => 0,
            Err(_) => unfinished(&self.0),
        };
        let rest = self.0.split_off(self.0.len() - keep);
        let whole = std::mem::replace(&mut self.0, rest);
        String::from_utf8(whole).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

/// Octets at the end that may still become a character: at most three.
fn unfinished(octets: &[u8]) -> usize {
    (1..=octets.len().min(3))
        .find(|count| {
            let tail = octets.get(octets.len() - count..).unwrap_or_default();
            std::str::from_utf8(tail).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(0)
}

/// Pieces that wait for the writer; each at most a terminal's read.
const QUEUE: usize = 64;
/// Octets after which they are written.
const SAVE_AT: usize = 64 * 1024;
/// Time after which they are written in any case.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long the disk may take before the recording has failed (I77 leaves 5 s for all of it).
const DISK_LIMIT: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner() -> RecordingOwner {
        let text = |value: &str| value.to_owned();
        RecordingOwner {
            session_id: text("s"),
            user: text("ann"),
            login: text("root"),
            node: text("n1"),
            cluster: text("c"),
            command: None,
        }
    }

    fn some_header() -> RecordingHeader {
        let env = [("TERM", "xterm".to_owned()), ("SHELL", "/bin/sh".to_owned())];
        header(owner(), (80, 25), Timestamp::from_unix_seconds(1), env)
    }

    #[tokio::test]
    async fn a_recording_is_a_header_and_one_line_for_each_event() {
        let dir = tempfile::tempdir().unwrap();
        let id: SessionId = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap();
        let recorder = Recorder::begin(dir.path(), id, some_header()).await.unwrap();
        recorder.output(Bytes::from_static(b"gr\xc3")).await.unwrap();
        recorder.output(Bytes::from_static(b"\xbcn\xff\r\n")).await.unwrap();
        recorder.resize(100, 40).await.unwrap();
        assert!(recorder.finish().await);

        let text = fs::read_to_string(dir.path().join(format!("{id}.cast"))).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(serde_json::from_str::<RecordingHeader>(lines[0]).unwrap(), some_header());
        let events: Vec<(f64, String, String)> =
            lines[1..].iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let texts: Vec<(&str, &str)> = events.iter().map(|(_, code, text)| (code.as_str(), text.as_str())).collect();
        assert_eq!(texts, [("o", "gr"), ("o", "ün\u{fffd}\r\n"), ("r", "100x40")]);
    }

    #[test]
    fn recordings_of_which_nothing_was_written_are_removed_at_start_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let id = |digit: char| format!("67e55044-10b1-426f-9247-bb680e5fe0c{digit}");
        for (name, content) in [
            (format!("{}{PART}", id('1')), ""),
            (format!("{}{PART}", id('2')), "{}\n"),
            (format!("{}{CLOSED}", id('3')), ""),
            (format!("notes{PART}"), ""),
        ] {
            fs::write(dir.path().join(name), content).unwrap();
        }
        prepare_dir(dir.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let expected = [format!("{}{PART}", id('2')), format!("{}{CLOSED}", id('3')), format!("notes{PART}")];
        assert_eq!(left, expected.map(std::ffi::OsString::from)); // I77
    }

    #[tokio::test]
    async fn a_recording_that_cannot_be_opened_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let id: SessionId = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap();
        let missing = dir.path().join("gone");
        let failed = Recorder::begin(&missing, id, some_header()).await.err().unwrap(); // I77
        assert!(failed.to_string().contains("No such file"), "{failed}");
    }

    proptest! {
        #[test]
        fn text_comes_out_whole_however_it_was_cut(text in "\\PC{0,40}", cuts in proptest::collection::vec(0_usize..160, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut tail = Utf8Tail::default();
            let joined: String = cuts.windows(2).map(|pair| tail.push(&text.as_bytes()[pair[0]..pair[1]])).collect();
            prop_assert_eq!(joined, text);
        }
    }
}
