//! Checkpoints: what the log says of itself at one moment, to be signed (C2SP tlog-checkpoint). Owns the lines; signs nothing.

use std::fmt::Write;

use super::{NoteError, NoteKey, TreeHash, open_note};
use crate::{ClusterName, Timestamp};

/// The name of a cluster's audit log, which begins each of its checkpoints and is the name of its key.
#[must_use]
pub fn audit_origin(cluster: &ClusterName) -> String {
    format!("remoteler.dev/audit/{cluster}")
}

/// How many events there are, and the hash over all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// Events in it.
    pub size: u64,
    /// The root of the tree over them.
    pub root: TreeHash,
    /// When it was made.
    pub time: Timestamp,
    /// How many writers have chains, and the hash over their heads ([`super::writers_digest`]).
    pub writers: Option<(u64, TreeHash)>,
    /// So many events, the first ones, were removed by retention.
    pub removed: u64,
    /// In an export: the numbers of the first and the last event in it.
    pub range: Option<(u64, u64)>,
    /// In a tombstone: when the newest of the removed events happened.
    pub removed_before: Option<Timestamp>,
}

/// Why a text is no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// It is not signed.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// A line is not what it should be.
    #[error("line {line} of the checkpoint is wrong: {what} is expected")]
    Malformed {
        /// From 1.
        line: usize,
        /// What is expected there.
        what: &'static str,
    },
}

impl Checkpoint {
    /// The lines that are signed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\ntime {}\n", self.origin, self.size, self.root, self.time);
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{line}");
        };
        if let Some((count, digest)) = &self.writers {
            line(format_args!("writers {count} {digest}"));
        }
        if self.removed > 0 {
            line(format_args!("removed {}", self.removed));
        }
        if let Some(newest) = self.removed_before {
            line(format_args!("newest-removed {newest}"));
        }
        if let Some((first, last)) = self.range {
            line(format_args!("range {first} {last}"));
        }
        text
    }

    /// Reads a checkpoint that one of `keys` signed, and whose origin is that key's name.
    ///
    /// # Errors
    /// [`CheckpointError`]
    pub fn open(note: &str, keys: &[NoteKey]) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse(open_note(note, keys)?)?;
        if keys.iter().any(|key| key.name() == checkpoint.origin) {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::Malformed { line: 1, what: "the name of the log whose key is believed" })
        }
    }

    /// Reads the lines. Lines that it does not know are passed over: later versions may say more.
    fn parse(text: &str) -> Result<Self, CheckpointError> {
        let wrong = |line, what| CheckpointError::Malformed { line, what };
        let mut lines = text.lines();
        let origin = lines.next().filter(|line| !line.is_empty()).ok_or(wrong(1, "the log's name"))?.to_owned();
        let size = lines.next().and_then(number).ok_or(wrong(2, "the number of events"))?;
        let root = lines.next().and_then(|line| line.parse().ok()).ok_or(wrong(3, "a hash"))?;
        let mut found = Self {
            origin,
            size,
            root,
            time: Timestamp::default(),
            writers: None,
            removed: 0,
            range: None,
            removed_before: None,
        };
        let mut dated = false;
        for (index, line) in lines.enumerate() {
            let wrong = |what| wrong(index + 4, what);
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            match name {
                "time" => {
                    found.time = Timestamp::parse(value).map_err(|_| wrong("a time"))?;
                    dated = true;
                }
                "writers" => {
                    let parts = value.split_once(' ').and_then(|(n, hash)| Some((number(n)?, hash.parse().ok()?)));
                    found.writers = Some(parts.ok_or(wrong("a number and a hash"))?);
                }
                "removed" => found.removed = number(value).ok_or(wrong("a number"))?,
                "newest-removed" => {
                    found.removed_before = Some(Timestamp::parse(value).map_err(|_| wrong("a time"))?);
                }
                "range" => {
                    let parts = value.split_once(' ').and_then(|(a, b)| Some((number(a)?, number(b)?)));
                    found.range = Some(parts.ok_or(wrong("two numbers"))?);
                }
                _ => {}
            }
        }
        if dated { Ok(found) } else { Err(wrong(4, "the time")) }
    }
}

/// A number as it is written: without signs and leading zeros, and not so large that counting on from it could overflow.
fn number(text: &str) -> Option<u64> {
    let parsed: u64 = text.parse().ok()?;
    (parsed.to_string() == text && parsed < 1 << 62).then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            origin: audit_origin(&ClusterName::new("root").unwrap()),
            size: 1000,
            root: TreeHash::of(b"root"),
            time: Timestamp::from_unix_millis(1_772_366_400_000),
            writers: Some((2, TreeHash::of(b"writers"))),
            removed: 256,
            range: Some((257, 1000)),
            removed_before: Some(Timestamp::from_unix_millis(1)),
        }
    }

    #[test]
    fn a_checkpoint_reads_back_and_begins_with_the_three_lines_of_its_specification() {
        let text = checkpoint().text();
        assert!(text.starts_with("remoteler.dev/audit/root\n1000\n"), "{text}");
        assert_eq!(Checkpoint::parse(&text).unwrap(), checkpoint());
        let bare = Checkpoint { writers: None, removed: 0, range: None, removed_before: None, ..checkpoint() };
        assert_eq!(Checkpoint::parse(&bare.text()).unwrap(), bare);
        assert_eq!(Checkpoint::parse(&format!("{text}new thing\n")).unwrap(), checkpoint());
    }

    #[test]
    fn what_is_no_checkpoint_is_refused_by_its_line() {
        for (text, line) in [
            ("", 1),
            ("a\n07\n", 2),
            ("a\n-1\n", 2),
            ("a\n7\nAAAA\n", 3),
            ("a\n7\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", 4),
            ("a\n7\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\ntime 2026-03-01T12:00:00.000Z\nrange 1\n", 5),
        ] {
            let Err(CheckpointError::Malformed { line: found, .. }) = Checkpoint::parse(text) else {
                panic!("{text:?} was read")
            };
            assert_eq!(found, line, "{text:?}");
        }
    }
}
