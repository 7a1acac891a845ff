//! The ports of this process, bound before anything else is done: a port in use stops the start before anything is written.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use tokio::net::TcpListener;

use crate::{config::Settings, handover::Predecessor};

/// Bound sockets of the services that listen.
pub(crate) struct Listeners {
    #[cfg(feature = "server")]
    pub(crate) auth: Option<TcpListener>,
    #[cfg(feature = "server")]
    pub(crate) proxy: Option<TcpListener>,
    #[cfg(feature = "server")]
    pub(crate) crl: Option<TcpListener>,
    /// By which processes before take connections for links that they still have.
    #[cfg(feature = "server")]
    pub(crate) links: Vec<std::os::fd::OwnedFd>,
    pub(crate) node: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the settings ask for. A node that joins is bound later, when it is known whether it needs a port.
    pub(crate) async fn bind(settings: &Settings, before: Option<&Predecessor>) -> anyhow::Result<Self> {
        let joins = settings.join.is_some();
        #[cfg(feature = "server")]
        let inherited = |service: &str, addr: Option<SocketAddr>| match (before, addr) {
            (Some(before), Some(addr)) => same(before.port(service)?, addr),
            (_, None) | (None, _) => anyhow::Ok(None),
        };
        #[cfg(not(feature = "server"))]
        let _ = before;
        #[cfg(feature = "server")]
        let (proxy_addr, crl_addr) = (
            settings.proxy.as_ref().map(|proxy| proxy.listen),
            settings.proxy.as_ref().and_then(|proxy| proxy.crl_listen),
        );
        Ok(Self {
            #[cfg(feature = "server")]
            auth: bind("auth service", settings.auth.as_ref().map(|auth| auth.listen)).await?,
            #[cfg(feature = "server")]
            proxy: match inherited("proxy", proxy_addr)? {
                Some(inherited) => Some(inherited),
                None => bind("proxy", proxy_addr).await?,
            },
            #[cfg(feature = "server")]
            crl: match inherited("crl", crl_addr)? {
                Some(inherited) => Some(inherited),
                None => bind("proxy's revocation lists", crl_addr).await?,
            },
            #[cfg(feature = "server")]
            links: before.map(Predecessor::links).unwrap_or_default(),
            node: bind("node", settings.node.as_ref().filter(|_| !joins).map(|node| node.listen)).await?,
        })
    }
}

/// The inherited port, if it is where the configuration wants it now.
#[cfg(feature = "server")]
fn same(inherited: Option<TcpListener>, wanted: SocketAddr) -> anyhow::Result<Option<TcpListener>> {
    let Some(listener) = inherited else { return Ok(None) };
    let bound = listener.local_addr().context("an inherited port has no address")?;
    let same = bound.ip() == wanted.ip() && (wanted.port() == 0 || wanted.port() == bound.port());
    Ok(same.then_some(listener))
}

/// Binds one port.
pub(crate) async fn bind(service: &str, addr: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(addr) = addr else { return Ok(None) };
    match TcpListener::bind(addr).await {
        Ok(listener) => Ok(Some(listener)),
        Err(cause) if cause.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("the {service} cannot listen on {addr}: the port is in use; stop what uses it or configure another")
        }
        Err(cause) => Err(cause).with_context(|| format!("the {service} cannot listen on {addr}")),
    }
}
