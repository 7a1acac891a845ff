//! Events on their way to programs of others: read in order behind a cursor that is kept in the database, given to a [`Shipper`] in batches, and
//! given again until it takes them. Owns cursors and back-off; writes to no socket and no file. Whatever a shipper does, nothing that is
//! audited waits for it.

use std::time::Duration;

use async_trait::async_trait;
use remoteler_core::Timestamp;
use rusqlite::{OptionalExtension, params};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{AuthService, EventLog, EventLogError};

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShippedEvent {
    /// Its number in the log.
    pub seq: u64,
    /// When it happened.
    pub time: Timestamp,
    /// Its kind.
    pub event: String,
    /// Whether it tells of something that failed or was refused.
    pub failed: bool,
    /// Its JSON, on one line.
    pub text: String,
}

/// Takes events to a program of others.
///
/// Implementations: standard output, a file, syslog, HTTP (all in the daemon). A batch is not empty and in order of the log. Success means that the
/// batch has arrived as far as can be told; on an error all of it comes again, so what is taken twice must do no harm. Implementations bound their own
/// latency; a call that is dropped may have taken any part of the batch.
#[async_trait]
pub trait Shipper: Send {
    /// Takes a batch.
    ///
    /// # Errors
    /// Why it was not taken, in one line without secrets.
    async fn ship(&mut self, batch: &[ShippedEvent]) -> Result<(), String>;
}

impl AuthService {
    /// Ships all events to `shipper` until `stop`: those that are kept and were not shipped under this `name` before, then each that comes.
    pub async fn ship(&self, name: &str, shipper: &mut dyn Shipper, stop: CancellationToken) {
        let log = self.event_log();
        stop.run_until_cancelled(run(&log, name, shipper)).await;
    }
}

async fn run(log: &EventLog, name: &str, shipper: &mut dyn Shipper) {
    let mut wait = FIRST_WAIT;
    let mut at = None;
    loop {
        match step(log, name, shipper, &mut at).await {
            Ok(more) => {
                if wait > FIRST_WAIT {
                    tracing::info!(name, "audit events are shipped again");
                }
                wait = FIRST_WAIT;
                if !more {
                    sleep(LOOK_EVERY).await;
                }
            }
            Err(cause) => {
                if wait == FIRST_WAIT {
                    tracing::warn!(name, cause, "audit events are not shipped; they are kept and tried again");
                } else {
                    tracing::debug!(name, cause, "audit events are not shipped");
                }
                sleep(wait).await;
                wait = (wait * 2).min(LAST_WAIT);
            }
        }
    }
}

/// Ships the next batch; whether there may be more.
async fn step(log: &EventLog, name: &str, shipper: &mut dyn Shipper, at: &mut Option<u64>) -> Result<bool, String> {
    let shown = |cause: EventLogError| cause.to_string();
    let from = match *at {
        Some(at) => at,
        None => log.cursor(name).await.map_err(shown)?,
    };
    let batch = log.after(from).await.map_err(shown)?;
    let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
        *at = Some(from);
        return Ok(false);
    };
    if first.seq != from + 1 {
        tracing::warn!(name, from = from + 1, to = first.seq - 1, "audit events were removed before they were shipped");
    }
    shipper.ship(&batch).await?;
    *at = Some(last.seq);
    log.set_cursor(name, last.seq).await.map_err(shown)?;
    Ok(batch.len() == BATCH)
}

impl EventLog {
    /// Number of the last event that was shipped under this name.
    async fn cursor(&self, name: &str) -> Result<u64, EventLogError> {
        let name = name.to_owned();
        let read = self.database().read(move |c| {
            c.prepare_cached("SELECT seq FROM audit_cursors WHERE name = ?1")?
                .query_row([name], |row| row.get::<_, i64>(0))
                .optional()
        });
        Ok(read.await?.map_or(0, |seq| u64::try_from(seq).unwrap_or(0)))
    }

    async fn set_cursor(&self, name: &str, seq: u64) -> Result<(), EventLogError> {
        let (name, seq) = (name.to_owned(), i64::try_from(seq).unwrap_or(i64::MAX));
        let write = self.database().write(move |c| {
            c.prepare_cached(
                "INSERT INTO audit_cursors (name, seq) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET seq = excluded.seq",
            )?
            .execute(params![name, seq])
        });
        write.await?;
        Ok(())
    }

    /// The next events after a number, as many as make a batch.
    async fn after(&self, seq: u64) -> Result<Vec<ShippedEvent>, EventLogError> {
        let seq = i64::try_from(seq).unwrap_or(i64::MAX);
        let read = self.database().read(move |c| {
            let mut statement = c.prepare_cached(
                "SELECT seq, time, event, failed, body FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2",
            )?;
            let mut rows = statement.query(params![seq, i64::try_from(BATCH).unwrap_or(i64::MAX)])?;
            let (mut batch, mut octets) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let text: String = row.get(4)?;
                octets += text.len();
                if octets > BATCH_OCTETS && !batch.is_empty() {
                    break;
                }
                batch.push(ShippedEvent {
                    seq: u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0),
                    time: Timestamp::from_unix_millis(row.get(1)?),
                    event: row.get(2)?,
                    failed: row.get(3)?,
                    text,
                });
            }
            Ok(batch)
        });
        Ok(read.await?)
    }
}

/// Events in a batch at the most.
const BATCH: usize = 500;
/// Octets in a batch, unless one event alone has more.
const BATCH_OCTETS: usize = 4 * 1024 * 1024;
/// How often it is looked for new events: each look is one search by number.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use remoteler_core::{AuditKind, AuditSink, ClusterName, ManualClock, OsEntropy};

    use super::*;
    use crate::{AuditLog, Database};

    /// Takes events, or does not.
    #[derive(Default)]
    struct Siem {
        taken: Vec<u64>,
        away: bool,
    }

    #[async_trait]
    impl Shipper for Siem {
        async fn ship(&mut self, batch: &[ShippedEvent]) -> Result<(), String> {
            if self.away {
                return Err("away".into());
            }
            self.taken.extend(batch.iter().map(|event| event.seq));
            Ok(())
        }
    }

    async fn log(events: usize) -> (EventLog, AuditLog) {
        let log = EventLog::new(Arc::new(Database::in_memory().unwrap()));
        let clock = Arc::new(ManualClock::new(Timestamp::from_unix_seconds(1_000)));
        let sink = AuditLog::new(log.clone(), clock, Arc::new(OsEntropy), ClusterName::new("root").unwrap());
        for _ in 0..events {
            sink.record(event()).await.unwrap();
        }
        (log, sink)
    }

    fn event() -> AuditKind {
        AuditKind::UserDelete { user: "ann".into(), name: "bob".into() }
    }

    #[tokio::test]
    async fn every_event_is_shipped_once_in_order_over_failures_and_restarts() {
        let (log, sink) = log(1200).await;
        let mut siem = Siem::default();
        let mut at = None;
        assert_eq!(step(&log, "siem", &mut siem, &mut at).await, Ok(true));
        siem.away = true;
        assert!(step(&log, "siem", &mut siem, &mut at).await.is_err());
        siem.away = false;
        // Another process, which knows the cursor from the database only.
        let mut at = None;
        assert_eq!(step(&log, "siem", &mut siem, &mut at).await, Ok(true));
        assert_eq!(step(&log, "siem", &mut siem, &mut at).await, Ok(false));
        sink.record(event()).await.unwrap();
        assert_eq!(step(&log, "siem", &mut siem, &mut at).await, Ok(false));
        assert_eq!(step(&log, "siem", &mut siem, &mut at).await, Ok(false));
        assert_eq!(siem.taken, (1..=1201).collect::<Vec<_>>());
        // Another shipper has a cursor of its own.
        let mut other = Siem::default();
        assert_eq!(step(&log, "other", &mut other, &mut None).await, Ok(true));
        assert_eq!(other.taken.len(), 500);
    }

    /// Is away for some batches, and writes down when it was asked.
    struct Moody {
        away_for: usize,
        asked: Vec<(Duration, bool)>,
        since: tokio::time::Instant,
        done: CancellationToken,
    }

    #[async_trait]
    impl Shipper for Moody {
        async fn ship(&mut self, _: &[ShippedEvent]) -> Result<(), String> {
            let taken = self.asked.len() >= self.away_for;
            self.asked.push((self.since.elapsed(), taken));
            if taken {
                self.done.cancel();
                return Ok(());
            }
            Err("away".into())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shipper_that_is_away_is_asked_less_and_less_often_and_at_least_once_a_minute() {
        let (log, sink) = log(1).await;
        let (since, done) = (tokio::time::Instant::now(), CancellationToken::new());
        let mut moody = Moody { away_for: 9, asked: Vec::new(), since, done: done.clone() };
        done.run_until_cancelled(run(&log, "moody", &mut moody)).await;
        let asked: Vec<u64> = moody.asked.iter().map(|(at, _)| at.as_secs()).collect();
        assert_eq!(asked, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);

        // It has answered: what fails now is tried again in a second, and what comes is shipped within half of one.
        sink.record(event()).await.unwrap();
        let (since, done) = (tokio::time::Instant::now(), CancellationToken::new());
        let mut again = Moody { away_for: 1, asked: Vec::new(), since, done: done.clone() };
        done.run_until_cancelled(run(&log, "moody", &mut again)).await;
        let asked: Vec<u64> = again.asked.iter().map(|(at, _)| at.as_secs()).collect();
        assert_eq!(asked, [0, 1]);
    }

    /// Never answers.
    struct Stuck;

    #[async_trait]
    impl Shipper for Stuck {
        async fn ship(&mut self, _: &[ShippedEvent]) -> Result<(), String> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn a_shipper_that_never_answers_holds_up_no_event() {
        let (log, sink) = log(1).await;
        let stuck = tokio::spawn({
            let log = log.clone();
            async move { run(&log, "stuck", &mut Stuck).await }
        });
        for _ in 0..100 {
            sink.record(event()).await.unwrap();
        }
        stuck.abort();
        assert_eq!(log.verify().await.unwrap(), 101);
    }
}
