//! Asks for pods the way kubectl does: HTTPS to the one port, the Kubernetes service named in SNI, the user's certificate.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use remoteler_core::{KubeClusterName, SystemClock, SystemRole};
use remoteler_tunnel::{ClientTls, Replayed, connect_tcp};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{cluster::DemoCluster, visitor::Visitor};

/// Names and phases of the pods of all namespaces.
pub(crate) async fn pods(cluster: &DemoCluster, ann: &Visitor) -> anyhow::Result<Vec<String>> {
    let kube = KubeClusterName::new(DemoCluster::KUBE)?;
    let name = kube.server_name(&ann.certs.trust.cluster);
    let tls = ClientTls {
        identity: Some(ann.identity.clone()),
        trust: Arc::new(ann.certs.trust.clone()),
        clock: Arc::new(SystemClock),
    };
    let config = tls.to_cluster(&[SystemRole::Kube], "http/1.1")?;
    let socket = connect_tcp(&cluster.proxy.to_string(), Duration::from_secs(5)).await?;
    let stream = TlsConnector::from(config).connect(ServerName::try_from(name)?, Replayed::from(socket)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let path = format!("/v1/kube/{}/{kube}/api/v1/pods?limit=20", ann.certs.trust.cluster);
    let request =
        hyper::Request::get(path).header("host", cluster.proxy.to_string()).body(Empty::<bytes::Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body =
        Limited::new(answer.into_body(), 16 << 20).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
    driver.abort();
    let body: serde_json::Value = serde_json::from_slice(&body).context("the answer is no JSON")?;
    ensure!(status.is_success(), "{status}: {}", body["message"].as_str().unwrap_or_default());
    let pods = body["items"].as_array().context("the answer lists no items")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(pods
        .iter()
        .map(|pod| {
            format!(
                "{}/{} {}",
                text(&pod["metadata"]["namespace"]),
                text(&pod["metadata"]["name"]),
                text(&pod["status"]["phase"])
            )
        })
        .collect())
}
