//! How an agent comes to be: joined once, then by what lies in its state directory. Owns the order of the steps.

use std::{collections::BTreeSet, num::NonZeroUsize, path::PathBuf, sync::Arc};

use remoteler_core::{AuthApi, Clock, Entropy, LiveWork, NodeName, OsEntropy, Secret, SystemClock, SystemRole};
use remoteler_tunnel::{
    AgentConfig, ClientTls, Limits, Offer, PolicyTrust, ReplayBudget, ServerTls, Services, TargetKind, TlsConfigError,
    Ways, enforce,
};
use tokio_util::sync::CancellationToken;

use super::agent::Agent;
use crate::{
    connector::{AuthTrust, ConnectError},
    files::FileError,
    host_clock::HostClock,
    host_keeper::HostKeeper,
    host_state::{HostState, HostStateError},
    join::{JoinError, JoinParams, join},
    pending_keys::PendingKeys,
    policy::PolicyRefresher,
    remote::RemoteAuth,
    spool::{SpoolLimits, SpooledAudit},
    ways_file::WaysFile,
};

/// By what an agent is let into its cluster, when its state directory holds no identity yet.
#[derive(Clone, Debug)]
pub struct Join {
    token: Secret,
    pins: Vec<String>,
    insecure: bool,
}

impl Join {
    /// With a join token of type `node`.
    #[must_use]
    pub fn token(token: &str) -> Self {
        Self { token: Secret::new(token.trim()), pins: Vec::new(), insecure: false }
    }

    /// The cluster is known by this pin (`sha256:…`), which `tctl tokens add` prints beside the token. Several may be given.
    #[must_use]
    pub fn pin(mut self, pin: &str) -> Self {
        self.pins.push(pin.to_owned());
        self
    }

    /// Without a pin whoever is in the path gets the token (I15). Counts only when there is no pin.
    #[must_use]
    pub fn without_pin(self) -> Self {
        Self { insecure: true, ..self }
    }
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No directory was named.
    #[error("an agent needs a directory for its identity: name one with AgentBuilder::state")]
    NoState,
    /// Neither an identity nor a way to one.
    #[error("{} holds no identity and no join token was given: give one with AgentBuilder::join", .dir.display())]
    NotJoined {
        /// The state directory.
        dir: PathBuf,
    },
    /// No name.
    #[error("an agent needs a name to join: give one with AgentBuilder::name")]
    NoName,
    /// A name that is none.
    #[error("{name:?} is no name of a host: {reason}")]
    Name {
        /// What was given.
        name: String,
        /// Why not.
        reason: String,
    },
    /// It could not join.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Its identity cannot be used.
    #[error(transparent)]
    State(#[from] HostStateError),
    /// Its directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its connection to the auth service cannot be set up.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Its TLS configuration is not possible.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
}

impl BuildError {
    /// Whether another attempt may succeed without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Join(JoinError::Connect(cause)) | Self::Connect(cause) => {
                matches!(cause, ConnectError::Unreachable { .. } | ConnectError::Timeout { .. })
            }
            Self::Join(JoinError::Refused { source, .. }) => source.kind == remoteler_core::ApiErrorKind::Unavailable,
            Self::NoState
            | Self::NotJoined { .. }
            | Self::NoName
            | Self::Name { .. }
            | Self::Join(_)
            | Self::State(_)
            | Self::File(_)
            | Self::Tls(_) => false,
        }
    }
}

/// What an agent is made of; see [`Agent::builder`].
#[derive(Clone)]
pub struct AgentBuilder {
    proxy: String,
    join: Option<Join>,
    name: Option<String>,
    state: Option<PathBuf>,
    connections: Option<NonZeroUsize>,
    ways: Option<Ways>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    limits: Limits,
}

impl std::fmt::Debug for AgentBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentBuilder").field("proxy", &self.proxy).field("name", &self.name).finish_non_exhaustive()
    }
}

impl AgentBuilder {
    pub(super) fn new(proxy: &str) -> Self {
        Self {
            proxy: proxy.to_owned(),
            join: None,
            name: None,
            state: None,
            connections: None,
            ways: None,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            limits: Limits::client(),
        }
    }

    /// How it joins, if it has not yet.
    #[must_use]
    pub fn join(self, join: Join) -> Self {
        Self { join: Some(join), ..self }
    }

    /// What it is called when it joins; users dial `service@name`.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// The directory of its keys, certificates and what it knows of the cluster; made when missing, 0700. One agent for one directory.
    #[must_use]
    pub fn state(self, dir: impl Into<PathBuf>) -> Self {
        Self { state: Some(dir.into()), ..self }
    }

    /// To how many proxies links are kept at most. All of them when this is not said.
    #[must_use]
    pub fn tunnel_connections(self, most: NonZeroUsize) -> Self {
        Self { connections: Some(most), ..self }
    }

    /// How proxies are reached: through an HTTP proxy, or by a dialer of the program's own. Straight, and over WebSocket where that fails,
    /// when this is not said.
    #[must_use]
    pub fn ways(self, ways: Ways) -> Self {
        Self { ways: Some(ways), ..self }
    }

    /// By which clock it goes. The machine's, corrected by the cluster's, when this is not said.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Where the spread of its retries comes from. Keys are always made of the system's randomness.
    #[must_use]
    pub fn entropy(self, entropy: Arc<dyn Entropy>) -> Self {
        Self { entropy, ..self }
    }

    /// Bounds of its links. [`Limits::client`] when this is not said.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Joins if that was not done yet, and starts. It returns before the first link is up: see [`Agent::connected`].
    ///
    /// # Errors
    /// [`BuildError`]; [`BuildError::is_transient`] says whether trying again helps. Once joined, an agent starts also while nobody answers.
    pub async fn build(self) -> Result<Agent, BuildError> {
        let dir = self.state.clone().ok_or(BuildError::NoState)?;
        let ways = self.ways.clone().unwrap_or_else(|| Ways::default().or_websocket(Arc::new(WaysFile::new(&dir))));
        let floor = HostState::load(&dir)?.and_then(|state| state.written());
        let clock = HostClock::over(self.clock.clone(), floor);
        let state = self.joined(&dir, &clock, &ways).await?;
        let mut refresher = PolicyRefresher::load(&dir, state.trust().clone())?;
        let policy = refresher.source();
        let shared_clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let spool_dir = dir.clone();
        let keeper = HostKeeper::new(state.clone(), dir, policy.clone(), shared_clock.clone())?
            .with_auth_at(&self.proxy, refresher.shared())
            .by_clock(clock)
            .by_ways(&ways);
        refresher = refresher.resting_while(keeper.standing()).with_clock(shared_clock.clone());
        let shown = keeper.identities();
        let trust = AuthTrust::Policy(policy.clone());
        let remote = RemoteAuth::tls_by_clock(&self.proxy, Some(shown.client.clone()), trust, shared_clock.clone())?;
        let api: Arc<dyn AuthApi> = Arc::new(remote.by(&ways));
        if let Err(cause) = refresher.refresh(&*api).await {
            tracing::warn!(%cause, "the cluster's rules were not fetched; the last known ones are in force");
        }
        let live = LiveWork::new(policy.clone(), shared_clock.clone());
        let host = state.identity()?;
        let limits = SpoolLimits::default();
        let spool = SpooledAudit::open(&spool_dir, host.id, host.cluster.clone(), shared_clock.clone(), limits)?;
        let audit = Arc::new(spool);
        let bundle = Arc::new(PolicyTrust(policy));
        let server = ServerTls { identity: shown.server.clone(), trust: bundle.clone(), clock: shared_clock.clone() };
        let services = Services::new(host.clone(), server, live.clone(), audit.clone())?;
        let config = AgentConfig {
            proxy: self.proxy,
            connections: self.connections,
            ways,
            offer: Offer { services: true, ..Offer::default() },
            host: host.clone(),
            services: [(TargetKind::Service, services.clone() as Arc<_>)].into(),
            tls: ClientTls { identity: Some(shown.client), trust: bundle, clock: shared_clock.clone() },
            clock: shared_clock,
            entropy: self.entropy,
            limits: self.limits,
            replay: ReplayBudget::default(),
        };
        let stop = CancellationToken::new();
        let until = |work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let stop = stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(work).await.unwrap_or_default() });
        };
        until(Box::pin(enforce(live, audit.clone())));
        let (uploaded_to, stopped) = (api.clone(), stop.clone());
        tokio::spawn(async move { audit.upload(uploaded_to, stopped).await });
        until(Box::pin(refresher.run(api.clone(), stop.clone())));
        until(Box::pin(keeper.run(api, stop.clone())));
        Ok(Agent::start(config, host, services, stop))
    }

    async fn joined(&self, dir: &std::path::Path, clock: &HostClock, ways: &Ways) -> Result<HostState, BuildError> {
        if let Some(state) = HostState::load(dir)? {
            return Ok(state);
        }
        let Some(Join { token, pins, insecure }) = self.join.clone() else {
            return Err(BuildError::NotJoined { dir: dir.to_owned() });
        };
        let name = self.name.clone().ok_or(BuildError::NoName)?;
        let node_name =
            NodeName::new(&name).map_err(|cause| BuildError::Name { name: name.clone(), reason: cause.to_string() })?;
        let params = JoinParams {
            addr: self.proxy.clone(),
            token,
            ca_pins: pins,
            insecure,
            node_name,
            roles: BTreeSet::from([SystemRole::Node]),
            kube_clusters: BTreeSet::new(),
            service_account: None,
            keys: Some(PendingKeys::load_or_make(dir, &name)?),
            ways: ways.clone(),
        };
        let state = join(params, clock).await?;
        state.save(dir)?;
        PendingKeys::forget(dir)?;
        tracing::info!(cluster = %state.cluster_name(), host = %state.host_id(), "joined");
        Ok(state)
    }
}
