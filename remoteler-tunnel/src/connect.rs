//! Makes TCP and TLS connections: every address of a name is tried, each for a part of the time, and the socket is set up for small
//! frames. Owns no connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
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
    /// Somebody answered, and did not finish in time.
    #[error("{address} did not finish the TLS handshake within {} s", .within.as_secs())]
    Timeout {
        /// `host:port` that was asked for.
        address: String,
        /// The deadline.
        within: Duration,
    },
}

/// Connects to `host:port` as [`connect_tcp`] does and makes the TLS handshake, in 10 s each. The host is sent as SNI when it is a name;
/// whom to believe is up to `config`.
///
/// # Errors
/// [`ConnectError`] naming the address and the reason. In TLS 1.3 a server that refuses our certificate says so only after the
/// handshake: the first read fails then, and [`handshake_failure`] puts that into words too.
pub async fn connect_tls(address: &str, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, ConnectError> {
    let stream = connect_tcp(address, TLS_DEADLINE).await?;
    tls_over(stream, address, config).await
}

/// Makes the TLS handshake with `host:port` over a stream that leads there, in 10 s.
///
/// # Errors
/// As [`connect_tls`].
pub async fn tls_over<S>(stream: S, address: &str, config: Arc<ClientConfig>) -> Result<TlsStream<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match timeout(TLS_DEADLINE, TlsConnector::from(config).connect(server_name(address), stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) => {
            let reason = handshake_failure(&source);
            Err(ConnectError::Handshake { address: address.to_owned(), reason, source })
        }
        Err(_) => Err(ConnectError::Timeout { address: address.to_owned(), within: TLS_DEADLINE }),
    }
}

/// The name to send and, for web certificates, to compare. Where the cluster's own certificates are shown it decides nothing.
fn server_name(address: &str) -> ServerName<'static> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned())
        .unwrap_or_else(|_| ServerName::try_from("remoteler.invalid").expect("a DNS name, spelled out here"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_any_form_gives_a_server_name() {
        for (address, name) in [
            ("proxy.example.com:3080", "proxy.example.com"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:3080", "::1"),
            ("no name at all:1", "remoteler.invalid"),
        ] {
            assert_eq!(server_name(address).to_str(), name);
        }
    }
}
