use std::{collections::BTreeSet, time::Duration};

use remoteler_auth::LocalHost;
use remoteler_core::{
    ApiErrorKind, AuditKind, Clock, JoinRequest, NewToken, NodeName, ResourceKind, Secret, SshCertificatePurpose,
    SystemRole, Verified, verify_ssh_certificate,
};

use crate::support::{Cluster, Keys, join_request, kind};

use SystemRole::{Auth, Kube, Node, Proxy};

#[tokio::test]
async fn a_host_gets_an_id_drawn_here_and_certificates_that_verify() {
    let cluster = Cluster::start().await;
    let certs = cluster.join("edge", &[Node, Kube], &["staging"]).await;
    let Verified::Host(host) = cluster.verify(&certs.tls_certificate) else { panic!("not a host") };
    assert_eq!(host.identity().id, certs.host_id);
    assert_eq!(host.identity().name.as_str(), "edge");
    assert!(host.is(Node) && host.is(Kube) && !host.is(Proxy));
    let ssh = ssh_key::Certificate::from_openssh(&certs.ssh_certificate).unwrap();
    let purpose = SshCertificatePurpose::Host("edge.root");
    verify_ssh_certificate(&ssh, &certs.trust, purpose, cluster.clock.now()).unwrap();
    let [event] = cluster.events("instance.join").await.try_into().unwrap();
    let AuditKind::InstanceJoin { success: true, host_id, .. } = event.kind else { panic!("{event:?}") };
    assert_eq!(host_id, Some(certs.host_id.to_string()));
}

#[tokio::test]
async fn a_token_lets_in_only_what_it_is_for_and_only_until_its_end() {
    let cluster = Cluster::start().await;
    let token = cluster.token(&[Node]).await;
    let api = cluster.anonymous();
    for (roles, expected) in [
        (vec![Proxy], ApiErrorKind::Denied),
        (vec![Node, Auth], ApiErrorKind::Denied),
        (vec![], ApiErrorKind::BadRequest),
    ] {
        assert_eq!(kind(api.join(join_request(&token, "edge", &roles, &[])).await), expected, "{roles:?}"); // I35
    }
    let wrong = Secret::new("0".repeat(64));
    assert_eq!(kind(api.join(join_request(&wrong, "edge", &[Node], &[])).await), ApiErrorKind::Unauthenticated);
    cluster.clock.advance(Duration::from_secs(3600));
    assert_eq!(kind(api.join(join_request(&token, "edge", &[Node], &[])).await), ApiErrorKind::Unauthenticated);
    let failures = cluster.events("instance.join").await;
    assert_eq!(failures.len(), 5);
    assert!(failures.iter().all(|event| event.code == "TJ001E"));
}

// I35
#[tokio::test]
async fn a_token_has_256_random_bits_and_no_two_are_alike() {
    let cluster = Cluster::start().await;
    let (mut ever, mut always, mut seen) = ([0_u8; 32], [0xff_u8; 32], BTreeSet::new());
    for _ in 0..64 {
        let token = cluster.token(&[Node]).await;
        let octet = |at: usize| u8::from_str_radix(&token.reveal()[at..at + 2], 16).unwrap();
        let octets: Vec<u8> = (0..token.reveal().len()).step_by(2).map(octet).collect();
        assert_eq!(octets.len(), 32);
        for (at, octet) in octets.iter().enumerate() {
            ever[at] |= octet;
            always[at] &= octet;
        }
        assert!(seen.insert(octets), "a token came twice");
    }
    // Of 64 draws a bit is the same in all of them once in 2^63 runs: each of the 256 is drawn.
    assert_eq!((ever, always), ([0xff; 32], [0; 32]));
}

#[tokio::test]
async fn the_database_holds_no_token() {
    let cluster = Cluster::start().await;
    let token = cluster.token(&[Node]).await;
    let invite = cluster.admin().create_user(crate::support::new_user("ann", &["access"], &[])).await.unwrap();
    for entry in std::fs::read_dir(cluster.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let Ok(content) = std::fs::read(&path) else { continue };
        for secret in [token.reveal(), invite.token.reveal()] {
            let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{path:?}"); // I35
        }
    }
}

#[tokio::test]
async fn failed_joins_lock_their_address_out() {
    let cluster = Cluster::start().await;
    let token = cluster.token(&[Node]).await;
    for number in 0..10 {
        let guess = Secret::new(format!("guess-number-{number:04}"));
        let refused = cluster.anonymous().join(join_request(&guess, "edge", &[Node], &[])).await;
        assert_eq!(kind(refused), ApiErrorKind::Unauthenticated);
    }
    let refused = cluster.anonymous().join(join_request(&token, "edge", &[Node], &[])).await;
    assert_eq!(kind(refused), ApiErrorKind::RateLimited); // I35
    let other = cluster.at_address([203, 0, 113, 1]);
    other.join(join_request(&token, "edge", &[Node], &[])).await.unwrap();
}

#[tokio::test]
async fn a_name_that_is_taken_locks_nobody_out() {
    let cluster = Cluster::start().await;
    cluster.join("edge", &[Node], &[]).await;
    let token = cluster.token(&[Node]).await;
    for _ in 0..12 {
        let refused = cluster.anonymous().join(join_request(&token, "edge", &[Node], &[])).await;
        assert_eq!(kind(refused), ApiErrorKind::Conflict);
    }
    cluster.anonymous().join(join_request(&token, "other", &[Node], &[])).await.unwrap();
}

#[tokio::test]
async fn a_name_belongs_to_the_first_host_until_it_is_removed() {
    let cluster = Cluster::start().await;
    cluster.join("edge", &[Kube], &["staging"]).await;
    let token = cluster.token(&[Node, Kube]).await;
    let api = cluster.anonymous();
    let refused = api.join(join_request(&token, "edge", &[Node], &[])).await.unwrap_err();
    assert_eq!(refused.kind, ApiErrorKind::Conflict); // I28
    assert!(refused.message.contains("tctl rm node/edge"), "{}", refused.message);
    let refused = api.join(join_request(&token, "other", &[Kube], &["staging"])).await.unwrap_err();
    assert!(refused.message.contains("tctl rm kube_cluster/staging"), "{}", refused.message);
    // The refused host left nothing behind: its own name is free.
    api.join(join_request(&token, "other", &[Node], &[])).await.unwrap();

    cluster.admin().delete_resource(ResourceKind::Node, "edge".into()).await.unwrap();
    api.join(join_request(&token, "edge", &[Node], &[])).await.unwrap();
    let refusals = cluster.events("instance.join").await;
    assert_eq!(refusals.iter().filter(|event| event.code == "TJ001E").count(), 2);
}

#[tokio::test]
async fn of_many_hosts_that_want_a_name_at_once_one_gets_it() {
    let cluster = Cluster::start().await;
    let token = cluster.token(&[Node]).await;
    let attempts: Vec<_> = (0..8)
        .map(|_| {
            let (api, request) = (cluster.anonymous(), join_request(&token, "edge", &[Node], &[]));
            tokio::spawn(async move { api.join(request).await.is_ok() })
        })
        .collect();
    let mut joined = 0;
    for attempt in attempts {
        joined += usize::from(attempt.await.unwrap());
    }
    assert_eq!(joined, 1);
}

#[tokio::test]
async fn no_node_can_be_called_like_something_else() {
    let cluster = Cluster::start().await;
    let first = cluster.join("edge", &[Node], &[]).await;
    let token = cluster.token(&[Node]).await;
    let kube = remoteler_core::KubeClusterName::new("staging").unwrap().server_name(cluster.service.cluster_name());
    let kube = kube.strip_suffix(".root").unwrap();
    for name in [kube, "edge.root", "root", &first.host_id.to_string()] {
        let refused = cluster.anonymous().join(join_request(&token, name, &[Node], &[])).await;
        assert_eq!(kind(refused), ApiErrorKind::BadRequest, "{name}");
    }
}

#[tokio::test]
async fn a_local_service_keeps_its_id_and_name_over_restarts() {
    let cluster = Cluster::start().await;
    let local = |name: &str, host_id| {
        let Keys { ssh, tls } = Keys::new();
        LocalHost {
            name: NodeName::new(name).unwrap(),
            roles: [Auth, Proxy, Node].into(),
            kube_clusters: Default::default(),
            apps: Default::default(),
            ssh_public_key: ssh,
            tls_public_key: tls,
            host_id,
        }
    };
    let first = cluster.service.issue_local_host(local("main", None)).await.unwrap();
    let again = cluster.service.issue_local_host(local("main", Some(first.host_id))).await.unwrap();
    assert_eq!(first.host_id, again.host_id);
    assert!(cluster.verify(&again.tls_certificate).host().unwrap().is(Auth));
    // Its files are lost, the database is there: it is that host, with new keys. Other hosts' names stay theirs.
    let restored = cluster.service.issue_local_host(local("main", None)).await.unwrap();
    assert_eq!(first.host_id, restored.host_id);
    cluster.join("edge", &[Node], &[]).await;
    assert_eq!(kind(cluster.service.issue_local_host(local("edge", None)).await), ApiErrorKind::Conflict);
}

#[tokio::test]
async fn tokens_are_listed_by_id_and_removed_by_id_or_text() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let value = Secret::new("a-token-of-my-own");
    let token = |value: Option<&Secret>| NewToken {
        roles: [Node].into(),
        ttl_seconds: Some(60),
        value: value.cloned(),
        ..NewToken::default()
    };
    let created = admin.create_token(token(Some(&value))).await.unwrap();
    assert_eq!(created.ca_pin, cluster.service.trust_bundle().host_pins().unwrap()[0]);
    assert_eq!(kind(admin.create_token(token(Some(&value))).await), ApiErrorKind::Conflict);
    admin.create_token(token(None)).await.unwrap();
    assert_eq!(admin.tokens().await.unwrap().len(), 2);
    admin.delete_token(value.clone()).await.unwrap();
    let left = admin.tokens().await.unwrap();
    admin.delete_token(Secret::new(&left[0].id)).await.unwrap();
    assert_eq!(kind(admin.delete_token(value).await), ApiErrorKind::NotFound);
    for bad in [
        NewToken::default(),
        NewToken { roles: [Auth].into(), ..NewToken::default() },
        NewToken { roles: [Node].into(), ttl_seconds: Some(31 * 86_400), ..NewToken::default() },
        NewToken { roles: [Node].into(), value: Some(Secret::new("short")), ..NewToken::default() },
    ] {
        assert_eq!(kind(admin.create_token(bad).await), ApiErrorKind::BadRequest);
    }
}

#[tokio::test]
async fn a_host_that_joined_without_a_pin_is_marked_in_the_log() {
    let cluster = Cluster::start().await;
    cluster.join("careful", &[SystemRole::Node], &[]).await;
    let token = cluster.token(&[SystemRole::Node]).await;
    let request = JoinRequest { without_pin: true, ..join_request(&token, "careless", &[SystemRole::Node], &[]) };
    cluster.anonymous().join(request).await.unwrap();
    let events = cluster.events("instance.join").await;
    let marks = events.iter().map(|event| serde_json::to_value(event).unwrap()["without_pin"].clone());
    assert_eq!(marks.collect::<Vec<_>>(), [serde_json::Value::Null, true.into()]); // I15
}

#[tokio::test]
async fn many_hosts_behind_one_address_join_at_once() {
    let cluster = Cluster::start().await;
    let token = cluster.token(&[Node]).await;
    let attempts: Vec<_> = (0..40)
        .map(|number| {
            let request = join_request(&token, &format!("edge-{number}"), &[Node], &[]);
            let api = cluster.anonymous();
            tokio::spawn(async move { api.join(request).await })
        })
        .collect();
    for attempt in attempts {
        attempt.await.unwrap().unwrap();
    }
}
