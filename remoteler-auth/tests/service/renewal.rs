//! Renewing widens nothing, whatever the host was let in as and whatever it asks for in between (I10).

use proptest::prelude::*;
use remoteler_core::{ApiErrorKind, HostIdentity, InstanceId, JoinRequest, Labels, NewToken, SystemRole};
use uuid::Uuid;

use crate::support::{Cluster, join_request};

use SystemRole::{Kube, Node, Proxy};

/// A host to be let in: services, Kubernetes clusters, labels of its token, a pattern, and how often and by which runs it renews.
#[derive(Clone, Debug)]
struct Parent {
    roles: Vec<SystemRole>,
    kube: Vec<String>,
    labels: Labels,
    named: bool,
    renewals: Vec<Option<u128>>,
}

fn parent() -> impl Strategy<Value = Parent> {
    let roles = proptest::sample::subsequence(vec![Node, Kube, Proxy], 1..=3);
    let kube = proptest::collection::btree_set("kube-[a-z]{1,8}", 0..4);
    let labels = proptest::collection::btree_map("[a-z]{1,8}", "[a-zA-Z0-9./ -]{1,12}", 0..5);
    let renewals = proptest::collection::vec(proptest::option::of(1..4_u128), 1..6);
    (roles, kube, labels, any::<bool>(), renewals).prop_map(|(roles, kube, labels, named, renewals)| {
        let kube = if roles.contains(&Kube) { kube.into_iter().collect() } else { Vec::new() };
        Parent { roles, kube, labels, named, renewals }
    })
}

fn what_it_may(identity: &HostIdentity) -> HostIdentity {
    identity.of_generation(0)
}

async fn check(cluster: &Cluster, number: usize, parent: Parent) {
    let Parent { roles, kube, labels, named, renewals } = parent;
    let name = format!("kube-host-{number}");
    let kube: Vec<String> = kube.into_iter().map(|name| format!("{name}-{number}")).collect();
    let kube: Vec<&str> = kube.iter().map(String::as_str).collect();
    let token = NewToken {
        // The token is for more than the host asks for: what it did not ask for it does not get later.
        roles: [Node, Kube, Proxy].into(),
        names: named.then(|| "kube-*".to_owned()),
        labels: labels.clone(),
        ..NewToken::default()
    };
    let token = cluster.admin().create_token(token).await.unwrap().token;
    let request: JoinRequest = join_request(&token, &name, &roles, &kube);
    let mut certs = cluster.anonymous().join(request).await.unwrap();
    let first = cluster.verify(&certs.tls_certificate).host().unwrap().identity().clone();
    assert_eq!((first.roles.len(), first.kube_clusters.len(), &first.labels), (roles.len(), kube.len(), &labels));
    let mut generation = first.generation;
    for run in renewals {
        let run = run.map(|run| InstanceId::from_uuid(Uuid::from_u128(run)));
        certs = cluster.as_host(&certs).renew_host(run).await.unwrap();
        let renewed = cluster.verify(&certs.tls_certificate).host().unwrap();
        assert_eq!(what_it_may(renewed.identity()), what_it_may(&first));
        let ssh = ssh_key::Certificate::from_openssh(&certs.ssh_certificate).unwrap();
        assert_eq!(
            remoteler_core::ssh_identity(&ssh).unwrap(),
            remoteler_core::Identity::Host(renewed.identity().clone())
        );
        let now = renewed.identity().generation;
        assert!(now == generation || now == generation + 1, "{generation} becomes {now}");
        generation = now;
    }
}

// I10
#[test]
fn renewing_gives_random_hosts_what_they_were_let_in_as_and_nothing_more() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cluster = runtime.block_on(Cluster::start());
    let number = std::cell::Cell::new(0);
    let config = ProptestConfig { cases: 48, ..ProptestConfig::default() };
    proptest!(config, |(parent in parent())| {
        number.set(number.get() + 1);
        runtime.block_on(check(&cluster, number.get(), parent));
    });
}

#[tokio::test]
async fn a_host_that_renews_without_end_is_told_to_wait_and_others_are_not() {
    let cluster = Cluster::start().await;
    let (busy, other) = (cluster.join("busy", &[Node], &[]).await, cluster.join("other", &[Node], &[]).await);
    let api = cluster.as_host(&busy);
    let mut renewed = 0;
    let refused = loop {
        match api.renew_host(None).await {
            Ok(_) => renewed += 1,
            Err(refused) => break refused,
        }
        assert!(renewed < 1000, "it goes on without end");
    };
    assert_eq!((refused.kind, renewed), (ApiErrorKind::RateLimited, 60));
    cluster.as_host(&other).renew_host(None).await.unwrap();
    cluster.clock.advance(std::time::Duration::from_secs(300));
    api.renew_host(None).await.unwrap();
}
