//! An API server: where it is, how it is believed, and what we show it. Owns the dialling; never sends a request.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderValue, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::{credential::Credential, limit::MAX_HEADER_OCTETS, path::ApiPath, pool::Connection};

/// Resolving, TCP and TLS together.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// A watch may wait for hours; an API server that has vanished is noticed after about a minute of silence (RFC 9293 section 3.8.4).
fn notice_silence(tcp: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(tcp, true)?;
    #[cfg(target_os = "linux")]
    {
        sockopt::set_tcp_keepidle(tcp, Duration::from_secs(30))?;
        sockopt::set_tcp_keepintvl(tcp, Duration::from_secs(10))?;
        sockopt::set_tcp_keepcnt(tcp, 3)?;
    }
    Ok(())
}

/// Why an API server did not answer a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// It took too long.
    #[error("{what} took longer than allowed")]
    Timeout {
        /// What did.
        what: String,
    },
    /// No TCP connection.
    #[error("no connection to the API server at {address}")]
    Connect {
        /// Its `host:port`.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// TCP, but no TLS that we believe.
    #[error("no TLS with the API server at {address}; check its certificate authority in the kubeconfig")]
    Tls {
        /// Its `host:port`.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or what came was no HTTP.
    #[error("the API server at {address} broke off")]
    Http {
        /// Its `host:port`.
        address: String,
        /// Why.
        source: hyper::Error,
    },
    /// The client's own body broke while it was being sent on.
    #[error("the request's body broke off")]
    RequestBody(#[source] hyper::Error),
    /// The target cannot be written.
    #[error("the path cannot be sent to the API server at {address}")]
    Target {
        /// Its `host:port`.
        address: String,
        /// Why.
        source: http::Error,
    },
    /// 401: not the user but the service is refused.
    #[error("the API server at {address} refuses this service's credential; renew it in the kubeconfig")]
    Credential {
        /// Its `host:port`.
        address: String,
    },
    /// A switch of protocols that nobody asked for.
    #[error("the API server at {address} switched to another protocol than was asked for")]
    Switched {
        /// Its `host:port`.
        address: String,
    },
    /// The token file cannot be read.
    #[error("token file {} cannot be read", path.display())]
    TokenFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The token file holds no token.
    #[error("token file {} holds no token of visible characters", path.display())]
    Token {
        /// Which.
        path: PathBuf,
    },
}

impl UpstreamError {
    /// What the user may see: no addresses, no paths.
    pub(crate) const fn public(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "it took too long; try again",
            Self::Connect { .. } => "it cannot be reached; try again later",
            Self::Tls { .. } => "its certificate is not trusted by this service; an administrator must look",
            Self::Http { .. } => "it broke off the connection; try again",
            Self::RequestBody(_) => "the request's body broke off",
            Self::Target { .. } => "the path cannot be sent",
            Self::Switched { .. } => "it switched to another protocol than was asked for",
            Self::Credential { .. } | Self::TokenFile { .. } | Self::Token { .. } => {
                "this service's own credential is not accepted there; an administrator must renew it"
            }
        }
    }
}

/// An API server and how to reach it. Made by [`Upstream::from_kubeconfig`] or [`Upstream::in_cluster`]. Cheap to clone.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

/// The parts, as the kubeconfig reader found them.
pub(crate) struct Inner {
    /// Host name or address, without brackets.
    pub(crate) host: String,
    /// Port.
    pub(crate) port: u16,
    /// Path before every request's, without a `/` at its end.
    pub(crate) base_path: String,
    /// `Host` header.
    pub(crate) authority: HeaderValue,
    /// Name that the certificate must have.
    pub(crate) server_name: ServerName<'static>,
    /// Authorities believed, and our client certificate if that is the credential.
    pub(crate) tls: Arc<ClientConfig>,
    /// What we show.
    pub(crate) credential: Arc<Credential>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Upstream {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// `host:port`, for messages.
    #[must_use]
    pub fn address(&self) -> String {
        if self.0.host.contains(':') {
            format!("[{}]:{}", self.0.host, self.0.port)
        } else {
            format!("{}:{}", self.0.host, self.0.port)
        }
    }

    pub(crate) fn credential(&self) -> Arc<Credential> {
        self.0.credential.clone()
    }

    pub(crate) fn authority(&self) -> HeaderValue {
        self.0.authority.clone()
    }

    /// Path before every request's, without a `/` at its end.
    pub(crate) fn base_path(&self) -> &str {
        &self.0.base_path
    }

    /// The request target (origin form) for a path.
    pub(crate) fn target(&self, path: &ApiPath) -> Result<Uri, UpstreamError> {
        let target = format!("{}{path}", self.0.base_path);
        Uri::builder()
            .path_and_query(target)
            .build()
            .map_err(|source| UpstreamError::Target { address: self.address(), source })
    }

    /// A new connection, HTTP/1.1: every upgrade needs that, and a connection serves one identity anyway.
    pub(crate) async fn dial(&self) -> Result<Connection, UpstreamError> {
        let dialled = timeout(DIAL_DEADLINE, async {
            let connect = |source| UpstreamError::Connect { address: self.address(), source };
            let tcp = TcpStream::connect((self.0.host.as_str(), self.0.port)).await.map_err(connect)?;
            tcp.set_nodelay(true).map_err(connect)?;
            notice_silence(&tcp).map_err(connect)?;
            TlsConnector::from(self.0.tls.clone())
                .connect(self.0.server_name.clone(), tcp)
                .await
                .map_err(|source| UpstreamError::Tls { address: self.address(), source })
        });
        let tls = dialled
            .await
            .map_err(|_| UpstreamError::Timeout { what: format!("connecting to {}", self.address()) })??;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEADER_OCTETS)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(|source| self.broke_off(source))?;
        let address = self.address();
        let driver = tokio::spawn(async move {
            if let Err(cause) = connection.with_upgrades().await {
                tracing::debug!(address, %cause, "connection to the API server ended");
            }
        });
        Ok(Connection { sender, driver: AbortOnDropHandle::new(driver) })
    }

    pub(crate) fn broke_off(&self, source: hyper::Error) -> UpstreamError {
        // hyper calls the body that it is given the user's.
        if source.is_user() {
            return UpstreamError::RequestBody(source);
        }
        UpstreamError::Http { address: self.address(), source }
    }
}
