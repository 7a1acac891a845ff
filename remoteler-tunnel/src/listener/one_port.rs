//! The proxy's one port: reads each ClientHello, decides its route, ends TLS where it ends here. Owns the TLS configurations
//! of the port. Hands finished connections to a handler, and every refusal too, for the audit log.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use remoteler_core::{ClusterName, Verified, X509Purpose};
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::accept::Connection;
use super::admission::Admission;
use super::client_hello::{HelloError, read_client_hello};
use super::gate::Gate;
use super::route::{ALPN_SSH, ALPN_TUNNEL, Route, RouteError, route};
use crate::connect::{keep_little_unsent, watch_silence};
use crate::read_ahead::ReadAhead;
use crate::stream::Replayed;
use crate::tls::{
    ClientAuth, PeerError, ServerTls, SharedTlsIdentity, TlsConfigError, verified_peer, web_server_config,
};
use crate::wire::Wire;

/// A connection to the one port.
pub type Socket = Replayed<Wire>;

/// A connection whose route is known, and whose peer where TLS ends here.
#[derive(Debug)]
pub enum Routed {
    /// A dial for SSH. The handler reads the dial header.
    Ssh {
        /// After the handshake.
        stream: Box<TlsStream<ReadAhead<Socket>>>,
        /// Who it is.
        peer: Verified,
    },
    /// An agent's link. The handler checks that the peer is a host.
    Tunnel {
        /// After the handshake.
        stream: Box<TlsStream<ReadAhead<Socket>>>,
        /// Who it is.
        peer: Verified,
    },
    /// For the auth service, undecrypted, ClientHello first.
    Auth(Socket),
    /// For the Kubernetes service of that server name, undecrypted, ClientHello first.
    Kube {
        /// The SNI, in lower case.
        server_name: String,
        /// With the ClientHello first.
        stream: Socket,
    },
    /// For the app service of that server name, undecrypted, ClientHello first.
    App {
        /// The SNI, in lower case.
        server_name: String,
        /// With the ClientHello first.
        stream: Socket,
    },
    /// For the web API, and for browsers that come to an app. The peer is nobody.
    Web(Box<TlsStream<ReadAhead<Socket>>>),
}

/// Why a connection to the one port was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No ClientHello.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// Nobody speaks that here.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The handshake failed: mostly a certificate that is not believed, told by the source.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[source] io::Error),
    /// The peer's certificate was refused after the handshake.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// More agents come at once than this proxy lets wait. They come again.
    #[error("too many agents connect at once")]
    Crowded,
}

/// Who serves what comes in.
#[async_trait]
pub trait RouteHandler: Send + Sync + 'static {
    /// Serves one connection to its end. Must call [`Admission::authenticated`] when the peer is somebody (a dial was
    /// allowed, a login was made) or when somebody else limits it (a relay); otherwise the connection ends at the deadline.
    async fn serve(&self, connection: Routed, source: SocketAddr, admission: Admission);

    /// Hears of a connection that was refused.
    async fn refused(&self, source: SocketAddr, route: Option<&Route>, refusal: &Refusal);
}

/// The one port's routes.
pub struct OnePort<H> {
    cluster: ClusterName,
    tls: ServerTls,
    ssh: Arc<ServerConfig>,
    tunnel: Arc<ServerConfig>,
    web: Arc<ServerConfig>,
    /// Of the handshakes of agents.
    agents: Gate,
    handler: H,
}

impl<H: RouteHandler> OnePort<H> {
    /// `tls` is the proxy's host identity and whom it believes; `web` is what browsers see.
    ///
    /// # Errors
    /// [`TlsConfigError`] when rustls refuses a configuration.
    pub fn new(
        cluster: ClusterName,
        tls: ServerTls,
        web: &Arc<SharedTlsIdentity>,
        handler: H,
    ) -> Result<Self, TlsConfigError> {
        Ok(Self {
            cluster,
            ssh: tls.own_protocol(ALPN_SSH, ClientAuth::Required)?,
            tunnel: tls.own_protocol(ALPN_TUNNEL, ClientAuth::Required)?,
            web: web_server_config(web)?,
            tls,
            agents: Gate::new(),
            handler,
        })
    }

    /// Serves one connection; the handler of [`super::serve`].
    pub async fn handle(&self, connection: Connection) {
        let Connection { stream, source, admission } = connection;
        let mut chosen = None;
        // In a box of its own: the handshake's state is many times what an idle connection keeps, and is given back after it.
        let serving = match Box::pin(self.classify(stream, &mut chosen)).await {
            Ok(routed) => self.handler.serve(routed, source, admission),
            Err(refusal) => Box::pin(async move { self.handler.refused(source, chosen.as_ref(), &refusal).await }),
        };
        serving.await;
    }

    async fn classify(&self, stream: Wire, chosen: &mut Option<Route>) -> Result<Routed, Refusal> {
        let (greeting, stream) = read_client_hello(stream).await?;
        let route = route(&greeting.alpn, greeting.server_name.as_deref(), &self.cluster)?;
        if route == Route::Web && matches!(stream.io(), Wire::Inside(_)) {
            // A WebSocket carries our own protocols; one in another would have no end.
            return Err(RouteError::Protocol { offered: "a browser, inside of another connection".into() }.into());
        }
        *chosen = Some(route.clone());
        Ok(match route {
            Route::Ssh => {
                let (stream, peer) = self.mutual(&self.ssh, stream).await?;
                Routed::Ssh { stream, peer }
            }
            Route::Tunnel => {
                if let Wire::Tcp(socket) = stream.io() {
                    keep_little_unsent(socket);
                }
                let handshake = self.mutual(&self.tunnel, stream);
                let (stream, peer) = self.agents.pass(handshake).await.map_err(|_| Refusal::Crowded)??;
                Routed::Tunnel { stream, peer }
            }
            Route::Auth => {
                if let Wire::Tcp(socket) = stream.io() {
                    watch_silence(socket);
                }
                Routed::Auth(stream)
            }
            Route::Kube { server_name } => Routed::Kube { server_name, stream },
            Route::App { server_name } => Routed::App { server_name, stream },
            Route::Web => Routed::Web(handshake(&self.web, stream).await?),
        })
    }

    async fn mutual(
        &self,
        config: &Arc<ServerConfig>,
        stream: Socket,
    ) -> Result<(Box<TlsStream<ReadAhead<Socket>>>, Verified), Refusal> {
        let stream = handshake(config, stream).await?;
        let (_, session) = stream.get_ref();
        let peer = verified_peer(session.peer_certificates(), &*self.tls.trust, X509Purpose::Client, &*self.tls.clock)?;
        Ok((stream, peer))
    }
}

async fn handshake(config: &Arc<ServerConfig>, stream: Socket) -> Result<Box<TlsStream<ReadAhead<Socket>>>, Refusal> {
    let stream = TlsAcceptor::from(config.clone()).accept(ReadAhead::new(stream)).await.map_err(Refusal::Handshake)?;
    Ok(Box::new(stream))
}
