//! Through an HTTP proxy that its network obliges clients to use: `CONNECT` (RFC 9110 section 9.3.6), with basic authentication. Owns
//! which addresses go through it. The proxy sees where a connection leads and the octets of TLS, nothing else.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use http::Uri;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use crate::connect::{ConnectError, connect_tcp, keep_little_unsent};
use crate::dialer::{Dialer, DirectDialer};
use crate::stream::BoxedStream;

/// Goes through an HTTP proxy where that is configured, and straight elsewhere.
pub struct ProxyDialer {
    matcher: Matcher,
}

/// The proxy that is configured cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpProxyError {
    /// Not a URL of a proxy.
    #[error("the HTTP proxy has to be given as http://[USER:PASSWORD@]HOST[:PORT]")]
    NotAUrl,
    /// A kind of proxy that is not spoken to.
    #[error("the HTTP proxy is reached by {scheme}://, which is not available; http:// is")]
    Scheme {
        /// What was given.
        scheme: String,
    },
}

impl ProxyDialer {
    /// `proxy` is what the environment calls `HTTPS_PROXY` (`http://user:password@host:port`, or `host:port`), `except` what it calls
    /// `NO_PROXY`: names, which cover their subdomains, addresses and CIDR blocks, separated by commas; `*` is everything.
    ///
    /// # Errors
    /// [`HttpProxyError`]; the password is in none of them.
    pub fn new(proxy: &str, except: &str) -> Result<Self, HttpProxyError> {
        let scheme = proxy.split_once("://").map_or("http", |(scheme, _)| scheme);
        if !scheme.eq_ignore_ascii_case("http") {
            let scheme = scheme.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
            return Err(HttpProxyError::Scheme { scheme });
        }
        let matcher = Matcher::builder().https(proxy).no(except).build();
        let probe = Matcher::builder().https(proxy).build();
        if probe.intercept(&Uri::from_static("https://remoteler.invalid:1")).is_none() {
            return Err(HttpProxyError::NotAUrl);
        }
        Ok(Self { matcher })
    }

    async fn through(&self, via: Intercept, target: Uri, address: &str) -> Result<BoxedStream, ConnectError> {
        let place = via.uri().authority().map(|authority| authority.as_str()).unwrap_or_default();
        // Whoever looks at the error must not see the password.
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place).to_owned();
        let failed =
            |reason: String| ConnectError::HttpProxy { address: address.to_owned(), proxy: place.clone(), reason };
        let port = via.uri().port_u16().unwrap_or(80);
        let host = via.uri().host().unwrap_or_default();
        let socket = connect_tcp(&format!("{host}:{port}"), DEADLINE).await;
        let socket = socket.map_err(|cause| failed(with_cause(&cause)))?;
        keep_little_unsent(&socket);
        let mut tunnel = Tunnel::new(via.uri().clone(), Once(Some(socket)));
        if let Some(basic) = via.basic_auth() {
            tunnel = tunnel.with_auth(basic.clone());
        }
        match timeout(DEADLINE, tunnel.call(target)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream.into_inner())),
            Ok(Err(cause)) => Err(failed(with_cause(&cause))),
            Err(_) => Err(failed(format!("no answer within {} s", DEADLINE.as_secs()))),
        }
    }
}

#[async_trait]
impl Dialer for ProxyDialer {
    async fn dial(&self, address: &str) -> Result<BoxedStream, ConnectError> {
        match self.via(address) {
            Some((via, target)) => self.through(via, target, address).await,
            None => DirectDialer.dial(address).await,
        }
    }
}

impl ProxyDialer {
    /// The proxy for `address`, and how the address is named there. This machine itself is never looked for elsewhere.
    fn via(&self, address: &str) -> Option<(Intercept, Uri)> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let here = host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let target: Uri = format!("https://{address}").parse().ok().filter(|_| !here)?;
        Some((self.matcher.intercept(&target)?, target))
    }
}

impl fmt::Debug for ProxyDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyDialer").finish_non_exhaustive()
    }
}

/// Gives away the connection to the proxy, which is made already.
struct Once(Option<TcpStream>);

impl Service<Uri> for Once {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = self.0.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected));
        std::future::ready(socket.map(TokioIo::new))
    }
}

fn with_cause(cause: &dyn std::error::Error) -> String {
    match cause.source() {
        Some(source) => format!("{cause}: {source}"),
        None => cause.to_string(),
    }
}

const DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn goes_through(except: &str, address: &str) -> bool {
        let dialer = ProxyDialer::new("http://ann:secret@proxy.corp:3128", except).unwrap();
        dialer.via(address).is_some()
    }

    #[test]
    fn no_proxy_takes_names_with_their_subdomains_addresses_and_blocks() {
        for (except, address, through) in [
            ("", "p.example.com:3080", true),
            ("example.com", "p.example.com:3080", false),
            (".example.com", "p.example.com:3080", false),
            ("example.com", "badexample.com:3080", true),
            ("other.com, 10.0.0.0/8", "10.1.2.3:3080", false),
            ("10.0.0.0/8", "11.1.2.3:3080", true),
            ("*", "p.example.com:3080", false),
            ("", "127.0.0.1:3080", false),
            ("", "localhost:3080", false),
            ("", "[::1]:3080", false),
            ("", "[2001:db8::1]:3080", true),
        ] {
            assert_eq!(goes_through(except, address), through, "{except:?} {address}");
        }
    }

    #[test]
    fn what_is_no_http_proxy_is_refused_without_showing_its_password() {
        let refused = ProxyDialer::new("socks5://ann:secret@proxy:1080", "").unwrap_err();
        assert_eq!(refused, HttpProxyError::Scheme { scheme: "socks5".into() });
        let refused = ProxyDialer::new("http://", "").unwrap_err();
        assert_eq!(refused, HttpProxyError::NotAUrl);
        ProxyDialer::new("proxy.corp:3128", "").unwrap();
    }
}
