//! What services announce of themselves, and who may see it.

use serde::{Deserialize, Serialize};

use crate::{
    AppName, AppRecord, Heartbeat, HostId, KubeClusterName, Labels, NodeName, Policy, Revision, Timestamp,
    UserIdentity, Visibility,
};

/// An SSH server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The host it runs on.
    pub host_id: HostId,
    /// What it is called.
    pub name: NodeName,
    /// What roles match against.
    #[serde(default)]
    pub labels: Labels,
    /// `host:port` where the proxy reaches it; absent: through the reverse tunnel of `host_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Version of the program.
    pub version: String,
    /// When it was last heard of; set by the auth service.
    pub last_seen: Timestamp,
    /// How often it says that it is there.
    #[serde(rename = "heartbeat_seconds", default, skip_serializing_if = "Heartbeat::is_default")]
    pub heartbeat: Heartbeat,
}

/// A proxy of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyRecord {
    /// The host it runs on.
    pub host_id: HostId,
    /// `host:port` under which users and agents reach it.
    pub public_addr: String,
    /// When it was last heard of.
    pub last_seen: Timestamp,
}

impl NodeRecord {
    /// Whether `user` may know of it.
    #[must_use]
    pub fn visible_to(&self, user: &UserIdentity, policy: &Policy) -> bool {
        Visibility::of(user, policy).node(self)
    }
}

/// A Kubernetes cluster behind one of our services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeRecord {
    /// The host of the service.
    pub host_id: HostId,
    /// What it is called.
    pub name: KubeClusterName,
    /// What roles match against.
    #[serde(default)]
    pub labels: Labels,
    /// `host:port` where the proxy reaches the service; absent: in the proxy's own process or through the reverse tunnel of `host_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Version of the program.
    pub version: String,
    /// When it was last heard of; set by the auth service.
    pub last_seen: Timestamp,
    /// How often it says that it is there.
    #[serde(rename = "heartbeat_seconds", default, skip_serializing_if = "Heartbeat::is_default")]
    pub heartbeat: Heartbeat,
}

impl KubeRecord {
    /// Whether `user` may know of it.
    #[must_use]
    pub fn visible_to(&self, user: &UserIdentity, policy: &Policy) -> bool {
        Visibility::of(user, policy).kube_cluster(self)
    }
}

/// What has changed in the inventory, for a proxy that keeps a copy of it. A record whose [`Heartbeat::life`] is over at `now` is gone without a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryUpdate {
    /// What to ask from the next time.
    pub revision: Revision,
    /// Whether this is all there is: what the copy had before is gone.
    pub whole: bool,
    /// The auth service's time.
    pub now: Timestamp,
    /// Nodes that were announced, and heartbeats; without labels, for proxies decide nothing by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeRecord>,
    /// Nodes that were removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone_nodes: Vec<NodeName>,
    /// Kubernetes clusters that were announced, and heartbeats; without labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kube_clusters: Vec<KubeRecord>,
    /// Kubernetes clusters that were removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone_kube_clusters: Vec<KubeClusterName>,
    /// Web applications that were announced, and heartbeats; without labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<AppRecord>,
    /// Web applications that were removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone_apps: Vec<AppName>,
    /// Proxies that were announced, and heartbeats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxies: Vec<ProxyRecord>,
    /// Proxies that were removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone_proxies: Vec<HostId>,
}

impl InventoryUpdate {
    /// That nothing has changed up to `revision`.
    #[must_use]
    pub const fn empty(revision: Revision, now: Timestamp) -> Self {
        Self {
            revision,
            whole: false,
            now,
            nodes: Vec::new(),
            gone_nodes: Vec::new(),
            kube_clusters: Vec::new(),
            gone_kube_clusters: Vec::new(),
            apps: Vec::new(),
            gone_apps: Vec::new(),
            proxies: Vec::new(),
            gone_proxies: Vec::new(),
        }
    }

    /// Whether it tells of no change.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        !self.whole
            && self.nodes.is_empty()
            && self.gone_nodes.is_empty()
            && self.kube_clusters.is_empty()
            && self.gone_kube_clusters.is_empty()
            && self.apps.is_empty()
            && self.gone_apps.is_empty()
            && self.proxies.is_empty()
            && self.gone_proxies.is_empty()
    }
}
