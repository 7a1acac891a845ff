//! A pod joins with no secret of ours: an API server says which service account it runs as, and a resource says which may.

use std::sync::Arc;

use async_trait::async_trait;
use remoteler_auth::{AuthConfig, AuthService, TokenReviewError, TokenReviewer};
use remoteler_core::{
    ApiErrorKind, AuditKind, Clock, JoinMethod, JoinRequest, Resource, ResourceKind, Secret, SystemRole,
};
use serde_json::json;

use crate::support::{Cluster, join_request, kind};

use SystemRole::{Kube, Node};

/// An API server that knows the tokens `of NAMESPACE:NAME`, for the audience `root`.
struct Vouching;

#[async_trait]
impl TokenReviewer for Vouching {
    async fn review(&self, token: &Secret, audience: &str) -> Result<String, TokenReviewError> {
        assert_eq!(audience, "root");
        match token.reveal().split_once(' ') {
            Some(("of", account)) => Ok(format!("system:serviceaccount:{account}")),
            Some(("user", name)) => Ok(name.to_owned()),
            Some(_) => Err(TokenReviewError::Unavailable("it is away".into())),
            None => Err(TokenReviewError::Refused("it does not know it".into())),
        }
    }
}

async fn cluster() -> Cluster {
    let Cluster { service, clock, dir } = Cluster::start().await;
    drop(service);
    let config = AuthConfig {
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        reviewer: Some(Arc::new(Vouching)),
        ..AuthConfig::new(dir.path(), remoteler_core::ClusterName::new("root").unwrap())
    };
    Cluster { service: AuthService::open(config).await.unwrap(), clock, dir }
}

fn document(name: &str, spec: serde_json::Value) -> Resource {
    serde_json::from_value(json!({ "kind": "token", "version": "v2", "metadata": { "name": name }, "spec": spec }))
        .unwrap()
}

fn rule() -> serde_json::Value {
    json!({
        "roles": ["kube"],
        "join_method": "kubernetes",
        "names": "pod-*",
        "labels": { "env": "staging" },
        "kubernetes": { "allow": [{ "service_account": "remoteler:agent" }] },
    })
}

fn request(token: &str, name: &str, roles: &[SystemRole], pod_token: &str) -> JoinRequest {
    let service_account = Some(Secret::new(pod_token));
    JoinRequest { service_account, ..join_request(&Secret::new(token), name, roles, &[]) }
}

#[tokio::test]
async fn a_pod_of_the_right_account_joins_without_a_secret() {
    let cluster = cluster().await;
    cluster.admin().put_resource(document("pods", rule()), false).await.unwrap();
    let certs = cluster.anonymous().join(request("pods", "pod-1", &[Kube], "of remoteler:agent")).await.unwrap();
    let host = cluster.verify(&certs.tls_certificate).host().unwrap();
    assert_eq!(host.identity().labels["env"], "staging");
    let event = cluster.events("instance.join").await.pop().unwrap();
    let AuditKind::InstanceJoin { success: true, token, service_account, .. } = event.kind else { panic!("{event:?}") };
    assert_eq!((token.as_str(), service_account.as_deref()), ("pods", Some("remoteler:agent")));
    // As often as there are pods.
    cluster.anonymous().join(request("pods", "pod-2", &[Kube], "of remoteler:agent")).await.unwrap();
}

// I35
#[tokio::test]
async fn every_other_pod_name_service_and_token_is_refused() {
    let cluster = cluster().await;
    cluster.admin().put_resource(document("pods", rule()), false).await.unwrap();
    let secret = cluster.token(&[Kube]).await;
    for (request, expected) in [
        (request("pods", "pod-1", &[Kube], "of other:agent"), ApiErrorKind::Denied),
        (request("pods", "pod-1", &[Kube], "of remoteler:agent-2"), ApiErrorKind::Denied),
        (request("other", "pod-1", &[Kube], "of remoteler:agent"), ApiErrorKind::Denied),
        (request("../users/x", "pod-1", &[Kube], "of remoteler:agent"), ApiErrorKind::Denied),
        // A secret token is no name of a rule.
        (request(secret.reveal(), "pod-1", &[Kube], "of remoteler:agent"), ApiErrorKind::Denied),
        (request("pods", "web-1", &[Kube], "of remoteler:agent"), ApiErrorKind::Denied),
        (request("pods", "pod-1", &[Node], "of remoteler:agent"), ApiErrorKind::Denied),
        (request("pods", "pod-1", &[Kube], "user system:admin"), ApiErrorKind::Unauthenticated),
        (request("pods", "pod-1", &[Kube], "unknown"), ApiErrorKind::Unauthenticated),
        (request("pods", "pod-1", &[Kube], "server away"), ApiErrorKind::Unavailable),
    ] {
        let api = cluster.at_address([198, 51, 100, 1]);
        assert_eq!(kind(api.join(request.clone()).await), expected, "{request:?}");
    }
    // Nor is the name of a rule a token.
    let bare = join_request(&Secret::new("pods"), "pod-1", &[Kube], &[]);
    assert_eq!(kind(cluster.anonymous().join(bare).await), ApiErrorKind::Unauthenticated);
    let long = "x".repeat(20_000);
    assert_eq!(
        kind(cluster.anonymous().join(request("pods", "pod-1", &[Kube], &long)).await),
        ApiErrorKind::BadRequest
    );
    let log = serde_json::to_string(&cluster.events("instance.join").await).unwrap();
    assert!(!log.contains("of remoteler:agent")); // I76: the pod's token
    assert!(!log.contains(secret.reveal())); // I76: nor one that was shown as the name of a rule
}

#[tokio::test]
async fn guesses_of_pods_lock_their_address_out_and_an_api_server_that_is_away_does_not() {
    let cluster = cluster().await;
    cluster.admin().put_resource(document("pods", rule()), false).await.unwrap();
    for _ in 0..20 {
        let away = cluster.anonymous().join(request("pods", "pod-1", &[Kube], "server away")).await;
        assert_eq!(kind(away), ApiErrorKind::Unavailable);
    }
    for _ in 0..10 {
        let guess = cluster.anonymous().join(request("pods", "pod-1", &[Kube], "guess")).await;
        assert_eq!(kind(guess), ApiErrorKind::Unauthenticated);
    }
    let good = || request("pods", "pod-1", &[Kube], "of remoteler:agent");
    assert_eq!(kind(cluster.anonymous().join(good()).await), ApiErrorKind::RateLimited); // I35
    cluster.at_address([203, 0, 113, 1]).join(good()).await.unwrap();
}

#[tokio::test]
async fn the_document_reads_back_as_it_was_written_and_goes_when_it_is_removed() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    admin.put_resource(document("pods", rule()), false).await.unwrap();
    assert_eq!(kind(admin.put_resource(document("pods", rule()), false).await), ApiErrorKind::Conflict);
    admin.put_resource(document("pods", rule()), true).await.unwrap();
    let [found] = admin.resources(ResourceKind::Token, Some("pods".into())).await.unwrap().try_into().unwrap();
    admin.put_resource(found.clone(), true).await.unwrap();
    let [again] = admin.resources(ResourceKind::Token, None).await.unwrap().try_into().unwrap();
    assert_eq!(found, again);
    let [summary] = admin.tokens().await.unwrap().try_into().unwrap();
    assert_eq!((summary.join_method, summary.expires, summary.id.as_str()), (JoinMethod::Kubernetes, None, "pods"));
    admin.delete_resource(ResourceKind::Token, "pods".into()).await.unwrap();
    let refused = cluster.anonymous().join(request("pods", "pod-1", &[Kube], "of remoteler:agent")).await;
    assert_eq!(kind(refused), ApiErrorKind::Denied);
}

#[tokio::test]
async fn a_document_that_would_let_in_more_than_it_says_is_refused() {
    let cluster = cluster().await;
    let change = |field: &str, value: serde_json::Value| {
        let mut spec = rule();
        spec[field] = value;
        spec
    };
    for bad in [
        document("pods", change("join_method", json!("token"))),
        document("pods", change("roles", json!([]))),
        document("pods", change("roles", json!(["auth"]))),
        document("pods", change("kubernetes", json!({ "allow": [] }))),
        document("pods", change("kubernetes", json!({ "allow": [{ "service_account": "*:*" }] }))),
        document("pods", change("kubernetes", json!({ "type": "static_jwks", "allow": [] }))),
        document("pods", change("uses_left", json!(1))),
        document("Pods/..", rule()),
    ] {
        assert_eq!(kind(cluster.admin().put_resource(bad.clone(), false).await), ApiErrorKind::BadRequest, "{bad:?}");
    }
    let plain = Cluster::start().await;
    let refused = plain.anonymous().join(request("pods", "pod-1", &[Kube], "of remoteler:agent")).await.unwrap_err();
    assert!(refused.kind == ApiErrorKind::BadRequest && refused.message.contains("kubernetes_join"), "{refused}");
}
