//! What an embedded agent says while nobody asks for it, its calls to the auth service included, counted where the octets leave its machine; and that it
//! hears of new rules at once all the same. Simulated days over the network in memory, with real TLS.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use remoteler_client::{
    AuthTrust, LateLinks, MemoryStore, RemoteAuth,
    sdk::{Agent, Join, TunnelState},
};
use remoteler_core::{
    AuthApi, Clock, ClusterSettings, Heartbeat, HostId, HostIdentity, JoinRequest, LockMode, OsEntropy, PolicyLimits,
    PolicyView, Resource, RoleSpec, SystemClock, SystemRole, TrustAck, TrustAcked, random_uuid, wire,
};
use remoteler_tunnel::{
    Admission, AdmissionLimits, Admissions, AgentEvents, AgentSession, AgentState, AuthStreams, BoxedStream,
    ClientAuth, CloseReason, Connection, Inventory, Limits, MAX_AUTH_STREAMS, OnePort, Place, ProxyAddress, ProxyLink,
    Refusal, RegistrationError, Route, RouteHandler, Routed, Router, ServerTls, Target, TunnelServer, Ways, Wire,
    testkit::{Echo, Machine, Net, TestCluster, Traffic},
    until_somebody,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::cluster::Cluster;

const PROXY: &str = "proxy:3080";
const DAY: Duration = Duration::from_secs(86_400);
const NODE: &[SystemRole] = &[SystemRole::Node];

/// An auth service of one host: it answers what an agent asks, and waits as the real one does.
struct Auth {
    cluster: Cluster,
    acceptor: TlsAcceptor,
    host: HostId,
    /// The keys that the host joined with.
    keys: Mutex<(String, String)>,
    rules: watch::Sender<PolicyView>,
    asked: Mutex<Vec<(Instant, String)>>,
    renewed: Mutex<Instant>,
    /// How it is reached, and all connections end when that changes.
    reached: watch::Sender<Reached>,
    /// How many requests for the rules are never answered.
    lost: AtomicU32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// By whoever asks.
    Well,
    /// Not at all.
    Never,
    /// Not by proxies, which find out late, and lead links nowhere until then.
    NotByProxies,
    /// Through links not even that: what is asked there is never answered.
    UnheardInLinks,
}

impl Auth {
    fn new() -> Arc<Self> {
        let cluster = Cluster::new("root");
        let identity = cluster.service(SystemRole::Auth);
        let tls = ServerTls { identity, trust: Arc::new(cluster.trust()), clock: Arc::new(SystemClock) };
        let config = tls.own_protocol(wire::ALPN_AUTH, ClientAuth::Optional).unwrap();
        let view = PolicyView::new(&cluster.trust(), Vec::new(), PolicyLimits::default());
        Arc::new(Self {
            cluster,
            acceptor: config.into(),
            host: HostId::from_uuid(random_uuid(&OsEntropy)),
            keys: Mutex::default(),
            rules: watch::Sender::new(view),
            asked: Mutex::default(),
            renewed: Mutex::new(Instant::now()),
            reached: watch::Sender::new(Reached::Well),
            lost: AtomicU32::new(0),
        })
    }

    /// What was asked since, oldest first, and how long after `since`.
    fn asked(&self, since: Instant, what: &str) -> Vec<(Duration, String)> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = asked.iter().filter(|(at, line)| *at >= since && line.starts_with(what));
        fits.map(|(at, line)| (*at - since, line.clone())).collect()
    }

    fn change(&self, role: &str) {
        let role = Resource::role(&role.parse().unwrap(), &RoleSpec::default());
        self.rules.send_modify(|view| view.roles.push(role));
    }

    async fn answer(&self, request: Request<Incoming>) -> (u16, String) {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let line = format!("{} {} {}", head.method, head.uri, String::from_utf8_lossy(&body));
        self.asked.lock().unwrap().push((Instant::now(), line));
        let json = |value: serde_json::Value| (200, value.to_string());
        match (head.method, head.uri.path()) {
            (Method::GET, wire::PING) => json(serde_json::to_value(self.cluster.ping(SystemClock.now())).unwrap()),
            (Method::GET, wire::POLICY) => self.follow(head.uri.query().unwrap_or_default()).await,
            (Method::POST, wire::JOIN) => {
                let request: JoinRequest = serde_json::from_slice(&body).unwrap();
                *self.keys.lock().unwrap() = (request.ssh_public_key, request.tls_public_key);
                self.certificates()
            }
            (Method::POST, wire::RENEW_HOST) => self.certificates(),
            (Method::PUT, wire::TRUST_ACK) => {
                let _ack: TrustAck = serde_json::from_slice(&body).unwrap();
                let mut renewed = self.renewed.lock().unwrap();
                let renew = renewed.elapsed() >= DAY;
                if renew {
                    *renewed = Instant::now();
                }
                let told = TrustAcked { renew, longest_heartbeat: Some(Heartbeat::LONGEST) };
                json(serde_json::to_value(told).unwrap())
            }
            (method, path) => panic!("{method} {path}"),
        }
    }

    fn certificates(&self) -> (u16, String) {
        let (ssh, tls) = self.keys.lock().unwrap().clone();
        (200, serde_json::to_string(&self.cluster.host_certs_of(self.host, "edge", NODE, &ssh, &tls)).unwrap())
    }

    async fn follow(&self, query: &str) -> (u16, String) {
        let field = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let known = field("known").map(|version| version.parse().unwrap());
        let wait = Duration::from_secs(field("wait_seconds").map_or(0, |seconds| seconds.parse().unwrap()));
        if self.lost.fetch_update(SeqCst, SeqCst, |lost| lost.checked_sub(1)).is_ok() {
            std::future::pending::<()>().await;
        }
        let mut rules = self.rules.subscribe();
        let changed = rules.wait_for(|view| view.since(view.version(), known).is_some());
        match timeout(wait.min(wire::LONGEST_WAIT), changed).await {
            Ok(view) => {
                let view = view.unwrap();
                (200, serde_json::to_string(&view.since(view.version(), known).unwrap()).unwrap())
            }
            Err(_) => (204, String::new()),
        }
    }

    /// Serves one connection, from its ClientHello on.
    fn serve_stream(self: Arc<Self>, stream: BoxedStream) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut reached = self.reached.subscribe();
            if *reached.borrow_and_update() == Reached::Never {
                return;
            }
            let Ok(stream) = self.acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let auth = self.clone();
                async move {
                    let (status, text) = auth.answer(request).await;
                    let response = Response::builder().status(status).header("content-type", "application/json");
                    response.body(Full::new(Bytes::from(text)))
                }
            });
            tokio::select! {
                // An agent that goes away is no failure.
                _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
                _ = reached.changed() => {}
            }
        })
    }
}

/// Leads streams to it.
struct Door(Arc<Auth>);

#[async_trait]
impl AuthStreams for Door {
    async fn serve(&self, stream: BoxedStream, _source: SocketAddr) {
        let reached = *self.0.reached.borrow();
        match reached {
            Reached::Well | Reached::Never => self.0.clone().serve_stream(stream).await,
            Reached::UnheardInLinks => {
                let Ok(_silent) = self.0.acceptor.accept(stream).await else { return };
                sleep(DAY).await;
            }
            Reached::NotByProxies => sleep(DAY).await,
        }
    }
}

/// A proxy that serves agents, and leads to the auth service.
struct Proxy {
    tunnels: TunnelServer,
    auth: Arc<Auth>,
}

impl Proxy {
    fn start(own: &ProxyAddress, auth: &Arc<Auth>, net: &Net, all: watch::Receiver<Vec<ProxyAddress>>, leads: bool) {
        let tls = ServerTls {
            identity: auth.cluster.service_of(own.id, SystemRole::Proxy),
            trust: Arc::new(auth.cluster.trust()),
            clock: Arc::new(SystemClock),
        };
        let router = Router::new(Arc::new(Silence), Arc::new(SystemClock), Default::default());
        let tunnels = TunnelServer::new(Arc::new(router), Arc::new(Silence), Limits::server()).telling(all);
        let tunnels = if leads { tunnels.leading_to(Arc::new(Door(auth.clone()))) } else { tunnels };
        let web = tls.identity.clone();
        let handler = Self { tunnels, auth: auth.clone() };
        let port = Arc::new(OnePort::new(auth.cluster.name.clone(), tls, &web, handler).unwrap());
        let mut listener = net.listen(&own.addr);
        let admissions = Admissions::new(AdmissionLimits::default());
        tokio::spawn(async move {
            while let Some(arrival) = listener.accept().await {
                let admission = admissions.admit(arrival.source.ip()).unwrap();
                let deadline = Instant::now() + admissions.limits().deadline;
                let (port, stream) = (port.clone(), Wire::Inside(arrival.stream));
                let connection = Connection { stream, source: arrival.source, admission: admission.clone() };
                tokio::spawn(async move { until_somebody(port.handle(connection), admission, deadline).await });
            }
        });
    }
}

#[async_trait]
impl RouteHandler for Proxy {
    async fn serve(&self, connection: Routed, source: SocketAddr, admission: Admission) {
        match connection {
            Routed::Tunnel { stream, peer } => self.tunnels.serve(*stream, peer, source, admission).await,
            Routed::Auth(stream) => {
                admission.authenticated();
                self.auth.clone().serve_stream(Box::new(stream)).await;
            }
            Routed::Ssh { .. } | Routed::Kube { .. } | Routed::App { .. } | Routed::Web(_) => {}
        }
    }

    async fn refused(&self, _source: SocketAddr, _route: Option<&Route>, _refusal: &Refusal) {}
}

struct Silence;

#[async_trait]
impl AuthStreams for Silence {
    async fn serve(&self, _stream: BoxedStream, _source: SocketAddr) {
        sleep(DAY).await;
    }
}

#[async_trait]
impl Inventory for Silence {
    async fn locate(&self, _target: &Target) -> Result<Option<Place>, String> {
        Ok(None)
    }
}

#[async_trait]
impl AgentEvents for Silence {
    async fn connected(&self, _agent: &AgentSession) -> Result<(), String> {
        Ok(())
    }
    async fn disconnected(&self, _agent: &AgentSession, _reason: &CloseReason) {}
    async fn refused(&self, _host: Option<&HostIdentity>, _source: SocketAddr, _error: &RegistrationError) {}
}

/// An agent that has joined, and whose links are up.
struct World {
    auth: Arc<Auth>,
    net: Net,
    device: Machine,
    agent: Agent,
}

impl World {
    /// `leads` is whether the proxy takes streams to the auth service.
    async fn start(limits: Limits, leads: bool) -> Self {
        Self::start_among(&[PROXY], limits, leads).await
    }

    /// With so many proxies.
    async fn start_among(proxies: &[&str], limits: Limits, leads: bool) -> Self {
        let (auth, net) = (Auth::new(), Net::new(1));
        let address =
            |addr: &&str| ProxyAddress { id: HostId::from_uuid(random_uuid(&OsEntropy)), addr: addr.to_string() };
        let proxies: Vec<ProxyAddress> = proxies.iter().map(address).collect();
        let told = watch::Sender::new(proxies.clone());
        for proxy in &proxies {
            Proxy::start(proxy, &auth, &net, told.subscribe(), leads);
        }
        let device = net.machine("192.0.2.7");
        device.delay(Duration::from_millis(40), Duration::ZERO);
        let agent = Agent::builder(&proxies[0].addr)
            .join(Join::token("a token").pin(&auth.cluster.pin()))
            .name("edge")
            .state_store(Arc::new(MemoryStore::new()))
            .ways(Ways::through(Arc::new(device.clone())))
            .limits(limits)
            .build()
            .await
            .unwrap();
        let up = |links: &Vec<ProxyLink>| links.iter().filter(|link| is_up(link)).count() == proxies.len();
        agent.links().wait_for(up).await.unwrap();
        // What it asked for by a connection of its own has been answered by then, and it speaks as seldom as it may.
        sleep(Duration::from_secs(120)).await;
        Self { auth, net, device, agent }
    }

    /// Octets of a day.
    async fn day(&self) -> u64 {
        let (before, since) = (self.device.traffic(), Instant::now());
        sleep(DAY).await;
        let Traffic { sent, received, connections, .. } = self.device.traffic();
        assert_eq!(connections, before.connections, "none was made anew");
        assert!(!self.auth.asked(since, "POST /v1/host/certificates").is_empty(), "its certificates were renewed");
        (sent - before.sent) + (received - before.received)
    }

    /// Knowledge of locks that is older than five minutes allows nothing, from now on.
    async fn locks_are_strict(&self) {
        let settings = ClusterSettings { locking_mode: LockMode::Strict, ..ClusterSettings::default() };
        self.auth.rules.send_modify(|view| view.limits.settings = settings);
        self.told(Instant::now()).await;
    }

    /// How long after `since` the agent has shown that it has the newest rules.
    async fn told(&self, since: Instant) -> Duration {
        let version = self.auth.rules.borrow().version();
        let asks = format!("GET /v1/policy?known={version}");
        loop {
            if let Some((after, _)) = self.auth.asked(since, &asks).first() {
                return *after;
            }
            assert!(since.elapsed() < DAY, "{:?}", self.auth.asked(since, ""));
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn is_up(link: &ProxyLink) -> bool {
    matches!(link.state, AgentState::Connected { .. })
}

#[tokio::test(start_paused = true)]
async fn an_idle_agent_and_its_calls_cost_less_than_a_megabyte_a_day() {
    let octets = World::start(Limits::client(), true).await.day().await;
    println!("{octets} octets a day");
    assert!((200_000..1_000_000).contains(&octets), "{octets}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_agent_on_a_metered_network_and_its_calls_cost_less_than_a_hundred_kilobytes_a_day() {
    let octets = World::start(Limits::metered(), true).await.day().await;
    println!("{octets} octets a day");
    assert!((20_000..100_000).contains(&octets), "{octets}");
}

#[tokio::test(start_paused = true)]
async fn where_locks_are_strict_the_rules_are_confirmed_before_they_are_old_and_a_day_is_still_under_a_megabyte() {
    let world = World::start(Limits::client(), true).await;
    world.locks_are_strict().await;
    let since = Instant::now();

    let octets = world.day().await;

    println!("{octets} octets a day");
    let asked: Vec<_> = world.auth.asked(since, "GET /v1/policy").into_iter().map(|(at, _)| at).collect();
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] < Duration::from_secs(110)), "{asked:?}");
    assert!(octets < 1_000_000, "{octets}");
}

// I79
#[tokio::test(start_paused = true)]
async fn where_locks_are_strict_a_request_that_is_lost_is_made_up_for_before_the_rules_are_old() {
    let world = World::start(Limits::client(), true).await;
    world.locks_are_strict().await;
    for lost in [1, 2] {
        sleep(Duration::from_secs(1000)).await;
        world.auth.lost.store(lost, SeqCst);
        let begun = Instant::now();
        while world.auth.lost.load(SeqCst) > 0 {
            sleep(Duration::from_secs(1)).await;
        }
        // The first that was lost was asked at once after an answer: what was known then is old after 300 s.
        let (first, _) = world.auth.asked(begun, "GET /v1/policy").swap_remove(0);
        sleep(Duration::from_secs(400)).await;
        let (answered, asked) = world.auth.asked(begun, "GET /v1/policy").swap_remove(lost as usize);
        let waits: u64 =
            asked.split("wait_seconds=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        let confirmed = answered - first + Duration::from_secs(waits);
        assert!(confirmed < Duration::from_secs(250), "{lost} lost: {confirmed:?}");
    }
}

// I79
#[tokio::test(start_paused = true)]
async fn an_auth_service_that_was_away_for_long_confirms_the_rules_within_seconds_of_its_return() {
    for limits in [Limits::client(), Limits::metered()] {
        let world = World::start(limits, true).await;
        world.locks_are_strict().await;
        world.auth.reached.send_replace(Reached::Never);
        sleep(Duration::from_secs(500)).await;

        world.auth.reached.send_replace(Reached::Well);
        let back = Instant::now();
        sleep(Duration::from_secs(60)).await;

        let (after, asked) = world.auth.asked(back, "GET /v1/policy").swap_remove(0);
        assert!(after < Duration::from_secs(10) && asked.contains("wait_seconds=0"), "{after:?}: {asked}");
        // Who pays for octets had nothing to say meanwhile, and so nothing to make up for.
        let words = world.auth.asked(back, "PUT /v1/host/trust");
        let soon = words.first().is_some_and(|(after, _)| *after < Duration::from_secs(10));
        assert!(soon || limits.metered, "{words:?}");
    }
}

// I79
#[tokio::test(start_paused = true)]
async fn a_link_whose_proxy_does_not_reach_the_auth_service_delays_one_call_and_no_more() {
    let world = World::start(Limits::client(), true).await;
    world.auth.reached.send_replace(Reached::NotByProxies);
    for (role, most) in [("a", Duration::from_secs(12)), ("b", Duration::from_secs(1)), ("c", Duration::from_secs(1))] {
        let since = Instant::now();
        world.auth.change(role);
        let took = world.told(since).await;
        assert!(took < most, "{role}: {took:?}");
    }

    world.auth.reached.send_replace(Reached::Well);
    sleep(Duration::from_secs(300)).await;
    let asked = world.auth.asked(Instant::now() - Duration::from_secs(300), "GET /v1/policy").pop().unwrap().1;
    assert!(asked.contains("wait_seconds=3600"), "through its link again: {asked}");
}

#[tokio::test(start_paused = true)]
async fn a_link_in_which_nothing_is_answered_is_left_for_another_way() {
    let world = World::start(Limits::client(), true).await;
    world.auth.reached.send_replace(Reached::UnheardInLinks);
    let since = Instant::now();
    sleep(Duration::from_secs(700)).await;
    let words = world.auth.asked(since, "PUT /v1/host/trust");
    assert!(!words.is_empty(), "{:?}", world.auth.asked(since, ""));
}

#[tokio::test(start_paused = true)]
async fn a_link_that_has_too_many_streams_is_not_taken_for_one_that_leads_nowhere() {
    let cluster = TestCluster::new(1).leading_to(Arc::new(Silence));
    let proxy = cluster.start_proxy("p1");
    let device = cluster.net().machine("192.0.2.7");
    let agent = cluster.start_agent("edge", proxy.address(), &device, Arc::new(Echo));
    cluster.connected(&agent).await;
    let _held: Vec<_> = (0..MAX_AUTH_STREAMS).map(|_| agent.auth().open().unwrap()).collect();
    let links = LateLinks::default();
    links.lead_through(agent.auth());
    let trust = AuthTrust::Bundle(cluster.authorities().trust());
    let auth = RemoteAuth::tls(proxy.address(), None, trust).unwrap();
    let auth = auth.by(&Ways::through(Arc::new(device.clone()))).or_through(&links);

    auth.ping().await.unwrap_err();

    assert!(agent.auth().is_open());
}

// I79
#[tokio::test(start_paused = true)]
async fn new_rules_reach_an_agent_at_once_after_hours_without_a_word() {
    for limits in [Limits::client(), Limits::metered()] {
        let world = World::start(limits, true).await;
        for role in ["a", "b", "c"] {
            sleep(Duration::from_secs(10_000)).await;
            let since = Instant::now();
            world.auth.change(role);
            let took = world.told(since).await;
            assert!(took < Duration::from_millis(500), "{took:?}");
        }
    }
}

// I79
#[tokio::test(start_paused = true)]
async fn rules_that_change_while_the_path_is_silently_dead_are_there_as_soon_as_the_link_goes_on_elsewhere() {
    let world = World::start(Limits::client(), true).await;
    let mut state = world.agent.state();
    world.device.silence(true);
    let since = Instant::now();
    world.auth.change("a");
    state.wait_for(|state| matches!(state, TunnelState::Suspended { .. })).await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(40), "{:?}", since.elapsed());
    world.device.silence(false);
    let back = Instant::now();
    world.told(since).await;
    // An attempt that began in the silence ends after 10 s.
    assert!(back.elapsed() < Duration::from_secs(15), "{:?}", back.elapsed());
}

// I79
#[tokio::test(start_paused = true)]
async fn rules_that_change_while_one_of_two_proxies_is_gone_for_good_are_there_within_seconds() {
    for gone in ["p1:3080", "p2:3080"] {
        let world = World::start_among(&["p1:3080", "p2:3080"], Limits::client(), true).await;
        sleep(Duration::from_secs(1000)).await;
        world.net.kill(gone);
        let since = Instant::now();
        world.auth.change("a");
        let took = world.told(since).await;
        assert!(took < Duration::from_secs(10), "{gone}: {took:?}");
        assert!(world.agent.links().borrow().iter().any(|link| matches!(link.state, AgentState::Suspended { .. })));

        // And what comes next is waited for where the agent still has a link.
        sleep(Duration::from_secs(100)).await;
        let since = Instant::now();
        world.auth.change("b");
        let took = world.told(since).await;
        assert!(took < Duration::from_secs(1), "{gone}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn through_a_proxy_of_an_earlier_version_an_agent_speaks_as_often_as_it_did_and_over_connections_of_its_own() {
    let world = World::start(Limits::client(), false).await;
    let (since, before) = (Instant::now(), world.device.traffic());
    sleep(Duration::from_secs(600)).await;
    let words = world.auth.asked(since, "PUT /v1/host/trust");
    assert!((19..=21).contains(&words.len()), "{words:?}");
    assert!(words.iter().all(|(_, word)| word.contains(r#""heartbeat_seconds":30"#)), "{words:?}");
    let rules = world.auth.asked(since, "GET /v1/policy");
    assert!(rules.len() >= 23 && rules.iter().all(|(_, asked)| asked.contains("wait_seconds=25")), "{rules:?}");
    assert_eq!(world.device.traffic().connections, before.connections, "those that it has serve on");
}

#[tokio::test(start_paused = true)]
async fn when_the_agent_stops_no_connection_inside_its_link_is_waited_for() {
    let World { agent, .. } = World::start(Limits::client(), true).await;
    let since = Instant::now();
    agent.shutdown(Duration::from_secs(600)).await;
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_shut_down_says_last_that_it_may_be_spoken_for_soon_and_one_that_is_dropped_says_nothing() {
    for (limits, period) in [(Limits::client(), 300), (Limits::metered(), 1800)] {
        let World { auth, agent, .. } = World::start(limits, true).await;
        let period = format!(r#""heartbeat_seconds":{period}"#);
        let started = auth.asked(Instant::now() - Duration::from_secs(120), "PUT /v1/host/trust").pop().unwrap().1;
        assert!(started.contains(&period), "{started}");
        let since = Instant::now();
        agent.shutdown(Duration::from_secs(600)).await;
        let words = auth.asked(since, "PUT /v1/host/trust");
        assert!(words.len() == 1 && words[0].1.contains(r#""heartbeat_seconds":30"#), "{words:?}");
    }

    let World { auth, agent, .. } = World::start(Limits::client(), true).await;
    let since = Instant::now();
    drop(agent);
    sleep(Duration::from_secs(3600)).await;
    assert!(auth.asked(since, "").is_empty(), "{:?}", auth.asked(since, ""));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_nobody_hears_stops_all_the_same() {
    let World { auth, device, agent, .. } = World::start(Limits::client(), true).await;
    auth.reached.send_replace(Reached::Never);
    device.silence(true);
    let since = Instant::now();
    agent.shutdown(Duration::from_secs(10)).await;
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
}
