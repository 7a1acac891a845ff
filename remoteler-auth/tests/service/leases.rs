//! Connections counted over hosts: who may, how many, after a restart, and when nobody speaks of them any more.

use std::time::Duration;

use remoteler_auth::HostQuotas;
use remoteler_core::{
    ApiErrorKind, AuditEvent, AuditKind, Clock, ConnectionKind, ConnectionLease, LEASE_LIFE, LeaseReport, LeaseRequest,
    SystemRole,
};
use uuid::Uuid;

use crate::support::{Cluster, kind};

fn lease(number: u128, kind: ConnectionKind) -> ConnectionLease {
    ConnectionLease { id: Uuid::from_u128(number), user: "ann".parse().unwrap(), kind }
}

fn asks(number: u128) -> LeaseRequest {
    LeaseRequest { lease: lease(number, ConnectionKind::Ssh), limit: 2 }
}

#[tokio::test]
async fn a_users_connections_are_counted_over_all_hosts_and_a_restart_forgets_none() {
    let cluster = Cluster::start().await;
    let mut certs = Vec::new();
    for name in ["n1", "n2"] {
        certs.push(cluster.join(name, &[SystemRole::Node], &[]).await);
    }
    let granted = async |cluster: &Cluster, host: usize, number| {
        cluster.as_host(&certs[host]).take_lease(asks(number)).await.unwrap().granted
    };
    assert!(granted(&cluster, 0, 1).await && granted(&cluster, 1, 2).await);
    assert!(!granted(&cluster, 0, 3).await);

    let Cluster { service, clock, dir } = cluster;
    drop(service);
    let cluster = Cluster::reopen(dir, clock).await;
    assert!(!granted(&cluster, 0, 3).await, "the service was restarted, the connections were not");
    let over = LeaseReport { released: vec![lease(1, ConnectionKind::Ssh)], ..LeaseReport::default() };
    cluster.as_host(&certs[1]).report_leases(over.clone()).await.unwrap();
    assert!(!granted(&cluster, 1, 3).await, "another host's connection is not its to end");
    cluster.as_host(&certs[0]).report_leases(over).await.unwrap();
    assert!(granted(&cluster, 1, 3).await);

    // One of the hosts is gone without a word, the other speaks of what it holds.
    cluster.clock.advance(LEASE_LIFE / 2);
    let held = LeaseReport { held: vec![lease(3, ConnectionKind::Ssh)], ..LeaseReport::default() };
    cluster.as_host(&certs[1]).report_leases(held).await.unwrap();
    assert!(!granted(&cluster, 0, 4).await);
    cluster.clock.advance(LEASE_LIFE / 2 + Duration::from_millis(1));
    assert!(granted(&cluster, 0, 4).await, "what nobody spoke of for a minute counts no more");
    assert!(!granted(&cluster, 0, 5).await, "the other one counts");
}

#[tokio::test]
async fn only_services_count_and_only_what_they_serve() {
    let cluster = Cluster::with_quotas(HostQuotas::default()).await;
    cluster.user("ann", &["access"], &["root"]).await;
    let node = cluster.join("n1", &[SystemRole::Node], &[]).await;
    let node = cluster.as_host(&node);
    let kube = LeaseRequest { lease: lease(1, ConnectionKind::Kube), limit: 1 };
    assert_eq!(kind(node.take_lease(kube.clone()).await), ApiErrorKind::Denied);
    let report = LeaseReport { held: vec![kube.lease], ..LeaseReport::default() };
    assert_eq!(kind(node.report_leases(report).await), ApiErrorKind::Denied);
    assert_eq!(kind(cluster.anonymous().take_lease(asks(1)).await), ApiErrorKind::Unauthenticated);
    for other in [cluster.admin(), cluster.as_user("ann").await] {
        assert_eq!(kind(other.take_lease(asks(1)).await), ApiErrorKind::Denied);
        assert_eq!(kind(other.report_leases(LeaseReport::default()).await), ApiErrorKind::Denied);
    }
    let many = (0..1001).map(|number| lease(number, ConnectionKind::Ssh)).collect();
    let report = LeaseReport { held: many, ..LeaseReport::default() };
    assert_eq!(kind(node.report_leases(report).await), ApiErrorKind::BadRequest);
}

#[tokio::test]
async fn a_host_reports_only_its_own_rejections() {
    let cluster = Cluster::start().await;
    let node = cluster.join("n1", &[SystemRole::Node], &[]).await;
    let api = cluster.as_host(&node);
    let rejected = |service: &str, place: &str| {
        let kind = AuditKind::SessionRejected {
            user: "ann".into(),
            login: None,
            service: service.into(),
            server_hostname: place.into(),
            reason: "max_connections limit reached".into(),
            maximum: Some(2),
            error: "no room".into(),
            remote: None,
        };
        AuditEvent::new(kind, cluster.clock.now(), Uuid::new_v4(), cluster.service.cluster_name().clone())
    };
    for forged in [rejected("node", "n2"), rejected("kube", "n1"), rejected("proxy", "n1"), rejected("", "n1")] {
        assert_eq!(kind(api.record_events(vec![forged]).await), ApiErrorKind::Denied);
    }
    api.record_events(vec![rejected("node", "n1")]).await.unwrap();
    let kept = cluster.events("session.rejected").await;
    assert_eq!((kept.len(), kept[0].code.as_str()), (1, "T1006W"));
}
