//! What a join token lets in besides its kind and its time: how many hosts, under which names, with which labels.

use std::time::Duration;

use remoteler_core::{
    ApiErrorKind, AuditKind, Clock, JoinRequest, Labels, NewToken, NodeName, NodeRecord, ResourceKind, Secret,
    SystemRole, TokenCreated,
};

use crate::support::{Cluster, join_request, kind};

use SystemRole::{Kube, Node};

fn labels(of: &[(&str, &str)]) -> Labels {
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn make(cluster: &Cluster, token: NewToken) -> TokenCreated {
    cluster.admin().create_token(NewToken { roles: [Node, Kube].into(), ..token }).await.unwrap()
}

async fn single_use(cluster: &Cluster) -> Secret {
    make(cluster, NewToken { uses: Some(1), ..NewToken::default() }).await.token
}

// I35
#[tokio::test]
async fn a_token_for_one_host_lets_one_in_of_many_that_ask_at_once() {
    let cluster = Cluster::start().await;
    let token = make(&cluster, NewToken { uses: Some(3), ..NewToken::default() }).await.token;
    let attempts: Vec<_> = (0..12)
        .map(|number| {
            // From many addresses, so that none of them is locked out for its failures.
            let api = cluster.at_address([198, 51, 100, number]);
            let request = join_request(&token, &format!("edge-{number}"), &[Node], &[]);
            tokio::spawn(async move { api.join(request).await })
        })
        .collect();
    let mut joined = Vec::new();
    for attempt in attempts {
        match attempt.await.unwrap() {
            Ok(certs) => joined.push(certs.host_id),
            Err(refused) => {
                assert_eq!(refused.kind, ApiErrorKind::Denied);
                assert!(refused.message.contains("used up"), "{refused}");
            }
        }
    }
    assert_eq!(joined.len(), 3);
    let [summary] = cluster.admin().tokens().await.unwrap().try_into().unwrap();
    assert_eq!(summary.uses_left, Some(0));
    // Who was refused left no name behind.
    let other = cluster.token(&[Node]).await;
    for number in 0..12 {
        let request = join_request(&other, &format!("edge-{number}"), &[Node], &[]);
        drop(cluster.at_address([203, 0, 113, number]).join(request).await);
    }
    let successes = cluster.events("instance.join").await.into_iter().filter(|event| event.code == "TJ001I").count();
    assert_eq!(successes, 12);
}

#[tokio::test]
async fn a_join_that_fails_burns_no_token() {
    let cluster = Cluster::start().await;
    cluster.join("taken", &[Node], &[]).await;
    let token = single_use(&cluster).await;
    let api = cluster.anonymous();
    let bad_key = JoinRequest { tls_public_key: "none".into(), ..join_request(&token, "edge", &[Node], &[]) };
    assert_eq!(kind(api.join(bad_key).await), ApiErrorKind::BadRequest);
    assert_eq!(kind(api.join(join_request(&token, "taken", &[Node], &[])).await), ApiErrorKind::Conflict);
    assert_eq!(kind(api.join(join_request(&token, "edge", &[SystemRole::Proxy], &[])).await), ApiErrorKind::Denied);
    api.join(join_request(&token, "edge", &[Node], &[])).await.unwrap();
    assert_eq!(kind(api.join(join_request(&token, "edge-2", &[Node], &[])).await), ApiErrorKind::Denied);
}

// R5
#[tokio::test]
async fn a_host_whose_answer_was_lost_asks_again_and_is_the_same_host() {
    let cluster = Cluster::start().await;
    let token = single_use(&cluster).await;
    let request = join_request(&token, "edge", &[Node], &[]);
    let first = cluster.anonymous().join(request.clone()).await.unwrap();
    let again = cluster.anonymous().join(request.clone()).await.unwrap();
    assert_eq!(first.host_id, again.host_id);
    cluster.as_host(&again).renew_host(None).await.unwrap();
    // With other keys it is somebody else, and so it is under another name or with another token.
    let other_keys = join_request(&token, "edge", &[Node], &[]);
    assert_eq!(kind(cluster.anonymous().join(other_keys).await), ApiErrorKind::Denied);
    let other_name = JoinRequest { node_name: NodeName::new("edge-2").unwrap(), ..request.clone() };
    assert_eq!(kind(cluster.anonymous().join(other_name).await), ApiErrorKind::Denied);
    let other_token = JoinRequest { token: cluster.token(&[Node]).await, ..request };
    assert_eq!(kind(cluster.anonymous().join(other_token).await), ApiErrorKind::Conflict);
}

#[tokio::test]
async fn a_token_for_some_names_lets_in_no_others() {
    let cluster = Cluster::start().await;
    let token = make(&cluster, NewToken { names: Some("gw-*".into()), ..NewToken::default() }).await.token;
    let api = cluster.anonymous();
    for (name, kube) in [("web-1", &[][..]), ("gw-1", &["production"])] {
        let refused = api.join(join_request(&token, name, &[Node, Kube], kube)).await.unwrap_err();
        assert_eq!(refused.kind, ApiErrorKind::Denied); // I35
        assert!(refused.message.contains("gw-*"), "{refused}");
    }
    api.join(join_request(&token, "gw-1", &[Node, Kube], &["gw-east"])).await.unwrap();
}

#[tokio::test]
async fn labels_of_the_token_stand_in_the_certificate_and_over_the_hosts_own() {
    let cluster = Cluster::start().await;
    let given = labels(&[("site", "7")]);
    let token = make(&cluster, NewToken { labels: given.clone(), ..NewToken::default() }).await;
    assert_eq!(token.scope.labels, given);
    let certs = cluster.anonymous().join(join_request(&token.token, "edge", &[Node], &[])).await.unwrap();
    let host = cluster.verify(&certs.tls_certificate).host().unwrap();
    assert_eq!(host.identity().labels, given);
    let record = NodeRecord {
        host_id: certs.host_id,
        name: NodeName::new("edge").unwrap(),
        labels: labels(&[("site", "8"), ("env", "dev")]),
        addr: None,
        version: "1".into(),
        last_seen: cluster.clock.now(),
        heartbeat: Default::default(),
    };
    // A host that lies about its site is where its token says (I35, I10): also after a renewal.
    let renewed = cluster.as_host(&certs).renew_host(None).await.unwrap();
    for certs in [certs, renewed] {
        cluster.as_host(&certs).announce_node(record.clone()).await.unwrap();
        let [node] = cluster.admin().nodes().await.unwrap().try_into().unwrap();
        assert_eq!(node.labels, labels(&[("site", "7"), ("env", "dev")]));
    }
}

#[tokio::test]
async fn what_makes_no_token_is_refused_with_the_reason() {
    let cluster = Cluster::start().await;
    for (bad, said) in [
        (NewToken { uses: Some(0), ..NewToken::default() }, "1 to 1000"),
        (NewToken { uses: Some(1001), ..NewToken::default() }, "1 to 1000"),
        (NewToken { names: Some("^($".into()), ..NewToken::default() }, "^($"),
        (NewToken { labels: labels(&[("*", "x")]), ..NewToken::default() }, "labels"),
    ] {
        let refused = cluster.admin().create_token(NewToken { roles: [Node].into(), ..bad }).await.unwrap_err();
        assert_eq!(refused.kind, ApiErrorKind::BadRequest);
        assert!(refused.message.contains(said), "{refused}");
    }
}

#[tokio::test]
async fn events_name_the_token_by_its_fingerprint_and_never_by_itself() {
    let cluster = Cluster::start().await;
    let token = single_use(&cluster).await;
    let guess = Secret::new("guess-number-0001");
    drop(cluster.anonymous().join(join_request(&guess, "edge", &[Node], &[])).await);
    cluster.anonymous().join(join_request(&token, "edge", &[Node], &[])).await.unwrap();
    let id = cluster.admin().tokens().await.unwrap()[0].id.clone();
    let [created] = cluster.events("join_token.create").await.try_into().unwrap();
    assert!(matches!(&created.kind, AuditKind::TokenCreate { name, uses: Some(1), .. } if *name == id), "{created:?}");
    let joins = cluster.events("instance.join").await;
    let named = |at: usize| {
        let AuditKind::InstanceJoin { token, .. } = &joins[at].kind else { panic!("{:?}", joins[at]) };
        token.clone()
    };
    assert_eq!(named(1), id);
    assert!(named(0).len() == 12 && named(0) != id);
    let log = serde_json::to_string(&joins).unwrap();
    assert!(!log.contains(token.reveal()) && !log.contains(guess.reveal())); // I35, I76
}

// I35
#[tokio::test]
async fn guesses_that_are_under_way_together_pass_the_limit_no_more_than_one_after_another() {
    let cluster = Cluster::start().await;
    let guesses: Vec<_> = (0..60)
        .map(|number| {
            let guess = Secret::new(format!("guess-number-{number:04}"));
            let (api, request) = (cluster.anonymous(), join_request(&guess, "edge", &[Node], &[]));
            tokio::spawn(async move { api.join(request).await.unwrap_err().kind })
        })
        .collect();
    let mut looked_up = 0;
    for guess in guesses {
        let refused = guess.await.unwrap();
        assert!(matches!(refused, ApiErrorKind::Unauthenticated | ApiErrorKind::RateLimited), "{refused:?}");
        looked_up += usize::from(refused == ApiErrorKind::Unauthenticated);
    }
    assert_eq!(looked_up, 10);
}

#[tokio::test]
async fn a_token_that_was_removed_or_is_over_lets_nobody_in() {
    let cluster = Cluster::start().await;
    let token = single_use(&cluster).await;
    let request = join_request(&token, "edge", &[Node], &[]);
    cluster.anonymous().join(request.clone()).await.unwrap();
    let id = cluster.admin().tokens().await.unwrap()[0].id.clone();
    cluster.admin().delete_token(Secret::new(id)).await.unwrap();
    // Not even the host that had joined with it.
    assert_eq!(kind(cluster.anonymous().join(request).await), ApiErrorKind::Unauthenticated);

    let token = single_use(&cluster).await;
    cluster.clock.advance(Duration::from_secs(3599));
    cluster.anonymous().join(join_request(&token, "edge-2", &[Node], &[])).await.unwrap();
    cluster.clock.advance(Duration::from_secs(1));
    assert_eq!(cluster.admin().tokens().await.unwrap(), []);
    let documents = cluster.admin().resources(ResourceKind::Token, None).await.unwrap();
    assert_eq!(documents, []);
}
