//! Whole logins by OpenID Connect as people make them: a daemon of its own (auth service and proxy, as `remoteler_tests::binary` finds it), HTTPS for each step to
//! its one port, an identity provider in this process that the daemon asks over HTTPS, at a steady rate that does not wait for them. Prints how long they took
//! besides the provider's own time, counted from when each was due, and the processor time of the daemon. `--bench` (as `cargo bench` says) takes 30 s at 50 a
//! second; without it one second shows that it runs.

#[path = "sso/client.rs"]
mod client;
#[path = "sso/provider.rs"]
mod provider;

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use remoteler_core::{AnswerKey, LoginBegun, RedeemLogin, SealedCerts, Secret, wire};
use remoteler_tests::{Cluster, ClusterOptions, ProviderFiles, attribute};
use rustls::{ClientConfig, RootCertStore, ServerConfig, client::Resumption};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::Runtime,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use self::provider::Provider;

const RATE: u32 = 50;
const SECONDS: u32 = 30;
/// People who log in, one after the other, each from an address of their own.
const PEOPLE: u32 = 500;
/// The name of proxy and provider.
const HOST: &str = "localhost";

fn main() -> anyhow::Result<()> {
    let seconds = if env::args().any(|arg| arg == "--bench") { SECONDS } else { 1 };
    let dir = tempfile::tempdir()?;
    let files = ProviderFiles::make(dir.path());
    let runtime = Runtime::new()?;
    let provider = runtime.block_on(serve(&files))?;
    let mut cluster = start_cluster(&files, &provider.issuer);
    let world = Arc::new(World::new(&cluster, &files, provider.provider)?);
    let used = || processor_time(&mut cluster);
    runtime.block_on(run(world, seconds, used))
}

async fn run(
    world: Arc<World>,
    seconds: u32,
    mut used: impl FnMut() -> anyhow::Result<Duration>,
) -> anyhow::Result<()> {
    // What the provider publishes is asked for once.
    world.log_in(0).await?;
    let before = used()?;
    let begin = Instant::now();
    let mut running = JoinSet::new();
    for number in 0..RATE * seconds {
        let due = begin + Duration::from_secs(1) * number / RATE;
        sleep_until(due).await;
        let world = Arc::clone(&world);
        running.spawn(async move {
            let besides = world.log_in(number % PEOPLE).await?;
            anyhow::Ok(due.elapsed().saturating_sub(besides))
        });
    }
    let offered = begin.elapsed();
    let mut took = Vec::new();
    while let Some(one) = running.join_next().await {
        took.push(one??);
    }
    let all = begin.elapsed();
    let each = (used()? - before).as_secs_f64() * 1000.0 / f64::from(RATE * seconds);
    provider::print("sso_logins_https", took, offered, all);
    println!("sso_logins_https: {each:.1} ms of processor time of the daemon for each");
    Ok(())
}

/// Auth service and proxy in one process, with the connector `idp`.
fn start_cluster(files: &ProviderFiles, issuer: &str) -> Cluster {
    let web = format!(
        "  https_keypairs: [{{ key_file: {}, cert_file: {} }}]\n",
        files.key().display(),
        files.certificate().display()
    );
    let options = ClusterOptions {
        roles: "auth,proxy".into(),
        auth_config: "  authentication: { type: oidc }\n  identity_providers: { allow_internal_addresses: yes }\n"
            .into(),
        proxy_config: web.clone(),
        environment: vec![("SSL_CERT_FILE".into(), files.authority.display().to_string())],
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start_with(options);
    let port = cluster.proxy().rsplit(':').next().unwrap_or_default().to_owned();
    cluster.configure_proxy(&format!("{web}  public_addr: {HOST}:{port}\n"));
    cluster.kill_daemon();
    cluster.start_daemon();
    cluster.wait_ready();
    let connector = json!({
        "kind": "oidc", "version": "v3", "metadata": { "name": "idp" },
        "spec": {
            "issuer_url": issuer, "client_id": "remoteler", "client_secret": "s",
            "redirect_url": format!("https://{HOST}:{port}/web/callback/idp"),
            "claims_to_roles": [{ "claim": "groups", "value": "ssh-*", "roles": ["access"] }],
        },
    });
    cluster.tctl_with_input(&["create"], &connector.to_string()).ok();
    cluster
}

/// User and system time, in the kernel's hundredths of a second.
fn processor_time(cluster: &mut Cluster) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", cluster.daemon().id()))?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

struct Served {
    provider: Arc<Provider>,
    issuer: String,
}

/// The provider, on a port of its own.
async fn serve(files: &ProviderFiles) -> anyhow::Result<Served> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let issuer = format!("https://{HOST}:{}", listener.local_addr()?.port());
    let provider = Arc::new(Provider::new(issuer.clone())?);
    let key = PrivateKeyDer::from_pem_file(files.key())?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates(files.certificate())?, key)?;
    let (acceptor, answering) = (TlsAcceptor::from(Arc::new(config)), Arc::clone(&provider));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, provider) = (acceptor.clone(), Arc::clone(&answering));
            tokio::spawn(async move {
                tcp.set_nodelay(true)?;
                let stream = acceptor.accept(tcp).await?;
                let service = service_fn(move |request| answer(Arc::clone(&provider), request));
                server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
                anyhow::Ok(())
            });
        }
    });
    Ok(Served { provider, issuer })
}

async fn answer(provider: Arc<Provider>, request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let answer = Response::builder();
    Ok(match provider.answer(&path, &body) {
        Some(value) => answer.body(Full::from(value.to_string()))?,
        None => answer.status(StatusCode::BAD_REQUEST).body(Full::default())?,
    })
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?)
}

/// Where people log in.
struct World {
    provider: Arc<Provider>,
    proxy: SocketAddr,
    origin: String,
    tls: TlsConnector,
}

/// A connection to the proxy.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    origin: String,
}

impl World {
    fn new(cluster: &Cluster, files: &ProviderFiles, provider: Arc<Provider>) -> anyhow::Result<Self> {
        let proxy: SocketAddr = cluster.proxy().parse()?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&files.authority)?);
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // They are different machines and programs: none knows the TLS session of another.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let origin = format!("https://{HOST}:{}", proxy.port());
        Ok(Self { provider, proxy, origin, tls: TlsConnector::from(Arc::new(config)) })
    }

    async fn connect(&self, person: u32) -> anyhow::Result<Connection> {
        let [_, a, b, c] = person.to_be_bytes();
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::new(127, a.saturating_add(1), b, c), 0).into())?;
        let tcp = socket.connect(self.proxy).await?;
        tcp.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::try_from(HOST)?, tcp).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, origin: self.origin.clone() })
    }

    /// One call of `tsh`, which has a connection for each.
    async fn call<T: DeserializeOwned>(&self, person: u32, path: &str, request: &impl Serialize) -> anyhow::Result<T> {
        let mut connection = self.connect(person).await?;
        let body = serde_json::to_string(request)?;
        let (status, _, text) = connection.send(Method::POST, path, "application/json", "", body).await?;
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// One person's login; how long the provider took for it.
    async fn log_in(&self, person: u32) -> anyhow::Result<Duration> {
        let key = AnswerKey::generate()?;
        let begun: LoginBegun = self.call(person, wire::WEB_LOGINS, &client::begin(&key)?).await?;

        let mut browser = self.connect(person).await?;
        let (_, headers, text) = browser.get(&format!("/web/login/{}", begun.id), "").await?;
        let cookie = text_of(&headers, header::SET_COOKIE.as_str()).with_context(|| format!("no cookie: {text}"))?;
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        let to = text_of(&headers, header::LOCATION.as_str()).context("the browser is not sent away")?;
        let (code, params) = self.provider.authorize(&to, person)?;
        let params: Vec<_> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let back = format!("/web/callback/idp?{}", params.join("&").replace("https://", "https%3A%2F%2F"));
        let (_, headers, text) = browser.get(&back, &cookie).await?;
        let confirm = text_of(&headers, header::LOCATION.as_str()).with_context(|| format!("not believed: {text}"))?;
        let (_, _, page) = browser.get(&confirm, &cookie).await?;
        let token = attribute(&page, "name=\"token\" value=\"").with_context(|| format!("no form: {page}"))?;
        let form = format!("token={token}&decision=approve");
        let (_, _, page) =
            browser.send(Method::POST, &confirm, "application/x-www-form-urlencoded", &cookie, form).await?;
        let Some((_, answer)) = attribute(&page, "content=\"0;url=").and_then(|url| {
            url.split_once("answer=").map(|(listener, answer)| (listener.to_owned(), answer.to_owned()))
        }) else {
            bail!("there is no answer: {page}")
        };

        let (grant, follow) = key.open(&begun.id, &answer)?;
        let grant = Secret::new(std::str::from_utf8(&grant)?);
        let redeem = RedeemLogin { id: begun.id.clone(), secret: begun.secret.clone(), grant, client_addr: None };
        let sealed: SealedCerts = self.call(person, wire::WEB_LOGIN_REDEEM, &redeem).await?;
        client::received(&follow.open(&sealed.sealed)?)?;
        Ok(self.provider.time_for(&code))
    }
}

impl Connection {
    async fn get(&mut self, path: &str, cookie: &str) -> anyhow::Result<(StatusCode, HeaderMap, String)> {
        self.send(Method::GET, path, "", cookie, String::new()).await
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        kind: &str,
        cookie: &str,
        body: String,
    ) -> anyhow::Result<(StatusCode, HeaderMap, String)> {
        let host = self.origin.trim_start_matches("https://").to_owned();
        let mut request = Request::builder().method(&method).uri(path).header(header::HOST, host);
        if method == Method::POST {
            request = request.header(header::ORIGIN, &self.origin).header(header::CONTENT_TYPE, kind);
        }
        if !cookie.is_empty() {
            request = request.header(header::COOKIE, cookie);
        }
        let (head, body) = self.sender.send_request(request.body(Full::from(body))?).await?.into_parts();
        let text = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
        Ok((head.status, head.headers, text))
    }
}

fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
