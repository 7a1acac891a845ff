//! Writing into the log, inside a transaction: numbers, writers' chains, leaves of the tree and its tiles. Owns what follows what; is told who
//! wrote an event and believes it.

use remoteler_core::{
    AuditError, AuditEvent, AuditKind, Timestamp,
    evidence::{ChainHead, Chains, TILE, TreeHash, leaf_hash, root_of},
};
use rusqlite::{Connection, OptionalExtension, Result, params};
use serde_json::Value;
use uuid::Uuid;

use super::tree;

/// The writer's name of the auth service itself.
const OWN: &str = "auth";

/// Time and `uid` of the event that is kept where a writer's chain breaks.
#[derive(Clone, Copy, Debug)]
pub struct BreakNotice {
    /// When.
    pub time: Timestamp,
    /// Its `uid`.
    pub uid: Uuid,
}

/// An event as it is kept.
pub(super) struct Row {
    event: AuditEvent,
    text: String,
    user: Option<String>,
    sid: Option<String>,
    target: Option<String>,
    failed: bool,
}

impl Row {
    pub(super) fn new(event: &AuditEvent) -> std::result::Result<Self, AuditError> {
        let (text, value) = event.to_text_and_json()?;
        let field = |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let failed = value.get("success") == Some(&Value::Bool(false))
            || field("event") == Some("auth")
            || field("error").is_some()
            || field("exitError").is_some();
        let target = field("server_hostname").or(field("kubernetes_cluster")).or(field("node_name"));
        Ok(Self {
            user: field("user").map(str::to_owned),
            sid: field("sid").map(str::to_owned),
            target: target.map(str::to_owned),
            failed,
            event: event.clone(),
            text,
        })
    }
}

/// Keeps the auth service's own events, all or none.
pub(super) fn own(c: &Connection, events: Vec<AuditEvent>) -> Result<()> {
    let mut log = Log::open(c)?;
    events.into_iter().try_for_each(|event| log.write_own(event))
}

/// Keeps events of hosts: those whose `uid` is new. Gives how many those were.
pub(super) fn foreign(c: &Connection, rows: &[Row], notice: BreakNotice) -> Result<usize> {
    let mut known = c.prepare_cached("SELECT 1 FROM events WHERE uid = ?1")?;
    let mut fresh: Vec<&Row> = Vec::with_capacity(rows.len());
    for row in rows {
        let twice = || fresh.iter().any(|other| other.event.uid == row.event.uid);
        if !known.exists([row.event.uid.as_bytes()])? && !twice() {
            fresh.push(row);
        }
    }
    let mut log = Log::open(c)?;
    log.announce_breaks(&fresh, notice)?;
    for row in &fresh {
        log.write(row)?;
    }
    Ok(fresh.len())
}

/// The end of the log while a transaction writes to it.
struct Log<'a> {
    c: &'a Connection,
    size: u64,
}

impl<'a> Log<'a> {
    fn open(c: &'a Connection) -> Result<Self> {
        Ok(Self { c, size: tree::size(c)? })
    }

    /// Says before events that do not continue their writers' chains that they do not: once for each writer.
    fn announce_breaks(&mut self, rows: &[&Row], notice: BreakNotice) -> Result<()> {
        let mut chains = Chains::default();
        let mut breaks: Vec<(AuditKind, &AuditEvent)> = Vec::new();
        for row in rows {
            let Some(link) = &row.event.chain else { continue };
            if chains.head(&link.writer).is_none()
                && let Some(head) = self.head(&link.writer)?
            {
                chains.know(&link.writer, head);
            }
            let Some(found) = chains.take(link, ChainHead::at(link, &row.text), false) else { continue };
            let before = breaks.iter_mut().find_map(|(kind, _)| {
                let AuditKind::AuditChainBroken { writer, breaks, .. } = kind else { return None };
                (*writer == found.writer).then_some(breaks)
            });
            match before {
                Some(count) => *count += 1,
                None => {
                    let (writer, expected, found) = (found.writer, found.expected, found.found);
                    breaks.push((AuditKind::AuditChainBroken { writer, expected, found, breaks: 1 }, &row.event));
                }
            }
        }
        for (index, (kind, at)) in (0_u128..).zip(breaks) {
            let uid = Uuid::from_u128(notice.uid.as_u128() ^ index);
            self.write_own(AuditEvent::new(kind, notice.time, uid, at.cluster_name.clone()))?;
        }
        Ok(())
    }

    fn write_own(&mut self, mut event: AuditEvent) -> Result<()> {
        event.chain = Some(self.head(OWN)?.unwrap_or_default().next(OWN));
        let row = Row::new(&event).map_err(|cause| rusqlite::Error::ToSqlConversionFailure(Box::new(cause)))?;
        self.write(&row)
    }

    fn write(&mut self, row: &Row) -> Result<()> {
        let Row { event, text, user, sid, target, failed } = row;
        let seq = self.size + 1;
        self.c
            .prepare_cached(
                "INSERT INTO events (seq, uid, time, event, user, sid, target, failed, body, leaf)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                tree::integer(seq),
                event.uid.as_bytes(),
                event.time.unix_millis(),
                event.name(),
                user,
                sid,
                target,
                failed,
                text,
                leaf_hash(text.as_bytes()).octets()
            ])?;
        self.size = seq;
        if let Some(link) = &event.chain {
            let head = ChainHead::at(link, text);
            self.c
                .prepare_cached(
                    "INSERT INTO audit_writers (writer, n, hash) VALUES (?1, ?2, ?3)
                     ON CONFLICT (writer) DO UPDATE SET n = excluded.n, hash = excluded.hash",
                )?
                .execute(params![link.writer, tree::integer(head.n), head.hash.octets()])?;
        }
        self.keep_tiles()
    }

    /// Keeps the hash of each tile that is complete now.
    fn keep_tiles(&self) -> Result<()> {
        let (mut level, mut members) = (0, self.size);
        while members > 0 && members.is_multiple_of(TILE) {
            let hashes = tree::hashes(self.c, level, members - TILE, members)?;
            level += 1;
            members /= TILE;
            self.c
                .prepare_cached("INSERT INTO audit_tiles (level, number, hash) VALUES (?1, ?2, ?3)")?
                .execute(params![level, tree::integer(members - 1), root_of(&hashes).octets()])?;
        }
        Ok(())
    }

    fn head(&self, writer: &str) -> Result<Option<ChainHead>> {
        self.c
            .prepare_cached("SELECT n, hash FROM audit_writers WHERE writer = ?1")?
            .query_row([writer], |row| {
                let hash: Vec<u8> = row.get(1)?;
                Ok(ChainHead { n: tree::number(row.get(0)?), hash: TreeHash::from_slice(&hash).unwrap_or_default() })
            })
            .optional()
    }
}
