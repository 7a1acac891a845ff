//! What the proxy knows of nodes, Kubernetes clusters, web apps and other proxies: a copy of the auth service's inventory that is told each change, and stays when auth is away.

mod apps;
mod copy;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use apps::Known;
use async_trait::async_trait;
use copy::{Copy, MAX_RECORDS};
use remoteler_core::{ApiError, AppAddress, AuthApi, ClusterName, HostId, wire};
use remoteler_tunnel::{Inventory, Place, ProxyAddress, Target, TargetKind};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::apps::FrontApp;

/// What is at a host that is not the proxy's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// An app.
    App(FrontApp),
    /// One that is away.
    Away(AppAddress),
}

/// The copy, fed in the background. For a name that is not in it the auth service is asked at once what is new, at most each [`MISS`].
pub(crate) struct CachedInventory {
    api: Arc<dyn AuthApi>,
    cluster: ClusterName,
    own_host: HostId,
    on_loopback: bool,
    known: RwLock<Copy>,
    last_miss: Mutex<Option<Instant>>,
    proxies: watch::Sender<Vec<ProxyAddress>>,
}

const MISS: Duration = Duration::from_millis(100);
/// Between two changes that are told: of a cluster whose heartbeats never pause, many come at once.
const PAUSE: Duration = Duration::from_millis(100);
/// Before the auth service is asked again after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// How long one who asks for a name waits for the auth service.
const PATIENCE: Duration = Duration::from_secs(5);

impl CachedInventory {
    /// For the proxy on `own_host`, which users reach at `public_addr`. `on_loopback` says that the proxy itself listens on loopback only.
    pub(crate) fn new(
        api: Arc<dyn AuthApi>,
        cluster: ClusterName,
        (own_host, public_addr): (HostId, String),
        on_loopback: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            api,
            known: RwLock::new(Copy::new(cluster.clone(), public_addr, MAX_RECORDS)),
            cluster,
            own_host,
            on_loopback,
            last_miss: Mutex::new(None),
            proxies: watch::Sender::new(Vec::new()),
        })
    }

    /// All proxies of the cluster, as they come and go.
    pub(crate) fn proxies(&self) -> watch::Receiver<Vec<ProxyAddress>> {
        self.proxies.subscribe()
    }

    /// Follows the inventory until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let pause = match stop.run_until_cancelled(self.catch_up(wire::MAX_WAIT)).await {
                None => return,
                Some(Ok(())) => PAUSE,
                Some(Err(cause)) => {
                    tracing::debug!(%cause, "the inventory was not told, the last one stays");
                    AGAIN
                }
            };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Takes what is new, and waits for it as long as `wait`.
    async fn catch_up(&self, wait: Duration) -> Result<(), ApiError> {
        let asked = self.read(Copy::revision);
        let update = self.api.inventory(asked, wait).await?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let refused = known.refused();
        known.apply(asked, update);
        if known.refused() > refused {
            tracing::warn!(
                most = MAX_RECORDS,
                "the cluster has more nodes, Kubernetes clusters or apps than a proxy knows; the others are not reached through it"
            );
        }
        let mut proxies: Vec<_> =
            known.proxies().map(|proxy| ProxyAddress { id: proxy.host_id, addr: proxy.public_addr.clone() }).collect();
        drop(known);
        proxies.sort();
        self.proxies.send_if_modified(|before| {
            let differs = *before != proxies;
            *before = proxies;
            differs
        });
        Ok(())
    }

    fn read<T>(&self, look: impl FnOnce(&Copy) -> T) -> T {
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Catches up because something was not found, unless that was done just now.
    async fn catch_up_after_miss(&self) -> Result<(), String> {
        let mut last = self.last_miss.lock().await;
        if last.is_some_and(|at| at.elapsed() < MISS) {
            return Ok(());
        }
        let caught_up = tokio::time::timeout(PATIENCE, self.catch_up(Duration::ZERO)).await;
        // From its end on: those who waited meanwhile have the newest answer, or the newest failure.
        *last = Some(Instant::now());
        match caught_up {
            Ok(caught_up) => caught_up.map_err(|cause| cause.to_string()),
            Err(_) => Err(format!("the auth service did not answer within {} s", PATIENCE.as_secs())),
        }
    }

    /// Name and id of the host of a target, as far as they are known.
    pub(crate) fn host_of(&self, target: &Target) -> (Option<String>, Option<HostId>) {
        let of_host = |name: &str| {
            self.read(|known| match known.node(name) {
                Some(node) => (Some(node.name.to_string()), Some(node.host_id)),
                None => (Some(name.to_owned()), name.parse().ok()),
            })
        };
        let name = target.name.as_str();
        match target.kind {
            TargetKind::Ssh => of_host(self.node_name(name)),
            TargetKind::Service => of_host(name.split_once('@').map_or(name, |(_, host)| host)),
            TargetKind::Kube => self.read(|known| known.with_node(known.kube(name))),
            TargetKind::App => self.read(|known| known.with_node(known.apps.host_of(name))),
        }
    }

    /// `node` or `node.cluster`.
    fn node_name<'a>(&self, name: &'a str) -> &'a str {
        name.strip_suffix(self.cluster.as_str()).and_then(|name| name.strip_suffix('.')).unwrap_or(name)
    }

    /// The Kubernetes cluster whose service has this TLS server name.
    pub(crate) async fn kube_by_server_name(&self, server_name: &str) -> Option<String> {
        let found = || self.read(|known| known.kube_by_server_name(server_name).map(ToString::to_string));
        if let Some(name) = found() {
            return Some(name);
        }
        self.catch_up_after_miss().await.ok()?;
        found()
    }

    /// The app whose service has this TLS server name.
    pub(crate) async fn app_by_server_name(&self, server_name: &str) -> Option<String> {
        let found = || self.read(|known| known.apps.by_server_name(server_name).map(ToString::to_string));
        if let Some(name) = found() {
            return Some(name);
        }
        self.catch_up_after_miss().await.ok()?;
        found()
    }

    /// What browsers find under this host; `None`: what is the proxy's own. Nobody is asked about a host that is no app's: anybody may come with any.
    pub(crate) fn front(&self, host: &str) -> Option<Front> {
        let host = host.to_ascii_lowercase();
        let found = self.read(|known| match known.revision() {
            Some(_) => known.apps.by_host(&host),
            // Until the auth service has said which apps there are, each name is one's that could be.
            None => known.apps.by_name_alone(&host),
        });
        Some(match found? {
            Known::There(name, address) => Front::App(FrontApp { name, address }),
            Known::Away(address) => Front::Away(address),
        })
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
        let name = target.name.as_str();
        let (host, addr) = match target.kind {
            TargetKind::Ssh => {
                self.read(|known| known.node(self.node_name(name)).map(|node| (node.host_id, node.addr.clone())))?
            }
            TargetKind::Kube => {
                let host = self.read(|known| known.kube(name))?;
                if host == self.own_host {
                    return Some(Place::Local);
                }
                // Kubernetes services listen on nothing: what else a record says is not believed.
                (host, None)
            }
            TargetKind::App => {
                let host = self.read(|known| known.apps.host_of(name))?;
                if host == self.own_host {
                    return Some(Place::Local);
                }
                // App services listen on nothing either.
                (host, None)
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
        self.catch_up_after_miss().await?;
        Ok(self.place(target))
    }
}
