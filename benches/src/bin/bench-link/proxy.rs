//! The proxy's end: the one port as the daemon serves it, of which only the route of agents leads anywhere, and a plain port whose
//! connections are dialled through a link. Owns the two listeners. Writes no audit log.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use remoteler_core::{HostId, HostIdentity, SystemClock};
use remoteler_tunnel::{
    Admission, AdmissionLimits, Admissions, AgentEvents, AgentSession, CloseReason, DialHeader, Dialled, Inventory,
    Limits, OnePort, Place, Refusal, RegistrationError, Replayed, Route, RouteHandler, Routed, Router, Serve,
    ServerTls, SharedTlsIdentity, Target, TargetKind, TargetName, TunnelServer, relay, serve,
};
use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::identities;

/// Serves until the process ends.
pub(crate) async fn run(dir: &Path, listen: SocketAddr, entry: SocketAddr) -> anyhow::Result<()> {
    let state = identities::proxy(dir)?;
    let first = identities::hosts(dir, 0..1)?.remove(0);
    let router = Arc::new(Router::new(Arc::new(Behind(first.host_id())), Arc::new(SystemClock), HashMap::new()));
    let identity = SharedTlsIdentity::new(state.tls_identity()?);
    let tls =
        ServerTls { identity: identity.clone(), trust: Arc::new(state.trust().clone()), clock: Arc::new(SystemClock) };
    let tunnels = TunnelServer::new(router.clone(), Arc::new(Counted::default()), Limits::server());
    let port = Arc::new(OnePort::new(state.cluster_name().clone(), tls, &identity, OnlyAgents(tunnels))?);
    let serving = Serve {
        listener: TcpListener::bind(listen).await?,
        admissions: Admissions::new(AdmissionLimits::default()),
        stop: CancellationToken::new(),
        connections: TaskTracker::new(),
    };
    tokio::spawn(serve(serving, move |connection| {
        let port = port.clone();
        async move { port.handle(connection).await }
    }));
    let target = Target {
        cluster: state.cluster_name().clone(),
        kind: TargetKind::Ssh,
        name: TargetName::new(first.node_name().to_string())?,
        port: None,
    };
    let entry = TcpListener::bind(entry).await?;
    loop {
        let (mut stream, source) = entry.accept().await?;
        stream.set_nodelay(true)?;
        let (router, header) = (router.clone(), DialHeader::new(target.clone(), Some(source)));
        tokio::spawn(async move {
            // The proxy has the hello of a connection that it passes on before it dials: whoever measures speaks first too.
            let mut first = vec![0; MOST_FIRST];
            let Ok(count) = stream.read(&mut first).await else { return };
            first.truncate(count);
            match router.dial_saying(&header, &first).await {
                Ok(Dialled { stream: mut far, said }) => {
                    let mut stream = Replayed::new(first.split_off(said).into(), stream);
                    drop(relay(&mut stream, &mut far).await);
                }
                Err(cause) => eprintln!("{cause}"),
            }
        });
    }
}

/// Everything is behind one host's link.
struct Behind(HostId);

#[async_trait]
impl Inventory for Behind {
    async fn locate(&self, _target: &Target) -> Result<Option<Place>, String> {
        Ok(Some(Place::Agent(self.0)))
    }
}

struct OnlyAgents(TunnelServer);

#[async_trait]
impl RouteHandler for OnlyAgents {
    async fn serve(&self, connection: Routed, source: SocketAddr, admission: Admission) {
        if let Routed::Tunnel { stream, peer } = connection {
            Box::pin(self.0.serve(stream, peer, source, admission)).await;
        }
    }

    async fn refused(&self, source: SocketAddr, _route: Option<&Route>, refusal: &Refusal) {
        eprintln!("{source} was refused: {refusal}");
    }
}

/// Says how many agents there are.
#[derive(Default)]
struct Counted(AtomicUsize);

impl Counted {
    fn say(count: usize) {
        println!("AGENTS {count}");
    }
}

#[async_trait]
impl AgentEvents for Counted {
    async fn connected(&self, _agent: &AgentSession) -> Result<(), String> {
        Self::say(self.0.fetch_add(1, Ordering::SeqCst) + 1);
        Ok(())
    }

    async fn disconnected(&self, _agent: &AgentSession, _reason: &CloseReason) {
        Self::say(self.0.fetch_sub(1, Ordering::SeqCst) - 1);
    }

    async fn refused(&self, _host: Option<&HostIdentity>, source: SocketAddr, error: &RegistrationError) {
        eprintln!("the agent at {source} was refused: {error}");
    }
}

/// Octets that are said with the question.
const MOST_FIRST: usize = 4096;
