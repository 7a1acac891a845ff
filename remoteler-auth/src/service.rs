//! The auth service: opening it, its parts, and the handles it gives out. Each operation stands in a module of its own.

use std::{path::PathBuf, sync::Arc, time::Duration};

use remoteler_ca::{CaError, KeyRing};
use remoteler_core::{
    AuditKind, AuditSink, AuthApi, BoundedRefusals, Clock, ClusterConfig, ClusterName, Entropy, HostCerts, NodeRecord,
    OsEntropy, Policy, PolicySource, RecordingStore, SharedPolicy, Storage, SystemClock, TrustBundle,
};
use tokio::sync::{Mutex, RwLock, Semaphore};

use crate::{
    AuditLog, BreachedPasswords, Caller, Database, EventLog, KeyParams, OpenError, RecordError, RecordingFiles,
    SqliteStorage, SsoConfig, TokenReviewer,
    api::Handle,
    backups::Backups,
    blocking::blocking,
    cluster_settings, database,
    evidence::{Evidence, EvidenceError},
    failure::{self, ApiResult},
    host_standing::Heard,
    inventory_watch::InventoryWatch,
    issue::Issuer,
    join::LocalHost,
    leases::LeaseLedger,
    limiter::Limiter,
    locks::LockLedger,
    login_turns::LoginTurns,
    parsed::Parsed,
    password::{PasswordError, Passwords},
    policy_watch::PolicyWatch,
    quota::{HostQuotas, Quota},
    records::{Records, key},
    revocations::Ledger,
    roles,
    session_touch::{PAGES, PAGES_WINDOW},
    sso::Sso,
    storage::SealedStorage,
};

/// Why the auth service did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its data could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its data is of another cluster.
    #[error(
        "the data directory belongs to cluster {stored}, the configuration says {configured}; correct cluster_name or give an empty data directory"
    )]
    OtherCluster {
        /// As stored.
        stored: ClusterName,
        /// As configured.
        configured: ClusterName,
    },
    /// A record could not be read or written.
    #[error("the auth service's data cannot be used")]
    Record(#[from] RecordError),
    /// An authority could not be made or loaded.
    #[error("the certificate authority cannot be used")]
    Authority(#[from] CaError),
    /// A stored role is none.
    #[error("stored role {name} cannot be used: {reason}")]
    Role {
        /// Name.
        name: String,
        /// Why.
        reason: String,
    },
    /// Password hashing does not work.
    #[error("password hashing does not work here")]
    Password(#[from] PasswordError),
}

/// What an auth service is made from.
#[derive(Clone)]
pub struct AuthConfig {
    /// Holds everything: database, recordings. Made when it is not there.
    pub data_dir: PathBuf,
    /// Name of the cluster; cannot change after the first start.
    pub cluster_name: ClusterName,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Draws keys, serials and tokens.
    pub entropy: Arc<dyn Entropy>,
    /// How much one host may store.
    pub quotas: HostQuotas,
    /// Seals the authorities' keys at rest. Without it they lie in the clear; with it, those that do are sealed at the next start.
    pub key_ring: Option<Arc<KeyRing>>,
    /// How the authorities' keys are made, and where.
    pub keys: KeyParams,
    /// Who vouches for the service accounts of pods; without it none joins.
    pub reviewer: Option<Arc<dyn TokenReviewer>>,
    /// What the configuration file says of the cluster: it counts more than documents.
    pub settings: ClusterConfig,
    /// How people log in through a browser.
    pub sso: SsoConfig,
    /// Passwords that nobody may set; see [`AuthConfig::refusing_breached`].
    pub breached: Option<BreachedPasswords>,
}

impl AuthConfig {
    /// With the machine's clock and generator, and the default quotas.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, cluster_name: ClusterName) -> Self {
        Self {
            data_dir: data_dir.into(),
            cluster_name,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            quotas: HostQuotas::default(),
            key_ring: None,
            keys: KeyParams::default(),
            reviewer: None,
            settings: ClusterConfig::default(),
            sso: SsoConfig::default(),
            breached: None,
        }
    }
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { data_dir, cluster_name, .. } = self;
        f.debug_struct("AuthConfig").field("data_dir", data_dir).field("cluster_name", cluster_name).finish()
    }
}

/// A running auth service. Clones are the same service; the data directory is released with the last one.
#[derive(Clone)]
pub struct AuthService {
    inner: Arc<Inner>,
}

/// The service's parts, as its operations see them.
pub(crate) struct Inner {
    pub(crate) cluster: ClusterName,
    pub(crate) records: Records,
    pub(crate) events: EventLog,
    pub(crate) audit: Arc<BoundedRefusals>,
    pub(crate) audit_log: AuditLog,
    pub(crate) evidence: Evidence,
    pub(crate) recordings: RecordingFiles,
    pub(crate) policy: Arc<SharedPolicy>,
    pub(crate) issuer: Issuer,
    pub(crate) ledger: Ledger,
    pub(crate) locks: LockLedger,
    pub(crate) policy_watch: PolicyWatch,
    pub(crate) inventory_watch: InventoryWatch,
    pub(crate) leases: LeaseLedger,
    pub(crate) passwords: Passwords,
    pub(crate) limits: Limits,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// Held while users, roles and tokens change, so that what one change checks, another does not undo meanwhile.
    /// Not while a token makes or destroys a key.
    pub(crate) changes: RwLock<()>,
    /// Held while a step of a rotation is taken, before [`Inner::changes`]: tokens take minutes to make a key.
    pub(crate) rotating: Mutex<()>,
    pub(crate) backups: Backups,
    /// When each host was heard last.
    pub(crate) heard: Heard,
    /// Who vouches for pods.
    pub(crate) reviewer: Option<Arc<dyn TokenReviewer>>,
    /// Heartbeats of nodes as they were parsed last.
    pub(crate) parsed_nodes: Parsed<NodeRecord>,
    /// Logins through browsers.
    pub(crate) sso: Sso,
    /// What the configuration file says of the cluster.
    pub(crate) file_settings: ClusterConfig,
}

/// Counters of failures, and of what hosts store.
pub(crate) struct Limits {
    /// Failed logins of one name.
    pub(crate) login_user: Limiter,
    /// Logins that wait because others are under way.
    pub(crate) login_turns: LoginTurns,
    /// Failed logins, and uses of links, from one address.
    pub(crate) login_address: Limiter,
    /// Wrong codes of one user for sessions.
    pub(crate) session_user: Limiter,
    /// Pages of one user that one caller has open for sessions.
    pub(crate) session_pages: Limiter,
    /// Ways to web applications that one user opens.
    pub(crate) app_launches: Limiter,
    /// Names that hosts are refused in the same words.
    pub(crate) refused_names: Limiter,
    /// Renewals of one host.
    pub(crate) renewals: Limiter,
    /// Failed joins from one address.
    pub(crate) join: Limiter,
    /// Held from the look at how many joins of an address have failed until the next one is counted, so that guesses that are under way
    /// together cannot pass the limit together (I35).
    pub(crate) guess: Mutex<()>,
    /// How many service accounts are asked about at once.
    pub(crate) reviews: Semaphore,
    /// Pods whose token is looked at or waits for that.
    pub(crate) reviews_waiting: Semaphore,
    /// Audit events of one host.
    pub(crate) events: Quota,
    /// Octets of recordings of one host.
    pub(crate) recorded: Quota,
}

const WINDOW: Duration = Duration::from_secs(300);
/// Questions to an API server at once.
const REVIEWS: usize = 8;

impl AuthService {
    /// Opens a data directory. The first start makes both authorities and the roles `access`, `editor` and `auditor`.
    ///
    /// # Errors
    /// [`StartError`]; a directory that is not ours to use is left as it is.
    pub async fn open(config: AuthConfig) -> Result<Self, StartError> {
        let dir = config.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || -> Result<_, OpenError> {
            let database = Database::open(&dir)?;
            Ok((database, RecordingFiles::open(&dir.join("recordings"))?))
        });
        let (database, recordings) = match opened.await {
            Ok(opened) => opened?,
            Err(cause) => std::panic::resume_unwind(cause.into_panic()),
        };
        let database = Arc::new(database);
        let storage = Arc::new(SqliteStorage::new(Arc::clone(&database)));
        let dir = config.data_dir.clone();
        let sealed = config.key_ring.is_some();
        let events = EventLog::new(Arc::clone(&database));
        let service = Self::with_stores(config, storage, events, recordings).await?;
        service.inner.backups.over(database);
        // Keys that were sealed just now lay in the clear before (I8).
        blocking(move || {
            database::empty_log(&dir);
            if sealed { database::forget_clear_keys(&dir) } else { Ok(()) }
        })
        .await?;
        Ok(service)
    }

    /// Like [`AuthService::open`], over stores that the caller made; `data_dir` of the configuration is not used.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn with_stores(
        config: AuthConfig,
        storage: Arc<dyn Storage>,
        events: EventLog,
        recordings: RecordingFiles,
    ) -> Result<Self, StartError> {
        let AuthConfig {
            data_dir: _,
            cluster_name: cluster,
            clock,
            entropy,
            quotas,
            key_ring,
            keys,
            reviewer,
            settings: file_settings,
            sso,
            breached,
        } = config;
        let storage = match &key_ring {
            Some(ring) => {
                let sealing = SealedStorage::new(storage, cluster.clone(), Arc::clone(ring));
                let sealed = sealing.seal_all(clock.now()).await.map_err(RecordError::from)?;
                if sealed > 0 {
                    tracing::info!(%cluster, sealed, "records with secrets were sealed");
                }
                Arc::new(sealing)
            }
            None => storage,
        };
        let records = Records::new(storage, Arc::clone(&clock));
        check_cluster(&records, &cluster).await?;
        let audit = AuditLog::new(events.clone(), Arc::clone(&clock), Arc::clone(&entropy), cluster.clone());
        let ring = key_ring.clone();
        let (for_issuer, draws) = (Arc::clone(&clock), Arc::clone(&entropy));
        let issuer = Issuer::open(&cluster, &records, for_issuer, draws, audit.clone(), key_ring, keys).await?;
        let evidence = Evidence::open(&cluster, &records, events.clone(), Arc::clone(&clock), ring.as_deref()).await?;
        let ledger = Ledger::open(&records).await?;
        issuer.replace(issuer.authorities().revoking(ledger.targets()));
        let audit_log = audit;
        let audit = Arc::new(BoundedRefusals::new(Arc::new(audit_log.clone()), Arc::clone(&clock)));
        roles::write_presets(&records).await?;
        let locks = LockLedger::open(&records).await?;
        let stored = cluster_settings::load(&records).await?;
        cluster_settings::warn_of_hidden(&file_settings, &stored);
        let leases = LeaseLedger::open(&records, clock.now()).await?;
        let policy = Policy {
            locks: locks.locks(clock.now()),
            settings: file_settings.clone().over(stored).settings(),
            ..Policy::new(issuer.trust(), roles::load(&records).await?)
        };
        let draws = Arc::clone(&entropy);
        let parallel = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        let passwords = tokio::task::spawn_blocking(move || Passwords::new(parallel, draws.as_ref()));
        let passwords = match passwords.await {
            Ok(passwords) => passwords?.refusing(breached),
            Err(cause) => std::panic::resume_unwind(cause.into_panic()),
        };
        let limits = Limits {
            login_turns: LoginTurns::default(),
            login_user: Limiter::new(10, WINDOW),
            login_address: Limiter::new(30, WINDOW),
            session_user: Limiter::new(10, WINDOW),
            session_pages: Limiter::new(PAGES, PAGES_WINDOW),
            app_launches: Limiter::new(60, WINDOW),
            refused_names: Limiter::new(1, Duration::from_secs(3600)),
            renewals: Limiter::new(60, WINDOW),
            join: Limiter::new(10, WINDOW),
            guess: Mutex::new(()),
            reviews: Semaphore::new(REVIEWS),
            reviews_waiting: Semaphore::new(8 * REVIEWS),
            events: Quota::events(&quotas),
            recorded: Quota::recorded(&quotas),
        };
        let policy = Arc::new(SharedPolicy::new(policy));
        let changes = RwLock::new(());
        let heard = Heard::new(clock.now());
        let inner = Inner {
            cluster,
            records,
            events,
            audit,
            audit_log,
            evidence,
            recordings,
            policy,
            issuer,
            ledger,
            locks,
            policy_watch: PolicyWatch::default(),
            inventory_watch: InventoryWatch::default(),
            leases,
            passwords,
            limits,
            clock,
            entropy,
            changes,
            rotating: Mutex::new(()),
            backups: Backups::default(),
            heard,
            reviewer,
            parsed_nodes: Parsed::default(),
            sso: Sso::new(sso),
            file_settings,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A handle that acts for `caller`, and may what `caller` may.
    #[must_use]
    pub fn as_caller(&self, caller: Caller) -> Arc<dyn AuthApi> {
        Arc::new(Handle::new(Arc::clone(&self.inner), caller))
    }

    pub(crate) fn inner(&self) -> Arc<Inner> {
        Arc::clone(&self.inner)
    }

    /// The cluster.
    #[must_use]
    pub fn cluster_name(&self) -> &ClusterName {
        &self.inner.cluster
    }

    /// The authorities believed now.
    #[must_use]
    pub fn trust_bundle(&self) -> TrustBundle {
        self.inner.issuer.trust()
    }

    /// Trust and roles as they are now; follows every change at once.
    #[must_use]
    pub fn policy_source(&self) -> Arc<dyn PolicySource> {
        Arc::clone(&self.inner.policy) as Arc<dyn PolicySource>
    }

    /// The audit log of this process: durable when `record` returns. Refused attempts are bounded, in one budget for all services of the
    /// process; whoever owns it calls [`BoundedRefusals::summarise`] now and then.
    #[must_use]
    pub fn audit_sink(&self) -> Arc<BoundedRefusals> {
        Arc::clone(&self.inner.audit)
    }

    /// The audit store, to be checked or exported.
    #[must_use]
    pub fn event_log(&self) -> EventLog {
        self.inner.events.clone()
    }

    /// Signs and keeps a checkpoint of the audit log as it is now, and gives its note; the last one if nothing came since. Whoever owns the process calls
    /// it now and then.
    ///
    /// # Errors
    /// [`EvidenceError`]; of a log that was tampered with, nothing is signed any more.
    pub async fn sign_checkpoint(&self) -> Result<String, EvidenceError> {
        self.inner.evidence.sign().await
    }

    /// Removes events that are older than `retention`, at most 4,096 at once; returns how many. A signed tombstone stands for them.
    ///
    /// # Errors
    /// [`EvidenceError`]; nothing was removed.
    pub async fn remove_old_events(&self, retention: Duration) -> Result<u64, EvidenceError> {
        self.inner.remove_old_events(retention).await
    }

    /// Where recordings are kept.
    #[must_use]
    pub fn recordings(&self) -> Arc<dyn RecordingStore> {
        Arc::new(self.inner.recordings.clone())
    }

    /// Certificates for a service in this process, without a join token. With `host_id` the host keeps its id and names.
    ///
    /// # Errors
    /// As [`AuthApi::join`].
    pub async fn issue_local_host(&self, host: LocalHost) -> ApiResult<HostCerts> {
        let inner = Arc::clone(&self.inner);
        crate::api::detached(async move { inner.issue_local_host(host).await }).await
    }
}

impl std::fmt::Debug for AuthService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthService").field("cluster", &self.inner.cluster).finish_non_exhaustive()
    }
}

impl Inner {
    /// Records an event, before what it allows.
    pub(crate) async fn record(&self, event: AuditKind) -> ApiResult<()> {
        self.audit.record(event).await.map_err(|cause| failure::audit(&cause))
    }
}

async fn check_cluster(records: &Records, configured: &ClusterName) -> Result<(), StartError> {
    match records.read::<ClusterName>(key::CLUSTER).await? {
        None => {
            records.create(key::CLUSTER, configured, None).await?;
            Ok(())
        }
        Some(stored) if stored == *configured => Ok(()),
        Some(stored) => Err(StartError::OtherCluster { stored, configured: configured.clone() }),
    }
}
