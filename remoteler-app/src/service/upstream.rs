//! An app: where it is and how it is dialled. Owns the connections that one user's connection keeps open to it; they are no other's (I53).

use std::{
    fmt, io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, Response, Uri};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http1::SendRequest},
};
use hyper_util::rt::TokioIo;
use remoteler_core::may_lead_to;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::{body::Body, limit::MAX_HEADER_OCTETS};
use crate::headers::without_default_port;

/// Resolving, TCP and TLS together.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// Idle connections that are kept for one connection of a user.
const MAX_IDLE: usize = 8;
/// Servers close idle connections after a minute or so.
const MAX_AGE: Duration = Duration::from_secs(30);

/// Where an app is inside: `http://host:port` or `https://host:port`.
#[derive(Clone)]
pub struct AppUri {
    host: String,
    port: u16,
    authority: HeaderValue,
    tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
}

/// Why an app's address cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppUriError {
    /// Not of that form.
    #[error("{0:?} is no address of an app; http://HOST[:PORT] or https://HOST[:PORT] is expected, without a path")]
    Form(String),
    /// The machine's authorities cannot be read, or there are none.
    #[error("the authorities that this machine believes cannot be read: {0}")]
    Authorities(String),
}

/// Why an app did not answer a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    /// No connection in time.
    #[error("connecting to {address} took longer than {} s", DIAL_DEADLINE.as_secs())]
    Timeout {
        /// Its `host:port`.
        address: String,
    },
    /// No connection.
    #[error("no connection to {address}")]
    Connect {
        /// Its `host:port`.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or what came was no HTTP.
    #[error("{address} broke off")]
    Http {
        /// Its `host:port`.
        address: String,
        /// Why.
        source: hyper::Error,
    },
    /// The user's own body broke while it was being sent on.
    #[error("the request's body broke off")]
    RequestBody(#[source] hyper::Error),
    /// A switch of protocols that nobody asked for.
    #[error("{0} switched to another protocol than was asked for")]
    Switched(String),
}

impl AppUri {
    /// Reads an address, and for `https` the authorities that this machine believes.
    ///
    /// # Errors
    /// [`AppUriError`]
    pub fn parse(text: &str) -> Result<Self, AppUriError> {
        let malformed = || AppUriError::Form(text.to_owned());
        let uri: Uri = text.trim().parse().map_err(|_| malformed())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(malformed()) };
        // Written as we would: with a port that is one, and nobody's name before the host.
        let written = match uri.port_u16() {
            Some(port) => format!("{}:{port}", authority.host()),
            None => authority.host().to_owned(),
        };
        let good = uri.path() == "/" && uri.query().is_none() && authority.as_str() == written && !text.contains('#');
        let default = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(malformed()),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if !good || host.is_empty() {
            return Err(malformed());
        }
        let named = without_default_port(authority.as_str(), scheme).to_ascii_lowercase();
        let tls = match scheme {
            "https" => {
                let name = ServerName::try_from(host.clone()).map_err(|_| malformed())?;
                Some((name, Arc::new(believing_as_this_machine()?)))
            }
            _ => None,
        };
        let authority = HeaderValue::try_from(named).map_err(|_| malformed())?;
        Ok(Self { host, port: uri.port_u16().unwrap_or(default), authority, tls })
    }

    /// `Host` of requests there, without the port that the scheme has anyway.
    pub(super) const fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// `http` or `https`.
    pub(super) const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// A new connection, HTTP/1.1: every upgrade needs that.
    pub(super) async fn dial(&self) -> Result<Connection, UpstreamError> {
        let address = self.address();
        let connect = |source| UpstreamError::Connect { address: self.address(), source };
        let dialled = timeout(DIAL_DEADLINE, async {
            let tcp = TcpStream::connect(&self.resolve().await.map_err(connect)?[..]).await.map_err(connect)?;
            tcp.set_nodelay(true).map_err(connect)?;
            match &self.tls {
                None => handshake(tcp).await,
                Some((name, config)) => {
                    let tls = TlsConnector::from(config.clone()).connect(name.clone(), tcp).await.map_err(connect)?;
                    handshake(tls).await
                }
            }
            .map_err(|source| self.broke_off(source))
        });
        dialled.await.unwrap_or_else(|_| Err(UpstreamError::Timeout { address }))
    }

    /// Where the name leads now, but for addresses of this machine and its link that nobody configured (I29).
    async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<SocketAddr> = lookup_host((self.host.as_str(), self.port)).await?.collect();
        let left: Vec<SocketAddr> =
            found.iter().copied().filter(|address| may_lead_to(&self.host, address.ip())).collect();
        match found.first() {
            Some(inward) if left.is_empty() => Err(io::Error::other(format!(
                "the name leads to {inward}, an address of this machine or its link; where that is meant, configure the address instead of the name"
            ))),
            Some(_) | None => Ok(left),
        }
    }

    pub(super) fn broke_off(&self, source: hyper::Error) -> UpstreamError {
        // hyper calls the body that it is given the user's.
        if source.is_user() {
            return UpstreamError::RequestBody(source);
        }
        UpstreamError::Http { address: self.address(), source }
    }

    pub(super) fn switched(&self) -> UpstreamError {
        UpstreamError::Switched(self.address())
    }
}

impl fmt::Debug for AppUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppUri({}://{})", self.scheme(), self.address())
    }
}

fn believing_as_this_machine() -> Result<ClientConfig, AppUriError> {
    let mut roots = rustls::RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        let said = native.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(AppUriError::Authorities(said));
    }
    let builder = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
    let builder =
        builder.with_safe_default_protocol_versions().map_err(|cause| AppUriError::Authorities(cause.to_string()))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

async fn handshake<S>(stream: S) -> Result<Connection, hyper::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut http = http1::Builder::new();
    let (sender, connection) = http.max_buf_size(MAX_HEADER_OCTETS).handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(async move {
        if let Err(cause) = connection.with_upgrades().await {
            tracing::debug!(%cause, "a connection to an app ended");
        }
    });
    Ok(Connection { sender, driver: AbortOnDropHandle::new(driver) })
}

/// A connection and the task that drives it.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    /// Ends with this value.
    driver: AbortOnDropHandle<()>,
}

impl Connection {
    /// The answer, or the request where nothing of it was sent; and the connection unless it has ended.
    ///
    /// A request that is handed over at the moment in which the connection ends may stay where nobody takes it, for as long as the sender lives
    /// (hyper, issue 4122). Without a sender hyper gives it back.
    pub(super) async fn send(mut self, request: Request<Body>) -> (Sent, Option<Self>) {
        let mut answer = pin!(self.sender.try_send_request(request));
        tokio::select! {
            biased;
            sent = &mut answer => (sent, Some(self)),
            _ = &mut self.driver => {
                drop(self);
                (answer.await, None)
            }
        }
    }
}

pub(super) type Sent = Result<Response<Incoming>, TrySendError<Request<Body>>>;

/// Idle connections to one app for one connection of a user.
#[derive(Default)]
pub(super) struct Idle(Mutex<Vec<(Instant, Connection)>>);

/// How long a connection may need to be done with its last request.
const SETTLE: Duration = Duration::from_millis(20);

impl Idle {
    /// One that is ready, newest first.
    pub(super) async fn take(&self) -> Option<Connection> {
        loop {
            let (since, mut connection) = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if since.elapsed() < MAX_AGE && matches!(timeout(SETTLE, connection.sender.ready()).await, Ok(Ok(()))) {
                return Some(connection);
            }
        }
    }

    /// Keeps one whose last answer was read to its end.
    pub(super) fn give(&self, connection: Connection) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !connection.sender.is_closed() && idle.len() < MAX_IDLE {
            idle.push((Instant::now(), connection));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // I29
    #[tokio::test]
    async fn an_app_that_comes_to_lead_into_this_machine_by_its_name_is_not_dialled() {
        let inside = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = inside.local_addr().unwrap().port();
        // To a resolver, and to nobody else, that is 127.0.0.1.
        let app = AppUri::parse(&format!("http://127.1:{port}")).unwrap();
        let refused = tokio::select! {
            _ = inside.accept() => panic!("it was dialled"),
            refused = app.dial() => refused.err().unwrap(),
        };

        let UpstreamError::Connect { source, .. } = refused else { panic!("{refused}") };
        assert!(source.to_string().ends_with("configure the address instead of the name"), "{source}");
    }

    #[test]
    fn an_address_is_a_scheme_a_host_and_a_port() {
        let http = AppUri::parse("http://127.0.0.1:3000").unwrap();
        assert_eq!((http.address().as_str(), http.authority().to_str().unwrap()), ("127.0.0.1:3000", "127.0.0.1:3000"));
        let short = AppUri::parse("http://Grafana.lan:80/").unwrap();
        assert_eq!((short.address().as_str(), short.authority().to_str().unwrap()), ("grafana.lan:80", "grafana.lan"));
        let six = AppUri::parse("http://[::1]:3000").unwrap();
        assert_eq!((six.address().as_str(), six.authority().to_str().unwrap()), ("[::1]:3000", "[::1]:3000"));
        for bad in [
            "",
            "127.0.0.1:3000",
            "ftp://a",
            "http://a/path",
            "http://a/?x",
            "http://u@a",
            "http://a#x",
            "http://a:x",
            "http://a:99999",
        ] {
            assert!(matches!(AppUri::parse(bad), Err(AppUriError::Form(_))), "{bad}");
        }
    }
}
