//! A Kubernetes service of ours on a port of its own, with authorities, users and an audit log that a test can look into. No proxy and no
//! auth service: what is tried is the listener that stands before an API server.

use std::{
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use remoteler_core::{
    AuditError, AuditKind, AuditSink, CaSet, Clock, ClusterName, HostId, HostIdentity, Identity, KubeClusterName,
    Labels, LiveWork, ManualClock, NodeName, Policy, Role, RoleName, RoleSpec, SharedPolicy, SystemClock, SystemRole,
    Timestamp, TrustBundle, UserIdentity, UserName, X509_IDENTITY_OID, x509_naming,
};
use remoteler_kube::{KubeClusterConfig, KubeService, KubeServiceConfig, Upstream};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    sign::{CertifiedKey, SingleCertAndKey},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::ApiServer;

/// Which authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The cluster's authority of users.
    User,
    /// The cluster's authority of hosts.
    Host,
    /// Somebody's own.
    Stranger,
}

/// What a certificate is to say.
#[derive(Clone, Debug)]
pub struct Issue {
    /// Its holder.
    pub identity: Identity,
    /// Its authority.
    pub signer: Signer,
    /// Its beginning and end.
    pub valid: (Timestamp, Timestamp),
    /// What it is for.
    pub usage: ExtendedKeyUsagePurpose,
}

/// A certificate and its key.
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pem: (String, String),
}

/// Remembers events, or refuses them.
#[derive(Default)]
pub struct RecordedAudit {
    events: Mutex<Vec<AuditKind>>,
    broken: AtomicBool,
}

impl RecordedAudit {
    /// What was recorded so far.
    #[must_use]
    pub fn events(&self) -> Vec<AuditKind> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes nothing from now on.
    pub fn fail(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl AuditSink for RecordedAudit {
    async fn record(&self, kind: AuditKind) -> Result<(), AuditError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(AuditError("the test broke it".into()));
        }
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(kind);
        Ok(())
    }
}

impl Certificate {
    /// A TLS client that shows this certificate and believes `roots`.
    ///
    /// # Errors
    /// The certificate does not go with its key.
    pub fn client_config(&self, roots: RootCertStore, alpn: &str) -> anyhow::Result<ClientConfig> {
        client_config(Some(self), roots, alpn)
    }

    /// DER of it and of what is shown with it; itself first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

fn client_config(shown: Option<&Certificate>, roots: RootCertStore, alpn: &str) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match shown {
        Some(shown) => builder.with_client_auth_cert(shown.chain.clone(), shown.key.clone_key())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Ok(config)
}

type Authority = CertifiedIssuer<'static, KeyPair>;

/// The service and all around it. Kubernetes cluster `staging` has label `env: dev`, `production` has `env: prod`; both are the one API
/// server. Role `developer` may use `env: dev` as groups `developers` and `viewers`, role `nobody` may use it as no group.
pub struct KubeFixture {
    /// The audit log.
    pub audit: Arc<RecordedAudit>,
    /// The service's clock.
    pub clock: Arc<ManualClock>,
    /// What is under way; nothing of it ends unless a test looks.
    pub live: Arc<LiveWork>,
    /// The service's view of roles and authorities.
    pub policy: Arc<SharedPolicy>,
    /// The service.
    pub service: KubeService,
    /// Where it listens.
    pub addr: SocketAddr,
    dir: TempDir,
    cluster: ClusterName,
    user_authority: Authority,
    host_authority: Authority,
    stranger: Authority,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for KubeFixture {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl KubeFixture {
    /// Starts the service before `api_server`.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub async fn start(api_server: &ApiServer) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let kubeconfig = api_server.write_kubeconfig(dir.path())?;
        Self::before(dir, Upstream::from_kubeconfig(&kubeconfig, None)?).await
    }

    /// Starts the service before a double that lets it act as `ann`, who may what developers may; her certificate.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub async fn start_for_ann() -> anyhow::Result<(ApiServer, Self, Certificate)> {
        let api_server = ApiServer::start().await?;
        api_server.expect("ann", &["developers", "viewers"]);
        let fixture = Self::start(&api_server).await?;
        let ann = fixture.issue(&fixture.user("ann", &["developer"]))?;
        Ok((api_server, fixture, ann))
    }

    /// Starts the service before an API server that a kubeconfig file names.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub async fn start_before(upstream: Upstream) -> anyhow::Result<Self> {
        Self::before(tempfile::tempdir()?, upstream).await
    }

    async fn before(dir: TempDir, upstream: Upstream) -> anyhow::Result<Self> {
        let cluster = ClusterName::new("root.example.com")?;
        let (user_authority, host_authority, stranger) =
            (authority("user")?, authority("host")?, authority("stranger")?);
        let trust = TrustBundle::new(
            cluster.clone(),
            CaSet { ssh: Vec::new(), x509: vec![user_authority.der().to_vec()] },
            CaSet { ssh: Vec::new(), x509: vec![host_authority.der().to_vec()] },
        );
        let roles = [role("developer", &["developers", "viewers"])?, role("nobody", &[])?];
        let policy = Policy::new(trust, roles.into_iter().map(|role| (role.name().clone(), Arc::new(role))).collect());
        let names = [KubeClusterName::new("staging")?, KubeClusterName::new("production")?];
        let clusters = names.iter().zip(["dev", "prod"]).map(|(name, env)| KubeClusterConfig {
            name: name.clone(),
            labels: Labels::from([("env".into(), env.into())]),
            upstream: upstream.clone(),
        });
        let host_id = HostId::from_uuid(uuid::Uuid::new_v4());
        let config = KubeServiceConfig {
            cluster: cluster.clone(),
            host_id,
            clusters: clusters.collect(),
            version: "0.0.0".into(),
        };
        let identity = Identity::Host(HostIdentity {
            id: host_id,
            name: NodeName::new("kube-1")?,
            cluster: cluster.clone(),
            roles: [SystemRole::Kube].into(),
            kube_clusters: names.into_iter().collect(),
            apps: Default::default(),
            labels: Default::default(),
            generation: 0,
        });
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let valid = around(&clock);
        let host = issue(
            &host_authority,
            &Issue { identity, signer: Signer::Host, valid, usage: ExtendedKeyUsagePurpose::ServerAuth },
        )?;
        let key = rustls::crypto::ring::sign::any_supported_type(&host.key)?;
        let certified = SingleCertAndKey::from(CertifiedKey::new(host.chain, key));
        let (policy, audit) = (Arc::new(SharedPolicy::new(policy)), Arc::new(RecordedAudit::default()));
        let tls = remoteler_tunnel::judged_later(Arc::new(certified))?;
        let live = LiveWork::new(policy.clone(), clock.clone());
        let service = KubeService::new(config, tls, live.clone(), audit.clone(), clock.clone())?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, service.clone()));
        Ok(Self {
            audit,
            clock,
            live,
            policy,
            service,
            addr,
            dir,
            cluster,
            user_authority,
            host_authority,
            stranger,
            accepting,
        })
    }

    /// What a good certificate of user `name` with `roles` says.
    ///
    /// # Panics
    /// When a name is none.
    #[must_use]
    pub fn user(&self, name: &str, roles: &[&str]) -> Issue {
        let roles = roles.iter().map(|role| RoleName::new(role).expect("tests give role names")).collect();
        let identity = Identity::User(UserIdentity {
            user: UserName::new(name).expect("tests give user names"),
            cluster: self.cluster.clone(),
            roles,
            traits: remoteler_core::Traits::new(),
            logins: Vec::new(),
        });
        Issue { identity, signer: Signer::User, valid: around(&self.clock), usage: ExtendedKeyUsagePurpose::ClientAuth }
    }

    /// What the certificate of a host says, as a client would show it.
    ///
    /// # Panics
    /// Never: the name is one.
    #[must_use]
    pub fn host(&self) -> Issue {
        let identity = Identity::Host(HostIdentity {
            id: HostId::from_uuid(uuid::Uuid::new_v4()),
            name: NodeName::new("node-1").expect("the constant is a node name"),
            cluster: self.cluster.clone(),
            roles: [SystemRole::Node].into(),
            kube_clusters: std::collections::BTreeSet::new(),
            apps: Default::default(),
            labels: Default::default(),
            generation: 0,
        });
        Issue { identity, signer: Signer::Host, valid: around(&self.clock), usage: ExtendedKeyUsagePurpose::ClientAuth }
    }

    /// Signs.
    ///
    /// # Errors
    /// What cannot be encoded.
    pub fn issue(&self, what: &Issue) -> anyhow::Result<Certificate> {
        let signer = match what.signer {
            Signer::User => &self.user_authority,
            Signer::Host => &self.host_authority,
            Signer::Stranger => &self.stranger,
        };
        issue(signer, what)
    }

    /// The TLS server name of a Kubernetes cluster.
    ///
    /// # Panics
    /// When the name is none.
    #[must_use]
    pub fn server_name(&self, kube_cluster: &str) -> String {
        KubeClusterName::new(kube_cluster).expect("tests give cluster names").server_name(&self.cluster)
    }

    /// The URL's path of a Kubernetes cluster, without a `/` at its end.
    #[must_use]
    pub fn prefix(&self, kube_cluster: &str) -> String {
        format!("/v1/kube/{}/{kube_cluster}", self.cluster)
    }

    /// The beginning of a GET over HTTP/1.1 for `path` of the cluster `staging`.
    #[must_use]
    pub fn asking_for(&self, path: &str) -> http::request::Builder {
        Request::get(format!("{}{path}", self.prefix("staging"))).header("host", "proxy.example.com")
    }

    /// A TLS client that believes the cluster's hosts, with the protocol `alpn`.
    ///
    /// # Errors
    /// The certificate does not go with its key.
    pub fn client_config(&self, certificate: Option<&Certificate>, alpn: &str) -> anyhow::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.host_authority.der().clone())?;
        client_config(certificate, roots, alpn)
    }

    /// Connects to the service as `staging`'s client.
    ///
    /// # Errors
    /// No TCP or no TLS.
    pub async fn connect(&self, certificate: Option<&Certificate>, alpn: &str) -> anyhow::Result<TlsStream<TcpStream>> {
        self.connect_as(self.client_config(certificate, alpn)?, &self.server_name("staging")).await
    }

    /// Connects with a configuration and a server name of the test's own.
    ///
    /// # Errors
    /// No TCP or no TLS.
    pub async fn connect_as(&self, config: ClientConfig, server_name: &str) -> anyhow::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.addr).await?;
        let name = ServerName::try_from(server_name.to_owned())?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?)
    }

    /// Sends one request on a connection of its own and reads the whole answer.
    ///
    /// # Errors
    /// No connection or no answer.
    pub async fn send(
        &self,
        certificate: Option<&Certificate>,
        alpn: &str,
        request: Request<Bytes>,
    ) -> anyhow::Result<Response<Bytes>> {
        let stream = self.connect(certificate, alpn).await?;
        exchange(stream, alpn, request).await
    }

    /// `GET` of a path at the API server of `staging`, over HTTP/1.1.
    ///
    /// # Errors
    /// No connection or no answer.
    pub async fn get(&self, certificate: &Certificate, path: &str) -> anyhow::Result<Response<Bytes>> {
        self.send(Some(certificate), "http/1.1", self.asking_for(path).body(Bytes::new())?).await
    }

    /// Writes `head` as it is, over HTTP/1.1, and reads until the service closes or has said `enough`; at most 30 s.
    ///
    /// # Errors
    /// No connection.
    pub async fn raw(&self, certificate: &Certificate, head: &str, enough: &str) -> anyhow::Result<String> {
        let mut stream = self.connect(Some(certificate), "http/1.1").await?;
        stream.write_all(head.as_bytes()).await?;
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(Ok(count @ 1..)) = timeout(Duration::from_secs(30), stream.read(&mut buffer)).await {
            heard.extend_from_slice(&buffer[..count]);
            if String::from_utf8_lossy(&heard).contains(enough) {
                break;
            }
        }
        Ok(String::from_utf8_lossy(&heard).into_owned())
    }

    /// Writes a kubeconfig by which `kubectl` reaches `staging` as the holder of `certificate`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_kubeconfig(&self, certificate: &Certificate) -> io::Result<PathBuf> {
        let encode = |pem: &str| STANDARD.encode(pem);
        let (chain, key) = &certificate.pem;
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "staging",
            "contexts": [{"name": "staging", "context": {"cluster": "staging", "user": "me", "namespace": "dev"}}],
            "clusters": [{"name": "staging", "cluster": {
                "server": format!("https://{}{}", self.addr, self.prefix("staging")),
                "tls-server-name": self.server_name("staging"),
                "certificate-authority-data": encode(&self.host_authority.pem())}}],
            "users": [{"name": "me", "user": {"client-certificate-data": encode(chain), "client-key-data": encode(key)}}],
        });
        let path = self.dir.path().join(format!("user-{}.kubeconfig", uuid::Uuid::new_v4()));
        fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// A directory for the test's own files.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The `auth` events so far: who was refused, and why.
    #[must_use]
    pub fn refusals(&self) -> Vec<(String, String)> {
        let events = self.audit.events().into_iter();
        let refusals = events.filter_map(|event| {
            if let AuditKind::AuthAttempt { user, error, .. } = event { Some((user, error)) } else { None }
        });
        refusals.collect()
    }
}

/// Sends `request` on `stream` and reads the whole answer.
async fn exchange(
    stream: TlsStream<TcpStream>,
    alpn: &str,
    request: Request<Bytes>,
) -> anyhow::Result<Response<Bytes>> {
    let request = request.map(Full::new);
    let io = TokioIo::new(stream);
    let response = if alpn == "h2" {
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    };
    let (parts, body) = response.into_parts();
    Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
}

async fn accept(listener: TcpListener, service: KubeService) {
    let mut connections = JoinSet::new();
    while let Ok((stream, from)) = listener.accept().await {
        let service = service.clone();
        let _ = stream.set_nodelay(true);
        connections.spawn(async move { service.serve_stream(stream, Some(from.to_string())).await });
        while connections.try_join_next().is_some() {}
    }
}

fn around(clock: &ManualClock) -> (Timestamp, Timestamp) {
    let now = clock.now();
    (now.minus(Duration::from_secs(60)), now.plus(Duration::from_secs(3600)))
}

fn role(name: &str, groups: &[&str]) -> anyhow::Result<Role> {
    let spec: RoleSpec = serde_json::from_value(json!({
        "allow": {"kubernetes_groups": groups, "kubernetes_labels": {"env": "dev"}}
    }))?;
    Ok(Role::new(RoleName::new(name)?, &spec)?)
}

fn authority(name: &str) -> anyhow::Result<Authority> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("{name} authority"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn issue(authority: &Authority, what: &Issue) -> anyhow::Result<Certificate> {
    let naming = x509_naming(&what.identity);
    let names = match &what.identity {
        Identity::Host(host) => host.dns_names(),
        Identity::User(_) | Identity::KubeUser(_) | Identity::ProvenUser(_) | Identity::AppUser(_) => Vec::new(),
    };
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, naming.common_name);
    params.extended_key_usages = vec![what.usage.clone()];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&X509_IDENTITY_OID, naming.extension)];
    params.not_before = time::OffsetDateTime::from_unix_timestamp(what.valid.0.unix_seconds())?;
    params.not_after = time::OffsetDateTime::from_unix_timestamp(what.valid.1.unix_seconds())?;
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, authority)?;
    let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    Ok(Certificate {
        chain: vec![leaf.der().clone(), authority.der().clone()],
        key: private,
        pem: (leaf.pem(), key.serialize_pem()),
    })
}
