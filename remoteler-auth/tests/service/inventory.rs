use std::{collections::BTreeMap, time::Duration};

use remoteler_core::{
    ApiErrorKind, CaKind, Clock, Heartbeat, HostCerts, KubeRecord, Labels, NewRevocation, NodeRecord, Resource,
    ResourceKind, RevocationReason, RevocationTarget, SystemRole, Timestamp, TlsSerial,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;

use crate::support::{Cluster, kind};

use SystemRole::{Kube, Node, Proxy};

fn node(certs: &HostCerts, name: &str, env: &str) -> NodeRecord {
    NodeRecord {
        host_id: certs.host_id,
        name: name.parse().unwrap(),
        labels: Labels::from([("env".into(), env.into())]),
        addr: None,
        version: "0.1.0".into(),
        last_seen: Timestamp::default(),
        heartbeat: Default::default(),
    }
}

fn kube(certs: &HostCerts, name: &str) -> KubeRecord {
    KubeRecord {
        host_id: certs.host_id,
        name: name.parse().unwrap(),
        labels: Labels::new(),
        addr: Some("127.0.0.1:3026".into()),
        version: "0.1.0".into(),
        last_seen: Timestamp::default(),
        heartbeat: Default::default(),
    }
}

#[tokio::test]
async fn a_node_is_listed_while_its_heart_beats() {
    let cluster = Cluster::start().await;
    let certs = cluster.join("edge", &[Node], &[]).await;
    cluster.as_host(&certs).announce_node(node(&certs, "edge", "prod")).await.unwrap();
    let listed = cluster.admin().nodes().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].last_seen, cluster.clock.now());
    cluster.clock.advance(Duration::from_secs(119));
    assert_eq!(cluster.admin().nodes().await.unwrap().len(), 1);
    cluster.clock.advance(Duration::from_secs(1));
    assert!(cluster.admin().nodes().await.unwrap().is_empty());
}

#[tokio::test]
async fn who_says_that_its_heart_beats_seldom_is_listed_for_as_much_longer_and_after_its_last_word_as_long_as_others() {
    let cluster = Cluster::start().await;
    let certs = cluster.join("edge", &[Node, Kube], &["staging"]).await;
    let api = cluster.as_host(&certs);
    let seldom = Heartbeat::from(300);
    let listed = async || {
        let (nodes, clusters) =
            (cluster.admin().nodes().await.unwrap(), cluster.admin().kube_clusters().await.unwrap());
        (nodes.len(), clusters.len())
    };
    api.announce_node(NodeRecord { heartbeat: seldom, ..node(&certs, "edge", "prod") }).await.unwrap();
    api.announce_kube(KubeRecord { heartbeat: seldom, ..kube(&certs, "staging") }).await.unwrap();
    cluster.clock.advance(Duration::from_secs(659));
    assert_eq!(listed().await, (1, 1));
    cluster.clock.advance(Duration::from_secs(1));
    assert_eq!(listed().await, (0, 0));

    api.announce_node(NodeRecord { heartbeat: seldom, ..node(&certs, "edge", "prod") }).await.unwrap();
    api.announce_node(node(&certs, "edge", "prod")).await.unwrap();
    cluster.clock.advance(Duration::from_secs(120));
    assert_eq!(listed().await, (0, 0));
}

#[tokio::test]
async fn a_host_announces_only_what_its_certificate_says() {
    let cluster = Cluster::start().await;
    let edge = cluster.join("edge", &[Node], &[]).await;
    let other = cluster.join("other", &[Node, Kube], &["staging"]).await;
    let api = cluster.as_host(&edge);
    for record in [node(&other, "other", "a"), node(&edge, "other", "a"), node(&other, "edge", "a")] {
        assert_eq!(kind(api.announce_node(record).await), ApiErrorKind::Denied); // I28
    }
    assert_eq!(kind(api.announce_kube(kube(&edge, "staging")).await), ApiErrorKind::Denied);
    assert_eq!(kind(api.announce_proxy("evil:443".into()).await), ApiErrorKind::Denied);
    let api = cluster.as_host(&other);
    assert_eq!(kind(api.announce_kube(kube(&other, "production")).await), ApiErrorKind::Denied);
    api.announce_kube(kube(&other, "staging")).await.unwrap();
    assert_eq!(kind(cluster.admin().announce_node(node(&edge, "edge", "a")).await), ApiErrorKind::Denied);
    assert_eq!(cluster.events("auth").await.len(), 7);
    assert!(cluster.admin().nodes().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_removed_node_that_still_lives_comes_back_unless_its_name_was_taken() {
    let cluster = Cluster::start().await;
    let certs = cluster.join("edge", &[Node], &[]).await;
    let api = cluster.as_host(&certs);
    let remove = async |id: String| cluster.admin().delete_resource(ResourceKind::Node, id).await.unwrap();
    api.announce_node(node(&certs, "edge", "prod")).await.unwrap();
    remove(certs.host_id.to_string()).await;
    assert!(cluster.admin().nodes().await.unwrap().is_empty());
    api.announce_node(node(&certs, "edge", "prod")).await.unwrap();
    assert_eq!(cluster.admin().nodes().await.unwrap().len(), 1);

    remove(certs.host_id.to_string()).await;
    let second = cluster.join("edge", &[Node], &[]).await; // I28
    cluster.as_host(&second).announce_node(node(&second, "edge", "prod")).await.unwrap();
    assert_eq!(kind(api.announce_node(node(&certs, "edge", "prod")).await), ApiErrorKind::Conflict);
    assert_eq!(cluster.events("resource.delete").await.len(), 2);
}

#[tokio::test]
async fn users_see_what_their_roles_let_them_use() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "allow": { "logins": ["root"], "node_labels": { "env": "dev" }, "kubernetes_labels": { "*": "*" } },
    });
    let role = Resource::role(&"dev".parse().unwrap(), &serde_json::from_value(spec).unwrap());
    cluster.admin().put_resource(role, false).await.unwrap();
    for (name, env) in [("one", "dev"), ("two", "prod")] {
        let certs = cluster.join(name, &[Node, Kube], &[&format!("kube-{name}")]).await;
        cluster.as_host(&certs).announce_node(node(&certs, name, env)).await.unwrap();
        cluster.as_host(&certs).announce_kube(kube(&certs, &format!("kube-{name}"))).await.unwrap();
    }
    let proxy = cluster.join("proxy", &[Proxy], &[]).await;
    let edge = cluster.join("edge", &[Node], &[]).await;
    cluster.user("dev", &["dev"], &[]).await;
    cluster.user("editor", &["editor"], &[]).await;
    cluster.user("auditor", &["auditor"], &[]).await;
    let mut seen = BTreeMap::new();
    for user in ["dev", "editor", "auditor"] {
        let api = cluster.as_user(user).await;
        seen.insert(user, (api.nodes().await.unwrap().len(), api.kube_clusters().await.unwrap().len()));
    }
    assert_eq!(seen, BTreeMap::from([("dev", (1, 2)), ("editor", (2, 2)), ("auditor", (0, 0))]));
    assert_eq!(cluster.as_host(&proxy).nodes().await.unwrap().len(), 2);
    assert_eq!(kind(cluster.as_host(&edge).nodes().await), ApiErrorKind::Denied);
    assert_eq!(kind(cluster.anonymous().nodes().await), ApiErrorKind::Unauthenticated);
}

#[tokio::test]
async fn a_proxys_public_address_stands_in_links() {
    let cluster = Cluster::start().await;
    let proxy = cluster.join("proxy", &[Proxy], &[]).await;
    let api = cluster.as_host(&proxy);
    for bad in ["proxy", "proxy:0", "proxy:99999", "a/b:1", "https://x:1", ":443"] {
        assert_eq!(kind(api.announce_proxy(bad.into()).await), ApiErrorKind::BadRequest, "{bad}");
    }
    api.announce_proxy("proxy.example.com:443".into()).await.unwrap();
    let invite = cluster.admin().create_user(crate::support::new_user("ann", &["access"], &[])).await.unwrap();
    assert_eq!(invite.proxy_addr.as_deref(), Some("proxy.example.com:443"));
}

#[tokio::test]
async fn proxies_hear_of_each_other_while_they_announce_themselves_and_nobody_else_does() {
    let cluster = Cluster::start().await;
    let one = cluster.join("one", &[Proxy], &[]).await;
    let two = cluster.join("two", &[Proxy], &[]).await;
    let edge = cluster.join("edge", &[Node], &[]).await;
    cluster.as_host(&one).announce_proxy("one.example.com:443".into()).await.unwrap();
    cluster.clock.advance(std::time::Duration::from_secs(100));
    cluster.as_host(&two).announce_proxy("two.example.com:443".into()).await.unwrap();
    let whole = cluster.as_host(&one).inventory(None, Duration::ZERO).await.unwrap();
    assert!(whole.whole);
    assert_eq!(whole.proxies.len(), 2, "{whole:?}");
    cluster.clock.advance(Duration::from_secs(100));
    let whole = cluster.admin().inventory(None, Duration::ZERO).await.unwrap();
    assert_eq!(
        whole.proxies.iter().map(|proxy| proxy.public_addr.as_str()).collect::<Vec<_>>(),
        ["two.example.com:443"]
    );
    assert_eq!(whole.proxies.first().unwrap().host_id, two.host_id);
    assert_eq!(kind(cluster.as_host(&edge).inventory(None, Duration::ZERO).await), ApiErrorKind::Denied);
    assert_eq!(kind(cluster.anonymous().inventory(None, Duration::ZERO).await), ApiErrorKind::Unauthenticated);
}

#[tokio::test]
async fn a_proxy_is_told_what_changed_in_the_inventory_and_nothing_else() {
    let cluster = Cluster::start().await;
    let proxy = cluster.join("proxy", &[Proxy], &[]).await;
    let edge = cluster.join("edge", &[Node], &[]).await;
    let api = cluster.as_host(&proxy);
    let whole = api.inventory(None, Duration::ZERO).await.unwrap();
    assert!(whole.whole && whole.nodes.is_empty(), "{whole:?}");

    // What is not of the inventory wakes nobody up for long.
    cluster.admin().create_user(crate::support::new_user("ann", &["access"], &[])).await.unwrap();
    let nothing = api.inventory(Some(whole.revision), Duration::ZERO).await.unwrap();
    assert!(nothing.is_empty(), "{nothing:?}");

    let waiting = tokio::spawn({
        let (api, after) = (cluster.as_host(&proxy), nothing.revision);
        async move { api.inventory(Some(after), Duration::from_secs(25)).await }
    });
    cluster.as_host(&edge).announce_node(node(&edge, "edge", "prod")).await.unwrap();
    let told = waiting.await.unwrap().unwrap();
    assert_eq!(told.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["edge"]);
    assert!(!told.whole && told.revision > nothing.revision);

    cluster.admin().delete_resource(ResourceKind::Node, "edge".into()).await.unwrap();
    let told = api.inventory(Some(told.revision), Duration::from_secs(25)).await.unwrap();
    assert_eq!((told.nodes.len(), told.gone_nodes.len()), (0, 1), "{told:?}");

    // Of another time, or of another store: everything.
    let future = remoteler_core::Revision(told.revision.0 + 1_000_000);
    assert!(api.inventory(Some(future), Duration::ZERO).await.unwrap().whole);
}

fn tls_serial(certs: &HostCerts) -> RevocationTarget {
    let tls = CertificateDer::from_pem_slice(certs.tls_certificate.as_bytes()).unwrap();
    let serial = x509_parser::parse_x509_certificate(&tls).unwrap().1.raw_serial().to_vec();
    RevocationTarget::TlsSerial { authority: CaKind::Host, serial: TlsSerial::from_octets(&serial).unwrap() }
}

#[tokio::test]
async fn who_is_no_proxy_any_more_is_told_nothing_while_waiting() {
    let cluster = Cluster::start().await;
    let proxy = cluster.join("proxy", &[Proxy], &[]).await;
    let edge = cluster.join("edge", &[Node], &[]).await;
    let api = cluster.as_host(&proxy);
    let known = api.inventory(None, Duration::ZERO).await.unwrap().revision;
    let waiting = tokio::spawn(async move { api.inventory(Some(known), Duration::from_secs(25)).await });
    let revocation = NewRevocation {
        target: tls_serial(&proxy),
        reason: RevocationReason::KeyCompromise,
        comment: "stolen".into(),
        ttl_seconds: None,
    };
    cluster.admin().revoke(revocation).await.unwrap();
    cluster.as_host(&edge).announce_node(node(&edge, "edge", "prod")).await.unwrap();
    assert_eq!(kind(waiting.await.unwrap()), ApiErrorKind::Unauthenticated);
}
