use remoteler_core::{ApiErrorKind, Resource, ResourceKind, RoleName, SystemRole};
use serde_json::{Value, json};

use crate::support::{Cluster, kind, new_user};

fn document(kind: &str, version: &str, name: &str, spec: Value) -> Resource {
    serde_json::from_value(json!({ "kind": kind, "version": version, "metadata": { "name": name }, "spec": spec }))
        .unwrap()
}

#[tokio::test]
async fn a_role_is_written_read_replaced_and_in_force_at_once() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let role = document("role", "v5", "dev", json!({ "allow": { "logins": ["root"] } }));
    admin.put_resource(role.clone(), false).await.unwrap();
    assert_eq!(kind(admin.put_resource(role.clone(), false).await), ApiErrorKind::Conflict);
    admin.put_resource(role, true).await.unwrap();

    let [stored] = admin.resources(ResourceKind::Role, Some("dev".into())).await.unwrap().try_into().unwrap();
    assert_eq!(stored.version, "v5", "absent fields mean what they mean in the version it was written in");
    let name = RoleName::new("dev").unwrap();
    assert!(cluster.service.policy_source().policy().roles.contains_key(&name));
    cluster.user("ann", &["dev"], &[]).await;
    assert_eq!(cluster.log_in("ann").await.logins, ["root"]);
    assert_eq!(cluster.events("role.create").await.len(), 2);
}

#[tokio::test]
async fn a_role_that_says_what_is_not_understood_is_refused_by_name() {
    let cluster = Cluster::start().await;
    for (version, spec, part) in [
        ("v4", json!({}), "v4"),
        ("v7", json!({ "allow": { "desktop_labels": { "*": "*" } } }), "desktop_labels"),
        ("v7", json!({ "options": { "max_session_ttl": "soon" } }), "max_session_ttl"),
        ("v7", json!({ "allow": { "rules": [{ "resources": ["role"], "verbs": ["rotate"] }] } }), "rotate"),
        ("v7", json!({ "allow": { "logins": ["{{logins}}"] } }), "logins"),
    ] {
        let refused = cluster.admin().put_resource(document("role", version, "dev", spec), false).await.unwrap_err();
        assert_eq!(refused.kind, ApiErrorKind::BadRequest);
        assert!(refused.message.contains(part), "{}", refused.message); // I80
    }
    let unknown = cluster.admin().put_resource(document("robot", "v1", "x", json!({})), false).await;
    assert_eq!(kind(unknown), ApiErrorKind::BadRequest);
}

#[tokio::test]
async fn a_role_somebody_holds_is_not_removed() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.create_user(new_user("ann", &["access"], &[])).await.unwrap();
    let refused = admin.delete_resource(ResourceKind::Role, "access".into()).await.unwrap_err();
    assert!(refused.message.contains("user ann holds role access"), "{}", refused.message);
    admin.delete_resource(ResourceKind::Role, "editor".into()).await.unwrap();
    assert_eq!(kind(admin.delete_resource(ResourceKind::Role, "editor".into()).await), ApiErrorKind::NotFound);
}

#[tokio::test]
async fn a_user_document_makes_and_changes_a_user() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let user =
        |roles: &[&str]| document("user", "v2", "ann", json!({ "roles": roles, "traits": { "logins": ["root"] } }));
    admin.put_resource(user(&["access"]), false).await.unwrap();
    assert_eq!(kind(admin.put_resource(user(&["access"]), false).await), ApiErrorKind::Conflict);
    admin.put_resource(user(&["auditor"]), true).await.unwrap();
    let [stored] = admin.resources(ResourceKind::User, Some("ann".into())).await.unwrap().try_into().unwrap();
    assert_eq!(stored, user(&["auditor"]));
    assert_eq!(kind(admin.put_resource(user(&[]), true).await), ApiErrorKind::BadRequest);
    admin.delete_resource(ResourceKind::User, "ann".into()).await.unwrap();
    assert!(admin.resources(ResourceKind::User, None).await.unwrap().is_empty());
}

#[tokio::test]
async fn editors_change_and_auditors_do_not() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["editor"], &[]).await;
    cluster.user("bob", &["auditor"], &[]).await;
    let role = document("role", "v7", "dev", json!({}));
    cluster.as_user("ann").await.put_resource(role.clone(), false).await.unwrap();
    let bob = cluster.as_user("bob").await;
    assert_eq!(kind(bob.put_resource(role, true).await), ApiErrorKind::Denied);
    assert_eq!(kind(bob.resources(ResourceKind::Role, None).await), ApiErrorKind::Denied);
    assert_eq!(kind(bob.roles().await), ApiErrorKind::Denied);
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    assert_eq!(cluster.as_host(&certs).roles().await.unwrap().len(), 4);
}
