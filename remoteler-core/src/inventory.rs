//! What services announce of themselves, and who may see it.

use serde::{Deserialize, Serialize};

use crate::{HostId, KubeClusterName, Labels, NodeName, Policy, Timestamp, UserIdentity, Visibility};

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
}

impl KubeRecord {
    /// Whether `user` may know of it.
    #[must_use]
    pub fn visible_to(&self, user: &UserIdentity, policy: &Policy) -> bool {
        Visibility::of(user, policy).kube_cluster(self)
    }
}
