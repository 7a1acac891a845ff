//! The daemon's auth service without the feature `saml`: what asks for SAML is refused in words, and everything else goes on.

use remoteler_auth::{AuthConfig, AuthService, Caller};
use remoteler_core::{ApiErrorKind, ClusterName, Resource, ResourceKind};
use serde_json::{Value, json};

fn document(kind: &str, version: &str, spec: Value) -> Resource {
    let document = json!({ "kind": kind, "version": version, "metadata": { "name": "corp" }, "spec": spec });
    serde_json::from_value(document).expect("a document")
}

#[tokio::test]
async fn a_connector_of_saml_is_refused_and_it_is_said_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let service = AuthService::open(AuthConfig::new(dir.path(), ClusterName::new("root").unwrap())).await.unwrap();
    let admin = service.as_caller(Caller::LocalAdmin);
    let saml = json!({
        "acs": "https://proxy.example.com/web/callback/corp", "entity_descriptor_url": "https://idp.example.com/metadata",
        "attributes_to_roles": [{ "name": "groups", "value": "dev", "roles": ["access"] }],
    });
    let saml = || document("saml", "v2", saml.clone());
    let refusals = [
        admin.put_resource(saml(), false).await.unwrap_err(),
        admin.put_resource(saml(), true).await.unwrap_err(),
        admin.test_connector(saml()).await.unwrap_err(),
    ];
    for refused in refusals {
        let words = "saml corp: this build has no SAML; use one with the feature saml";
        assert_eq!((refused.kind, refused.message.as_str()), (ApiErrorKind::BadRequest, words));
    }
    assert_eq!(admin.resources(ResourceKind::Saml, None).await.unwrap(), []);

    let oidc = json!({
        "issuer_url": "https://idp.example.com", "client_id": "remoteler", "client_secret": "canary",
        "redirect_url": "https://proxy.example.com/web/callback/corp",
        "claims_to_roles": [{ "claim": "groups", "value": "dev", "roles": ["access"] }],
    });
    admin.put_resource(document("oidc", "v3", oidc), false).await.unwrap();
}
