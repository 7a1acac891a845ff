//! The agent's side of named services: ends the caller's TLS session, verifies who it is, and gives the connection to whoever listens
//! under the name. Owns the names that are listened under. What a caller may do, its listener decides: it knows who it is.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::Stream;
use remoteler_core::{
    AuditKind, AuditSink, EndReason, HostIdentity, LiveGuard, LiveWork, LockContext, Subject, Terms, UserIdentity,
    Verified, X509Purpose,
};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{ADMITTED, ALPN_SERVICE, ServiceAddress, ServiceName, ServiceNameError};
use crate::connect::connect_configured;
use crate::dial::DialHeader;
use crate::relay::relay;
use crate::router::StreamService;
use crate::stream::BoxedStream;
use crate::tls::{ClientAuth, ServerTls, TlsConfigError, verified_peer};

/// The services of one agent. Give it to the agent for [`crate::TargetKind::Service`].
pub struct Services {
    host: HostIdentity,
    tls: ServerTls,
    config: Arc<rustls::ServerConfig>,
    live: Arc<LiveWork>,
    audit: Arc<dyn AuditSink>,
    listeners: Mutex<BTreeMap<ServiceName, mpsc::Sender<ServiceConnection>>>,
}

/// Why nobody listens under a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// No name.
    #[error(transparent)]
    Name(#[from] ServiceNameError),
    /// Somebody does already.
    #[error("this agent listens under {name} already; drop the other listener first")]
    Taken {
        /// The name.
        name: ServiceName,
    },
}

/// Who is calling, as the user authority of the cluster certified it.
#[derive(Clone, Debug)]
pub struct Caller {
    identity: UserIdentity,
    certificate: CertificateDer<'static>,
    address: Option<SocketAddr>,
}

impl Caller {
    /// Name, roles, traits and cluster.
    #[must_use]
    pub fn identity(&self) -> &UserIdentity {
        &self.identity
    }

    /// Name of the user.
    #[must_use]
    pub fn user(&self) -> &str {
        self.identity.user.as_str()
    }

    /// Whether the certificate says this role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.identity.roles.iter().any(|held| held.as_str() == role)
    }

    /// The certificate that was shown, in DER.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Where the user comes from, as the proxy says. A claim, for logs.
    #[must_use]
    pub fn claimed_address(&self) -> Option<SocketAddr> {
        self.address
    }
}

/// A connection to a service. It ends by itself when the caller is locked, their certificate is revoked or its time is over.
pub struct ServiceConnection {
    stream: TlsStream<BoxedStream>,
    caller: Arc<Caller>,
    over: Pin<Box<dyn Future<Output = EndReason> + Send>>,
    ended: bool,
    _live: LiveGuard,
}

impl ServiceConnection {
    /// Who is calling.
    #[must_use]
    pub fn peer(&self) -> &Arc<Caller> {
        &self.caller
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.ended
            && let Poll::Ready(reason) = self.over.as_mut().poll(cx)
        {
            tracing::info!(user = self.caller.user(), %reason, "a connection to a service is ended");
            self.ended = true;
        }
        if self.ended {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the caller is not admitted any more"));
        }
        Ok(())
    }
}

impl fmt::Debug for ServiceConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceConnection").field("user", &self.caller.user()).finish_non_exhaustive()
    }
}

impl AsyncRead for ServiceConnection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_over(cx)?;
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ServiceConnection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_over(cx)?;
        Pin::new(&mut this.stream).poll_write(cx, octets)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Gives the connections that are made to one service. Dropping it takes the name back.
pub struct ServiceListener {
    name: ServiceName,
    address: ServiceAddress,
    connections: mpsc::Receiver<ServiceConnection>,
    services: Weak<Services>,
}

impl ServiceListener {
    /// The next connection; `None` when the agent is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn accept(&mut self) -> Option<ServiceConnection> {
        self.connections.recv().await
    }

    /// What users dial.
    #[must_use]
    pub fn address(&self) -> &ServiceAddress {
        &self.address
    }
}

/// Connections as hyper and tonic take them; never fails.
impl Stream for ServiceListener {
    type Item = io::Result<ServiceConnection>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().connections.poll_recv(cx).map(|next| next.map(Ok))
    }
}

impl fmt::Debug for ServiceListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceListener").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for ServiceListener {
    fn drop(&mut self) {
        if let Some(services) = self.services.upgrade() {
            services.lock().remove(&self.name);
        }
    }
}

impl Services {
    /// Nobody listens yet. `tls` shows the host's certificate; `live` has the rules that callers are judged by; `audit` hears of each
    /// connection before it is given away, and where it does not take the event, the connection is not.
    ///
    /// # Errors
    /// [`TlsConfigError`] when rustls refuses the configuration.
    pub fn new(
        host: HostIdentity,
        tls: ServerTls,
        live: Arc<LiveWork>,
        audit: Arc<dyn AuditSink>,
    ) -> Result<Arc<Self>, TlsConfigError> {
        let config = tls.own_protocol(ALPN_SERVICE, ClientAuth::Required)?;
        Ok(Arc::new(Self { host, tls, config, live, audit, listeners: Mutex::default() }))
    }

    /// Listens under `name`: at most 64 connections wait to be taken, more are turned away.
    ///
    /// # Errors
    /// [`ListenError`] when that is no name or is taken.
    pub fn listen(self: &Arc<Self>, name: &str) -> Result<ServiceListener, ListenError> {
        let name = ServiceName::new(name)?;
        let (sender, connections) = mpsc::channel(BACKLOG);
        let mut listeners = self.lock();
        if listeners.contains_key(&name) {
            return Err(ListenError::Taken { name });
        }
        listeners.insert(name.clone(), sender);
        drop(listeners);
        let address = ServiceAddress { service: name.clone(), host: self.host.name.as_str().into() };
        Ok(ServiceListener { name, address, connections, services: Arc::downgrade(self) })
    }

    /// Listens under `name` and passes each connection on to `host:port`, until the future is dropped. Nobody but whoever configured this
    /// agent names that address, and a name leads into this machine or onto its link for nobody but `localhost` (I29).
    ///
    /// # Errors
    /// [`ListenError`], before anything is passed on.
    pub fn forward(
        self: &Arc<Self>,
        name: &str,
        to: &str,
    ) -> Result<impl Future<Output = ()> + Send + use<>, ListenError> {
        let (mut listener, to) = (self.listen(name)?, to.to_owned());
        Ok(async move {
            let mut passing = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    next = listener.accept() => match next {
                        Some(connection) => drop(passing.spawn(pass_on(connection, to.clone()))),
                        None => return,
                    },
                    Some(_) = passing.join_next() => {}
                }
            }
        })
    }

    async fn admit(&self, stream: BoxedStream, header: &DialHeader) -> Option<ServiceConnection> {
        let mut stream = match TlsAcceptor::from(self.config.clone()).accept(stream).await {
            Ok(stream) => stream,
            Err(cause) => {
                tracing::info!(target = %header.target, %cause, "a caller of a service is not believed");
                return None;
            }
        };
        let shown = stream.get_ref().1.peer_certificates();
        let certificate = shown.and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned())?;
        let user = match verified_peer(shown, &*self.tls.trust, X509Purpose::Client, &*self.tls.clock) {
            Ok(Verified::User(user)) => user,
            Ok(Verified::Host(host)) => {
                tracing::info!(host = %host.identity().id, "a host called a service; only users may");
                return None;
            }
            Err(cause) => {
                tracing::info!(target = %header.target, %cause, "a caller of a service is not believed");
                return None;
            }
        };
        let name = Some(self.host.name.as_str());
        let context = LockContext::of_user(&user).host(name, Some(self.host.id));
        let allowed = self.live.policy().policy().check_locks(&context).map_err(|locked| locked.to_string());
        let allowed = allowed.and_then(|()| {
            let subject = Subject::user(&user).at(name, Some(self.host.id));
            let terms = Terms { grace: GRACE, ..Terms::default() };
            self.live.enter(subject, terms).map_err(|reason| reason.to_string())
        });
        let event = AuditKind::ServiceConnect {
            user: user.identity().user.to_string(),
            service: header.target.name.to_string(),
            server_id: self.host.id.to_string(),
            success: allowed.is_ok(),
            error: allowed.as_ref().err().cloned(),
            remote: header.client_addr.map(|address| address.to_string()),
        };
        if let Err(cause) = self.audit.record(event).await {
            tracing::warn!(%cause, "a connection to a service cannot be recorded and is turned away");
            return None;
        }
        let live = match allowed {
            Ok(live) => live,
            Err(reason) => {
                tracing::info!(user = %user.identity().user, reason, "a caller of a service was turned away");
                return None;
            }
        };
        stream.write_u8(ADMITTED).await.ok()?;
        stream.flush().await.ok()?;
        let signal = live.signal();
        let caller = Caller { identity: user.identity().clone(), certificate, address: header.client_addr };
        let over = Box::pin(async move { signal.ended().await });
        Some(ServiceConnection { stream, caller: Arc::new(caller), over, ended: false, _live: live })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceName, mpsc::Sender<ServiceConnection>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StreamService for Services {
    async fn serve(&self, stream: BoxedStream, header: DialHeader) {
        let Ok(address) = header.target.name.as_str().parse::<ServiceAddress>() else { return };
        let listener = self.lock().get(&address.service).cloned();
        let Some(listener) = listener else {
            tracing::debug!(%address, "nobody listens under the name that was dialled");
            return;
        };
        if let Ok(Some(connection)) = timeout(HANDSHAKE, Box::pin(self.admit(stream, &header))).await
            && listener.try_send(connection).is_err()
        {
            tracing::warn!(%address, "the service does not take its connections, one was turned away");
        }
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("listeners", &self.lock().keys()).finish_non_exhaustive()
    }
}

async fn pass_on(mut connection: ServiceConnection, to: String) {
    match connect_configured(&to, CONNECT).await {
        Ok(mut socket) => drop(relay(&mut connection, &mut socket).await),
        Err(cause) => tracing::warn!(%cause, "what a service passes its connections on to cannot be reached"),
    }
}

const BACKLOG: usize = 64;
const HANDSHAKE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(10);
/// A service says nothing to those whose time is over.
const GRACE: Duration = Duration::ZERO;
