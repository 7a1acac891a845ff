//! Proxies and agents over the network in memory. Owns what a test cluster has in common: authorities, rules, the list of proxies.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use remoteler_core::{
    Clock, Entropy, HostIdentity, LiveWork, ManualClock, Policy, SharedPolicy, SystemRole, Timestamp,
};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::identities::Authorities;
use super::net::{Arrival, Machine, Net};
use crate::agent::{Agent, AgentConfig, AgentState};
use crate::connection::CloseReason;
use crate::dial::{DialHeader, DialReply, Target, TargetKind, TargetName, read_dial, write_dial_reply};
use crate::listener::{
    Admission, AdmissionLimits, Admissions, Connection, OnePort, Refusal, Route, RouteHandler, Routed, until_somebody,
};
use crate::mux::limits::Limits;
use crate::notice::ProxyAddress;
use crate::registration::Offer;
use crate::relay::relay;
use crate::replay::ReplayBudget;
use crate::router::{DialError, Inventory, Place, Router, StreamService};
use crate::server::{AgentEvents, AgentSession, AuthStreams, RegistrationError, TunnelServer};
use crate::service::{ServiceDialer, Services};
use crate::stream::BoxedStream;
use crate::tls::{ClientTls, PolicyTrust, ServerTls, SharedTlsIdentity};
use crate::ways::Ways;
use crate::wire::Wire;

/// Says everything back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

#[async_trait]
impl StreamService for Echo {
    async fn serve(&self, stream: BoxedStream, _header: DialHeader) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        // Ends when either side does.
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.shutdown().await;
    }
}

/// A cluster without its auth service: what that would say, the test says.
pub struct TestCluster {
    net: Net,
    authorities: Arc<Authorities>,
    clock: Arc<ManualClock>,
    policy: Arc<SharedPolicy>,
    known: Arc<Known>,
    proxies: watch::Sender<Vec<ProxyAddress>>,
    limits: (Limits, Limits),
    auth: Option<Arc<dyn AuthStreams>>,
}

impl std::fmt::Debug for TestCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestCluster").field("proxies", &*self.proxies.borrow()).finish_non_exhaustive()
    }
}

/// Where nodes are, as an inventory would know it; and what was heard of agents.
#[derive(Default)]
struct Known {
    places: Mutex<BTreeMap<String, Place>>,
    heard: Mutex<Vec<String>>,
}

#[async_trait]
impl Inventory for Known {
    async fn locate(&self, target: &Target) -> Result<Option<Place>, String> {
        Ok(self.places.lock().unwrap_or_else(PoisonError::into_inner).get(target.name.as_str()).cloned())
    }
}

impl Known {
    fn hear(&self, text: String) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }
}

#[async_trait]
impl AgentEvents for Known {
    async fn connected(&self, agent: &AgentSession) -> Result<(), String> {
        self.hear(format!("connected {}", agent.host.name));
        Ok(())
    }
    async fn disconnected(&self, agent: &AgentSession, reason: &CloseReason) {
        self.hear(format!("disconnected {}: {reason}", agent.host.name));
    }
    async fn refused(&self, host: Option<&HostIdentity>, _source: SocketAddr, error: &RegistrationError) {
        let host = host.map(|host| host.name.to_string()).unwrap_or_default();
        self.hear(format!("refused {host}: {error}"));
    }
}

impl TestCluster {
    /// A cluster named `root`, in 2026, without anybody in it. Chance comes from `seed`.
    ///
    /// # Panics
    /// Never: the names and times in it are good.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let authorities = Arc::new(Authorities::new("root"));
        let now = Timestamp::parse("2026-06-01T00:00:00Z").expect("a time, spelled out here");
        let policy = Arc::new(SharedPolicy::new(Policy::new(authorities.trust(), Default::default())));
        Self {
            net: Net::new(seed),
            authorities,
            clock: Arc::new(ManualClock::new(now)),
            policy,
            known: Arc::default(),
            proxies: watch::Sender::new(Vec::new()),
            limits: (Limits::client(), Limits::server()),
            auth: None,
        }
    }

    /// With other bounds for the links of agents and of proxies that are started from now on.
    #[must_use]
    pub fn with_limits(self, agents: Limits, proxies: Limits) -> Self {
        Self { limits: (agents, proxies), ..self }
    }

    /// With proxies, of those that are started from now on, that lead streams of agents to the auth service.
    #[must_use]
    pub fn leading_to(self, auth: Arc<dyn AuthStreams>) -> Self {
        Self { auth: Some(auth), ..self }
    }

    /// Its network.
    #[must_use]
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// Its authorities.
    #[must_use]
    pub fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    /// Its rules, to be changed.
    #[must_use]
    pub fn policy(&self) -> &Arc<SharedPolicy> {
        &self.policy
    }

    /// By which certificates are judged. It stands still unless the test sets it.
    #[must_use]
    pub fn clock(&self) -> &Arc<ManualClock> {
        &self.clock
    }

    /// What proxies heard of agents, oldest first.
    #[must_use]
    pub fn heard(&self) -> Vec<String> {
        self.known.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says which proxies there are; they tell their agents.
    pub fn tell_proxies(&self, proxies: &[&TestProxy]) {
        let told = proxies.iter().map(|proxy| ProxyAddress { id: proxy.host.id, addr: proxy.address.clone() });
        self.proxies.send_replace(told.collect());
    }

    /// How somebody of this cluster is a TLS client: as `identity`, or as nobody.
    #[must_use]
    pub fn client_tls(&self, identity: Option<crate::tls::TlsIdentity>) -> ClientTls {
        ClientTls {
            identity: identity.map(SharedTlsIdentity::new),
            trust: Arc::new(PolicyTrust(self.policy.clone())),
            clock: self.clock.clone(),
        }
    }

    /// Starts a proxy that listens at `<name>:3080`. Started again under a name, it is the same host without memory.
    ///
    /// # Panics
    /// When rustls refuses the configuration, which it does not.
    #[must_use]
    pub fn start_proxy(&self, name: &str) -> TestProxy {
        let host = self.authorities.host_identity(name, &[SystemRole::Proxy]);
        let router = Arc::new(Router::new(self.known.clone(), self.clock.clone(), HashMap::new()));
        let live = LiveWork::new(self.policy.clone(), self.clock.clone());
        let tunnel = TunnelServer::new(router.clone(), self.known.clone(), self.limits.1)
            .living_by(live)
            .telling(self.proxies.subscribe());
        let tunnel = match &self.auth {
            Some(auth) => tunnel.leading_to(auth.clone()),
            None => tunnel,
        };
        let identity = SharedTlsIdentity::new(self.authorities.host(&host));
        let trust = Arc::new(PolicyTrust(self.policy.clone()));
        let tls = ServerTls { identity: identity.clone(), trust, clock: self.clock.clone() };
        let handler = Handler { router: router.clone(), tunnel };
        let port = OnePort::new(self.authorities.cluster().clone(), tls, &identity, handler);
        let port = Arc::new(port.expect("a configuration that every proxy has"));
        let address = format!("{name}:3080");
        let mut listener = self.net.listen(&address);
        let (closing, stop) = (CancellationToken::new(), CancellationToken::new());
        let admissions = Admissions::new(AdmissionLimits { per_source: 10_000, ..AdmissionLimits::default() });
        let (closed, stopped) = (closing.clone(), stop.clone());
        tokio::spawn(async move {
            while let Some(Some(Arrival { stream, source })) = closed.run_until_cancelled(listener.accept()).await {
                let Some(admission) = admissions.admit(source.ip()) else { continue };
                let deadline = Instant::now() + admissions.limits().deadline;
                let (port, stopped) = (port.clone(), stopped.clone());
                let connection = Connection { stream: Wire::Inside(stream), source, admission: admission.clone() };
                tokio::spawn(async move {
                    let served = until_somebody(port.handle(connection), admission, deadline);
                    stopped.run_until_cancelled(served).await;
                });
            }
        });
        let cluster = self.authorities.cluster().clone();
        TestProxy { cluster, host, router, address, net: self.net.clone(), closing, stop }
    }

    /// What an agent on `machine` is made of that offers node `name` and knows of the proxy at `address`.
    #[must_use]
    pub fn agent_config(
        &self,
        name: &str,
        address: &str,
        machine: &Machine,
        service: Arc<dyn StreamService>,
    ) -> AgentConfig {
        let host = self.authorities.host_identity(name, &[SystemRole::Node]);
        let mut places = self.known.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.insert(name.to_owned(), Place::Agent(host.id));
        drop(places);
        let clock: Arc<dyn Clock> = self.clock.clone();
        AgentConfig {
            proxy: address.to_owned(),
            connections: None,
            ways: Ways::through(Arc::new(machine.clone())),
            offer: Offer { ssh: Some(host.name.clone()), ..Offer::default() },
            services: [(TargetKind::Ssh, service)].into(),
            tls: self.client_tls(Some(self.authorities.host(&host))),
            host,
            clock,
            entropy: Arc::new(Chance(self.net.clone())),
            limits: self.limits.0,
            replay: ReplayBudget::default(),
        }
    }

    /// Starts that agent.
    #[must_use]
    pub fn start_agent(&self, name: &str, address: &str, machine: &Machine, service: Arc<dyn StreamService>) -> Agent {
        Agent::start(self.agent_config(name, address, machine, service))
    }

    /// What an agent of node `name` on `machine` is made of that serves named services, and those.
    ///
    /// # Panics
    /// When rustls refuses the configuration, which it does not.
    #[must_use]
    pub fn services_config(&self, name: &str, address: &str, machine: &Machine) -> (AgentConfig, Arc<Services>) {
        let mut config = self.agent_config(name, address, machine, Arc::new(Echo));
        let identity = SharedTlsIdentity::new(self.authorities.host(&config.host));
        let trust = Arc::new(PolicyTrust(self.policy.clone()));
        let tls = ServerTls { identity, trust, clock: self.clock.clone() };
        let live = LiveWork::new(self.policy.clone(), self.clock.clone());
        tokio::spawn(crate::live::enforce(live.clone(), Arc::new(remoteler_core::NullAudit)));
        let audit = Arc::new(remoteler_core::NullAudit);
        let services =
            Services::new(config.host.clone(), tls, live, audit).expect("a configuration that every agent has");
        config.offer = Offer { services: true, ..Offer::default() };
        config.services = [(TargetKind::Service, services.clone() as Arc<dyn StreamService>)].into();
        (config, services)
    }

    /// Starts that agent.
    ///
    /// # Panics
    /// When rustls refuses the configuration, which it does not.
    #[must_use]
    pub fn start_services(&self, name: &str, address: &str, machine: &Machine) -> (Agent, Arc<Services>) {
        let (config, services) = self.services_config(name, address, machine);
        (Agent::start(config), services)
    }

    /// Dials services as the user `name`, from `machine`, through the proxy at `address`.
    #[must_use]
    pub fn dialer(&self, name: &str, address: &str, machine: &Machine) -> ServiceDialer {
        let tls = self.client_tls(Some(self.authorities.user(name)));
        let ways = Ways::through(Arc::new(machine.clone()));
        ServiceDialer::new(address, self.authorities.cluster().clone(), tls, ways)
    }

    /// Waits until an agent can be dialled.
    pub async fn connected(&self, agent: &Agent) {
        // Fails only when the agent is gone, which is borrowed here.
        let _ = agent.state().wait_for(|state| matches!(state, AgentState::Connected { .. })).await;
    }
}

/// An agent's randomness, which is the network's: with that a seed is one course of events.
struct Chance(Net);

impl Entropy for Chance {
    fn fill(&self, buffer: &mut [u8]) -> bool {
        buffer.chunks_mut(8).for_each(|chunk| {
            let number = self.0.random().to_ne_bytes();
            chunk.iter_mut().zip(number).for_each(|(octet, random)| *octet = random);
        });
        true
    }
}

/// A running proxy. Dropping it is what `kill -9` is.
#[derive(Debug)]
pub struct TestProxy {
    cluster: remoteler_core::ClusterName,
    host: HostIdentity,
    router: Arc<Router>,
    address: String,
    net: Net,
    closing: CancellationToken,
    stop: CancellationToken,
}

impl TestProxy {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Who it is.
    #[must_use]
    pub fn host(&self) -> &HostIdentity {
        &self.host
    }

    /// Its links.
    #[must_use]
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// A stream to the node `name`, as the proxy's own services dial it.
    ///
    /// # Errors
    /// [`DialError`].
    ///
    /// # Panics
    /// When `name` is no name of a target.
    pub async fn dial(&self, name: &str) -> Result<BoxedStream, DialError> {
        let name = TargetName::new(name).expect("the test names its targets well");
        let target = Target { cluster: self.cluster.clone(), kind: TargetKind::Ssh, name, port: None };
        self.router.dial(&DialHeader::new(target, None)).await
    }

    /// Takes no new connections and tells agents that it takes no new streams; those that are open go on.
    pub fn drain(&self) {
        self.closing.cancel();
        self.router.drain("the proxy is stopping");
    }
}

impl Drop for TestProxy {
    fn drop(&mut self) {
        self.net.kill(&self.address);
        self.closing.cancel();
        self.stop.cancel();
    }
}

struct Handler {
    router: Arc<Router>,
    tunnel: TunnelServer,
}

#[async_trait]
impl RouteHandler for Handler {
    async fn serve(&self, connection: Routed, source: SocketAddr, admission: Admission) {
        match connection {
            Routed::Tunnel { stream, peer } => self.tunnel.serve(*stream, peer, source, admission).await,
            Routed::Ssh { mut stream, peer: _ } => {
                let Ok(header) = read_dial(&mut stream).await else { return };
                admission.authenticated();
                // The client may be gone at each of these.
                match self.router.dial(&DialHeader::new(header.target, Some(source))).await {
                    Ok(mut target) => {
                        if write_dial_reply(&mut stream, &DialReply::Connected).await.is_ok() {
                            relay(&mut stream, &mut target).await;
                        }
                    }
                    Err(error) => {
                        let reply = DialReply::Refused { code: error.code(), message: error.to_string() };
                        let _ = write_dial_reply(&mut stream, &reply).await;
                        let _ = stream.shutdown().await;
                    }
                }
            }
            Routed::Auth(_) | Routed::Kube { .. } | Routed::App { .. } | Routed::Web(_) => {}
        }
    }

    async fn refused(&self, source: SocketAddr, route: Option<&Route>, refusal: &Refusal) {
        tracing::debug!(%source, ?route, %refusal, "connection refused");
    }
}
