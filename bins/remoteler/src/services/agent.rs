//! The reverse tunnel: keeps a link to the proxy that this host joined through, and shows its state.

use std::{collections::HashMap, sync::Arc};

use remoteler_core::{Clock, Entropy, HostIdentity};
use remoteler_tunnel::{
    Agent, AgentConfig, AgentState, ClientTls, Limits, Offer, ReplayBudget, StreamService, TargetKind,
};
use tokio_util::sync::CancellationToken;

use crate::status_board::{StatusBoard, TunnelStatus};

/// What the tunnel is made of.
pub(crate) struct TunnelParts {
    pub(crate) proxy: String,
    pub(crate) host: HostIdentity,
    pub(crate) services: HashMap<TargetKind, Arc<dyn StreamService>>,
    pub(crate) tls: ClientTls,
}

/// Starts the agent; its state goes to the board until `stop`.
pub(crate) fn start(
    parts: TunnelParts,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    board: Arc<StatusBoard>,
    stop: CancellationToken,
) -> Agent {
    let TunnelParts { proxy, host, services, tls } = parts;
    let offer = Offer {
        ssh: services.contains_key(&TargetKind::Ssh).then(|| host.name.clone()),
        kube: if services.contains_key(&TargetKind::Kube) { host.kube_clusters.clone() } else { Default::default() },
    };
    let config = AgentConfig {
        proxy: proxy.clone(),
        host,
        offer,
        services,
        tls,
        clock: clock.clone(),
        entropy,
        limits: Limits::client(),
        replay: ReplayBudget::default(),
    };
    let agent = Agent::start(config);
    let mut state = agent.state();
    tokio::spawn(async move {
        loop {
            let now = clock.now();
            let shown = match &*state.borrow_and_update() {
                AgentState::Connecting => TunnelStatus { state: "connecting".into(), since: now, reason: None },
                AgentState::Connected { since } => {
                    TunnelStatus { state: "connected".into(), since: *since, reason: None }
                }
                AgentState::Suspended { since } => TunnelStatus {
                    state: "suspended".into(),
                    since: *since,
                    reason: Some("the connection is lost, another one is being made".into()),
                },
                AgentState::Waiting { reason, .. } => {
                    TunnelStatus { state: "waiting".into(), since: now, reason: Some(reason.to_string()) }
                }
                AgentState::Stopped => TunnelStatus { state: "stopped".into(), since: now, reason: None },
            };
            board.update(|status| {
                status.tunnels.insert(proxy.clone(), shown);
            });
            match stop.run_until_cancelled(state.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return,
            }
        }
    });
    agent
}
