//! This process's part in counting the connections of users over the cluster: asks the auth service before one begins, says every 20 s which there are,
//! and says it when they end. Owns the list of them. Decides nothing but what happens while the auth service does not answer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use remoteler_core::{
    ApiError, ApiErrorKind, ConnectionCount, ConnectionKind, ConnectionLease, EndReason, HostApi, LEASE_LIFE,
    LeaseReport, LeaseRequest, LockMode, MAX_LEASES_IN_REPORT, OsEntropy, Place, UserName, random_uuid,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::policy::jittered;

/// Counts connections at the auth service. Somebody calls [`LeaseKeeper::run`] for as long as there are any.
pub struct LeaseKeeper {
    api: Arc<dyn HostApi>,
    list: Arc<List>,
}

/// How long a user waits for the auth service to say how many connections they have.
const PATIENCE: Duration = Duration::from_secs(2);
/// So long nobody waits for it again after it did not answer.
const REST: Duration = Duration::from_secs(5);
/// How often what is open is said.
const RENEW: Duration = Duration::from_secs(20);
/// What has ended and could not be said. What is beyond ends at the auth service by time.
const MAX_RELEASED: usize = 10_000;

const _: () = assert!(RENEW.as_secs() * 2 < LEASE_LIFE.as_secs());

#[derive(Default)]
struct List {
    entries: Mutex<Entries>,
    /// Something ended, or began while nobody answered.
    changed: Notify,
}

#[derive(Default)]
struct Entries {
    held: BTreeMap<Uuid, Open>,
    released: BTreeMap<Uuid, ConnectionLease>,
    /// Nobody is asked before.
    resting_until: Option<Instant>,
}

struct Open {
    lease: ConnectionLease,
    /// It may begin. One about which the auth service is still asked is not spoken of: that would count it before there is room.
    begun: bool,
}

/// The place of one connection.
struct Held {
    list: Arc<List>,
    id: Uuid,
}

impl LeaseKeeper {
    /// That asks `api`, as the host that this is.
    #[must_use]
    pub fn new(api: Arc<dyn HostApi>) -> Arc<Self> {
        Arc::new(Self { api, list: Arc::default() })
    }

    /// Says what is held and what has ended until `stop`, and then what has ended by then.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                tokio::select! {
                    () = sleep(jittered(RENEW, &OsEntropy)) => {}
                    () = self.list.changed.notified() => {}
                }
                while let Err(cause) = self.report().await {
                    tracing::debug!(%cause, "the count of connections did not reach the auth service");
                    sleep(jittered(REST, &OsEntropy)).await;
                }
            }
        })
        .await;
        // A service that ends in order leaves no place behind; who does not hear it sees the places end by time.
        let _said = timeout(PATIENCE, self.report()).await;
    }

    /// Says it all once.
    async fn report(&self) -> Result<(), ApiError> {
        let (held, released) = {
            let entries = self.list.lock();
            let begun = entries.held.values().filter(|open| open.begun).map(|open| open.lease.clone());
            (begun.collect::<Vec<_>>(), entries.released.values().cloned().collect::<Vec<_>>())
        };
        // What ended first: it makes room for others.
        for part in released.chunks(MAX_LEASES_IN_REPORT) {
            self.send(LeaseReport { released: part.to_vec(), ..LeaseReport::default() }).await?;
            let mut entries = self.list.lock();
            part.iter().for_each(|lease| drop(entries.released.remove(&lease.id)));
        }
        for part in held.chunks(MAX_LEASES_IN_REPORT) {
            self.send(LeaseReport { held: part.to_vec(), ..LeaseReport::default() }).await?;
        }
        Ok(())
    }

    async fn send(&self, report: LeaseReport) -> Result<(), ApiError> {
        match self.api.report_leases(report).await {
            // More than are counted: the next time may fit.
            Err(cause) if cause.kind == ApiErrorKind::RateLimited => {
                tracing::warn!(%cause, "not all connections are counted");
                Ok(())
            }
            answer => {
                if answer.is_ok() {
                    self.list.lock().resting_until = None;
                }
                answer
            }
        }
    }

    /// Whether there is room, as the auth service says; `None` when it does not.
    async fn ask(&self, lease: ConnectionLease, limit: u32) -> Option<bool> {
        if self.list.lock().resting_until.is_some_and(|end| Instant::now() < end) {
            return None;
        }
        let cause = match timeout(PATIENCE, self.api.take_lease(LeaseRequest { lease, limit })).await {
            Ok(Ok(answer)) => return Some(answer.granted),
            Ok(Err(cause)) => cause.to_string(),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        tracing::warn!(cause, "the auth service does not count connections; this service counts its own meanwhile");
        self.list.lock().resting_until = Some(Instant::now() + REST);
        None
    }
}

#[async_trait]
impl ConnectionCount for LeaseKeeper {
    async fn take(&self, user: UserName, kind: ConnectionKind, limit: u32, mode: LockMode) -> Result<Place, EndReason> {
        let lease = ConnectionLease { id: random_uuid(&OsEntropy), user, kind };
        self.list.lock().held.insert(lease.id, Open { lease: lease.clone(), begun: false });
        // From here on whoever stops waiting gives the place back.
        let held = Held { list: Arc::clone(&self.list), id: lease.id };
        match self.ask(lease, limit).await {
            Some(true) => Ok(held.begins()),
            Some(false) => {
                held.forget();
                Err(EndReason::TooMany(limit))
            }
            None => match mode {
                LockMode::Strict => Err(EndReason::Uncounted),
                LockMode::BestEffort => {
                    let place = held.begins();
                    self.list.changed.notify_one();
                    Ok(place)
                }
            },
        }
    }
}

impl std::fmt::Debug for LeaseKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseKeeper").field("held", &self.list.lock().held.len()).finish_non_exhaustive()
    }
}

impl List {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn release(&mut self, lease: ConnectionLease) {
        if self.released.len() < MAX_RELEASED {
            self.released.insert(lease.id, lease);
        }
    }
}

impl Held {
    fn begins(self) -> Place {
        if let Some(open) = self.list.lock().held.get_mut(&self.id) {
            open.begun = true;
        }
        Box::new(self)
    }

    /// Was never granted, so there is nothing to give back.
    fn forget(self) {
        self.list.lock().held.remove(&self.id);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut entries = self.list.lock();
        if let Some(open) = entries.held.remove(&self.id) {
            entries.release(open.lease);
            drop(entries);
            self.list.changed.notify_one();
        }
    }
}
