//! The Kubernetes service: made from settings, served over streams, whether they come from the proxy in this process or through the
//! reverse tunnel.

use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use remoteler_core::{AuditSink, Clock, HostIdentity, LiveWork};
use remoteler_kube::{KubeClusterConfig, KubeService, KubeServiceConfig, Upstream};
use remoteler_tunnel::{BoxedStream, DialHeader, ServerTls, StreamService, judged_later};

use crate::{VERSION, config::KubeSettings};

/// Makes the service.
pub(crate) fn make(
    settings: &KubeSettings,
    host: &HostIdentity,
    tls: &ServerTls,
    live: Arc<LiveWork>,
    audit: Arc<dyn AuditSink>,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<KubeService> {
    let upstream = match &settings.kubeconfig {
        Some(path) => Upstream::from_kubeconfig(path, None)?,
        None => Upstream::in_cluster().context("no kubeconfig_file is set and this is no pod")?,
    };
    let clusters = vec![KubeClusterConfig {
        name: settings.name.clone(),
        labels: host.labelled(settings.labels.clone()),
        upstream,
    }];
    let (cluster, host_id) = (host.cluster.clone(), host.id);
    let config = KubeServiceConfig { cluster, host_id, clusters, version: VERSION.to_owned() };
    // The verdict on a certificate comes right after the handshake, so that the client reads why and the audit event says who.
    let tls = judged_later(tls.identity.clone())?;
    Ok(KubeService::new(config, tls, live, audit, clock)?)
}

/// The service as the router and the reverse tunnel see it.
pub(crate) struct KubeStreams(pub(crate) KubeService);

#[async_trait]
impl StreamService for KubeStreams {
    async fn serve(&self, stream: BoxedStream, header: DialHeader) {
        let client = header.client_addr.map(|addr| addr.to_string());
        if let Err(cause) = self.0.serve_stream(stream, client).await {
            tracing::debug!(%cause, "a Kubernetes client's connection ended");
        }
    }
}
