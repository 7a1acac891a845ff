//! What a proxy has of a browser's session with an app is worth nothing at the app's service when the session has ended, by whatever proxy it comes (I50, I51).
//! Here the proxy that was taken over is the test: it asks for a certificate as a proxy does, and goes to the service by the honest one.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use remoteler_client::{AuthTrust, HostState, KeyPairs, RemoteAuth};
use remoteler_core::{AppCertificateRequest, AppName, AuthApi, ClusterName, Secret, SystemClock, SystemRole};
use remoteler_tests::{Browser, Cluster, ClusterOptions, EchoApp, attribute, need};
use remoteler_tunnel::{ClientTls, SharedTlsIdentity, TlsIdentity};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const LIMIT: Duration = Duration::from_secs(60);

/// A cluster whose proxy is reached at `proxy.localhost`, with the app `echo`.
struct World {
    cluster: Cluster,
    app: EchoApp,
    port: String,
}

/// Somebody with a browser.
struct Person {
    browser: Browser,
    name: &'static str,
    password: String,
}

impl World {
    fn start() -> Self {
        let app = EchoApp::start();
        let extra_config = format!("app_service:\n  apps:\n    - {{ name: echo, uri: \"{}\" }}\n", app.uri());
        let mut cluster = Cluster::start_with(ClusterOptions { extra_config, ..ClusterOptions::default() });
        let port = cluster.proxy().rsplit(':').next().unwrap().to_owned();
        cluster.configure_proxy(&format!("  public_addr: \"proxy.localhost:{port}\"\n"));
        cluster.kill_daemon();
        cluster.start_daemon();
        cluster.wait_ready();
        Self { cluster, app, port }
    }

    fn person(&self, name: &'static str) -> Person {
        let password = format!("correct horse battery {name}");
        self.cluster.tctl(&["users", "add", name, "--roles", "access", "--logins", name]).ok();
        self.cluster.tctl_with_input(&["users", "passwd", name], &format!("{password}\n")).ok();
        Person { browser: Browser::new(self.cluster.dir(), name), name, password }
    }

    /// Sends a form of the account page.
    fn form(&self, person: &Person, form: &str) -> String {
        let account = format!("https://proxy.localhost:{}/web/account", self.port);
        let page = person.browser.get(&account);
        let (_, form_of) = page.split_once(&format!("/web/account/{form}\"")).unwrap_or_else(|| panic!("{page}"));
        let csrf = attribute(form_of, "name=\"csrf\" value=\"").unwrap_or_else(|| panic!("{page}"));
        person.browser.post(&format!("{account}/{form}"), &[("csrf", &csrf)])
    }

    /// Logs in and opens the app; what the cookie there says.
    fn open(&self, person: &Person) -> Secret {
        let onward = self.form(person, "login");
        let path = attribute(&onward, "url=").unwrap_or_else(|| panic!("{onward}"));
        let login = format!("https://proxy.localhost:{}{path}", self.port);
        let page = person.browser.get(&login);
        let token = attribute(&page, "name=\"token\" value=\"").unwrap_or_else(|| panic!("{page}"));
        let fields = [("token", token.as_str()), ("user", person.name), ("password", &person.password), ("code", "")];
        let _ = person.browser.post(&format!("{login}/local"), &fields);
        let opened = person.browser.get(&format!("https://echo.proxy.localhost:{}/echo", self.port));
        let jar = std::fs::read_to_string(self.cluster.dir().join(format!("{}.jar", person.name))).unwrap();
        let cookie = jar.lines().find_map(|line| line.split_once("\t__Host-remoteler-app\t"));
        Secret::new(cookie.unwrap_or_else(|| panic!("{opened}\n{jar}")).1)
    }

    /// What a proxy is given for the session of this cookie, with a key of its own.
    async fn certified(&self, secret: Secret) -> Arc<SharedTlsIdentity> {
        let host = HostState::load(&self.cluster.data_dir()).unwrap().unwrap();
        let own = SharedTlsIdentity::new(host.tls_client_identity().unwrap());
        let trust = AuthTrust::Bundle(host.trust().clone());
        let auth = RemoteAuth::tls(self.cluster.auth(), Some(own), trust).unwrap();
        let keys = KeyPairs::generate("proxy").unwrap();
        let (app, tls_public_key) = (AppName::new("echo").unwrap(), Some(keys.tls_public));
        let request = AppCertificateRequest { secret, app, tls_public_key, in_use: true };
        let pem = auth.app_certificate(request).await.unwrap().certificate.unwrap();
        SharedTlsIdentity::new(TlsIdentity::from_pem(pem.as_bytes(), keys.tls_private.reveal().as_bytes()).unwrap())
    }

    /// Sends a request by the honest proxy to the app's service; what comes is read from the stream.
    async fn send(&self, identity: &Arc<SharedTlsIdentity>, head: &str) -> TlsStream<TcpStream> {
        let host = HostState::load(&self.cluster.data_dir()).unwrap().unwrap();
        let trust = Arc::new(host.trust().clone());
        let tls = ClientTls { identity: Some(identity.clone()), trust, clock: Arc::new(SystemClock) };
        let connector = TlsConnector::from(tls.to_cluster(&[SystemRole::App], "http/1.1").unwrap());
        let name = AppName::new("echo").unwrap().server_name(&ClusterName::new(Cluster::NAME).unwrap());
        let tcp = TcpStream::connect(self.cluster.proxy()).await.unwrap();
        let mut stream = connector.connect(ServerName::try_from(name).unwrap(), tcp).await.unwrap();
        let request = head.replace("HOST", &format!("Host: echo.proxy.localhost:{}", self.port));
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }
}

/// Reads until this was said.
async fn hears(stream: &mut TlsStream<TcpStream>, expected: &str) {
    let (mut heard, mut octets) = (String::new(), [0; 4096]);
    while !heard.contains(expected) {
        let count = timeout(LIMIT, stream.read(&mut octets)).await.unwrap().unwrap();
        assert!(count > 0, "it ended before it said {expected:?}, after:\n{heard}");
        heard.push_str(&String::from_utf8_lossy(&octets[..count]));
    }
}

/// Reads for as long as a session is asked for once more.
async fn goes_on(stream: &mut TlsStream<TcpStream>) {
    let (mut octets, begun) = ([0; 4096], Instant::now());
    while begun.elapsed() < Duration::from_secs(4) {
        assert!(timeout(LIMIT, stream.read(&mut octets)).await.unwrap().unwrap() > 0, "it ended");
    }
}

/// Reads until it ends.
async fn ends(mut stream: TlsStream<TcpStream>) {
    let mut octets = [0; 4096];
    let end = async { while matches!(stream.read(&mut octets).await, Ok(1..)) {} };
    timeout(LIMIT, end).await.expect("it ends");
}

const EVENTS: &str = "GET /events HTTP/1.1\r\nHOST\r\n\r\n";
const SOCKET: &str = "GET /ws HTTP/1.1\r\nHOST\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

// I50, I51, I78
#[test]
fn what_a_proxy_kept_of_a_session_ends_at_the_apps_service_within_seconds_of_the_logout_and_begins_nothing_more() {
    if !need(&["curl"]) {
        return;
    }
    let world = World::start();
    let (ann, bob) = (world.person("ann"), world.person("bob"));
    let cookies = [world.open(&ann), world.open(&bob)];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let [anns, bobs] = cookies;
        let (anns, bobs) = (world.certified(anns).await, world.certified(bobs).await);
        let mut events = world.send(&anns, EVENTS).await;
        let mut socket = world.send(&anns, SOCKET).await;
        let mut other = world.send(&bobs, EVENTS).await;
        hears(&mut events, "data: 1").await;
        hears(&mut socket, "tick").await;
        hears(&mut other, "data: 1").await;

        let _ = world.form(&ann, "logout");
        let out = Instant::now();
        tokio::join!(ends(events), ends(socket));
        assert!(out.elapsed() < Duration::from_secs(5), "{:?}", out.elapsed());

        let count = world.app.seen().len();
        let mut refused = world.send(&anns, "GET /echo HTTP/1.1\r\nHOST\r\n\r\n").await;
        hears(&mut refused, "HTTP/1.1 401").await;
        assert_eq!(world.app.seen().len(), count, "nothing of it was sent");

        // In another session what runs goes on, and more begins.
        let mut more = world.send(&bobs, "GET /echo HTTP/1.1\r\nHOST\r\n\r\n").await;
        hears(&mut more, "HTTP/1.1 200").await;
        goes_on(&mut other).await;
    });
    let ended = world.cluster.event("client.disconnect", |event| event["user"] == "ann");
    assert!(ended["reason"].as_str().unwrap().contains("the session with the application has ended"), "{ended}");
    assert!(world.cluster.events("client.disconnect").iter().all(|event| event["user"] != "bob"));
}
