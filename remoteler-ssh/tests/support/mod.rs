//! A cluster of one node on loopback for tests: authorities, certificates right and wrong, the node, and stock OpenSSH clients.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod live;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use remoteler_core::{
    AuditError, AuditKind, AuditSink, CaSet, Clock, ClusterName, HostId, HostIdentity, Identity, LiveWork, Login,
    ManualClock, NodeName, NodeRecord, OsEntropy, Policy, Role, RoleName, RoleSpec, SSH_IDENTITY_EXTENSION,
    SharedPolicy, SystemClock, SystemRole, Timestamp, TrustBundle, UserIdentity, UserName, fill_random, random_uuid,
    ssh_identity_value,
};
use remoteler_ssh::{Node, NodeConfig, NodeLimits};
use ssh_key::{
    Certificate, LineEnding, PrivateKey,
    certificate::{Builder, CertType},
    private::{Ed25519Keypair, KeypairData},
};
use tokio::{net::TcpListener, process::Command};
use tokio_util::sync::CancellationToken;

/// The name the node is reached by.
pub(crate) const NODE: &str = "n1";
pub(crate) const CLUSTER: &str = "test.example.com";

/// Audit log in memory; can be told to fail.
#[derive(Default)]
pub(crate) struct MemoryAudit {
    events: Mutex<Vec<serde_json::Value>>,
    pub(crate) broken: std::sync::atomic::AtomicBool,
    /// Fails for events of this name alone.
    pub(crate) broken_for: Mutex<Option<&'static str>>,
}

#[async_trait]
impl AuditSink for MemoryAudit {
    async fn record(&self, kind: AuditKind) -> Result<(), AuditError> {
        let broken_for = *self.broken_for.lock().unwrap();
        if self.broken.load(std::sync::atomic::Ordering::SeqCst) || broken_for == Some(kind.name()) {
            return Err(AuditError("told to fail".into()));
        }
        self.events.lock().unwrap().push(serde_json::to_value(kind).unwrap());
        Ok(())
    }
}

impl MemoryAudit {
    pub(crate) fn named(&self, event: &str) -> Vec<serde_json::Value> {
        self.events.lock().unwrap().iter().filter(|kind| kind["event"] == event).cloned().collect()
    }

    /// Waits until `count` events of that name are there.
    pub(crate) async fn wait_for(&self, event: &str, count: usize) -> Vec<serde_json::Value> {
        let waiting = async {
            loop {
                let found = self.named(event);
                if found.len() >= count {
                    return found;
                }
                tokio::task::yield_now().await;
            }
        };
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, waiting).await.unwrap_or_else(|_| panic!("no {count} {event}: {:?}", self.events))
    }
}

pub(crate) struct Cluster {
    pub(crate) user_ca: PrivateKey,
    pub(crate) host_ca: PrivateKey,
    pub(crate) policy: Arc<SharedPolicy>,
    pub(crate) audit: Arc<MemoryAudit>,
    pub(crate) node: Arc<Node>,
    pub(crate) clock: Arc<ManualClock>,
    /// Nothing of it ends unless a test looks.
    pub(crate) live: Arc<LiveWork>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
    stop: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What a certificate says; tests change what should be wrong.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) user: String,
    pub(crate) logins: Vec<String>,
    pub(crate) roles: Vec<String>,
    pub(crate) cluster: String,
    pub(crate) kind: CertType,
    pub(crate) principals: Option<Vec<String>>,
    pub(crate) window: (i64, i64),
    pub(crate) critical: Option<(String, String)>,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            user: "ann".into(),
            logins: vec![own_login()],
            roles: vec!["dev".into()],
            cluster: CLUSTER.into(),
            kind: CertType::User,
            principals: None,
            window: (-60, 600),
            critical: None,
        }
    }
}

impl Wish {
    pub(crate) fn user_identity(&self) -> UserIdentity {
        UserIdentity {
            user: UserName::new(&self.user).unwrap(),
            cluster: ClusterName::new(&self.cluster).unwrap(),
            roles: self.roles.iter().map(|role| RoleName::new(role).unwrap()).collect(),
            traits: Default::default(),
            logins: self.logins.iter().map(|login| Login::new(login).unwrap()).collect(),
        }
    }
}

pub(crate) fn new_key() -> PrivateKey {
    let pair = Ed25519Keypair::from_seed(&fill_random(&OsEntropy));
    PrivateKey::new(KeypairData::from(pair), "").unwrap()
}

/// Signs `wish` for `key` with `ca`.
pub(crate) fn user_certificate(ca: &PrivateKey, key: &PrivateKey, wish: &Wish) -> Certificate {
    let identity = Identity::User(wish.user_identity());
    let principals = wish.principals.clone().unwrap_or_else(|| wish.logins.clone());
    sign(ca, key, &identity, &principals, wish)
}

pub(crate) fn sign(
    ca: &PrivateKey,
    key: &PrivateKey,
    identity: &Identity,
    principals: &[String],
    wish: &Wish,
) -> Certificate {
    let now = Timestamp::from(std::time::SystemTime::now()).unix_seconds();
    let at = |offset: i64| u64::try_from(now.saturating_add(offset)).unwrap();
    let (after, before) = (at(wish.window.0), if wish.window.1 == i64::MAX { u64::MAX } else { at(wish.window.1) });
    let nonce: [u8; 32] = fill_random(&OsEntropy);
    let mut builder = Builder::new(nonce, key.public_key().key_data().clone(), after, before).unwrap();
    builder.serial(7).unwrap().cert_type(wish.kind).unwrap().key_id(identity.subject()).unwrap();
    if principals.is_empty() {
        builder.all_principals_valid().unwrap();
    }
    for principal in principals {
        builder.valid_principal(principal).unwrap();
    }
    if let Some((name, value)) = &wish.critical {
        builder.critical_option(name, value).unwrap();
    }
    builder.extension(SSH_IDENTITY_EXTENSION, ssh_identity_value(identity)).unwrap();
    builder.sign(ca).unwrap()
}

pub(crate) fn host_identity() -> HostIdentity {
    HostIdentity {
        id: HostId::from_uuid(random_uuid(&OsEntropy)),
        name: NodeName::new(NODE).unwrap(),
        cluster: ClusterName::new(CLUSTER).unwrap(),
        roles: BTreeSet::from([SystemRole::Node]),
        kube_clusters: BTreeSet::new(),
        apps: Default::default(),
        labels: Default::default(),
        generation: 0,
    }
}

pub(crate) fn host_certificate(ca: &PrivateKey, key: &PrivateKey, identity: &HostIdentity) -> Certificate {
    let wish = Wish { kind: CertType::Host, window: (-60, i64::MAX), ..Wish::default() };
    sign(ca, key, &Identity::Host(identity.clone()), &identity.principals(), &wish)
}

/// The account that runs the tests.
pub(crate) fn own_login() -> String {
    nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap().name
}

pub(crate) fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

pub(crate) fn role(document: &str) -> Role {
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    let spec: RoleSpec = serde_json::from_value(document["spec"].clone()).unwrap();
    Role::new(RoleName::new(document["name"].as_str().unwrap()).unwrap(), &spec).unwrap()
}

pub(crate) fn policy(user_ca: &PrivateKey, host_ca: &PrivateKey) -> Policy {
    let roles = [
        role(r#"{"name":"dev","spec":{"allow":{"logins":["*"],"node_labels":{"env":"test"}}}}"#),
        role(
            r#"{"name":"no-forwarding","spec":{"options":{"port_forwarding":false},
                "allow":{"logins":["*"],"node_labels":{"env":"test"}}}}"#,
        ),
        role(
            r#"{"name":"no-copies","spec":{"options":{"ssh_file_copy":false},
                "allow":{"logins":["*"],"node_labels":{"env":"test"}}}}"#,
        ),
        role(
            r#"{"name":"agent","spec":{"options":{"forward_agent":true},
                "allow":{"logins":["*"],"node_labels":{"env":"test"}}}}"#,
        ),
        role(
            r#"{"name":"no-remote","spec":{"options":{"ssh_port_forwarding":{"remote":{"enabled":false}}},
                "allow":{"logins":["*"],"node_labels":{"env":"test"}}}}"#,
        ),
        role(r#"{"name":"elsewhere","spec":{"allow":{"logins":["*"],"node_labels":{"env":"prod"}}}}"#),
    ];
    let set = |key: &PrivateKey| CaSet { ssh: vec![key.public_key().clone()], x509: Vec::new() };
    Policy::new(
        TrustBundle::new(ClusterName::new(CLUSTER).unwrap(), set(user_ca), set(host_ca)),
        roles.into_iter().map(|role| (role.name().clone(), Arc::new(role))).collect(),
    )
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut NodeConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (user_ca, host_ca, host_key) = (new_key(), new_key(), new_key());
        let policy = Arc::new(SharedPolicy::new(policy(&user_ca, &host_ca)));
        let audit = Arc::new(MemoryAudit::default());
        let identity = host_identity();
        let mut config = NodeConfig {
            record: NodeRecord {
                host_id: identity.id,
                name: identity.name.clone(),
                labels: [("env".to_owned(), "test".to_owned())].into(),
                addr: None,
                version: "0".into(),
                last_seen: Timestamp::default(),
                heartbeat: Default::default(),
            },
            cluster: identity.cluster.clone(),
            host_certificate: host_certificate(&host_ca, &host_key, &identity),
            host_key,
            recordings_dir: dir.path().join("recordings"),
            sftp_command: vec![sftp_server()],
            agent_sockets_dir: dir.path().into(),
            agent_notes_dir: dir.path().join("agents"),
            limits: NodeLimits::default(),
        };
        change(&mut config);
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let live = LiveWork::new(policy.clone(), clock.clone());
        let node = Node::new(config, live.clone(), audit.clone(), clock.clone(), Arc::new(OsEntropy)).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let (serving, stopped) = (node.clone(), stop.clone());
        tokio::spawn(async move { serving.listen(listener, stopped).await });
        let cluster = Self { user_ca, host_ca, policy, audit, node, clock, live, dir, port, stop };
        let line = format!("@cert-authority {NODE} {}\n", cluster.host_ca.public_key().to_openssh().unwrap());
        std::fs::write(cluster.path("known_hosts"), line).unwrap();
        cluster
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Key and certificate of a user as files; yields the key's path.
    pub(crate) fn user(&self, name: &str, wish: &Wish) -> PathBuf {
        let key = new_key();
        let certificate = user_certificate(&self.user_ca, &key, wish);
        self.write_user(name, &key, &certificate)
    }

    pub(crate) fn write_user(&self, name: &str, key: &PrivateKey, certificate: &Certificate) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(self.path(&format!("{name}-cert.pub")), certificate.to_openssh().unwrap()).unwrap();
        path
    }

    /// Options for `ssh`, `scp` and `sftp`, as `-o` words.
    pub(crate) fn options(&self, key: &Path) -> Vec<OsString> {
        let settings = [
            ("IdentitiesOnly", "yes".to_owned()),
            ("IdentityFile", key.display().to_string()),
            ("IdentityAgent", "none".to_owned()),
            ("UserKnownHostsFile", self.path("known_hosts").display().to_string()),
            ("GlobalKnownHostsFile", "/dev/null".to_owned()),
            ("StrictHostKeyChecking", "yes".to_owned()),
            ("BatchMode", "yes".to_owned()),
            ("HostKeyAlias", NODE.to_owned()),
            ("Port", self.port.to_string()),
            ("User", own_login()),
        ];
        let mut words: Vec<OsString> = vec!["-F".into(), "none".into()];
        let certificate = format!("{}-cert.pub", key.display());
        if Path::new(&certificate).exists() {
            words.extend(["-o".into(), format!("CertificateFile={certificate}").into()]);
        }
        for (name, value) in settings {
            words.extend(["-o".into(), format!("{name}={value}").into()]);
        }
        words
    }

    /// A stock `ssh` command line up to and including the host.
    pub(crate) fn ssh(&self, key: &Path, extra: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.args(extra).args(self.options(key)).arg("127.0.0.1");
        command.kill_on_drop(true).stdin(Stdio::null());
        command
    }

    /// Runs `ssh … command` to its end.
    pub(crate) async fn run(&self, key: &Path, command: &str) -> Output {
        finish(self.ssh(key, &[]).arg(command)).await
    }
}

/// A client that believes every host and takes every channel.
pub(crate) struct Trusting;

impl russh::client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _key: &russh::keys::PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// Logged in with such a client.
pub(crate) async fn logged_in(cluster: &Cluster, wish: &Wish) -> russh::client::Handle<Trusting> {
    let key = new_key();
    let certificate = user_certificate(&cluster.user_ca, &key, wish);
    let config = Arc::new(russh::client::Config::default());
    let mut client = russh::client::connect(config, ("127.0.0.1", cluster.port), Trusting).await.unwrap();
    let login = client.authenticate_openssh_cert(own_login(), Arc::new(key), certificate).await.unwrap();
    assert!(login.success());
    client
}

/// Shows a certificate with a client that checks nothing itself, as a hostile one would. Yields whether it is in and can open a
/// channel.
pub(crate) async fn gets_in(cluster: &Cluster, key: &PrivateKey, certificate: &Certificate) -> bool {
    let config = Arc::new(russh::client::Config::default());
    let mut client = russh::client::connect(config, ("127.0.0.1", cluster.port), Trusting).await.unwrap();
    let login = client.authenticate_openssh_cert(own_login(), Arc::new(key.clone()), certificate.clone()).await;
    login.is_ok_and(|result| result.success()) && client.channel_open_session().await.is_ok()
}

/// Runs a command to its end, at most a minute.
pub(crate) async fn finish(command: &mut Command) -> Output {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, command.output()).await.expect("the client did not end").unwrap()
}

pub(crate) fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// The example of this crate that speaks SFTP; cargo builds it beside the tests.
pub(crate) fn sftp_server() -> OsString {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().join("examples/sftp_server").into()
}
