//! Backups: who gets one, what is in it, and that it can be put back.

use std::{fs, sync::Arc, time::Duration};

use remoteler_auth::{AuthConfig, AuthService, Caller, Database, EventLog, MemoryStorage, RecordingFiles};
use remoteler_core::{ApiErrorKind, AuditKind, AuthApi, Clock, ClusterName, SystemRole};

use crate::support::{Cluster, PASSWORD, kind, login_request, new_user};

async fn fetch(api: &dyn AuthApi) -> Vec<u8> {
    let mut status = api.start_backup().await.unwrap();
    let began = std::time::Instant::now();
    while status.size.is_none() {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(2)).await;
        status = api.backup(status.id).await.unwrap();
    }
    let mut octets = Vec::new();
    loop {
        let part = api.read_backup(status.id.clone(), octets.len() as u64).await.unwrap();
        if part.is_empty() {
            break;
        }
        octets.extend(part);
    }
    assert_eq!(Some(octets.len() as u64), status.size);
    let digest = ring::digest::digest(&ring::digest::SHA256, &octets);
    let hex: String = digest.as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(Some(hex), status.sha256);
    octets
}

async fn open(dir: &std::path::Path, clock: Arc<dyn Clock>) -> AuthService {
    let config = AuthConfig { clock, ..AuthConfig::new(dir, ClusterName::new("root").unwrap()) };
    AuthService::open(config).await.unwrap()
}

#[tokio::test]
async fn a_backup_that_is_put_back_is_the_cluster_as_it_was() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let host = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let octets = fetch(&*cluster.admin()).await;
    cluster.admin().create_user(new_user("later", &["access"], &["root"])).await.unwrap();
    let [event] = cluster.events("backup.create").await.try_into().unwrap();
    assert!(matches!(&event.kind, AuditKind::BackupCreate { user } if user == "local:administrator"), "{event:?}");
    assert!(!cluster.dir.path().join("auth.backup").exists());

    let restored = tempfile::tempdir().unwrap();
    fs::write(restored.path().join("auth.sqlite"), octets).unwrap();
    let service = open(restored.path(), cluster.clock.clone()).await;
    assert_eq!(service.trust_bundle(), cluster.service.trust_bundle());
    let anybody = service.as_caller(Caller::Anonymous { addr: ([192, 0, 2, 9], 4_000).into() });
    anybody.login(login_request("ann", PASSWORD)).await.unwrap();
    service.as_caller(cluster.host_caller(&host)).renew_host(None).await.unwrap();
    let users = service.as_caller(Caller::LocalAdmin).users().await.unwrap();
    assert_eq!(users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>(), ["ann"]);
    assert!(service.event_log().verify().await.unwrap() > 5); // I75
}

#[tokio::test]
async fn a_backup_is_of_one_moment_however_much_is_written_meanwhile() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let writer = tokio::spawn(async move {
        for number in 0.. {
            let name = format!("user-{number}");
            if admin.create_user(new_user(&name, &["access"], &["root"])).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..3 {
        let octets = fetch(&*cluster.admin()).await;
        let restored = tempfile::tempdir().unwrap();
        fs::write(restored.path().join("auth.sqlite"), octets).unwrap();
        let service = open(restored.path(), cluster.clock.clone()).await;
        service.event_log().verify().await.unwrap(); // I75
        let users = service.as_caller(Caller::LocalAdmin).users().await.unwrap();
        let events = remoteler_core::EventQuery {
            event: Some("user.create".into()),
            limit: Some(10_000),
            ..remoteler_core::EventQuery::default()
        };
        let made = service.as_caller(Caller::LocalAdmin).events(events).await.unwrap();
        // An event is there before what it allows, and one user at most is between the two.
        assert!(made.len() - users.len() <= 1, "{} events, {} users", made.len(), users.len());
    }
    writer.abort();
}

#[tokio::test]
async fn only_the_administrator_of_the_machine_gets_one() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access", "editor", "auditor"], &["root"]).await;
    let host = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let status = cluster.admin().start_backup().await.unwrap();
    for api in [cluster.as_user("ann").await, cluster.as_host(&host)] {
        assert_eq!(kind(api.start_backup().await), ApiErrorKind::Denied); // I9
        assert_eq!(kind(api.backup(status.id.clone()).await), ApiErrorKind::Denied);
        assert_eq!(kind(api.read_backup(status.id.clone(), 0).await), ApiErrorKind::Denied);
    }
    assert_eq!(kind(cluster.anonymous().start_backup().await), ApiErrorKind::Unauthenticated);
    assert!(cluster.events("auth").await.len() >= 6);
}

#[tokio::test]
async fn one_is_made_at_a_time_and_it_is_gone_when_it_was_fetched() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let first = admin.start_backup().await.unwrap();
    assert_eq!(kind(admin.start_backup().await), ApiErrorKind::Conflict);
    assert_eq!(kind(admin.backup("another".into()).await), ApiErrorKind::NotFound);
    let began = std::time::Instant::now();
    while admin.backup(first.id.clone()).await.unwrap().size.is_none() {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(admin.backup(first.id.clone()).await.unwrap().clear_keys, "no key seals them here");
    assert!(admin.read_backup(first.id.clone(), u64::from(u32::MAX)).await.unwrap().is_empty());
    assert_eq!(kind(admin.read_backup(first.id, 0).await), ApiErrorKind::NotFound);
    fetch(&*admin).await;
}

#[tokio::test]
async fn what_a_process_left_that_died_in_the_midst_is_removed_at_the_next_start() {
    let cluster = Cluster::start().await;
    let Cluster { service, clock, dir } = cluster;
    drop(service);
    fs::write(dir.path().join("auth.backup"), "half of it").unwrap();
    let began = std::time::Instant::now();
    while AuthService::open(AuthConfig::new(dir.path(), ClusterName::new("root").unwrap())).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(60)); // a process that is just starting holds a copy of the lock
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!dir.path().join("auth.backup").exists());
    drop(clock);
}

#[tokio::test]
async fn a_service_over_another_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = AuthConfig::new(dir.path(), ClusterName::new("root").unwrap());
    let events = EventLog::new(Arc::new(Database::in_memory().unwrap()));
    let recordings = RecordingFiles::open(&dir.path().join("recordings")).unwrap();
    let service =
        AuthService::with_stores(config, Arc::new(MemoryStorage::default()), events, recordings).await.unwrap();
    let refused = service.as_caller(Caller::LocalAdmin).start_backup().await.unwrap_err();
    assert_eq!(refused.kind, ApiErrorKind::BadRequest);
    assert!(refused.message.contains("elsewhere"), "{refused}");
}
