//! The audit store: events in the order they arrived, one for each `uid`, numbered without gaps and chained by hash.
//! Owns the table and its queries; who may read or write it is decided elsewhere.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use remoteler_core::{
    AuditError, AuditEvent, AuditKind, AuditSink, Clock, ClusterName, Entropy, EventQuery, HostId, SessionId,
    Timestamp, random_uuid,
};
use ring::digest::{SHA256, digest};
use rusqlite::{OptionalExtension, params, params_from_iter, types::Value as Sql};
use serde_json::Value;

use crate::{Database, DatabaseError};

/// Events answered when the query does not say.
const DEFAULT_LIMIT: usize = 100;
/// Events answered at the most.
const MAX_LIMIT: usize = 10_000;
/// Longest string kept in an event; the rest is cut off with a mark (I76).
const MAX_TEXT: usize = 8 * 1024;
/// Longest list kept in an event.
const MAX_LIST: usize = 256;

/// The beginnings of the sessions in a JSON array of ids, in order of arrival; each id is one search in the index by session.
const SESSIONS_STARTED: &str = "SELECT e.sid, e.seq, e.body FROM json_each(?1) AS wanted
    CROSS JOIN events AS e ON e.sid = wanted.value AND e.event = 'session.start' ORDER BY e.seq";

/// Why events could not be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventLogError {
    /// The database failed.
    #[error("the audit log failed")]
    Database(#[from] DatabaseError),
    /// An event in the table is not one.
    #[error("event {seq} of the audit log does not parse: {reason}")]
    Malformed {
        /// Its number.
        seq: i64,
        /// Why.
        reason: String,
    },
    /// Somebody changed the table.
    #[error("the audit log was tampered with at event {seq}: its hash does not continue the chain")]
    Tampered {
        /// First number that does not fit.
        seq: i64,
    },
}

/// What the log knows of a session from its `session.start`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionStarted {
    pub(crate) user: String,
    pub(crate) login: String,
    pub(crate) host: Option<HostId>,
    pub(crate) node: String,
    pub(crate) time: Timestamp,
}

/// Events in a [`Database`].
#[derive(Clone, Debug)]
pub struct EventLog(Arc<Database>);

struct Row {
    uid: Vec<u8>,
    time: i64,
    event: &'static str,
    user: Option<String>,
    sid: Option<String>,
    body: String,
}

impl EventLog {
    /// Over an open database.
    #[must_use]
    pub const fn new(database: Arc<Database>) -> Self {
        Self(database)
    }

    /// Keeps events whose `uid` is new, all or none; returns how many those were. Durable when it returns. Texts over 8 KiB
    /// are cut with a mark.
    ///
    /// # Errors
    /// [`EventLogError`]: none was kept.
    pub async fn append(&self, events: Vec<AuditEvent>) -> Result<usize, EventLogError> {
        let mut rows = Vec::with_capacity(events.len());
        for event in &events {
            rows.push(row(event)?);
        }
        let kept = self.0.write(move |c| {
            let (mut seq, mut chain): (i64, Vec<u8>) = c
                .prepare_cached("SELECT seq, chain FROM events ORDER BY seq DESC LIMIT 1")?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?
                .unwrap_or_default();
            let mut insert = c.prepare_cached(
                "INSERT INTO events (seq, uid, time, event, user, sid, body, chain)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (uid) DO NOTHING",
            )?;
            let mut kept = 0;
            for Row { uid, time, event, user, sid, body } in rows {
                let next = link(&chain, &body);
                if insert.execute(params![seq + 1, uid, time, event, user, sid, body, next])? == 1 {
                    (seq, chain) = (seq + 1, next);
                    kept += 1;
                }
            }
            Ok(kept)
        });
        Ok(kept.await?)
    }

    /// The newest events that fit, in order of time.
    ///
    /// # Errors
    /// [`EventLogError`]
    pub async fn query(&self, query: EventQuery) -> Result<Vec<AuditEvent>, EventLogError> {
        let mut sql = String::from("SELECT seq, body FROM events WHERE 1");
        let mut values: Vec<Sql> = Vec::new();
        let mut condition = |text: &str, value: Sql| {
            sql.push_str(text);
            values.push(value);
        };
        if let Some(from) = query.from {
            condition(" AND time >= ?", Sql::Integer(from.unix_millis()));
        }
        if let Some(to) = query.to {
            condition(" AND time < ?", Sql::Integer(to.unix_millis()));
        }
        if let Some(event) = query.event {
            condition(" AND event = ?", Sql::Text(event));
        }
        if let Some(user) = query.user {
            condition(" AND user = ?", Sql::Text(user));
        }
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
        condition(" ORDER BY time DESC, seq DESC LIMIT ?", Sql::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        let found = self.0.read(move |c| {
            let mut statement = c.prepare_cached(&sql)?;
            let rows = statement.query_map(params_from_iter(values), |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<(i64, String)>>>()
        });
        let mut events = Vec::new();
        for (seq, body) in found.await?.into_iter().rev() {
            events.push(parse(seq, &body)?);
        }
        Ok(events)
    }

    /// The first `session.start` of a session: the one that settles whose it is.
    pub(crate) async fn session_started(&self, session: SessionId) -> Result<Option<SessionStarted>, EventLogError> {
        Ok(self.sessions_started(&[session]).await?.remove(&session))
    }

    /// The same of many sessions in one query; those without a `session.start` are not in the answer.
    pub(crate) async fn sessions_started(
        &self,
        sessions: &[SessionId],
    ) -> Result<BTreeMap<SessionId, SessionStarted>, EventLogError> {
        let wanted = Value::from_iter(sessions.iter().map(ToString::to_string)).to_string();
        let found = self.0.read(move |c| {
            let mut statement = c.prepare_cached(SESSIONS_STARTED)?;
            let rows = statement.query_map([wanted], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect::<rusqlite::Result<Vec<(String, i64, String)>>>()
        });
        let mut started = BTreeMap::new();
        for (sid, seq, body) in found.await? {
            let Ok(session) = sid.parse::<SessionId>() else { continue };
            if started.contains_key(&session) {
                continue;
            }
            let event = parse(seq, &body)?;
            let AuditKind::SessionStart { session: fields, .. } = event.kind else { continue };
            let first = SessionStarted {
                user: fields.user,
                login: fields.login,
                host: fields.server_id.parse().ok(),
                node: fields.server_hostname,
                time: event.time,
            };
            started.insert(session, first);
        }
        Ok(started)
    }

    /// Checks numbers and hashes of all events; returns how many there are. Whoever can write the file can also cut off its end or make
    /// a new chain: the last hash must be kept elsewhere to see that.
    ///
    /// # Errors
    /// [`EventLogError::Tampered`] names the first event that was changed, added or taken out in between.
    pub async fn verify(&self) -> Result<u64, EventLogError> {
        let checked = self.0.read(|c| {
            let mut statement = c.prepare("SELECT seq, body, chain FROM events ORDER BY seq")?;
            let mut rows = statement.query([])?;
            let (mut chain, mut expected) = (Vec::new(), 1_i64);
            while let Some(row) = rows.next()? {
                let (seq, body, found): (i64, String, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
                chain = link(&chain, &body);
                if seq != expected || chain != found {
                    return Ok(Err(seq));
                }
                expected += 1;
            }
            Ok(Ok(u64::try_from(expected - 1).unwrap_or(0)))
        });
        checked.await?.map_err(|seq| EventLogError::Tampered { seq })
    }
}

fn row(event: &AuditEvent) -> Result<Row, EventLogError> {
    let malformed = |cause: serde_json::Error| EventLogError::Malformed { seq: 0, reason: cause.to_string() };
    let mut value = serde_json::to_value(event).map_err(malformed)?;
    cut(&mut value);
    let text = |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    Ok(Row {
        uid: event.uid.as_bytes().to_vec(),
        time: event.time.unix_millis(),
        event: event.name(),
        user: text("user"),
        sid: text("sid"),
        body: value.to_string(),
    })
}

/// Cuts what is too long, with a mark.
fn cut(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > MAX_TEXT => {
            let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.push_str("…[truncated]");
        }
        Value::Array(list) => {
            list.truncate(MAX_LIST);
            list.iter_mut().for_each(cut);
        }
        Value::Object(fields) => fields.values_mut().for_each(cut),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn parse(seq: i64, body: &str) -> Result<AuditEvent, EventLogError> {
    serde_json::from_str(body).map_err(|cause| EventLogError::Malformed { seq, reason: cause.to_string() })
}

fn link(previous: &[u8], body: &str) -> Vec<u8> {
    let mut input = previous.to_vec();
    input.extend_from_slice(body.as_bytes());
    digest(&SHA256, &input).as_ref().to_vec()
}

/// The auth service's own sink: stamps an event and keeps it before it returns (I75).
#[derive(Clone)]
pub struct AuditLog {
    log: EventLog,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    cluster: ClusterName,
}

impl AuditLog {
    /// Writes to `log` in the name of `cluster`.
    #[must_use]
    pub fn new(log: EventLog, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>, cluster: ClusterName) -> Self {
        Self { log, clock, entropy, cluster }
    }
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

#[async_trait]
impl AuditSink for AuditLog {
    async fn record(&self, kind: AuditKind) -> Result<(), AuditError> {
        let uid = random_uuid(self.entropy.as_ref());
        let event = AuditEvent::new(kind, self.clock.now(), uid, self.cluster.clone());
        match self.log.append(vec![event]).await {
            Ok(_) => Ok(()),
            Err(cause) => {
                tracing::error!(error = &cause as &dyn std::error::Error, "the audit log did not take an event");
                Err(AuditError(match cause {
                    EventLogError::Database(cause) => cause.to_string(),
                    EventLogError::Malformed { .. } | EventLogError::Tampered { .. } => cause.to_string(),
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use remoteler_core::{ConnectionFields, ManualClock, OsEntropy, SessionFields};

    use super::*;

    fn log_in(user: &str) -> AuditKind {
        AuditKind::UserLogin { user: user.into(), method: "local".into(), success: true, error: None, remote: None }
    }

    fn log() -> (EventLog, AuditLog, Arc<ManualClock>, Arc<Database>) {
        let database = Arc::new(Database::in_memory().unwrap());
        let log = EventLog::new(Arc::clone(&database));
        let clock = Arc::new(ManualClock::new(Timestamp::from_unix_seconds(1_000)));
        let cluster = ClusterName::new("root").unwrap();
        let sink = AuditLog::new(log.clone(), Arc::clone(&clock) as _, Arc::new(OsEntropy), cluster);
        (log, sink, clock, database)
    }

    #[tokio::test]
    async fn the_newest_events_that_fit_come_in_order_of_time() {
        let (log, sink, clock, _) = log();
        for user in ["ann", "bob", "ann", "ann"] {
            sink.record(log_in(user)).await.unwrap();
            clock.advance(std::time::Duration::from_secs(1));
        }
        let query = EventQuery { user: Some("ann".into()), limit: Some(2), ..EventQuery::default() };
        let seconds: Vec<i64> = log.query(query).await.unwrap().iter().map(|e| e.time.unix_seconds()).collect();
        assert_eq!(seconds, [1_002, 1_003]);
        let query = EventQuery { to: Some(Timestamp::from_unix_seconds(1_002)), ..EventQuery::default() };
        assert_eq!(log.query(query).await.unwrap().len(), 2);
        let query = EventQuery { event: Some("session.start".into()), ..EventQuery::default() };
        assert!(log.query(query).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_event_that_comes_twice_is_kept_once_and_leaves_no_gap() {
        let (log, sink, _, _) = log();
        sink.record(log_in("ann")).await.unwrap();
        let again = log.query(EventQuery::default()).await.unwrap();
        assert_eq!(log.append(again).await.unwrap(), 0);
        sink.record(log_in("bob")).await.unwrap();
        assert_eq!(log.verify().await.unwrap(), 2); // I75
    }

    #[tokio::test]
    async fn a_changed_or_removed_event_is_found_by_the_chain() {
        for tampering in ["UPDATE events SET body = replace(body, 'bob', 'eve')", "DELETE FROM events WHERE seq = 2"] {
            let (log, sink, _, database) = log();
            for user in ["ann", "bob", "cid"] {
                sink.record(log_in(user)).await.unwrap();
            }
            database.write(move |c| c.execute(tampering, [])).await.unwrap();
            assert!(matches!(log.verify().await, Err(EventLogError::Tampered { .. })), "{tampering}"); // I75
        }
    }

    fn began(session: SessionId, user: &str) -> AuditKind {
        let session = SessionFields { sid: session.to_string(), user: user.into(), ..SessionFields::default() };
        AuditKind::SessionStart {
            session,
            connection: ConnectionFields::default(),
            interactive: true,
            size: None,
            initial_command: Vec::new(),
        }
    }

    #[tokio::test]
    async fn the_first_start_of_each_session_is_found_by_one_search_in_the_index() {
        let (log, sink, _, database) = log();
        let sessions: Vec<SessionId> = (1..=3).map(|n| SessionId::from_uuid(uuid::Uuid::from_u128(n))).collect();
        for (session, user) in [(sessions[0], "ann"), (sessions[1], "bob"), (sessions[0], "eve")] {
            sink.record(began(session, user)).await.unwrap();
        }
        let started = log.sessions_started(&sessions).await.unwrap();
        let whose: Vec<(SessionId, &str)> = started.iter().map(|(id, started)| (*id, started.user.as_str())).collect();
        assert_eq!(whose, [(sessions[0], "ann"), (sessions[1], "bob")]);
        assert!(log.sessions_started(&[]).await.unwrap().is_empty());

        let plan = database.read(|c| {
            let mut statement = c.prepare(&format!("EXPLAIN QUERY PLAN {SESSIONS_STARTED}"))?;
            let steps = statement.query_map(["[]"], |row| row.get::<_, String>(3))?;
            steps.collect::<rusqlite::Result<Vec<String>>>()
        });
        let plan = plan.await.unwrap().join("; ");
        assert!(plan.contains("SEARCH e USING INDEX events_sid (sid=? AND event=?)"), "{plan}");
    }

    #[tokio::test]
    async fn an_endless_text_is_cut_with_a_mark() {
        let (log, sink, _, _) = log();
        sink.record(log_in(&"é".repeat(100_000))).await.unwrap(); // I76
        let events = log.query(EventQuery::default()).await.unwrap();
        let AuditKind::UserLogin { user, .. } = &events[0].kind else { panic!("{events:?}") };
        assert!(user.len() < 9_000 && user.ends_with("…[truncated]"));
    }
}
