use remoteler_auth::HostQuotas;
use remoteler_core::{
    ApiErrorKind, AuditEvent, AuditKind, Clock, ConnectionFields, HostCerts, RecordingChunk, SessionFields, SessionId,
    SystemRole,
};
use uuid::Uuid;

use crate::support::{Cluster, kind};

async fn session(cluster: &Cluster, certs: &HostCerts, user: &str) -> SessionId {
    let id = SessionId::from_uuid(Uuid::new_v4());
    begin(cluster, certs, user, id).await;
    id
}

async fn begin(cluster: &Cluster, certs: &HostCerts, user: &str, id: SessionId) {
    let session = SessionFields {
        sid: id.to_string(),
        user: user.into(),
        login: "root".into(),
        server_id: certs.host_id.to_string(),
        server_hostname: "edge".into(),
    };
    let kind = AuditKind::SessionStart {
        session,
        connection: ConnectionFields::default(),
        interactive: true,
        size: None,
        initial_command: Vec::new(),
        role: None,
        with_mfa: None,
    };
    let name = cluster.service.cluster_name().clone();
    let event = AuditEvent::new(kind, cluster.clock.now(), Uuid::new_v4(), name);
    cluster.as_host(certs).record_events(vec![event]).await.unwrap();
}

fn chunk(session_id: SessionId, offset: u64, octets: &[u8], last: bool) -> RecordingChunk {
    RecordingChunk { session_id, offset, octets: octets.to_vec(), last }
}

#[tokio::test]
async fn a_node_that_records_too_much_in_a_day_is_told_to_wait() {
    let quotas = HostQuotas { recorded_per_day: 86_400, ..HostQuotas::default() };
    let cluster = Cluster::with_quotas(quotas).await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let (node, id) = (cluster.as_host(&certs), session(&cluster, &certs, "ann").await);
    node.append_recording(chunk(id, 0, &[b'x'; 80_000], false)).await.unwrap();
    let more = chunk(id, 80_000, &[b'x'; 10_000], true);
    assert_eq!(kind(node.append_recording(more.clone()).await), ApiErrorKind::RateLimited);
    assert_eq!(node.recording_size(id).await.unwrap(), 80_000);
    cluster.clock.advance(std::time::Duration::from_secs(3_600));
    node.append_recording(more).await.unwrap();
    assert_eq!(node.recording_size(id).await.unwrap(), 90_000);
}

#[tokio::test]
async fn a_node_uploads_a_recording_in_parts_and_the_user_plays_it() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let (node, id) = (cluster.as_host(&certs), session(&cluster, &certs, "ann").await);
    assert_eq!(node.recording_size(id).await.unwrap(), 0);
    node.append_recording(chunk(id, 0, b"hello ", false)).await.unwrap();
    assert_eq!(kind(node.append_recording(chunk(id, 0, b"hello ", false)).await), ApiErrorKind::Conflict);
    assert_eq!(node.recording_size(id).await.unwrap(), 6);
    node.append_recording(chunk(id, 6, b"world", true)).await.unwrap();
    node.append_recording(chunk(id, 11, b"", true)).await.unwrap();
    assert_eq!(kind(node.append_recording(chunk(id, 11, b"!", false)).await), ApiErrorKind::Conflict);

    let ann = cluster.as_user("ann").await;
    assert_eq!(ann.read_recording(id, 0).await.unwrap(), b"hello world");
    assert_eq!(ann.read_recording(id, 11).await.unwrap(), b"");
    let [info] = ann.recordings().await.unwrap().try_into().unwrap();
    assert_eq!((info.user.as_str(), info.node.as_str(), info.size, info.complete), ("ann", "edge", 11, true));
    let [event] = cluster.events("session.upload").await.try_into().unwrap();
    assert_eq!(event.kind, AuditKind::SessionUpload { sid: id.to_string(), size: 11 });
}

#[tokio::test]
async fn only_the_node_of_the_session_writes_its_recording() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access", "auditor", "editor"], &["root"]).await;
    let edge = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let other = cluster.join("other", &[SystemRole::Node], &[]).await;
    let proxy = cluster.join("proxy", &[SystemRole::Proxy], &[]).await;
    let id = session(&cluster, &edge, "ann").await;
    let write = |last| chunk(id, 0, b"x", last);
    for api in [cluster.as_host(&other), cluster.as_host(&proxy), cluster.as_user("ann").await, cluster.admin()] {
        assert_eq!(kind(api.append_recording(write(false)).await), ApiErrorKind::Denied); // I66
        assert_eq!(kind(api.recording_size(id).await), ApiErrorKind::Denied);
    }
    assert_eq!(kind(cluster.anonymous().append_recording(write(true)).await), ApiErrorKind::Unauthenticated);
    let unknown = SessionId::from_uuid(Uuid::new_v4());
    let refused = cluster.as_host(&edge).append_recording(chunk(unknown, 0, b"x", false)).await;
    assert_eq!(kind(refused), ApiErrorKind::NotFound);
    // Another node cannot take the session over with a session.start of its own.
    assert!(cluster.as_host(&edge).append_recording(write(false)).await.is_ok());
}

#[tokio::test]
async fn a_recording_is_read_by_its_user_and_by_auditors_alone() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    cluster.user("bob", &["access", "editor"], &["root"]).await;
    cluster.user("eve", &["auditor"], &[]).await;
    let edge = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let id = session(&cluster, &edge, "ann").await;
    cluster.as_host(&edge).append_recording(chunk(id, 0, b"x", true)).await.unwrap();
    for (user, allowed) in [("ann", true), ("bob", false), ("eve", true)] {
        let api = cluster.as_user(user).await;
        assert_eq!(api.read_recording(id, 0).await.is_ok(), allowed, "{user}"); // I66
        assert_eq!(api.recordings().await.unwrap().len(), usize::from(allowed), "{user}");
    }
    assert_eq!(kind(cluster.as_host(&edge).read_recording(id, 0).await), ApiErrorKind::Denied);
    assert_eq!(kind(cluster.as_host(&edge).recordings().await), ApiErrorKind::Denied);
    assert_eq!(kind(cluster.anonymous().recordings().await), ApiErrorKind::Unauthenticated);
}

// I66
#[tokio::test]
async fn whose_a_recording_is_outlives_the_events_that_said_so() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    cluster.user("mallory", &["access"], &["root"]).await;
    let edge = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let other = cluster.join("other", &[SystemRole::Node], &[]).await;
    let node = cluster.as_host(&edge);
    let (kept, late) = (session(&cluster, &edge, "ann").await, session(&cluster, &edge, "ann").await);
    node.append_recording(chunk(kept, 0, b"hello ", false)).await.unwrap();
    for _ in 0..256 {
        session(&cluster, &edge, "ann").await;
    }
    cluster.clock.advance(std::time::Duration::from_secs(7200));
    assert_eq!(cluster.service.remove_old_events(std::time::Duration::from_secs(3600)).await.unwrap(), 256);

    // What another node says now comes too late, though it is all that the log still has.
    for id in [kept, late] {
        begin(&cluster, &other, "mallory", id).await;
        assert_eq!(
            kind(cluster.as_host(&other).append_recording(chunk(id, 6, b"x", true)).await),
            ApiErrorKind::Denied
        );
    }
    node.append_recording(chunk(kept, 6, b"world", true)).await.unwrap();
    node.append_recording(chunk(late, 0, b"late", true)).await.unwrap();
    let Cluster { service, clock, dir } = cluster;
    drop((node, service));
    let cluster = Cluster::reopen(dir, clock).await;
    cluster.clock.advance(std::time::Duration::from_secs(40 * 24 * 3600));
    let ann = cluster.as_user("ann").await;
    assert_eq!(ann.read_recording(kept, 0).await.unwrap(), b"hello world");
    assert_eq!(ann.read_recording(late, 0).await.unwrap(), b"late");
    let listed: Vec<_> = ann.recordings().await.unwrap().into_iter().map(|info| (info.user, info.node)).collect();
    assert_eq!(listed, vec![("ann".to_owned(), "edge".to_owned()); 2]);
    let mallory = cluster.as_user("mallory").await;
    assert_eq!(kind(mallory.read_recording(kept, 0).await), ApiErrorKind::Denied);
    assert!(mallory.recordings().await.unwrap().is_empty());
}
