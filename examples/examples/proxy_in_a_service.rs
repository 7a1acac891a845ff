//! A service of one's own with a proxy in it: its port takes the links of agents beside whatever else it does, and the service dials the
//! agents as it likes. Identities come from the test kit; a real service has them from its cluster.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use remoteler_core::{HostIdentity, SystemRole};
use remoteler_tunnel::{
    Admission, AdmissionLimits, Admissions, Agent, AgentEvents, AgentSession, AgentState, CloseReason, DialHeader,
    Inventory, Limits, OnePort, Place, PolicyTrust, Refusal, RegistrationError, Route, RouteHandler, Routed, Router,
    Serve, ServerTls, SharedTlsIdentity, Target, TargetKind, TargetName, TunnelServer, Ways, serve,
    testkit::{Echo, TestCluster},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// This service knows its devices by heart.
struct Devices(HashMap<String, Place>);

#[async_trait]
impl Inventory for Devices {
    async fn locate(&self, target: &Target) -> Result<Option<Place>, String> {
        Ok(self.0.get(target.name.as_str()).cloned())
    }
}

/// Says on standard output what happens.
struct Log;

#[async_trait]
impl AgentEvents for Log {
    async fn connected(&self, agent: &AgentSession) -> Result<(), String> {
        println!("{} is here", agent.host.name);
        Ok(())
    }
    async fn disconnected(&self, agent: &AgentSession, reason: &CloseReason) {
        println!("{} is gone: {reason}", agent.host.name);
    }
    async fn refused(&self, _: Option<&HostIdentity>, source: SocketAddr, error: &RegistrationError) {
        println!("{source} was refused: {error}");
    }
}

/// Of all that the one port could do, this one takes agents.
struct Tunnels(TunnelServer);

#[async_trait]
impl RouteHandler for Tunnels {
    async fn serve(&self, connection: Routed, source: SocketAddr, admission: Admission) {
        if let Routed::Tunnel { stream, peer } = connection {
            self.0.serve(*stream, peer, source, admission).await;
        }
    }
    async fn refused(&self, source: SocketAddr, _: Option<&Route>, refusal: &Refusal) {
        println!("{source} was refused: {refusal}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cluster = TestCluster::new(1);
    let authorities = cluster.authorities();
    let device = authorities.host_identity("device-7", &[SystemRole::Node]);
    let devices = Devices(HashMap::from([("device-7".to_owned(), Place::Agent(device.id))]));

    // The service: a router, the server of links, a port.
    let router = Arc::new(Router::new(Arc::new(devices), cluster.clock().clone(), HashMap::new()));
    let tunnels = Tunnels(TunnelServer::new(router.clone(), Arc::new(Log), Limits::server()));
    let host = authorities.host_identity("service", &[SystemRole::Proxy]);
    let identity = SharedTlsIdentity::new(authorities.host(&host));
    let trust = Arc::new(PolicyTrust(cluster.policy().clone()));
    let tls = ServerTls { identity: identity.clone(), trust, clock: cluster.clock().clone() };
    let port = Arc::new(OnePort::new(authorities.cluster().clone(), tls, &identity, tunnels)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let admissions = Admissions::new(AdmissionLimits::default());
    let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
    tokio::spawn(serve(Serve { listener, admissions, stop, connections }, move |connection| {
        let port = port.clone();
        async move { port.handle(connection).await }
    }));

    // A device somewhere.
    let machine = cluster.net().machine("192.0.2.7");
    let mut config = cluster.agent_config("device-7", &address, &machine, Arc::new(Echo));
    config.ways = Ways::default();
    let agent = Agent::start(config);
    agent.state().wait_for(|state| matches!(state, AgentState::Connected { .. })).await?;

    // The service asks it something.
    let name = TargetName::new("device-7")?;
    let target = Target { cluster: authorities.cluster().clone(), kind: TargetKind::Ssh, name, port: None };
    let mut stream = router.dial(&DialHeader::new(target, None)).await?;
    stream.write_all(b"are you there?").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("it says: {answer}");
    Ok(())
}
