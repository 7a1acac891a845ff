//! The Kubernetes service: its clusters, and the door through which connections come in. Owns no listener and no task; whoever has a
//! stream calls [`KubeService::serve_stream`] and owns the future.

use std::{collections::BTreeMap, sync::Arc};

use remoteler_core::{AuditSink, Clock, ClusterName, HostId, KubeClusterName, KubeRecord, Labels, LiveWork, Timestamp};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{ServeError, serve},
    pool::Pool,
    route::{Site, Sites},
    upstream::Upstream,
};

/// What a service stands for.
#[derive(Clone, Debug)]
pub struct KubeServiceConfig {
    /// The cluster whose users it serves; the second part of every URL's path.
    pub cluster: ClusterName,
    /// The host it runs on.
    pub host_id: HostId,
    /// The Kubernetes clusters behind it.
    pub clusters: Vec<KubeClusterConfig>,
    /// Version of the program, for the inventory.
    pub version: String,
}

/// One Kubernetes cluster.
#[derive(Clone, Debug)]
pub struct KubeClusterConfig {
    /// What it is called.
    pub name: KubeClusterName,
    /// What roles match against.
    pub labels: Labels,
    /// Its API server.
    pub upstream: Upstream,
}

/// Why a service cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KubeServiceError {
    /// Two clusters of one name.
    #[error("Kubernetes cluster {0} is configured twice; names must be unique within a cluster")]
    DuplicateName(KubeClusterName),
    /// I14: a resumed TLS session skips the look at the certificate.
    #[error("the TLS configuration hands out session tickets; turn them off where client certificates decide")]
    Resumption,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) sites: Arc<Sites>,
    pub(crate) tls: Arc<ServerConfig>,
    /// Also says by which rules is decided.
    pub(crate) live: Arc<LiveWork>,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) drain: CancellationToken,
}

/// Serves users of one cluster in front of API servers. Cheap to clone.
#[derive(Clone)]
pub struct KubeService {
    shared: Arc<Shared>,
    host_id: HostId,
    version: Arc<str>,
}

impl KubeService {
    /// Makes the service. `tls` asks clients for a certificate; whether it verifies it already or leaves that to the look this service
    /// takes after the handshake, the certificate is verified by core's function before a request is read. The service decides by the rules of `live`,
    /// and the requests under way are part of it.
    ///
    /// # Errors
    /// [`KubeServiceError`]
    pub fn new(
        config: KubeServiceConfig,
        tls: Arc<ServerConfig>,
        live: Arc<LiveWork>,
        audit: Arc<dyn AuditSink>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KubeServiceError> {
        if tls.send_tls13_tickets != 0 || tls.session_storage.can_cache() || tls.ticketer.enabled() {
            return Err(KubeServiceError::Resumption);
        }
        let KubeServiceConfig { cluster, host_id, clusters, version } = config;
        let mut by_name = BTreeMap::new();
        for KubeClusterConfig { name, labels, upstream } in clusters {
            let server_name = name.server_name(&cluster);
            let record = KubeRecord {
                host_id,
                name: name.clone(),
                labels,
                addr: None,
                version: version.clone(),
                last_seen: Timestamp::default(),
                heartbeat: Default::default(),
            };
            let site = Arc::new(Site { record, server_name, upstream, pool: Pool::default() });
            if by_name.insert(name.clone(), site).is_some() {
                return Err(KubeServiceError::DuplicateName(name));
            }
        }
        let sites = Arc::new(Sites { cluster, by_name });
        let shared = Shared { sites, tls, live, audit, clock, drain: CancellationToken::new() };
        Ok(Self { shared: Arc::new(shared), host_id, version: version.into() })
    }

    /// Serves one connection: `stream` is the TLS of a Kubernetes client from its first octet, `client_addr` where it came from, for the
    /// audit log. Returns when the connection has ended, upgraded ones included.
    ///
    /// # Errors
    /// [`ServeError`], for the log: the client knows already.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection and those it uses upstream.
    pub async fn serve_stream<S>(&self, stream: S, client_addr: Option<String>) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        serve(self.shared.clone(), stream, client_addr).await
    }

    /// What the service announces, as of now.
    #[must_use]
    pub fn records(&self) -> Vec<KubeRecord> {
        let last_seen = self.shared.clock.now();
        self.shared.sites.by_name.values().map(|site| KubeRecord { last_seen, ..site.record.clone() }).collect()
    }

    /// Lets running requests and upgraded connections finish and takes no further requests. Cannot be undone.
    pub fn drain(&self) {
        self.shared.drain.cancel();
    }

    /// The host it runs on.
    #[must_use]
    pub const fn host_id(&self) -> HostId {
        self.host_id
    }

    /// Version of the program, as announced.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}
