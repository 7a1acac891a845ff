//! How an agent comes to be: joined once, then by what lies in its state. Owns the order of the steps.

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc};

use remoteler_core::{
    ApiError, ApiErrorKind, AuditSink, Clock, Entropy, HostApi, LiveWork, NodeName, OsEntropy, SystemClock,
};
use remoteler_tunnel::{
    AgentConfig, ClientTls, Limits, Offer, PolicyTrust, ReplayBudget, ServerTls, Services, TargetKind, TlsConfigError,
    Ways, enforce,
};
use tokio_util::sync::CancellationToken;

use super::{
    agent::Agent,
    joining::{Join, Joining},
};
use crate::{
    connector::{AuthTrust, ConnectError, LateLinks},
    direct_audit::DirectAudit,
    files::FileError,
    host_clock::{HostClock, TimeError},
    host_keeper::HostKeeper,
    host_state::{HostState, HostStateError},
    join::JoinError,
    policy::PolicyRefresher,
    remote::RemoteAuth,
    spool::{SpoolLimits, SpooledAudit},
    state_store::{DirStore, StateStore},
    ways_file::WaysFile,
};

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Nothing was named to keep its identity in.
    #[error("an agent needs a place for its identity: name one with AgentBuilder::state or AgentBuilder::state_store")]
    NoState,
    /// Neither an identity nor a way to one.
    #[error(
        "{state} holds no identity and no way to one was given: give a join token or an identity with AgentBuilder::join"
    )]
    NotJoined {
        /// The state, as it shows itself.
        state: String,
    },
    /// The identity that it was given makes it no token.
    #[error("{user} made no join token for this agent: {source}")]
    Token {
        /// Whose identity.
        user: String,
        /// Why not.
        source: ApiError,
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
            Self::Join(JoinError::Time(TimeError::Silent { source, .. })) => passes(source.kind),
            Self::Join(JoinError::Refused { source, .. }) | Self::Token { source, .. } => passes(source.kind),
            Self::File(cause) | Self::State(HostStateError::File(cause)) => cause.is_transient(),
            Self::NoState
            | Self::NotJoined { .. }
            | Self::NoName
            | Self::Name { .. }
            | Self::Join(_)
            | Self::State(_)
            | Self::Tls(_) => false,
        }
    }
}

/// Whether it is only for now that the service does not do it.
const fn passes(kind: ApiErrorKind) -> bool {
    matches!(kind, ApiErrorKind::Unavailable | ApiErrorKind::RateLimited)
}

/// What an agent is made of; see [`Agent::builder`].
#[derive(Clone)]
pub struct AgentBuilder {
    proxy: String,
    join: Option<Join>,
    name: Option<String>,
    state: Option<Arc<dyn StateStore>>,
    connections: Option<NonZeroUsize>,
    ways: Option<Ways>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    limits: Limits,
    replay: ReplayBudget,
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
            replay: ReplayBudget::default(),
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
        self.state_store(Arc::new(DirStore::new(dir)))
    }

    /// Where its keys, certificates and what it knows of the cluster are kept, where that is no directory. One agent for one store.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    /// use remoteler_client::{MemoryStore, sdk::{Agent, Join}};
    ///
    /// # async fn short_lived(join: Join) -> Result<(), Box<dyn std::error::Error>> {
    /// let store = Arc::new(MemoryStore::new());
    /// let agent = Agent::builder("proxy.example.com:3080").join(join).name("job-17").state_store(store).build().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn state_store(self, store: Arc<dyn StateStore>) -> Self {
        Self { state: Some(store), ..self }
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

    /// What its links keep together to be sent again; clones of one budget bound all agents of a process. [`ReplayBudget::default`] when this
    /// is not said.
    #[must_use]
    pub fn replay(self, replay: ReplayBudget) -> Self {
        Self { replay, ..self }
    }

    /// Joins if that was not done yet, and starts. It returns before the first link is up: see [`Agent::connected`].
    ///
    /// # Errors
    /// [`BuildError`]; [`BuildError::is_transient`] says whether trying again helps. Once joined, an agent starts also while nobody answers.
    pub async fn build(self) -> Result<Agent, BuildError> {
        let store = self.state.clone().ok_or(BuildError::NoState)?;
        let ways = self.ways.clone();
        let ways = ways.unwrap_or_else(|| Ways::default().or_websocket(Arc::new(WaysFile::of(store.clone()))));
        let floor = HostState::load_from(&*store)?.and_then(|state| state.written());
        let clock = HostClock::over(self.clock.clone(), floor);
        let state = self.joined(&*store, &clock, &ways).await?;
        let mut refresher = PolicyRefresher::load_from(store.clone(), state.trust().clone())?;
        let policy = refresher.source();
        let shared_clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let links = LateLinks::default();
        let keeper = HostKeeper::new_in(state.clone(), store.clone(), policy.clone(), shared_clock.clone())?
            .with_auth_at(&self.proxy, refresher.shared())
            .by_clock(clock)
            .by_ways(&ways)
            .seldom(&links, self.limits.metered);
        refresher = refresher.resting_while(keeper.standing()).with_clock(shared_clock.clone());
        let shown = keeper.identities();
        let trust = AuthTrust::Policy(policy.clone());
        let remote = RemoteAuth::tls_by_clock(&self.proxy, Some(shown.client.clone()), trust, shared_clock.clone())?;
        let api: Arc<dyn HostApi> = Arc::new(remote.by(&ways).or_through(&links));
        if let Err(cause) = refresher.refresh(&*api).await {
            tracing::warn!(%cause, "the cluster's rules were not fetched; the last known ones are in force");
        }
        let live = LiveWork::new(policy.clone(), shared_clock.clone());
        let host = state.identity()?;
        let stop = CancellationToken::new();
        let audit: Arc<dyn AuditSink> = match store.spool() {
            Some(dir) => {
                let (cluster, limits) = (host.cluster.clone(), SpoolLimits::default());
                let spool = Arc::new(SpooledAudit::open(dir, host.id, cluster, shared_clock.clone(), limits)?);
                let (uploaded, api, stop) = (spool.clone(), api.clone(), stop.clone());
                tokio::spawn(async move { uploaded.upload(api, stop).await });
                spool
            }
            None => Arc::new(DirectAudit::new(api.clone(), host.cluster.clone(), shared_clock.clone())),
        };
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
            replay: self.replay,
        };
        let until = |work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let stop = stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(work).await.unwrap_or_default() });
        };
        until(Box::pin(enforce(live, audit)));
        until(Box::pin(refresher.run(api.clone(), stop.clone())));
        let keeping = tokio::spawn(keeper.run(api, stop.clone()));
        let mut agent = Agent::start(config, host, services, stop);
        agent.keeping(keeping);
        links.lead_through(agent.auth());
        Ok(agent)
    }

    async fn joined(&self, store: &dyn StateStore, clock: &HostClock, ways: &Ways) -> Result<HostState, BuildError> {
        if let Some(state) = HostState::load_from(store)? {
            return Ok(state);
        }
        let by = self.join.as_ref().ok_or_else(|| BuildError::NotJoined { state: format!("{store:?}") })?;
        let name = self.name.clone().ok_or(BuildError::NoName)?;
        let name =
            NodeName::new(&name).map_err(|cause| BuildError::Name { name: name.clone(), reason: cause.to_string() })?;
        Joining { proxy: &self.proxy, name: &name, store, clock, ways }.join(by).await
    }
}
