//! A bound on what strangers can write into the audit log: refused attempts beyond a budget are counted, not recorded, and the
//! count stands in the next one that is (I26). Everything else passes untouched.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use crate::{AuditError, AuditKind, AuditSink, Clock, Timestamp};

/// An audit sink that takes at most 200 refused attempts (`auth` events) at once, and 10 a second from then on.
pub struct BoundedRefusals {
    inner: Arc<dyn AuditSink>,
    clock: Arc<dyn Clock>,
    budget: Mutex<Budget>,
}

impl BoundedRefusals {
    /// Bounds `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn AuditSink>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock, budget: Mutex::new(Budget { left: BURST, since: None, passed_over: 0 }) }
    }
}

#[async_trait]
impl AuditSink for BoundedRefusals {
    async fn record(&self, kind: AuditKind) -> Result<(), AuditError> {
        let AuditKind::AuthAttempt { user, service, login, error, remote } = kind else {
            return self.inner.record(kind).await;
        };
        let taken = self.budget.lock().unwrap_or_else(PoisonError::into_inner).take(self.clock.now());
        let error = match taken {
            None => return Ok(()),
            Some(0) => error,
            Some(more) => format!("{error} ({more} more refusals before this one were only counted)"),
        };
        self.inner.record(AuditKind::AuthAttempt { user, service, login, error, remote }).await
    }
}

const BURST: u64 = 200;
const REFILL: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Budget {
    left: u64,
    since: Option<Timestamp>,
    passed_over: u64,
}

impl Budget {
    /// Takes one; yields how many were passed over since the last.
    fn take(&mut self, now: Timestamp) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let earned = u64::try_from(now.since(since).as_millis() / REFILL.as_millis()).unwrap_or(u64::MAX);
        if earned > 0 {
            self.left = earned.saturating_add(self.left).min(BURST);
        }
        // Also when the clock was set back: nothing is earned twice, and earning goes on from here.
        if earned > 0 || now < since {
            self.since = Some(now);
        }
        if self.left == 0 {
            self.passed_over = self.passed_over.saturating_add(1);
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.passed_over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_counted_and_not_recorded_one_by_one() {
        let start = Timestamp::from_unix_seconds(1_000_000);
        let mut budget = Budget { left: BURST, since: None, passed_over: 0 };
        assert_eq!((0..1000).filter(|_| budget.take(start).is_some()).count(), 200); // I26
        assert_eq!(budget.take(start.plus(REFILL)), Some(800));
        assert_eq!(budget.take(start.plus(REFILL)), None);
        assert_eq!(budget.take(start.minus(Duration::from_secs(3600))), None);
        assert!(budget.take(start.minus(Duration::from_secs(3599))).is_some());
    }
}
