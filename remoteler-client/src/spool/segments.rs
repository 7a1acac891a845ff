//! The files of a spool: JSON lines in numbered segments, the last one open. Owns sizes and what is durable. Knows no event.

use std::{collections::BTreeMap, fs::File, io::Write, path::Path, time::Duration};

use remoteler_core::evidence::ChainHead;

use super::{SpoolLimits, author::HEAD_FILE};
use crate::files::{DirLock, FileError, Privacy, PrivateDir};

/// All segments of one spool.
pub(super) struct Segments {
    dir: PrivateDir,
    _lock: DirLock,
    limits: SpoolLimits,
    /// Octets of each closed segment.
    closed: BTreeMap<u64, u64>,
    open: Option<OpenSegment>,
    next: u64,
}

struct OpenSegment {
    number: u64,
    file: File,
    /// Octets that are known to be on disk.
    durable: u64,
}

impl Segments {
    /// Takes what is there; nothing is open.
    pub(super) fn open(path: &Path, limits: SpoolLimits) -> Result<Self, FileError> {
        let dir = PrivateDir::create(path, Privacy::Tighten)?;
        let lock = dir.lock(Duration::ZERO)?;
        let mut closed = BTreeMap::new();
        for name in dir.files()? {
            let Some(number) = number_of(&name) else { continue };
            let path = dir.path().join(&name);
            let length = std::fs::symlink_metadata(&path)
                .map_err(|source| FileError::Io { action: "examine", path, source })?
                .len();
            closed.insert(number, length);
        }
        let next = closed.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        Ok(Self { dir, _lock: lock, limits, closed, open: None, next })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.is_none()
    }

    /// Octets that may still be written.
    pub(super) fn room(&self) -> u64 {
        let used = self.closed.values().sum::<u64>() + self.open.as_ref().map_or(0, |open| open.durable);
        self.limits.max_total.saturating_sub(used)
    }

    /// Octets that the spool may have.
    pub(super) const fn limit(&self) -> u64 {
        self.limits.max_total
    }

    /// Whether no other segment than this one is there.
    pub(super) fn is_last(&self, number: u64) -> bool {
        self.open.is_none() && self.closed.keys().all(|other| *other == number)
    }

    /// What `find` finds in the last whole line in which it finds something, looking at the newest segments first.
    pub(super) fn last_line<T>(&self, find: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>, FileError> {
        for number in self.closed.keys().rev() {
            let content = self.dir.read(&name_of(*number), MAX_READ)?.unwrap_or_default();
            let lines = content.split_inclusive(|octet| *octet == b'\n').rev();
            let mut whole = lines.filter_map(|line| line.strip_suffix(b"\n"));
            if let Some(found) = whole.find_map(&find) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Where the chain ended that was written here.
    pub(super) fn read_head(&self) -> Result<Option<Vec<u8>>, FileError> {
        self.dir.read(HEAD_FILE, 4096)
    }

    /// Keeps where the chain ends.
    pub(super) fn write_head(&self, head: &ChainHead) -> Result<(), FileError> {
        let text = serde_json::to_vec(head).expect("a number and a hash can be written");
        self.dir.write(HEAD_FILE, &text)
    }

    /// Appends whole lines. When it returns they are on disk; on an error none of them counts.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), FileError> {
        if self.open.as_ref().is_some_and(|open| open.durable >= self.limits.max_segment) {
            self.close();
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        let path = self.dir.path().join(name_of(open.number));
        let written = open.file.write_all(lines).and_then(|()| open.file.sync_data());
        match written {
            Ok(()) => {
                open.durable += u64::try_from(lines.len()).unwrap_or(u64::MAX);
                self.open = Some(open);
                Ok(())
            }
            Err(source) => {
                // What of the lines reached the disk is unknown. The half written ones are taken back if that works, and the
                // segment is not used again either way: after a failed sync its later ones would prove nothing.
                let taken_back = match open.durable {
                    // Nothing in it counts. On a full disk every attempt would leave an empty file behind.
                    0 => self.dir.remove(&name_of(open.number)).map(|_| ()).map_err(|error| error.to_string()),
                    durable => {
                        self.closed.insert(open.number, durable);
                        open.file.set_len(durable).map_err(|error| error.to_string())
                    }
                };
                if let Err(cause) = taken_back {
                    tracing::warn!(path = %path.display(), %cause, "half written audit events could not be taken back");
                }
                Err(FileError::Io { action: "write to", path, source })
            }
        }
    }

    /// Closes the open segment and gives the numbers of all closed ones, oldest first.
    pub(super) fn close_all(&mut self) -> Vec<u64> {
        self.close();
        self.closed.keys().copied().collect()
    }

    /// Removes a segment whose events have arrived.
    pub(super) fn remove(&mut self, number: u64) -> Result<(), FileError> {
        self.dir.remove(&name_of(number))?;
        self.closed.remove(&number);
        Ok(())
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.closed.insert(open.number, open.durable);
        }
    }

    fn begin(&mut self) -> Result<OpenSegment, FileError> {
        let number = self.next;
        let file = self.dir.create_file(&name_of(number))?;
        self.next += 1;
        self.dir.sync()?;
        Ok(OpenSegment { number, file, durable: 0 })
    }
}

/// A segment is closed at its limit, after the batch that passed it.
pub(super) const MAX_READ: u64 = 256 * 1024 * 1024;

/// Name of a segment's file; names sort like numbers.
pub(super) fn name_of(number: u64) -> String {
    format!("{number:020}.jsonl")
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".jsonl")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_found_again_in_their_order_and_never_written_again() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("spool");
        let limits = SpoolLimits { max_segment: 10, ..SpoolLimits::default() };
        let mut segments = Segments::open(&path, limits).unwrap();
        for _ in 0..3 {
            segments.append(b"0123456789\n").unwrap();
        }
        drop(segments);
        std::fs::write(path.join("notes.txt"), b"not ours").unwrap();

        let mut segments = Segments::open(&path, limits).unwrap();
        assert_eq!(segments.close_all(), [0, 1, 2]);
        segments.append(b"x\n").unwrap();
        segments.remove(1).unwrap();
        assert_eq!(segments.close_all(), [0, 2, 3]);
        assert_eq!(segments.room(), limits.max_total - 24);
        assert!(path.join("notes.txt").exists());
    }
}
