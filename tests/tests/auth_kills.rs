//! kill -9 of the auth service at random moments while people log in, users are made and services report events. A checker compares what was acknowledged with what is
//! there afterwards. 10 kills; `REMOTELER_KILLS=200` kills so often, goes on until 10,000 events were written, and wants the service back within two seconds each time, which a
//! machine that builds other things meanwhile does not promise. `REMOTELER_SEED` gives the same moments again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use remoteler_auth::{Database, EventLog};
use remoteler_client::{AuthTrust, HostState, KeyPairs, RemoteAuth};
use remoteler_core::{
    AuditEvent, AuditKind, AuthApi, Clock, ClusterName, ConnectionFields, HostApi, LoginRequest, NewUser,
    SessionFields, SystemClock,
};
use remoteler_tests::{Cluster, ClusterOptions, Draw, eventually_within};
use remoteler_tunnel::SharedTlsIdentity;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

const USERS: [&str; 4] = ["ann", "bob", "cid", "dan"];
const PASSWORD: &str = "correct horse battery";
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// So many kills are the whole of what was asked for.
const WHOLE: u64 = 200;
/// And so soon the service has to be back then.
const SOON: Duration = Duration::from_secs(2);
/// Events that one request brings.
const BATCH: usize = 20;

/// What the callers were told.
#[derive(Default)]
struct Told {
    /// Serials of certificates: SSH and X.509.
    serials: Mutex<Vec<(String, String)>>,
    /// Uids of events.
    events: Mutex<Vec<String>>,
    /// Names of users that were made.
    made: Mutex<Vec<String>>,
    failures: AtomicUsize,
    stop: AtomicBool,
}

impl Told {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// A call that failed is made again in a moment, as real callers do.
    async fn failed(&self) {
        self.failures.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn serials(ssh: &str, tls: &str) -> (String, String) {
    let certificate = ssh_key::Certificate::from_openssh(ssh).unwrap();
    let pem = x509_parser::pem::parse_x509_pem(tls.as_bytes()).unwrap().1;
    let tls = pem.parse_x509().unwrap();
    (certificate.serial().to_string(), tls.raw_serial_as_string())
}

async fn log_in(api: Arc<RemoteAuth>, user: &'static str, told: Arc<Told>) {
    let keys = KeyPairs::generate(user).unwrap();
    let request = json!({
        "user": user, "password": PASSWORD, "ssh_public_key": keys.ssh_public, "tls_public_key": keys.tls_public,
    });
    let request: LoginRequest = serde_json::from_value(request).unwrap();
    while told.goes_on() {
        match api.login(request.clone()).await {
            Ok(certs) => told.serials.lock().unwrap().push(serials(&certs.ssh_certificate, &certs.tls_certificate)),
            Err(_) => told.failed().await,
        }
    }
}

async fn report(api: Arc<RemoteAuth>, host: String, told: Arc<Told>) {
    let cluster = ClusterName::new(Cluster::NAME).unwrap();
    while told.goes_on() {
        let batch: Vec<AuditEvent> = (0..BATCH)
            .map(|_| {
                let uid = uuid::Uuid::new_v4();
                let session = SessionFields {
                    sid: uid.to_string(),
                    user: "ann".into(),
                    login: "root".into(),
                    server_id: host.clone(),
                    server_hostname: Cluster::NODE.into(),
                };
                let kind = AuditKind::SessionStart {
                    session,
                    connection: ConnectionFields::default(),
                    interactive: false,
                    size: None,
                    initial_command: vec!["true".into()],
                    role: None,
                    with_mfa: None,
                };
                AuditEvent::new(kind, SystemClock.now(), uid, cluster.clone())
            })
            .collect();
        // As a spool does: the same events, until they were taken.
        loop {
            match api.record_events(batch.clone()).await {
                Ok(()) => {
                    told.events.lock().unwrap().extend(batch.iter().map(|event| event.uid.to_string()));
                    break;
                }
                Err(_) if told.goes_on() => told.failed().await,
                Err(_) => break,
            }
        }
    }
}

async fn make_users(api: Arc<RemoteAuth>, told: Arc<Told>) {
    for number in 0.. {
        if !told.goes_on() {
            return;
        }
        let name = format!("made-{number}");
        let user: NewUser = serde_json::from_value(json!({ "name": name, "roles": ["access"] })).unwrap();
        match api.create_user(user).await {
            Ok(_) => told.made.lock().unwrap().push(name),
            Err(_) => told.failed().await,
        }
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

// I75
#[test]
fn after_kill_9_at_any_moment_all_that_was_acknowledged_is_there() {
    let kills = from_environment("REMOTELER_KILLS").unwrap_or(10);
    let seed = from_environment("REMOTELER_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let least_events = if kills >= WHOLE { 10_000 } else { 100 };
    let mut cluster = Cluster::start_with(ClusterOptions { roles: "auth,node".into(), ..ClusterOptions::default() });
    for user in USERS {
        cluster.tctl(&["users", "add", user, "--roles", "access", "--logins", "root"]).ok();
        cluster.tctl_with_input(&["users", "passwd", user], &format!("{PASSWORD}\n")).ok();
    }
    let host = HostState::load(&cluster.data_dir()).unwrap().unwrap();
    let tls = |identity| {
        let trust = AuthTrust::Bundle(host.trust().clone());
        Arc::new(RemoteAuth::tls(cluster.auth(), identity, trust).unwrap())
    };
    let identity = SharedTlsIdentity::new(host.tls_client_identity().unwrap());
    let told = Arc::new(Told::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut tasks = Vec::new();
    for user in USERS {
        tasks.push(runtime.spawn(log_in(tls(None), user, Arc::clone(&told))));
    }
    for _ in 0..3 {
        tasks.push(runtime.spawn(report(tls(Some(identity.clone())), host.host_id().to_string(), Arc::clone(&told))));
    }
    let admin = Arc::new(RemoteAuth::unix(&cluster.data_dir().join("auth.sock")));
    tasks.push(runtime.spawn(make_users(Arc::clone(&admin), Arc::clone(&told))));

    let (mut draw, mut back, mut killed) = (Draw::new(seed), Vec::new(), 0);
    while killed < kills || told.events.lock().unwrap().len() < least_events {
        let answered = told.events.lock().unwrap().len();
        std::thread::sleep(Duration::from_millis(draw.below(300) as u64));
        if killed < kills {
            cluster.kill_daemon();
            killed += 1;
            let began = Instant::now();
            cluster.start_daemon();
            eventually_within(BACK_WITHIN, "the auth service is back", || {
                runtime.block_on(admin.ping()).map(drop).map_err(|cause| cause.to_string())
            });
            back.push(began.elapsed());
        }
        // Some of its work is done between two deaths, now and then.
        if draw.below(4) == 0 {
            eventually_within(BACK_WITHIN, "events are taken again", || {
                let now = told.events.lock().unwrap().len();
                if now > answered { Ok(()) } else { Err(format!("{now}")) }
            });
        }
    }
    told.stop.store(true, Ordering::SeqCst);
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
    cluster.kill_daemon();
    back.sort();
    eprintln!(
        "seed {seed}: {killed} kills; acknowledged: {} logins, {} events, {} users made; {} calls failed; back after {:?} (median), {:?} (slowest)",
        told.serials.lock().unwrap().len(),
        told.events.lock().unwrap().len(),
        told.made.lock().unwrap().len(),
        told.failures.load(Ordering::SeqCst),
        back[back.len() / 2],
        back[back.len() - 1],
    );
    assert!(kills < WHOLE || back[back.len() - 1] <= SOON, "not back within {SOON:?}: {back:?}");
    assert!(!told.serials.lock().unwrap().is_empty(), "nobody logged in meanwhile");
    check(&cluster, &told);
}

/// What is there against what was told.
fn check(cluster: &Cluster, told: &Told) {
    // Opened as the next start would open it, after the last kill.
    let database = Arc::new(Database::open(&cluster.data_dir()).unwrap());
    let log = EventLog::new(Arc::clone(&database));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let count = runtime.block_on(log.verify()).unwrap();
    drop((log, database));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(cluster.data_dir().join("auth.sqlite"), flags).unwrap();
    let mut statement = connection.prepare("SELECT body FROM events ORDER BY seq").unwrap();
    let bodies: Vec<Value> = statement
        .query_map([], |row| row.get::<_, String>(0))
        .unwrap()
        .map(|body| serde_json::from_str(&body.unwrap()).unwrap())
        .collect();
    assert_eq!(u64::try_from(bodies.len()).unwrap(), count);

    let uids: Vec<&str> = bodies.iter().map(|event| event["uid"].as_str().unwrap()).collect();
    let kept: BTreeSet<&str> = uids.iter().copied().collect();
    assert_eq!(kept.len(), uids.len(), "an event is there twice");
    let acknowledged = told.events.lock().unwrap();
    let lost: Vec<&String> = acknowledged.iter().filter(|uid| !kept.contains(uid.as_str())).collect();
    assert!(lost.is_empty(), "{} acknowledged events are lost: {lost:?}", lost.len());

    let issued = bodies.iter().filter(|event| event["event"] == "cert.create");
    let (mut ssh, mut tls): (BTreeMap<&str, usize>, BTreeMap<&str, usize>) = Default::default();
    for event in issued {
        for (field, seen) in [("ssh_serial", &mut ssh), ("tls_serial", &mut tls)] {
            if let Some(serial) = event[field].as_str() {
                *seen.entry(serial).or_default() += 1;
            }
        }
    }
    let doubled: Vec<_> = ssh.iter().chain(&tls).filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "serials were issued twice: {doubled:?}");
    let told_serials = told.serials.lock().unwrap().clone();
    let distinct: BTreeSet<_> = told_serials.iter().flat_map(|(ssh, tls)| [ssh, tls]).collect();
    assert_eq!(distinct.len(), 2 * told_serials.len(), "somebody was given a serial twice");
    for (ssh_serial, tls_serial) in told.serials.lock().unwrap().iter() {
        assert!(ssh.contains_key(ssh_serial.as_str()), "SSH serial {ssh_serial} was issued and is not on record");
        assert!(tls.contains_key(tls_serial.as_str()), "TLS serial {tls_serial} was issued and is not on record");
    }

    let users: BTreeSet<String> = connection
        .prepare("SELECT key FROM items WHERE key LIKE 'users/made-%'")
        .unwrap()
        .query_map([], |row| row.get::<_, String>(0))
        .unwrap()
        .map(|key| key.unwrap().trim_start_matches("users/").to_owned())
        .collect();
    let created: BTreeSet<&str> = bodies
        .iter()
        .filter(|event| event["event"] == "user.create")
        .filter_map(|event| event["name"].as_str())
        .collect();
    for name in told.made.lock().unwrap().iter() {
        assert!(users.contains(name) && created.contains(name.as_str()), "user {name} was made and is not there");
    }
    assert!(users.iter().all(|name| created.contains(name.as_str())), "a user without an event");
}
