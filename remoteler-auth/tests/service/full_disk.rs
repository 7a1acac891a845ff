//! A disk without any room left: people still log in and administrators still act, services keep what they have, and it recovers by itself.

use std::{io::Write, process::Command, sync::Arc};

use remoteler_auth::{AuthConfig, AuthService};
use remoteler_core::{
    ApiErrorKind, AuditEvent, AuditKind, Clock, ClusterName, ConnectionFields, ManualClock, RecordingChunk,
    SessionFields, SessionId, SystemRole, Timestamp,
};

use crate::support::{Cluster, kind, new_user};

/// A file system of 16 MiB over a directory, as long as the value lives.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(dir: &std::path::Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs"]).arg(dir).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(dir.to_owned()))
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let mut octets = vec![7; 64 * 1024];
        while !octets.is_empty() {
            if file.write_all(&octets).is_err() {
                octets.truncate(octets.len() / 2);
            }
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn began(cluster: &Cluster, server: &str, session: SessionId) -> AuditEvent {
    let kind = AuditKind::SessionStart {
        session: SessionFields {
            sid: session.to_string(),
            user: "ann".into(),
            login: "root".into(),
            server_id: server.into(),
            server_hostname: "edge".into(),
        },
        connection: ConnectionFields::default(),
        interactive: true,
        size: None,
        initial_command: Vec::new(),
        role: None,
        with_mfa: None,
    };
    AuditEvent::new(kind, cluster.clock.now(), session.uuid(), cluster.service.cluster_name().clone())
}

async fn open(dir: &std::path::Path, clock: &Arc<ManualClock>) -> AuthService {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    AuthService::open(AuthConfig { clock, ..AuthConfig::new(dir, ClusterName::new("root").unwrap()) }).await.unwrap()
}

#[tokio::test]
async fn nobody_is_locked_out_by_a_full_disk_and_services_wait_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path()) else {
        eprintln!("SKIPPED: a small tmpfs cannot be mounted here (needs root)");
        return;
    };
    let clock = Arc::new(ManualClock::new(Timestamp::parse("2026-03-01T12:00:00Z").unwrap()));
    let mut cluster = Cluster { service: open(dir.path(), &clock).await, clock: Arc::clone(&clock), dir };
    cluster.user("ann", &["access"], &["root"]).await;
    let host = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let (server, session) = (host.host_id.to_string(), SessionId::from_uuid(uuid::Uuid::new_v4()));
    cluster.as_host(&host).record_events(vec![began(&cluster, &server, session)]).await.unwrap();
    let chunk = |offset| RecordingChunk { session_id: session, offset, octets: vec![b'x'; 1000], last: false };
    cluster.as_host(&host).append_recording(chunk(0)).await.unwrap();

    disk.fill();
    for _ in 0..2 {
        // People log in, an administrator acts, hosts renew.
        for number in 0..3 {
            cluster.log_in("ann").await;
            let name = format!("user-{}-{number}", uuid::Uuid::new_v4().simple());
            cluster.admin().create_user(new_user(&name, &["access"], &["root"])).await.unwrap();
            cluster.as_host(&host).renew_host(None).await.unwrap();
        }
        let waiting = began(&cluster, &server, SessionId::from_uuid(uuid::Uuid::new_v4()));
        assert_eq!(kind(cluster.as_host(&host).record_events(vec![waiting]).await), ApiErrorKind::Unavailable);
        assert_eq!(kind(cluster.as_host(&host).append_recording(chunk(1000)).await), ApiErrorKind::Unavailable);
        assert_eq!(cluster.as_host(&host).recording_size(session).await.unwrap(), 1000);
        // Started again on the full disk, it comes up and does the same.
        let Cluster { service, clock, dir } = cluster;
        drop(service);
        let service = open(dir.path(), &clock).await;
        cluster = Cluster { service, clock, dir };
    }

    disk.free();
    let waited = began(&cluster, &server, SessionId::from_uuid(uuid::Uuid::new_v4()));
    cluster.as_host(&host).record_events(vec![waited.clone()]).await.unwrap();
    cluster.as_host(&host).record_events(vec![waited]).await.unwrap(); // sent again, kept once
    cluster.as_host(&host).append_recording(chunk(1000)).await.unwrap();
    assert_eq!(cluster.events("session.start").await.len(), 2);
    cluster.service.event_log().verify().await.unwrap(); // I75
    assert!(cluster.dir.path().join("auth.reserve").exists(), "room is kept back again");
    drop(disk);
}
