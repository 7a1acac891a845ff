//! The inventory, told to proxies as it changes: a proxy says up to where it has it, and is answered as soon as that is not all. Holds nothing for those
//! who ask between two calls: each is a revision of the store.

use std::time::Duration;

use remoteler_core::{
    AppRecord, Change, Heartbeat, InventoryUpdate, Item, KubeRecord, Labels, MAX_PAGE, NodeRecord, PolicySource,
    Revision, SystemRole, wire,
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use crate::{
    Caller,
    failure::{ApiResult, unauthenticated},
    inventory::ProxyRecord,
    records::{RecordError, key, parse},
    service::Inner,
    waiting::Waiting,
};

/// How long the store may take to tell what has happened already.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who waits for the inventory to change.
#[derive(Default)]
pub(crate) struct InventoryWatch {
    waiting: Waiting,
}

impl Inner {
    /// What has changed after `after`, as soon as anything has; that nothing has after `wait`. All there is when `after` is none, or when the changes since are
    /// not kept any more.
    ///
    /// # Cancel safety
    /// Who stops waiting leaves nothing behind.
    pub(crate) async fn watch_inventory(
        &self,
        caller: &Caller,
        after: Option<Revision>,
        wait: Duration,
    ) -> ApiResult<InventoryUpdate> {
        let host = match caller {
            Caller::LocalAdmin => None,
            Caller::Host { host, .. } if host.is(SystemRole::Proxy) => Some(host),
            Caller::Host { .. } | Caller::User { .. } | Caller::Anonymous { .. } => {
                return Err(self.refuse(caller, "follow the inventory").await);
            }
        };
        let place = self.inventory_watch.waiting.enter(host.map(|host| host.identity().id));
        let Some(mut after) = after else { return self.whole_inventory().await };
        let deadline = Instant::now() + wait.min(wire::MAX_WAIT);
        let present = self.records.revision().await?;
        if after > present {
            return self.whole_inventory().await; // of another store, or of this one before it was restored
        }
        loop {
            // What has happened before the question is told, however short the wait.
            if after >= present && Instant::now() >= deadline {
                return Ok(InventoryUpdate::empty(after, self.clock.now()));
            }
            let deadline = if after < present { deadline.max(Instant::now() + PATIENCE) } else { deadline };
            // Only what stands below these prefixes is told; the store is asked for all, so that one place in its history does for all of them.
            let found = tokio::select! {
                found = timeout_at(deadline, self.records.watch("", after, MAX_PAGE)) => found,
                () = place.wanted() => return Ok(InventoryUpdate::empty(after, self.clock.now())),
            };
            let found = match found {
                Ok(Ok(found)) => found,
                // Too long ago, or something on the way cannot be read: a list needs neither.
                Ok(Err(_)) => return self.whole_inventory().await,
                Err(_) => return Ok(InventoryUpdate::empty(after, self.clock.now())),
            };
            // Who has lost the right to ask while waiting is told no more.
            if let Some(host) = host {
                let believed = self.policy.policy().trust.still_believes(host.shown());
                believed.map_err(|cause| unauthenticated(cause.to_string()))?;
            }
            after = found.revision;
            let mut update = InventoryUpdate::empty(after, self.clock.now());
            for change in found.changes {
                match change {
                    Change::Put(item) => put(&mut update, &item)?,
                    Change::Deleted { key, .. } => delete(&mut update, &key),
                }
            }
            if !update.is_empty() {
                return Ok(update);
            }
        }
    }

    async fn whole_inventory(&self) -> ApiResult<InventoryUpdate> {
        let now = self.clock.now();
        // Changes from the first list on come again with the next call.
        let (nodes, revision) = self.records.items_at(key::NODES).await?;
        let mut update = InventoryUpdate { whole: true, ..InventoryUpdate::empty(revision, now) };
        let kube_clusters = self.records.items(key::KUBE_CLUSTERS).await?;
        let apps = self.records.items(key::APPS).await?;
        let proxies = self.records.items(key::PROXIES).await?;
        for item in nodes.iter().chain(&kube_clusters).chain(&apps).chain(&proxies) {
            put(&mut update, item)?;
        }
        let oldest = now.minus(Heartbeat::default().life());
        update.proxies.retain(|proxy| proxy.last_seen >= oldest); // these records have no end of their own
        Ok(update)
    }
}

/// Adds what was written. A key holds one part behind its prefix, so no prefix is the beginning of another one's keys.
fn put(update: &mut InventoryUpdate, item: &Item) -> Result<(), RecordError> {
    fn record<T: DeserializeOwned>(item: &Item) -> Result<T, RecordError> {
        parse(&item.key, &item.value)
    }
    if item.key.starts_with(key::NODES) {
        let node: NodeRecord = record(item)?;
        update.nodes.push(NodeRecord { labels: Labels::new(), ..node });
    } else if item.key.starts_with(key::KUBE_CLUSTERS) {
        let kube: KubeRecord = record(item)?;
        update.kube_clusters.push(KubeRecord { labels: Labels::new(), ..kube });
    } else if item.key.starts_with(key::APPS) {
        let app: AppRecord = record(item)?;
        update.apps.push(AppRecord { labels: Labels::new(), ..app });
    } else if let Some(host_id) = item.key.strip_prefix(key::PROXIES).and_then(|id| id.parse().ok()) {
        let ProxyRecord { public_addr, announced: last_seen, name: _ } = record(item)?;
        update.proxies.push(remoteler_core::ProxyRecord { host_id, public_addr, last_seen });
    }
    Ok(())
}

/// Adds what was removed: a copy removes before it adds, so what was written before the removal is taken out, and what comes after it stays.
fn delete(update: &mut InventoryUpdate, key: &str) {
    if let Some(name) = key.strip_prefix(key::NODES).and_then(|name| name.parse().ok()) {
        update.nodes.retain(|node| node.name != name);
        update.gone_nodes.push(name);
    } else if let Some(name) = key.strip_prefix(key::KUBE_CLUSTERS).and_then(|name| name.parse().ok()) {
        update.kube_clusters.retain(|kube| kube.name != name);
        update.gone_kube_clusters.push(name);
    } else if let Some(name) = key.strip_prefix(key::APPS).and_then(|name| name.parse().ok()) {
        update.apps.retain(|app| app.name != name);
        update.gone_apps.push(name);
    } else if let Some(id) = key.strip_prefix(key::PROXIES).and_then(|id| id.parse().ok()) {
        update.proxies.retain(|proxy| proxy.host_id != id);
        update.gone_proxies.push(id);
    }
}
