//! The check of an export, line by line and with no more memory than one tile takes. Owns what counts as tampering and how it is named;
//! opens no file and asks no server. Whatever the file holds, it ends with a verdict.

mod tile;

use std::collections::BTreeMap;

use super::{
    Chains, Checkpoint, Frontier, NoteKey, TILE, TreeHash,
    export::{StartLine, TileLine, VERSION, read_exact, read_record, tiles_of},
    left_of, root_of, tiles_in, verify_consistency, verify_inclusion, writers_digest,
};
use crate::Timestamp;

use tile::OpenTile;

/// Findings that are named one by one; the rest is counted.
const MAX_FINDINGS: usize = 100;
/// Longest line that is looked at, in octets.
const MAX_LINE: usize = 512 * 1024;
/// Where an export begins in the middle, so many of its first events may break a chain of which the log spoke before.
const SPOKEN_BEFORE: u64 = 1024;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Line of the file, from 1.
    pub line: Option<u64>,
    /// Number of the event in the log.
    pub event: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What a check found out.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The log's name, when a signature says it.
    pub origin: Option<String>,
    /// When the signature was made.
    pub time: Option<Timestamp>,
    /// Events in the whole log at that time.
    pub size: u64,
    /// Events that the export shall have: first and last number.
    pub range: (u64, u64),
    /// Events of them that are proven to be as they were kept.
    pub proven: u64,
    /// Events that retention had removed.
    pub removed: u64,
    /// What was tampered with; at most 100 of them.
    pub findings: Vec<Finding>,
    /// How many findings there are.
    pub found: u64,
    /// Breaks in writers' chains that the log speaks of itself, as lines for people.
    pub breaks: Vec<String>,
    /// Checkpoints of the witness that agree.
    pub witnessed: u64,
    /// Checkpoints of the witness that the export does not reach.
    pub unreached: u64,
    /// Whether the key came from the file itself, so that it proves nothing about who made the file.
    pub own_key: bool,
}

impl Verdict {
    /// Whether nothing was tampered with.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.found == 0
    }

    pub(super) fn find(&mut self, line: Option<u64>, event: Option<u64>, what: impl Into<String>) {
        self.found += 1;
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding { line, event, what: what.into() });
        }
    }
}

/// Checks an export. Lines go in one by one, then comes the verdict.
#[derive(Debug)]
pub struct ExportVerifier {
    keys: Vec<NoteKey>,
    witness: Vec<Checkpoint>,
    line: u64,
    /// The checkpoint of the file, once its first line was believed.
    checkpoint: Option<Checkpoint>,
    /// The first line was not believed: nothing that follows can be judged.
    lost: bool,
    open: Option<OpenTile>,
    next_tile: u64,
    /// The edge of the tree as far as tiles were believed one after another.
    frontier: Option<Frontier>,
    chains: Chains,
    /// Breaks of which the log spoke and that did not come yet.
    announced: BTreeMap<String, u64>,
    verdict: Verdict,
}

impl ExportVerifier {
    /// Believes `keys`; without one that of the file itself. `witness`: what was seen of the log before.
    #[must_use]
    pub fn new(keys: Vec<NoteKey>, witness: Vec<Checkpoint>) -> Self {
        Self {
            keys,
            witness,
            line: 0,
            checkpoint: None,
            lost: false,
            open: None,
            next_tile: 0,
            frontier: None,
            chains: Chains::default(),
            announced: BTreeMap::new(),
            verdict: Verdict::default(),
        }
    }

    /// Takes the next line, without its newline.
    pub fn line(&mut self, text: &str) {
        self.line += 1;
        if self.lost {
            return;
        }
        if text.len() > MAX_LINE {
            return self.find_here("the line is longer than any that is written");
        }
        if self.line == 1 {
            if let Err(what) = self.begin(text) {
                self.find_here(what);
                self.lost = true;
            }
        } else if let Some((seq, event)) = read_record(text) {
            match &mut self.open {
                Some(open) => open.take(self.line, seq, event, &mut self.verdict),
                None => self.verdict.find(Some(self.line), Some(seq), "the event was inserted: no hashes go before it"),
            }
        } else if let Some(tile) = read_exact::<TileLine>(text) {
            self.begin_tile(tile);
        } else {
            self.find_here("the line is neither an event nor hashes in the form in which they are written");
        }
    }

    /// What was found out.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        if self.line == 0 {
            self.verdict.find(None, None, "the file is empty");
        }
        self.end_tile();
        if let Some(checkpoint) = self.checkpoint.take() {
            self.check_end(&checkpoint);
            self.check_witness(&checkpoint);
        }
        self.verdict
    }

    fn find_here(&mut self, what: impl Into<String>) {
        self.verdict.find(Some(self.line), None, what);
    }

    fn begin(&mut self, text: &str) -> Result<(), String> {
        let Some(StartLine { audit_export, start }) = read_exact::<StartLine>(text) else {
            return Err("the first line is not that of an audit export".into());
        };
        if audit_export != VERSION {
            return Err(format!("the export is of version {audit_export}, {VERSION} is known; take a newer tctl"));
        }
        let own: NoteKey = start.key.parse().map_err(|cause| format!("the key on the first line is wrong: {cause}"))?;
        if self.keys.is_empty() {
            self.verdict.own_key = true;
            self.keys.push(own);
        } else if !self.keys.contains(&own) {
            return Err(format!("the file says it is signed by {own}, which is not a key that was given"));
        }
        let checkpoint = Checkpoint::open(&start.checkpoint, &self.keys).map_err(|cause| cause.to_string())?;
        let Some(range) = checkpoint.range else { return Err("the checkpoint is not that of an export".into()) };
        if range.0 == 0 || range.1 > checkpoint.size || range.0 > range.1.saturating_add(1) {
            return Err("the range of the export is not within the log".into());
        }
        self.verdict.origin = Some(checkpoint.origin.clone());
        self.verdict.time = Some(checkpoint.time);
        (self.verdict.size, self.verdict.range) = (checkpoint.size, range);
        match (start.tombstone, checkpoint.removed) {
            (None, 0) => {}
            (None, removed) => {
                self.find_here(format!(
                    "the tombstone of events 1 to {removed}, which retention removed, is not there"
                ));
            }
            (Some(tombstone), removed) => match Checkpoint::open(&tombstone.checkpoint, &self.keys) {
                Err(cause) => self.find_here(format!("the tombstone is wrong: {cause}")),
                Ok(old) => {
                    let fits = old.size == removed
                        && old.removed == removed
                        && removed > 0
                        && old.origin == checkpoint.origin
                        && verify_consistency(
                            old.size,
                            &old.root,
                            checkpoint.size,
                            &checkpoint.root,
                            &tombstone.consistency,
                        );
                    if !fits {
                        self.find_here("the tombstone is not that of the events which retention removed from this log");
                    }
                    self.verdict.removed = removed;
                }
            },
        }
        self.next_tile = tiles_of(range).map_or(0, |tiles| *tiles.start());
        if checkpoint.size == 0 {
            self.frontier = Some(Frontier::default());
        }
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    fn begin_tile(&mut self, line: TileLine) {
        self.end_tile();
        let Some(checkpoint) = &self.checkpoint else { return };
        let TileLine { tile, hashes, path } = line;
        let (root, size, range) = (checkpoint.root, checkpoint.size, checkpoint.range.unwrap_or_default());
        let wanted = tiles_of(range).is_some_and(|tiles| tiles.contains(&tile));
        if !wanted || tile < self.next_tile {
            return self.find_here(format!("the hashes of tile {tile} stand where they do not belong"));
        }
        self.miss_tiles(tile);
        let first = tile * TILE + 1;
        let last = size.min((tile + 1) * TILE);
        let count = u64::try_from(hashes.len()).unwrap_or(u64::MAX);
        let proven =
            count == last + 1 - first && verify_inclusion(tile, tiles_in(size), &root_of(&hashes), &path, &root);
        if proven {
            if self.frontier.is_none() {
                self.frontier = Frontier::new(tile * TILE, left_of(tile, tiles_in(size), &path));
                self.meet_witness();
            }
            for hash in &hashes {
                if let Some(frontier) = &mut self.frontier {
                    frontier.push(*hash);
                }
                self.meet_witness();
            }
        } else {
            self.frontier = None;
            self.find_here(format!("the hashes of events {first} to {last} do not fit the checkpoint"));
        }
        self.next_tile = tile + 1;
        let expected = first.max(range.0)..=last.min(range.1);
        self.open = Some(OpenTile::new(first, hashes, expected, proven));
    }

    /// Compares the witness's checkpoints of this size.
    fn meet_witness(&mut self) {
        let Some(frontier) =
            self.frontier.as_ref().filter(|frontier| self.witness.iter().any(|w| w.size == frontier.size()))
        else {
            return;
        };
        let (size, root) = (frontier.size(), frontier.root());
        let met: Vec<_> = self.witness.extract_if(.., |seen| seen.size == size).collect();
        for seen in met {
            self.compare(&seen, &root);
        }
    }

    fn compare(&mut self, seen: &Checkpoint, root: &TreeHash) {
        if seen.root == *root {
            self.verdict.witnessed += 1;
        } else {
            let Checkpoint { size, time, .. } = seen;
            let what =
                format!("the first {size} events are not those of which the witness saw the checkpoint of {time}");
            self.verdict.find(None, None, what);
        }
    }

    fn miss_tiles(&mut self, until: u64) {
        let range = self.verdict.range;
        if self.next_tile < until {
            let (first, last) = ((self.next_tile * TILE + 1).max(range.0), (until * TILE).min(range.1));
            let what = format!("events {first} to {last} are not there, nor are their hashes: they were cut out");
            self.verdict.find(Some(self.line), Some(first), what);
            self.frontier = None;
        }
    }

    fn end_tile(&mut self) {
        let Some(open) = self.open.take() else { return };
        let whole_from_start = self.verdict.range.0 == 1;
        let clean = self.verdict.is_whole();
        for event in open.close(&mut self.verdict) {
            if let Some((writer, breaks)) = event.announces {
                let announced = self.announced.entry(writer).or_default();
                *announced = announced.saturating_add(breaks);
            }
            let Some((link, head)) = event.link else { continue };
            let Some(found) = self.chains.take(&link, head, !whole_from_start) else { continue };
            let what = format!(
                "does not continue the chain of {}: its event {} was expected, {} came",
                found.writer, found.expected, found.found
            );
            let announced = self.announced.get_mut(&found.writer).filter(|left| **left > 0);
            let just_begun = !whole_from_start && event.seq < self.verdict.range.0.saturating_add(SPOKEN_BEFORE);
            if let Some(left) = announced {
                *left -= 1;
                self.tell_break(format!("event {} {what}; the log says so", event.seq));
            } else if just_begun {
                self.tell_break(format!("event {} {what}", event.seq));
            } else if clean && self.verdict.is_whole() {
                self.verdict.find(None, Some(event.seq), format!("the event {what}, and the log does not say so"));
            }
        }
    }

    fn tell_break(&mut self, line: String) {
        if self.verdict.breaks.len() < MAX_FINDINGS {
            self.verdict.breaks.push(line);
        }
    }

    fn check_end(&mut self, checkpoint: &Checkpoint) {
        let Some(range) = checkpoint.range else { return };
        if let Some(tiles) = tiles_of(range) {
            self.line += 1; // what is missing is missing there
            self.miss_tiles(tiles.end() + 1);
        }
        if range == (1, checkpoint.size) && self.verdict.is_whole() {
            let heads = self.chains.heads();
            let digest = writers_digest(heads.iter().map(|(writer, head)| (writer.as_str(), *head)));
            let count = u64::try_from(heads.len()).unwrap_or(u64::MAX);
            if checkpoint.writers.is_some_and(|signed| signed != (count, digest)) {
                self.verdict.find(None, None, "the heads of the writers' chains are not those of the checkpoint");
            }
        }
    }

    fn check_witness(&mut self, checkpoint: &Checkpoint) {
        for seen in std::mem::take(&mut self.witness) {
            if seen.origin != checkpoint.origin {
                let what = format!("the witness speaks of {}, the file of {}", seen.origin, checkpoint.origin);
                self.verdict.find(None, None, what);
            } else if seen.size > checkpoint.size {
                let what = format!(
                    "the end was cut off: the witness saw {} events at {}, the log has {} at {}",
                    seen.size, seen.time, checkpoint.size, checkpoint.time
                );
                self.verdict.find(None, Some(checkpoint.size + 1), what);
            } else if seen.size == checkpoint.size {
                self.compare(&seen, &checkpoint.root);
            } else {
                self.verdict.unreached += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
