use remoteler_core::{
    ApiErrorKind, AuditEvent, AuditKind, Clock, ClusterName, ConnectionFields, EventQuery, SessionFields, SystemRole,
};
use uuid::Uuid;

use crate::support::{Cluster, kind};

fn event(cluster: &Cluster, kind: AuditKind) -> AuditEvent {
    AuditEvent::new(kind, cluster.clock.now(), Uuid::new_v4(), cluster.service.cluster_name().clone())
}

fn exec(server_id: &str) -> AuditKind {
    let session = SessionFields {
        sid: Uuid::new_v4().to_string(),
        user: "ann".into(),
        login: "root".into(),
        server_id: server_id.into(),
        server_hostname: "edge".into(),
    };
    AuditKind::Exec { session, command: "uptime".into(), exit_code: None, error: None }
}

#[tokio::test]
async fn a_hosts_events_are_kept_once_however_often_they_come() {
    let cluster = Cluster::start().await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let api = cluster.as_host(&certs);
    let events = vec![event(&cluster, exec(&certs.host_id.to_string())); 2];
    api.record_events(events.clone()).await.unwrap();
    api.record_events(events.clone()).await.unwrap();
    assert_eq!(cluster.events("exec").await, &events[..1]);
}

#[tokio::test]
async fn a_host_cannot_forge_the_events_of_others() {
    let cluster = Cluster::start().await;
    let edge = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let other = cluster.join("other", &[SystemRole::Node], &[]).await;
    let api = cluster.as_host(&edge);
    let kube = AuditKind::KubeRequest {
        user: "ann".into(),
        kubernetes_cluster: "staging".into(),
        kubernetes_user: "ann".into(),
        kubernetes_groups: Vec::new(),
        verb: "GET".into(),
        request_path: "/".into(),
        response_code: None,
        connection: ConnectionFields::default(),
    };
    let login =
        AuditKind::UserLogin { user: "ann".into(), method: "local".into(), success: true, error: None, remote: None };
    let mut elsewhere = event(&cluster, exec(&edge.host_id.to_string()));
    elsewhere.cluster_name = ClusterName::new("leaf").unwrap();
    for forged in
        [event(&cluster, exec(&other.host_id.to_string())), event(&cluster, kube), event(&cluster, login), elsewhere]
    {
        let own = event(&cluster, exec(&edge.host_id.to_string()));
        assert_eq!(kind(api.record_events(vec![own, forged]).await), ApiErrorKind::Denied); // I66
    }
    assert!(cluster.events("exec").await.is_empty(), "all or none");
    assert_eq!(cluster.events("auth").await.len(), 4);
    assert_eq!(kind(cluster.admin().record_events(Vec::new()).await), ApiErrorKind::Denied);
}

#[tokio::test]
async fn too_many_events_at_once_are_refused() {
    let cluster = Cluster::start().await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let events = vec![event(&cluster, exec(&certs.host_id.to_string())); 1001];
    assert_eq!(kind(cluster.as_host(&certs).record_events(events).await), ApiErrorKind::BadRequest);
}

#[tokio::test]
async fn only_auditors_read_the_log() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["auditor"], &[]).await;
    cluster.user("bob", &["access", "editor"], &[]).await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    assert!(!cluster.as_user("ann").await.events(EventQuery::default()).await.unwrap().is_empty());
    assert_eq!(kind(cluster.as_user("bob").await.events(EventQuery::default()).await), ApiErrorKind::Denied);
    assert_eq!(kind(cluster.as_host(&certs).events(EventQuery::default()).await), ApiErrorKind::Denied); // I66
}

#[tokio::test]
async fn the_chain_of_the_log_holds_over_everything_that_happened() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    cluster.log_in("ann").await;
    assert!(cluster.service.event_log().verify().await.unwrap() >= 5); // I75
}

#[tokio::test]
async fn refusals_of_nobody_in_particular_cannot_fill_the_log() {
    let cluster = Cluster::start().await;
    for _ in 0..50 {
        assert_eq!(kind(cluster.anonymous().users().await), ApiErrorKind::Unauthenticated);
    }
    assert_eq!(cluster.events("auth").await.len(), 10);
}
