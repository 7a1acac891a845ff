//! The proxy: what happens to a connection to the one port once its route is known. Copies bytes; never decrypts SSH,
//! Kubernetes or what `tsh` sends to apps, and never decides what a user may do at a target.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use remoteler_core::{
    AuditKind, AuditSink, ClusterName, HostIdentity, LiveWork, LockContext, Subject, SystemRole, Terms, Verified,
    VerifiedHost, with_causes,
};
use remoteler_tunnel::{
    Admission, Admissions, AgentEvents, AgentSession, CloseReason, DialCode, DialHeader, DialReply, Dialled, ReadAhead,
    Refusal, RegistrationError, Route, RouteHandler, Routed, Router, Socket, Target, TargetKind, TargetName,
    TunnelServer, handshake_failure, is_certificate_failure, read_dial, relay, write_dial_reply,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

use super::{
    apps::AppDoor,
    auth::AuthDoor,
    inventory::{CachedInventory, Front},
    web::WebApi,
};

/// Serves the routes of the one port.
pub(crate) struct ProxyHandler {
    pub(crate) cluster: ClusterName,
    pub(crate) router: Arc<Router>,
    pub(crate) inventory: Arc<CachedInventory>,
    pub(crate) tunnels: Arc<TunnelServer>,
    pub(crate) auth: AuthDoor,
    pub(crate) web: WebApi,
    pub(crate) audit: Arc<dyn AuditSink>,
    /// What runs by the rules in this process.
    pub(crate) live: Arc<LiveWork>,
    /// What is being copied now; a proxy that drains waits for it.
    pub(crate) relays: TaskTracker,
    /// Bounds the copying for people who have proved nothing to the proxy: the Kubernetes service, or the app service, asks them.
    pub(crate) blind_relays: Arc<Admissions>,
    /// Where browsers come to web apps.
    pub(crate) apps: Arc<AppDoor>,
}

#[async_trait]
impl RouteHandler for ProxyHandler {
    async fn serve(&self, connection: Routed, source: SocketAddr, admission: Admission) {
        // Each in a box of its own: an idle tunnel would otherwise hold as much as the largest of them.
        match connection {
            Routed::Ssh { stream, peer } => Box::pin(self.ssh(stream, peer, source, admission)).await,
            Routed::Tunnel { stream, peer } => Box::pin(self.tunnels.serve(stream, peer, source, admission)).await,
            Routed::Auth(stream) => Box::pin(self.auth.serve(stream, source, admission)).await,
            Routed::Kube { server_name, stream } => {
                let name = self.inventory.kube_by_server_name(&server_name).await;
                Box::pin(self.pass_blindly((TargetKind::Kube, name), stream, source, admission)).await;
            }
            Routed::App { server_name, stream } => {
                let name = self.inventory.app_by_server_name(&server_name).await;
                Box::pin(self.pass_blindly((TargetKind::App, name), stream, source, admission)).await;
            }
            Routed::Web(stream) => Box::pin(self.web(*stream, source, admission)).await,
        }
    }

    async fn refused(&self, source: SocketAddr, route: Option<&Route>, refusal: &Refusal) {
        tracing::debug!(%source, ?route, %refusal, "connection refused");
        // What no certificate was shown to is no attempt worth the log: anybody can send octets.
        if let (Some(Route::Ssh | Route::Tunnel), Some(reason)) = (route, certificate_reason(refusal)) {
            self.record_refusal(String::new(), source, reason).await;
        }
    }
}

impl ProxyHandler {
    async fn ssh<S>(&self, mut stream: S, peer: Verified, source: SocketAddr, admission: Admission)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let user = match peer {
            Verified::User(user) => Some(user),
            Verified::Host(host) if host.identity().roles.contains(&SystemRole::Proxy) => {
                return self.passed_on(stream, &host, source, admission).await;
            }
            Verified::Host(_) => None,
        };
        let Some(user) = user else {
            let reason = "a host's certificate was shown where a user's is needed";
            self.record_refusal(String::new(), source, reason.into()).await;
            let refused = DialReply::Refused { code: DialCode::Denied, message: reason.into() };
            // The peer may be gone already.
            let _ = write_dial_reply(&mut stream, &refused).await;
            return;
        };
        let header = match read_dial(&mut stream).await {
            Ok(header) => header,
            Err(cause) => {
                tracing::debug!(%source, %cause, "no dial header");
                let refused = DialReply::Refused { code: DialCode::BadRequest, message: cause.to_string() };
                let _ = write_dial_reply(&mut stream, &refused).await;
                return;
            }
        };
        admission.authenticated();
        let known = matches!(header.target.kind, TargetKind::Ssh | TargetKind::Service);
        if !known || header.target.cluster != self.cluster {
            let message = format!(
                "this proxy does not know {}; it serves nodes and services of cluster {}",
                header.target, self.cluster
            );
            let refused = DialReply::Refused { code: DialCode::NotFound, message };
            let _ = write_dial_reply(&mut stream, &refused).await;
            return;
        }
        // What the client says of its own address is not passed on; what we see is.
        let header = DialHeader::new(header.target, Some(source));
        let (name, id) = self.inventory.host_of(&header.target);
        let context = LockContext::of_user(&user).host(name.as_deref(), id);
        let allowed = self.live.policy().policy().check_locks(&context).map_err(|locked| locked.to_string());
        let allowed = allowed.and_then(|()| {
            let subject = Subject::user(&user).at(name.as_deref(), id);
            let terms = Terms { grace: GRACE, ..Terms::default() };
            self.live.enter(subject, terms).map_err(|reason| reason.to_string())
        });
        let live = match allowed {
            Ok(live) => live,
            Err(reason) => {
                let message = format!("access denied: {reason}");
                let refused = DialReply::Refused { code: DialCode::Denied, message: message.clone() };
                self.record_refusal(user.identity().user.to_string(), source, message).await;
                let _ = write_dial_reply(&mut stream, &refused).await;
                return;
            }
        };
        match self.router.dial(&header).await {
            Ok(mut target) => {
                if write_dial_reply(&mut stream, &DialReply::Connected).await.is_ok() {
                    let signal = live.signal();
                    let relaying = async {
                        tokio::select! {
                            relayed = relay(&mut stream, &mut target) => Some(relayed),
                            _ = signal.ended() => None,
                        }
                    };
                    let Some(relayed) = self.relays.track_future(relaying).await else { return };
                    tracing::debug!(user = %user.identity().user, target = %header.target, up = relayed.up, down = relayed.down, "relay ended");
                }
            }
            Err(cause) => {
                tracing::info!(user = %user.identity().user, target = %header.target, %cause, "dial failed");
                let message = match std::error::Error::source(&cause) {
                    Some(source) => format!("{cause}: {source}"),
                    None => cause.to_string(),
                };
                let _ = write_dial_reply(&mut stream, &DialReply::Refused { code: cause.code(), message }).await;
            }
        }
    }

    /// A dial of a user that another proxy passes on, for an agent that has its link here. That proxy has asked who the user is.
    async fn passed_on<S>(&self, mut stream: S, proxy: &VerifiedHost, source: SocketAddr, admission: Admission)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let Ok(header) = read_dial(&mut stream).await else { return };
        let (name, id) = self.inventory.host_of(&header.target);
        let rules = self.live.policy().policy();
        let reached = LockContext::default().host(name.as_deref(), id);
        let allowed = rules.check_locks(&LockContext::of_host(proxy)).and_then(|()| rules.check_locks(&reached));
        let allowed = allowed.map_err(|locked| locked.to_string()).and_then(|()| {
            let terms = Terms { grace: GRACE, ..Terms::default() };
            self.live.enter(Subject::host(proxy), terms).map_err(|reason| reason.to_string())
        });
        let live = match allowed {
            Ok(live) => live,
            Err(reason) => {
                let message = format!("access denied: {reason}");
                self.record_refusal(String::new(), source, message.clone()).await;
                // The peer may be gone already, here and below.
                let _ = write_dial_reply(&mut stream, &DialReply::Refused { code: DialCode::Denied, message }).await;
                return;
            }
        };
        admission.authenticated();
        match self.router.dial_linked(&header).await {
            Ok(mut target) => {
                if write_dial_reply(&mut stream, &DialReply::Connected).await.is_ok() {
                    let signal = live.signal();
                    let relaying = async {
                        tokio::select! {
                            relayed = relay(&mut stream, &mut target) => drop(relayed),
                            _ = signal.ended() => {}
                        }
                    };
                    self.relays.track_future(relaying).await;
                }
            }
            Err(cause) => {
                tracing::debug!(proxy = %proxy.identity().name, target = %header.target, %cause, "a dial of another proxy failed");
                let message = with_causes(&cause);
                let _ = write_dial_reply(&mut stream, &DialReply::Refused { code: cause.code(), message }).await;
            }
        }
    }

    /// A browser, or a program that is no client of ours. Under the name of an app there is that app, or that it is away, and nothing of the proxy's own.
    async fn web(&self, stream: TlsStream<ReadAhead<Socket>>, source: SocketAddr, admission: Admission) {
        match stream.get_ref().1.server_name().and_then(|name| self.inventory.front(name)) {
            Some(Front::App(app)) => {
                self.relays.track_future(self.apps.serve(stream, app, source, admission)).await;
            }
            Some(Front::Away(address)) => self.apps.say_away(stream, address, source).await,
            None => self.web.serve(stream, source).await,
        }
    }

    /// Copies between a user and the service of a Kubernetes cluster or an app, undecrypted.
    async fn pass_blindly(
        &self,
        (kind, name): (TargetKind, Option<String>),
        mut stream: Socket,
        source: SocketAddr,
        admission: Admission,
    ) {
        let Some(name) = name else {
            tracing::debug!(%source, %kind, "nothing has the server name of a connection");
            return;
        };
        let Ok(name) = TargetName::new(name) else { return };
        let target = Target { cluster: self.cluster.clone(), kind, name, port: None };
        let header = DialHeader::new(target, Some(source));
        let (host, id) = self.inventory.host_of(&header.target);
        // Who the user is, the service will ask; here only whether anybody may go there.
        if self.live.policy().policy().locks.concerning(&LockContext::default().host(host.as_deref(), id)).is_some() {
            tracing::debug!(target = %header.target, "a connection to a locked host was turned away");
            return;
        }
        // Before the service hears of it: what it does for a hello is worth more than a place here.
        let Some(_place) = self.blind_relays.admit(source.ip()) else {
            tracing::debug!(%source, "too many connections that are passed on blindly, one was turned away");
            return;
        };
        // The hello is here already, and one that nobody answers may be said again.
        match self.router.dial_saying(&header, stream.first()).await {
            Ok(Dialled { stream: mut service, said }) => {
                stream.skip(said);
                // From here on the service's own deadlines hold.
                admission.authenticated();
                let relayed = self.relays.track_future(relay(&mut stream, &mut service)).await;
                if let Some(cause) = relayed.error {
                    tracing::debug!(target = %header.target, %cause, "a connection that was passed on blindly broke");
                }
            }
            Err(cause) => tracing::debug!(target = %header.target, %cause, "dial failed"),
        }
    }

    async fn record_refusal(&self, user: String, source: SocketAddr, error: String) {
        let remote = Some(source.to_string());
        let event = AuditKind::AuthAttempt { user, service: "proxy".into(), login: None, error, remote };
        if let Err(cause) = self.audit.record(event).await {
            tracing::warn!(%cause, "a refused connection is not in the audit log");
        }
    }
}

/// The reason, where a certificate was shown and not believed.
fn certificate_reason(refusal: &Refusal) -> Option<String> {
    match refusal {
        Refusal::Peer(cause) => Some(with_causes(cause)),
        Refusal::Handshake(cause) => is_certificate_failure(cause).then(|| handshake_failure(cause)),
        // What came before a certificate, and reasons of a later version.
        Refusal::Hello(_) | Refusal::Route(_) | _ => None,
    }
}

/// How long a node has for telling its users why it ends their sessions, before the proxy cuts what it copies for them.
const GRACE: std::time::Duration = std::time::Duration::from_secs(1);

/// Writes what happens to agents' links into the audit log.
pub(crate) struct AuditedAgents(pub(crate) Arc<dyn AuditSink>);

impl AuditedAgents {
    async fn record(
        &self,
        host: Option<&HostIdentity>,
        source: SocketAddr,
        error: Option<String>,
    ) -> Result<(), String> {
        let event = AuditKind::TunnelConnect {
            server_id: host.map(|host| host.id.to_string()).unwrap_or_default(),
            server_hostname: host.map(|host| host.name.to_string()).unwrap_or_default(),
            success: error.is_none(),
            error,
            remote: Some(source.to_string()),
        };
        self.0.record(event).await.map_err(|cause| cause.to_string())
    }
}

#[async_trait]
impl AgentEvents for AuditedAgents {
    async fn connected(&self, agent: &AgentSession) -> Result<(), String> {
        tracing::info!(node = %agent.host.name, source = %agent.source, version = agent.version, "agent connected");
        self.record(Some(&agent.host), agent.source, None).await
    }

    async fn disconnected(&self, agent: &AgentSession, reason: &CloseReason) {
        tracing::info!(node = %agent.host.name, source = %agent.source, %reason, "agent disconnected");
    }

    async fn refused(&self, host: Option<&HostIdentity>, source: SocketAddr, error: &RegistrationError) {
        if matches!(error, RegistrationError::Link(_)) {
            // Whoever looks what answers here, as a host does before it joins, hangs up without a word: nothing was refused.
            tracing::debug!(%source, %error, "a link ended before its agent registered");
            return;
        }
        tracing::warn!(%source, %error, "agent refused");
        if let Err(cause) = self.record(host, source, Some(with_causes(error))).await {
            tracing::warn!(cause, "a refused agent is not in the audit log");
        }
    }
}
