//! Makes TCP and TLS connections: the addresses of a name race each other, and the socket is set up for small frames. Owns no
//! connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use remoteler_core::may_lead_to;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
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
    /// The name leads into this machine or onto its link alone.
    #[error(
        "{address} leads to {found}, an address of this machine or its link; where that is meant, configure the address instead of the name"
    )]
    Inward {
        /// `host:port` that was asked for.
        address: String,
        /// The first address that was found.
        found: SocketAddr,
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
    /// The HTTP proxy of this network does not lead there.
    #[error("{address} cannot be reached through the HTTP proxy {proxy}: {reason}")]
    HttpProxy {
        /// `host:port` that was asked for.
        address: String,
        /// `host:port` of the HTTP proxy.
        proxy: String,
        /// What it says.
        reason: String,
    },
    /// Who answers carries no connection in a WebSocket.
    #[error("{address} carries no connection over WebSocket: {reason}")]
    WebSocket {
        /// `host:port` that was asked for.
        address: String,
        /// What it says.
        reason: String,
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

impl ConnectError {
    /// Whether another attempt may succeed without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Inward { .. } | Self::Connect { .. } | Self::Timeout { .. } => true,
            Self::HttpProxy { .. } | Self::WebSocket { .. } => true,
            Self::Handshake { source, .. } => !crate::tls::is_certificate_failure(source),
        }
    }

    /// Whether it looks like the doing of somebody between: there is an answer, and not that of a proxy of ours.
    pub(crate) fn is_between(&self) -> bool {
        match self {
            Self::Handshake { .. } | Self::Timeout { .. } => true,
            Self::Resolve { .. } | Self::Inward { .. } | Self::Connect { .. } => false,
            Self::HttpProxy { .. } | Self::WebSocket { .. } => false,
        }
    }
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
    connect_resolved(address, within, |_, found| Ok(found)).await
}

/// The same for a destination of this side's own configuration that others ask for: where that is a name, it leads nowhere into this machine or onto its
/// link, whoever answers for it ([`may_lead_to`], I29).
///
/// # Errors
/// [`ConnectError`]; [`ConnectError::Inward`] when no other address is left.
pub(crate) async fn connect_configured(address: &str, within: Duration) -> Result<TcpStream, ConnectError> {
    connect_resolved(address, within, outward).await
}

fn outward(address: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, ConnectError> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let first = found.first().copied();
    let left: Vec<SocketAddr> = found.into_iter().filter(|address| may_lead_to(host, address.ip())).collect();
    match first {
        Some(found) if left.is_empty() => Err(ConnectError::Inward { address: address.to_owned(), found }),
        Some(_) | None => Ok(left),
    }
}

async fn connect_resolved(
    address: &str,
    within: Duration,
    judge: fn(&str, Vec<SocketAddr>) -> Result<Vec<SocketAddr>, ConnectError>,
) -> Result<TcpStream, ConnectError> {
    let deadline = Instant::now() + within;
    let resolve_error = |source| ConnectError::Resolve { address: address.to_owned(), source };
    let addresses: Vec<SocketAddr> = match timeout_at(deadline, lookup_host(address)).await {
        Ok(found) => found.map_err(resolve_error)?.take(MOST_ADDRESSES).collect(),
        Err(_) => return Err(resolve_error(io::ErrorKind::TimedOut.into())),
    };
    let addresses = judge(address, addresses)?;
    let tried = addresses.len();
    let failed = |source| ConnectError::Connect { address: address.to_owned(), tried, source };
    let stream = race(alternating(addresses), deadline).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// Lets the system find out that nobody is at the other end of a socket on which nothing is said for long, or that what was said is not taken: a
/// read or write fails a minute later. For connections that nothing else watches. On Linux alone.
pub fn watch_silence(socket: &TcpStream) {
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(socket);
        let probes = socket2::TcpKeepalive::new().with_time(SILENCE).with_interval(PROBE_EACH).with_retries(PROBES);
        // Either fails only where the system does not know it, which then is like elsewhere.
        let _ = socket.set_tcp_keepalive(&probes);
        // No probe is sent while something waits to be acknowledged, and that would be sent again for a quarter of an hour.
        let _ = socket.set_tcp_user_timeout(Some(SILENCE + PROBE_EACH * PROBES));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

/// Lets the system keep little that is unsent of what is written to a link's socket: the link decides what goes next, and what it has given away goes
/// before all that comes later. Only Linux has this; elsewhere what is urgent waits behind a full send buffer.
pub(crate) fn keep_little_unsent(socket: &TcpStream) {
    #[cfg(target_os = "linux")]
    {
        // Fails only where the system does not know it, which then is like elsewhere.
        let _ = socket2::SockRef::from(socket).set_tcp_notsent_lowat(MOST_UNSENT);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

/// The first connection that stands. Each address has a head start on the next; one that fails gives its turn away at once (RFC 8305).
async fn race(addresses: Vec<SocketAddr>, deadline: Instant) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    loop {
        if let Some(next) = waiting.next() {
            attempts.push(TcpStream::connect(next));
        }
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => last = error,
                None => return Err(last),
            },
            () = sleep(HEAD_START), if waiting.len() > 0 => {}
            () = sleep_until(deadline) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// The families in turn, the one that the resolver puts first at the front: a family that leads nowhere costs one head start.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else { return addresses };
    let (one, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let mut other = other.into_iter();
    let mut mixed = Vec::with_capacity(one.len() + other.len());
    for address in one {
        mixed.push(address);
        mixed.extend(other.next());
    }
    mixed.extend(other);
    mixed
}

/// With a piece of what is being written less than a bulk frame.
#[cfg(target_os = "linux")]
const MOST_UNSENT: u32 = 8 * 1024;
/// After which silence of a socket its other end is asked, how often then, and how many questions may stay without an answer.
#[cfg(target_os = "linux")]
const SILENCE: Duration = Duration::from_secs(30);
#[cfg(target_os = "linux")]
const PROBE_EACH: Duration = Duration::from_secs(10);
#[cfg(target_os = "linux")]
const PROBES: u32 = 3;
const TLS_DEADLINE: Duration = Duration::from_secs(10);
const MOST_ADDRESSES: usize = 16;
/// Of an address on the next one (RFC 8305 section 8: connection attempt delay).
const HEAD_START: Duration = Duration::from_millis(250);

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

    // I29
    #[test]
    fn a_configured_name_that_comes_to_lead_into_this_machine_is_not_followed_and_the_message_says_what_to_do() {
        let found = |text: &[&str]| -> Vec<SocketAddr> { text.iter().map(|one| one.parse().unwrap()).collect() };
        let rebound = found(&["127.0.0.1:5432", "192.0.2.7:5432", "[::ffff:169.254.169.254]:5432"]);
        assert_eq!(outward("db.example.com:5432", rebound).unwrap(), found(&["192.0.2.7:5432"]));
        assert_eq!(outward("[fe80::1%2]:80", found(&["[fe80::1%2]:80"])).unwrap(), found(&["[fe80::1%2]:80"]));
        assert_eq!(outward("localhost:80", found(&["127.0.0.1:80"])).unwrap(), found(&["127.0.0.1:80"]));

        let refused = outward("db.example.com:5432", found(&["127.0.0.1:5432"])).unwrap_err();

        assert!(refused.is_transient(), "the name may lead elsewhere tomorrow");
        assert!(refused.to_string().ends_with("configure the address instead of the name"), "{refused}");
    }

    #[test]
    fn the_families_take_turns_and_the_resolvers_order_stays_within_each() {
        let addresses = |text: &[&str]| -> Vec<SocketAddr> { text.iter().map(|one| one.parse().unwrap()).collect() };
        let found = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"]);
        assert_eq!(alternating(found), addresses(&["[::1]:1", "127.0.0.1:1", "[::2]:1", "[::3]:1"]));
        let found = addresses(&["127.0.0.1:1", "[::1]:1", "[::2]:1"]);
        assert_eq!(alternating(found), addresses(&["127.0.0.1:1", "[::1]:1", "[::2]:1"]));
        assert_eq!(alternating(Vec::new()), Vec::new());
    }

    #[tokio::test]
    async fn an_address_that_never_answers_does_not_keep_the_next_one_waiting() {
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent_address = silent.local_addr().unwrap();
        let full = silent.listen(1).unwrap();
        // With its queue full it answers nobody.
        let mut queued = Vec::new();
        while let Ok(Ok(one)) = timeout(Duration::from_millis(200), TcpStream::connect(silent_address)).await {
            queued.push(one);
            assert!(queued.len() < 100, "the queue takes everybody");
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();

        let deadline = Instant::now() + Duration::from_secs(20);
        let reached = race(vec![silent_address, good], deadline).await.unwrap();

        assert_eq!(reached.peer_addr().unwrap(), good);
        drop(full);
    }
}
