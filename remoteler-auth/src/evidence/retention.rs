//! Removal of events that are older than they are kept, in whole tiles from the beginning of the log: what stands for them is the hashes of their tiles and
//! a signed tombstone. Owns what may go; when it is asked is the caller's business.

use std::time::Duration;

use remoteler_core::{
    AuditKind, Timestamp,
    evidence::{Checkpoint, TILE, TreeHash, leaf_hash, root_of},
};
use rusqlite::{Connection, params};

use super::{Evidence, EvidenceError};
use crate::{EventLogError, event_log::subtree, service::Inner};

/// Tiles that go at once: 4,096 events, so that whoever writes does not wait for long.
const AT_ONCE: u64 = 16;

/// What may go now.
struct Removable {
    /// Number of its last event.
    last: u64,
    root: TreeHash,
    newest: Timestamp,
}

impl Inner {
    /// Removes events that are older than `retention`, at most 4,096; returns how many. The removal is on record first. Events that are not as they were
    /// kept stay, and are an error.
    pub(crate) async fn remove_old_events(&self, retention: Duration) -> Result<u64, EvidenceError> {
        let evidence = &self.evidence;
        let now = self.clock.now();
        let cutoff = now.minus(retention);
        // A host's clock that is far ahead holds nothing back.
        let absurd = now.plus(Duration::from_secs(3600));
        // What is signed now covers all that goes.
        let signed = evidence.sign().await?;
        let signed = Checkpoint::open(&signed, std::slice::from_ref(evidence.signer.public()))
            .map_err(|cause| EventLogError::Malformed { seq: 0, reason: cause.to_string() })?;
        let (removed, size) = (signed.removed, signed.size);
        let found = evidence.log.database().read(move |c| removable(c, removed, size, cutoff, absurd)).await;
        let found = found.map_err(EventLogError::from)?.map_err(|seq| EventLogError::Tampered { seq })?;
        let Some(Removable { last, root, newest }) = found else { return Ok(0) };
        let event = AuditKind::AuditRemove {
            user: "local:retention".into(),
            first: removed + 1,
            last,
            retention_seconds: retention.as_secs(),
        };
        // Whose recordings are does not go with the events that say so.
        let sessions = evidence.log.terminal_sessions(removed, last).await?;
        self.keep_before_removal(&sessions).await.map_err(EvidenceError::Recordings)?;
        self.audit_log.record_own(event).await?;
        let tombstone = Checkpoint {
            size: last,
            root,
            time: self.clock.now(),
            writers: None,
            removed: last,
            range: None,
            removed_before: Some(newest),
            ..signed
        };
        evidence.bury(&tombstone).await?;
        Ok(last - removed)
    }
}

impl Evidence {
    async fn bury(&self, tombstone: &Checkpoint) -> Result<(), EvidenceError> {
        let note = self.signer.sign(tombstone)?;
        let last = i64::try_from(tombstone.size).unwrap_or(i64::MAX);
        let write = self.log.database().write(move |c| {
            c.execute(
                "INSERT OR REPLACE INTO audit_tombstone (one, size, note) VALUES (1, ?1, ?2)",
                params![last, note],
            )?;
            c.execute("DELETE FROM events WHERE seq <= ?1", [last])?;
            c.execute("DELETE FROM audit_checkpoints WHERE size < ?1", [last])
        });
        write.await.map_err(EventLogError::from)?;
        Ok(())
    }
}

/// Whole tiles after the first `removed` events, all of whose events are older than `cutoff` or as late as `absurd`; or the number of an event that is not as it was kept.
fn removable(
    c: &Connection,
    removed: u64,
    size: u64,
    cutoff: Timestamp,
    absurd: Timestamp,
) -> rusqlite::Result<Result<Option<Removable>, i64>> {
    let mut members =
        c.prepare_cached("SELECT seq, time, body FROM events WHERE seq > ?1 AND seq <= ?2 ORDER BY seq")?;
    let mut kept = c.prepare_cached("SELECT hash FROM audit_tiles WHERE level = 1 AND number = ?1")?;
    let (mut last, mut newest) = (removed, i64::MIN);
    'tiles: while last + TILE <= size && last - removed < AT_ONCE * TILE {
        let mut rows = members.query(params![integer(last), integer(last + TILE)])?;
        let (mut hashes, mut of_tile) = (Vec::new(), newest);
        while let Some(row) = rows.next()? {
            let (time, body): (i64, String) = (row.get(1)?, row.get(2)?);
            if (cutoff.unix_millis()..absurd.unix_millis()).contains(&time) {
                break 'tiles;
            }
            if time < absurd.unix_millis() {
                of_tile = of_tile.max(time);
            }
            hashes.push(leaf_hash(body.as_bytes()));
        }
        let hash: Vec<u8> = kept.query_row([integer(last / TILE)], |row| row.get(0))?;
        if hashes.len() as u64 != TILE || TreeHash::from_slice(&hash) != Some(root_of(&hashes)) {
            return Ok(Err(integer(last + 1)));
        }
        (last, newest) = (last + TILE, of_tile);
    }
    if last == removed {
        return Ok(Ok(None));
    }
    let newest = Timestamp::from_unix_millis(newest);
    Ok(Ok(Some(Removable { last, root: subtree(c, 0, last)?, newest })))
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
