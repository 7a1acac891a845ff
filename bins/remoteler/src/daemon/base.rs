//! What every service of a process stands on: who this host is, whom it believes, where its events go, and its handle on the
//! auth service, which is in this process or elsewhere.

mod elsewhere;
#[cfg(feature = "server")]
mod here;
#[cfg(feature = "server")]
mod keys;
mod loan;
#[cfg(feature = "server")]
mod pods;

use std::sync::Arc;

use anyhow::bail;
#[cfg(feature = "server")]
use remoteler_auth::AuthService;
use remoteler_client::{HostKeeper, LateLinks};
#[cfg(feature = "server")]
use remoteler_core::AuthApi;
#[cfg(not(feature = "server"))]
use remoteler_core::HostApi;
use remoteler_core::{BoundedRefusals, Clock, Entropy, LiveWork, PolicySource};
#[cfg(any(feature = "server", feature = "kube", feature = "app"))]
use remoteler_tunnel::ServerTls;
use remoteler_tunnel::{ClientTls, PolicyTrust};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::loan::{LentKeeper, LentSpool};
use crate::{config::Settings, handover::Predecessor, host::HostKeys, paths::DataDir};

/// The ground of one process.
pub(crate) struct Base {
    pub(crate) keys: HostKeys,
    pub(crate) policy: Arc<dyn PolicySource>,
    /// What runs by it in this process.
    pub(crate) live: Arc<LiveWork>,
    /// All events of this process; refusals within their budget.
    pub(crate) audit: Arc<BoundedRefusals>,
    pub(crate) api: Arc<Api>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) place: Place,
    /// Renews what the host shows; to be run while the services run.
    pub(crate) keeper: Option<HostKeeper>,
    /// Where the links go that lead to the auth service, once there are any.
    pub(crate) links: LateLinks,
    /// The spool, where the auth service is elsewhere.
    pub(crate) spool: Option<Arc<LentSpool>>,
}

/// What this process may ask of the auth service: everything, or as an agent alone what a host asks, which leaves the rest out of its program.
#[cfg(feature = "server")]
pub(crate) type Api = dyn AuthApi;
#[cfg(not(feature = "server"))]
pub(crate) type Api = dyn HostApi;

/// Where the auth service is.
pub(crate) enum Place {
    /// In this process.
    #[cfg(feature = "server")]
    Here(AuthService),
    /// Elsewhere, reached directly.
    Direct(String),
    /// Elsewhere, reached through this proxy.
    ThroughProxy(String),
}

impl Base {
    /// Opens the auth service, or joins the cluster of one.
    pub(crate) async fn new(
        settings: &Settings,
        data_dir: &DataDir,
        stop: &CancellationToken,
        senders: &TaskTracker,
        before: Option<&Predecessor>,
    ) -> anyhow::Result<Self> {
        #[cfg(not(feature = "server"))]
        if settings.auth.is_some() || settings.proxy.is_some() {
            bail!(
                "this program was built as an agent: it has no auth service and no proxy; join a cluster with --auth-server"
            );
        }
        match (&settings.auth, &settings.join) {
            #[cfg(feature = "server")]
            (Some(auth), _) => here::base(settings, auth, data_dir, stop).await,
            (_, Some(join)) => elsewhere::base(settings, join, data_dir, (stop, senders), before).await,
            (_, None) => bail!("neither an auth service here nor the address of one is configured"),
        }
    }

    /// How this process is a TLS server of the cluster.
    #[cfg(any(feature = "server", feature = "kube", feature = "app"))]
    pub(crate) fn server_tls(&self) -> ServerTls {
        ServerTls {
            identity: self.keys.shown.server.clone(),
            trust: Arc::new(PolicyTrust(self.policy.clone())),
            clock: self.clock.clone(),
        }
    }

    /// How this process is a TLS client of the cluster.
    pub(crate) fn client_tls(&self) -> ClientTls {
        ClientTls {
            identity: Some(self.keys.shown.client.clone()),
            trust: Arc::new(PolicyTrust(self.policy.clone())),
            clock: self.clock.clone(),
        }
    }
}
