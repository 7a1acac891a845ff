//! Heartbeats of nodes, Kubernetes services, web applications and proxies, and who sees them. A record ends some time after the last heartbeat, by how often its host said
//! that there would be one.

use std::{collections::BTreeMap, sync::Arc};

use remoteler_core::{
    ApiError, AppAddress, AppName, AppRecord, AuditKind, Heartbeat, HostId, HostIdentity, KubeClusterName, KubeRecord,
    Labels, NodeName, NodeRecord, PolicySource, Revision, SystemRole, Timestamp, Verb, Visibility, authorize_rule,
};
use serde::{Deserialize, Serialize};

use crate::{
    Caller,
    failure::{ApiResult, bad_request, conflict, not_found},
    records::{Batch, key},
    service::Inner,
};

const MAX_LABELS: usize = 100;
const MAX_TEXT: usize = 256;

/// Where a proxy is reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProxyRecord {
    pub(crate) public_addr: String,
    pub(crate) announced: Timestamp,
    /// Of its host; records of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
}

/// Who may see what of the inventory.
enum View<'a> {
    All,
    User(&'a remoteler_core::UserIdentity),
}

impl Inner {
    pub(crate) async fn announce_node(&self, caller: &Caller, record: NodeRecord) -> ApiResult<()> {
        let host = self.admit_host(caller, SystemRole::Node, "announce a node").await?;
        if record.host_id != host.id || record.name != host.name {
            return Err(self.refuse(caller, &format!("announce node {}", record.name)).await); // I28
        }
        check(&record.labels, record.addr.as_deref(), &record.version)?;
        self.check_owner(&key::of(key::NODE_OWNERS, &record.name), host, &format!("node {}", record.name)).await?;
        let now = self.clock.now();
        // What the token gave, the host cannot take back or change.
        let record = NodeRecord { last_seen: now, labels: host.labelled(record.labels), ..record };
        let heartbeat =
            Batch::new().write(&key::of(key::NODES, &record.name), &record, Some(now.plus(record.heartbeat.life())))?;
        self.announced(heartbeat, &key::of(key::NODE_LABELS, &record.name), &record.labels).await
    }

    pub(crate) async fn announce_kube(&self, caller: &Caller, record: KubeRecord) -> ApiResult<()> {
        let host = self.admit_host(caller, SystemRole::Kube, "announce a Kubernetes cluster").await?;
        if record.host_id != host.id || !host.kube_clusters.contains(&record.name) {
            return Err(self.refuse(caller, &format!("announce Kubernetes cluster {}", record.name)).await); // I28
        }
        check(&record.labels, record.addr.as_deref(), &record.version)?;
        let what = format!("Kubernetes cluster {}", record.name);
        self.check_owner(&key::of(key::KUBE_OWNERS, &record.name), host, &what).await?;
        let now = self.clock.now();
        let record = KubeRecord { last_seen: now, labels: host.labelled(record.labels), ..record };
        let heartbeat = Batch::new().write(
            &key::of(key::KUBE_CLUSTERS, &record.name),
            &record,
            Some(now.plus(record.heartbeat.life())),
        )?;
        self.announced(heartbeat, &key::of(key::KUBE_LABELS, &record.name), &record.labels).await
    }

    pub(crate) async fn announce_app(&self, caller: &Caller, record: AppRecord) -> ApiResult<()> {
        let host = self.admit_host(caller, SystemRole::App, "announce an application").await?;
        if record.host_id != host.id || !host.apps.contains(&record.name) {
            return Err(self.refuse(caller, &format!("announce application {}", record.name)).await); // I28
        }
        check(&record.labels, record.addr.as_deref(), &record.version)?;
        let (what, owner) = (format!("application {}", record.name), key::of(key::APP_OWNERS, &record.name));
        let name_since = self.check_owner(&owner, host, &what).await?;
        let now = self.clock.now();
        let record = AppRecord { last_seen: now, labels: host.labelled(record.labels), ..record };
        let until = Some(now.plus(record.heartbeat.life()));
        let (place, labels) = (key::of(key::APPS, &record.name), key::of(key::APP_LABELS, &record.name));
        let mut tries = 0;
        loop {
            // Who is removed at this moment keeps no address.
            let heartbeat = Batch::new().write(&place, &record, until)?.given(&owner, name_since);
            let heartbeat = self.claim_address(caller, &record, heartbeat).await?;
            let announced = self.with_labels(heartbeat, &labels, &record.labels).await?;
            if self.took_turn(announced, &mut tries).await? {
                return Ok(());
            }
        }
    }

    /// Writes a heartbeat, and the labels beside it where they are not those of the one before.
    async fn announced(&self, heartbeat: Batch, known: &str, labels: &Labels) -> ApiResult<()> {
        let batch = self.with_labels(heartbeat, known, labels).await?;
        Ok(self.records.commit(batch).await?)
    }

    async fn with_labels(&self, heartbeat: Batch, known: &str, labels: &Labels) -> ApiResult<Batch> {
        Ok(match self.records.read::<Labels>(known).await? {
            Some(before) if before == *labels => heartbeat,
            Some(_) | None => heartbeat.write(known, labels, None)?,
        })
    }

    /// The labels that each node had when it was heard last, also of those that are away.
    pub(crate) async fn known_nodes(&self) -> ApiResult<BTreeMap<NodeName, Labels>> {
        let known = self.records.list::<Labels>(key::NODE_LABELS).await?;
        Ok(known.into_iter().filter_map(|(name, labels, _)| Some((name.parse().ok()?, labels))).collect())
    }

    /// The same of Kubernetes clusters.
    pub(crate) async fn known_kube_clusters(&self) -> ApiResult<BTreeMap<KubeClusterName, Labels>> {
        let known = self.records.list::<Labels>(key::KUBE_LABELS).await?;
        Ok(known.into_iter().filter_map(|(name, labels, _)| Some((name.parse().ok()?, labels))).collect())
    }

    /// The same of web applications.
    pub(crate) async fn known_apps(&self) -> ApiResult<BTreeMap<AppName, Labels>> {
        let known = self.records.list::<Labels>(key::APP_LABELS).await?;
        Ok(known.into_iter().filter_map(|(name, labels, _)| Some((name.parse().ok()?, labels))).collect())
    }

    pub(crate) async fn announce_proxy(&self, caller: &Caller, public_addr: String) -> ApiResult<()> {
        let host = self.admit_host(caller, SystemRole::Proxy, "announce a proxy").await?;
        check_addr(&public_addr)?;
        let record = ProxyRecord { public_addr, announced: self.clock.now(), name: Some(host.name.to_string()) };
        let mut tries = 0;
        loop {
            let heartbeat = Batch::new().write(&key::of(key::PROXIES, host.id), &record, None)?;
            let heartbeat = self.claim_proxy_name(caller, &record, heartbeat).await?;
            if self.took_turn(heartbeat, &mut tries).await? {
                return Ok(());
            }
        }
    }

    /// Where browsers reach an application. Where there are several proxies and it has no address of its own: at the one whose host id is the first, so
    /// that the address, which is the audience of its tokens, does not change with each heartbeat. None there that another application has claimed.
    pub(crate) async fn app_address(&self, app: &AppRecord) -> ApiResult<Option<AppAddress>> {
        let mut proxies = self.standing_proxies().await?;
        let oldest = self.clock.now().minus(Heartbeat::default().life());
        proxies.sort_by(|(id, one), (other_id, other)| {
            (one.announced < oldest).cmp(&(other.announced < oldest)).then_with(|| id.cmp(other_id))
        });
        let proxy = proxies.first().map_or("", |(_, proxy)| proxy.public_addr.as_str());
        Ok(match app.address(proxy) {
            Some(address) if !self.is_anothers(&address, &app.name).await? => Some(address),
            Some(_) | None => None,
        })
    }

    /// Public address of the proxy that announced itself last. A hint: that it cannot be read fails nothing.
    pub(crate) async fn proxy_addr(&self) -> Option<String> {
        let proxies = self.records.list::<ProxyRecord>(key::PROXIES).await.ok()?;
        let newest = proxies.into_iter().max_by_key(|(_, proxy, _)| proxy.announced);
        newest.map(|(_, proxy, _)| proxy.public_addr)
    }

    pub(crate) async fn nodes(&self, caller: &Caller) -> ApiResult<Vec<Arc<NodeRecord>>> {
        let view = self.view(caller, "node").await?;
        let policy = self.policy.policy();
        let nodes = self.parsed_nodes.of(self.records.items(key::NODES).await?)?;
        Ok(match view {
            View::All => nodes,
            View::User(user) => {
                let visible = Visibility::of(user, &policy);
                nodes.into_iter().filter(|node| visible.node(node)).collect()
            }
        })
    }

    pub(crate) async fn kube_clusters(&self, caller: &Caller) -> ApiResult<Vec<KubeRecord>> {
        let view = self.view(caller, "kube_cluster").await?;
        let policy = self.policy.policy();
        let clusters = self.all_kube_clusters().await?;
        Ok(match view {
            View::All => clusters,
            View::User(user) => {
                let visible = Visibility::of(user, &policy);
                clusters.into_iter().filter(|kube| visible.kube_cluster(kube)).collect()
            }
        })
    }

    pub(crate) async fn apps(&self, caller: &Caller) -> ApiResult<Vec<AppRecord>> {
        let view = self.view(caller, "app").await?;
        let policy = self.policy.policy();
        let apps = self.all_apps().await?;
        Ok(match view {
            View::All => apps,
            View::User(user) => {
                let visible = Visibility::of(user, &policy);
                apps.into_iter().filter(|app| visible.app(app)).collect()
            }
        })
    }

    pub(crate) async fn all_apps(&self) -> ApiResult<Vec<AppRecord>> {
        Ok(self.records.list::<AppRecord>(key::APPS).await?.into_iter().map(|(_, app, _)| app).collect())
    }

    pub(crate) async fn all_nodes(&self) -> ApiResult<Vec<NodeRecord>> {
        let nodes = self.parsed_nodes.of(self.records.items(key::NODES).await?)?;
        Ok(nodes.iter().map(|node| NodeRecord::clone(node)).collect())
    }

    pub(crate) async fn all_kube_clusters(&self) -> ApiResult<Vec<KubeRecord>> {
        let clusters = self.records.list::<KubeRecord>(key::KUBE_CLUSTERS).await?;
        Ok(clusters.into_iter().map(|(_, kube, _)| kube).collect())
    }

    /// Removes a node, named by name or host id, and frees its name.
    pub(crate) async fn delete_node(&self, actor: String, name: &str) -> ApiResult<()> {
        let by_id = match name.parse::<HostId>() {
            Ok(id) => self.owned_by(key::NODE_OWNERS, id).await?,
            Err(_) => None,
        };
        let name = NodeName::new(by_id.as_deref().unwrap_or(name)).map_err(|cause| bad_request(cause.to_string()))?;
        let owner = key::of(key::NODE_OWNERS, &name);
        let host = self.records.read::<HostId>(&owner).await?;
        let gone = Batch::new().delete(&key::of(key::NODES, &name)).delete(&key::of(key::NODE_LABELS, &name));
        // No rotation waits for a host that was removed; one that still lives is waited for from its next word on.
        let gone = match host {
            Some(host) => gone.delete(&key::of(key::SERVICES, host)),
            None => gone,
        };
        self.forget(actor, "node", name.as_str(), &owner, gone).await
    }

    /// Removes a Kubernetes cluster and frees its name.
    pub(crate) async fn delete_kube_cluster(&self, actor: String, name: &str) -> ApiResult<()> {
        let name = KubeClusterName::new(name).map_err(|cause| bad_request(cause.to_string()))?;
        let gone = Batch::new().delete(&key::of(key::KUBE_CLUSTERS, &name)).delete(&key::of(key::KUBE_LABELS, &name));
        self.forget(actor, "kube_cluster", name.as_str(), &key::of(key::KUBE_OWNERS, &name), gone).await
    }

    /// Removes a web application and frees its name and its addresses.
    pub(crate) async fn delete_app(&self, actor: String, name: &str) -> ApiResult<()> {
        let name = AppName::new(name).map_err(|cause| bad_request(cause.to_string()))?;
        let (owner, mut tries) = (key::of(key::APP_OWNERS, &name), 0);
        loop {
            let Some((_, since)) = self.records.read_at::<HostId>(&owner).await? else {
                return Err(not_found(format!("there is no app {name}")));
            };
            if tries == 0 {
                let (user, kind) = (actor.clone(), "app".into());
                self.record(AuditKind::ResourceDelete { user, kind, name: name.to_string() }).await?;
            }
            let gone = Batch::new().delete(&key::of(key::APPS, &name)).delete(&key::of(key::APP_LABELS, &name));
            let gone = self.free_addresses(&name, gone.delete_at(&owner, since)).await?;
            if self.took_turn(gone, &mut tries).await? {
                return Ok(());
            }
        }
    }

    /// Frees the name and forgets what was said under it, in one write.
    async fn forget(&self, actor: String, kind: &str, name: &str, owner: &str, gone: Batch) -> ApiResult<()> {
        if self.records.read::<HostId>(owner).await?.is_none() {
            return Err(not_found(format!("there is no {kind} {name}")));
        }
        self.record(AuditKind::ResourceDelete { user: actor, kind: kind.into(), name: name.into() }).await?;
        Ok(self.records.commit(gone.delete(owner)).await?)
    }

    async fn owned_by(&self, prefix: &str, host: HostId) -> ApiResult<Option<String>> {
        let owners = self.records.list::<HostId>(prefix).await?;
        Ok(owners.into_iter().find(|(_, owner, _)| *owner == host).map(|(name, ..)| name))
    }

    /// Since which revision the name is the host's.
    async fn check_owner(&self, key: &str, host: &HostIdentity, what: &str) -> ApiResult<Revision> {
        match self.records.read_at::<HostId>(key).await? {
            Some((owner, since)) if owner == host.id => Ok(since),
            Some((owner, _)) => Err(conflict(format!("{what} belongs to host {owner}, not to {}", host.id))),
            // Removed by an administrator, and still there: the name is free, and the host has a certificate for it.
            None => Ok(self.records.create(key, &host.id, None).await?),
        }
    }

    async fn view<'a>(&self, caller: &'a Caller, kind: &str) -> ApiResult<View<'a>> {
        match caller {
            Caller::LocalAdmin => Ok(View::All),
            Caller::Host { host, .. } if host.is(SystemRole::Proxy) => Ok(View::All),
            Caller::User { user, .. } => {
                let identity = self.current(user).await?;
                let all = authorize_rule(identity, &self.policy.policy(), kind, Verb::List).is_some();
                Ok(if all { View::All } else { View::User(identity) })
            }
            Caller::Host { .. } | Caller::Anonymous { .. } => Err(self.refuse(caller, &format!("list {kind}")).await),
        }
    }
}

fn check(labels: &Labels, addr: Option<&str>, version: &str) -> Result<(), ApiError> {
    let texts = labels.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).chain([version]);
    let bad = |text: &str| text.len() > MAX_TEXT || text.chars().any(char::is_control);
    if labels.len() > MAX_LABELS || texts.into_iter().any(bad) {
        return Err(bad_request(format!(
            "at most {MAX_LABELS} labels of {MAX_TEXT} octets without control characters are allowed"
        )));
    }
    addr.map_or(Ok(()), check_addr)
}

fn check_addr(addr: &str) -> Result<(), ApiError> {
    let (host, port) = addr.rsplit_once(':').unwrap_or_default();
    let graphic = !host.is_empty() && host.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'/');
    if addr.len() > MAX_TEXT || !graphic || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        let start: String = addr.chars().take(80).collect();
        return Err(bad_request(format!("{start:?} is no address of the form host:port")));
    }
    Ok(())
}
