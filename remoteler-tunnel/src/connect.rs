//! Makes TCP connections: every address of a name is tried, each for a part of the time, and the socket is set up for small
//! frames. Owns no connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

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

const MOST_ADDRESSES: usize = 16;
