//! The proxy's copy of the inventory: what changes make of it. Owns its bound, and that old answers do not undo newer ones. Asks nobody.

use std::{collections::HashMap, sync::Arc};

use remoteler_core::{
    ClusterName, Heartbeat, HostId, InventoryUpdate, KubeClusterName, KubeRecord, NodeName, NodeRecord, ProxyRecord,
    Revision, Timestamp,
};

use super::apps::KnownApps;

/// Most nodes, Kubernetes clusters and apps, of each, that a proxy knows: some 300 octets each. Those that come later are not reached through it, and it says so in its log.
pub(super) const MAX_RECORDS: usize = 100_000;

/// What a proxy needs to know of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownNode {
    pub(super) host_id: HostId,
    pub(super) name: NodeName,
    /// `host:port`, or through the tunnel.
    pub(super) addr: Option<String>,
    over: Timestamp,
}

/// And of a Kubernetes cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownKube {
    host_id: HostId,
    over: Timestamp,
}

/// The copy.
#[derive(Debug)]
pub(super) struct Copy {
    cluster: ClusterName,
    most: usize,
    /// Up to where it is one; none before the first answer.
    revision: Option<Revision>,
    nodes: HashMap<NodeName, Arc<KnownNode>>,
    by_host: HashMap<HostId, Arc<KnownNode>>,
    kube: HashMap<KubeClusterName, KnownKube>,
    by_server_name: HashMap<String, KubeClusterName>,
    pub(super) apps: KnownApps,
    proxies: HashMap<HostId, ProxyRecord>,
    /// Records that found no room since the last whole list.
    refused: u64,
}

impl Copy {
    /// `public_addr` is the proxy's own, `host:port`.
    pub(super) fn new(cluster: ClusterName, public_addr: String, most: usize) -> Self {
        let apps = KnownApps::new(cluster.clone(), public_addr, most);
        Self::with(cluster, apps, most)
    }

    fn with(cluster: ClusterName, apps: KnownApps, most: usize) -> Self {
        Self {
            cluster,
            apps,
            most,
            revision: None,
            nodes: HashMap::new(),
            by_host: HashMap::new(),
            kube: HashMap::new(),
            by_server_name: HashMap::new(),
            proxies: HashMap::new(),
            refused: 0,
        }
    }

    /// Where to ask from.
    pub(super) const fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// How many records found no room.
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    /// Takes what was answered to a question that began at `asked`. An answer to a question from another place is passed over: what it says is known already.
    pub(super) fn apply(&mut self, asked: Option<Revision>, update: InventoryUpdate) {
        if asked != self.revision {
            return;
        }
        if update.whole {
            let apps = self.apps.emptied();
            *self = Self::with(self.cluster.clone(), apps, self.most);
        }
        self.revision = Some(update.revision);
        update.gone_nodes.iter().for_each(|name| self.forget_node(name));
        update.gone_kube_clusters.iter().for_each(|name| self.forget_kube(name));
        update.gone_apps.iter().for_each(|name| self.apps.forget(name));
        for id in &update.gone_proxies {
            self.proxies.remove(id);
        }
        update.nodes.into_iter().for_each(|node| self.add_node(node));
        update.kube_clusters.into_iter().for_each(|kube| self.add_kube(kube));
        for app in update.apps {
            if !self.apps.add(app) {
                self.refused += 1;
            }
        }
        for proxy in update.proxies {
            if self.proxies.len() < self.most || self.proxies.contains_key(&proxy.host_id) {
                self.proxies.insert(proxy.host_id, proxy);
            } else {
                self.refused += 1;
            }
        }
        self.expire(update.now);
    }

    fn add_node(&mut self, node: NodeRecord) {
        let NodeRecord { host_id, name, addr, last_seen, heartbeat, labels: _, version: _ } = node;
        self.forget_node(&name);
        if self.nodes.len() >= self.most {
            self.refused += 1;
            return;
        }
        let node = Arc::new(KnownNode { host_id, name: name.clone(), addr, over: last_seen.plus(heartbeat.life()) });
        self.by_host.insert(host_id, Arc::clone(&node));
        self.nodes.insert(name, node);
    }

    fn forget_node(&mut self, name: &NodeName) {
        let Some(gone) = self.nodes.remove(name) else { return };
        // The host may have another name by now.
        if self.by_host.get(&gone.host_id).is_some_and(|known| known.name == gone.name) {
            self.by_host.remove(&gone.host_id);
        }
    }

    fn add_kube(&mut self, kube: KubeRecord) {
        let KubeRecord { host_id, name, last_seen, heartbeat, addr: _, labels: _, version: _ } = kube;
        if self.kube.len() >= self.most && !self.kube.contains_key(&name) {
            self.refused += 1;
            return;
        }
        self.by_server_name.insert(name.server_name(&self.cluster), name.clone());
        self.kube.insert(name, KnownKube { host_id, over: last_seen.plus(heartbeat.life()) });
    }

    fn forget_kube(&mut self, name: &KubeClusterName) {
        self.kube.remove(name);
        self.by_server_name.remove(&name.server_name(&self.cluster));
    }

    /// Forgets whose last heartbeat is too long ago, by the auth service's clock: while that is away nothing is forgotten.
    fn expire(&mut self, now: Timestamp) {
        let gone: Vec<_> = self.nodes.values().filter(|node| node.over <= now).cloned().collect();
        gone.iter().for_each(|node| self.forget_node(&node.name));
        let gone: Vec<_> =
            self.kube.iter().filter(|(_, kube)| kube.over <= now).map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| self.forget_kube(name));
        self.apps.expire(now);
        self.proxies.retain(|_, proxy| proxy.last_seen.plus(Heartbeat::default().life()) > now);
    }

    /// The node of this name, or of the host with this id.
    pub(super) fn node(&self, name: &str) -> Option<&Arc<KnownNode>> {
        let by_name = name.parse().ok().and_then(|name: NodeName| self.nodes.get(&name));
        by_name.or_else(|| self.by_host.get(&name.parse().ok()?))
    }

    /// The node of a host.
    pub(super) fn node_of(&self, host: HostId) -> Option<&Arc<KnownNode>> {
        self.by_host.get(&host)
    }

    /// Name, if it is a node too, and id of a host.
    pub(super) fn with_node(&self, host: Option<HostId>) -> (Option<String>, Option<HostId>) {
        let node = host.and_then(|host| self.node_of(host));
        (node.map(|node| node.name.to_string()), host)
    }

    /// The host of the service of a Kubernetes cluster.
    pub(super) fn kube(&self, name: &str) -> Option<HostId> {
        self.kube.get(&name.parse().ok()?).map(|kube| kube.host_id)
    }

    /// The Kubernetes cluster whose service has this TLS server name.
    pub(super) fn kube_by_server_name(&self, server_name: &str) -> Option<&KubeClusterName> {
        self.by_server_name.get(server_name)
    }

    /// All proxies, in no order.
    pub(super) fn proxies(&self) -> impl Iterator<Item = &ProxyRecord> {
        self.proxies.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u64) -> HostId {
        format!("00000000-0000-0000-0000-{number:012}").parse().unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn node(number: u64, name: &str, seen: i64) -> NodeRecord {
        NodeRecord {
            host_id: host(number),
            name: name.parse().unwrap(),
            labels: Default::default(),
            addr: None,
            version: "1".into(),
            last_seen: at(seen),
            heartbeat: Default::default(),
        }
    }

    fn kube(number: u64, name: &str, seen: i64) -> KubeRecord {
        KubeRecord {
            host_id: host(number),
            name: name.parse().unwrap(),
            labels: Default::default(),
            addr: None,
            version: "1".into(),
            last_seen: at(seen),
            heartbeat: Default::default(),
        }
    }

    fn copy(most: usize) -> Copy {
        Copy::new("example.com".parse().unwrap(), "proxy.example.com:443".into(), most)
    }

    fn whole(revision: u64, now: i64) -> InventoryUpdate {
        InventoryUpdate { whole: true, ..InventoryUpdate::empty(Revision(revision), at(now)) }
    }

    fn change(revision: u64, now: i64) -> InventoryUpdate {
        InventoryUpdate::empty(Revision(revision), at(now))
    }

    #[test]
    fn what_is_announced_is_found_by_name_and_host_and_what_is_removed_is_not() {
        let mut copy = copy(10);
        let all = InventoryUpdate { nodes: vec![node(1, "a", 0)], kube_clusters: vec![kube(2, "k", 0)], ..whole(5, 0) };
        copy.apply(None, all);
        assert_eq!(copy.node("a"), copy.node(&host(1).to_string()));
        assert_eq!(copy.node("a").unwrap().host_id, host(1));
        assert_eq!(copy.kube("k"), Some(host(2)));
        let name: KubeClusterName = "k".parse().unwrap();
        assert_eq!(copy.kube_by_server_name(&name.server_name(&"example.com".parse().unwrap())), Some(&name));
        // A removal and a new announcement of the same name in one answer: the announcement came later.
        let again =
            InventoryUpdate { nodes: vec![node(3, "a", 0)], gone_nodes: vec!["a".parse().unwrap()], ..change(6, 0) };
        copy.apply(Some(Revision(5)), again);
        assert_eq!((copy.node("a").unwrap().host_id, copy.node_of(host(1))), (host(3), None));
        let gone =
            InventoryUpdate { gone_nodes: vec!["a".parse().unwrap()], gone_kube_clusters: vec![name], ..change(7, 0) };
        copy.apply(Some(Revision(6)), gone);
        assert_eq!((copy.node("a"), copy.node_of(host(3)), copy.kube("k")), (None, None, None));
        assert!(copy.by_server_name.is_empty() && copy.by_host.is_empty());
    }

    #[test]
    fn an_old_answer_does_not_undo_a_newer_one() {
        let mut copy = copy(10);
        copy.apply(None, whole(1, 0));
        let newer = InventoryUpdate { gone_nodes: vec!["a".parse().unwrap()], ..change(9, 0) };
        copy.apply(Some(Revision(1)), newer);
        let older = InventoryUpdate { nodes: vec![node(1, "a", 0)], ..change(4, 0) };
        copy.apply(Some(Revision(1)), older);
        assert_eq!((copy.node("a"), copy.revision()), (None, Some(Revision(9))));
    }

    #[test]
    fn a_whole_answer_replaces_everything() {
        let mut copy = copy(10);
        copy.apply(None, InventoryUpdate { nodes: vec![node(1, "a", 0)], ..whole(1, 0) });
        copy.apply(Some(Revision(1)), InventoryUpdate { nodes: vec![node(2, "b", 0)], ..whole(3, 0) });
        assert_eq!(copy.node("a"), None);
        assert!(copy.node("b").is_some());
    }

    #[test]
    fn who_is_silent_is_forgotten_by_the_clock_of_the_auth_service() {
        let mut copy = copy(10);
        let proxy = |seen| ProxyRecord { host_id: host(7), public_addr: "p:443".into(), last_seen: at(seen) };
        let all = InventoryUpdate {
            nodes: vec![node(1, "a", 0), node(2, "b", 60)],
            kube_clusters: vec![kube(3, "k", 0)],
            proxies: vec![proxy(0)],
            ..whole(1, 60)
        };
        copy.apply(None, all);
        assert_eq!(copy.proxies().count(), 1);
        copy.apply(Some(Revision(1)), change(1, 119));
        assert!(copy.node("a").is_some() && copy.kube("k").is_some());
        copy.apply(Some(Revision(1)), change(1, 120));
        assert_eq!((copy.node("a"), copy.kube("k"), copy.proxies().count()), (None, None, 0));
        assert!(copy.node("b").is_some());
    }

    #[test]
    fn who_said_that_it_speaks_seldom_is_known_for_as_much_longer() {
        let mut copy = copy(10);
        let nodes = vec![NodeRecord { heartbeat: Heartbeat::from(300), ..node(1, "a", 0) }];
        let kube_clusters = vec![KubeRecord { heartbeat: Heartbeat::from(300), ..kube(3, "k", 0) }];
        copy.apply(None, InventoryUpdate { nodes, kube_clusters, ..whole(1, 0) });
        copy.apply(Some(Revision(1)), change(1, 659));
        assert!(copy.node("a").is_some() && copy.kube("k").is_some());
        copy.apply(Some(Revision(1)), change(1, 660));
        assert_eq!((copy.node("a"), copy.kube("k")), (None, None));
    }

    #[test]
    fn a_host_with_a_new_name_is_found_by_its_id_under_the_new_one() {
        let mut copy = copy(10);
        copy.apply(None, InventoryUpdate { nodes: vec![node(1, "old", 0)], ..whole(1, 0) });
        copy.apply(Some(Revision(1)), InventoryUpdate { nodes: vec![node(1, "new", 100)], ..change(2, 100) });
        copy.apply(Some(Revision(2)), change(3, 130));
        assert_eq!(copy.node("old"), None);
        assert_eq!(copy.node(&host(1).to_string()).unwrap().name.as_str(), "new");
    }

    #[test]
    fn the_copy_is_bounded_and_counts_what_found_no_room() {
        let mut copy = copy(2);
        let nodes = (0..5).map(|number| node(number, &format!("n{number}"), 0)).collect();
        let kube_clusters = (0..5).map(|number| kube(number, &format!("k{number}"), 0)).collect();
        copy.apply(None, InventoryUpdate { nodes, kube_clusters, ..whole(1, 0) });
        assert_eq!((copy.nodes.len(), copy.by_host.len(), copy.kube.len(), copy.by_server_name.len()), (2, 2, 2, 2));
        assert_eq!(copy.refused(), 6);
        // A heartbeat of one that is known is not refused.
        copy.apply(Some(Revision(1)), InventoryUpdate { nodes: vec![node(0, "n0", 5)], ..change(2, 5) });
        assert_eq!((copy.refused(), copy.nodes.len()), (6, 2));
    }
}
