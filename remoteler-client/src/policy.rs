//! Keeps a service's view of the cluster's rules up to date: authorities, roles, locks and settings, told by the auth service as they change. Owns the
//! copy on disk, so that a service that starts while the auth service is away decides by the rules it last knew; and what time does to a view:
//! locks end, and knowledge of them grows old.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use remoteler_core::{
    ApiError, Clock, ClusterName, Entropy, HostApi, Knowledge, LOCKS_HOLD, OsEntropy, Policy, PolicyLimits,
    PolicySource, PolicyUpdate, PolicyVersion, PolicyView, Resource, ResourceKind, Role, SharedPolicy, SystemClock,
    TrustBundle, fill_random, wire,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    files::{FileError, Privacy, PrivateDir},
    standing::ShutOut,
    state_store::{DirStore, StateStore},
};

/// Why the rules are not the newest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The auth service did not answer or refused.
    #[error("the rules could not be fetched: {0}")]
    Auth(#[from] ApiError),
    /// It answered for another cluster.
    #[error("the auth service sent the authorities of cluster {found}, this is {own}")]
    OtherCluster {
        /// Whose they are.
        found: ClusterName,
        /// Whose they should be.
        own: ClusterName,
    },
    /// It sent no authority at all; believing that would lock everybody out, it included.
    #[error("the auth service sent an empty set of authorities, which is not believed")]
    NoAuthority,
    /// The copy on disk.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Owner of a service's view.
pub struct PolicyRefresher {
    shared: Arc<SharedPolicy>,
    store: Arc<dyn StateStore>,
    kept: Kept,
    /// When the auth service last said that this is all; `None` since the start.
    confirmed: Option<Instant>,
    clock: Arc<dyn Clock>,
    standing: Option<watch::Receiver<Option<ShutOut>>>,
}

/// What was last heard, as it is kept.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    v: u32,
    /// What is revoked included.
    trust: TrustBundle,
    roles: Vec<Resource>,
    #[serde(default)]
    limits: PolicyLimits,
    /// What the auth service calls this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<PolicyVersion>,
}

impl PolicyRefresher {
    /// Starts with what `data_dir` holds of the cluster of `joined`, or else with the authorities of `joined` and no roles, by
    /// which everything is denied.
    ///
    /// # Errors
    /// [`FileError`] when the directory cannot be used. A copy that does not parse is passed over with a warning: it is only a copy.
    pub fn load(data_dir: &Path, joined: TrustBundle) -> Result<Self, FileError> {
        PrivateDir::create(data_dir, Privacy::Keep)?;
        Self::load_from(Arc::new(DirStore::new(data_dir)), joined)
    }

    /// The same with the copy in another store.
    ///
    /// # Errors
    /// As [`PolicyRefresher::load`].
    pub fn load_from(store: Arc<dyn StateStore>, joined: TrustBundle) -> Result<Self, FileError> {
        let kept = store.read(FILE, MAX_LEN)?.and_then(|content| match serde_json::from_slice::<Kept>(&content) {
            Ok(kept) => (READ.contains(&kept.v) && kept.trust.cluster == joined.cluster).then_some(kept),
            Err(cause) => {
                tracing::warn!(?store, %cause, "the copy of the cluster's rules does not parse");
                None
            }
        });
        let none =
            || Kept { v: FORMAT, trust: joined, roles: Vec::new(), limits: PolicyLimits::default(), version: None };
        let kept = kept.map_or_else(none, |kept| Kept { v: FORMAT, ..kept });
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let shared = Arc::new(SharedPolicy::new(policy(&kept, &*clock, Knowledge::Old)));
        Ok(Self { shared, store, kept, confirmed: None, clock, standing: None })
    }

    /// Lets locks end by `clock` instead of the machine's.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Asks seldom while the host is shut out by `standing`, and at once when it is not any more.
    #[must_use]
    pub fn resting_while(self, standing: watch::Receiver<Option<ShutOut>>) -> Self {
        Self { standing: Some(standing), ..self }
    }

    /// The view, for everybody who decides by it.
    #[must_use]
    pub fn shared(&self) -> Arc<SharedPolicy> {
        self.shared.clone()
    }

    /// The same, as what decisions take.
    #[must_use]
    pub fn source(&self) -> Arc<dyn PolicySource> {
        self.shared.clone()
    }

    /// Fetches what has changed, without waiting for it to. Says whether anything has.
    ///
    /// # Errors
    /// [`PolicyError`]; the view is as it was then. When only the copy on disk fails, the view is the new one.
    pub async fn refresh(&mut self, auth: &dyn HostApi) -> Result<bool, PolicyError> {
        let answer = auth.policy(self.kept.version, Duration::ZERO).await;
        self.take(answer)
    }

    /// Puts an answer in force.
    fn take(&mut self, answer: Result<Option<PolicyUpdate>, ApiError>) -> Result<bool, PolicyError> {
        let Some(update) = answer? else {
            self.confirm();
            return Ok(false);
        };
        let version = update.version;
        let Kept { trust, roles, limits, .. } = self.kept.clone();
        let view = PolicyView::new(&trust, roles, limits).with(update);
        let trust = view.trust_bundle();
        if trust.cluster != self.kept.trust.cluster {
            return Err(PolicyError::OtherCluster { found: trust.cluster, own: self.kept.trust.cluster.clone() });
        }
        if [&trust.user, &trust.host].iter().any(|set| set.ssh.is_empty() || set.x509.is_empty()) {
            return Err(PolicyError::NoAuthority);
        }
        let fresh = Kept { v: FORMAT, trust, roles: view.roles, limits: view.limits, version: Some(version) };
        self.confirmed = Some(Instant::now());
        self.kept = fresh;
        self.shared.replace(policy(&self.kept, &*self.clock, Knowledge::Confirmed));
        self.save()?;
        Ok(true)
    }

    /// The auth service says that this is all there is.
    fn confirm(&mut self) {
        self.confirmed = Some(Instant::now());
        if self.shared.policy().knowledge == Knowledge::Old {
            self.shared.replace(policy(&self.kept, &*self.clock, Knowledge::Confirmed));
        }
    }

    /// Follows the rules until `stop`: one request waits at the auth service for them to change. Failures are logged once, and once more when
    /// they are over; only after a failure there is a pause, of random length, so that an auth service that comes back is not stormed.
    pub async fn run(mut self, auth: Arc<dyn HostApi>, stop: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            let asked_at = Instant::now();
            let patience = self.patience();
            let asked = auth.policy(self.kept.version, patience);
            tokio::pin!(asked);
            let answer = loop {
                let due = self.next_due();
                tokio::select! {
                    () = stop.cancelled() => return,
                    answer = &mut asked => break answer,
                    () = sleep_until(due) => self.grow_older(),
                }
            };
            match self.take(answer) {
                // An auth service that stops lets nobody wait.
                Ok(false) if asked_at.elapsed() < patience.min(FIRST_PAUSE) => {}
                Ok(changed) => {
                    if changed {
                        tracing::info!(roles = self.kept.roles.len(), "the cluster's rules have changed");
                    }
                    if std::mem::take(&mut failures) > 0 {
                        tracing::info!("the cluster's rules are fetched again");
                    }
                    continue;
                }
                Err(error) if failures > 0 => tracing::debug!(%error, "the cluster's rules are not refreshed"),
                Err(error) => {
                    tracing::warn!(%error, "the cluster's rules are not refreshed; the last known ones stay in force");
                }
            }
            failures = failures.saturating_add(1);
            let rests = self.standing.as_ref().is_some_and(|standing| standing.borrow().is_some());
            let wait = if rests { REST } else { pause(failures) };
            let until = Instant::now() + jittered(wait, &OsEntropy);
            loop {
                let due = self.next_due().min(until);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep_until(due) => {
                        self.grow_older();
                        if due >= until {
                            break;
                        }
                    }
                    () = turn(&mut self.standing) => break,
                }
            }
        }
    }

    /// How long a request may wait: not at all where what is known is old, which the answer ends. Where locks are strict it is confirmed in time
    /// before it is, also when two requests are lost.
    fn patience(&self) -> Duration {
        let policy = self.shared.policy();
        let unconfirmed = self.confirmed.map_or(LOCKS_HOLD, |since| since.elapsed());
        match policy.knowledge {
            Knowledge::Old => Duration::ZERO,
            Knowledge::Confirmed if policy.has_strict_locks() => {
                (LOCKS_HOLD * 2 / 3).saturating_sub(unconfirmed).min(LOCKS_HOLD / 3)
            }
            Knowledge::Confirmed => wire::LONGEST_WAIT,
        }
    }

    /// When time alone changes the view: a lock ends, or what is known becomes old.
    fn next_due(&self) -> Instant {
        let policy = self.shared.policy();
        let (now, far) = (Instant::now(), Duration::from_secs(86_400));
        let lock = policy.locks.next_end().map(|end| {
            // Looked at again after a second: the clock may have been set.
            now + end.since(self.clock.now()).clamp(Duration::from_millis(10), Duration::from_secs(1))
        });
        let old = self.confirmed.filter(|_| policy.knowledge == Knowledge::Confirmed).map(|since| since + LOCKS_HOLD);
        [lock, old].into_iter().flatten().min().unwrap_or(now + far)
    }

    fn grow_older(&self) {
        let before = self.shared.policy();
        let old = self.confirmed.is_none_or(|since| since.elapsed() >= LOCKS_HOLD);
        let knowledge = if old { Knowledge::Old } else { Knowledge::Confirmed };
        let locks = self.kept.limits.locks.in_force(self.clock.now());
        if knowledge == Knowledge::Old && before.knowledge == Knowledge::Confirmed && before.has_strict_locks() {
            let minutes = LOCKS_HOLD.as_secs() / 60;
            tracing::warn!(
                "the rules were not confirmed for {minutes} minutes; where locks are strict nothing new is allowed"
            );
        }
        if (before.knowledge, &before.locks) != (knowledge, &locks) {
            self.shared.replace(Policy { locks, knowledge, ..Policy::clone(&before) });
        }
    }

    fn save(&self) -> Result<(), FileError> {
        let content = serde_json::to_vec(&self.kept).expect("strings, lists and maps with string keys always encode");
        self.store.write(FILE, &content)
    }
}

/// Waits until the standing changes; for ever without one.
async fn turn(standing: &mut Option<watch::Receiver<Option<ShutOut>>>) {
    if let Some(changes) = standing
        && changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// How long to wait after so many failures in a row.
fn pause(failures: u32) -> Duration {
    (FIRST_PAUSE * 2_u32.saturating_pow(failures.saturating_sub(1).min(8))).min(LONGEST_PAUSE)
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a host asks that is shut out.
const REST: Duration = Duration::from_secs(30);

/// A role that cannot be read is left out: who holds it is denied, because what it forbids is unknown.
fn policy(kept: &Kept, clock: &dyn Clock, knowledge: Knowledge) -> Policy {
    let mut roles = BTreeMap::new();
    for document in kept.roles.iter().filter(|document| document.kind == ResourceKind::Role.as_str()) {
        match Role::from_document(document) {
            Ok(role) => {
                roles.insert(role.name().clone(), Arc::new(role));
            }
            Err(reason) => {
                tracing::warn!(role = %document.metadata.name, %reason, "a role cannot be read; who holds it is denied");
            }
        }
    }
    let locks = kept.limits.locks.in_force(clock.now());
    Policy { locks, settings: kept.limits.settings, knowledge, ..Policy::new(kept.trust.clone(), roles) }
}

/// `period`, give or take a fifth: a thousand services started together must not ask together.
pub(crate) fn jittered(period: Duration, entropy: &dyn Entropy) -> Duration {
    let share = f64::from(u16::from_le_bytes(fill_random(entropy))) / f64::from(u16::MAX);
    period.mul_f64(0.8 + 0.4 * share)
}

/// Removes the copy in `data_dir`: the next start goes by what the host was told when it joined.
pub(crate) fn forget(data_dir: &Path) -> Result<(), FileError> {
    match PrivateDir::open(data_dir, Privacy::Keep)? {
        Some(dir) => dir.remove(FILE).map(drop),
        None => Ok(()),
    }
}

const FORMAT: u32 = 2;
/// The first format had no locks.
const READ: [u32; 2] = [1, FORMAT];
const FILE: &str = "policy.json";
const MAX_LEN: u64 = 64 * 1024 * 1024;
