//! The auth service's doors: its own port, the streams that a proxy passes on, and the local socket. TLS ends here; what was
//! proved in it becomes the caller. Where a client comes from is what this process saw, or what a verified proxy says (I69).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use remoteler_auth::{AuthService, Caller, HttpApi};
use remoteler_core::{AuditKind, AuditSink, Clock, SystemRole, Verified, X509Purpose, with_causes};
use remoteler_tunnel::{
    ALPN_AUTH, ALPN_AUTH_RELAY, Admission, AdmissionLimits, Admissions, AuthStreams, BoxedStream, ClientAuth,
    ClientTls, Connection, Origin, Replayed, ServerTls, TlsConfigError, TrustSource, Wire, connect_tcp, connect_tls,
    handshake_failure, is_certificate_failure, read_client_hello, read_origin, relay, until_somebody, verified_peer,
    watch_silence, write_origin,
};
use rustls::{ClientConfig, ServerConfig};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

/// How long a proxy tries to reach the auth service.
const CONNECT: std::time::Duration = std::time::Duration::from_secs(5);

/// Where connections for the auth service go.
#[derive(Clone)]
pub(crate) enum AuthDoor {
    /// To the service in this process.
    Here(Arc<AuthServer>),
    /// To the service's own port, inside a TLS session of this proxy: the bytes are copied undecrypted, after the client's address.
    Elsewhere {
        /// Of the auth service.
        addr: String,
        /// This proxy's side of the session.
        tls: Arc<ClientConfig>,
        /// For the log.
        outage: Outage,
    },
    /// To another proxy, which sees this one's address as the client's.
    ThroughProxy {
        /// Of that proxy.
        addr: String,
        /// For the log.
        outage: Outage,
    },
}

/// Whether the service was away the last time: the log says so once, however many ask. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Outage(Arc<AtomicBool>);

impl Outage {
    fn lasts(&self, cause: &str) {
        if self.0.swap(true, Ordering::Relaxed) {
            tracing::debug!(cause, "the auth service cannot be reached");
        } else {
            tracing::warn!(cause, "the auth service cannot be reached");
        }
    }

    fn is_over(&self) {
        if self.0.swap(false, Ordering::Relaxed) {
            tracing::info!("the auth service is reached again");
        }
    }
}

impl AuthDoor {
    /// The door of a proxy to the auth service at `addr`.
    pub(crate) fn elsewhere(addr: &str, tls: &ClientTls) -> Result<Self, TlsConfigError> {
        let tls = tls.to_cluster(&[SystemRole::Auth], ALPN_AUTH_RELAY)?;
        Ok(Self::Elsewhere { addr: addr.to_owned(), tls, outage: Outage::default() })
    }

    /// The door of a proxy that reaches the auth service through the proxy at `addr`.
    pub(crate) fn through_proxy(addr: &str) -> Self {
        Self::ThroughProxy { addr: addr.to_owned(), outage: Outage::default() }
    }

    /// Serves or relays one connection that begins with the ClientHello.
    pub(crate) async fn serve<S>(&self, stream: S, source: SocketAddr, admission: Admission)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.serve_from(stream, Origin { client: source, in_link: false }, admission).await;
    }

    async fn serve_from<S>(&self, mut stream: S, origin: Origin, admission: Admission)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match self {
            Self::Here(server) => server.serve(stream, origin, admission).await,
            Self::Elsewhere { addr, tls, outage } => {
                let reached = async {
                    let mut auth = connect_tls(addr, tls.clone()).await.map_err(|cause| with_causes(&cause))?;
                    watch_silence(auth.get_ref().0);
                    write_origin(&mut auth, origin).await.map_err(|cause| with_causes(&cause))?;
                    Ok::<_, String>(auth)
                };
                match reached.await {
                    Ok(mut auth) => {
                        outage.is_over();
                        // From here on the auth service's own deadlines hold.
                        admission.authenticated();
                        relay(&mut stream, &mut auth).await;
                    }
                    Err(cause) => outage.lasts(&cause),
                }
            }
            Self::ThroughProxy { addr, outage } => match connect_tcp(addr, CONNECT).await {
                Ok(auth) => {
                    outage.is_over();
                    watch_silence(&auth);
                    admission.authenticated();
                    relay(&mut stream, &mut Replayed::from(auth)).await;
                }
                Err(cause) => outage.lasts(&with_causes(&cause)),
            },
        }
    }
}

/// The same for streams inside the links of agents, each of which must begin as a client of the auth service does.
pub(crate) struct LinkDoor {
    door: AuthDoor,
    /// Those that are nobody yet to the auth service; each link has few, of a host that the proxy knows.
    admissions: Arc<Admissions>,
}

impl LinkDoor {
    pub(crate) fn new(door: AuthDoor) -> Self {
        let AdmissionLimits { deadline, total, .. } = AdmissionLimits::default();
        let limits = AdmissionLimits { deadline, total, per_source: total, per_customer: total };
        Self { door, admissions: Admissions::new(limits) }
    }
}

#[async_trait]
impl AuthStreams for LinkDoor {
    async fn serve(&self, stream: BoxedStream, source: SocketAddr) {
        let Some(admission) = self.admissions.admit(source.ip()) else {
            return tracing::debug!(%source, "too many streams to the auth service of nobody, one was turned away");
        };
        let deadline = Instant::now() + self.admissions.limits().deadline;
        let origin = Origin { client: source, in_link: true };
        let led = async {
            // Another proxy has one port for all, and what comes there comes from this one.
            match read_client_hello(stream).await {
                Ok((hello, stream)) if hello.alpn == [ALPN_AUTH.as_bytes()] => {
                    self.door.serve_from(stream, origin, admission.clone()).await;
                }
                Ok(_) => tracing::debug!(%source, "a stream to the auth service is for something else"),
                Err(cause) => tracing::debug!(%source, %cause, "a stream to the auth service was not begun"),
            }
        };
        until_somebody(led, admission.clone(), deadline).await;
    }
}

/// Ends TLS for the auth service.
pub(crate) struct AuthServer {
    http: HttpApi,
    /// The same for streams in links of agents.
    in_links: HttpApi,
    stop: CancellationToken,
    /// For clients.
    config: Arc<ServerConfig>,
    /// For the own port, where proxies come as well.
    port: Arc<ServerConfig>,
    /// Clients that proxies pass on and that are nobody yet.
    relayed: Arc<Admissions>,
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
        let http = HttpApi::new(service.clone());
        Ok(Arc::new(Self {
            config: tls.own_protocol(ALPN_AUTH, ClientAuth::Optional)?,
            port: tls.own_protocols(&[ALPN_AUTH, ALPN_AUTH_RELAY], ClientAuth::Optional)?,
            relayed: Admissions::new(AdmissionLimits::default()),
            trust: tls.trust.clone(),
            clock: tls.clock.clone(),
            audit,
            in_links: http.in_links(),
            http,
            stop,
        }))
    }

    /// Serves the local socket until the process stops.
    pub(crate) async fn serve_local(self: Arc<Self>, socket: UnixListener) {
        self.http.serve_unix(socket, self.stop.clone()).await;
    }

    /// Serves a connection to the service's own port: of a client, or of a proxy that passes one on.
    pub(crate) async fn accept(self: Arc<Self>, connection: Connection) {
        let Connection { stream, source, admission } = connection;
        if let Wire::Tcp(socket) = &stream {
            watch_silence(socket);
        }
        let Some((stream, peer)) = self.handshake(&self.port, Replayed::from(stream), source).await else { return };
        if stream.get_ref().1.alpn_protocol() == Some(ALPN_AUTH_RELAY.as_bytes()) {
            self.accept_relayed(stream, peer, source, admission).await;
        } else {
            self.answer(stream, peer, Origin { client: source, in_link: false }, admission).await;
        }
    }

    /// Serves a client whose bytes a proxy passes on, for the address that the proxy says. Nobody but a verified proxy is believed, and
    /// it is asked once: what comes inside is a client, never another proxy's word.
    async fn accept_relayed<S>(
        &self,
        mut stream: TlsStream<S>,
        peer: Option<Verified>,
        source: SocketAddr,
        admission: Admission,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let who = match peer {
            Some(Verified::Host(host)) if host.is(SystemRole::Proxy) => None,
            Some(Verified::Host(host)) => Some(host.identity().id.to_string()),
            Some(Verified::User(user)) => Some(user.identity().user.to_string()),
            None => Some(String::new()),
        };
        if let Some(who) = who {
            let reason = "only a proxy may say where a client comes from";
            return self.record_refusal(who, source, reason.into()).await;
        }
        let origin = match read_origin(&mut stream).await {
            Ok(origin) => origin,
            Err(cause) => return tracing::debug!(%source, %cause, "a proxy said no origin"),
        };
        admission.authenticated();
        let Some(admission) = self.relayed.admit(origin.client.ip()) else {
            return tracing::debug!(client = %origin.client, "too many connections of nobody through proxies, one was turned away");
        };
        let deadline = Instant::now() + self.relayed.limits().deadline;
        until_somebody(self.serve(stream, origin, admission.clone()), admission, deadline).await;
    }

    /// Serves a client's connection from its ClientHello on.
    async fn serve<S>(&self, stream: S, origin: Origin, admission: Admission)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if let Some((stream, peer)) = self.handshake(&self.config, stream, origin.client).await {
            self.answer(stream, peer, origin, admission).await;
        }
    }

    /// TLS, and who the peer is if it shows a certificate. Refusals are recorded.
    async fn handshake<S>(
        &self,
        config: &Arc<ServerConfig>,
        stream: S,
        source: SocketAddr,
    ) -> Option<(TlsStream<S>, Option<Verified>)>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = match TlsAcceptor::from(config.clone()).accept(stream).await {
            Ok(stream) => stream,
            Err(cause) => {
                tracing::debug!(%source, %cause, "TLS handshake failed");
                if is_certificate_failure(&cause) {
                    self.record_refusal(String::new(), source, handshake_failure(&cause)).await;
                }
                return None;
            }
        };
        let verified = match stream.get_ref().1.peer_certificates() {
            None => None,
            some => match verified_peer(some, &*self.trust, X509Purpose::Client, &*self.clock) {
                Ok(verified) => Some(verified),
                Err(cause) => {
                    self.record_refusal(String::new(), source, with_causes(&cause)).await;
                    return None;
                }
            },
        };
        Some((stream, verified))
    }

    /// Answers the requests of a client.
    async fn answer<S>(&self, stream: TlsStream<S>, peer: Option<Verified>, origin: Origin, admission: Admission)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // An anonymous caller keeps its deadline: it may join, log in and ask who is here, and none of that takes long.
        if peer.is_some() {
            admission.authenticated();
        }
        let stream: BoxedStream = Box::new(stream);
        let caller = Caller::from_tls(peer, origin.client);
        let http = if origin.in_link { &self.in_links } else { &self.http };
        if let Err(cause) = http.serve_connection(stream, caller, self.stop.clone()).await {
            tracing::debug!(source = %origin.client, %cause, "an API connection ended");
        }
    }

    async fn record_refusal(&self, user: String, source: SocketAddr, error: String) {
        let remote = Some(source.to_string());
        let event = AuditKind::AuthAttempt { user, service: "auth".into(), login: None, error, remote };
        if let Err(cause) = self.audit.record(event).await {
            tracing::warn!(%cause, "a refused connection is not in the audit log");
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(all(test, not(feature = "saml")))]
mod without_saml;
