//! What the proxy knows of nodes and Kubernetes clusters: a copy of the auth service's inventory, kept when auth is away.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use remoteler_core::{ApiError, AuthApi, ClusterName, HostId, KubeRecord, NodeRecord};
use remoteler_tunnel::{Inventory, Place, Target, TargetKind};
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;

/// The copy. Refreshed in the background; a name that is not in it is asked for once a second at the most.
pub(crate) struct CachedInventory {
    api: Arc<dyn AuthApi>,
    cluster: ClusterName,
    own_host: HostId,
    known: ArcSwap<Known>,
    last_refresh: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Known {
    nodes: HashMap<String, NodeRecord>,
    kube: HashMap<String, KubeRecord>,
    by_server_name: HashMap<String, String>,
}

const REFRESH: Duration = Duration::from_secs(5);
const MISS_REFRESH: Duration = Duration::from_secs(1);

impl CachedInventory {
    pub(crate) fn new(api: Arc<dyn AuthApi>, cluster: ClusterName, own_host: HostId) -> Arc<Self> {
        Arc::new(Self { api, cluster, own_host, known: ArcSwap::default(), last_refresh: Mutex::new(None) })
    }

    /// Refreshes until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            if let Err(cause) = self.refresh().await {
                tracing::debug!(%cause, "the inventory was not refreshed, the last one stays");
            }
            if stop.run_until_cancelled(tokio::time::sleep(REFRESH)).await.is_none() {
                return;
            }
        }
    }

    async fn refresh(&self) -> Result<(), ApiError> {
        let (nodes, kube) = (self.api.nodes().await?, self.api.kube_clusters().await?);
        let mut known = Known::default();
        for node in nodes {
            known.nodes.insert(node.host_id.to_string(), node.clone());
            known.nodes.insert(node.name.to_string(), node);
        }
        for record in kube {
            known.by_server_name.insert(record.name.server_name(&self.cluster), record.name.to_string());
            known.kube.insert(record.name.to_string(), record);
        }
        self.known.store(Arc::new(known));
        Ok(())
    }

    /// Refreshes because something was not found, unless that was done just now.
    async fn refresh_after_miss(&self) -> Result<(), String> {
        let mut last = self.last_refresh.lock().await;
        if last.is_some_and(|at| at.elapsed() < MISS_REFRESH) {
            return Ok(());
        }
        *last = Some(Instant::now());
        self.refresh().await.map_err(|cause| cause.to_string())
    }

    /// The Kubernetes cluster whose service has this TLS server name.
    pub(crate) async fn kube_by_server_name(&self, server_name: &str) -> Option<String> {
        if let Some(name) = self.known.load().by_server_name.get(server_name) {
            return Some(name.clone());
        }
        self.refresh_after_miss().await.ok()?;
        self.known.load().by_server_name.get(server_name).cloned()
    }

    fn place(&self, target: &Target) -> Option<Place> {
        let known = self.known.load();
        let (host, addr) = match target.kind {
            TargetKind::Ssh => {
                let name = target.name.as_str();
                let name = name.strip_suffix(&format!(".{}", self.cluster)).unwrap_or(name);
                let node = known.nodes.get(name)?;
                (node.host_id, node.addr.clone())
            }
            TargetKind::Kube => {
                let record = known.kube.get(target.name.as_str())?;
                if record.host_id == self.own_host {
                    return Some(Place::Local);
                }
                (record.host_id, record.addr.clone())
            }
        };
        Some(addr.map_or(Place::Agent(host), Place::Address))
    }
}

#[async_trait]
impl Inventory for CachedInventory {
    async fn locate(&self, target: &Target) -> Result<Option<Place>, String> {
        if target.cluster != self.cluster {
            return Ok(None);
        }
        if let Some(place) = self.place(target) {
            return Ok(Some(place));
        }
        self.refresh_after_miss().await?;
        Ok(self.place(target))
    }
}
