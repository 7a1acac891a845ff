//! A cluster's authorities, identities and an inventory, for tests over real TLS on loopback.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "support of tests, each file uses its part")]

pub mod earlier;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use remoteler_core::{
    CaSet, ClusterName, HostId, HostIdentity, Identity, KubeClusterName, LiveWork, ManualClock, NodeName, NullAudit,
    OsEntropy, Policy, SharedPolicy, SystemRole, Timestamp, TrustBundle, UserIdentity, UserName, X509_IDENTITY_OID,
    x509_naming,
};
use remoteler_tunnel::{
    Admission, AdmissionLimits, Admissions, Agent, AgentConfig, AgentEvents, AgentSession, AgentState, AuthStreams,
    BoxedStream, ClientTls, CloseReason, Connection, DialError, DialHeader, DialReply, EXPORT_CHANNEL, EXPORT_KEYS,
    EarlierProcess, ExportsKeys, Inventory, Limits, Link, LinkState, Offer, OnePort, Place, REGISTRATION_METADATA,
    Refusal, RegistrationError, ReplayBudget, Replayed, ResumeKeys, Route, RouteHandler, Routed, Router, Serve,
    ServerTls, SharedTlsIdentity, Side, Socket, StreamService, Target, TargetKind, TargetName, TlsIdentity,
    TrustSource, TunnelServer, Ways, connect_tcp, read_dial, relay, serve, write_dial_reply,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// User and host authority of one cluster.
pub struct Authorities {
    pub cluster: ClusterName,
    pub user: CertifiedIssuer<'static, KeyPair>,
    pub host: CertifiedIssuer<'static, KeyPair>,
}

impl Authorities {
    pub fn new(cluster: &str) -> Self {
        Self { cluster: ClusterName::new(cluster).unwrap(), user: authority("user"), host: authority("host") }
    }

    pub fn trust(&self) -> TrustBundle {
        let set = |issuer: &CertifiedIssuer<'_, KeyPair>| CaSet { ssh: Vec::new(), x509: vec![issuer.der().to_vec()] };
        TrustBundle::new(self.cluster.clone(), set(&self.user), set(&self.host))
    }

    pub fn host_identity(&self, name: &str, roles: &[SystemRole], kube: &[&str]) -> HostIdentity {
        let mut id = [0; 16];
        id[..name.len().min(16)].copy_from_slice(&name.as_bytes()[..name.len().min(16)]);
        HostIdentity {
            id: HostId::from_uuid(uuid::Builder::from_random_bytes(id).into_uuid()),
            name: NodeName::new(name).unwrap(),
            cluster: self.cluster.clone(),
            roles: roles.iter().copied().collect(),
            kube_clusters: kube.iter().map(|name| KubeClusterName::new(name).unwrap()).collect(),
            apps: Default::default(),
            labels: Default::default(),
            generation: 0,
        }
    }

    /// A host's certificate, with the authority's in the chain.
    pub fn host(&self, identity: &HostIdentity) -> TlsIdentity {
        leaf(&self.host, &Identity::Host(identity.clone()))
    }

    /// A user's certificate, good until 2030.
    pub fn user(&self, name: &str) -> TlsIdentity {
        leaf(&self.user, &self.user_identity(name))
    }

    pub fn user_identity(&self, name: &str) -> Identity {
        Identity::User(UserIdentity {
            user: UserName::new(name).unwrap(),
            cluster: self.cluster.clone(),
            roles: BTreeSet::new(),
            traits: Default::default(),
            logins: Vec::new(),
        })
    }

    /// A proxy that believes `trust`.
    pub fn proxy_tls(&self, trust: Arc<dyn TrustSource>, clock: Arc<ManualClock>) -> ServerTls {
        let identity = self.host(&self.host_identity("proxy", &[SystemRole::Proxy], &[]));
        ServerTls { identity: SharedTlsIdentity::new(identity), trust, clock }
    }

    /// A client that shows `identity`.
    pub fn client_tls(&self, identity: Option<TlsIdentity>, clock: Arc<ManualClock>) -> ClientTls {
        ClientTls { identity: identity.map(SharedTlsIdentity::new), trust: Arc::new(self.trust()), clock }
    }

    pub fn target(&self, kind: TargetKind, name: &str) -> Target {
        Target { cluster: self.cluster.clone(), kind, name: TargetName::new(name).unwrap(), port: None }
    }
}

/// A certificate of `issuer` for `identity`, whether or not that fits.
pub fn leaf(issuer: &CertifiedIssuer<'static, KeyPair>, identity: &Identity) -> TlsIdentity {
    leaf_with_chain(issuer, identity, issuer)
}

/// The same, with the certificate of any authority behind it.
pub fn leaf_with_chain(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    identity: &Identity,
    shown: &CertifiedIssuer<'static, KeyPair>,
) -> TlsIdentity {
    let naming = x509_naming(identity);
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, naming.common_name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&X509_IDENTITY_OID, naming.extension)];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let chain = vec![certificate.der().clone(), shown.der().clone()];
    TlsIdentity::new(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap()
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// In 2026, while all certificates are good.
pub fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::parse("2026-06-01T00:00:00Z").unwrap()))
}

/// Says everything back.
pub struct Echo;

#[async_trait]
impl StreamService for Echo {
    async fn serve(&self, stream: BoxedStream, _header: DialHeader) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        // Ends when either side does.
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.shutdown().await;
    }
}

/// Knows where things are because it was told.
#[derive(Default)]
pub struct Told(pub Mutex<HashMap<String, Place>>);

#[async_trait]
impl Inventory for Told {
    async fn locate(&self, target: &Target) -> Result<Option<Place>, String> {
        Ok(self.0.lock().unwrap().get(target.name.as_str()).cloned())
    }
}

/// Keeps what it hears of agents.
#[derive(Default)]
pub struct Heard(pub Mutex<Vec<String>>);

#[async_trait]
impl AgentEvents for Heard {
    async fn connected(&self, agent: &AgentSession) -> Result<(), String> {
        self.0.lock().unwrap().push(format!("connected {}", agent.host.name));
        Ok(())
    }

    async fn disconnected(&self, agent: &AgentSession, _reason: &CloseReason) {
        self.0.lock().unwrap().push(format!("disconnected {}", agent.host.name));
    }

    async fn refused(&self, host: Option<&HostIdentity>, _source: SocketAddr, error: &RegistrationError) {
        let host = host.map(|host| host.name.to_string()).unwrap_or_default();
        self.0.lock().unwrap().push(format!("refused {host}: {error}"));
    }
}

/// Earlier processes of a proxy, and the auth service that it leads to.
type Beside = (Vec<Arc<dyn EarlierProcess>>, Option<Arc<dyn AuthStreams>>);

/// A proxy with its one port on loopback: agents' links, and SSH dials relayed to wherever the inventory says.
pub struct Proxy {
    pub authorities: Arc<Authorities>,
    pub clock: Arc<ManualClock>,
    pub address: SocketAddr,
    pub router: Arc<Router>,
    pub inventory: Arc<Told>,
    pub heard: Arc<Heard>,
    pub refusals: Arc<Mutex<Vec<String>>>,
    pub raw: Arc<Mutex<Vec<String>>>,
    pub admissions: Arc<Admissions>,
    pub policy: Arc<SharedPolicy>,
    pub tunnels: Arc<TunnelServer>,
    pub tls: ServerTls,
    port: Arc<OnePort<Handler>>,
    stop: CancellationToken,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Proxy {
    pub async fn start(limits: AdmissionLimits) -> Self {
        let (authorities, clock) = (Authorities::new("root"), clock());
        let tls = authorities.proxy_tls(Arc::new(authorities.trust()), clock.clone());
        Self::start_as(limits, Arc::new(authorities), clock, tls, (Vec::new(), None)).await
    }

    /// One that leads streams of agents to the auth service, if there is one.
    pub async fn leading_to(auth: Option<Arc<dyn AuthStreams>>) -> Self {
        let (authorities, clock) = (Authorities::new("root"), clock());
        let tls = authorities.proxy_tls(Arc::new(authorities.trust()), clock.clone());
        let limits = AdmissionLimits::default();
        Self::start_as(limits, Arc::new(authorities), clock, tls, (Vec::new(), auth)).await
    }

    /// The next process of the same proxy, on a port of its own, which knows of `earlier` ones.
    pub async fn next(&self, earlier: Vec<Arc<dyn EarlierProcess>>) -> Self {
        let limits = AdmissionLimits::default();
        Self::start_as(limits, self.authorities.clone(), self.clock.clone(), self.tls.clone(), (earlier, None)).await
    }

    async fn start_as(
        limits: AdmissionLimits,
        authorities: Arc<Authorities>,
        clock: Arc<ManualClock>,
        tls: ServerTls,
        (earlier, auth): Beside,
    ) -> Self {
        let inventory = Arc::new(Told::default());
        let heard = Arc::new(Heard::default());
        let router = Arc::new(Router::new(inventory.clone(), clock.clone(), HashMap::new()));
        let (refusals, raw) = (Arc::default(), Arc::default());
        let policy = Arc::new(SharedPolicy::new(Policy::new(authorities.trust(), Default::default())));
        let live = LiveWork::new(policy.clone(), clock.clone());
        tokio::spawn(remoteler_tunnel::enforce(live.clone(), Arc::new(NullAudit)));
        let tunnels = TunnelServer::new(router.clone(), heard.clone(), Limits::server()).living_by(live.clone());
        let tunnels = match auth {
            Some(auth) => tunnels.leading_to(auth),
            None => tunnels,
        };
        let tunnels = Arc::new(tunnels.after(earlier, TaskTracker::new()));
        let handler = Handler {
            router: router.clone(),
            tunnel: tunnels.clone(),
            refusals: Arc::clone(&refusals),
            raw: Arc::clone(&raw),
        };
        let web = tls.identity.clone();
        let one_port = Arc::new(OnePort::new(authorities.cluster.clone(), tls.clone(), &web, handler).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (admissions, stop) = (Admissions::new(limits), CancellationToken::new());
        let serving =
            Serve { listener, admissions: admissions.clone(), stop: stop.clone(), connections: TaskTracker::new() };
        let port = one_port.clone();
        tokio::spawn(serve(serving, move |connection| {
            let one_port = one_port.clone();
            async move { one_port.handle(connection).await }
        }));
        Self {
            authorities,
            clock,
            address,
            router,
            inventory,
            heard,
            refusals,
            raw,
            admissions,
            policy,
            tunnels,
            tls,
            port,
            stop,
        }
    }

    /// An agent of node `name` that reaches the proxy at `address`.
    pub fn agent(&self, name: &str, address: SocketAddr, service: Arc<dyn StreamService>) -> Agent {
        let host = self.authorities.host_identity(name, &[SystemRole::Node], &[]);
        let offer = Offer { ssh: Some(host.name.clone()), ..Offer::default() };
        self.agent_offering(host, offer, address, service)
    }

    pub fn agent_offering(
        &self,
        host: HostIdentity,
        offer: Offer,
        address: SocketAddr,
        service: Arc<dyn StreamService>,
    ) -> Agent {
        Agent::start(self.agent_config(host, offer, address, service))
    }

    /// What that agent is made of.
    pub fn agent_config(
        &self,
        host: HostIdentity,
        offer: Offer,
        address: SocketAddr,
        service: Arc<dyn StreamService>,
    ) -> AgentConfig {
        self.inventory.0.lock().unwrap().insert(host.name.to_string(), Place::Agent(host.id));
        AgentConfig {
            proxy: address.to_string(),
            connections: None,
            ways: Ways::default(),
            offer,
            services: [(TargetKind::Ssh, service)].into(),
            tls: self.authorities.client_tls(Some(self.authorities.host(&host)), self.clock.clone()),
            host,
            clock: self.clock.clone(),
            entropy: Arc::new(OsEntropy),
            limits: Limits::client(),
            replay: ReplayBudget::default(),
        }
    }

    /// Serves a connection that came in some other way than by its own port.
    pub async fn handle(&self, connection: Connection) {
        self.port.handle(connection).await;
    }

    /// A dial through the router, as the proxy's own services make it.
    pub async fn dial(&self, name: &str) -> Result<BoxedStream, DialError> {
        let target = self.authorities.target(TargetKind::Ssh, name);
        self.router.dial(&DialHeader::new(target, None)).await
    }

    /// A user's TLS connection for SSH, before the dial header.
    pub async fn user_stream(&self, alpn: &str) -> std::io::Result<TlsStream<Replayed<TcpStream>>> {
        let tls = self.authorities.client_tls(Some(self.authorities.user("ann")), self.clock.clone());
        let config = tls.to_cluster(&[SystemRole::Proxy], alpn).unwrap();
        let socket = connect_tcp(&self.address.to_string(), Duration::from_secs(10)).await.unwrap();
        TlsConnector::from(config).connect("root".try_into().unwrap(), Replayed::from(socket)).await
    }
}

/// A host's TLS connection for a tunnel, before anything is said on it.
pub async fn tls_stream(proxy: &Proxy, host: &HostIdentity) -> TlsStream<TcpStream> {
    let tls = proxy.authorities.client_tls(Some(proxy.authorities.host(host)), proxy.clock.clone());
    let config = tls.to_cluster(&[SystemRole::Proxy], "remoteler-tunnel").unwrap();
    let socket = connect_tcp(&proxy.address.to_string(), Duration::from_secs(10)).await.unwrap();
    TlsConnector::from(config).connect("root".try_into().unwrap(), socket).await.unwrap()
}

/// Registers an agent that a test plays itself.
pub async fn register(link: &Link, offer: &Offer) {
    link.ready().await.unwrap();
    let mut control = link.open(REGISTRATION_METADATA).unwrap();
    let message = serde_json::json!({ "v": remoteler_tunnel::DIAL_VERSION, "offer": offer }).to_string();
    control.write_all(&u16::try_from(message.len()).unwrap().to_be_bytes()).await.unwrap();
    control.write_all(message.as_bytes()).await.unwrap();
    let reply = remoteler_tunnel::read_dial_reply(&mut control).await.unwrap();
    assert_eq!(reply, DialReply::Connected);
    // It holds as long as its stream is open.
    tokio::spawn(async move { control.read_u8().await });
}

/// A link to `proxy` that a test plays itself, so that it knows the secret.
pub async fn own_link(proxy: &Proxy, host: &HostIdentity) -> (Link, ResumeKeys) {
    let stream = tls_stream(proxy, host).await;
    let keys = ResumeKeys::new(&stream.export(EXPORT_KEYS).unwrap());
    let link = Link::start_resumable(Box::new(stream), Side::Client, Limits::client(), ReplayBudget::default());
    let offer = Offer { ssh: Some(host.name.clone()), ..Offer::default() };
    register(&link, &offer).await;
    (link, keys)
}

/// Asks `proxy` for a link; the connection, and what it said: 0 where the link goes on.
pub async fn answer(
    proxy: &Proxy,
    host: &HostIdentity,
    keys: &ResumeKeys,
    attempt: u32,
    channel: Option<[u8; 32]>,
) -> (impl Sized + use<>, u8) {
    let mut stream = tls_stream(proxy, host).await;
    let channel = channel.unwrap_or_else(|| stream.export(EXPORT_CHANNEL).unwrap());
    stream.write_all(&keys.request(attempt, 0, &channel)).await.unwrap();
    let mut answer = vec![0; 9];
    stream.read_exact(&mut answer).await.unwrap();
    (stream, answer[8])
}

/// Asks `proxy` for `link` in every way that must be refused, and `refused` after each of them; then in the one that must not.
pub async fn only_its_own_agent_takes_it_up(
    proxy: &Proxy,
    (link, keys): &(Link, ResumeKeys),
    [host, other]: [&HostIdentity; 2],
    refused: impl AsyncFn(),
) {
    let ask = async |host, keys: &ResumeKeys, attempt, channel| {
        let (held, said) = answer(proxy, host, keys, attempt, channel).await;
        if said != 0 {
            refused().await;
        }
        drop(held);
        said == 0
    };
    assert!(!ask(other, keys, 1, None).await, "the secret without the certificate");
    assert!(!ask(host, &ResumeKeys::new(&[7; 48]), 1, None).await, "a link that is not known");
    let mut wrong = [7; 48];
    wrong[..16].copy_from_slice(&keys.id());
    assert!(!ask(host, &ResumeKeys::new(&wrong), 1, None).await, "the certificate without the secret");
    assert!(!ask(host, keys, 1, Some([0; 32])).await, "a proof made for another connection");
    assert!(matches!(link.state(), LinkState::Up), "none of them touched the link");
    assert!(ask(host, keys, 5, None).await);
    assert!(!ask(host, keys, 5, None).await && !ask(host, keys, 4, None).await, "an attempt counts once, and in order");
}

/// Waits until the agent can be dialled.
pub async fn connected(agent: &Agent) {
    agent.state().wait_for(|state| matches!(state, AgentState::Connected { .. })).await.unwrap();
}

struct Handler {
    router: Arc<Router>,
    tunnel: Arc<TunnelServer>,
    refusals: Arc<Mutex<Vec<String>>>,
    raw: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl RouteHandler for Handler {
    async fn serve(&self, connection: Routed, source: SocketAddr, admission: Admission) {
        match connection {
            Routed::Tunnel { stream, peer } => self.tunnel.serve(*stream, peer, source, admission).await,
            Routed::Ssh { mut stream, peer: _ } => {
                let Ok(header) = read_dial(&mut stream).await else { return };
                admission.authenticated();
                match self.router.dial(&header).await {
                    Ok(mut target) => {
                        write_dial_reply(&mut stream, &DialReply::Connected).await.unwrap();
                        relay(&mut stream, &mut target).await;
                    }
                    Err(error) => {
                        let reply = DialReply::Refused { code: error.code(), message: error.to_string() };
                        write_dial_reply(&mut stream, &reply).await.unwrap();
                        let _ = stream.shutdown().await;
                    }
                }
            }
            Routed::Auth(mut stream) => self.note_raw("auth", &mut stream).await,
            Routed::Kube { server_name, mut stream } | Routed::App { server_name, mut stream } => {
                self.note_raw(&server_name, &mut stream).await;
            }
            Routed::Web(mut stream) => {
                let _ = stream.write_all(b"web").await;
                let _ = stream.shutdown().await;
            }
        }
    }

    async fn refused(&self, _source: SocketAddr, route: Option<&Route>, refusal: &Refusal) {
        self.refusals.lock().unwrap().push(format!("{route:?}: {refusal}"));
    }
}

impl Handler {
    /// What arrives undecrypted must start with the ClientHello: a handshake record of TLS.
    async fn note_raw(&self, what: &str, stream: &mut Socket) {
        let first = stream.read_u8().await.unwrap();
        self.raw.lock().unwrap().push(format!("{what} {first}"));
    }
}

/// A relay between an agent and a proxy that can lose all connections at once.
pub struct FaultRelay {
    pub address: SocketAddr,
    to: Arc<Mutex<SocketAddr>>,
    connections: Arc<Mutex<Vec<tokio::task::AbortHandle>>>,
    accepting: tokio::task::AbortHandle,
    open: Arc<Mutex<watch::Sender<bool>>>,
}

/// Copies to the end, while the way is open.
async fn copy_while_open(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut open: watch::Receiver<bool>,
) {
    let mut octets = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut octets).await.unwrap_or(0);
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&octets[..count]).await.is_err() {
            return;
        }
        if count == 0 {
            let _ = to.shutdown().await;
            return;
        }
    }
}

impl FaultRelay {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<Mutex<Vec<tokio::task::AbortHandle>>> = Arc::default();
        let to = Arc::new(Mutex::new(to));
        let (kept, now) = (connections.clone(), to.clone());
        let open = Arc::new(Mutex::new(watch::Sender::new(true)));
        let ways = open.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (to, way) = (*now.lock().unwrap(), ways.lock().unwrap().subscribe());
                let copying = tokio::spawn(async move {
                    let far = TcpStream::connect(to).await.unwrap();
                    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                    let up = copy_while_open(from_near, to_far, way.clone());
                    tokio::join!(up, copy_while_open(from_far, to_near, way));
                });
                kept.lock().unwrap().push(copying.abort_handle());
            }
        });
        Self { address, to, connections, accepting: accepting.abort_handle(), open }
    }

    /// From now on connections lead to `address`; those that there are stay as they are.
    pub fn lead_to(&self, address: SocketAddr) {
        *self.to.lock().unwrap() = address;
    }

    /// Whether anything comes through: what does not, waits, and so does the end of a connection.
    pub fn let_through(&self, open: bool) {
        self.open.lock().unwrap().send_replace(open);
    }

    /// The same for the connections that there are now, until what is returned lets them; new ones come through.
    pub fn freeze(&self) -> watch::Sender<bool> {
        self.let_through(false);
        std::mem::replace(&mut *self.open.lock().unwrap(), watch::Sender::new(true))
    }

    /// Loses all connections; how many of them lived.
    pub fn cut(&self) -> usize {
        let connections = std::mem::take(&mut *self.connections.lock().unwrap());
        connections.into_iter().filter(|connection| !connection.is_finished()).inspect(|each| each.abort()).count()
    }
}

impl Drop for FaultRelay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// A client that is none of ours: believes anybody, shows no certificate, keeps every session it can.
pub fn browser(alpn: &[&str], versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Browser))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

#[derive(Debug)]
struct Browser;

impl ServerCertVerifier for Browser {
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
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
