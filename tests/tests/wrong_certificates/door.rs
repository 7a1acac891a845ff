//! The listeners of a cluster, and clients that check nothing themselves and show whatever they are given.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use remoteler_core::{ClusterName, KubeClusterName, SystemClock};
use remoteler_tests::{Cluster, os_login};
use remoteler_tunnel::{
    ALPN_AUTH, ALPN_SSH, ALPN_TUNNEL, DialHeader, DialReply, FirstContact, Limits, Link, SharedTlsIdentity, Side,
    Target, TargetKind, TargetName, read_dial_reply, write_dial,
};
use russh::client::Handle;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{EDGE, EDGE_KUBE, KUBE, bearer::Bearer};

/// Where somebody can knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The node's own SSH port.
    Node,
    /// The one port: a dial for SSH.
    ProxySsh,
    /// The one port: an agent's link.
    ProxyTunnel,
    /// The auth service's own port.
    Auth,
    /// The same, relayed by the proxy.
    AuthThroughProxy,
    /// The Kubernetes service of the daemon, relayed by the proxy.
    Kube,
    /// The SSH of an edge node, dialled by somebody whom the proxy lets through.
    NodeBehindTunnel,
    /// The Kubernetes service of an edge daemon.
    KubeBehindTunnel,
}

impl Door {
    pub(crate) const ALL: [Self; 8] = [
        Self::Node,
        Self::ProxySsh,
        Self::ProxyTunnel,
        Self::Auth,
        Self::AuthThroughProxy,
        Self::Kube,
        Self::NodeBehindTunnel,
        Self::KubeBehindTunnel,
    ];

    /// What the audit log calls it.
    pub(crate) const fn service(self) -> &'static str {
        match self {
            Self::Node | Self::NodeBehindTunnel => "node",
            Self::ProxySsh | Self::ProxyTunnel => "proxy",
            Self::Auth | Self::AuthThroughProxy => "auth",
            Self::Kube | Self::KubeBehindTunnel => "kube",
        }
    }
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Knock {
    pub(crate) admitted: bool,
    /// The client's own address, as the audit log shows it.
    pub(crate) from: SocketAddr,
    /// For the person who reads a failure.
    pub(crate) said: String,
}

const LIMIT: Duration = Duration::from_secs(20);

/// Shows `bearer`'s certificate at `door`, and tries to be served. `right` gets past the proxy where that is on the way.
pub(crate) async fn knock(cluster: &Cluster, right: &Bearer, door: Door, bearer: Option<&Bearer>) -> Knock {
    let trying = async {
        match door {
            Door::Node => {
                let (client, from) = ssh(cluster).await;
                enter(client, from, bearer).await
            }
            Door::NodeBehindTunnel => {
                let (dialled, from) = dial(cluster, EDGE, Some(right)).await;
                let stream = dialled.expect("the proxy lets the right user through to the edge node");
                let config = Arc::new(russh::client::Config::default());
                let client = russh::client::connect_stream(config, stream, Trusting).await.unwrap();
                enter(client, from, bearer).await
            }
            Door::ProxySsh => proxy_ssh(cluster, bearer).await,
            Door::ProxyTunnel => proxy_tunnel(cluster, bearer).await,
            Door::Auth => http(cluster.auth(), Cluster::NAME, ALPN_AUTH, "/v1/users", bearer).await,
            Door::AuthThroughProxy => http(cluster.proxy(), Cluster::NAME, ALPN_AUTH, "/v1/users", bearer).await,
            Door::Kube => kube(cluster, KUBE, bearer).await,
            Door::KubeBehindTunnel => kube(cluster, EDGE_KUBE, bearer).await,
        }
    };
    timeout(LIMIT, trying).await.unwrap_or_else(|_| panic!("{door:?} answered nothing within {LIMIT:?}"))
}

async fn enter(mut client: Handle<Trusting>, from: SocketAddr, bearer: Option<&Bearer>) -> Knock {
    let login = match bearer {
        Some(bearer) => log_in(&mut client, bearer).await,
        None => client.authenticate_none(os_login()).await.is_ok_and(|result| result.success()),
    };
    // Some are told why after a handshake that looks like a success; what counts is whether a channel opens.
    let opened = client.channel_open_session().await;
    Knock { admitted: login && opened.is_ok(), from, said: format!("login {login}, channel {:?}", opened.err()) }
}

/// An SSH connection to the node, before any login.
pub(crate) async fn ssh(cluster: &Cluster) -> (Handle<Trusting>, SocketAddr) {
    let tcp = TcpStream::connect(cluster.node()).await.unwrap();
    let from = tcp.local_addr().unwrap();
    let config = Arc::new(russh::client::Config::default());
    (russh::client::connect_stream(config, tcp, Trusting).await.unwrap(), from)
}

/// Whether the node says yes to a certificate.
pub(crate) async fn log_in(client: &mut Handle<Trusting>, bearer: &Bearer) -> bool {
    let (key, certificate) = (Arc::new(bearer.ssh_key.clone()), bearer.ssh_certificate.clone());
    client.authenticate_openssh_cert(os_login(), key, certificate).await.is_ok_and(|result| result.success())
}

/// Believes every host.
pub(crate) struct Trusting;

impl russh::client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _key: &russh::keys::PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

async fn proxy_ssh(cluster: &Cluster, bearer: Option<&Bearer>) -> Knock {
    let (dialled, from) = dial(cluster, Cluster::NODE, bearer).await;
    match dialled {
        Ok(mut stream) => {
            let mut banner = [0; 7];
            let read = stream.read_exact(&mut banner).await;
            Knock { admitted: read.is_ok() && banner == *b"SSH-2.0", from, said: format!("{banner:?}") }
        }
        Err(said) => Knock { admitted: false, from, said },
    }
}

/// A dial for the SSH of `node`, or why there is none.
async fn dial(
    cluster: &Cluster,
    node: &str,
    bearer: Option<&Bearer>,
) -> (Result<TlsStream<TcpStream>, String>, SocketAddr) {
    let (stream, from) = tls(cluster.proxy(), Cluster::NAME, ALPN_SSH, bearer).await;
    let dialling = async {
        let mut stream = stream.map_err(|cause| cause.to_string())?;
        let target = Target {
            cluster: ClusterName::new(Cluster::NAME).unwrap(),
            kind: TargetKind::Ssh,
            name: TargetName::new(node).unwrap(),
            port: None,
        };
        write_dial(&mut stream, &DialHeader::new(target, None)).await.map_err(|cause| format!("{cause:?}"))?;
        match read_dial_reply(&mut stream).await.map_err(|cause| format!("{cause:?}"))? {
            DialReply::Connected => Ok(stream),
            DialReply::Refused { message, .. } => Err(message),
        }
    };
    (dialling.await, from)
}

async fn kube(cluster: &Cluster, kube_cluster: &str, bearer: Option<&Bearer>) -> Knock {
    let name = ClusterName::new(Cluster::NAME).unwrap();
    let server_name = KubeClusterName::new(kube_cluster).unwrap().server_name(&name);
    let path = format!("/v1/kube/{name}/{kube_cluster}/api/v1/namespaces/dev/pods");
    http(cluster.proxy(), &server_name, "http/1.1", &path, bearer).await
}

async fn proxy_tunnel(cluster: &Cluster, bearer: Option<&Bearer>) -> Knock {
    let (stream, from) = tls(cluster.proxy(), Cluster::NAME, ALPN_TUNNEL, bearer).await;
    let Ok(stream) = stream else { return Knock { admitted: false, from, said: "no handshake".into() } };
    let link = Link::start(stream, Side::Client, Limits::client());
    // The proxy greets whom it takes for an agent.
    let greeted = link.ready().await;
    Knock { admitted: greeted.is_ok(), from, said: format!("{greeted:?}") }
}

async fn http(addr: &str, server_name: &str, alpn: &str, path: &str, bearer: Option<&Bearer>) -> Knock {
    let (stream, from) = tls(addr, server_name, alpn, bearer).await;
    let Ok(mut stream) = stream else { return Knock { admitted: false, from, said: "no handshake".into() } };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server_name}\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    // Whoever refuses the certificate may close before it has read the request, and without a word.
    let written = stream.write_all(request.as_bytes()).await;
    let read = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    Knock { admitted: answer.starts_with("HTTP/1.1 200"), from, said: format!("{written:?} {read:?} {answer}") }
}

async fn tls(
    addr: &str,
    server_name: &str,
    alpn: &str,
    bearer: Option<&Bearer>,
) -> (std::io::Result<TlsStream<TcpStream>>, SocketAddr) {
    let config = FirstContact::Insecure.client_config(Arc::new(SystemClock), alpn).unwrap();
    let mut config = rustls::ClientConfig::clone(&config);
    if let Some(bearer) = bearer {
        config.client_auth_cert_resolver = SharedTlsIdentity::new(bearer.tls.clone());
    }
    let tcp = TcpStream::connect(addr).await.unwrap();
    let from = tcp.local_addr().unwrap();
    let name = ServerName::try_from(server_name.to_owned()).unwrap();
    (TlsConnector::from(Arc::new(config)).connect(name, tcp).await, from)
}
