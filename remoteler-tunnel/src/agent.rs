//! Agent side of reverse tunnels: keeps a link to each proxy of the cluster and serves the streams that come through them. Owns the
//! connections and their retries. Listens on nothing, and dials nothing that a peer names but proxies, which prove themselves as such: a
//! stream goes to a service that was given here, or is refused (I29).

mod auth;
mod connect;
mod counters;
mod fleet;
mod placement;
pub(crate) mod resume;
mod serve;

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use remoteler_core::{Clock, Entropy, HostId, HostIdentity, Timestamp};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::connect::ConnectError;
use crate::connection::CloseReason;
use crate::dial::{DialHeaderError, TargetKind};
use crate::mux::error::OpenError;
use crate::mux::limits::Limits;
use crate::registration::Offer;
use crate::replay::ReplayBudget;
use crate::router::StreamService;
use crate::tls::{ClientTls, PeerError, TlsConfigError};
use crate::ways::Ways;

pub use auth::{AuthCarrier, AuthLinks, AuthStream};
pub use counters::AgentCounters;
use fleet::Fleet;

/// What an agent is made of.
#[derive(Clone)]
pub struct AgentConfig {
    /// `host:port` of a proxy, from which the others are learnt. The name is resolved anew for each attempt.
    pub proxy: String,
    /// To how many proxies links are kept at most; `None` is all of them.
    pub connections: Option<NonZeroUsize>,
    /// How proxies are reached from here.
    pub ways: Ways,
    /// Who this host is; its certificate is in `tls`.
    pub host: HostIdentity,
    /// What is offered; the host's certificate must cover it.
    pub offer: Offer,
    /// Who serves the streams of each kind.
    pub services: HashMap<TargetKind, Arc<dyn StreamService>>,
    /// How the proxy is believed, and what is shown to it.
    pub tls: ClientTls,
    /// Tells the time for the state that is shown.
    pub clock: Arc<dyn Clock>,
    /// Spreads the retries.
    pub entropy: Arc<dyn Entropy>,
    /// Bounds of the link. Default [`Limits::client`].
    pub limits: Limits,
    /// What all links of the process may keep for being taken up again.
    pub replay: ReplayBudget,
}

/// How an agent stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentState {
    /// Makes a connection.
    Connecting,
    /// Registered: can be dialled.
    Connected {
        /// Since when.
        since: Timestamp,
    },
    /// The connection is lost; the streams wait for another one, which is being made.
    Suspended {
        /// Since when.
        since: Timestamp,
    },
    /// The last attempt or link failed; the next attempt is at `until`.
    Waiting {
        /// When.
        until: Timestamp,
        /// What failed.
        reason: Arc<str>,
    },
    /// Was shut down.
    Stopped,
}

/// One link of an agent, or the attempt to make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyLink {
    /// `host:port` that is dialled.
    pub address: String,
    /// Who was reached there.
    pub proxy: Option<HostId>,
    /// How it stands.
    pub state: AgentState,
}

/// Why an agent is not connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The TLS configuration is not possible.
    #[error(transparent)]
    Config(#[from] TlsConfigError),
    /// No connection, or a proxy that is not believed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Who answers is not believed after the handshake.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// This agent has a link to that proxy already; one of the two would displace the other.
    #[error("the proxy that answers is {proxy}, to which there is a link already")]
    Linked {
        /// Its host id.
        proxy: HostId,
    },
    /// The link failed.
    #[error("the tunnel ended: {0}")]
    Link(#[from] CloseReason),
    /// The registration cannot be sent.
    #[error("the registration cannot be sent")]
    Open(#[from] OpenError),
    /// The reply cannot be read.
    #[error("the proxy's reply to the registration cannot be read")]
    Reply(#[from] DialHeaderError),
    /// The proxy does not take this agent.
    #[error("the proxy refused the agent: {message}")]
    Refused {
        /// Its explanation.
        message: String,
    },
    /// Took too long.
    #[error("the proxy did not finish the connection within {} s", SETUP_DEADLINE.as_secs())]
    Timeout,
}

impl AgentError {
    /// Whether the next attempt may succeed without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Config(_) | Self::Refused { .. } => false,
            Self::Connect(cause) => cause.is_transient(),
            Self::Peer(_) | Self::Linked { .. } | Self::Link(_) | Self::Open(_) | Self::Reply(_) | Self::Timeout => {
                true
            }
        }
    }
}

/// A running agent. Dropping it cuts its links.
#[derive(Debug)]
pub struct Agent {
    fleet: Arc<Fleet>,
}

impl Agent {
    /// Starts on the current runtime.
    #[must_use]
    pub fn start(config: AgentConfig) -> Self {
        let fleet = Fleet::new(config);
        fleet.spawn_missing();
        Self { fleet }
    }

    /// How it stands, now and later: connected as soon as one of its links is.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<AgentState> {
        self.fleet.state()
    }

    /// Its links, one by one.
    #[must_use]
    pub fn links(&self) -> watch::Receiver<Vec<ProxyLink>> {
        self.fleet.links()
    }

    /// What its links have carried since it was started, those that have ended included.
    #[must_use]
    pub fn counters(&self) -> AgentCounters {
        self.fleet.counters()
    }

    /// The way to the auth service through its links.
    #[must_use]
    pub fn auth(&self) -> AuthLinks {
        AuthLinks::new(Arc::downgrade(&self.fleet))
    }

    /// For who knows that what kept the agent out is over: called, the next attempt comes at once.
    pub fn retry(&self) -> impl Fn() + Send + Sync + 'static {
        let fleet = self.fleet.clone();
        move || fleet.retry()
    }

    /// For who knows that this machine is in another network now: every link makes another connection at once, and its streams go on there.
    pub fn network_changed(&self) {
        self.fleet.network_changed();
    }

    /// Takes no new streams; waits up to `deadline` for those that are open, then ends them.
    pub async fn shutdown(&self, deadline: Duration) {
        let ended = self.fleet.shutdown(deadline);
        // The links end by themselves at the deadline; a service that hangs with a closed stream is not waited for.
        let _ = timeout(deadline + Duration::from_secs(2), ended).await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.fleet.cut();
    }
}

impl fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentConfig").field("proxy", &self.proxy).field("offer", &self.offer).finish_non_exhaustive()
    }
}

/// Connecting, handshake and registration together.
const SETUP_DEADLINE: Duration = Duration::from_secs(40);
