//! The reverse tunnels: keeps links to the cluster's proxies, found by the one that this host joined through, and shows their state.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    sync::Arc,
};

use remoteler_core::{Clock, Entropy, HostIdentity, LockContext, PolicySource, Timestamp};
use remoteler_tunnel::{
    Agent, AgentConfig, AgentState, ClientTls, Limits, Offer, ReplayBudget, StreamService, TargetKind, Ways,
};
use tokio_util::sync::CancellationToken;

use crate::status_board::{StatusBoard, TunnelStatus};

/// What the tunnel is made of.
pub(crate) struct TunnelParts {
    pub(crate) proxy: String,
    pub(crate) host: HostIdentity,
    pub(crate) services: HashMap<TargetKind, Arc<dyn StreamService>>,
    pub(crate) tls: ClientTls,
    /// To how many proxies links are kept at most.
    pub(crate) connections: Option<NonZeroUsize>,
    /// How they are reached.
    pub(crate) ways: Ways,
    /// Bounds of the links.
    pub(crate) limits: Limits,
    /// What they may keep together.
    pub(crate) replay: ReplayBudget,
}

/// Has the agent try again at once when its host is not locked any more.
pub(crate) async fn follow_locks(host: HostIdentity, policy: Arc<dyn PolicySource>, retry: impl Fn()) {
    let mut changes = policy.changes();
    let mut locked = false;
    loop {
        changes.borrow_and_update();
        let now = policy.policy().locks.concerning(&LockContext::of_host_identity(&host)).is_some();
        if std::mem::replace(&mut locked, now) && !now {
            retry();
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Starts the agent; its state goes to the board until `stop`.
pub(crate) fn start(
    parts: TunnelParts,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    board: Arc<StatusBoard>,
    stop: CancellationToken,
) -> Agent {
    let TunnelParts { proxy, host, services, tls, connections, ways, limits, replay } = parts;
    let offer = Offer {
        ssh: services.contains_key(&TargetKind::Ssh).then(|| host.name.clone()),
        apps: if services.contains_key(&TargetKind::App) { host.apps.clone() } else { Default::default() },
        kube: if services.contains_key(&TargetKind::Kube) { host.kube_clusters.clone() } else { Default::default() },
        services: false,
    };
    let config = AgentConfig {
        proxy: proxy.clone(),
        connections,
        ways,
        host,
        offer,
        services,
        tls,
        clock: clock.clone(),
        entropy,
        limits,
        replay,
    };
    let agent = Agent::start(config);
    let mut links = agent.links();
    tokio::spawn(async move {
        loop {
            let now = clock.now();
            let mut shown: BTreeMap<_, _> = links
                .borrow_and_update()
                .iter()
                .map(|link| (link.address.clone(), standing(&link.state, now)))
                .collect();
            if shown.is_empty() {
                shown.insert(proxy.clone(), standing(&AgentState::Connecting, now));
            }
            board.update(|status| status.tunnels = shown);
            match stop.run_until_cancelled(links.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return,
            }
        }
    });
    agent
}

fn standing(state: &AgentState, now: Timestamp) -> TunnelStatus {
    match state {
        AgentState::Connecting => TunnelStatus { state: "connecting".into(), since: now, reason: None },
        AgentState::Connected { since } => TunnelStatus { state: "connected".into(), since: *since, reason: None },
        AgentState::Suspended { since } => TunnelStatus {
            state: "suspended".into(),
            since: *since,
            reason: Some("the connection is lost, another one is being made".into()),
        },
        AgentState::Waiting { reason, .. } => {
            TunnelStatus { state: "waiting".into(), since: now, reason: Some(reason.to_string()) }
        }
        AgentState::Stopped => TunnelStatus { state: "stopped".into(), since: now, reason: None },
    }
}
