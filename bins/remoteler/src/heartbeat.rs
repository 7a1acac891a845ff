//! Tells the auth service again and again what this process serves, so that it is found and soon forgotten when it is gone.

use std::{sync::Arc, time::Duration};

use remoteler_core::{ApiError, AuthApi, NodeRecord};
#[cfg(feature = "kube")]
use remoteler_kube::KubeService;
use tokio_util::sync::CancellationToken;

use crate::services::labels::LiveLabels;

/// What is announced.
#[derive(Default)]
pub(crate) struct Announced {
    /// The node, and its labels as they change.
    pub(crate) node: Option<(NodeRecord, Arc<LiveLabels>)>,
    /// The Kubernetes clusters.
    #[cfg(feature = "kube")]
    pub(crate) kube: Option<KubeService>,
    /// The proxy's public address.
    pub(crate) proxy: Option<String>,
}

const PERIOD: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(2);

/// Announces once.
///
/// # Errors
/// The first announcement that was not taken.
pub(crate) async fn announce(api: &dyn AuthApi, announced: &Announced) -> Result<(), ApiError> {
    if let Some((record, labels)) = &announced.node {
        api.announce_node(NodeRecord { labels: labels.read(), ..record.clone() }).await?;
    }
    #[cfg(feature = "kube")]
    for record in announced.kube.iter().flat_map(KubeService::records) {
        api.announce_kube(record).await?;
    }
    if let Some(addr) = &announced.proxy {
        api.announce_proxy(addr.clone()).await?;
    }
    Ok(())
}

/// Announces until `stop`; soon again after a failure.
pub(crate) async fn run(api: Arc<dyn AuthApi>, announced: Announced, stop: CancellationToken) {
    let mut labels = announced.node.as_ref().map(|(_, labels)| labels.subscribe());
    loop {
        let wait = match announce(&*api, &announced).await {
            Ok(()) => PERIOD,
            Err(cause) => {
                tracing::warn!(%cause, "the auth service did not take the heartbeat");
                RETRY
            }
        };
        let next = async {
            match &mut labels {
                // New labels are announced at once.
                Some(labels) => drop(tokio::time::timeout(wait, labels.changed()).await),
                None => tokio::time::sleep(wait).await,
            }
        };
        if stop.run_until_cancelled(next).await.is_none() {
            return;
        }
    }
}
