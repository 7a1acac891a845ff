//! Data directories of every released format are opened by today's program, and everything in them still works.
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails should panic where it is")]

mod make;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use remoteler_auth::{AuthConfig, AuthService, Caller};
use remoteler_core::{
    AuthApi, Clock, ClusterName, EventQuery, LoginRequest, ManualClock, RotateRequest, RotationKind, RotationPhase,
    RotationPlan, Secret, SystemRole, Timestamp, UserName, X509Purpose, verify_x509_chain,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use make::{Known, join_request, login_request};

const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 40_000);

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Copies a directory and what is in it, as a person would: a fixture is never opened itself.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

struct Opened {
    service: AuthService,
    clock: Arc<ManualClock>,
    known: Known,
    dir: tempfile::TempDir,
}

impl Opened {
    async fn format(number: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(&fixtures().join(format!("format-{number}")), dir.path());
        let known: Known = serde_json::from_slice(&fs::read(dir.path().join("fixture.json")).unwrap()).unwrap();
        let clock = Arc::new(ManualClock::new(known.now));
        let service = open(dir.path(), &clock).await;
        Self { service, clock, known, dir }
    }

    fn admin(&self) -> Arc<dyn AuthApi> {
        self.service.as_caller(Caller::LocalAdmin)
    }

    fn anybody(&self) -> Arc<dyn AuthApi> {
        self.service.as_caller(Caller::Anonymous { addr: ANYWHERE })
    }

    fn host(&self) -> Arc<dyn AuthApi> {
        let certificate = CertificateDer::from_pem_slice(self.known.host_certificate.as_bytes()).unwrap();
        let trust = self.service.trust_bundle();
        let host =
            verify_x509_chain(&[certificate], &trust, X509Purpose::Client, self.clock.now()).unwrap().host().unwrap();
        self.service.as_caller(Caller::Host { host, addr: Some(ANYWHERE) })
    }
}

async fn open(dir: &Path, clock: &Arc<ManualClock>) -> AuthService {
    let cluster = ClusterName::new("root").unwrap();
    let config = AuthConfig { clock: Arc::clone(clock) as Arc<dyn Clock>, ..AuthConfig::new(dir, cluster) };
    AuthService::open(config).await.unwrap()
}

/// The formats there are directories of.
fn released() -> Vec<u32> {
    let mut found: Vec<u32> = fs::read_dir(fixtures())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_prefix("format-")?.parse().ok())
        .collect();
    found.sort_unstable();
    found
}

/// The number in the file's header: SQLite file format section 1.3, offset 60.
fn format_of(database: &Path) -> u32 {
    u32::from_be_bytes(fs::read(database).unwrap()[60..64].try_into().unwrap())
}

#[tokio::test]
async fn a_fixture_is_made_when_it_is_asked_for() {
    let Some(name) = std::env::var_os("REMOTELER_MAKE_FIXTURE") else { return };
    let dir = fixtures().join(name);
    fs::create_dir(&dir).expect("a fixture is never overwritten");
    make::make(&dir).await;
}

#[tokio::test]
async fn there_is_a_directory_of_every_format_up_to_the_present_one_or_that_before() {
    let dir = tempfile::tempdir().unwrap();
    drop(remoteler_auth::Database::open(dir.path()).unwrap());
    let present = format_of(&dir.path().join("auth.sqlite"));
    let released = released();
    let all_before: Vec<u32> = (1..present.max(2)).collect();
    assert!(released.starts_with(&all_before), "fixtures of formats {all_before:?} are needed, {released:?} are there");
    for number in released {
        assert_eq!(format_of(&fixtures().join(format!("format-{number}/auth.sqlite"))), number);
    }
}

#[tokio::test]
async fn every_released_format_opens_and_an_older_one_is_kept_beside_it() {
    for number in released() {
        let opened = Opened::format(number).await;
        let present = format_of(&opened.dir.path().join("auth.sqlite"));
        let kept = opened.dir.path().join(format!("auth.sqlite.format-{number}"));
        assert_eq!(kept.exists(), number < present, "format {number}");
        if kept.exists() {
            assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o7777, 0o600); // I67
            assert_eq!(format_of(&kept), number);
        }
        drop(opened.service);
        // The second start finds the present format, and makes no copy of that.
        drop(open(opened.dir.path(), &opened.clock).await);
        assert!(!opened.dir.path().join(format!("auth.sqlite.format-{present}")).exists());
    }
}

#[tokio::test]
async fn the_authorities_of_every_released_format_are_the_same_and_go_on_rotating() {
    for number in released() {
        let opened = Opened::format(number).await;
        let trust = opened.service.trust_bundle();
        assert_eq!(trust.host_pins().unwrap(), opened.known.host_pins, "format {number}");
        assert_eq!(trust.rotation.user, RotationPhase::Init);
        let next = RotateRequest {
            kind: RotationKind::User,
            phase: RotationPhase::UpdateClients,
            plan: RotationPlan::Manual,
            force: true,
        };
        let status = opened.admin().rotate(next).await.unwrap();
        assert_eq!(status.phase, RotationPhase::UpdateClients);
    }
}

#[tokio::test]
async fn users_log_in_and_links_work_in_every_released_format() {
    for number in released() {
        let opened = Opened::format(number).await;
        let request: LoginRequest = login_request("ann", make::PASSWORD);
        let certs = opened.anybody().login(request).await.unwrap();
        assert_eq!(certs.logins, ["ann", "root"], "format {number}");
        let link = Secret::new(opened.known.invite.clone());
        assert_eq!(opened.anybody().invited_user(link).await.unwrap().user, UserName::new("bob").unwrap());
        let roles: Vec<_> = opened.admin().roles().await.unwrap().into_iter().map(|role| role.metadata.name).collect();
        assert_eq!(roles, ["access", "auditor", "dba", "editor"]);
        assert_eq!(opened.admin().revocations().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn hosts_renew_announce_themselves_and_join_in_every_released_format() {
    for number in released() {
        let opened = Opened::format(number).await;
        let renewed = opened.host().renew_host(None).await.unwrap();
        assert_eq!(renewed.host_id.to_string(), opened.known.host_id, "format {number}");
        let nodes = opened.admin().nodes().await.unwrap();
        assert_eq!(nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["gw-17"]);
        opened.host().announce_node(remoteler_core::NodeRecord::clone(&nodes[0])).await.unwrap();
        let token = Secret::new(make::JOIN_TOKEN);
        opened.anybody().join(join_request(&token, "gw-18", &[SystemRole::Node])).await.unwrap();
        let taken = opened.anybody().join(join_request(&token, "gw-17", &[SystemRole::Node])).await.unwrap_err();
        assert!(taken.message.contains(&opened.known.host_id), "{taken}");
    }
}

#[tokio::test]
async fn the_audit_log_and_recordings_of_every_released_format_are_whole() {
    for number in released() {
        let opened = Opened::format(number).await;
        let kept = opened.service.event_log().verify().await.unwrap();
        assert!(kept >= opened.known.events, "format {number}: {kept} of {}", opened.known.events); // I75
        let query = EventQuery { event: Some("user.login".into()), ..EventQuery::default() };
        let logins = opened.admin().events(query).await.unwrap();
        assert!(logins.iter().any(|event| event.time == opened.known.now), "{logins:?}");
        let session = opened.known.session.parse().unwrap();
        assert_eq!(opened.admin().read_recording(session, 0).await.unwrap(), make::RECORDING);
        let [recording] = opened.admin().recordings().await.unwrap().try_into().unwrap();
        assert_eq!((recording.user.as_str(), recording.complete), ("ann", true));
    }
}

#[tokio::test]
async fn what_ends_in_time_ends_in_an_older_format_too() {
    for number in released() {
        let opened = Opened::format(number).await;
        opened.clock.set(Timestamp::parse("2026-04-15T12:00:00Z").unwrap());
        let token = Secret::new(make::JOIN_TOKEN);
        let refused = opened.anybody().join(join_request(&token, "gw-18", &[SystemRole::Node])).await.unwrap_err();
        assert!(refused.message.contains("expired"), "format {number}: {refused}");
        assert!(opened.anybody().invited_user(Secret::new(opened.known.invite.clone())).await.is_err());
        assert!(opened.admin().nodes().await.unwrap().is_empty());
    }
}
