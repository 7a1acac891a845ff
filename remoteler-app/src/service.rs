//! The app service: its apps, and the door through which connections come in. It ends the user's TLS connection, verifies the certificate, decides by role,
//! records, and forwards with a signed word about who asks. Owns no listener and no task but those of its connections to apps; whoever has a stream calls
//! [`AppService::serve_stream`] and owns the future. Never speaks to the auth service itself: what it needs from there it is given.

mod assertion;
mod body;
mod connection;
mod forward;
mod limit;
mod peer;
mod refusal;
mod relay;
mod sessions;
mod upstream;

use std::{collections::BTreeMap, sync::Arc};

use remoteler_core::{AppName, AppRecord, AuditSink, Clock, ClusterName, HostId, Labels, LiveWork, Timestamp};
use rustls::ServerConfig;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use self::sessions::Sessions;
pub use self::{
    assertion::Assertions,
    connection::ServeError,
    sessions::EndedSessions,
    upstream::{AppUri, AppUriError},
};

/// What a service stands for.
#[derive(Clone, Debug)]
pub struct AppServiceConfig {
    /// The cluster whose users it serves.
    pub cluster: ClusterName,
    /// The host it runs on.
    pub host_id: HostId,
    /// The apps behind it.
    pub apps: Vec<AppConfig>,
    /// Version of the program, for the inventory.
    pub version: String,
}

/// One app.
#[derive(Clone, Debug)]
pub struct AppConfig {
    /// What it is called.
    pub name: AppName,
    /// Where it is inside.
    pub uri: AppUri,
    /// The name under which browsers reach it; absent: its name below that of the proxy.
    pub public_addr: Option<String>,
    /// What roles match against.
    pub labels: Labels,
}

/// Why a service cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppServiceError {
    /// Two apps of one name.
    #[error("app {0} is configured twice; names must be unique within a cluster")]
    DuplicateName(AppName),
    /// I14: a resumed TLS session skips the look at the certificate.
    #[error("the TLS configuration hands out session tickets; turn them off where client certificates decide")]
    Resumption,
}

/// What a service asks the auth service.
#[derive(Clone)]
pub struct AuthQuestions {
    /// For the signed word about who asks.
    pub assertions: Assertions,
    /// Which sessions have ended.
    pub ended: EndedSessions,
}

/// One app, as connections see it.
struct Site {
    record: AppRecord,
    uri: AppUri,
}

/// What all connections share.
struct Shared {
    /// By TLS server name.
    sites: BTreeMap<String, Arc<Site>>,
    tls: Arc<ServerConfig>,
    /// Also says by which rules is decided.
    live: Arc<LiveWork>,
    audit: Arc<dyn AuditSink>,
    clock: Arc<dyn Clock>,
    assertions: Assertions,
    sessions: Sessions,
    kept: assertion::AllKept,
    drain: CancellationToken,
}

/// Serves users of one cluster in front of apps. Cheap to clone.
#[derive(Clone)]
pub struct AppService {
    shared: Arc<Shared>,
}

impl AppService {
    /// Makes the service. `tls` asks clients for a certificate; whether it verifies it already or leaves that to the look this service
    /// takes after the handshake, the certificate is verified by core's function before a request is read. The service decides by the rules of `live`,
    /// and the requests under way are part of it.
    ///
    /// # Errors
    /// [`AppServiceError`]
    pub fn new(
        config: AppServiceConfig,
        tls: Arc<ServerConfig>,
        live: Arc<LiveWork>,
        audit: Arc<dyn AuditSink>,
        clock: Arc<dyn Clock>,
        auth: AuthQuestions,
    ) -> Result<Self, AppServiceError> {
        if tls.send_tls13_tickets != 0 || tls.session_storage.can_cache() || tls.ticketer.enabled() {
            return Err(AppServiceError::Resumption);
        }
        let AppServiceConfig { cluster, host_id, apps, version } = config;
        let mut sites = BTreeMap::new();
        for AppConfig { name, uri, public_addr, labels } in apps {
            let server_name = name.server_name(&cluster);
            let record = AppRecord {
                host_id,
                name: name.clone(),
                public_addr,
                labels,
                addr: None,
                version: version.clone(),
                last_seen: Timestamp::default(),
                heartbeat: Default::default(),
            };
            if sites.insert(server_name, Arc::new(Site { record, uri })).is_some() {
                return Err(AppServiceError::DuplicateName(name));
            }
        }
        let (kept, drain) = (assertion::AllKept::default(), CancellationToken::new());
        let AuthQuestions { assertions, ended } = auth;
        let sessions = Sessions::new(ended, live.clone());
        let shared = Shared { sites, tls, live, audit, clock, assertions, sessions, kept, drain };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Serves one connection: `stream` is the TLS of a client from its first octet, `client` where it came from. Returns when the connection has ended,
    /// upgraded ones included.
    ///
    /// # Errors
    /// [`ServeError`], for the log: the client knows already.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection and those it uses upstream.
    pub async fn serve_stream<S>(&self, stream: S, client: Option<std::net::SocketAddr>) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        connection::serve(self.shared.clone(), stream, client).await
    }

    /// Follows the sessions of browsers in which there is work here, for as long as the future lives: what ends one ends its work within seconds. One for each
    /// service; without it no request in such a session is answered.
    pub async fn watch_sessions(&self) {
        self.shared.sessions.watch().await;
    }

    /// What the service announces, as of now.
    #[must_use]
    pub fn records(&self) -> Vec<AppRecord> {
        let last_seen = self.shared.clock.now();
        self.shared.sites.values().map(|site| AppRecord { last_seen, ..site.record.clone() }).collect()
    }

    /// Lets running requests and upgraded connections finish and takes no further requests. Cannot be undone.
    pub fn drain(&self) {
        self.shared.drain.cancel();
    }
}
