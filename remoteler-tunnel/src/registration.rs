//! What an agent says first on its link: which services it offers. And the proxy's answer. Owns their wire form and the rule
//! that an agent may offer what its certificate says and nothing else (I28).

use std::collections::BTreeSet;

use remoteler_core::{AppName, HostIdentity, KubeClusterName, NodeName, SystemRole};
use serde::{Deserialize, Serialize};

use crate::dial::{DIAL_VERSION, Target, TargetKind};
use crate::service::ServiceAddress;

/// Metadata of the stream on which an agent registers: the first that it opens.
pub const REGISTRATION_METADATA: &[u8] = br#"{"v":1,"register":true}"#;
/// Metadata of a stream on which an agent speaks to the auth service, where the proxy said in its reply that it takes them.
pub const AUTH_METADATA: &[u8] = br#"{"v":1,"auth":true}"#;
/// Most of those of one link at once: one that waits, one for words, and some for what else happens.
pub const MAX_AUTH_STREAMS: usize = 8;
/// Most octets of a registration.
pub const MAX_REGISTRATION_LEN: usize = 60_000;

/// Services behind an agent's link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The node that serves SSH, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<NodeName>,
    /// The Kubernetes clusters that are served.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub kube: BTreeSet<KubeClusterName>,
    /// The web applications that are served.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub apps: BTreeSet<AppName>,
    /// Whether named services are served under the host's own name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub services: bool,
}

impl Offer {
    /// Whether the target is among what is offered. A node answers to its name and to its host id.
    #[must_use]
    pub fn includes(&self, target: &Target, host: &HostIdentity) -> bool {
        let name = target.name.as_str();
        target.cluster == host.cluster
            && match target.kind {
                TargetKind::Ssh => {
                    self.ssh.as_ref().is_some_and(|node| node.as_str() == name || host.id.to_string() == name)
                }
                TargetKind::Kube => self.kube.iter().any(|cluster| cluster.as_str() == name),
                TargetKind::App => self.apps.iter().any(|app| app.as_str() == name),
                TargetKind::Service => {
                    self.services && name.parse::<ServiceAddress>().is_ok_and(|address| address.is_at(host))
                }
            }
    }

    /// Checks the offer against the certificate of who makes it.
    ///
    /// # Errors
    /// [`OfferError`] naming the first thing that the certificate does not cover.
    pub fn check(&self, host: &HostIdentity) -> Result<(), OfferError> {
        let claim = |what: String| OfferError { host: host.id.to_string(), what };
        if let Some(node) = &self.ssh
            && (*node != host.name || !host.roles.contains(&SystemRole::Node))
        {
            return Err(claim(format!("node {node}")));
        }
        if self.services && !host.roles.contains(&SystemRole::Node) {
            return Err(claim("services of its own".into()));
        }
        let kube = host.roles.contains(&SystemRole::Kube);
        if let Some(cluster) = self.kube.iter().find(|cluster| !kube || !host.kube_clusters.contains(*cluster)) {
            return Err(claim(format!("Kubernetes cluster {cluster}")));
        }
        let apps = host.roles.contains(&SystemRole::App);
        match self.apps.iter().find(|app| !apps || !host.apps.contains(*app)) {
            Some(app) => Err(claim(format!("application {app}"))),
            None => Ok(()),
        }
    }
}

/// An agent offers what is not its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host {host} offers {what}, which its certificate does not cover; join it again with a token for that")]
pub struct OfferError {
    host: String,
    what: String,
}

/// The first message on the registration stream.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Registration {
    v: u32,
    pub(crate) offer: Offer,
    /// Version of the agent's program, for people.
    #[serde(default)]
    pub(crate) version: String,
}

impl Registration {
    pub(crate) fn new(offer: Offer) -> Self {
        Self { v: DIAL_VERSION, offer, version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use remoteler_core::{ClusterName, HostId};

    use super::*;
    use crate::dial::TargetName;

    fn host(roles: &[SystemRole], kube: &[&str]) -> HostIdentity {
        HostIdentity {
            id: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse::<HostId>().unwrap(),
            name: NodeName::new("edge").unwrap(),
            cluster: ClusterName::new("root").unwrap(),
            roles: roles.iter().copied().collect(),
            kube_clusters: kube.iter().map(|name| KubeClusterName::new(name).unwrap()).collect(),
            apps: Default::default(),
            labels: Default::default(),
            generation: 0,
        }
    }

    fn offer(ssh: Option<&str>, kube: &[&str]) -> Offer {
        Offer {
            ssh: ssh.map(|name| NodeName::new(name).unwrap()),
            kube: kube.iter().map(|name| KubeClusterName::new(name).unwrap()).collect(),
            apps: BTreeSet::new(),
            services: false,
        }
    }

    // I28
    #[test]
    fn services_are_offered_under_the_hosts_own_name_and_by_nodes() {
        let offered = Offer { services: true, ..Offer::default() };
        let node = host(&[SystemRole::Node], &[]);
        assert!(offered.check(&node).is_ok());
        assert!(offered.check(&host(&[SystemRole::Kube], &["staging"])).is_err());
        for (name, expected) in
            [("pg@edge", true), ("pg@67e55044-10b1-426f-9247-bb680e5fe0c8", true), ("pg@other", false), ("edge", false)]
        {
            let (cluster, name) = (ClusterName::new("root").unwrap(), TargetName::new(name).unwrap());
            let target = Target { cluster, kind: TargetKind::Service, name, port: None };
            assert_eq!(offered.includes(&target, &node), expected, "{target}");
            assert!(!offer(Some("edge"), &[]).includes(&target, &node));
        }
    }

    // I28
    #[test]
    fn an_agent_offers_what_its_certificate_covers_and_nothing_else() {
        use SystemRole::{Kube, Node};
        for (roles, certified, offered, good) in [
            (&[Node][..], &[][..], offer(Some("edge"), &[]), true),
            (&[Node], &[], offer(Some("other"), &[]), false),
            (&[Kube], &["staging"], offer(Some("edge"), &[]), false),
            (&[Kube], &["staging"], offer(None, &["staging"]), true),
            (&[Kube], &["staging"], offer(None, &["staging", "production"]), false),
            (&[Node], &["staging"], offer(None, &["staging"]), false),
            (&[], &[], offer(None, &[]), true),
        ] {
            assert_eq!(offered.check(&host(roles, certified)).is_ok(), good, "{roles:?} {certified:?} {offered:?}");
        }
    }

    // I29
    #[test]
    fn a_target_is_offered_by_its_own_name_kind_and_cluster() {
        let host = host(&[SystemRole::Node], &[]);
        let offered = offer(Some("edge"), &["staging"]);
        for (cluster, kind, name, expected) in [
            ("root", TargetKind::Ssh, "edge", true),
            ("root", TargetKind::Ssh, "67e55044-10b1-426f-9247-bb680e5fe0c8", true),
            ("root", TargetKind::Kube, "staging", true),
            ("root", TargetKind::Kube, "edge", false),
            ("root", TargetKind::Ssh, "127.0.0.1", false),
            ("leaf", TargetKind::Ssh, "edge", false),
        ] {
            let cluster = ClusterName::new(cluster).unwrap();
            let target = Target { cluster, kind, name: TargetName::new(name).unwrap(), port: None };
            assert_eq!(offered.includes(&target, &host), expected, "{target}");
        }
    }
}
