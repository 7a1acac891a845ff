//! Ways out of networks that do not let everything pass, over real sockets: an HTTP proxy that clients are obliged to use, and a balancer
//! that ends TLS and understands only HTTP.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use remoteler_core::SystemRole;
use remoteler_tunnel::testkit::Authorities;
use remoteler_tunnel::{
    AdmissionLimits, Agent, CARRIER_PATH, ConnectError, Connection, Limits, Offer, ProxyDialer, SharedTlsIdentity, Way,
    WayMemory, Ways, Wire, accept_carrier, carried, web_server_config,
};
use support::{Echo, Proxy, connected};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// An HTTP proxy that speaks CONNECT and wants a password; what it was asked for.
async fn connect_proxy(password: &'static str) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = asked.clone();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let asked = kept.clone();
            let answer = service_fn(move |mut request: Request<Incoming>| {
                let asked = asked.clone();
                async move {
                    let place = request.uri().authority().unwrap().to_string();
                    let shown = request.headers().get("proxy-authorization");
                    let status = match (request.method(), shown) {
                        (&Method::CONNECT, Some(shown)) if shown == password => StatusCode::OK,
                        (&Method::CONNECT, _) => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
                        _ => StatusCode::METHOD_NOT_ALLOWED,
                    };
                    asked.lock().unwrap().push(format!("{} {place}", status.as_u16()));
                    if status == StatusCode::OK {
                        tokio::spawn(async move {
                            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
                            // The name is one of no network: only this proxy knows where it leads.
                            let place = place.replace("proxy.invalid", "127.0.0.1");
                            let mut far = TcpStream::connect(place).await.unwrap();
                            let _ = copy_bidirectional(&mut TokioIo::new(upgraded), &mut far).await;
                        });
                    }
                    let mut response = Response::new(Empty::<Bytes>::new());
                    *response.status_mut() = status;
                    Ok::<_, std::convert::Infallible>(response)
                }
            });
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer);
            tokio::spawn(serving.with_upgrades());
        }
    });
    (address, asked)
}

/// A balancer with a certificate of its own in front of `proxy`: whatever is no HTTP request over its TLS does not pass.
async fn balancer(proxy: Arc<Proxy>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let strangers = Authorities::new("elsewhere");
    let certificate = strangers.host(&strangers.host_identity("balancer", &[SystemRole::Proxy]));
    let tls = TlsAcceptor::from(web_server_config(&SharedTlsIdentity::new(certificate)).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = asked.clone();
    tokio::spawn(async move {
        loop {
            let (socket, source) = listener.accept().await.unwrap();
            let (tls, proxy, asked) = (tls.clone(), proxy.clone(), kept.clone());
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(socket).await else {
                    asked.lock().unwrap().push("no HTTP".to_owned());
                    return;
                };
                let answer = service_fn(move |mut request: Request<Incoming>| {
                    let (proxy, asked) = (proxy.clone(), asked.clone());
                    async move {
                        asked.lock().unwrap().push(request.uri().path().to_owned());
                        let answer = accept_carrier(&request).expect("it asks for a WebSocket");
                        tokio::spawn(async move {
                            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
                            let stream = Wire::Inside(Box::new(carried(TokioIo::new(upgraded)).await));
                            let admission = proxy.admissions.admit(source.ip()).unwrap();
                            proxy.handle(Connection { stream, source, admission }).await;
                        });
                        Ok::<_, std::convert::Infallible>(answer.map(|()| Empty::<Bytes>::new()))
                    }
                });
                let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                let _ = serving.with_upgrades().await;
            });
        }
    });
    (address, asked)
}

fn agent_by(proxy: &Proxy, address: String, ways: Ways) -> Agent {
    let host = proxy.authorities.host_identity("edge", &[SystemRole::Node], &[]);
    let offer = Offer { ssh: Some(host.name.clone()), ..Offer::default() };
    let mut config = proxy.agent_config(host, offer, "127.0.0.1:1".parse().unwrap(), Arc::new(Echo));
    config.proxy = address;
    config.ways = ways;
    config.limits = Limits::client();
    Agent::start(config)
}

async fn says_back(proxy: &Proxy) {
    let mut stream = proxy.dial("edge").await.unwrap();
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let (writing, mut back) = (sent.clone(), Vec::new());
    let writes = async {
        writer.write_all(&writing).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let (read, ()) = tokio::join!(reader.read_to_end(&mut back), writes);
    read.unwrap();
    assert!(back == sent, "{} octets came back", back.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_through_an_http_proxy_with_its_password_and_the_name_is_resolved_there() {
    let proxy = Proxy::start(AdmissionLimits::default()).await;
    // "ann:secret" in base64.
    let (via, asked) = connect_proxy("Basic YW5uOnNlY3JldA==").await;
    let dialer = ProxyDialer::new(&format!("http://ann:secret@{via}"), "").unwrap();
    let target = format!("proxy.invalid:{}", proxy.address.port());

    let agent = agent_by(&proxy, target.clone(), Ways::through(Arc::new(dialer)));

    connected(&agent).await;
    says_back(&proxy).await;
    assert_eq!(*asked.lock().unwrap(), [format!("200 {target}")]);
}

#[tokio::test]
async fn an_http_proxy_that_refuses_is_named_without_its_password() {
    let (via, _) = connect_proxy("Basic nobody").await;
    let dialer = ProxyDialer::new(&format!("http://ann:secret@{via}"), "").unwrap();
    let authorities = support::Authorities::new("root");
    let tls = authorities.client_tls(None, support::clock()).to_cluster(&[SystemRole::Proxy], "remoteler-tunnel");
    let refused = Ways::through(Arc::new(dialer)).connect("proxy.invalid:1", tls.unwrap()).await.unwrap_err();

    assert!(matches!(refused, ConnectError::HttpProxy { .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains(&via.to_string()) && !text.contains("secret"), "{text}");
}

#[derive(Default)]
struct Memory(Mutex<Vec<(String, Way)>>);

impl WayMemory for Memory {
    fn recall(&self, address: &str) -> Option<Way> {
        self.0.lock().unwrap().iter().rev().find(|(known, _)| known == address).map(|(_, way)| *way)
    }
    fn remember(&self, address: &str, way: Way) {
        self.0.lock().unwrap().push((address.to_owned(), way));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_balancer_that_ends_tls_an_agent_takes_the_websocket_by_itself_and_remembers_it() {
    let proxy = Arc::new(Proxy::start(AdmissionLimits::default()).await);
    let (address, asked) = balancer(proxy.clone()).await;
    let memory = Arc::new(Memory::default());
    let ways = Ways::default().or_websocket(memory.clone());

    let agent = agent_by(&proxy, address.to_string(), ways.clone());
    connected(&agent).await;
    says_back(&proxy).await;
    // Each is told by the task of its own connection, in any order.
    let asked = || {
        let mut asked = asked.lock().unwrap().clone();
        asked.sort();
        asked
    };
    assert_eq!(asked(), [CARRIER_PATH, "no HTTP"]);
    assert_eq!(memory.recall(&address.to_string()), Some(Way::WebSocket));
    agent.shutdown(Duration::ZERO).await;

    let agent = agent_by(&proxy, address.to_string(), ways);
    connected(&agent).await;
    assert_eq!(asked(), [CARRIER_PATH, CARRIER_PATH, "no HTTP"], "what worked is tried first");
}

#[tokio::test]
async fn where_no_way_leads_the_error_is_that_of_the_straight_one() {
    let strangers = Authorities::new("elsewhere");
    let certificate = strangers.host(&strangers.host_identity("web", &[SystemRole::Proxy]));
    let tls = TlsAcceptor::from(web_server_config(&SharedTlsIdentity::new(certificate)).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = tls.accept(socket).await {
                    let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    let authorities = support::Authorities::new("root");
    let tls = authorities.client_tls(None, support::clock()).to_cluster(&[SystemRole::Proxy], "remoteler-tunnel");
    let ways = Ways::default().or_websocket(Arc::new(Memory::default()));

    let refused = ways.connect(&address, tls.unwrap()).await.unwrap_err();

    assert!(matches!(refused, ConnectError::Handshake { .. }), "{refused}");
}
