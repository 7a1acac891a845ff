//! The audit store: events in the order they arrived, one for each `uid`, numbered without gaps, the leaves of a Merkle tree.
//! Owns the table and its queries; who may read or write it is decided elsewhere.

mod check;
mod keep;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use remoteler_core::{
    AuditError, AuditEvent, AuditKind, AuditSink, Clock, ClusterName, Entropy, EventOutcome, EventQuery, HostId,
    SessionId, Timestamp, random_uuid,
};
use rusqlite::{OptionalExtension, params_from_iter, types::Value as Sql};
use serde_json::Value;
use uuid::Uuid;

use crate::{Database, DatabaseError};
pub use keep::BreakNotice;
use keep::Row;
pub(crate) use tree::{Edge, Tile, edge, page, subtree, tile};

/// Events answered when the query does not say.
const DEFAULT_LIMIT: usize = 100;
/// Events answered at the most.
const MAX_LIMIT: usize = 10_000;

/// The beginnings of the sessions in a JSON array of ids, in order of arrival; each id is one search in the index by session.
const SESSIONS_STARTED: &str = "SELECT e.sid, e.seq, e.body FROM json_each(?1) AS wanted
    CROSS JOIN events AS e ON e.sid = wanted.value AND e.event = 'session.start' ORDER BY e.seq";

/// The unary `+` has it walk the few numbers that are asked for.
const TERMINAL_SESSIONS: &str = "SELECT DISTINCT sid FROM events WHERE seq > ?1 AND seq <= ?2
    AND +event = 'session.start' AND json_extract(body, '$.interactive')";

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
    /// A page is asked for that begins at no event.
    #[error("there is no event {0}; give the uid of one that was listed")]
    NoSuchEvent(Uuid),
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

impl EventLog {
    /// Over an open database.
    #[must_use]
    pub const fn new(database: Arc<Database>) -> Self {
        Self(database)
    }

    /// Keeps events of hosts whose `uid` is new, all or none; returns how many those were. Durable when it returns. Where they do not continue the
    /// chains of their writers, `notice` is kept before them, and says so. Texts over 8 KiB are cut with a mark.
    ///
    /// # Errors
    /// [`EventLogError`]: none was kept.
    pub async fn append(&self, events: Vec<AuditEvent>, notice: BreakNotice) -> Result<usize, EventLogError> {
        let mut rows = Vec::with_capacity(events.len());
        for event in &events {
            rows.push(Row::new(event).map_err(unwritable)?);
        }
        Ok(self.0.write(move |c| keep::foreign(c, &rows, notice)).await?)
    }

    /// Keeps events of the auth service itself, all or none, as the next of its chain. Durable when it returns.
    ///
    /// # Errors
    /// [`EventLogError`]: none was kept.
    pub(crate) async fn append_own(&self, events: Vec<AuditEvent>) -> Result<(), EventLogError> {
        Ok(self.0.write(move |c| keep::own(c, events)).await?)
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
        if let Some(target) = query.target {
            condition(" AND target = ?", Sql::Text(target));
        }
        if let Some(uid) = query.before {
            let place = self.0.read(move |c| {
                c.prepare_cached("SELECT time, seq FROM events WHERE uid = ?1")?
                    .query_row([uid.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()
            });
            let (time, seq) = place.await?.ok_or(EventLogError::NoSuchEvent(uid))?;
            condition(" AND (time, seq) < (?", Sql::Integer(time));
            condition(", ?)", Sql::Integer(seq));
        }
        match query.outcome {
            // Spelled out, for the index of what failed is one of that alone.
            Some(EventOutcome::Failure) => condition(" AND failed = 1 AND ?", Sql::Integer(1)),
            Some(EventOutcome::Success) => condition(" AND failed = ?", Sql::Integer(0)),
            None => {}
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

    /// The sessions with a terminal whose `session.start` is among the events after number `after` up to `last`.
    pub(crate) async fn terminal_sessions(&self, after: u64, last: u64) -> Result<Vec<SessionId>, EventLogError> {
        let bounds = [after, last].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        let found = self.0.read(move |c| {
            let mut statement = c.prepare_cached(TERMINAL_SESSIONS)?;
            let rows = statement.query_map(bounds, |row| row.get::<_, String>(0))?;
            rows.collect::<rusqlite::Result<Vec<String>>>()
        });
        // Two spellings of an id are one session.
        let sessions: BTreeSet<SessionId> = found.await?.iter().filter_map(|sid| sid.parse().ok()).collect();
        Ok(sessions.into_iter().collect())
    }

    /// Checks numbers, hashes and tiles of all events that are there; returns how many there ever were. Whoever can write the file can make all of these
    /// anew: that is found by the checkpoints (`tctl audit export` and `verify`), the more so if a witness has them.
    ///
    /// # Errors
    /// [`EventLogError::Tampered`] names the first event that was changed, added, moved or taken out.
    pub async fn verify(&self) -> Result<u64, EventLogError> {
        self.0.read(check::check).await?.map_err(|seq| EventLogError::Tampered { seq })
    }

    pub(crate) const fn database(&self) -> &Arc<Database> {
        &self.0
    }
}

fn unwritable(cause: AuditError) -> EventLogError {
    EventLogError::Malformed { seq: 0, reason: cause.0 }
}

fn parse(seq: i64, body: &str) -> Result<AuditEvent, EventLogError> {
    serde_json::from_str(body).map_err(|cause| EventLogError::Malformed { seq, reason: cause.to_string() })
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

impl AuditLog {
    /// As [`AuditSink::record`], with the error as the log gives it.
    pub(crate) async fn record_own(&self, kind: AuditKind) -> Result<(), EventLogError> {
        self.log.append_own(vec![self.stamped(kind)]).await
    }

    /// Records what happens together: all or none of it is kept.
    pub(crate) async fn record_together(&self, kinds: Vec<AuditKind>) -> Result<(), AuditError> {
        let events = kinds.into_iter().map(|kind| self.stamped(kind)).collect();
        self.log.append_own(events).await.map_err(untaken)
    }

    fn stamped(&self, kind: AuditKind) -> AuditEvent {
        AuditEvent::new(kind, self.clock.now(), random_uuid(self.entropy.as_ref()), self.cluster.clone())
    }
}

#[async_trait]
impl AuditSink for AuditLog {
    async fn record(&self, kind: AuditKind) -> Result<(), AuditError> {
        self.record_own(kind).await.map_err(untaken)
    }
}

/// Logged here; who is refused for it is told less.
fn untaken(cause: EventLogError) -> AuditError {
    tracing::error!(error = &cause as &dyn std::error::Error, "the audit log did not take an event");
    AuditError(match cause {
        EventLogError::Database(cause) => cause.to_string(),
        EventLogError::Malformed { .. } | EventLogError::Tampered { .. } | EventLogError::NoSuchEvent(_) => {
            cause.to_string()
        }
    })
}

#[cfg(test)]
mod tests {
    use remoteler_core::{ConnectionFields, ManualClock, OsEntropy, SessionFields};

    use super::*;

    fn log_in(user: &str) -> AuditKind {
        AuditKind::UserLogin {
            user: user.into(),
            method: "local".into(),
            success: true,
            error: None,
            connector: None,
            remote: None,
        }
    }

    fn notice(uid: u128) -> BreakNotice {
        BreakNotice { time: Timestamp::from_unix_seconds(1_000), uid: Uuid::from_u128(uid) }
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
        assert_eq!(log.append(again, notice(1)).await.unwrap(), 0);
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
            role: None,
            with_mfa: None,
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
