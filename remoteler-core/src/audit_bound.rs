//! A bound on what refused callers can write into the audit log (I26): each source has a budget, and all of them together have one. What
//! goes beyond it is counted, and the count becomes an event of its own. Everything else passes untouched. Owns the counts; starts no
//! task, so whoever owns the process calls [`BoundedRefusals::summarise`] now and then.

mod budget;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use self::budget::{Budget, Silenced};
use crate::{AuditError, AuditKind, AuditSink, Clock, SourceNet};

/// An audit sink that takes refused attempts (`auth` events, and `tunnel.connect` of agents that were refused) only within a budget: of
/// one source 100 at once and one a second from then on, of all sources 1,000 at once and 20 a second. An IPv6 /64 is one source; what
/// has no address is another.
///
/// Refusals that are not recorded become, a minute after the first of them, one event for each source: `N refusals of SOURCE were not
/// recorded one by one`.
pub struct BoundedRefusals {
    inner: Arc<dyn AuditSink>,
    clock: Arc<dyn Clock>,
    budget: Mutex<Budget>,
}

impl BoundedRefusals {
    /// Bounds `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn AuditSink>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock, budget: Mutex::default() }
    }

    /// Records the counts that are due.
    ///
    /// # Errors
    /// [`AuditError`]: the counts that were not taken are kept for the next time.
    pub async fn summarise(&self) -> Result<(), AuditError> {
        let due = self.with_budget(|budget| budget.due(self.clock.now()));
        self.record_counts(due).await
    }

    /// Records all counts, also those of the last minute: for the end of a process.
    ///
    /// # Errors
    /// As [`BoundedRefusals::summarise`].
    pub async fn summarise_all(&self) -> Result<(), AuditError> {
        let all = self.with_budget(Budget::all);
        self.record_counts(all).await
    }

    async fn record_counts(&self, mut counts: Vec<Silenced>) -> Result<(), AuditError> {
        while let Some(silenced) = counts.pop() {
            if let Err(cause) = self.inner.record(event(&silenced)).await {
                counts.push(silenced);
                self.with_budget(|budget| counts.into_iter().for_each(|silenced| budget.put_back(silenced)));
                return Err(cause);
            }
        }
        Ok(())
    }

    fn with_budget<T>(&self, work: impl FnOnce(&mut Budget) -> T) -> T {
        work(&mut self.budget.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl AuditSink for BoundedRefusals {
    async fn record(&self, kind: AuditKind) -> Result<(), AuditError> {
        let Some((service, remote)) = refusal(&kind) else { return self.inner.record(kind).await };
        let now = self.clock.now();
        let (taken, due) = self.with_budget(|budget| {
            let taken = budget.take(remote.and_then(SourceNet::parse), service, now);
            (taken, budget.due(now))
        });
        self.record_counts(due).await?;
        if taken { self.inner.record(kind).await } else { Ok(()) }
    }
}

/// The service and the address of a refused attempt.
#[expect(clippy::wildcard_enum_match_arm, reason = "what is no refused attempt is not bounded here, also when new")]
fn refusal(kind: &AuditKind) -> Option<(&str, Option<&str>)> {
    match kind {
        AuditKind::AuthAttempt { service, remote, .. } | AuditKind::SessionRejected { service, remote, .. } => {
            Some((service, remote.as_deref()))
        }
        AuditKind::TunnelConnect { success: false, remote, .. } => Some(("proxy", remote.as_deref())),
        _ => None,
    }
}

fn event(silenced: &Silenced) -> AuditKind {
    let Silenced { source, service, count, .. } = silenced;
    let (remote, of) = match source {
        budget::Source::Net(net) => (Some(net.to_string()), net.to_string()),
        budget::Source::Unknown => (None, "an unknown source".to_owned()),
        budget::Source::Further => (None, "further sources".to_owned()),
    };
    let error = format!("{count} refusals of {of} were not recorded one by one");
    AuditKind::AuthAttempt { user: String::new(), service: service.clone(), login: None, error, remote }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{ManualClock, Timestamp};

    #[derive(Default)]
    struct Log {
        kinds: Mutex<Vec<AuditKind>>,
        full: std::sync::atomic::AtomicBool,
    }

    #[async_trait]
    impl AuditSink for Log {
        async fn record(&self, kind: AuditKind) -> Result<(), AuditError> {
            if self.full.load(std::sync::atomic::Ordering::SeqCst) {
                return Err(AuditError("full".into()));
            }
            self.kinds.lock().unwrap().push(kind);
            Ok(())
        }
    }

    impl Log {
        fn take(&self) -> Vec<AuditKind> {
            std::mem::take(&mut self.kinds.lock().unwrap())
        }
    }

    fn attempt(remote: &str) -> AuditKind {
        let remote = Some(remote.to_owned());
        AuditKind::AuthAttempt { user: "ann".into(), service: "node".into(), login: None, error: "no".into(), remote }
    }

    fn bounded() -> (Arc<Log>, Arc<ManualClock>, BoundedRefusals) {
        let log = Arc::new(Log::default());
        let clock = Arc::new(ManualClock::new(Timestamp::from_unix_seconds(1_000_000)));
        let bounded = BoundedRefusals::new(log.clone(), clock.clone());
        (log, clock, bounded)
    }

    /// A future that waits for nothing.
    fn now<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(done) => done,
            std::task::Poll::Pending => panic!("it waits"),
        }
    }

    #[test]
    fn a_flood_of_one_source_silences_nobody_else_and_is_counted() {
        let (log, clock, bounded) = bounded();
        for port in 0..10_000 {
            now(bounded.record(attempt(&format!("[2001:db8::{port}]:1")))).unwrap();
        }
        assert_eq!(log.take().len(), 100); // I26
        now(bounded.record(attempt("192.0.2.1:5"))).unwrap();
        assert_eq!(log.take(), [attempt("192.0.2.1:5")]);

        now(bounded.summarise()).unwrap();
        assert!(log.take().is_empty(), "a count waits for a minute");
        clock.advance(Duration::from_secs(60));
        now(bounded.summarise()).unwrap();
        let [AuditKind::AuthAttempt { user, service, error, remote, .. }] = &log.take()[..] else { panic!("no count") };
        assert_eq!((user.as_str(), service.as_str(), remote.as_deref()), ("", "node", Some("2001:db8::/64")));
        assert_eq!(error, "9900 refusals of 2001:db8::/64 were not recorded one by one");
        now(bounded.summarise_all()).unwrap();
        assert!(log.take().is_empty(), "a count is told once");
    }

    #[test]
    fn a_count_that_is_not_taken_is_told_later() {
        let (log, _, bounded) = bounded();
        for _ in 0..103 {
            now(bounded.record(attempt("192.0.2.1:5"))).unwrap();
        }
        log.full.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(now(bounded.summarise_all()).is_err());
        log.full.store(false, std::sync::atomic::Ordering::SeqCst);
        log.take();
        now(bounded.record(attempt("192.0.2.1:5"))).unwrap();
        now(bounded.summarise_all()).unwrap();
        let [AuditKind::AuthAttempt { error, .. }] = &log.take()[..] else { panic!("no count") };
        assert_eq!(error, "4 refusals of 192.0.2.1 were not recorded one by one");
    }

    #[test]
    fn what_is_no_refusal_is_never_held_back() {
        let (log, _, bounded) = bounded();
        for _ in 0..2_000 {
            now(bounded.record(AuditKind::UserDelete { user: "ann".into(), name: "bob".into() })).unwrap();
        }
        assert_eq!(log.take().len(), 2_000);
    }
}
