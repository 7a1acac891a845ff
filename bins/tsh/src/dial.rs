//! The way to a node: TLS to the proxy with the user's certificate, the dial header, then the bytes of the target. Owns no SSH.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use remoteler_client::StoredLogin;
use remoteler_core::{ClusterName, NodeName, SystemRole};
use remoteler_ssh::printable;
use remoteler_tunnel::{
    ALPN_SSH, ClientTls, DialCode, DialHeader, DialHeaderError, DialReply, Replayed, SharedTlsIdentity, Target,
    TargetKind, TargetName, connect_tcp, handshake_failure, read_dial_reply, write_dial,
};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{context::clock, openssh::Family};

/// A stream to a node through the proxy.
pub(crate) type NodeStream = TlsStream<Replayed<TcpStream>>;

/// The node that a host name stands for: `NODE.CLUSTER` or `NODE`.
pub(crate) fn node_name(host: &str, cluster: &ClusterName) -> anyhow::Result<NodeName> {
    let host = host.to_ascii_lowercase();
    let own = host.strip_suffix(cluster.as_str()).and_then(|node| node.strip_suffix('.'));
    let name = own.unwrap_or(&host);
    if name.parse::<std::net::IpAddr>().is_ok() {
        bail!("{name} is an address, nodes of cluster {cluster} have names (see `tsh ls`); {OPENSSH}");
    }
    NodeName::new(name).map_err(|_| anyhow::anyhow!("{} is no node of cluster {cluster}; {OPENSSH}", printable(name)))
}

/// What to do about a host that is not ours.
const OPENSSH: &str = "for hosts outside the cluster use OpenSSH's own client, /usr/bin/ssh";

/// Dials `node`. Everything until the target answers must be done within `within`.
pub(crate) async fn dial(
    login: &StoredLogin,
    cluster: &ClusterName,
    node: &NodeName,
    family: Family,
    within: Duration,
) -> anyhow::Result<NodeStream> {
    match tokio::time::timeout(within, connect(login, cluster, node, family, within)).await {
        Ok(done) => done,
        Err(_) => bail!("{node} did not answer through {} within {} s", login.profile.proxy, within.as_secs()),
    }
}

async fn connect(
    login: &StoredLogin,
    cluster: &ClusterName,
    node: &NodeName,
    family: Family,
    within: Duration,
) -> anyhow::Result<NodeStream> {
    let proxy = &login.profile.proxy;
    tracing::debug!(%proxy, ?family, "connecting to the proxy");
    let tcp = match family {
        Family::Any => connect_tcp(&proxy.to_string(), within).await?,
        Family::V4 | Family::V6 => connect_by_family(&proxy.to_string(), family).await?,
    };
    if let Ok(address) = tcp.peer_addr() {
        tracing::debug!(%proxy, %address, "connected");
    }
    let tls = ClientTls {
        identity: Some(SharedTlsIdentity::new(login.tls.clone())),
        trust: Arc::new(login.trust.clone()),
        clock: clock(),
    };
    let config = tls.to_cluster(&[SystemRole::Proxy], ALPN_SSH)?;
    // Only a DNS name is sent; what is believed does not depend on it.
    let name = ServerName::try_from(proxy.host().to_owned())
        .or_else(|_| ServerName::try_from("remoteler.invalid"))
        .context("the proxy's name cannot be sent")?;
    let mut stream = TlsConnector::from(config)
        .connect(name, Replayed::new(Bytes::new(), tcp))
        .await
        .with_context(|| format!("no TLS session with the proxy {proxy}"))?;
    tracing::debug!(%proxy, version = ?stream.get_ref().1.protocol_version(), "TLS with the certificate of the login, the proxy's is of the cluster");

    let target = Target {
        cluster: cluster.clone(),
        kind: TargetKind::Ssh,
        name: TargetName::new(node.as_str()).context("the node's name cannot be dialled")?,
        port: None,
    };
    // In TLS 1.3 a server refuses a client's certificate only after the client's handshake is done.
    let broken = |cause| {
        if let DialHeaderError::Io(cause) = &cause {
            return anyhow::anyhow!("the proxy {proxy} ended the connection: {}", handshake_failure(cause));
        }
        anyhow::Error::new(cause).context(format!("the proxy {proxy} cannot be understood"))
    };
    tracing::debug!(%node, %cluster, "asking the proxy for the node");
    write_dial(&mut stream, &DialHeader::new(target, None)).await.map_err(broken)?;
    match read_dial_reply(&mut stream).await.map_err(broken)? {
        DialReply::Connected => {
            tracing::debug!(%node, "the proxy has reached the node");
            Ok(stream)
        }
        DialReply::Refused { code: DialCode::NotFound, message } => {
            bail!("{}; `tsh ls` shows the nodes of cluster {cluster}; {OPENSSH}", printable(&message))
        }
        DialReply::Refused { message, .. } => bail!("{}", printable(&message)),
    }
}

async fn connect_by_family(address: &str, family: Family) -> anyhow::Result<TcpStream> {
    let addresses = tokio::net::lookup_host(address).await.with_context(|| format!("{address} is not known"))?;
    let mut failure = None;
    for candidate in addresses.filter(|candidate| candidate.is_ipv4() == (family == Family::V4)) {
        match TcpStream::connect(candidate).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(cause) => failure = Some(cause),
        }
    }
    match failure {
        Some(cause) => Err(cause).with_context(|| format!("{address} cannot be reached")),
        None => bail!("{address} has no address of that family"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_node_with_or_without_its_cluster() {
        let cluster = ClusterName::new("root.example.com").unwrap();
        assert_eq!(node_name("node-a", &cluster).unwrap().as_str(), "node-a");
        assert_eq!(node_name("Node-A.root.example.com", &cluster).unwrap().as_str(), "node-a");
        assert_eq!(node_name("gw.lab", &cluster).unwrap().as_str(), "gw.lab");
    }

    #[test]
    fn what_cannot_be_a_node_is_sent_to_openssh() {
        let cluster = ClusterName::new("root").unwrap();
        for host in ["192.0.2.1", "::1", "a b", "x/y"] {
            let error = node_name(host, &cluster).unwrap_err().to_string();
            assert!(error.contains("/usr/bin/ssh"), "{error}");
        }
    }
}
