//! The check of the table by itself: that numbers have no gaps, that events have the hashes beside them, and tiles those of their members.

use remoteler_core::evidence::{Frontier, TILE, TreeHash, leaf_hash, root_of};
use rusqlite::{Connection, Result};

use super::tree;

/// Events that there ever were, or the number of the first one that is not as it was kept.
pub(super) fn check(c: &Connection) -> Result<std::result::Result<u64, i64>> {
    let removed = tree::removed(c)?;
    let mut statement = c.prepare("SELECT seq, body, leaf FROM events ORDER BY seq")?;
    let mut rows = statement.query([])?;
    let mut expected = removed + 1;
    let mut tile = Frontier::default();
    while let Some(row) = rows.next()? {
        let (seq, body, leaf): (i64, String, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let hash = leaf_hash(body.as_bytes());
        if tree::number(seq) != expected || TreeHash::from_slice(&leaf) != Some(hash) {
            return Ok(Err(seq.min(tree::integer(expected))));
        }
        tile.push(hash);
        if expected.is_multiple_of(TILE) {
            let number = expected / TILE - 1;
            if tree::hashes(c, 1, number, number + 1)? != [tile.root()] {
                return Ok(Err(tree::integer(number * TILE + 1)));
            }
            tile = Frontier::default();
        }
        expected += 1;
    }
    let size = expected - 1;
    let tiles: i64 = c.query_row("SELECT count(*) FROM audit_tiles WHERE level = 1", [], |row| row.get(0))?;
    if tree::number(tiles) != size / TILE {
        // Tiles are there of events that are not.
        return Ok(Err(tree::integer(size + 1)));
    }
    upper_levels(c, size).map(|found| found.map_or(Ok(size), Err))
}

/// The first event below a tile of tiles that does not fit.
fn upper_levels(c: &Connection, size: u64) -> Result<Option<i64>> {
    let (mut level, mut each) = (1, TILE);
    while size / each / TILE > 0 {
        for number in 0..size / each / TILE {
            let members = tree::hashes(c, level, number * TILE, (number + 1) * TILE)?;
            if tree::hashes(c, level + 1, number, number + 1)? != [root_of(&members)] {
                return Ok(Some(tree::integer(number * each * TILE + 1)));
            }
        }
        level += 1;
        each *= TILE;
    }
    Ok(None)
}
