//! The auth service's port and a proxy's door to it, over sockets on loopback.

use remoteler_auth::{AuthConfig, LocalHost};
use remoteler_client::{AuthTrust, HostState, KeyPairs, RemoteAuth};
use remoteler_core::{
    ApiErrorKind, AuthApi, ClusterName, EventQuery, LoginRequest, NodeName, Secret, SystemClock, TrustBundle,
};
use remoteler_tunnel::{ALPN_SSH, ALPN_TUNNEL, Serve, SharedTlsIdentity, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::task::TaskTracker;

use super::*;

struct Stage {
    service: AuthService,
    addr: String,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Stage {
    /// An auth service on a port of its own.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterName::new("root").unwrap();
        let service = AuthService::open(AuthConfig::new(dir.path(), cluster)).await.unwrap();
        let identity = identity(&service, "auth", SystemRole::Auth).await;
        let trust: Arc<dyn TrustSource> = Arc::new(service.trust_bundle());
        let tls = ServerTls { identity, trust, clock: Arc::new(SystemClock) };
        let stop = CancellationToken::new();
        let server = AuthServer::new(&service, &tls, service.audit_sink(), stop.clone()).unwrap();
        let addr = listen(stop.clone(), move |connection| server.clone().accept(connection)).await;
        Self { service, addr, stop, _dir: dir }
    }

    fn trust(&self) -> TrustBundle {
        self.service.trust_bundle()
    }

    /// How a host with that role is a TLS client.
    async fn client(&self, name: &str, role: SystemRole) -> ClientTls {
        let identity = Some(identity(&self.service, name, role).await);
        ClientTls { identity, trust: Arc::new(self.trust()), clock: Arc::new(SystemClock) }
    }

    /// The port of a proxy, which says that everybody comes from `source`.
    async fn proxy(&self, tls: &ClientTls, source: SocketAddr) -> String {
        let door = AuthDoor::elsewhere(&self.addr, tls).unwrap();
        listen(self.stop.clone(), move |Connection { stream, admission, .. }| {
            let door = door.clone();
            async move { door.serve(stream, source, admission).await }
        })
        .await
    }

    fn anonymous(&self, addr: &str) -> RemoteAuth {
        RemoteAuth::tls(addr, None, AuthTrust::Bundle(self.trust())).unwrap()
    }

    async fn remotes(&self, event: &str) -> Vec<(String, String)> {
        let query = EventQuery { event: Some(event.into()), limit: Some(1000), ..EventQuery::default() };
        let events = self.service.as_caller(Caller::LocalAdmin).events(query).await.unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let seen = events.iter().map(|event| {
            let event = serde_json::to_value(event).unwrap();
            (text(&event["addr.remote"]), text(&event["error"]))
        });
        seen.collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn identity(service: &AuthService, name: &str, role: SystemRole) -> Arc<SharedTlsIdentity> {
    let keys = KeyPairs::generate(name).unwrap();
    let host = LocalHost {
        name: NodeName::new(name).unwrap(),
        roles: [role].into(),
        kube_clusters: [].into(),
        apps: Default::default(),
        ssh_public_key: keys.ssh_public.clone(),
        tls_public_key: keys.tls_public.clone(),
        host_id: None,
    };
    let certs = service.issue_local_host(host).await.unwrap();
    let state = HostState::new(keys, certs, SystemClock.now()).unwrap();
    SharedTlsIdentity::new(state.tls_identity().unwrap())
}

async fn listen<H, F>(stop: CancellationToken, handle: H) -> String
where
    H: Fn(Connection) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let admissions = Admissions::new(AdmissionLimits::default());
    tokio::spawn(serve(Serve { listener, admissions, stop, connections: TaskTracker::new() }, handle));
    addr
}

async fn guess(api: &RemoteAuth, user: &str) -> ApiErrorKind {
    let keys = KeyPairs::generate(user).unwrap();
    let request = LoginRequest {
        user: user.into(),
        password: Secret::new("a wrong password"),
        code: None,
        ssh_public_key: keys.ssh_public,
        tls_public_key: keys.tls_public,
        ttl_seconds: None,
        client_addr: Some("198.51.100.66:6".into()),
    };
    api.login(request).await.unwrap_err().kind
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_separate_proxy_each_client_has_limits_of_its_own() {
    let stage = Stage::new().await;
    let tls = stage.client("proxy", SystemRole::Proxy).await;
    let bad = stage.anonymous(&stage.proxy(&tls, "203.0.113.6:1000".parse().unwrap()).await);
    let good = stage.anonymous(&stage.proxy(&tls, "[2001:db8::7]:1000".parse().unwrap()).await);

    for number in 0..30 {
        assert_eq!(guess(&bad, &format!("user{number}")).await, ApiErrorKind::Unauthenticated);
    }
    assert_eq!(guess(&bad, "another").await, ApiErrorKind::RateLimited);
    assert_eq!(guess(&good, "another").await, ApiErrorKind::Unauthenticated);

    // I69: what the proxy saw, not what the client says of itself.
    let seen = stage.remotes("user.login").await;
    assert_eq!(seen.iter().filter(|(remote, _)| remote == "203.0.113.6:1000").count(), 30);
    assert_eq!(seen.last().unwrap().0, "[2001:db8::7]:1000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_verified_proxy_may_say_where_a_client_comes_from() {
    let stage = Stage::new().await;
    let anonymous = ClientTls { identity: None, ..stage.client("unused", SystemRole::Node).await };
    for tls in [stage.client("edge", SystemRole::Node).await, anonymous] {
        let proxy = stage.proxy(&tls, "203.0.113.6:1000".parse().unwrap()).await;
        let refused = stage.anonymous(&proxy).ping().await.unwrap_err();
        assert_eq!(refused.kind, ApiErrorKind::Unavailable); // I69
    }
    let refusals = stage.remotes("auth").await;
    assert_eq!(refusals.len(), 2);
    for (remote, error) in refusals {
        assert!(remote.starts_with("127.0.0.1:"), "{remote}");
        assert_eq!(error, "only a proxy may say where a client comes from");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_is_believed_once_and_a_client_inside_cannot_claim_again() {
    let stage = Stage::new().await;
    let tls = stage.client("proxy", SystemRole::Proxy).await;
    let outer = stage.proxy(&tls, "203.0.113.6:1000".parse().unwrap()).await;
    // Even with a proxy's own certificate the protocol is not spoken inside.
    let config = tls.to_cluster(&[SystemRole::Auth], ALPN_AUTH_RELAY).unwrap();
    let ended = match connect_tls(&outer, config).await {
        Ok(mut inner) => inner.read_u8().await.is_err(),
        Err(_) => true,
    };
    assert!(ended); // I69
    stage.anonymous(&outer).ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_in_a_link_is_led_on_when_it_begins_as_a_client_of_the_auth_service_does() {
    let stage = Stage::new().await;
    let tls = stage.client("proxy", SystemRole::Proxy).await;
    let source = "203.0.113.6:1000".parse().unwrap();
    let door = Arc::new(LinkDoor::new(AuthDoor::elsewhere(&stage.addr, &tls).unwrap()));
    let addr = listen(stage.stop.clone(), move |Connection { stream, admission, .. }| {
        let door = door.clone();
        async move {
            admission.authenticated();
            door.serve(Box::new(stream), source).await;
        }
    })
    .await;
    stage.anonymous(&addr).ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_else_in_a_link_reaches_a_proxy_through_which_the_auth_service_is_reached() {
    let stage = Stage::new().await;
    let tls = stage.client("edge", SystemRole::Node).await;
    let behind = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let door = AuthDoor::through_proxy(&behind.local_addr().unwrap().to_string());
    let door = Arc::new(LinkDoor::new(door));
    let serve = |octets: Vec<u8>| {
        let door = door.clone();
        let (near, mut far) = tokio::io::duplex(65_536);
        tokio::spawn(async move {
            far.write_all(&octets).await.unwrap();
            let _open = far;
            door.serve(Box::new(near), "203.0.113.6:1000".parse().unwrap()).await;
        })
    };

    let silent = serve(Vec::new());
    for alpn in [&[ALPN_SSH][..], &[ALPN_TUNNEL], &[ALPN_AUTH_RELAY], &["http/1.1"], &[], &[ALPN_AUTH, "http/1.1"]] {
        serve(client_hello(&tls, alpn)).await.unwrap(); // I13
    }
    serve(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()).await.unwrap();
    let honest = client_hello(&tls, &[ALPN_AUTH]);
    let led = serve(honest.clone());

    let (mut first, _) = behind.accept().await.unwrap();
    let mut seen = vec![0; honest.len()];
    first.read_exact(&mut seen).await.unwrap();
    assert!(seen == honest && !silent.is_finished() && !led.is_finished());
    silent.abort();
    led.abort();
}

/// What a client with that certificate says first.
fn client_hello(tls: &ClientTls, alpn: &[&str]) -> Vec<u8> {
    let mut config = (*tls.to_cluster(&[SystemRole::Auth], ALPN_AUTH).unwrap()).clone();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let mut client = rustls::ClientConnection::new(Arc::new(config), "auth".try_into().unwrap()).unwrap();
    let mut octets = Vec::new();
    client.write_tls(&mut octets).unwrap();
    octets
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_of_what_a_proxy_passes_on_ask_each_other_after_half_a_minute_of_silence() {
    let stage = Stage::new().await;
    let tls = stage.client("proxy", SystemRole::Proxy).await;
    let client = stage.anonymous(&stage.proxy(&tls, "203.0.113.6:1000".parse().unwrap()).await);
    client.ping().await.unwrap(); // and its connection is kept for the next call

    let port: u16 = stage.addr.rsplit_once(':').unwrap().1.parse().unwrap();
    let mut seen = Vec::new();
    let watched = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        // An acknowledgement may be under way still, which has a timer of its own.
        while seen.len() != 2 || !seen.iter().all(|wait| (0..=30).contains(wait)) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            seen = seconds_until_asked(port);
        }
    });
    assert!(watched.await.is_ok(), "{seen:?}");
}

/// Of each established socket with that port at either end: in how many seconds its other end is asked whether it is there, `-1` for never
/// (Linux, `Documentation/networking/proc_net_tcp.rst`: state 01, timer 02, hundredths of a second).
#[cfg(target_os = "linux")]
fn seconds_until_asked(port: u16) -> Vec<i64> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let hex = |text: &str| i64::from_str_radix(text, 16).unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let at = |address: &str| hex(address.rsplit_once(':').unwrap().1) == i64::from(port);
    let ours = rows.filter(|row| row[3] == "01" && (at(row[1]) || at(row[2])));
    ours.map(|row| match row[5].split_once(':').unwrap() {
        ("02", when) => hex(when) / 100,
        _ => -1,
    })
    .collect()
}
