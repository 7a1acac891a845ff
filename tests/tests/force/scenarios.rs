//! What is kept on disk, one piece at a time: how it begins, what a child does to it, and what must be true afterwards whatever happened to the child.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use remoteler_auth::{
    AuthConfig, AuthService, BreakNotice, Caller, Database, EventLog, LocalHost, MemoryStorage, RecordingFiles,
    SqliteStorage,
};
use remoteler_client::{
    HostState, KeyPairs, KubeEntry, Kubeconfig, PolicyRefresher, ProxyAddr, SpoolLimits, SpooledAudit, Store,
};
use remoteler_core::{
    AuditEvent, AuditKind, AuditSink, AuthApi, Clock, ClusterName, EventQuery, HostId, LoginRequest, NewUser, NodeName,
    PolicySource, RecordingStore, Secret, SessionId, Storage, SystemClock, SystemRole, Timestamp, Transaction,
    UserName, X509Purpose, verify_x509_chain,
};
use serde_json::json;
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};

/// One of them.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// How many things are acknowledged when nothing goes wrong.
    pub(crate) acks: usize,
    /// Puts into `data` what there is before, and beside it what the child needs.
    pub(crate) prepare: fn(&Path),
    /// In the child: says `ack N` for each thing that was acknowledged to it.
    pub(crate) run: fn(&Path),
    /// Panics when something acknowledged is missing, or something is there that is neither old nor new.
    pub(crate) check: fn(&Path, &[usize]),
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "database", acks: ROUNDS, prepare: prepare_database, run: run_database, check: check_database },
    Scenario { name: "spool", acks: ROUNDS, prepare: |_| (), run: run_spool, check: check_spool },
    Scenario { name: "recording", acks: ROUNDS, prepare: |_| (), run: run_recording, check: check_recording },
    Scenario { name: "host", acks: 1, prepare: prepare_host, run: run_host, check: check_host },
    Scenario { name: "policy", acks: 1, prepare: prepare_policy, run: run_policy, check: check_policy },
    Scenario { name: "login", acks: 1, prepare: prepare_login, run: run_login, check: check_login },
    Scenario { name: "kubeconfig", acks: 2, prepare: prepare_kubeconfig, run: run_kubeconfig, check: check_kubeconfig },
    Scenario { name: "profile", acks: 2, prepare: prepare_profile, run: run_profile, check: check_profile },
];

const ROUNDS: usize = 6;

fn ack(number: usize) {
    println!("ack {number}");
}

/// Waits without a runtime's own wake-ups, which are writes too and not those that are meant here.
fn block<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let _entered = runtime.enter();
    futures::executor::block_on(work)
}

fn cluster() -> ClusterName {
    ClusterName::new("root").unwrap()
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn event(number: usize) -> AuditEvent {
    let kind = AuditKind::UserDelete { user: "ann".into(), name: format!("n{number}") };
    let uid = uuid::Uuid::from_u128(u128::try_from(number).unwrap() + 1);
    AuditEvent::new(kind, Timestamp::from_unix_seconds(1_000), uid, cluster())
}

/// How the log would say that a host's chain is broken; none is here.
fn notice(number: usize) -> BreakNotice {
    let uid = uuid::Uuid::from_u128(u128::try_from(number).unwrap() + 1_000);
    BreakNotice { time: Timestamp::from_unix_seconds(1_000), uid }
}

fn writer() -> HostId {
    HostId::from_uuid(uuid::Uuid::from_u128(5))
}

fn name_of(event: &AuditEvent) -> String {
    let AuditKind::UserDelete { name, .. } = &event.kind else { panic!("{event:?}") };
    name.clone()
}

// The auth service's database: each round is a transaction over two keys, and an event.

fn prepare_database(dir: &Path) {
    drop(Database::open(&data(dir)).unwrap());
    // Only room, which would be copied hundreds of times.
    std::fs::remove_file(data(dir).join("auth.reserve")).unwrap();
}

fn run_database(dir: &Path) {
    let Ok(database) = Database::open(&data(dir)) else { return };
    let database = Arc::new(database);
    let (storage, events) = (SqliteStorage::new(Arc::clone(&database)), EventLog::new(database));
    block(async {
        for number in 0..ROUNDS {
            // Larger than a page, so that one transaction is many writes.
            let value = vec![u8::try_from(number).unwrap(); 9_000];
            let both = Transaction::new().put(format!("left/{number}"), value.clone(), None);
            let both = both.put(format!("right/{number}"), value, None);
            let kept = storage.transact(both, Timestamp::default()).await.is_ok();
            if kept && events.append(vec![event(number)], notice(number)).await.is_ok() {
                ack(number);
            }
        }
    });
}

fn check_database(dir: &Path, acks: &[usize]) {
    let database = Arc::new(Database::open(&data(dir)).unwrap());
    let (storage, log) = (SqliteStorage::new(Arc::clone(&database)), EventLog::new(database));
    block(async {
        log.verify().await.unwrap();
        let events = log.query(EventQuery { limit: Some(10_000), ..EventQuery::default() }).await.unwrap();
        let events: BTreeSet<String> = events.iter().map(name_of).collect();
        for number in 0..ROUNDS {
            let get = |side: &str| {
                let (storage, key) = (&storage, format!("{side}/{number}"));
                async move { storage.get(&key, Timestamp::default()).await.unwrap().map(|item| item.value) }
            };
            let (left, right) = (get("left").await, get("right").await);
            assert_eq!(left, right, "round {number} is there whole or not at all");
            if acks.contains(&number) {
                assert_eq!(left, Some(vec![u8::try_from(number).unwrap(); 9_000]), "round {number} was acknowledged");
                assert!(events.contains(&format!("n{number}")), "event {number} was acknowledged: {events:?}");
            }
        }
        // It goes on.
        storage.put("after", b"x", None).await.unwrap();
    });
}

// A service's spool of audit events.

fn run_spool(dir: &Path) {
    let limits = SpoolLimits { max_segment: 600, ..SpoolLimits::default() };
    let Ok(spool) = SpooledAudit::open(&data(dir), writer(), cluster(), Arc::new(SystemClock), limits) else { return };
    block(async {
        for number in 0..ROUNDS {
            let AuditEvent { kind, .. } = event(number);
            if spool.record(kind).await.is_ok() {
                ack(number);
            }
        }
    });
}

fn check_spool(dir: &Path, acks: &[usize]) {
    // As the uploader reads: a last line without its end was torn, and was never acknowledged.
    let mut found = BTreeSet::new();
    let mut files: Vec<PathBuf> = std::fs::read_dir(data(dir).join("spool"))
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    files.sort();
    for file in files {
        let content = std::fs::read_to_string(&file).unwrap_or_default();
        for line in content.split_inclusive('\n') {
            match serde_json::from_str::<AuditEvent>(line) {
                Ok(event) => {
                    found.insert(name_of(&event));
                }
                Err(cause) => assert!(!line.ends_with('\n'), "{cause}: {line:?}"),
            }
        }
    }
    for number in acks {
        assert!(found.contains(&format!("n{number}")), "event {number} was acknowledged, {found:?} are there");
    }
    let spool =
        SpooledAudit::open(&data(dir), writer(), cluster(), Arc::new(SystemClock), SpoolLimits::default()).unwrap();
    block(spool.record(event(99).kind)).unwrap();
}

// A recording that grows at the auth service.

const PART: usize = 3_000;

fn session() -> SessionId {
    SessionId::from_uuid(uuid::Uuid::from_u128(7))
}

/// Octets `from..to` of the recording.
fn recorded(from: usize, to: usize) -> Vec<u8> {
    (from..to).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn run_recording(dir: &Path) {
    let Ok(files) = RecordingFiles::open(&data(dir).join("recordings")) else { return };
    block(async {
        for number in 0..ROUNDS {
            let Ok(state) = files.state(session()).await else { continue };
            let at = usize::try_from(state.map_or(0, |state| state.size)).unwrap();
            let (part, last) = (recorded(at, (number + 1) * PART), number + 1 == ROUNDS);
            if files.append(session(), u64::try_from(at).unwrap(), &part, last).await.is_ok() {
                ack(number);
            }
        }
    });
}

fn check_recording(dir: &Path, acks: &[usize]) {
    let files = RecordingFiles::open(&data(dir).join("recordings")).unwrap();
    block(async {
        let state = files.state(session()).await.unwrap();
        let size = usize::try_from(state.map_or(0, |state| state.size)).unwrap();
        let acknowledged = acks.iter().max().map_or(0, |last| (last + 1) * PART);
        assert!(size >= acknowledged, "{acknowledged} octets were acknowledged, {size} are there");
        if acks.contains(&(ROUNDS - 1)) {
            assert!(state.unwrap().complete, "its end was acknowledged");
        }
        if size > 0 {
            // What was acknowledged is what was sent. Behind it there may be what a power cut left of a write.
            let found = files.read(session(), 0, 1024 * 1024).await.unwrap();
            assert!(found[..acknowledged] == recorded(0, acknowledged)[..], "it is another recording");
        }
        if state.is_none_or(|state| !state.complete) {
            files.append(session(), u64::try_from(size).unwrap(), b"more", true).await.unwrap();
        }
    });
}

// What makes a machine a host; the rules a service goes by; a user's login.

async fn service(dir: &Path) -> AuthService {
    let config = AuthConfig::new(dir, cluster());
    let events = EventLog::new(Arc::new(Database::in_memory().unwrap()));
    let recordings = RecordingFiles::open(&dir.join("not-used")).unwrap();
    AuthService::with_stores(config, Arc::new(MemoryStorage::default()), events, recordings).await.unwrap()
}

async fn host(dir: &Path, name: &str) -> HostState {
    let keys = KeyPairs::generate(name).unwrap();
    let host = LocalHost {
        name: NodeName::new(name).unwrap(),
        roles: [SystemRole::Node].into(),
        kube_clusters: BTreeSet::new(),
        apps: Default::default(),
        ssh_public_key: keys.ssh_public.clone(),
        tls_public_key: keys.tls_public.clone(),
        host_id: None,
    };
    let certs = service(dir).await.issue_local_host(host).await.unwrap();
    HostState::new(keys, certs, SystemClock.now()).unwrap()
}

fn prepare_host(dir: &Path) {
    block(async {
        host(dir, "old").await.save(&data(dir)).unwrap();
        host(dir, "new").await.save(&dir.join("new")).unwrap();
    });
}

fn run_host(dir: &Path) {
    let new = HostState::load(&dir.join("new")).unwrap().unwrap();
    if new.save(&data(dir)).is_ok() {
        ack(0);
    }
}

fn check_host(dir: &Path, acks: &[usize]) {
    let found = HostState::load(&data(dir)).unwrap().unwrap();
    let name = found.node_name().as_str();
    assert!(name == "new" || (name == "old" && acks.is_empty()), "{name}, acknowledged {acks:?}");
    found.save(&data(dir)).unwrap();
}

/// The service as a host of it sees it: services follow its rules.
async fn as_host(service: &AuthService) -> Arc<dyn AuthApi> {
    let keys = KeyPairs::generate("follower").unwrap();
    let host = LocalHost {
        name: NodeName::new("follower").unwrap(),
        roles: [SystemRole::Node].into(),
        kube_clusters: BTreeSet::new(),
        apps: Default::default(),
        ssh_public_key: keys.ssh_public,
        tls_public_key: keys.tls_public,
        host_id: None,
    };
    let certs = service.issue_local_host(host).await.unwrap();
    let certificate = CertificateDer::from_pem_slice(certs.tls_certificate.as_bytes()).unwrap();
    let (trust, now) = (service.trust_bundle(), SystemClock.now());
    let verified = verify_x509_chain(&[certificate], &trust, X509Purpose::Client, now).unwrap();
    service.as_caller(Caller::from_tls(Some(verified), "192.0.2.1:1".parse().unwrap()))
}

fn prepare_policy(dir: &Path) {
    block(async {
        let service = service(dir).await;
        let mut rules = PolicyRefresher::load(&data(dir), service.trust_bundle()).unwrap();
        rules.refresh(&*as_host(&service).await).await.unwrap();
    });
}

fn run_policy(dir: &Path) {
    block(async {
        let service = service(dir).await;
        let role = json!({ "kind": "role", "version": "v7", "metadata": { "name": "more" }, "spec": {} });
        let admin = service.as_caller(Caller::LocalAdmin);
        admin.put_resource(serde_json::from_value(role).unwrap(), false).await.unwrap();
        let Ok(mut rules) = PolicyRefresher::load(&data(dir), service.trust_bundle()) else { return };
        if rules.refresh(&*as_host(&service).await).await.is_ok() {
            ack(0);
        }
    });
}

fn check_policy(dir: &Path, acks: &[usize]) {
    let trust = block(service(dir)).trust_bundle();
    let rules = PolicyRefresher::load(&data(dir), trust).unwrap();
    let roles = rules.shared().policy().roles.len();
    // None would mean that the copy does not parse, and that everybody is denied.
    assert!(roles == 4 || (roles == 3 && acks.is_empty()), "{roles} roles, acknowledged {acks:?}");
}

const PASSWORD: &str = "correct horse battery";
const FOREIGN: &str = "example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti\n";

/// Logs ann in at a service of its own and keeps what she got.
async fn log_in(dir: &Path) -> bool {
    log_in_at(dir, &"proxy.example.com:3080".parse().unwrap()).await
}

async fn log_in_at(dir: &Path, proxy: &ProxyAddr) -> bool {
    let service = service(dir).await;
    let admin = service.as_caller(Caller::LocalAdmin);
    let user: NewUser =
        serde_json::from_value(json!({ "name": "ann", "roles": ["access"], "traits": { "logins": ["ann"] } })).unwrap();
    admin.create_user(user).await.unwrap();
    let ann = UserName::new("ann").unwrap();
    admin.set_password(ann.clone(), Secret::new(PASSWORD)).await.unwrap();
    let keys = KeyPairs::generate("ann").unwrap();
    let request = json!({
        "user": "ann", "password": PASSWORD, "ssh_public_key": keys.ssh_public, "tls_public_key": keys.tls_public,
    });
    let request: LoginRequest = serde_json::from_value(request).unwrap();
    let certs = admin.login(request).await.unwrap();
    Store::new(data(dir)).save_login(proxy, &ann, &keys, &certs).is_ok()
}

fn prepare_login(dir: &Path) {
    assert!(block(log_in(dir)));
    let known_hosts = Store::new(data(dir)).known_hosts();
    let ours = std::fs::read_to_string(&known_hosts).unwrap();
    std::fs::write(&known_hosts, format!("{FOREIGN}{ours}")).unwrap();
    std::fs::copy(data(dir).join("keys/proxy.example.com/ann.pub"), dir.join("old.pub")).unwrap();
}

fn run_login(dir: &Path) {
    if block(log_in(dir)) {
        ack(0);
    }
}

fn check_login(dir: &Path, acks: &[usize]) {
    let store = Store::new(data(dir));
    let profile = store.current().unwrap().expect("a profile was there and is");
    let old = std::fs::read_to_string(dir.join("old.pub")).unwrap();
    let is_old = |key: &str| key.split(' ').nth(1) == old.split(' ').nth(1);
    match store.login(&profile) {
        Ok(login) => {
            let key = login.ssh_key.public_key().to_openssh().unwrap();
            assert!(acks.is_empty() || !is_old(&key), "the new login was acknowledged");
        }
        // What is half written is not taken for a login: whoever meets it logs in again.
        Err(cause) => assert!(acks.is_empty(), "the new login was acknowledged: {cause}"),
    }
    let known_hosts = std::fs::read_to_string(store.known_hosts()).unwrap();
    assert!(known_hosts.contains(FOREIGN), "a line that is not ours stays: {known_hosts}");
    assert!(block(log_in(dir)), "the next login works");
}

// A kubeconfig with other people's entries in it: one of ours is entered, and then those of a proxy are removed.

const OTHERS: &str = "\
apiVersion: v1
kind: Config
current-context: mine
clusters:
- name: mine
  cluster: { server: 'https://192.0.2.1:6443' }
users:
- name: mine
  user: { token: not-ours }
contexts:
- name: mine
  context: { cluster: mine, user: mine }
";

fn proxies() -> [ProxyAddr; 2] {
    ["old.example.com:3080", "new.example.com:3080"].map(|text| text.parse().unwrap())
}

/// Enters a Kubernetes cluster that is reached by way of `proxy`.
fn enter(dir: &Path, proxy: &ProxyAddr, name: &str) -> bool {
    let trust = block(service(dir)).trust_bundle();
    let entry = KubeEntry {
        proxy,
        cluster: &cluster(),
        kube_cluster: &name.parse().unwrap(),
        trust: &trust,
        tsh: Path::new("/usr/bin/tsh"),
        home: Path::new("/home/ann/.tsh"),
    };
    Kubeconfig::new(data(dir).join("config")).set(&[entry], None).is_ok()
}

fn prepare_kubeconfig(dir: &Path) {
    std::fs::write(data(dir).join("config"), OTHERS).unwrap();
    assert!(enter(dir, &proxies()[0], "old"));
}

fn run_kubeconfig(dir: &Path) {
    let [old, new] = proxies();
    if enter(dir, &new, "new") {
        ack(0);
    }
    if Kubeconfig::new(data(dir).join("config")).remove(&old).is_ok() {
        ack(1);
    }
}

fn check_kubeconfig(dir: &Path, acks: &[usize]) {
    let file = Kubeconfig::new(data(dir).join("config"));
    assert_eq!(file.current_context().unwrap().as_deref(), Some("mine"), "it parses, and the choice is the user's");
    let text = std::fs::read_to_string(file.path()).unwrap();
    assert!(text.contains("not-ours") && text.contains("https://192.0.2.1:6443"), "what is not ours stays: {text}");
    let (has_old, has_new) = (text.contains("root-old"), text.contains("root-new"));
    assert!(has_new || !acks.contains(&0), "the new entry was acknowledged: {text}");
    assert!(!has_old || !acks.contains(&1), "the removal was acknowledged: {text}");
    // Nothing is there in part: an entry has its cluster, its user and its context.
    for name in ["root-old", "root-new"] {
        let count = text.matches(&format!("name: {name}")).count() + text.matches(&format!("name: \"{name}\"")).count();
        assert!(count == 0 || count == 3, "{count} of 3 entries of {name}: {text}");
    }
    assert!(enter(dir, &proxies()[1], "after"), "it goes on");
}

// The profile: which proxy is the current one, and a logout.

fn prepare_profile(dir: &Path) {
    for proxy in &proxies() {
        assert!(block(log_in_at(dir, proxy)));
    }
}

fn run_profile(dir: &Path) {
    let store = Store::new(data(dir));
    let [old, new] = proxies().map(|proxy| store.profile(proxy.host()).unwrap().unwrap());
    if store.select(&old).is_ok() {
        ack(0);
    }
    if store.logout(&new).is_ok() {
        ack(1);
    }
}

fn check_profile(dir: &Path, acks: &[usize]) {
    let [old, new] = proxies();
    let store = Store::new(data(dir));
    let current = store.current().unwrap().map(|profile| profile.proxy);
    if acks.contains(&0) {
        assert_eq!(current, Some(old.clone()), "the choice was acknowledged");
    }
    let profile = store.profile(old.host()).unwrap().expect("a login that nobody touched");
    store.login(&profile).unwrap();
    if acks.contains(&1) {
        let left = store.profile(new.host()).unwrap().and_then(|profile| store.login(&profile).ok());
        assert!(left.is_none(), "the logout was acknowledged");
    }
    assert!(block(log_in_at(dir, &new)), "the next login works");
}
