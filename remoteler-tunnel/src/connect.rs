//! Makes TCP and TLS connections: every address of a name is tried, each for a part of the time, and the socket is set up for small
//! frames. Owns no connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::handshake_failure;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name has no address.
    #[error("the name in {address} cannot be resolved")]
    Resolve {
        /// `host:port` that was asked for.
        address: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// All addresses refused.
    #[error("{address} cannot be reached, {tried} address(es) tried")]
    Connect {
        /// `host:port` that was asked for.
        address: String,
        /// How many addresses it has.
        tried: usize,
        /// The last failure.
        source: io::Error,
    },
    /// Somebody answered, and the TLS handshake failed.
    #[error("the TLS handshake with {address} failed: {reason}")]
    Handshake {
        /// `host:port` that was asked for.
        address: String,
        /// In words: why its certificate is refused here, or what it says about ours.
        reason: String,
        /// What TLS says.
        source: io::Error,
    },
}

/// Connects to `host:port` as [`connect_tcp`] does and makes the TLS handshake, both within 10 s. The host is sent as SNI when
/// it is a name; whom to believe is up to `config`.
///
/// # Errors
/// [`ConnectError`] naming the address and the reason. In TLS 1.3 a server that refuses our certificate says so only after the
/// handshake: the first read fails then, and [`handshake_failure`] puts that into words too.
pub async fn connect_tls(address: &str, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, ConnectError> {
    let deadline = Instant::now() + TLS_DEADLINE;
    let failed = |source: io::Error| ConnectError::Handshake {
        address: address.to_owned(),
        reason: handshake_failure(&source),
        source,
    };
    let stream = connect_tcp(address, TLS_DEADLINE).await?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|cause| failed(io::Error::new(io::ErrorKind::InvalidInput, cause)))?;
    match timeout_at(deadline, TlsConnector::from(config).connect(name, stream)).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(failed(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))),
    }
}

/// Connects to `host:port` within `within`. The name is resolved anew in each call. `TCP_NODELAY` is set: without it a small
/// frame may wait 40 ms for an acknowledgement.
///
/// # Errors
/// [`ConnectError`] when the name has no address or none of them answers in time.
pub async fn connect_tcp(address: &str, within: Duration) -> Result<TcpStream, ConnectError> {
    let deadline = Instant::now() + within;
    let resolve_error = |source| ConnectError::Resolve { address: address.to_owned(), source };
    let addresses: Vec<SocketAddr> = match timeout_at(deadline, lookup_host(address)).await {
        Ok(found) => found.map_err(resolve_error)?.take(MOST_ADDRESSES).collect(),
        Err(_) => return Err(resolve_error(io::ErrorKind::TimedOut.into())),
    };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for (index, candidate) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
        match timeout(share, TcpStream::connect(candidate)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(|source| ConnectError::Connect {
                    address: address.to_owned(),
                    tried: index + 1,
                    source,
                })?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(ConnectError::Connect { address: address.to_owned(), tried: addresses.len(), source: last })
}

const TLS_DEADLINE: Duration = Duration::from_secs(10);
const MOST_ADDRESSES: usize = 16;
