//! Reading the tree: hashes of leaves stand beside their events, those of complete tiles in a table of their own, so that any root and any path
//! takes a few hundred rows, however large the log is. Owns these queries.

use remoteler_core::{
    Timestamp,
    evidence::{ChainHead, ExportRecord, TILE, TreeHash, inclusion_path, node_hash, root_of, split, tiles_in},
};
use rusqlite::{Connection, OptionalExtension, Result, params};

/// Octets of events in one answer.
const MAX_EVENTS_OCTETS: usize = 8 * 1024 * 1024;

/// Where the log ends.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    /// Events that there ever were.
    pub(crate) size: u64,
    /// So many of them, the first ones, were removed.
    pub(crate) removed: u64,
    /// The heads of the writers' chains.
    pub(crate) heads: Vec<(String, ChainHead)>,
    /// The note of the newest checkpoint that is kept.
    pub(crate) last: Option<String>,
    /// The note that stands for what was removed.
    pub(crate) tombstone: Option<String>,
}

/// A tile for an export.
#[derive(Clone, Debug)]
pub(crate) struct Tile {
    pub(crate) hashes: Vec<TreeHash>,
    pub(crate) path: Vec<TreeHash>,
    pub(crate) events: Vec<ExportRecord>,
}

/// Numbers are far below 2⁶³.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn number(integer: i64) -> u64 {
    u64::try_from(integer).unwrap_or(0)
}

/// Events that there ever were.
pub(super) fn size(c: &Connection) -> Result<u64> {
    let last: Option<i64> = c
        .prepare_cached("SELECT seq FROM events ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    match last {
        Some(last) => Ok(number(last)),
        None => removed(c),
    }
}

/// So many events, the first ones, were removed.
pub(super) fn removed(c: &Connection) -> Result<u64> {
    let size = c.prepare_cached("SELECT size FROM audit_tombstone")?.query_row([], |row| row.get(0)).optional()?;
    Ok(size.map_or(0, number))
}

/// All of it as it was at one moment.
pub(crate) fn edge(c: &Connection) -> Result<Edge> {
    c.execute_batch("SAVEPOINT edge")?;
    let read = || {
        let mut heads = c.prepare_cached("SELECT writer, n, hash FROM audit_writers ORDER BY writer")?;
        let heads = heads.query_map([], |row| {
            let hash: Vec<u8> = row.get(2)?;
            let hash = TreeHash::from_slice(&hash).unwrap_or_default();
            Ok((row.get(0)?, ChainHead { n: number(row.get(1)?), hash }))
        })?;
        let note = |sql: &str| c.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional();
        Ok(Edge {
            size: size(c)?,
            removed: removed(c)?,
            heads: heads.collect::<Result<_>>()?,
            last: note("SELECT note FROM audit_checkpoints ORDER BY size DESC LIMIT 1")?,
            tombstone: note("SELECT note FROM audit_tombstone")?,
        })
    };
    let edge = read();
    c.execute_batch("RELEASE edge")?;
    edge
}

/// Hashes `begin..end` of a level: of leaves on level 0, of complete tiles above. What is not there is zeros: the log goes on where it was tampered
/// with, and no proof fits there.
pub(super) fn hashes(c: &Connection, level: u32, begin: u64, end: u64) -> Result<Vec<TreeHash>> {
    let mut statement = c.prepare_cached(if level == 0 {
        "SELECT seq - 1, leaf FROM events WHERE seq > ?1 AND seq <= ?2 AND ?3 = 0 ORDER BY seq"
    } else {
        "SELECT number, hash FROM audit_tiles WHERE number >= ?1 AND number < ?2 AND level = ?3 ORDER BY number"
    })?;
    let mut rows = statement.query(params![integer(begin), integer(end), level])?;
    let mut hashes = vec![TreeHash::default(); usize::try_from(end.saturating_sub(begin)).unwrap_or(0)];
    while let Some(row) = rows.next()? {
        let (at, hash): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let place = number(at).checked_sub(begin).and_then(|place| usize::try_from(place).ok());
        if let (Some(place), Some(hash)) = (place.and_then(|place| hashes.get_mut(place)), TreeHash::from_slice(&hash))
        {
            *place = hash;
        }
    }
    Ok(hashes)
}

/// The root over leaves `begin..end`: a complete part of the tree, or all to the right of one.
pub(crate) fn subtree(c: &Connection, begin: u64, end: u64) -> Result<TreeHash> {
    let size = end.saturating_sub(begin);
    if size == 0 {
        return Ok(root_of(&[]));
    }
    if !size.is_power_of_two() || !begin.is_multiple_of(size) {
        let middle = begin + split(size);
        return Ok(node_hash(&subtree(c, begin, middle)?, &subtree(c, middle, end)?));
    }
    let level = size.trailing_zeros() / TILE.trailing_zeros();
    let each = TILE.pow(level);
    Ok(root_of(&hashes(c, level, begin / each, end / each)?))
}

/// A tile of the tree of `size` leaves, with its events from number `from` on.
pub(crate) fn tile(c: &Connection, size: u64, tile: u64, from: u64) -> Result<Tile> {
    let (begin, end) = (tile * TILE, size.min((tile + 1) * TILE));
    let path = inclusion_path(tile, tiles_in(size), |from, to| subtree(c, from * TILE, size.min(to * TILE)))?;
    let mut statement = c.prepare_cached("SELECT seq, body FROM events WHERE seq >= ?1 AND seq <= ?2 ORDER BY seq")?;
    let rows = statement.query_map(params![integer(from.max(begin + 1)), integer(end)], |row| {
        Ok(ExportRecord { seq: number(row.get(0)?), text: row.get(1)? })
    })?;
    let (mut events, mut octets) = (Vec::new(), 0);
    for row in rows {
        let record = row?;
        octets += record.text.len();
        if octets > MAX_EVENTS_OCTETS && !events.is_empty() {
            break;
        }
        events.push(record);
    }
    Ok(Tile { hashes: hashes(c, 0, begin, end)?, path, events })
}

/// Numbers of the first and the last event whose time is within; nothing between them is left out.
pub(crate) fn page(c: &Connection, edge: &Edge, from: Option<Timestamp>, to: Option<Timestamp>) -> Result<(u64, u64)> {
    if from.is_none() && to.is_none() {
        return Ok((edge.removed + 1, edge.size));
    }
    let millis = |time: Option<Timestamp>, otherwise| time.map_or(otherwise, Timestamp::unix_millis);
    let mut statement = c.prepare_cached(
        "SELECT min(seq), max(seq) FROM events WHERE time >= ?1 AND time < ?2 AND seq > ?3 AND seq <= ?4",
    )?;
    let bounds = params![millis(from, i64::MIN), millis(to, i64::MAX), integer(edge.removed), integer(edge.size)];
    let (first, last): (Option<i64>, Option<i64>) =
        statement.query_row(bounds, |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(first.zip(last).map_or((edge.removed + 1, edge.removed), |(first, last)| (number(first), number(last))))
}
