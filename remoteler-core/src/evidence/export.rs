//! The export of an audit log: what a service answers to who asks for one, and the lines of the file it becomes. Owns the format; the check
//! of it stands in `verify`.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::{Checkpoint, CheckpointError, NoteKey, TILE, TreeHash};
use crate::{ApiError, AuthApi, Timestamp};

/// Which part of the log is wanted. The answer is one piece of the log, from the first event that fits to the last one; in between there may be
/// others, for events are in order of their arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExportQuery {
    /// Not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
}

/// The beginning of an export: what is proven, and by whose signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportStart {
    /// The log's public key ([`super::NoteKey`]).
    pub key: String,
    /// Signed [`super::Checkpoint`] with the range of the export.
    pub checkpoint: String,
    /// Present where retention removed events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tombstone: Option<ExportTombstone>,
}

/// What stands for events that retention removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportTombstone {
    /// Signed [`super::Checkpoint`] of the log when it had the removed events only.
    pub checkpoint: String,
    /// The path from there to the checkpoint of the export.
    pub consistency: Vec<TreeHash>,
}

/// A tile that is wanted, of the tree that an [`ExportStart`] began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportTileQuery {
    /// Events in the tree.
    pub size: u64,
    /// Which tile, from 0.
    pub tile: u64,
    /// Number of the first event that is wanted of it. An answer has as many of them as go into 8 MiB, and at least one.
    pub from: u64,
}

/// A tile of the tree, and the events in it that are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportTile {
    /// Hashes of all leaves of the tile.
    pub hashes: Vec<TreeHash>,
    /// The path from the tile to the root, over the tree whose leaves are tiles.
    pub path: Vec<TreeHash>,
    /// Events of the tile, in their order.
    pub events: Vec<ExportRecord>,
}

/// One event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRecord {
    /// Its number in the log, from 1.
    pub seq: u64,
    /// Its text, octet for octet: the JSON that was hashed.
    pub text: String,
}

/// The first line of a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartLine {
    pub(super) audit_export: u32,
    #[serde(flatten)]
    pub(super) start: StartFields,
}

/// [`ExportStart`], for `flatten` and `deny_unknown_fields` do not go together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StartFields {
    pub(super) key: String,
    pub(super) checkpoint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tombstone: Option<ExportTombstone>,
}

/// The line before the events of a tile.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TileLine {
    pub(super) tile: u64,
    pub(super) hashes: Vec<TreeHash>,
    pub(super) path: Vec<TreeHash>,
}

/// Version of the format.
pub(super) const VERSION: u32 = 1;

/// The first line of the file, without its newline.
#[must_use]
pub fn start_line(start: &ExportStart) -> String {
    let ExportStart { key, checkpoint, tombstone } = start.clone();
    written(&StartLine { audit_export: VERSION, start: StartFields { key, checkpoint, tombstone } })
}

/// The line before the events of a tile.
#[must_use]
pub fn tile_line(number: u64, tile: &ExportTile) -> String {
    written(&TileLine { tile: number, hashes: tile.hashes.clone(), path: tile.path.clone() })
}

/// The line of an event.
#[must_use]
pub fn record_line(record: &ExportRecord) -> String {
    format!("{RECORD_SEQ}{}{RECORD_EVENT}{}{RECORD_END}", record.seq, record.text)
}

/// Number and text of an event's line, which has exactly the form that [`record_line`] gives it.
pub(super) fn read_record(line: &str) -> Option<(u64, &str)> {
    let (seq, rest) = line.strip_prefix(RECORD_SEQ)?.split_once(RECORD_EVENT)?;
    let text = rest.strip_suffix(RECORD_END)?;
    let number: u64 = seq.parse().ok()?;
    (number.to_string() == seq).then_some((number, text))
}

/// Fetches an export, and gives its lines one after another. Returns how many events it has.
///
/// # Errors
/// Those of the service and of `line`, or [`CheckpointError`] when the answer is signed by nobody.
pub async fn fetch_export<E: From<ApiError> + From<CheckpointError>>(
    api: &dyn AuthApi,
    query: ExportQuery,
    mut line: impl FnMut(&str) -> Result<(), E>,
) -> Result<u64, E> {
    let start = api.start_export(query).await?;
    let key: NoteKey = start.key.parse().map_err(CheckpointError::Note)?;
    let Checkpoint { size, range, .. } = Checkpoint::open(&start.checkpoint, &[key])?;
    let range = range.unwrap_or((1, 0));
    line(&start_line(&start))?;
    let mut count = 0;
    for tile in tiles_of(range).into_iter().flatten() {
        let last = range.1.min((tile + 1) * TILE);
        let mut from = range.0.max(tile * TILE + 1);
        let mut begun = false;
        while from <= last {
            let answer = api.export_tile(ExportTileQuery { size, tile, from }).await?;
            if !begun {
                line(&tile_line(tile, &answer))?;
                begun = true;
            }
            // What is not there is found when the file is checked.
            let Some(next) = answer.events.last().map(|record| record.seq.max(from) + 1) else { break };
            for record in answer.events.iter().filter(|record| (from..=last).contains(&record.seq)) {
                line(&record_line(record))?;
                count += 1;
            }
            from = next;
        }
    }
    Ok(count)
}

/// Reads a line that has exactly the form in which it is written.
pub(super) fn read_exact<T: Serialize + for<'de> Deserialize<'de>>(line: &str) -> Option<T> {
    let read: T = serde_json::from_str(line).ok()?;
    (written(&read) == line).then_some(read)
}

fn written(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("a line is made of strings, numbers and lists")
}

/// The tiles in which the events of a range are; `None` when there is no event in it.
#[must_use]
pub(super) fn tiles_of((first, last): (u64, u64)) -> Option<RangeInclusive<u64>> {
    (first >= 1 && last >= first).then(|| (first - 1) / TILE..=(last - 1) / TILE)
}

const RECORD_SEQ: &str = "{\"seq\":";
const RECORD_EVENT: &str = ",\"event\":";
const RECORD_END: &str = "}";
