//! The layer that makes an API server act as the user, by itself: what comes out below it, whatever went in above.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::sync::Arc;

use http::Request;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use remoteler_core::{
    CaSet, Clock, ClusterName, HostId, Identity, KubeAccess, KubeClusterName, KubeRecord, Labels, Policy, Role,
    RoleName, SystemClock, Timestamp, Traits, TrustBundle, UserIdentity, UserName, Verified, X509_IDENTITY_OID,
    X509Purpose, authorize_kube, verify_x509_chain, x509_naming,
};
use remoteler_kube::{Impersonated, impersonate};
use tower_test::mock::{self, SendResponse};

/// The proof that `user` may act as `groups`, got the only way there is: certificate, verification, decision.
fn access_of(user: &str, groups: &[&str]) -> KubeAccess {
    let cluster = ClusterName::new("root.example.com").unwrap();
    let role = RoleName::new("developer").unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let naming = x509_naming(&Identity::User(UserIdentity {
        user: UserName::new(user).unwrap(),
        cluster: cluster.clone(),
        roles: [role.clone()].into(),
        traits: Traits::new(),
        logins: Vec::new(),
    }));
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, naming.common_name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&X509_IDENTITY_OID, naming.extension)];
    params.not_after = rcgen::date_time_ymd(4000, 1, 1);
    let leaf = params.signed_by(&KeyPair::generate().unwrap(), &authority).unwrap();
    let nothing = CaSet { ssh: Vec::new(), x509: Vec::new() };
    let user_authority = CaSet { ssh: Vec::new(), x509: vec![authority.der().to_vec()] };
    let trust = TrustBundle::new(cluster, user_authority, nothing);
    let verified = verify_x509_chain(&[leaf.der().clone()], &trust, X509Purpose::Client, SystemClock.now());
    let Ok(Verified::User(user)) = verified else { panic!("{verified:?}") };
    let spec = serde_json::json!({"allow": {"kubernetes_groups": groups, "kubernetes_labels": {"*": "*"}}});
    let checked = Role::new(role.clone(), &serde_json::from_value(spec).unwrap()).unwrap();
    let policy = Policy::new(trust, [(role, Arc::new(checked))].into());
    let kube = KubeRecord {
        host_id: HostId::from_uuid(uuid::Uuid::nil()),
        name: KubeClusterName::new("staging").unwrap(),
        labels: Labels::new(),
        addr: None,
        version: "0".into(),
        last_seen: Timestamp::default(),
        heartbeat: Default::default(),
    };
    authorize_kube(&user, &policy, &kube).unwrap()
}

fn values<B>(request: &Request<B>, name: &str) -> Vec<String> {
    request.headers().get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

// I55, I56
#[tokio::test]
async fn a_client_cannot_become_someone_else_by_sending_the_headers_itself() {
    let layer = impersonate(&access_of("ann", &["dev", "viewers"])).unwrap();
    let (mut service, mut api_server) = mock::spawn_layer(layer);
    let forged = Request::get("/api/v1/pods")
        .header("Impersonate-User", "root")
        .header("Impersonate-Group", "system:masters")
        .header("Impersonate_Extra-Scopes", "all")
        .header("Connection", "impersonate-user, x-private")
        .header("X-Private", "1")
        .header("X-Remote-User", "root")
        .header("Accept", "application/json")
        .body(())
        .unwrap();

    assert!(service.poll_ready().is_ready());
    let _answer = service.call(forged);

    let (seen, _reply): (Impersonated<()>, SendResponse<()>) = api_server.next_request().await.unwrap();
    let seen = seen.request();
    assert_eq!(values(seen, "impersonate-user"), ["ann"]);
    assert_eq!(values(seen, "impersonate-group"), ["dev", "viewers"]);
    assert_eq!(values(seen, "accept"), ["application/json"]);
    assert_eq!(seen.headers().len(), 4);
}
