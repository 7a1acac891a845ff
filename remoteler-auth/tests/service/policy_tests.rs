//! Policy tests live with the policy: no change of a role or a user breaks one.

use remoteler_core::{ApiErrorKind, KubeRecord, Labels, NodeRecord, Resource, ResourceKind, SystemRole, Timestamp};
use serde_json::{Value, json};

use crate::support::{Cluster, kind, new_user};

fn document(kind: &str, version: &str, name: &str, spec: Value) -> Resource {
    serde_json::from_value(json!({ "kind": kind, "version": version, "metadata": { "name": name }, "spec": spec }))
        .unwrap()
}

fn role(name: &str, spec: Value) -> Resource {
    document("role", "v7", name, spec)
}

fn test(name: &str, given: Value, env: &str, expect: &str) -> Resource {
    let target = json!({ "node_labels": { "env": env } });
    let spec = json!({ "given": given, "target": target, "login": "root", "expect": expect });
    document("policy_test", "v1", name, spec)
}

fn dev(env: Value) -> Value {
    json!({ "allow": { "logins": ["root"], "node_labels": { "env": env } } })
}

async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.put_resource(role("dev", dev(json!("dev"))), false).await.unwrap();
    admin.put_resource(role("all", dev(json!("*"))), false).await.unwrap();
    admin.create_user(new_user("ann", &["dev"], &[])).await.unwrap();
    let ann = || json!({ "user": "ann" });
    admin.put_resource(test("ann-works-in-dev", ann(), "dev", "allow"), false).await.unwrap();
    admin.put_resource(test("prod-is-closed", ann(), "prod", "deny"), false).await.unwrap();
    cluster
}

// I80
#[tokio::test]
async fn a_change_that_breaks_a_test_is_refused_by_its_name_and_nothing_is_written() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let before = admin.resources(ResourceKind::Role, Some("dev".into())).await.unwrap();

    let wider = admin.put_resource(role("dev", dev(json!(["dev", "prod"]))), true).await.unwrap_err();
    assert_eq!(wider.kind, ApiErrorKind::Conflict);
    assert!(wider.message.contains("policy_test prod-is-closed"), "{}", wider.message);
    assert!(wider.message.contains("role dev allows it"), "{}", wider.message);
    let narrower = admin.put_resource(role("dev", dev(json!("test"))), true).await.unwrap_err();
    assert!(narrower.message.contains("policy_test ann-works-in-dev"), "{}", narrower.message);
    assert_eq!(admin.resources(ResourceKind::Role, Some("dev".into())).await.unwrap(), before);
    assert_eq!(cluster.events("role.create").await.len(), 2, "only those of the set-up");

    let promoted = admin.update_user(new_user("ann", &["dev", "all"], &[])).await.unwrap_err();
    assert!(promoted.message.contains("policy_test prod-is-closed"), "{}", promoted.message);
    let user = document("user", "v2", "ann", json!({ "roles": ["all"] }));
    assert_eq!(kind(admin.put_resource(user, true).await), ApiErrorKind::Conflict);
    let users = admin.users().await.unwrap();
    assert_eq!(users[0].roles.iter().map(ToString::to_string).collect::<Vec<_>>(), ["dev"]);

    // What breaks nothing goes on as ever, and with the test goes its guard.
    admin.put_resource(role("dev", dev(json!(["dev", "staging"]))), true).await.unwrap();
    admin.delete_resource(ResourceKind::PolicyTest, "prod-is-closed".into()).await.unwrap();
    admin.update_user(new_user("ann", &["dev", "all"], &[])).await.unwrap();
}

#[tokio::test]
async fn a_role_that_a_test_is_about_is_not_removed() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let given = json!({ "roles": ["all"] });
    admin.put_resource(test("all-is-all", given, "prod", "allow"), false).await.unwrap();
    let refused = admin.delete_resource(ResourceKind::Role, "all".into()).await.unwrap_err();
    assert!(refused.message.contains("policy_test all-is-all"), "{}", refused.message);
}

#[tokio::test]
async fn a_test_is_stored_listed_replaced_and_removed_as_other_documents_are() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let names = |documents: Vec<Resource>| documents.into_iter().map(|one| one.metadata.name).collect::<Vec<_>>();
    let listed = admin.resources(ResourceKind::PolicyTest, None).await.unwrap();
    assert_eq!(names(listed), ["ann-works-in-dev", "prod-is-closed"]);
    let again = test("prod-is-closed", json!({ "user": "ann" }), "prod", "deny");
    assert_eq!(kind(admin.put_resource(again.clone(), false).await), ApiErrorKind::Conflict);
    admin.put_resource(again, true).await.unwrap();
    admin.delete_resource(ResourceKind::PolicyTest, "prod-is-closed".into()).await.unwrap();
    let gone = admin.delete_resource(ResourceKind::PolicyTest, "prod-is-closed".into()).await;
    assert_eq!(kind(gone), ApiErrorKind::NotFound);
    assert_eq!(cluster.events("policy_test.create").await.len(), 3);
    assert_eq!(cluster.events("resource.delete").await.len(), 1);
}

#[tokio::test]
async fn a_test_that_fails_or_cannot_be_run_is_not_taken() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for (given, said) in [
        (json!({ "user": "ann" }), "expects allow and fails"),
        (json!({ "user": "bob" }), "no user bob"),
        (json!({}), "neither a user nor roles"),
    ] {
        let refused = admin.put_resource(test("t", given, "prod", "allow"), false).await.unwrap_err();
        assert!(refused.message.contains(said), "{}", refused.message);
    }
    cluster.user("bob", &["dev"], &[]).await;
    let bob = cluster.as_user("bob").await;
    let denied = bob.put_resource(test("t", json!({ "user": "ann" }), "prod", "deny"), false).await;
    assert_eq!(kind(denied), ApiErrorKind::Denied);
}

// I80
#[tokio::test]
async fn a_test_that_names_a_node_or_a_kubernetes_cluster_runs_while_that_is_away() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let certs = cluster.join("gw", &[SystemRole::Node, SystemRole::Kube], &["staging"]).await;
    let labels = Labels::from([("env".to_owned(), "prod".to_owned())]);
    let (host_id, version, last_seen) = (certs.host_id, "0".to_owned(), Timestamp::default());
    let node = NodeRecord {
        host_id,
        name: "gw".parse().unwrap(),
        labels: labels.clone(),
        addr: None,
        version: version.clone(),
        last_seen,
        heartbeat: Default::default(),
    };
    let kube = KubeRecord {
        host_id,
        name: "staging".parse().unwrap(),
        labels,
        addr: None,
        version,
        last_seen,
        heartbeat: Default::default(),
    };
    cluster.as_host(&certs).announce_node(node).await.unwrap();
    cluster.as_host(&certs).announce_kube(kube).await.unwrap();
    let given = || json!({ "user": "ann" });
    let of_node = json!({ "given": given(), "target": { "node": "gw" }, "login": "root", "expect": "deny" });
    admin.put_resource(document("policy_test", "v1", "gw-is-closed", of_node), false).await.unwrap();
    let of_kube = json!({ "given": given(), "target": { "kube_cluster": "staging" }, "expect": "deny" });
    admin.put_resource(document("policy_test", "v1", "staging-is-closed", of_kube), false).await.unwrap();

    cluster.clock.advance(std::time::Duration::from_secs(24 * 3600));
    assert!(admin.nodes().await.unwrap().is_empty(), "it has not been heard of for long");
    admin.delete_resource(ResourceKind::PolicyTest, "prod-is-closed".into()).await.unwrap();
    let wider = admin.put_resource(role("dev", dev(json!(["dev", "prod"]))), true).await.unwrap_err();
    assert!(wider.message.contains("policy_test gw-is-closed"), "{wider}");
    let mut kube = dev(json!("dev"));
    kube["allow"]["kubernetes_labels"] = json!({ "env": "prod" });
    kube["allow"]["kubernetes_groups"] = json!(["developers"]);
    let wider = admin.put_resource(role("dev", kube), true).await.unwrap_err();
    assert!(wider.message.contains("policy_test staging-is-closed"), "{wider}");
}

#[tokio::test]
async fn a_role_changes_together_with_the_test_that_speaks_of_it() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let wider = role("dev", dev(json!(["dev", "prod"])));
    let open = test("prod-is-closed", json!({ "user": "ann" }), "prod", "allow");
    // Neither goes without the other.
    assert_eq!(kind(admin.put_resource(wider.clone(), true).await), ApiErrorKind::Conflict);
    assert_eq!(kind(admin.put_resource(open.clone(), true).await), ApiErrorKind::Conflict);
    for documents in [[open.clone(), wider.clone()], [wider, open]] {
        admin.put_policy(documents.into(), true).await.unwrap();
    }
    let closed = test("prod-is-closed", json!({ "user": "ann" }), "prod", "deny");
    let narrower = role("dev", dev(json!(["dev"])));
    admin.put_policy(vec![narrower, closed], true).await.unwrap();
}

// I80
#[tokio::test]
async fn of_documents_that_are_one_change_all_are_written_or_none() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let eve = |roles: &[&str]| document("user", "v2", "eve", json!({ "roles": roles }));
    let ops = || role("ops", dev(json!("ops")));
    let of_eve = |expect| test("eve-in-ops", json!({ "user": "eve" }), "ops", expect);
    for (documents, replace, wanted, said) in [
        (vec![ops(), eve(&["ops", "gone"])], false, ApiErrorKind::BadRequest, "there is no role gone"),
        (vec![ops(), role("dev", dev(json!("dev")))], false, ApiErrorKind::Conflict, "role dev exists already"),
        (
            vec![ops(), eve(&["ops"]), of_eve("deny")],
            false,
            ApiErrorKind::Conflict,
            "policy_test eve-in-ops expects deny",
        ),
        (vec![ops(), role("dev", dev(json!("prod")))], true, ApiErrorKind::Conflict, "policy_test ann-works-in-dev"),
        (vec![ops(), ops()], true, ApiErrorKind::BadRequest, "role ops is there twice"),
        (
            vec![ops(), document("lock", "v2", "x", json!({ "target": { "user": "ann" } }))],
            true,
            ApiErrorKind::BadRequest,
            "kind lock",
        ),
        (vec![ops(); 97], true, ApiErrorKind::BadRequest, "several files"),
        (vec![], true, ApiErrorKind::BadRequest, "no document"),
        (vec![document("roles", "v7", "ops", dev(json!("ops")))], true, ApiErrorKind::BadRequest, "write role"),
    ] {
        let refused = admin.put_policy(documents, replace).await.unwrap_err();
        assert_eq!(refused.kind, wanted, "{}", refused.message);
        assert!(refused.message.contains(said), "{}", refused.message);
        let role = admin.resources(ResourceKind::Role, Some("ops".into())).await;
        assert_eq!(kind(role), ApiErrorKind::NotFound, "{said}");
    }
    assert_eq!(cluster.events("role.create").await.len(), 2, "what is not done is not on record");

    // The user before the role, the test before both.
    admin.put_policy(vec![of_eve("allow"), eve(&["ops"]), ops()], false).await.unwrap();
    let user = admin.resources(ResourceKind::User, Some("eve".into())).await.unwrap();
    assert_eq!(user[0].spec["roles"], json!(["ops"]));
    for (event, count) in [("role.create", 3), ("user.create", 2), ("policy_test.create", 3)] {
        assert_eq!(cluster.events(event).await.len(), count, "{event}");
    }

    // Each kind wants its own right.
    let editor = json!({ "allow": { "rules": [{ "resources": ["role"], "verbs": ["*"] }] } });
    admin.put_resource(role("editor-of-roles", editor), false).await.unwrap();
    cluster.user("bob", &["editor-of-roles"], &[]).await;
    let bob = cluster.as_user("bob").await;
    bob.put_policy(vec![role("one", dev(json!("x"))), role("two", dev(json!("x")))], false).await.unwrap();
    let both = vec![role("three", dev(json!("x"))), eve(&["three"])];
    assert_eq!(kind(bob.put_policy(both, true).await), ApiErrorKind::Denied);
    // Who may write nothing is not told what is wrong with it.
    cluster.user("cleo", &["dev"], &[]).await;
    let cleo = cluster.as_user("cleo").await;
    for nonsense in [vec![], vec![ops(); 97], vec![document("robot", "v1", "x", json!({}))]] {
        assert_eq!(kind(cleo.put_policy(nonsense, false).await), ApiErrorKind::Denied);
    }
    assert_eq!(kind(admin.resources(ResourceKind::Role, Some("three".into())).await), ApiErrorKind::NotFound);
}
