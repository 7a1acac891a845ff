//! The auth service's doors: its own port, the streams that a proxy passes on, and the local socket. TLS ends here; what was
//! proved in it becomes the caller.

use std::{net::SocketAddr, sync::Arc};

use remoteler_auth::{AuthService, Caller, HttpApi};
use remoteler_core::{AuditKind, AuditSink, Clock, X509Purpose, with_causes};
use remoteler_tunnel::{
    ALPN_AUTH, Admission, BoxedStream, ClientAuth, Connection, Replayed, ServerTls, TrustSource, connect_tcp,
    handshake_failure, is_certificate_failure, relay, verified_peer,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How long a proxy tries to reach the auth service.
const CONNECT: std::time::Duration = std::time::Duration::from_secs(5);

/// Where connections for the auth service go.
#[derive(Clone)]
pub(crate) enum AuthDoor {
    /// To the service in this process.
    Here(Arc<AuthServer>),
    /// To its address; the bytes are copied undecrypted.
    Elsewhere(String),
}

impl AuthDoor {
    /// Serves or relays one connection that begins with the ClientHello.
    pub(crate) async fn serve<S>(&self, mut stream: S, source: SocketAddr, admission: Admission)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match self {
            Self::Here(server) => server.serve(stream, source, admission).await,
            Self::Elsewhere(addr) => match connect_tcp(addr, CONNECT).await {
                Ok(auth) => {
                    // From here on the auth service's own deadlines hold.
                    admission.authenticated();
                    relay(&mut stream, &mut Replayed::from(auth)).await;
                }
                Err(cause) => tracing::warn!(%cause, "the auth service cannot be reached"),
            },
        }
    }
}

/// Ends TLS for the auth service.
pub(crate) struct AuthServer {
    http: HttpApi,
    stop: CancellationToken,
    config: Arc<ServerConfig>,
    trust: Arc<dyn TrustSource>,
    clock: Arc<dyn Clock>,
    audit: Arc<dyn AuditSink>,
}

impl AuthServer {
    pub(crate) fn new(
        service: &AuthService,
        tls: &ServerTls,
        audit: Arc<dyn AuditSink>,
        stop: CancellationToken,
    ) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            config: tls.own_protocol(ALPN_AUTH, ClientAuth::Optional)?,
            trust: tls.trust.clone(),
            clock: tls.clock.clone(),
            audit,
            http: HttpApi::new(service.clone()),
            stop,
        }))
    }

    /// Serves the local socket until the process stops.
    pub(crate) async fn serve_local(self: Arc<Self>, socket: UnixListener) {
        self.http.serve_unix(socket, self.stop.clone()).await;
    }

    /// Serves a connection to the service's own port.
    pub(crate) async fn accept(self: Arc<Self>, connection: Connection) {
        let Connection { stream, source, admission } = connection;
        self.serve(Replayed::from(stream), source, admission).await;
    }

    async fn serve<S>(&self, stream: S, source: SocketAddr, admission: Admission)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = match TlsAcceptor::from(self.config.clone()).accept(stream).await {
            Ok(stream) => stream,
            Err(cause) => {
                tracing::debug!(%source, %cause, "TLS handshake failed");
                if is_certificate_failure(&cause) {
                    self.record_refusal(source, handshake_failure(&cause)).await;
                }
                return;
            }
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let verified = match certificates {
            None => None,
            some => match verified_peer(some, &*self.trust, X509Purpose::Client, &*self.clock) {
                Ok(verified) => {
                    admission.authenticated();
                    Some(verified)
                }
                Err(cause) => return self.record_refusal(source, with_causes(&cause)).await,
            },
        };
        // An anonymous caller keeps its deadline: it may join, log in and ask who is here, and none of that takes long.
        let stream: BoxedStream = Box::new(stream);
        let caller = Caller::from_tls(verified, source);
        if let Err(cause) = self.http.serve_connection(stream, caller, self.stop.clone()).await {
            tracing::debug!(%source, %cause, "an API connection ended");
        }
    }

    async fn record_refusal(&self, source: SocketAddr, error: String) {
        let remote = Some(source.to_string());
        let event = AuditKind::AuthAttempt { user: String::new(), service: "auth".into(), login: None, error, remote };
        if let Err(cause) = self.audit.record(event).await {
            tracing::warn!(%cause, "a refused connection is not in the audit log");
        }
    }
}
