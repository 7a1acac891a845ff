//! The agents' end: many agents in one process, each with an identity, a link and (if asked for) calls of its own. Owns the agents until
//! the process ends.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    ops::Range,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use remoteler_client::{AuthTrust, HostClock, HostState, JoinParams, PolicyRefresher, RemoteAuth, join};
use remoteler_core::{
    AuthApi, Clock, NodeName, NodeRecord, OsEntropy, Policy, Secret, SharedPolicy, SystemClock, SystemRole,
};
use remoteler_tunnel::{
    Agent, AgentConfig, AgentState, BoxedStream, ClientTls, DialHeader, Limits, Offer, ReplayBudget, SharedTlsIdentity,
    StreamService, TargetKind, TrustSource, Ways, connect_tcp, relay,
};
use tokio_util::sync::CancellationToken;

use crate::{identities, source::Source};

/// Agents of these hosts of `dir`, until the process ends.
pub(crate) async fn of_directory(
    dir: &Path,
    proxy: SocketAddr,
    which: Range<usize>,
    target: Option<SocketAddr>,
) -> anyhow::Result<()> {
    let proxy = proxy.to_string();
    let service: Arc<dyn StreamService> = Arc::new(Passing(target.map(|target| target.to_string())));
    let states = identities::hosts(dir, which.clone())?;
    let starting = which.zip(&states).map(|(index, state)| {
        let (proxy, service, ways) = (&proxy, service.clone(), Ways::through(Arc::new(Source::of(index))));
        async move { start(proxy, state, ways, service).await }
    });
    let agents: Vec<Agent> = stream::iter(starting).buffer_unordered(AT_ONCE).try_collect().await?;
    hold(agents).await
}

/// Agents of hosts with these numbers that join through `proxy`, until the process ends.
pub(crate) async fn joining(proxy: &str, ca_pin: &str, which: Range<usize>, api: bool) -> anyhow::Result<()> {
    let mut token = String::new();
    std::io::stdin().read_to_string(&mut token).context("no join token can be read from standard input")?;
    let token = Secret::new(token.trim().to_owned());
    let service: Arc<dyn StreamService> = Arc::new(Passing(None));
    let starting = which.map(|index| {
        let ways = Ways::through(Arc::new(Source::of(index)));
        let params = JoinParams {
            addr: proxy.to_owned(),
            token: token.clone(),
            ca_pins: vec![ca_pin.to_owned()],
            insecure: false,
            node_name: NodeName::new(format!("held-{index}")).expect("letters, a hyphen and digits are a name"),
            roles: [SystemRole::Node].into(),
            kube_clusters: [].into(),
            apps: Default::default(),
            service_account: None,
            keys: None,
            ways: ways.clone(),
        };
        let service = service.clone();
        async move {
            let state = join(params, &HostClock::default()).await?;
            if api {
                call_as_the_daemon_does(proxy, &state).await?;
            }
            start(proxy, &state, ways, service).await
        }
    });
    let agents: Vec<Agent> = stream::iter(starting).buffer_unordered(JOINS_AT_ONCE).try_collect().await?;
    hold(agents).await
}

/// Announces the node every 30 s and follows the rules, over connections of its own.
async fn call_as_the_daemon_does(proxy: &str, state: &HostState) -> anyhow::Result<()> {
    let policy = Policy::new(state.trust().clone(), Default::default());
    let shared: Arc<SharedPolicy> = Arc::new(SharedPolicy::new(policy));
    let identity = SharedTlsIdentity::new(state.tls_client_identity()?);
    let api: Arc<dyn AuthApi> = Arc::new(RemoteAuth::tls(proxy, Some(identity), AuthTrust::Policy(shared))?);
    let record = NodeRecord {
        host_id: state.host_id(),
        name: state.node_name().clone(),
        labels: Default::default(),
        addr: None,
        version: env!("CARGO_PKG_VERSION").into(),
        last_seen: SystemClock.now(),
        heartbeat: Default::default(),
    };
    api.announce_node(record.clone()).await?;
    let directory = tempfile::tempdir()?;
    let refresher = PolicyRefresher::load(directory.path(), state.trust().clone())?;
    tokio::spawn({
        let api = api.clone();
        async move {
            let _kept = directory;
            refresher.run(api, CancellationToken::new()).await;
        }
    });
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            if let Err(cause) = api.announce_node(record.clone()).await {
                eprintln!("{} was not announced: {cause}", record.name);
            }
        }
    });
    Ok(())
}

/// Starts an agent and waits for its tunnel.
async fn start(proxy: &str, state: &HostState, ways: Ways, service: Arc<dyn StreamService>) -> anyhow::Result<Agent> {
    let host = identities::identity(state);
    let trust: Arc<dyn TrustSource> = Arc::new(state.trust().clone());
    let agent = Agent::start(AgentConfig {
        proxy: proxy.to_owned(),
        connections: None,
        ways,
        offer: Offer { ssh: Some(host.name.clone()), ..Offer::default() },
        host,
        services: [(TargetKind::Ssh, service)].into(),
        tls: ClientTls {
            identity: Some(SharedTlsIdentity::new(state.tls_client_identity()?)),
            trust,
            clock: Arc::new(SystemClock),
        },
        clock: Arc::new(SystemClock),
        entropy: Arc::new(OsEntropy),
        limits: Limits::client(),
        replay: ReplayBudget::default(),
    });
    let mut shown = agent.state();
    let up = shown.wait_for(|state| matches!(state, AgentState::Connected { .. }));
    tokio::time::timeout(PATIENCE, up).await.context("an agent has no tunnel in time")??;
    Ok(agent)
}

async fn hold(agents: Vec<Agent>) -> anyhow::Result<()> {
    ensure!(!agents.is_empty(), "no agent was asked for");
    println!("READY");
    // Whoever ends a proxy under them looks here for when they are back.
    let mut said = None;
    loop {
        let up = |agent: &&Agent| matches!(*agent.state().borrow(), AgentState::Connected { .. });
        let count = agents.iter().filter(up).count();
        if said.replace(count) != Some(count) {
            // Who started this may have heard enough.
            let _ = writeln!(std::io::stdout(), "UP {count}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Passes each stream on to one address, or closes it.
struct Passing(Option<String>);

#[async_trait]
impl StreamService for Passing {
    async fn serve(&self, mut stream: BoxedStream, _header: DialHeader) {
        let Some(target) = &self.0 else { return };
        match connect_tcp(target, PATIENCE).await {
            Ok(mut far) => drop(relay(&mut stream, &mut far).await),
            Err(cause) => eprintln!("{cause}"),
        }
    }
}

/// Handshakes under way.
const AT_ONCE: usize = 64;
/// Joins under way: what two cores do at once, more would only wait.
const JOINS_AT_ONCE: usize = 8;
/// How often agents are counted.
const LOOK: Duration = Duration::from_millis(100);
const HEARTBEAT: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);
