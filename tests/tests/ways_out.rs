//! A daemon in networks that do not let everything pass: it joins, calls the auth service and keeps its link through an HTTP proxy, through a
//! balancer that ends TLS, over IPv6 alone, and by a name that leads elsewhere later.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, OnceLock},
};

use remoteler_tests::{Cluster, ClusterOptions, EchoSession, Edge, Path, User, eventually, need, run};
use rustls::{
    ClientConfig, ServerConfig,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn is_reached(user: &User, host: &str) {
    eventually("the edge node is reached", || {
        let out = run(user.openssh("ssh").args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", host, "echo up"]));
        if out.text() == "up\n" { Ok(()) } else { Err(out.stderr) }
    });
}

/// What a way was asked for, oldest first.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    fn add(&self, what: &str) {
        self.0.lock().unwrap().push(what.to_owned());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// An HTTP proxy that speaks CONNECT and nothing else. It alone knows where `proxy.invalid` is.
fn connect_proxy() -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Asked::default());
    let kept = asked.clone();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let asked = kept.clone();
            std::thread::spawn(move || drop(serve_connect(near, &asked)));
        }
    });
    (address, asked)
}

fn serve_connect(mut near: TcpStream, asked: &Asked) -> std::io::Result<()> {
    // Nothing is behind the head before it is answered.
    let mut lines = BufReader::new(near.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    asked.add(&first);
    let place = first.strip_prefix("CONNECT ").and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
    let Some(place) = place else { return near.write_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n") };
    let far = TcpStream::connect(place.replace("proxy.invalid", "127.0.0.1"))?;
    near.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut from, mut to) = (near.try_clone()?, far.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut &far, &mut near);
    near.shutdown(Shutdown::Both)
}

#[test]
fn a_daemon_joins_calls_and_keeps_its_link_through_an_http_proxy_that_alone_knows_the_way() {
    if !need(&["ssh"]) {
        return;
    }
    let (via, asked) = connect_proxy();
    let port_of = |cluster: &Cluster| cluster.proxy().rsplit(':').next().unwrap().to_owned();
    let cluster = Cluster::start();
    let target = format!("proxy.invalid:{}", port_of(&cluster));
    let variable = format!("HTTPS_PROXY=http://{via}");

    let edge = Edge::launch(&cluster, "edge-1", &target, &[], &["env", "-u", "NO_PROXY", &variable]);
    edge.wait_connected();

    let ann = cluster.user("ann", "access");
    is_reached(&ann, "edge-1");
    let asked = asked.all();
    // The join, the calls, and the link; the proxy's name is one of no network.
    assert!(asked.len() >= 3, "{asked:?}");
    assert!(asked.iter().all(|line| *line == format!("CONNECT {target} HTTP/1.1")), "{asked:?}");
    assert_eq!(cluster.event("instance.join", |event| event["node_name"] == "edge-1")["success"], true);
}

#[test]
fn a_daemon_goes_straight_to_a_proxy_that_no_proxy_names() {
    if !need(&["ssh"]) {
        return;
    }
    let (via, asked) = connect_proxy();
    let cluster = Cluster::start();
    let variable = format!("HTTPS_PROXY=http://{via}");

    let wrapper = ["env", &variable, "NO_PROXY=localhost,127.0.0.0/8"];
    let edge = Edge::launch(&cluster, "edge-1", cluster.proxy(), &[], &wrapper);
    edge.wait_connected();

    is_reached(&cluster.user("ann", "access"), "edge-1");
    assert_eq!(asked.all(), [""; 0]);
}

/// A balancer with a certificate of its own: what is no HTTP over its TLS does not pass, and to the proxy it speaks TLS of its own.
struct Balancer {
    address: SocketAddr,
    asked: Asked,
    to: Arc<OnceLock<String>>,
    _runtime: tokio::runtime::Runtime,
}

impl Balancer {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let made = rcgen::generate_simple_self_signed(["balancer.example.com".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let mut server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut client = client.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (acceptor, connector) = (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Asked::default());
        let to: Arc<OnceLock<String>> = Arc::default();
        let (kept, known) = (asked.clone(), to.clone());
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, connector, asked, to) =
                    (acceptor.clone(), connector.clone(), kept.clone(), known.clone());
                tokio::spawn(async move {
                    let Ok(near) = acceptor.accept(socket).await else { return asked.add("no HTTP") };
                    let Some(to) = to.get() else { return };
                    let Ok(far) = tokio::net::TcpStream::connect(to).await else { return };
                    let name = ServerName::try_from("proxy.example.com").unwrap();
                    let Ok(far) = connector.connect(name, far).await else { return };
                    let _ = balance(near, far, &asked).await;
                });
            }
        });
        Self { address, asked, to, _runtime: runtime }
    }
}

/// Passes one request on, and what follows it when it is upgraded.
async fn balance<N, F>(mut near: N, mut far: F, asked: &Asked) -> std::io::Result<()>
where
    N: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    F: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16_384 {
        head.push(near.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head);
    asked.add(text.lines().next().unwrap_or_default());
    far.write_all(&head).await?;
    far.flush().await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await.map(drop)
}

/// A balancer does not look at who is behind it.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn behind_a_balancer_that_ends_tls_a_daemon_joins_and_is_reached_over_websockets_and_remembers_that() {
    if !need(&["ssh"]) {
        return;
    }
    let balancer = Balancer::start();
    let proxy_config = format!("  public_addr: \"{}\"\n", balancer.address);
    let cluster = Cluster::start_with(ClusterOptions { proxy_config, ..ClusterOptions::default() });
    balancer.to.set(cluster.proxy().to_owned()).unwrap();

    let mut edge = Edge::launch(&cluster, "edge-1", &balancer.address.to_string(), &[], &[]);
    edge.wait_connected();

    let ann = cluster.user("ann", "access");
    is_reached(&ann, "edge-1");
    let mut session = EchoSession::open(&ann, "edge-1");
    session.says_again(&"a word ".repeat(2000).trim_end().replace(' ', "-"));
    session.end();
    let asked = balancer.asked.all();
    assert!(asked.iter().any(|line| line == "GET /v1/connect HTTP/1.1"), "{asked:?}");
    let refused = |asked: &[String]| asked.iter().filter(|line| *line == "no HTTP").count();
    assert!(refused(&asked) > 0, "the straight way is tried first: {asked:?}");

    // Started again, it does not try what did not work here.
    edge.restart();
    eventually("the edge node comes back", || {
        let carried = balancer.asked.all().len() > asked.len();
        if carried { Ok(()) } else { Err("nothing came over the balancer".into()) }
    });
    edge.wait_connected();
    is_reached(&ann, "edge-1");
    let later = balancer.asked.all();
    assert_eq!(refused(&later), refused(&asked), "{later:?}");
}

#[test]
fn a_daemon_joins_and_is_reached_where_there_is_ipv6_alone() {
    if !need(&["ssh"]) {
        return;
    }
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("SKIPPED: this machine has no IPv6");
        return;
    }
    let cluster = Cluster::start_with(ClusterOptions { listen_ip: "[::1]".into(), ..ClusterOptions::default() });
    assert!(cluster.proxy().starts_with("[::1]:"), "{}", cluster.proxy());
    let edge = cluster.edge("edge-1");
    let ann = cluster.user("ann", "access");
    is_reached(&ann, "edge-1");
    let tunnels = edge.status().unwrap()["tunnels"].clone();
    assert!(tunnels.as_object().unwrap().keys().all(|address| address.starts_with("[::1]:")), "{tunnels}");
}

#[test]
fn a_proxys_name_is_resolved_again_for_each_attempt_so_that_a_session_follows_it_to_another_address() {
    if !need(&["ssh", "unshare", "mount"]) {
        return;
    }
    let cluster = Cluster::start();
    let hosts = cluster.dir().join("hosts");
    let leads_to = |address: &str| std::fs::write(&hosts, format!("127.0.0.1 localhost\n{address} proxy.test\n"));
    leads_to("127.0.0.2").unwrap();
    // In a mount namespace of its own, so that the machine's own file stays as it is.
    let bind = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
    let wrapper = ["unshare", "--mount", "sh", "-c", &bind, "sh"];
    if run(std::process::Command::new("unshare").args(&wrapper[1..]).arg("true")).code != Some(0) {
        eprintln!("SKIPPED: mount namespaces cannot be made here");
        return;
    }
    let before = Path::between("127.0.0.2:0".parse().unwrap(), cluster.proxy());
    let port = before.address().port();
    let after = Path::between(SocketAddr::from(([127, 0, 0, 3], port)), cluster.proxy());
    let edge = Edge::launch(&cluster, "edge-1", &format!("proxy.test:{port}"), &[], &wrapper);
    edge.wait_connected();
    let ann = cluster.user("ann", "access");
    is_reached(&ann, "edge-1");
    let mut session = EchoSession::open(&ann, "edge-1");
    assert!(before.taken() > 0 && after.taken() == 0, "{} {}", before.taken(), after.taken());

    leads_to("127.0.0.3").unwrap();
    assert!(before.close() > 0);

    session.says_again("from another address");
    assert!(after.taken() > 0);
    session.end();
}
