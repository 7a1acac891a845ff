//! The user's side of named services: through a proxy to the agent, and in that stream a TLS session with the agent itself. Owns the
//! two handshakes. The proxy must be one of the cluster, the other end the host that was asked for.

use std::fmt;
use std::time::Duration;

use remoteler_core::{ClusterName, SystemRole, Verified, X509Purpose};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::{ADMITTED, ALPN_SERVICE, ServiceAddress, ServiceNameError};
use crate::connect::{ConnectError, tls_over};
use crate::dial::{DialCode, DialHeader, DialHeaderError, DialReply, Target, TargetKind, read_dial_reply, write_dial};
use crate::listener::ALPN_SSH;
use crate::stream::BoxedStream;
use crate::tls::{ClientTls, PeerError, TlsConfigError, verified_peer};
use crate::ways::Ways;

/// Dials services as one user.
#[derive(Clone)]
pub struct ServiceDialer {
    proxy: String,
    cluster: ClusterName,
    tls: ClientTls,
    ways: Ways,
}

/// Why there is no connection to a service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceDialError {
    /// No address.
    #[error(transparent)]
    Address(#[from] ServiceNameError),
    /// No TLS configuration.
    #[error(transparent)]
    Config(#[from] TlsConfigError),
    /// The proxy, or the agent behind it, cannot be reached or is not believed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The proxy breaks off.
    #[error("the proxy did not answer the dial of {address}")]
    Reply {
        /// What was dialled.
        address: ServiceAddress,
        /// How.
        source: DialHeaderError,
    },
    /// The proxy refuses.
    #[error("{address} cannot be dialled: {message}")]
    Refused {
        /// What was dialled.
        address: ServiceAddress,
        /// For programs.
        code: DialCode,
        /// Its explanation.
        message: String,
    },
    /// Another host answers.
    #[error("another host answers for {address}")]
    OtherHost {
        /// What was dialled.
        address: ServiceAddress,
    },
    /// Who answers is not believed after the handshake.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Took too long.
    #[error("{address} did not answer within {} s", DEADLINE.as_secs())]
    Timeout {
        /// What was dialled.
        address: ServiceAddress,
    },
}

impl ServiceDialError {
    /// Whether another attempt may succeed without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Address(_) | Self::Config(_) | Self::OtherHost { .. } | Self::Peer(_) => false,
            Self::Connect(cause) => cause.is_transient(),
            Self::Reply { .. } | Self::Timeout { .. } => true,
            Self::Refused { code, .. } => {
                matches!(code, DialCode::Unreachable | DialCode::Timeout | DialCode::Busy | DialCode::Internal)
            }
        }
    }
}

impl ServiceDialer {
    /// Through the proxy at `proxy` (`host:port`) of `cluster`, as the user whose certificate `tls` shows.
    #[must_use]
    pub fn new(proxy: impl Into<String>, cluster: ClusterName, tls: ClientTls, ways: Ways) -> Self {
        Self { proxy: proxy.into(), cluster, tls, ways }
    }

    /// Dials `service@host`; the deadline is 30 s.
    ///
    /// # Errors
    /// [`ServiceDialError`]. A service under whose name nobody listens, or that does not admit the user, hangs up during the handshake.
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped future leaves nothing behind.
    pub async fn dial(&self, address: &str) -> Result<TlsStream<BoxedStream>, ServiceDialError> {
        let address: ServiceAddress = address.parse()?;
        match timeout(DEADLINE, Box::pin(self.dial_address(&address))).await {
            Ok(result) => result,
            Err(_) => Err(ServiceDialError::Timeout { address }),
        }
    }

    async fn dial_address(&self, address: &ServiceAddress) -> Result<TlsStream<BoxedStream>, ServiceDialError> {
        let reply = |source| ServiceDialError::Reply { address: address.clone(), source };
        let outer = self.tls.to_cluster(&[SystemRole::Proxy], ALPN_SSH)?;
        let mut stream = self.ways.connect(&self.proxy, outer).await?;
        let name = address.target_name().map_err(|_| ServiceNameError::Host)?;
        let target = Target { cluster: self.cluster.clone(), kind: TargetKind::Service, name, port: None };
        write_dial(&mut stream, &DialHeader::new(target, None)).await.map_err(reply)?;
        if let DialReply::Refused { code, message } = read_dial_reply(&mut stream).await.map_err(reply)? {
            return Err(ServiceDialError::Refused { address: address.clone(), code, message });
        }
        let inner = self.tls.to_cluster(&[SystemRole::Node], ALPN_SERVICE)?;
        let stream: BoxedStream = Box::new(stream);
        let mut stream = tls_over(stream, &format!("{}:0", address.host), inner).await?;
        let shown = stream.get_ref().1.peer_certificates();
        match verified_peer(shown, &*self.tls.trust, X509Purpose::Server, &*self.tls.clock)? {
            Verified::Host(host) if address.is_at(host.identity()) => {}
            Verified::Host(_) | Verified::User(_) => {
                return Err(ServiceDialError::OtherHost { address: address.clone() });
            }
        }
        match stream.read_u8().await {
            Ok(ADMITTED) => Ok(stream),
            Ok(_) | Err(_) => {
                let message = "its agent does not admit this user".to_owned();
                Err(ServiceDialError::Refused { address: address.clone(), code: DialCode::Denied, message })
            }
        }
    }
}

impl fmt::Debug for ServiceDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceDialer").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

const DEADLINE: Duration = Duration::from_secs(30);
