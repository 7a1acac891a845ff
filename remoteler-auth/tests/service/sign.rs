//! Certificates on an administrator's word: who may ask, and that nothing of a user is what the request says but what the cluster keeps.

use std::time::Duration;

use remoteler_auth::Caller;
use remoteler_core::{
    ApiErrorKind, AuditKind, AuthApi, Clock, Resource, RevocationTarget, SignRequest, SignedCertificates,
    SshCertificatePurpose, SystemRole, UserName, Verified, VerifyError, X509Purpose, spki_pin, verify_ssh_certificate,
    verify_x509_chain,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;

use crate::support::{Cluster, Keys, kind, new_user};

fn ann() -> UserName {
    UserName::new("ann").unwrap()
}

fn of_user(ttl_seconds: Option<u64>) -> SignRequest {
    let Keys { ssh, tls } = Keys::new();
    SignRequest::User { user: ann(), ssh_public_key: ssh, tls_public_key: tls, ttl_seconds }
}

fn openssh_user() -> SignRequest {
    SignRequest::OpensshUser { user: ann(), ssh_public_key: Keys::new().ssh, ttl_seconds: None }
}

fn kubernetes(kube_cluster: &str) -> SignRequest {
    let kube_cluster = kube_cluster.parse().unwrap();
    SignRequest::Kubernetes {
        user: ann(),
        kube_cluster,
        tls_public_key: Keys::new().tls,
        ttl_seconds: None,
        needs_proxy: false,
    }
}

fn database(user: &str, database_user: Option<&str>) -> SignRequest {
    SignRequest::Database {
        user: UserName::new(user).unwrap(),
        database_user: database_user.map(str::to_owned),
        tls_public_key: Keys::new().tls,
        ttl_seconds: None,
    }
}

fn smart_card(windows_user: Option<&str>) -> SignRequest {
    SignRequest::SmartCard {
        user: ann(),
        windows_user: windows_user.map(str::to_owned),
        domain: "corp.example.com".into(),
        sid: Some("S-1-5-21-1-2-3-1001".into()),
        crl_url: "http://crl.example.com/user.crl".into(),
        tls_public_key: Keys::new().tls,
        ttl_seconds: None,
    }
}

fn openssh_host(names: &[&str]) -> SignRequest {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    SignRequest::OpensshHost { names, ssh_public_key: Keys::new().ssh, ttl_seconds: None }
}

fn server(names: &[&str]) -> SignRequest {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    SignRequest::Server { names, tls_public_key: Keys::new().tls, ttl_seconds: None }
}

/// One of each, and what the audit log calls it.
fn all() -> [(SignRequest, &'static str); 7] {
    [
        (of_user(None), "user"),
        (openssh_user(), "openssh user"),
        (kubernetes("staging"), "kubernetes client"),
        (database("ann", None), "database client"),
        (smart_card(None), "smart card"),
        (openssh_host(&["web-1.example.com"]), "openssh host"),
        (server(&["db.example.com", "192.0.2.7"]), "server"),
    ]
}

fn ssh(signed: &SignedCertificates) -> ssh_key::Certificate {
    ssh_key::Certificate::from_openssh(signed.ssh_certificate.as_deref().unwrap()).unwrap()
}

fn x509(cluster: &Cluster, signed: &SignedCertificates, purpose: X509Purpose) -> Result<Verified, VerifyError> {
    let pem = signed.tls_certificate.as_deref().unwrap();
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    verify_x509_chain(&[certificate], &cluster.service.trust_bundle(), purpose, cluster.clock.now())
}

async fn with_ann() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root", "ubuntu"]).await;
    cluster
}

#[tokio::test]
async fn a_user_gets_what_a_login_would_give_and_nothing_of_it_stood_in_the_request() {
    let cluster = with_ann().await;
    let signed = cluster.admin().sign_certificates(of_user(None)).await.unwrap();
    let certs = cluster.log_in("ann").await;
    let user = x509(&cluster, &signed, X509Purpose::Client).unwrap().user().unwrap();
    let logged_in = cluster.verify(&certs.tls_certificate).user().unwrap();
    assert_eq!(user.identity(), logged_in.identity()); // I9
    let now = cluster.clock.now();
    let by_ssh = verify_ssh_certificate(&ssh(&signed), &signed.trust, SshCertificatePurpose::User, now).unwrap();
    assert_eq!(by_ssh.user().unwrap().identity(), user.identity());
    assert_eq!((signed.subject.as_str(), signed.expires), ("ann", Some(user.expires())));
    assert_eq!((signed.roles, signed.logins), (certs.roles, certs.logins));
}

#[tokio::test]
async fn the_shortest_of_roles_and_request_is_the_life_of_each_users_certificate() {
    let cluster = with_ann().await;
    let brief = json!({ "kind": "role", "version": "v7", "metadata": { "name": "brief" },
        "spec": { "options": { "max_session_ttl": "1h" } } });
    cluster.admin().put_resource(serde_json::from_value::<Resource>(brief).unwrap(), false).await.unwrap();
    cluster.admin().update_user(new_user("ann", &["access", "brief"], &["root"])).await.unwrap();
    let hour = cluster.clock.now().plus(Duration::from_secs(3600));
    for (request, purpose) in all().into_iter().take(5) {
        let signed = cluster.admin().sign_certificates(request).await.unwrap();
        assert_eq!(signed.expires, Some(hour), "{purpose}"); // I6
    }
    let short = cluster.admin().sign_certificates(of_user(Some(600))).await.unwrap();
    assert_eq!(short.expires, Some(cluster.clock.now().plus(Duration::from_secs(600))));
    let long = cluster.admin().sign_certificates(of_user(Some(1_000_000_000_000))).await.unwrap();
    assert_eq!(long.expires, Some(hour));
    assert_eq!(kind(cluster.admin().sign_certificates(of_user(Some(1))).await), ApiErrorKind::BadRequest);
}

#[tokio::test]
async fn an_openssh_user_has_the_accounts_of_the_roles_and_is_nobody_at_our_nodes() {
    let cluster = with_ann().await;
    let signed = cluster.admin().sign_certificates(openssh_user()).await.unwrap();
    let certificate = ssh(&signed);
    assert_eq!(certificate.valid_principals(), ["root", "ubuntu"]); // I9
    let now = cluster.clock.now();
    assert!(verify_ssh_certificate(&certificate, &signed.trust, SshCertificatePurpose::User, now).is_err()); // I1
    cluster.admin().update_user(new_user("ann", &["access"], &[])).await.unwrap();
    let refused = cluster.admin().sign_certificates(openssh_user()).await.unwrap_err();
    assert!(refused.message.contains("no login"), "{refused}"); // I4: not the placeholder of our own certificates
}

#[tokio::test]
async fn a_certificate_for_one_kubernetes_cluster_is_good_for_nothing_else() {
    let cluster = with_ann().await;
    let signed = cluster.admin().sign_certificates(kubernetes("staging")).await.unwrap();
    assert!(signed.ssh_certificate.is_none());
    assert!(matches!(x509(&cluster, &signed, X509Purpose::Client), Err(VerifyError::Restricted(_)))); // I1
    x509(&cluster, &signed, X509Purpose::KubeClient).unwrap().user().unwrap();
}

#[tokio::test]
async fn accounts_elsewhere_are_those_of_the_stored_user_whatever_is_asked() {
    let cluster = with_ann().await;
    let admin = cluster.admin();
    assert_eq!(admin.sign_certificates(database("ann", None)).await.unwrap().subject, "ann");
    let before = cluster.events("cert.create").await.len();
    for asked in ["postgres", "", "ann\n"] {
        assert_eq!(kind(admin.sign_certificates(database("ann", Some(asked))).await), ApiErrorKind::BadRequest); // I9
    }
    assert_eq!(kind(admin.sign_certificates(smart_card(Some("Administrator"))).await), ApiErrorKind::BadRequest);
    assert_eq!(cluster.events("cert.create").await.len(), before);

    let mut user = new_user("ann", &["access"], &["root"]);
    user.traits.insert("db_users".into(), vec!["reader".into(), "writer".into()]);
    user.traits.insert("windows_logins".into(), vec!["ann.smith".into()]);
    admin.update_user(user).await.unwrap();
    assert_eq!(admin.sign_certificates(database("ann", Some("writer"))).await.unwrap().subject, "writer");
    let refused = admin.sign_certificates(database("ann", None)).await.unwrap_err();
    assert!(refused.message.contains("reader, writer") && refused.message.contains("--db-user"), "{refused}");
    assert_eq!(kind(admin.sign_certificates(database("ann", Some("ann"))).await), ApiErrorKind::BadRequest);
    let card = admin.sign_certificates(smart_card(None)).await.unwrap();
    assert_eq!(card.subject, "ann.smith@corp.example.com");
    for (signed, what) in
        [(card, "smart card"), (admin.sign_certificates(server(&["h.example.com"])).await.unwrap(), "server")]
    {
        for purpose in [X509Purpose::Client, X509Purpose::KubeClient, X509Purpose::Server] {
            assert!(x509(&cluster, &signed, purpose).is_err(), "{what}"); // I1
        }
    }
}

#[tokio::test]
async fn each_certificate_stands_in_the_audit_log_with_its_purpose_and_who_asked() {
    let cluster = with_ann().await;
    for (request, purpose) in all() {
        let signed = cluster.admin().sign_certificates(request).await.unwrap();
        let event = cluster.events("cert.create").await.pop().unwrap();
        let AuditKind::CertCreate { purpose: found, by, ssh_serial, tls_serial, expires, .. } = event.kind else {
            panic!("{purpose}")
        };
        assert_eq!((found.as_str(), by.as_str()), (purpose, "local:administrator"));
        // I75
        assert_eq!(
            ssh_serial,
            signed.ssh_certificate.as_ref().map(|_| ssh(&signed).serial().to_string()).unwrap_or_default()
        );
        assert_eq!(tls_serial.is_empty(), signed.tls_certificate.is_none());
        assert_eq!(expires, signed.expires);
    }
    let signed = cluster.admin().sign_certificates(smart_card(None)).await.unwrap();
    let event = serde_json::to_value(cluster.events("cert.create").await.pop().unwrap()).unwrap();
    assert_eq!((&event["user"], &event["subject"]), (&json!("ann"), &json!(signed.subject)));
    assert!(event.get("ssh_serial").is_none(), "{event}");
}

#[tokio::test]
async fn a_server_is_what_the_administrator_names_and_bad_names_are_refused() {
    let cluster = with_ann().await;
    let admin = cluster.admin();
    let signed = admin.sign_certificates(openssh_host(&["Web-1.example.com", "192.0.2.7"])).await.unwrap();
    assert_eq!(ssh(&signed).valid_principals(), ["web-1.example.com", "192.0.2.7"]);
    assert_eq!((signed.subject.as_str(), signed.expires), ("web-1.example.com", None));
    let now = cluster.clock.now();
    let host = SshCertificatePurpose::Host("web-1.example.com");
    assert!(verify_ssh_certificate(&ssh(&signed), &signed.trust, host, now).is_err()); // I1: no host of the cluster
    for names in [&[][..], &["*"], &["a b"], &["-x"], &["a", "a"], &["evil\nname"]] {
        assert_eq!(kind(admin.sign_certificates(openssh_host(names)).await), ApiErrorKind::BadRequest, "{names:?}"); // I4
    }
    assert_eq!(kind(admin.sign_certificates(server(&vec!["a"; 1000])).await), ApiErrorKind::BadRequest); // I25
}

// I9
#[tokio::test]
async fn only_who_may_create_certificates_gets_any() {
    let cluster = with_ann().await;
    cluster.user("eve", &["access", "editor", "auditor"], &["eve"]).await;
    let node = cluster.join("gw", &[SystemRole::Node, SystemRole::Proxy], &[]).await;
    let strangers: [std::sync::Arc<dyn AuthApi>; 4] = [
        cluster.as_user("eve").await,
        cluster.as_user("ann").await,
        cluster.as_host(&node),
        cluster.service.as_caller(Caller::Anonymous { addr: ([192, 0, 2, 1], 1).into() }),
    ];
    let before = cluster.events("cert.create").await.len();
    for (number, api) in strangers.iter().enumerate() {
        for (request, purpose) in all() {
            let kind = kind(api.sign_certificates(request).await);
            assert!(matches!(kind, ApiErrorKind::Denied | ApiErrorKind::Unauthenticated), "{number} {purpose}");
        }
    }
    assert_eq!(cluster.events("cert.create").await.len(), before);

    for (resource, may) in [("user_cert", 5), ("host_cert", 2)] {
        let role = json!({ "kind": "role", "version": "v7", "metadata": { "name": "signer" },
            "spec": { "allow": { "rules": [{ "resources": [resource], "verbs": ["create"] }] } } });
        cluster.admin().put_resource(serde_json::from_value(role).unwrap(), true).await.unwrap();
        if resource == "user_cert" {
            cluster.user("sam", &["signer"], &[]).await;
        }
        let sam = cluster.as_user("sam").await;
        let mut signed = 0;
        for (request, _) in all() {
            let of_host = matches!(request, SignRequest::OpensshHost { .. } | SignRequest::Server { .. });
            let outcome = sam.sign_certificates(request).await;
            assert_eq!(outcome.is_ok(), of_host == (resource == "host_cert"), "{outcome:?}");
            signed += usize::from(outcome.is_ok());
        }
        assert_eq!(signed, may);
    }
    let event = cluster.events("cert.create").await.pop().unwrap();
    assert!(matches!(event.kind, AuditKind::CertCreate { by, .. } if by == "sam"));
}

#[tokio::test]
async fn a_key_that_is_revoked_is_certified_for_nobody() {
    let cluster = with_ann().await;
    for (request, purpose) in all() {
        let signed = cluster.admin().sign_certificates(request.clone()).await.unwrap();
        let target = match &signed.ssh_certificate {
            Some(_) => RevocationTarget::ssh_key(ssh(&signed).public_key()),
            None => {
                let pem = signed.tls_certificate.as_deref().unwrap();
                let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
                RevocationTarget::key(&spki_pin(&certificate).unwrap()).unwrap()
            }
        };
        let wanted = json!({ "target": target.to_string() });
        cluster.admin().revoke(serde_json::from_value(wanted).unwrap()).await.unwrap();
        let refused = cluster.admin().sign_certificates(request).await.unwrap_err();
        assert!(refused.message.contains("the key is revoked"), "{purpose}: {refused}");
    }
}

#[tokio::test]
async fn for_a_user_who_is_not_there_nothing_is_issued() {
    let cluster = with_ann().await;
    assert_eq!(kind(cluster.admin().sign_certificates(database("bob", None)).await), ApiErrorKind::NotFound);
    assert_eq!(cluster.events("cert.create").await.len(), 0);
}

#[tokio::test]
async fn nothing_is_issued_for_a_kubeconfig_that_would_name_no_proxy() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &[]).await;
    let request = |needs_proxy| SignRequest::Kubernetes {
        user: ann(),
        kube_cluster: "staging".parse().unwrap(),
        tls_public_key: Keys::new().tls,
        ttl_seconds: None,
        needs_proxy,
    };
    let refused = cluster.admin().sign_certificates(request(true)).await.unwrap_err();
    assert!(refused.kind == ApiErrorKind::Conflict && refused.message.contains("--proxy"), "{refused}");
    assert!(cluster.events("cert.create").await.is_empty());
    cluster.admin().sign_certificates(request(false)).await.unwrap();

    let proxy = cluster.join("proxy-1", &[SystemRole::Proxy], &[]).await;
    cluster.as_host(&proxy).announce_proxy("p.example.com:443".into()).await.unwrap();
    let signed = cluster.admin().sign_certificates(request(true)).await.unwrap();
    assert_eq!(signed.proxy_addr.as_deref(), Some("p.example.com:443"));
}
