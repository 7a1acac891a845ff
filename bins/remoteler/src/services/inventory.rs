//! What the proxy knows of nodes and Kubernetes clusters: a copy of the auth service's inventory, kept when auth is away.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

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
    on_loopback: bool,
    known: ArcSwap<Known>,
    last_refresh: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Known {
    nodes: HashMap<String, Arc<NodeRecord>>,
    kube: HashMap<String, KubeRecord>,
    by_server_name: HashMap<String, String>,
}

const REFRESH: Duration = Duration::from_secs(5);
const MISS_REFRESH: Duration = Duration::from_millis(100);
/// How long one who asks for a name waits for the auth service.
const PATIENCE: Duration = Duration::from_secs(5);

impl CachedInventory {
    /// `on_loopback` says that the proxy itself listens on loopback only.
    pub(crate) fn new(api: Arc<dyn AuthApi>, cluster: ClusterName, own_host: HostId, on_loopback: bool) -> Arc<Self> {
        Arc::new(Self {
            api,
            cluster,
            own_host,
            on_loopback,
            known: ArcSwap::default(),
            last_refresh: Mutex::new(None),
        })
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
            known.nodes.insert(node.host_id.to_string(), Arc::clone(&node));
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
        let refreshed = tokio::time::timeout(PATIENCE, self.refresh()).await;
        // From its end on: those who waited meanwhile have the newest answer, or the newest failure.
        *last = Some(Instant::now());
        match refreshed {
            Ok(refreshed) => refreshed.map_err(|cause| cause.to_string()),
            Err(_) => Err(format!("the auth service did not answer within {} s", PATIENCE.as_secs())),
        }
    }

    /// Name and id of the host of a target, as far as they are known.
    pub(crate) fn host_of(&self, target: &Target) -> (Option<String>, Option<HostId>) {
        let known = self.known.load();
        let name = target.name.as_str();
        match target.kind {
            TargetKind::Ssh => {
                let name = name.strip_suffix(&format!(".{}", self.cluster)).unwrap_or(name);
                match known.nodes.get(name) {
                    Some(node) => (Some(node.name.to_string()), Some(node.host_id)),
                    None => (Some(name.to_owned()), name.parse().ok()),
                }
            }
            TargetKind::Kube => {
                let host = known.kube.get(name).map(|record| record.host_id);
                let node = host.and_then(|host| known.nodes.get(&host.to_string()));
                (node.map(|node| node.name.to_string()), host)
            }
            TargetKind::Service => {
                let host = name.split_once('@').map_or(name, |(_, host)| host);
                match known.nodes.get(host) {
                    Some(node) => (Some(node.name.to_string()), Some(node.host_id)),
                    None => (Some(host.to_owned()), host.parse().ok()),
                }
            }
        }
    }

    /// The Kubernetes cluster whose service has this TLS server name.
    pub(crate) async fn kube_by_server_name(&self, server_name: &str) -> Option<String> {
        if let Some(name) = self.known.load().by_server_name.get(server_name) {
            return Some(name.clone());
        }
        self.refresh_after_miss().await.ok()?;
        self.known.load().by_server_name.get(server_name).cloned()
    }

    /// A host says itself where it listens. Addresses that mean another thing on this machine than on that one, and those of the
    /// machine's own services, are not dialled for it; loopback only where the whole cluster is on this machine.
    fn may_dial(&self, addr: &str) -> bool {
        let Ok(addr) = addr.parse::<SocketAddr>() else { return false };
        let link_local = match addr.ip() {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        !link_local
            && !addr.ip().is_unspecified()
            && !addr.ip().is_multicast()
            && (self.on_loopback || !addr.ip().is_loopback())
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
                // Kubernetes services listen on nothing: what else a record says is not believed.
                (record.host_id, None)
            }
            // The router finds them by their host's link.
            TargetKind::Service => return None,
        };
        match addr {
            None => Some(Place::Agent(host)),
            Some(addr) if host == self.own_host || self.may_dial(&addr) => Some(Place::Address(addr)),
            Some(addr) => {
                tracing::warn!(%host, addr, "a host announced an address that is not dialled");
                None
            }
        }
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
