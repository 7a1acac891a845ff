//! Format 2: events are the leaves of a Merkle tree, with what is searched beside them; tiles, writers' chains, checkpoints and cursors have tables
//! of their own. The one chain of format 1 is checked a last time; where it does not go on, the program's own log says so, and no event is lost.

use ring::digest::{Context, SHA256};
use rusqlite::{Connection, params};
use serde_json::Value;

use super::Migration;

pub(super) const MIGRATION: Migration = Migration { version: 2, name: "evidence of the audit log", apply };

fn apply(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(include_str!("0002_evidence.sql"))?;
    carry_over(connection)?;
    connection.execute_batch(include_str!("0002_indexes.sql"))
}

fn carry_over(connection: &Connection) -> rusqlite::Result<()> {
    let mut select =
        connection.prepare("SELECT seq, uid, time, event, user, sid, body, chain FROM events ORDER BY seq")?;
    let mut insert = connection.prepare("INSERT INTO events_2 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?;
    let mut keep_tile = connection.prepare("INSERT INTO audit_tiles VALUES (?1, ?2, ?3)")?;
    let mut rows = select.query([])?;
    let mut chain: Vec<u8> = Vec::new();
    // Hashes of each level that do not make a tile yet, and how many tiles there are.
    let mut levels: Vec<(Vec<[u8; 32]>, i64)> = vec![(Vec::new(), 0)];
    let mut expected = 1_i64;
    while let Some(row) = rows.next()? {
        let (seq, body, found): (i64, String, Vec<u8>) = (row.get(0)?, row.get(6)?, row.get(7)?);
        chain = sha256(&[&chain, body.as_bytes()]).to_vec();
        if seq != expected || chain != found {
            tracing::error!(
                seq,
                "the audit log of format 1 was tampered with here: its chain does not go on; it is kept from here on as it is"
            );
            chain = found;
        }
        let (target, failed) = searched(&body);
        let leaf = sha256(&[&[0], body.as_bytes()]);
        let (uid, time, event, user, sid): (Vec<u8>, i64, String, Option<String>, Option<String>) =
            (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?);
        // Numbers have no gaps from now on: they are places in the tree.
        insert.execute(params![expected, uid, time, event, user, sid, target, failed, body, leaf])?;
        expected += 1;
        let (mut hash, mut level) = (leaf, 0);
        loop {
            if levels.len() == level {
                levels.push((Vec::new(), 0));
            }
            let Some((open, tiles)) = levels.get_mut(level) else { break };
            open.push(hash);
            if open.len() < 256 {
                break;
            }
            hash = root(open);
            open.clear();
            let number = *tiles;
            *tiles += 1;
            level += 1;
            keep_tile.execute(params![i64::try_from(level).unwrap_or(i64::MAX), number, hash])?;
        }
    }
    Ok(())
}

/// The root over a power of two of hashes.
fn root(hashes: &[[u8; 32]]) -> [u8; 32] {
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| sha256(&[&[1], &pair.concat()])).collect();
    }
    level.first().copied().unwrap_or_default()
}

fn searched(body: &str) -> (Option<String>, bool) {
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let target = text("server_hostname").or(text("kubernetes_cluster")).or(text("node_name"));
    let failed = value.get("success") == Some(&Value::Bool(false))
        || text("event") == Some("auth")
        || text("error").is_some()
        || text("exitError").is_some();
    (target.map(str::to_owned), failed)
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut octets = [0; 32];
    octets.copy_from_slice(context.finish().as_ref());
    octets
}
