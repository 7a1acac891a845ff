//! Asks identity providers: one HTTPS request at a time to the host that was named, within 10 seconds and 1 MiB, and to no address of an internal network
//! unless that is allowed (I43). Owns connections and their deadlines; follows no redirect, keeps nothing, believes this machine's root certificates.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use remoteler_auth::{FetchError, Fetcher};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

/// For the whole exchange.
const WITHIN: Duration = Duration::from_secs(10);
/// Largest answer.
const MAX_ANSWER: usize = 1024 * 1024;

/// The way to identity providers.
pub(crate) struct IdentityProviders {
    allow_internal: bool,
    roots: Roots,
}

/// Finds the root certificates that are believed.
type Roots = Arc<dyn Fn() -> anyhow::Result<RootCertStore> + Send + Sync>;

impl IdentityProviders {
    /// `allow_internal` whether providers may have addresses of internal networks.
    pub(crate) fn new(allow_internal: bool) -> Self {
        Self { allow_internal, roots: Arc::new(roots_of_this_machine) }
    }

    async fn exchange(&self, request: Request<Vec<u8>>) -> anyhow::Result<Response<Vec<u8>>> {
        let (mut parts, body) = request.into_parts();
        ensure!(parts.uri.scheme_str() == Some("https"), "only https is spoken");
        let authority = parts.uri.authority().context("no host is named")?.clone();
        ensure!(!authority.as_str().contains('@'), "a host has no user");
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let address = self.resolve(&host, authority.port_u16().unwrap_or(443)).await?;
        let tcp = TcpStream::connect(address).await.context("it cannot be reached")?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(host).context("it has no name for TLS")?;
        // Read anew each time, as a replaced file of roots is to count; logins are few.
        let roots = Arc::clone(&self.roots);
        let tls = tokio::task::spawn_blocking(move || client_config(roots()?)).await??;
        let stream = TlsConnector::from(tls).connect(name, tcp).await.context("no TLS session")?;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = path.parse().context("its path cannot be asked for")?;
        parts.headers.insert(header::HOST, authority.as_str().parse()?);
        parts.headers.insert(header::USER_AGENT, concat!("remoteler/", env!("CARGO_PKG_VERSION")).parse()?);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // In one task: a request that is handed over while another one ends the connection may never be answered (hyper, issue 4122).
        let driving = async {
            let _ = connection.await; // the answer says why
            std::future::pending::<Infallible>().await
        };
        let answer = async {
            let answer = sender.send_request(Request::from_parts(parts, Full::<Bytes>::from(body))).await?;
            let (head, body) = answer.into_parts();
            // The cause may quote what was received.
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body =
                body.map_err(|_| anyhow::anyhow!("its answer broke off or has more than {MAX_ANSWER} octets"))?;
            Ok(Response::from_parts(head, body.to_bytes().to_vec()))
        };
        tokio::select! {
            answer = answer => answer,
            never = driving => match never {},
        }
    }

    /// The address is looked at that is connected to: a name that leads elsewhere a moment later leads nowhere.
    async fn resolve(&self, host: &str, port: u16) -> anyhow::Result<SocketAddr> {
        let found: Vec<_> = tokio::net::lookup_host((host, port)).await.context("its name is not known")?.collect();
        ensure!(!found.is_empty(), "its name has no address");
        match found.into_iter().find(|address| self.allow_internal || !is_internal(address.ip())) {
            Some(address) => Ok(address),
            None => bail!(
                "it has an address of an internal network; allow that with auth_service.identity_providers.allow_internal_addresses"
            ),
        }
    }
}

#[async_trait]
impl Fetcher for IdentityProviders {
    async fn fetch(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, FetchError> {
        match timeout(WITHIN, self.exchange(request)).await {
            Ok(outcome) => outcome.map_err(|cause| FetchError(format!("{cause:#}"))),
            Err(_) => Err(FetchError(format!("no answer within {} s", WITHIN.as_secs()))),
        }
    }
}

/// Whether an address is not one of the public internet.
fn is_internal(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => internal_v4(ip),
        IpAddr::V6(ip) => internal_v6(ip),
    }
}

fn internal_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (18..20).contains(&b))
        || (a == 192 && b == 0)
}

/// Only 2000::/3 is public, and in it what carries an address of version 4 is judged by that (6to4, and the well-known prefix of NAT64 is outside anyway).
fn internal_v6(ip: Ipv6Addr) -> bool {
    if let Some(mapped) = ip.to_ipv4_mapped() {
        return internal_v4(mapped);
    }
    let [first, second, third, ..] = ip.segments();
    if first & 0xe000 != 0x2000 || (first == 0x2001 && second < 0x0200) || (first == 0x2001 && second == 0x0db8) {
        return true;
    }
    let [[a, b], [c, d]] = [second.to_be_bytes(), third.to_be_bytes()];
    first == 0x2002 && internal_v4(Ipv4Addr::new(a, b, c, d))
}

fn roots_of_this_machine() -> anyhow::Result<RootCertStore> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _unusable) = roots.add_parsable_certificates(loaded.certs);
    ensure!(added > 0, "this machine has no root certificates; install them, or name a file of them in SSL_CERT_FILE");
    Ok(roots)
}

fn client_config(roots: RootCertStore) -> anyhow::Result<Arc<ClientConfig>> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
