//! The SSH node: made from settings, served over its own port or over streams of the reverse tunnel.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use async_trait::async_trait;
use remoteler_core::{AuditSink, Clock, ClusterName, Entropy, HostApi, LiveWork, NodeRecord};
use remoteler_ssh::{Node, NodeConfig, NodeLimits, SecondFactors};
use remoteler_tunnel::{BoxedStream, DialHeader, StreamService};

use crate::host::HostKeys;

/// What the node is made of.
pub(crate) struct NodeParts {
    pub(crate) record: NodeRecord,
    pub(crate) cluster: ClusterName,
    pub(crate) recordings_dir: PathBuf,
    pub(crate) agent_notes_dir: PathBuf,
}

/// Makes the node.
pub(crate) fn make(
    parts: NodeParts,
    keys: &HostKeys,
    live: Arc<LiveWork>,
    audit: Arc<dyn AuditSink>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> anyhow::Result<Arc<Node>> {
    let program = std::env::current_exe().context("this program's own path is unknown, so SFTP could not be served")?;
    let shown = keys.shown.ssh.borrow().clone();
    let config = NodeConfig {
        record: parts.record,
        cluster: parts.cluster,
        host_key: shown.key,
        host_certificate: shown.certificate,
        recordings_dir: parts.recordings_dir,
        sftp_command: vec![program.into_os_string(), "sftp-server".into()],
        // As sshd: neither the data directory nor this process's own TMPDIR need be open to other accounts.
        agent_sockets_dir: "/tmp".into(),
        agent_notes_dir: parts.agent_notes_dir,
        limits: NodeLimits::default(),
    };
    Ok(Node::new(config, live, audit, clock, entropy)?)
}

/// Second factors go to the auth service.
pub(crate) fn second_factors(api: Arc<dyn HostApi>) -> SecondFactors {
    Arc::new(move |request| {
        let api = api.clone();
        Box::pin(async move { api.prove_session(request).await })
    })
}

/// The node as a service of the reverse tunnel.
pub(crate) struct NodeStreams(pub(crate) Arc<Node>);

#[async_trait]
impl StreamService for NodeStreams {
    async fn serve(&self, stream: BoxedStream, header: DialHeader) {
        self.0.serve_stream(stream, header.client_addr.map(|addr| addr.to_string())).await;
    }
}
