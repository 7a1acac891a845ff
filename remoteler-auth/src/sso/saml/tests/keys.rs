//! Keys that are made while the cluster changes.

use std::time::Duration;

use remoteler_ca::StoredSamlKey;
use remoteler_core::{LoginRequest, NewUser, ResourceKind, RoleName, Traits, UserName, X509Purpose, verify_x509_chain};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::time::timeout;

use super::*;
use crate::{records::key, service::Inner, sso::connectors::Connector};

/// So long nothing here takes, on any machine.
const SOON: Duration = Duration::from_secs(300);

fn named(name: &str, maker: &Maker, encrypted: bool) -> Resource {
    let callback = format!("https://proxy.example.com/web/callback/{name}");
    let mut spec = spec(maker);
    spec["acs"] = json!(callback);
    spec["encrypted_assertions"] = json!(encrypted);
    serde_json::from_value(json!({ "kind": "saml", "version": "v2", "metadata": { "name": name }, "spec": spec }))
        .unwrap()
}

fn role(name: &str) -> Resource {
    serde_json::from_value(json!({ "kind": "role", "version": "v7", "metadata": { "name": name }, "spec": {} }))
        .unwrap()
}

fn oidc() -> Resource {
    let spec = json!({
        "issuer_url": "https://idp.example.com", "client_id": "c", "client_secret": "s",
        "redirect_url": "https://proxy.example.com/web/callback/idp",
        "claims_to_roles": [{ "claim": "groups", "value": "dev", "roles": ["access"] }],
    });
    serde_json::from_value(json!({ "kind": "oidc", "version": "v3", "metadata": { "name": "idp" }, "spec": spec }))
        .unwrap()
}

async fn metadata(world: &World, name: &str) -> String {
    let view = world.step(BrowserAction::SamlMetadata { connector: name.into() }, None).await.unwrap();
    let BrowserView::SamlMetadata { document } = view else { panic!("{view:?}") };
    document
}

/// The key of a connector as it is stored.
async fn stored_key(inner: &Inner, prefix: &str, name: &str) -> Option<StoredSamlKey> {
    inner.records.read(&key::of(prefix, name)).await.unwrap()
}

/// Writes what is no document of this version, or one that has no keys yet.
async fn lay(inner: &Inner, name: &str, document: &Value) {
    inner.records.write(&key::of(key::CONNECTORS, name), document, None).await.unwrap();
}

/// Waits until so many have the turn at making keys, or wait for it.
async fn until_taken(inner: &Inner, count: usize) {
    let taken = async {
        while inner.sso.key_turns.taken() != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, taken).await.unwrap();
}

#[tokio::test]
async fn every_other_change_goes_through_while_the_keys_of_a_connector_are_made() {
    let world = World::without_connector().await;
    let inner = world.service.inner();
    let turn = inner.sso.key_turns.next().await.unwrap();
    let (admin, document) = (world.admin(), named("second", &world.maker, true));
    let put = tokio::spawn(async move { admin.put_resource(document, false).await });
    until_taken(&inner, 2).await;

    let admin = world.admin();
    timeout(SOON, admin.put_resource(role("new"), false)).await.unwrap().unwrap();
    // Connectors that need no key among them.
    timeout(SOON, admin.put_resource(oidc(), false)).await.unwrap().unwrap();
    timeout(SOON, admin.delete_resource(ResourceKind::Role, "new".into())).await.unwrap().unwrap();
    assert!(!put.is_finished() && inner.connector("second").await.unwrap().is_none());

    drop(turn);
    timeout(SOON, put).await.unwrap().unwrap().unwrap();
    assert_eq!(inner.sso.key_turns.taken(), 0);
    let shown = metadata(&world, "second").await;
    assert!(shown.contains("use=\"signing\"") && shown.contains("use=\"encryption\""), "{shown}");
    assert_eq!(world.audited().await.matches("\"name\":\"second\"").count(), 1);
}

#[tokio::test]
async fn of_two_who_make_keys_of_one_connector_the_first_to_write_gives_it_its_keys() {
    let world = World::without_connector().await;
    let inner = world.service.inner();
    let document = named("second", &world.maker, false);
    let connector = Connector::parse(document.clone()).unwrap();
    let late = inner.make_saml_keys(&connector).await.unwrap();
    world.admin().put_resource(document, false).await.unwrap();
    let first = metadata(&world, "second").await;

    assert!(inner.write_connector("late", connector.clone(), true, &late).await.unwrap());
    assert_eq!(metadata(&world, "second").await, first, "what identity providers were told stays true");

    // Keys that were made when others were there do not do when those are gone, and new ones are made.
    let none = inner.make_saml_keys(&connector).await.unwrap();
    world.admin().delete_resource(ResourceKind::Saml, "second".into()).await.unwrap();
    assert!(!inner.write_connector("later", connector, false, &none).await.unwrap());
    assert!(inner.connector("second").await.unwrap().is_none(), "nothing was written");
    assert!(!world.audited().await.contains("later"), "nor was it said");
}

// I26
#[tokio::test]
async fn those_who_wait_for_keys_are_bounded() {
    let world = World::without_connector().await;
    let inner = world.service.inner();
    let turn = inner.sso.key_turns.next().await.unwrap();
    let mut waiting = Vec::new();
    for number in 1..8 {
        let connector = Connector::parse(named(&format!("number-{number}"), &world.maker, true)).unwrap();
        let asking = world.service.inner();
        waiting.push(tokio::spawn(async move { asking.make_saml_keys(&connector).await.map(drop) }));
        until_taken(&inner, number + 1).await;
    }
    let refused = world.admin().put_resource(named("number-8", &world.maker, true), false).await.unwrap_err();
    assert_eq!(refused.kind, ApiErrorKind::RateLimited);
    // Who goes away leaves the place.
    for each in waiting {
        each.abort();
        assert!(each.await.unwrap_err().is_cancelled());
    }
    until_taken(&inner, 1).await;
    drop(turn);
    assert!(inner.sso.key_turns.next().await.is_ok());
}

#[tokio::test]
async fn a_key_that_decrypts_is_forgotten_with_a_document_that_does_not_tell_whose_it_is() {
    let world = World::without_connector().await;
    let inner = world.service.inner();
    let document = named("second", &world.maker, true);
    let mut moved = document.clone();
    moved.spec["issuer"] = json!("https://other.example.com/saml");
    world.admin().put_resource(document.clone(), false).await.unwrap();
    let mut known = vec![stored_key(&inner, key::SAML_ENCRYPTION_KEYS, "second").await.unwrap().certificate];
    let mut of_newer_version = json!(document);
    of_newer_version["spec"]["shape"] = json!("round");
    let mut with_more_metadata = json!(document);
    with_more_metadata["metadata"]["x"] = json!(1);
    for unreadable in [of_newer_version, with_more_metadata, json!({})] {
        lay(&inner, "second", &unreadable).await;
        world.admin().put_resource(moved.clone(), true).await.unwrap();
        let fresh = stored_key(&inner, key::SAML_ENCRYPTION_KEYS, "second").await.unwrap().certificate;
        assert!(!known.contains(&fresh), "{unreadable}");
        known.push(fresh);
    }
    // What can be read and is of the same provider keeps it.
    world.admin().put_resource(moved, true).await.unwrap();
    let kept = stored_key(&inner, key::SAML_ENCRYPTION_KEYS, "second").await.unwrap().certificate;
    assert_eq!(Some(&kept), known.last());
}

#[tokio::test]
async fn metadata_that_is_over_is_renewed_without_another_key() {
    let world = World::without_connector().await;
    let inner = world.service.inner();
    let certificate = &world.maker.certificate;
    let described = |entity: &str, until: &str| {
        let mut document = named("second", &world.maker, true);
        let spec = document.spec.as_object_mut().unwrap();
        spec.retain(|field, _| !["sso", "cert", "issuer"].contains(&field.as_str()));
        let metadata = format!(
            r#"<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" entityID="{entity}" validUntil="{until}"><md:IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol"><md:KeyDescriptor use="signing"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor><md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="https://idp.example.com/sso"/></md:IDPSSODescriptor></md:EntityDescriptor>"#
        );
        spec.insert("entity_descriptor".into(), json!(metadata));
        document
    };
    world.admin().put_resource(described("https://idp", "2026-03-01T13:00:00Z"), false).await.unwrap();
    let first = stored_key(&inner, key::SAML_ENCRYPTION_KEYS, "second").await;
    assert!(first.is_some());
    world.clock.advance(Duration::from_secs(2 * 3600));
    world.admin().put_resource(described("https://idp", "2026-04-01T00:00:00Z"), true).await.unwrap();
    assert_eq!(stored_key(&inner, key::SAML_ENCRYPTION_KEYS, "second").await, first);
    // Also when it is over, that of another provider is another's.
    world.admin().put_resource(described("https://other", "2026-03-01T13:00:00Z"), true).await.unwrap();
    assert_ne!(stored_key(&inner, key::SAML_ENCRYPTION_KEYS, "second").await, first);
}

#[tokio::test]
async fn no_key_is_written_for_a_connector_that_was_removed_while_it_was_made() {
    let world = World::without_connector().await;
    let inner = world.service.inner();
    lay(&inner, "second", &json!(named("second", &world.maker, false))).await;
    let turn = inner.sso.key_turns.next().await.unwrap();
    let asking = world.service.inner();
    let making = tokio::spawn(async move { asking.saml_key("second").await.map(drop) });
    until_taken(&inner, 2).await;
    world.admin().delete_resource(ResourceKind::Saml, "second".into()).await.unwrap();
    drop(turn);
    let refused = timeout(SOON, making).await.unwrap().unwrap().unwrap_err();
    assert_eq!(refused.kind, ApiErrorKind::NotFound);
    assert_eq!(stored_key(&inner, key::SAML_KEYS, "second").await, None);
}

#[tokio::test]
async fn a_test_of_a_connector_that_is_not_stored_leaves_no_key() {
    let world = World::without_connector().await;
    let inner = world.service.inner();
    world.tested(spec(&world.maker)).await;
    assert_eq!(stored_key(&inner, key::SAML_KEYS, "corp").await, None);
    // That of one that is stored asks with its key, which stays.
    lay(&inner, "corp", &json!(document(spec(&world.maker)))).await;
    world.tested(spec(&world.maker)).await;
    let first = stored_key(&inner, key::SAML_KEYS, "corp").await;
    assert!(first.is_some());
    world.tested(spec(&world.maker)).await;
    assert_eq!(stored_key(&inner, key::SAML_KEYS, "corp").await, first);
}

fn keeper(verbs: &[&str]) -> Resource {
    let mut role = role("keeper");
    role.spec = json!({ "allow": { "rules": [{ "resources": ["saml"], "verbs": verbs }] } });
    role
}

/// A user with the role, by a certificate.
async fn ann(world: &World) -> Arc<dyn AuthApi> {
    let (admin, name, password) = (world.admin(), UserName::new("ann").unwrap(), Secret::new("correct horse battery"));
    let roles = [RoleName::new("keeper").unwrap()].into();
    admin.create_user(NewUser { name: name.clone(), roles, traits: Traits::new() }).await.unwrap();
    admin.set_password(name, password.clone()).await.unwrap();
    let octets: [u8; 32] = remoteler_core::fill_random(&OsEntropy);
    let ssh = ssh_key::public::KeyData::Ed25519(ssh_key::public::Ed25519PublicKey(octets));
    let request = LoginRequest {
        user: "ann".into(),
        password,
        code: None,
        ssh_public_key: ssh_key::PublicKey::from(ssh).to_openssh().unwrap(),
        tls_public_key: rcgen::KeyPair::generate().unwrap().public_key_pem(),
        ttl_seconds: None,
        client_addr: None,
    };
    let certs = world.anybody().login(request).await.unwrap();
    let certificate = CertificateDer::from_pem_slice(certs.tls_certificate.as_bytes()).unwrap();
    let trust = world.service.trust_bundle();
    let verified = verify_x509_chain(&[certificate], &trust, X509Purpose::Client, world.clock.now()).unwrap();
    world.service.as_caller(Caller::User { user: verified.user().unwrap(), addr: None })
}

#[tokio::test]
async fn who_may_no_longer_write_a_connector_when_its_keys_are_made_does_not() {
    let world = World::without_connector().await;
    let inner = world.service.inner();
    world.admin().put_resource(keeper(&["create", "update"]), false).await.unwrap();
    let ann = ann(&world).await;
    for (verbs, replace) in [(&["create"][..], true), (&["update"], false)] {
        let turn = inner.sso.key_turns.next().await.unwrap();
        let (putting, document) = (Arc::clone(&ann), named("second", &world.maker, false));
        let put = tokio::spawn(async move { putting.put_resource(document, replace).await });
        until_taken(&inner, 2).await;
        world.admin().put_resource(keeper(verbs), true).await.unwrap();
        drop(turn);
        let refused = timeout(SOON, put).await.unwrap().unwrap().unwrap_err();
        assert_eq!(refused.kind, ApiErrorKind::Denied, "{refused}");
        assert!(inner.connector("second").await.unwrap().is_none(), "nothing was written");
        world.admin().put_resource(keeper(&["create", "update"]), true).await.unwrap();
    }
    ann.put_resource(named("second", &world.maker, false), true).await.unwrap();
}
