//! Explanations: administrators hear which role decided, users hear what they may do and nothing of roles, labels or nodes they may not know.

use remoteler_core::{
    ApiErrorKind, ExplainRequest, Explanation, KubeRecord, Labels, NodeRecord, Resource, RoleOutcome, SystemRole,
    Timestamp,
};
use serde_json::{Value, json};

use crate::support::{Cluster, kind};

async fn role(cluster: &Cluster, name: &str, spec: Value) {
    let document = json!({ "kind": "role", "version": "v7", "metadata": { "name": name }, "spec": spec });
    let document: Resource = serde_json::from_value(document).unwrap();
    cluster.admin().put_resource(document, false).await.unwrap();
}

/// Two nodes, a Kubernetes cluster, and ann, who may be ann or root on what is in dev.
async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    for (name, env) in [("gw-17", "dev"), ("secret-9", "prod")] {
        let certs = cluster.join(name, &[SystemRole::Node], &[]).await;
        let record = NodeRecord {
            host_id: certs.host_id,
            name: name.parse().unwrap(),
            labels: Labels::from([("env".into(), env.into())]),
            addr: None,
            version: "0.1.0".into(),
            last_seen: Timestamp::default(),
            heartbeat: Default::default(),
        };
        cluster.as_host(&certs).announce_node(record).await.unwrap();
    }
    let certs = cluster.join("agent", &[SystemRole::Kube], &["staging"]).await;
    let record = KubeRecord {
        host_id: certs.host_id,
        name: "staging".parse().unwrap(),
        labels: Labels::new(),
        addr: None,
        version: "0.1.0".into(),
        last_seen: Timestamp::default(),
        heartbeat: Default::default(),
    };
    cluster.as_host(&certs).announce_kube(record).await.unwrap();
    let dev = json!({
        "options": { "max_connections": 2 },
        "allow": { "logins": ["{{internal.logins}}"], "node_labels": { "env": "dev" } },
    });
    role(&cluster, "dev", dev).await;
    role(&cluster, "nobody-is-root-on-canaries", json!({ "deny": { "node_labels": { "canary": "*" } } })).await;
    cluster.user("ann", &["dev", "nobody-is-root-on-canaries"], &["ann", "root"]).await;
    cluster
}

fn about(user: Option<&str>, node: Option<&str>, login: Option<&str>) -> ExplainRequest {
    ExplainRequest {
        app: None,
        user: user.map(|name| name.parse().unwrap()),
        node: node.map(|name| name.parse().unwrap()),
        kube_cluster: None,
        login: login.map(|name| name.parse().unwrap()),
    }
}

fn said(answers: &[Explanation]) -> Vec<String> {
    answers.iter().map(Explanation::sentence).collect()
}

#[tokio::test]
async fn an_administrator_hears_which_role_decided_and_by_which_field() {
    let cluster = cluster().await;
    let admin = cluster.admin();

    let allowed = admin.explain(about(Some("ann"), Some("gw-17"), Some("root"))).await.unwrap();
    assert_eq!(said(&allowed), ["ann may log in as root to gw-17: role dev allows it"]);
    assert_eq!(allowed[0].options.as_ref().unwrap().max_connections, Some(2));
    assert_eq!(allowed[0].findings[1].fields, ["allow.node_labels", "allow.logins"]);

    let elsewhere = admin.explain(about(Some("ann"), Some("secret-9"), Some("root"))).await.unwrap();
    assert_eq!(said(&elsewhere), ["ann may not log in as root to secret-9: no role allows it"]);
    assert_eq!(elsewhere[0].findings[0].fields, ["allow.node_labels"]);

    let unknown = admin.explain(about(Some("ann"), Some("gw-17"), Some("bob"))).await.unwrap();
    assert_eq!(unknown[0].findings[0].outcome, RoleOutcome::Lacks);
    assert_eq!(unknown[0].findings[0].fields, ["allow.logins"]);

    let all = admin.explain(about(Some("ann"), None, None)).await.unwrap();
    assert_eq!(all.len(), 5, "two accounts on two nodes, and one Kubernetes cluster: {all:?}");
    assert_eq!(kind(admin.explain(about(Some("bob"), None, None)).await), ApiErrorKind::NotFound);
    assert_eq!(kind(admin.explain(about(Some("ann"), Some("gw-18"), None)).await), ApiErrorKind::NotFound);
    assert_eq!(kind(admin.explain(about(None, None, None)).await), ApiErrorKind::BadRequest);
}

#[tokio::test]
async fn a_user_hears_what_they_may_do_and_nothing_that_they_may_not_know() {
    let cluster = cluster().await;
    let ann = cluster.as_user("ann").await;

    let mine = ann.explain(about(None, None, None)).await.unwrap();
    assert_eq!(
        said(&mine),
        ["ann may log in as ann to gw-17: your roles allow it", "ann may log in as root to gw-17: your roles allow it"]
    );
    let refused = ann.explain(about(None, Some("gw-17"), Some("bob"))).await.unwrap();
    assert!(!refused[0].allowed);
    for answer in mine.iter().chain(&refused) {
        let text = serde_json::to_string(answer).unwrap();
        for hidden in ["dev", "canar", "secret-9", "allow.", "deny."] {
            assert!(!text.contains(hidden), "{hidden} in {text}"); // I80
        }
    }
    // What is not there and what must not be known look alike.
    let hidden = ann.explain(about(None, Some("secret-9"), None)).await.unwrap_err();
    let absent = ann.explain(about(None, Some("secret-8"), None)).await.unwrap_err();
    assert_eq!(hidden.message.replace("secret-9", "secret-8"), absent.message);
    assert_eq!(hidden.kind, ApiErrorKind::NotFound);
}

// I9
#[tokio::test]
async fn nobody_hears_of_others_without_the_right_to_read_users_and_roles() {
    let cluster = cluster().await;
    cluster.user("bob", &["dev"], &["bob"]).await;
    let bob = cluster.as_user("bob").await;
    assert_eq!(kind(bob.explain(about(Some("ann"), None, None)).await), ApiErrorKind::Denied);
    assert_eq!(kind(cluster.anonymous().explain(about(None, None, None)).await), ApiErrorKind::Unauthenticated);
    let host = cluster.join("host", &[SystemRole::Node], &[]).await;
    assert_eq!(kind(cluster.as_host(&host).explain(about(Some("ann"), None, None)).await), ApiErrorKind::Denied);
    cluster.user("ed", &["editor"], &[]).await;
    assert!(cluster.as_user("ed").await.explain(about(Some("ann"), None, None)).await.is_ok());
}
