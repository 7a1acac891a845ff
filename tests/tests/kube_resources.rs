//! `kubernetes_resources` of roles before an API server: each request is decided by what it could reach, and what is refused never arrives there.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::{Request, StatusCode};
use remoteler_core::{Policy, PolicySource, Resource, Role};
use remoteler_tests::{ApiServer, Certificate, KubeFixture};
use serde_json::{Value, json};

/// Ann with a role of `version` whose `kubernetes_resources` are these.
async fn set_up(version: &str, allow: Value, deny: Value) -> (ApiServer, KubeFixture, Certificate) {
    let api_server = ApiServer::start().await.unwrap();
    api_server.expect("ann", &["developers"]);
    let fixture = KubeFixture::start(&api_server).await.unwrap();
    let spec = json!({
        "allow": {
            "kubernetes_groups": ["developers"],
            "kubernetes_labels": { "env": "dev" },
            "kubernetes_resources": allow,
        },
        "deny": { "kubernetes_resources": deny },
    });
    let document = json!({ "kind": "role", "version": version, "metadata": { "name": "narrow" }, "spec": spec });
    let role = Role::from_document(&serde_json::from_value::<Resource>(document).unwrap()).unwrap();
    let roles = BTreeMap::from([(role.name().clone(), Arc::new(role))]);
    let trust = fixture.policy.policy().trust.clone();
    fixture.policy.replace(Policy::new(trust, roles));
    let ann = fixture.issue(&fixture.user("ann", &["narrow"])).unwrap();
    (api_server, fixture, ann)
}

async fn status(fixture: &KubeFixture, ann: &Certificate, method: &str, path: &str) -> StatusCode {
    let uri = format!("{}{path}", fixture.prefix("staging"));
    let request = Request::builder().method(method).uri(uri).header("host", "proxy.example.com");
    fixture.send(Some(ann), "http/1.1", request.body(Bytes::new()).unwrap()).await.unwrap().status()
}

// I59, I80
#[tokio::test]
async fn what_an_entry_does_not_cover_never_reaches_the_api_server() {
    let pods = json!([{ "kind": "pod", "namespace": "dev", "name": "*", "verbs": ["get", "list", "watch"] }]);
    let (api_server, fixture, ann) = set_up("v7", pods, json!([])).await;
    let before = api_server.seen().len();
    for (method, path) in [
        ("GET", "/api/v1/pods"),
        ("GET", "/api/v1/namespaces/prod/pods"),
        ("GET", "/api/v1/namespaces/prod/pods/web"),
        ("GET", "/api/v1/namespaces/dev/secrets"),
        ("DELETE", "/api/v1/namespaces/dev/pods/web"),
        ("DELETE", "/api/v1/namespaces/dev/pods"),
        ("POST", "/api/v1/namespaces/dev/pods"),
        ("GET", "/api/v1/namespaces/dev/pods/web/exec?command=sh"),
        ("POST", "/api/v1/namespaces/dev/pods/web/portforward"),
        ("GET", "/api/v1/namespaces/dev/pods/web/proxy/"),
        ("GET", "/api/v1/namespaces/dev"),
        ("GET", "/api/v1/nodes"),
        ("GET", "/apis/apps/v1/namespaces/dev/deployments"),
        ("GET", "/metrics"),
    ] {
        assert_eq!(status(&fixture, &ann, method, path).await, StatusCode::FORBIDDEN, "{method} {path}");
    }
    assert_eq!(api_server.seen().len(), before, "nothing was sent");
    let refusals = fixture.refusals();
    assert_eq!(refusals.len(), 14, "{refusals:?}");
    let reasons = format!("{refusals:?}");
    assert!(reasons.contains("role narrow does not fit in allow.kubernetes_resources"), "{reasons}");
    assert!(reasons.contains("may not delete pods"), "{reasons}");
    for (method, path) in [
        ("GET", "/version"),
        ("GET", "/api/v1"),
        ("GET", "/api/v1/namespaces/dev/pods"),
        ("GET", "/api/v1/namespaces/dev/pods/web"),
        ("GET", "/api/v1/namespaces/dev/pods/web/log"),
    ] {
        assert_ne!(status(&fixture, &ann, method, path).await, StatusCode::FORBIDDEN, "{method} {path}");
    }
    assert_eq!(api_server.seen().len(), before + 5);
    assert!(api_server.violations().is_empty(), "{:?}", api_server.violations()); // I56
}

// I80
#[tokio::test]
async fn a_denied_object_is_in_no_list_and_the_user_is_not_told_of_it() {
    let all = json!([{ "kind": "*", "namespace": "*", "name": "*", "verbs": ["*"] }]);
    let deny = json!([{ "kind": "secret", "namespace": "dev", "name": "signing-key", "verbs": ["get"] }]);
    let (api_server, fixture, ann) = set_up("v7", all, deny).await;
    let refused = fixture.get(&ann, "/api/v1/namespaces/dev/secrets").await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let said = String::from_utf8_lossy(refused.body()).into_owned();
    assert!(said.contains("may not list secrets in namespace"), "{said}");
    assert!(!said.contains("signing-key") && !said.contains("narrow"), "{said}");
    for (path, allowed) in [
        ("/api/v1/namespaces/dev/secrets/signing-key", false),
        ("/api/v1/secrets?watch=1", false),
        ("/api/v1/namespaces/dev/secrets/other", true),
        ("/api/v1/namespaces/test/secrets", true),
        ("/api/v1/namespaces/dev/pods", true),
    ] {
        let status = status(&fixture, &ann, "GET", path).await;
        assert_eq!(status != StatusCode::FORBIDDEN, allowed, "{path}: {status}");
    }
    assert_eq!(api_server.seen().len(), 3);
}

#[tokio::test]
async fn a_role_of_version_v6_says_something_of_pods_only() {
    let pods = json!([{ "kind": "pod", "namespace": "dev", "name": "^web-.*$" }]);
    let (_api_server, fixture, ann) = set_up("v6", pods, json!([])).await;
    for (path, allowed) in [
        ("/api/v1/namespaces/dev/pods/web-1", true),
        ("/api/v1/namespaces/dev/pods/web-1/exec?command=sh", true),
        ("/api/v1/namespaces/dev/pods/db-1", false),
        ("/api/v1/namespaces/dev/pods", false),
        ("/api/v1/namespaces/dev/pods?fieldSelector=metadata.name%3Dweb-1", true),
        ("/api/v1/namespaces/dev/secrets", true),
        ("/api/v1/nodes", true),
    ] {
        let status = status(&fixture, &ann, "GET", path).await;
        assert_eq!(status != StatusCode::FORBIDDEN, allowed, "{path}: {status}");
    }
}
