//! `ssh -R`: ports of this machine whose connections go to the client (RFC 4254 section 7.1). Owns the listeners of one SSH connection: where they listen,
//! how many there are and when they end. Listens on loopback alone, whatever address was asked for, as sshd does without `GatewayPorts`.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    task::Poll,
};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    node::{authorize::Action, forward::Destination, reverse::Way},
    process::Account,
};

/// Why a port is not listened on. The text is for the user.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    #[error("there is no port {0}")]
    NoSuchPort(u32),
    #[error("port {port} belongs to root, and {login} is not; choose one from {FIRST_FREE}")]
    Privileged { port: u16, login: String },
    #[error("{MAX_LISTENERS} ports are forwarded in this connection already, and there may be no more")]
    TooMany,
    #[error("port {0} is forwarded in this connection already")]
    Twice(u16),
    #[error("cannot listen on port {port}: {source}")]
    Bind { port: u16, source: io::Error },
}

/// The listeners of one SSH connection, by the address that was asked for and the port. They end when this is dropped.
#[derive(Default)]
pub(super) struct RemoteForwards(BTreeMap<(String, u16), DropGuard>);

/// Ports that are taken and where nobody can connect yet.
#[derive(Debug)]
pub(super) struct Bound {
    /// As the client wrote it, and as it is told with each connection.
    address: String,
    port: u16,
    sockets: Vec<TcpSocket>,
}

impl RemoteForwards {
    /// Takes the port that was asked for, or with 0 a free one.
    ///
    /// # Errors
    /// [`ListenError`]; nothing is taken then.
    pub(super) fn bind(&self, asked: &Destination, account: &Account) -> Result<Bound, ListenError> {
        let port = u16::try_from(asked.port).map_err(|_| ListenError::NoSuchPort(asked.port))?;
        if (1..FIRST_FREE).contains(&port) && !account.uid().is_root() {
            return Err(ListenError::Privileged { port, login: account.name().to_owned() });
        }
        if self.0.len() >= MAX_LISTENERS {
            return Err(ListenError::TooMany);
        }
        if port != 0 && self.0.keys().any(|(_, taken)| *taken == port) {
            return Err(ListenError::Twice(port));
        }
        let (port, sockets) = bind(port).map_err(|source| ListenError::Bind { port, source })?;
        Ok(Bound { address: asked.host.clone(), port, sockets })
    }

    /// Listens, and serves who connects until it is cancelled or `way` ends.
    ///
    /// # Errors
    /// [`ListenError::Bind`]: another was faster.
    pub(super) fn serve(&mut self, bound: Bound, way: Way) -> Result<(), ListenError> {
        let Bound { address, port, sockets } = bound;
        let listening: io::Result<Vec<_>> = sockets.into_iter().map(|socket| socket.listen(BACKLOG)).collect();
        let listeners = listening.map_err(|source| ListenError::Bind { port, source })?;
        let stop = CancellationToken::new();
        self.0.insert((address.clone(), port), stop.clone().drop_guard());
        let node = way.shared.node.clone();
        node.tasks.spawn(async move {
            tokio::select! {
                () = serve(&way, &listeners, (address.into(), port)) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(())
    }

    /// Listens there no more; connections that are there go on. Whether it did.
    pub(super) fn cancel(&mut self, asked: &Destination) -> bool {
        let port = u16::try_from(asked.port).unwrap_or(0);
        self.0.remove(&(asked.host.clone(), port)).is_some()
    }
}

impl Bound {
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Where it is, for the audit log.
    pub(super) fn place(&self) -> Destination {
        Destination { host: "localhost".into(), port: self.port.into() }
    }
}

async fn serve(way: &Way, listeners: &[TcpListener], (address, port): (Arc<str>, u16)) {
    while !way.is_over() {
        let Some(((stream, peer), place)) = way.next(&way.shared.places.ports, accept(listeners)).await else {
            continue;
        };
        // Who connects is anybody on this machine. The forward is on record; were each connection, too, strangers could fill the audit log in the user's name.
        if let Err(refusal) = way.still(Action::RemoteForward) {
            tracing::debug!(%refusal, port, "a connection to a forwarded port is refused");
            continue;
        }
        let (way, node, address) = (way.clone(), way.shared.node.clone(), address.to_string());
        node.tasks.spawn(async move {
            let handle = way.shared.handle.clone();
            let opening = async move {
                let (from, from_port) = (peer.ip().to_string(), u32::from(peer.port()));
                handle.channel_open_forwarded_tcpip(address, u32::from(port), from, from_port).await
            };
            way.carry(stream.into_split(), opening, place).await;
        });
    }
}

/// The next connection at any of them.
async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = poll_fn(|cx| {
        let ready = listeners.iter().find_map(|listener| match listener.poll_accept(cx) {
            Poll::Ready(accepted) => Some(accepted),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer))
}

/// `port` on every loopback address that this machine has; with 0 one that is free on all of them.
fn bind(port: u16) -> io::Result<(u16, Vec<TcpSocket>)> {
    let mut tries = if port == 0 { FREE_PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        match bind_all(port) {
            // Free for one protocol and taken for the other.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            bound => return bound,
        }
    }
}

fn bind_all(mut port: u16) -> io::Result<(u16, Vec<TcpSocket>)> {
    let asked = port;
    let (mut sockets, mut missing) = (Vec::new(), None);
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        match bind_one(SocketAddr::new(ip, port), asked != 0) {
            Ok(socket) => {
                port = socket.local_addr()?.port();
                sockets.push(socket);
            }
            Err(error) if is_no_such_protocol(&error) => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if sockets.is_empty() => Err(error),
        Some(_) | None => Ok((port, sockets)),
    }
}

fn bind_one(address: SocketAddr, reuse: bool) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A port that was given back a moment ago can be had again; who listens there still keeps it.
    socket.set_reuseaddr(reuse)?;
    socket.bind(address)?;
    Ok(socket)
}

/// A machine without IPv6, or without IPv4.
fn is_no_such_protocol(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Listeners of one SSH connection.
const MAX_LISTENERS: usize = 32;
/// Ports below are root's (capabilities(7), `CAP_NET_BIND_SERVICE`); this process may be root where its user is not.
const FIRST_FREE: u16 = 1024;
/// Who connects while all channels are in use, or the client is slow, waits in the kernel's queue.
const BACKLOG: u32 = 128;
const FREE_PORT_TRIES: usize = 8;

#[cfg(test)]
mod tests {
    use remoteler_core::Login;

    use super::*;

    async fn account(name: &str) -> Option<Account> {
        Account::find(&Login::new(name).unwrap()).await.ok()
    }

    fn asked(port: u32) -> Destination {
        Destination { host: "0.0.0.0".into(), port }
    }

    #[tokio::test]
    async fn whatever_address_is_asked_for_loopback_is_listened_on_and_a_free_port_is_told() {
        let (port, sockets) = bind(0).unwrap();
        assert_ne!(port, 0);
        for socket in &sockets {
            let bound = socket.local_addr().unwrap();
            assert!(bound.ip().is_loopback() && bound.port() == port, "{bound}");
        }
        let listeners: Vec<_> = sockets.into_iter().map(|socket| socket.listen(1).unwrap()).collect();
        assert_eq!(bind(port).unwrap_err().kind(), io::ErrorKind::AddrInUse, "who listens keeps it");
        let near = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (_far, peer) = accept(&listeners).await.unwrap();
        assert_eq!(near.local_addr().unwrap(), peer);
    }

    #[tokio::test]
    async fn ports_of_root_are_roots_and_there_are_no_others_than_there_are() {
        let forwards = RemoteForwards::default();
        let own = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap().name;
        let own = account(&own).await.unwrap();
        assert!(matches!(forwards.bind(&asked(65536), &own), Err(ListenError::NoSuchPort(65536))));
        // Root may log in as anybody, everybody else as themselves.
        let plain = if own.uid().is_root() { account("daemon").await } else { Some(own) };
        let plain = plain.expect("every machine has an account daemon");
        for port in [1, 80, 1023] {
            let refused = forwards.bind(&asked(port), &plain).unwrap_err();
            assert!(matches!(refused, ListenError::Privileged { .. }), "{refused}");
        }
    }
}
