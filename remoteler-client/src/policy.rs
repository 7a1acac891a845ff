//! Keeps a service's view of the cluster's rules up to date: trust bundle and roles from the auth service, every few seconds. Owns the
//! copy on disk, so that a service that starts while the auth service is away decides by the rules it last knew.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use remoteler_core::{
    ApiError, AuthApi, ClusterName, Entropy, OsEntropy, Policy, PolicySource, Resource, ResourceKind, Role,
    SharedPolicy, TrustBundle, fill_random,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    files::{FileError, Privacy, PrivateDir},
    standing::ShutOut,
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
    data_dir: PathBuf,
    kept: Kept,
    standing: Option<watch::Receiver<Option<ShutOut>>>,
}

/// What was last heard, as it is kept.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    v: u32,
    trust: TrustBundle,
    roles: Vec<Resource>,
}

impl PolicyRefresher {
    /// Starts with what `data_dir` holds of the cluster of `joined`, or else with the authorities of `joined` and no roles, by
    /// which everything is denied.
    ///
    /// # Errors
    /// [`FileError`] when the directory cannot be used. A copy that does not parse is passed over with a warning: it is only a copy.
    pub fn load(data_dir: &Path, joined: TrustBundle) -> Result<Self, FileError> {
        let dir = PrivateDir::create(data_dir, Privacy::Keep)?;
        let kept = dir.read(FILE, MAX_LEN)?.and_then(|content| match serde_json::from_slice::<Kept>(&content) {
            Ok(kept) => (kept.v == FORMAT && kept.trust.cluster == joined.cluster).then_some(kept),
            Err(cause) => {
                tracing::warn!(path = %data_dir.join(FILE).display(), %cause, "the copy of the cluster's rules does not parse");
                None
            }
        });
        let kept = kept.unwrap_or(Kept { v: FORMAT, trust: joined, roles: Vec::new() });
        let shared = Arc::new(SharedPolicy::new(policy(&kept)));
        Ok(Self { shared, data_dir: data_dir.into(), kept, standing: None })
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

    /// Fetches the rules once. Says whether they changed.
    ///
    /// # Errors
    /// [`PolicyError`]; the view is as it was then. When only the copy on disk fails, the view is the new one.
    pub async fn refresh(&mut self, auth: &dyn AuthApi) -> Result<bool, PolicyError> {
        let trust = auth.trust_bundle().await?;
        let roles = auth.roles().await?;
        if trust.cluster != self.kept.trust.cluster {
            return Err(PolicyError::OtherCluster { found: trust.cluster, own: self.kept.trust.cluster.clone() });
        }
        if [&trust.user, &trust.host].iter().any(|set| set.ssh.is_empty() || set.x509.is_empty()) {
            return Err(PolicyError::NoAuthority);
        }
        let fresh = Kept { v: FORMAT, trust, roles };
        if fresh == self.kept {
            return Ok(false);
        }
        self.shared.replace(policy(&fresh));
        self.kept = fresh;
        self.save()?;
        Ok(true)
    }

    /// Fetches the rules every `period`, a fifth more or less, until `stop`. Failures are logged once, and once more when they are over.
    pub async fn run(mut self, auth: Arc<dyn AuthApi>, period: Duration, stop: CancellationToken) {
        let mut failing = false;
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.refresh(&*auth) => outcome,
            };
            match outcome {
                Ok(changed) => {
                    if changed {
                        tracing::info!(roles = self.kept.roles.len(), "the cluster's rules have changed");
                    }
                    if std::mem::take(&mut failing) {
                        tracing::info!("the cluster's rules are fetched again");
                    }
                }
                Err(error) if failing => tracing::debug!(%error, "the cluster's rules are not refreshed"),
                Err(error) => {
                    failing = true;
                    tracing::warn!(%error, "the cluster's rules are not refreshed; the last known ones stay in force");
                }
            }
            let rests = self.standing.as_ref().is_some_and(|standing| standing.borrow().is_some());
            let wait = if rests { REST } else { period };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(jittered(wait, &OsEntropy)) => {}
                () = turn(&mut self.standing) => {}
            }
        }
    }

    fn save(&self) -> Result<(), FileError> {
        let dir = PrivateDir::create(&self.data_dir, Privacy::Keep)?;
        let content = serde_json::to_vec(&self.kept).expect("strings, lists and maps with string keys always encode");
        dir.write(FILE, &content)
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

/// How often a host asks that is shut out.
const REST: Duration = Duration::from_secs(30);
/// How often the rules are fetched when nothing else is said.
pub const POLICY_PERIOD: Duration = Duration::from_secs(3);

/// A role that cannot be read is left out: who holds it is denied, because what it forbids is unknown.
fn policy(kept: &Kept) -> Policy {
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
    Policy { trust: kept.trust.clone(), roles }
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

const FORMAT: u32 = 1;
const FILE: &str = "policy.json";
const MAX_LEN: u64 = 64 * 1024 * 1024;
