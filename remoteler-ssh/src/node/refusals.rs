//! Audit of what was refused. Anybody who can connect can cause such events, so their number is bounded (I26): beyond it they are
//! counted, and the count stands in the next event.

use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use remoteler_core::{AuditKind, AuditSink};
use tokio::time::Instant;

const BURST: u32 = 200;
const REFILL: Duration = Duration::from_millis(100);

pub(super) struct Refusals {
    sink: Arc<dyn AuditSink>,
    budget: Mutex<Budget>,
}

struct Budget {
    left: u32,
    since: Option<Instant>,
    passed_over: u64,
}

/// One refused attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused {
    /// Who it claimed to be.
    pub(super) user: String,
    pub(super) login: Option<String>,
    pub(super) error: String,
    pub(super) remote: Option<String>,
}

impl Refusals {
    pub(super) fn new(sink: Arc<dyn AuditSink>) -> Self {
        Self { sink, budget: Mutex::new(Budget { left: BURST, since: None, passed_over: 0 }) }
    }

    pub(super) async fn record(&self, refused: Refused) {
        let Refused { user, login, mut error, remote } = refused;
        let passed_over = {
            let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(passed_over) = budget.take(Instant::now()) else { return };
            passed_over
        };
        if passed_over > 0 {
            error = format!("{error} ({passed_over} more refusals before this one were only counted)");
        }
        tracing::info!(user, login = login.as_deref(), error, client = remote.as_deref(), "refused");
        let kind = AuditKind::AuthAttempt { user, service: "node".into(), login, error, remote };
        if let Err(error) = self.sink.record(kind).await {
            tracing::warn!(%error, "a refusal is not in the audit log");
        }
    }
}

impl Budget {
    /// Takes one; yields how many were passed over since the last.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_millis() / REFILL.as_millis();
        if earned > 0 {
            self.left = u32::try_from(earned).unwrap_or(u32::MAX).saturating_add(self.left).min(BURST);
            self.since = Some(now);
        }
        if self.left == 0 {
            self.passed_over += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.passed_over))
    }
}

/// An error with its causes, on one line.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_counted_and_not_recorded_one_by_one() {
        let start = Instant::now();
        let mut budget = Budget { left: BURST, since: None, passed_over: 0 };
        assert_eq!((0..1000).filter(|_| budget.take(start).is_some()).count(), 200); // I26
        assert_eq!(budget.take(start + REFILL), Some(800));
        assert_eq!(budget.take(start + REFILL), None);
    }
}
