//! One process of the cluster: puts the configured services together, and takes them down in the right order.

mod base;
mod handing_over;
mod listeners;
#[cfg(feature = "server")]
mod server;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

#[cfg(feature = "app")]
use remoteler_app::AppService;
use remoteler_client::{HostKeeper, ShutOut, SshHostKey};
use remoteler_core::{
    BoundedRefusals, Heartbeat, HostIdentity, Labels, LockContext, Locked, NodeRecord, PolicySource, SystemRole,
    Timestamp, with_causes,
};
#[cfg(feature = "kube")]
use remoteler_kube::KubeService;
use remoteler_ssh::{Node, Uploader};
use remoteler_tunnel::{Agent, StreamService, TargetKind, enforce};
use tokio::{net::TcpListener, sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    base::{Base, LentKeeper, Place},
    handing_over::Estate,
    listeners::{Listeners, bind},
};
#[cfg(feature = "app")]
use crate::services::app::{self, AppStreams};
#[cfg(feature = "kube")]
use crate::services::kube::{self, KubeStreams};
use crate::{
    VERSION,
    config::{NodeSettings, Settings},
    handover::{Ports, Predecessor},
    heartbeat::{self, Announced, Pulse},
    paths::DataDir,
    services::{
        agent,
        labels::LiveLabels,
        node::{self, NodeParts, NodeStreams},
    },
    status_board::{self, DaemonStatus, StatusBoard},
};

/// A running process of the cluster.
pub struct Daemon {
    data_dir: DataDir,
    board: Arc<StatusBoard>,
    /// Counts refusals that are not recorded one by one.
    refusals: Arc<BoundedRefusals>,
    /// Cancelled first: nothing new is taken.
    closing: CancellationToken,
    /// Cancelled last: what carries live sessions, their events and recordings ends.
    stop: CancellationToken,
    /// What still sends events and recordings when everything else has ended.
    senders: TaskTracker,
    connections: TaskTracker,
    node: Option<(Arc<Node>, Arc<LiveLabels>)>,
    #[cfg(feature = "kube")]
    kube: Option<KubeService>,
    #[cfg(feature = "app")]
    app: Option<AppService>,
    #[cfg(feature = "server")]
    servers: server::Servers,
    agent: Option<Agent>,
    /// The listening sockets, held a second time for the next process.
    ports: Mutex<Ports>,
    /// What else is handed over, if anything is.
    estate: Option<Estate>,
}

impl Daemon {
    /// Starts the services of `settings`; returns when all of them are ready.
    ///
    /// # Errors
    /// The first service that did not start, and why.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        Self::start_after(settings, None).await
    }

    /// The same as the next process of a daemon: with the ports of `before`, and when that one has let go of what only one may have.
    ///
    /// # Errors
    /// The first service that did not start, and why; or the process before did not let go.
    pub async fn start_after(settings: Settings, mut before: Option<Predecessor>) -> anyhow::Result<Self> {
        if let Some(before) = &mut before {
            before.take_over().await?;
        }
        let data_dir = DataDir::open(&settings.data_dir)?;
        let listeners = Listeners::bind(&settings, before.as_ref()).await?;
        let stop = CancellationToken::new();
        // A start that fails half way takes down what it had begun.
        let guard = stop.clone().drop_guard();
        let board = Arc::new(StatusBoard::default());
        let status_socket = status_board::bind_local_socket(&data_dir.status_socket())?;
        let senders = TaskTracker::new();
        let mut base = Base::new(&settings, &data_dir, &stop, &senders, before.as_ref()).await?;
        let keeper = base.keeper.take();
        let heartbeats =
            keeper.as_ref().map(HostKeeper::heartbeat).unwrap_or_else(|| watch::channel(Heartbeat::default()).1);
        board.update(|status| {
            status.version = VERSION.into();
            status.pid = std::process::id();
            status.cluster = base.keys.identity.cluster.to_string();
            status.nodename = base.keys.identity.name.to_string();
            status.host_id = base.keys.identity.id.to_string();
            status.roles = settings.roles().into_iter().collect();
        });
        tokio::spawn(until(stop.clone(), status_board::serve(status_socket, board.clone())));
        tokio::spawn(until(stop.clone(), count_refusals(base.audit.clone())));
        tokio::spawn(until(stop.clone(), enforce(base.live.clone(), base.audit.clone())));

        let mut daemon = Self {
            data_dir,
            board,
            refusals: base.audit.clone(),
            closing: stop.child_token(),
            stop,
            senders,
            connections: TaskTracker::new(),
            node: None,
            #[cfg(feature = "kube")]
            kube: None,
            #[cfg(feature = "app")]
            app: None,
            #[cfg(feature = "server")]
            servers: server::Servers::default(),
            agent: None,
            ports: Mutex::default(),
            estate: None,
        };
        daemon.compose(&settings, listeners, &base, heartbeats).await?;
        let identity = base.keys.identity.clone();
        tokio::spawn(until(daemon.stop.clone(), show_locks(identity, base.policy.clone(), daemon.board.clone())));
        if let Some(keeper) = keeper {
            tokio::spawn(until(daemon.stop.clone(), show_standing(keeper.standing(), daemon.board.clone())));
            let keeper = LentKeeper::new(keeper, base.api.clone(), daemon.stop.clone());
            daemon.senders.spawn(keeper.clone().run());
            let proxy_alone = settings.roles().into_iter().eq([SystemRole::Proxy]);
            daemon.estate = base.spool.clone().filter(|_| proxy_alone).map(|spool| Estate { spool, keeper });
        }
        daemon.board.update(|status| status.ready = true);
        tracing::info!(cluster = %base.keys.identity.cluster, node = %base.keys.identity.name, "ready");
        guard.disarm();
        daemon.data_dir.keep();
        if let Some(before) = &mut before {
            before.ready().await;
        }
        Ok(daemon)
    }

    async fn compose(
        &mut self,
        settings: &Settings,
        mut listeners: Listeners,
        base: &Base,
        heartbeats: watch::Receiver<Heartbeat>,
    ) -> anyhow::Result<()> {
        let node_listener = listeners.node.take();
        let mut announced = Announced::default();
        let mut services: HashMap<TargetKind, Arc<dyn StreamService>> = HashMap::new();

        if let Some(node_settings) = &settings.node {
            let (record, labels) = self.start_node(node_settings, base, node_listener).await?;
            announced.node = Some((record, labels));
            if let Some((node, _)) = &self.node {
                services.insert(TargetKind::Ssh, Arc::new(NodeStreams(node.clone())));
            }
        }
        #[cfg(not(feature = "kube"))]
        anyhow::ensure!(settings.kube.is_none(), "this program was built without the Kubernetes service");
        #[cfg(feature = "kube")]
        if let Some(kube_settings) = &settings.kube {
            anyhow::ensure!(
                settings.proxy.is_some() || !matches!(base.place, Place::Direct(_)),
                "a Kubernetes service is reached through a proxy: give the proxy's address as auth_server, or run the proxy here"
            );
            let identity = &base.keys.identity;
            let tls = base.server_tls();
            let (live, audit, clock) = (base.live.clone(), base.audit.clone(), base.clock.clone());
            let service = kube::make(kube_settings, identity, &tls, live, audit, clock)?;
            services.insert(TargetKind::Kube, Arc::new(KubeStreams(service.clone())));
            announced.kube = Some(service.clone());
            self.kube = Some(service);
        }
        #[cfg(not(feature = "app"))]
        anyhow::ensure!(settings.app.is_none(), "this program was built without the app service");
        #[cfg(feature = "app")]
        if let Some(app_settings) = &settings.app {
            anyhow::ensure!(
                settings.proxy.is_some() || !matches!(base.place, Place::Direct(_)),
                "an app service is reached through a proxy: give the proxy's address as auth_server, or run the proxy here"
            );
            let (identity, tls, live) = (&base.keys.identity, base.server_tls(), base.live.clone());
            let (audit, clock) = (base.audit.clone(), base.clock.clone());
            let service = app::make(app_settings, identity, &tls, live, (audit, clock), base.api.clone())?;
            services.insert(TargetKind::App, Arc::new(AppStreams(service.clone())));
            let watching = service.clone();
            tokio::spawn(until(self.stop.clone(), async move { watching.watch_sessions().await }));
            announced.apps = Some(service.clone());
            self.app = Some(service);
        }
        #[cfg(feature = "server")]
        {
            announced.proxy = self.start_servers(settings, base, listeners, &services)?;
        }
        if let Place::ThroughProxy(proxy) = &base.place
            && !services.is_empty()
        {
            let host = base.keys.identity.clone();
            let (tls, ways, tunnel) = (base.client_tls(), settings.ways(), &settings.tunnel);
            let (connections, limits, replay) = (tunnel.connections, tunnel.of_agent(), tunnel.replay.clone());
            let proxy = proxy.clone();
            let parts = agent::TunnelParts { proxy, host, services, tls, connections, ways, limits, replay };
            let (clock, entropy) = (base.clock.clone(), base.entropy.clone());
            let agent = agent::start(parts, clock, entropy, self.board.clone(), self.stop.clone());
            base.links.lead_through(agent.auth());
            let follow = agent::follow_locks(base.keys.identity.clone(), base.policy.clone(), agent.retry());
            tokio::spawn(until(self.stop.clone(), follow));
            self.agent = Some(agent);
        }
        // The first heartbeat is waited for, so that what says it is ready can be found; auth being away is no reason not to start.
        let mut pulse = Pulse::default();
        let first = Heartbeat::default();
        let wait = pulse.observe(heartbeat::announce(&*base.api, &announced, first).await, first);
        self.senders.spawn(heartbeat::run(base.api.clone(), announced, pulse, wait, heartbeats, self.closing.clone()));
        Ok(())
    }

    async fn start_node(
        &mut self,
        settings: &NodeSettings,
        base: &Base,
        bound: Option<TcpListener>,
    ) -> anyhow::Result<(NodeRecord, Arc<LiveLabels>)> {
        let listener = match (&base.place, bound) {
            (Place::ThroughProxy(_), _) => None,
            (_, Some(listener)) => Some(listener),
            (_, None) => bind("node", Some(settings.listen)).await?,
        };
        let addr = match &listener {
            Some(listener) => Some(reachable(listener.local_addr()?, &base.place).await),
            None => None,
        };
        let given = base.keys.identity.labels.clone();
        let labels = LiveLabels::start(settings.labels.clone(), given, settings.commands.clone(), &self.stop).await?;
        let record = NodeRecord {
            host_id: base.keys.identity.id,
            name: base.keys.identity.name.clone(),
            labels: labels.read(),
            addr,
            version: VERSION.into(),
            last_seen: Timestamp::default(),
            heartbeat: Default::default(),
        };
        let parts = NodeParts {
            record: record.clone(),
            cluster: base.keys.identity.cluster.clone(),
            recordings_dir: self.data_dir.node_recordings(),
            agent_notes_dir: self.data_dir.agent_notes(),
        };
        let (live, audit) = (base.live.clone(), base.audit.clone());
        let node = node::make(parts, &base.keys, live, audit, base.clock.clone(), base.entropy.clone())?;
        node.ask_for_second_factors(node::second_factors(base.api.clone()));
        tokio::spawn(until(self.stop.clone(), follow_labels(labels.subscribe(), node.clone())));
        tokio::spawn(until(self.stop.clone(), follow_host_key(base.keys.shown.ssh.clone(), node.clone())));
        let uploader = Uploader::new(
            self.data_dir.node_recordings(),
            base.api.clone(),
            base.entropy.clone(),
            node.recording_finished(),
        );
        self.senders.spawn(uploader.run(self.stop.clone()));
        if let Some(listener) = listener {
            self.listening("node", &listener);
            let (node, closing) = (node.clone(), self.closing.clone());
            tokio::spawn(async move { node.listen(listener, closing).await });
        }
        self.node = Some((node, labels.clone()));
        Ok((record, labels))
    }

    fn listening(&self, service: &str, listener: &TcpListener) {
        let Ok(addr) = listener.local_addr() else { return };
        tracing::info!(%addr, "{service} listens");
        self.board.update(|status| {
            status.listeners.insert(service.into(), addr);
        });
    }

    /// What this process is and is connected to.
    #[must_use]
    pub fn status(&self) -> DaemonStatus {
        self.board.read()
    }

    /// Takes over what may change while the process runs: the node's labels and the web certificate.
    pub fn reload(&self, settings: Settings) {
        if let (Some((_, labels)), Some(node)) = (&self.node, &settings.node) {
            labels.replace_fixed(node.labels.clone());
        }
        #[cfg(feature = "server")]
        self.reload_web_certificate(&settings);
        tracing::info!("configuration reloaded: labels and web certificate; everything else needs a restart");
    }

    /// Takes no new connections, gives live sessions until `deadline`, then ends them.
    pub async fn shutdown(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        self.closing.cancel();
        self.let_ports_go();
        #[cfg(feature = "kube")]
        if let Some(kube) = &self.kube {
            kube.drain();
        }
        #[cfg(feature = "app")]
        if let Some(app) = &self.app {
            app.drain();
        }
        if let Some((node, _)) = &self.node {
            node.drain(end).await;
        }
        let left = || end.saturating_duration_since(Instant::now());
        #[cfg(feature = "server")]
        self.servers.shutdown(left()).await;
        if let Some(agent) = &self.agent {
            agent.shutdown(left()).await;
        }
        self.connections.close();
        // Idle keep-alive connections never end by themselves; what lives past the deadline is cut by the process's end.
        let _ = tokio::time::timeout(left().min(Duration::from_secs(2)), self.connections.wait()).await;
        if let Err(cause) = self.refusals.summarise_all().await {
            tracing::warn!(cause = with_causes(&cause), "counts of refusals are not in the audit log");
        }
        self.stop.cancel();
        self.senders.close();
        let _ = tokio::time::timeout(FAREWELL, self.senders.wait()).await;
    }
}

/// Gives the node its labels as they change: what is announced and what decides are the same.
async fn follow_labels(mut labels: tokio::sync::watch::Receiver<Labels>, node: Arc<Node>) {
    while labels.changed().await.is_ok() {
        let now = labels.borrow_and_update().clone();
        node.replace_labels(now);
    }
}

/// Gives the node its new host certificates: connections to come are shown the new one, those that live go on.
async fn follow_host_key(mut shown: tokio::sync::watch::Receiver<SshHostKey>, node: Arc<Node>) {
    while shown.changed().await.is_ok() {
        let now = shown.borrow_and_update().clone();
        if let Err(cause) = node.replace_host_certificate(&now.key, &now.certificate) {
            tracing::error!(%cause, "the node cannot show its new host certificate and goes on with the old one");
        }
    }
}

/// Shows on the board whether this host is shut out of its cluster.
async fn show_standing(mut standing: tokio::sync::watch::Receiver<Option<ShutOut>>, board: Arc<StatusBoard>) {
    while standing.changed().await.is_ok() {
        let shut_out = standing.borrow_and_update().map(|reason| reason.to_string());
        board.update(|status| status.shut_out = shut_out);
    }
}

/// Shows on the board, and says in the log, whether this host is locked.
async fn show_locks(host: HostIdentity, policy: Arc<dyn PolicySource>, board: Arc<StatusBoard>) {
    let mut changes = policy.changes();
    let mut shown = None;
    loop {
        changes.borrow_and_update();
        let rules = policy.policy();
        let lock = rules.locks.concerning(&LockContext::of_host_identity(&host)).cloned();
        let locked = lock.map(|lock| Locked::By(lock).to_string());
        if locked != shown {
            match &locked {
                Some(reason) => {
                    tracing::warn!("this host is {reason}; its services are of no use until the lock is removed")
                }
                None => tracing::info!("this host is not locked any more"),
            }
            board.update(|status| status.locked.clone_from(&locked));
            shown = locked;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Has the counts of refusals recorded as they become due.
async fn count_refusals(refusals: Arc<BoundedRefusals>) {
    loop {
        tokio::time::sleep(COUNT_REFUSALS).await;
        if let Err(cause) = refusals.summarise().await {
            tracing::warn!(cause = with_causes(&cause), "counts of refusals are not in the audit log");
        }
    }
}

const COUNT_REFUSALS: Duration = Duration::from_secs(15);
/// How long the last events and recordings may take on their way.
const FAREWELL: Duration = Duration::from_secs(6);

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    stop.run_until_cancelled(work).await;
}

/// The address under which a proxy reaches a node that listens on every address: the one this machine uses towards the auth service.
async fn reachable(bound: SocketAddr, place: &Place) -> String {
    if !bound.ip().is_unspecified() {
        return bound.to_string();
    }
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let ip = match place {
        #[cfg(feature = "server")]
        Place::Here(_) => loopback,
        Place::Direct(addr) | Place::ThroughProxy(addr) => own_address_towards(addr).await.unwrap_or(loopback),
    };
    SocketAddr::new(ip, bound.port()).to_string()
}

/// Asks the routing table; nothing is sent.
async fn own_address_towards(addr: &str) -> Option<IpAddr> {
    let peer = tokio::net::lookup_host(addr).await.ok()?.next()?;
    let any: SocketAddr = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = tokio::net::UdpSocket::bind(any).await.ok()?;
    socket.connect(peer).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
}
