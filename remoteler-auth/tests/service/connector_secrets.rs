//! Connectors with their secrets: who may be shown them, and that it is on record.

use remoteler_core::{ApiErrorKind, Resource, ResourceKind};
use serde_json::json;

use crate::support::{Cluster, kind};

async fn started() -> Cluster {
    let cluster = Cluster::start().await;
    let connector = json!({
        "kind": "oidc", "version": "v3", "metadata": { "name": "idp" },
        "spec": {
            "issuer_url": "https://idp.example.com", "client_id": "remoteler", "client_secret": "canary-secret",
            "redirect_url": "https://proxy.example.com/web/callback/idp",
            "claims_to_roles": [{ "claim": "groups", "value": "dev", "roles": ["access"] }],
        },
    });
    cluster.admin().put_resource(serde_json::from_value(connector).unwrap(), false).await.unwrap();
    cluster
}

#[tokio::test]
async fn the_secret_of_a_connector_is_shown_to_who_may_change_it_and_asks_for_it_and_that_is_on_record() {
    // I76
    let cluster = started().await;
    let admin = cluster.admin();
    let shown = admin.connector_secrets(ResourceKind::Oidc, Some("idp".into())).await.unwrap();
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].spec["client_secret"], json!("canary-secret"), "in the clear, as another cluster takes it");
    let on_record = cluster.events("connector.secrets_shown").await;
    assert_eq!(on_record.len(), 1);
    let event = format!("{:?}", on_record[0]);
    assert!(event.contains("\"idp\"") && !event.contains("canary"), "{event}");
    assert_eq!(admin.connector_secrets(ResourceKind::Oidc, None).await.unwrap(), shown);
    assert_eq!(kind(admin.connector_secrets(ResourceKind::Oidc, Some("other".into())).await), ApiErrorKind::NotFound);
    assert!(admin.connector_secrets(ResourceKind::Github, None).await.unwrap().is_empty());
    let none = admin.connector_secrets(ResourceKind::Role, None).await.unwrap_err();
    assert!(none.message.contains("hold no secrets"), "{none}");
    assert_eq!(cluster.events("connector.secrets_shown").await.len(), 2);

    // To see connectors is not to see their secrets, to change them alone neither.
    let keeper = |verbs: serde_json::Value| -> Resource {
        let rules = json!([{ "resources": ["oidc"], "verbs": verbs }]);
        let role = json!({ "kind": "role", "version": "v7", "metadata": { "name": "keeper" }, "spec": { "allow": { "rules": rules } } });
        serde_json::from_value(role).unwrap()
    };
    admin.put_resource(keeper(json!(["list", "read"])), true).await.unwrap();
    cluster.user("kim", &["keeper"], &[]).await;
    let kim = cluster.as_user("kim").await;
    assert_eq!(kind(kim.connector_secrets(ResourceKind::Oidc, None).await), ApiErrorKind::Denied);
    admin.put_resource(keeper(json!(["list", "update", "create", "delete"])), true).await.unwrap();
    assert_eq!(kind(kim.connector_secrets(ResourceKind::Oidc, None).await), ApiErrorKind::Denied);
    assert_eq!(cluster.events("connector.secrets_shown").await.len(), 2);
    admin.put_resource(keeper(json!(["read", "update"])), true).await.unwrap();
    assert_eq!(kim.connector_secrets(ResourceKind::Oidc, Some("idp".into())).await.unwrap(), shown);
    assert_eq!(kind(kim.connector_secrets(ResourceKind::Oidc, None).await), ApiErrorKind::Denied);
    admin.put_resource(keeper(json!(["list", "read", "update"])), true).await.unwrap();
    assert_eq!(kim.connector_secrets(ResourceKind::Oidc, None).await.unwrap(), shown);
    assert_eq!(kind(kim.connector_secrets(ResourceKind::Github, None).await), ApiErrorKind::Denied);
    assert_eq!(
        kind(cluster.anonymous().connector_secrets(ResourceKind::Oidc, None).await),
        ApiErrorKind::Unauthenticated
    );

    // What was shown is taken by a cluster that never saw it, and by this one.
    let other = Cluster::start().await;
    other.admin().put_resource(shown[0].clone(), false).await.unwrap();
    assert_eq!(other.admin().connector_secrets(ResourceKind::Oidc, None).await.unwrap(), shown);
    admin.put_resource(shown[0].clone(), true).await.unwrap();
}
