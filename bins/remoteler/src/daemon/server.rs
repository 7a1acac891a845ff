//! The servers of a process: auth service and proxy.

use std::{collections::HashMap, os::fd::OwnedFd, sync::Arc, time::Duration};

use anyhow::Context;
use remoteler_auth::{ApiForAddress, AuthService, Caller, WebNames, bind_admin_socket};
use remoteler_core::AuthApi;
use remoteler_tunnel::{
    AdmissionLimits, Admissions, OnePort, PeerProxies, Router, Serve, ServerTls, SharedTlsIdentity, StreamService,
    TargetKind, TunnelServer, serve,
};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::{
    Daemon,
    base::{Base, Place},
    listeners::Listeners,
};
use crate::{
    config::{ProxySettings, Settings, TunnelSettings},
    services::{
        apps::{AppDoor, Guesses, Sessions},
        audit_log,
        auth::{AuthDoor, AuthServer, LinkDoor},
        carrier::Carrier,
        inventory::CachedInventory,
        proxy::{AuditedAgents, ProxyHandler},
        web::WebApi,
        web_certificate,
    },
};

/// The servers that run.
#[derive(Default)]
pub(super) struct Servers {
    auth: Option<AuthService>,
    proxy: Option<(Arc<Router>, Arc<SharedTlsIdentity>)>,
    tunnels: Option<(Arc<TunnelServer>, ServerTls)>,
    /// Sessions that the proxy copies.
    relays: TaskTracker,
}

impl Servers {
    /// Who takes up links, and whom it believes.
    pub(super) fn tunnels(&self) -> Option<(Arc<TunnelServer>, ServerTls)> {
        self.tunnels.clone()
    }

    /// Gives the sessions that are copied, and the streams of agents, until `deadline`, then ends the links.
    pub(super) async fn shutdown(&self, deadline: Duration) {
        let end = tokio::time::Instant::now() + deadline;
        self.relays.close();
        // Agents hear of it first, so that whoever dials them through another proxy finds them there.
        if let Some((router, _)) = &self.proxy {
            router.drain("the proxy is stopping");
        }
        if tokio::time::timeout_at(end, self.relays.wait()).await.is_err() {
            tracing::warn!(relays = self.relays.len(), "sessions are cut off: the time to end is over");
        }
        let deadline = end.saturating_duration_since(tokio::time::Instant::now());
        if let Some((router, _)) = &self.proxy {
            router.shutdown("the proxy is stopping", deadline).await;
        }
    }
}

impl Daemon {
    /// Starts what is configured; the proxy's public address, to be announced.
    pub(super) fn start_servers(
        &mut self,
        settings: &Settings,
        base: &Base,
        listeners: Listeners,
        services: &HashMap<TargetKind, Arc<dyn StreamService>>,
    ) -> anyhow::Result<Option<String>> {
        let door = match &base.place {
            Place::Here(service) => {
                self.servers.auth = Some(service.clone());
                if let Some(auth) = &settings.auth {
                    let hostname = base.keys.identity.name.as_str();
                    audit_log::start(service, &auth.audit, hostname, &self.senders, &self.stop)?;
                }
                AuthDoor::Here(self.start_auth(service, base, listeners.auth)?)
            }
            Place::Direct(addr) => AuthDoor::elsewhere(addr, &base.client_tls())?,
            Place::ThroughProxy(addr) => AuthDoor::through_proxy(addr),
        };
        if let Some(listener) = listeners.crl {
            self.keep_port("crl", &listener)?;
            self.show_crls(base, listener);
        }
        let tunnel = &settings.tunnel;
        match (&settings.proxy, listeners.proxy) {
            (Some(settings), Some(listener)) => {
                self.start_proxy((settings, tunnel), base, (listener, listeners.links), door, services.clone())
            }
            _ => Ok(None),
        }
    }

    fn start_auth(
        &self,
        service: &AuthService,
        base: &Base,
        listener: Option<TcpListener>,
    ) -> anyhow::Result<Arc<AuthServer>> {
        let server = AuthServer::new(service, &base.server_tls(), base.audit.clone(), self.closing.clone())?;
        if let Some(listener) = listener {
            self.listening("auth", &listener);
            let accepting = server.clone();
            self.serve_port(listener, move |connection| accepting.clone().accept(connection));
        }
        tokio::spawn(server.clone().serve_local(bind_admin_socket(self.data_dir.path())?));
        tokio::spawn(super::until(self.stop.clone(), rotate_when_due(service.clone())));
        tokio::spawn(super::until(self.stop.clone(), drop_what_has_ended(service.clone())));
        Ok(server)
    }

    /// Starts the proxy; its public address, to be announced.
    fn start_proxy(
        &mut self,
        (settings, tunnel): (&ProxySettings, &TunnelSettings),
        base: &Base,
        (listener, links): (TcpListener, Vec<OwnedFd>),
        door: AuthDoor,
        services: HashMap<TargetKind, Arc<dyn StreamService>>,
    ) -> anyhow::Result<Option<String>> {
        let identity = &base.keys.identity;
        let web = SharedTlsIdentity::new(web_certificate::load(settings, &self.data_dir)?);
        let listening = listener.local_addr().context("the proxy's port has no address")?;
        let public = settings.public_addr.clone().unwrap_or_else(|| {
            if listening.ip().is_unspecified() {
                format!("{}:{}", identity.name, listening.port())
            } else {
                listening.to_string()
            }
        });
        let inventory = CachedInventory::new(
            base.api.clone(),
            identity.cluster.clone(),
            (identity.id, public.clone()),
            settings.listen.ip().is_loopback(),
        );
        tokio::spawn(inventory.clone().run(self.stop.clone()));
        let proxies = inventory.proxies();
        let others = PeerProxies::new(identity.id, proxies.clone(), base.client_tls());
        let router = Router::new(inventory.clone(), base.clock.clone(), services).beside(Arc::new(others));
        let router = Arc::new(router);
        let agents = Arc::new(AuditedAgents(base.audit.clone()));
        let carrier = Carrier::new(self.connections.clone());
        let names = WebNames::new(settings.public_addr.as_deref(), [identity.name.to_string()]);
        let earlier = self.earlier_processes(links).context("links of the process before cannot go on")?;
        let tunnels = TunnelServer::new(router.clone(), agents, tunnel.of_proxy())
            .keeping(tunnel.replay.clone())
            .living_by(base.live.clone())
            .telling(proxies)
            .leading_to(Arc::new(LinkDoor::new(door.clone())))
            .after(earlier, self.servers.relays.clone());
        let tunnels = Arc::new(tunnels);
        self.servers.tunnels = Some((tunnels.clone(), base.server_tls()));
        let apps = AppDoor {
            cluster: identity.cluster.clone(),
            proxy_origin: format!("https://{}", public.strip_suffix(":443").unwrap_or(&public)),
            router: router.clone(),
            tls: base.client_tls(),
            sessions: Sessions::new(base.api.clone(), base.clock.clone()),
            codes: Guesses::default(),
            entropy: base.entropy.clone(),
            // A whole office may sit behind one address, with a connection to each app.
            places: Admissions::new(AdmissionLimits {
                total: 4096,
                per_source: 2048,
                per_customer: 2048,
                ..AdmissionLimits::default()
            }),
            api: base.api.clone(),
            audit: base.audit.clone(),
            stop: self.closing.clone(),
        };
        let known = inventory.clone();
        let is_app = move |host: &str| known.front(host).is_some();
        let handler = ProxyHandler {
            cluster: identity.cluster.clone(),
            router: router.clone(),
            inventory,
            tunnels,
            live: base.live.clone(),
            auth: door,
            web: WebApi::new(anonymous_api(base), names, self.closing.clone()).carrying(&carrier).sparing(is_app),
            audit: base.audit.clone(),
            relays: self.servers.relays.clone(),
            apps: Arc::new(apps),
            blind_relays: Admissions::new(AdmissionLimits { total: 4096, ..AdmissionLimits::default() }),
        };
        let port = Arc::new(OnePort::new(identity.cluster.clone(), base.server_tls(), &web, handler)?);
        carrier.open(&port);
        self.keep_port("proxy", &listener)?;
        self.listening("proxy", &listener);
        self.serve_port(listener, move |connection| {
            let port = port.clone();
            async move { port.handle(connection).await }
        });
        self.servers.proxy = Some((router, web));
        Ok(Some(public))
    }

    fn show_crls(&self, base: &Base, listener: TcpListener) {
        self.listening("crl", &listener);
        let lists = WebApi::crls(anonymous_api(base), self.closing.clone());
        self.serve_port(listener, move |connection| {
            let lists = lists.clone();
            // Ends at the deadline of strangers, as the web API's connections do (I30).
            async move { lists.serve(connection.stream, connection.source).await }
        });
    }

    fn serve_port<H, F>(&self, listener: TcpListener, handle: H)
    where
        H: Fn(remoteler_tunnel::Connection) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let admissions = Admissions::new(AdmissionLimits::default());
        let (stop, connections) = (self.closing.clone(), self.connections.clone());
        tokio::spawn(serve(Serve { listener, admissions, stop, connections }, handle));
    }

    /// A handle on the auth service as its administrator, if it runs here.
    #[must_use]
    pub fn admin(&self) -> Option<Arc<dyn AuthApi>> {
        self.servers.auth.as_ref().map(|auth| auth.as_caller(Caller::LocalAdmin))
    }

    /// Shows the web certificate as it is on disk now.
    pub(super) fn reload_web_certificate(&self, settings: &Settings) {
        if let (Some((_, web)), Some(proxy)) = (&self.servers.proxy, &settings.proxy) {
            match web_certificate::load(proxy, &self.data_dir) {
                Ok(identity) => web.replace(identity),
                Err(cause) => {
                    tracing::error!(
                        cause = crate::one_line(&cause),
                        "the web certificate is refused, the old one stays"
                    );
                }
            }
        }
    }
}

/// Takes the steps of automatic rotations at their time. A failure is logged once until a look succeeds again.
async fn rotate_when_due(service: AuthService) {
    let mut failing = false;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        match service.rotate_when_due().await {
            Ok(()) => failing = false,
            Err(cause) if failing => tracing::debug!(%cause, "the rotation does not go on"),
            Err(cause) => {
                failing = true;
                tracing::error!(%cause, "the rotation of an authority does not go on; it is tried again");
            }
        }
    }
}

/// Lets go of revocations and locks at their end.
async fn drop_what_has_ended(service: AuthService) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        service.drop_ended_revocations().await;
        service.drop_ended_locks().await;
    }
}

/// For the web API: calls of people who have proved nothing yet.
fn anonymous_api(base: &Base) -> ApiForAddress {
    match &base.place {
        Place::Here(service) => {
            let service = service.clone();
            Arc::new(move |addr| service.as_caller(Caller::Anonymous { addr }))
        }
        // A proxy of its own is a host the auth service knows: it may tell where a login comes from.
        Place::Direct(_) | Place::ThroughProxy(_) => {
            let api = base.api.clone();
            Arc::new(move |_| api.clone())
        }
    }
}
