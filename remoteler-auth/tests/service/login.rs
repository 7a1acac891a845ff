use std::time::Duration;

use remoteler_auth::Caller;
use remoteler_core::{
    ApiErrorKind, AuditKind, Clock, LoginRequest, Resource, Secret, SshCertificatePurpose, SystemRole, UserName,
    Verified, verify_ssh_certificate,
};
use serde_json::json;

use crate::support::{Cluster, PASSWORD, kind, login_request};

#[tokio::test]
async fn a_login_gives_certificates_that_verify_and_say_what_the_user_is() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root", "ubuntu", "root"]).await;

    let certs = cluster.log_in("ann").await;

    assert_eq!(certs.logins, ["root", "ubuntu"]);
    let Verified::User(user) = cluster.verify(&certs.tls_certificate) else { panic!("not a user") };
    assert_eq!(user.identity().user.as_str(), "ann");
    assert_eq!(user.expires(), certs.expires);
    let ssh = ssh_key::Certificate::from_openssh(&certs.ssh_certificate).unwrap();
    let now = cluster.clock.now();
    let verified = verify_ssh_certificate(&ssh, &certs.trust, SshCertificatePurpose::User, now).unwrap();
    assert_eq!(verified.user().unwrap().identity(), user.identity()); // I9: nothing of it stood in the request
    assert_eq!(certs.expires, now.plus(Duration::from_secs(12 * 3600)));
    let [event] = cluster.events("user.login").await.try_into().unwrap();
    let AuditKind::UserLogin { user, success: true, remote, .. } = event.kind else { panic!("{event:?}") };
    assert_eq!((user.as_str(), remote.as_deref()), ("ann", Some("192.0.2.1:40000")));
}

#[tokio::test]
async fn the_certificates_are_in_the_audit_log_by_their_serials() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let certs = cluster.log_in("ann").await;
    let events = cluster.events("cert.create").await;
    let AuditKind::CertCreate { ssh_serial, tls_serial, logins, .. } = &events.last().unwrap().kind else {
        panic!("{events:?}")
    };
    let ssh = ssh_key::Certificate::from_openssh(&certs.ssh_certificate).unwrap();
    assert_eq!(*ssh_serial, ssh.serial().to_string()); // I75
    let user = cluster.verify(&certs.tls_certificate).user().unwrap();
    assert_eq!(*tls_serial, user.serial());
    assert_eq!(logins, &["root"]);
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_get_the_same_answer_and_are_audited() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &[]).await;
    cluster.admin().create_user(crate::support::new_user("new", &["access"], &[])).await.unwrap();
    let mut answers = Vec::new();
    for (user, password) in [("ann", "wrong password"), ("bob", PASSWORD), ("new", PASSWORD), ("../ann", PASSWORD)] {
        answers.push(cluster.anonymous().login(login_request(user, password)).await.unwrap_err());
    }
    assert_eq!(answers[0].kind, ApiErrorKind::Unauthenticated);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let events = cluster.events("user.login").await;
    assert_eq!(events.len(), 4);
    assert!(events.iter().all(|event| event.code == "T1000W"));
}

#[tokio::test]
async fn the_shortest_of_roles_and_request_is_the_life_of_a_certificate() {
    let cluster = Cluster::start().await;
    let spec = json!({ "options": { "max_session_ttl": "2h" }, "allow": { "logins": ["root"] } });
    let mut role = Resource::role(&"short".parse().unwrap(), &serde_json::from_value(spec).unwrap());
    role.version = "v5".into();
    cluster.admin().put_resource(role, false).await.unwrap();
    cluster.user("ann", &["access", "short"], &[]).await;
    let now = cluster.clock.now();
    for (requested, seconds) in [(None, 7200), (Some(120), 120), (Some(86_400), 7200), (Some(u64::MAX), 7200)] {
        let request = LoginRequest { ttl_seconds: requested, ..login_request("ann", PASSWORD) };
        let certs = cluster.anonymous().login(request).await.unwrap();
        assert_eq!(certs.expires, now.plus(Duration::from_secs(seconds)), "{requested:?}"); // I6
    }
}

#[tokio::test]
async fn a_life_too_short_to_be_of_use_is_refused_with_the_least_that_is() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    for requested in [0, 5, 119] {
        let request = LoginRequest { ttl_seconds: Some(requested), ..login_request("ann", PASSWORD) };
        let refused = cluster.anonymous().login(request).await.unwrap_err();
        assert_eq!(refused.kind, ApiErrorKind::BadRequest);
        assert!(refused.message.contains("120 seconds"), "{refused}");
    }
    let least = LoginRequest { ttl_seconds: Some(120), ..login_request("ann", PASSWORD) };
    cluster.anonymous().login(least).await.unwrap();
}

#[tokio::test]
async fn a_user_without_accounts_gets_a_principal_that_opens_none() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["editor"], &[]).await;
    assert_eq!(cluster.log_in("ann").await.logins, ["no-login"]);
}

#[tokio::test]
async fn ten_failures_lock_a_user_for_five_minutes_even_with_the_right_password() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    cluster.user("bob", &["access"], &["root"]).await;
    for number in 0..10_u8 {
        let api = cluster.at_address([198, 51, 100, number]);
        assert_eq!(kind(api.login(login_request("ann", "wrong password")).await), ApiErrorKind::Unauthenticated);
    }
    let api = cluster.anonymous();
    assert_eq!(kind(api.login(login_request("ann", PASSWORD)).await), ApiErrorKind::RateLimited);
    api.login(login_request("bob", PASSWORD)).await.unwrap();
    cluster.clock.advance(Duration::from_secs(300));
    api.login(login_request("ann", PASSWORD)).await.unwrap();
}

#[tokio::test]
async fn an_address_that_tries_many_names_is_locked_out_alone() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    for number in 0..30 {
        let request = login_request(&format!("user{number}"), "wrong password");
        assert_eq!(kind(cluster.anonymous().login(request).await), ApiErrorKind::Unauthenticated);
    }
    assert_eq!(kind(cluster.anonymous().login(login_request("ann", PASSWORD)).await), ApiErrorKind::RateLimited);
    cluster.at_address([203, 0, 113, 7]).login(login_request("ann", PASSWORD)).await.unwrap();
    // Each guess is on record with the name that was tried and where it came from, as are the last one that was not looked at and the login.
    let events = cluster.events("user.login").await;
    let failed = events
        .iter()
        .filter(|event| matches!(&event.kind, AuditKind::UserLogin { success: false, remote: Some(_), .. }));
    assert!(failed.count() >= 30, "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_logins_at_once_wait_for_their_turn_and_guesses_at_once_do_not_pass_together() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    cluster.user("bob", &["access"], &["root"]).await;
    let at_once = async |logins: Vec<(&'static str, &'static str)>| {
        let mut under_way = Vec::new();
        for (user, password) in logins {
            let api = cluster.anonymous();
            under_way.push(tokio::spawn(async move { api.login(login_request(user, password)).await }));
        }
        let mut outcomes = Vec::new();
        for login in under_way {
            outcomes.push(login.await.unwrap().map(drop).map_err(|cause| cause.kind));
        }
        outcomes
    };
    // More of one user than may fail, and more from one address.
    let honest = (0..32).map(|number| (["ann", "bob"][number % 2], PASSWORD)).collect();
    assert_eq!(at_once(honest).await, vec![Ok(()); 32]);
    let guesses = at_once(vec![("ann", "a guess"); 40]).await;
    let looked_at = guesses.iter().filter(|guess| **guess == Err(ApiErrorKind::Unauthenticated)).count();
    assert_eq!(looked_at, 10, "the password is looked at as often as one may fail, and no oftener");
    assert_eq!(kind(cluster.anonymous().login(login_request("ann", PASSWORD)).await), ApiErrorKind::RateLimited);
}

#[tokio::test]
async fn only_a_proxy_is_believed_when_it_names_the_clients_address() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let proxy = cluster.join("proxy", &[SystemRole::Proxy], &[]).await;
    let node = cluster.join("node", &[SystemRole::Node], &[]).await;
    let request = || LoginRequest { client_addr: Some("203.0.113.9:1".into()), ..login_request("ann", PASSWORD) };
    cluster.as_host(&proxy).login(request()).await.unwrap();
    cluster.as_host(&node).login(request()).await.unwrap();
    cluster.anonymous().login(request()).await.unwrap();
    let mut seen = Vec::new();
    for event in cluster.events("user.login").await {
        let AuditKind::UserLogin { remote, .. } = event.kind else { panic!("{event:?}") };
        seen.push(remote);
    }
    assert_eq!(seen, [Some("203.0.113.9:1".into()), Some("192.0.2.7:41000".into()), Some("192.0.2.1:40000".into())]);
}

#[tokio::test]
async fn a_key_that_is_weak_or_a_certificate_is_refused() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let certificate = cluster.log_in("ann").await.ssh_certificate;
    let api = cluster.anonymous();
    for key in [certificate.as_str(), "ssh-ed25519 AAAA", "", &"x".repeat(100_000)] {
        let request = LoginRequest { ssh_public_key: key.to_owned(), ..login_request("ann", PASSWORD) };
        assert_eq!(kind(api.login(request).await), ApiErrorKind::BadRequest, "{key}"); // I7
    }
}

#[tokio::test]
async fn a_certificate_is_no_use_after_its_end_or_when_the_user_is_gone() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["editor"], &[]).await;
    cluster.user("bob", &["editor"], &[]).await;
    let (ann, bob) = (cluster.as_user("ann").await, cluster.as_user("bob").await);
    ann.users().await.unwrap();
    cluster.admin().delete_user(UserName::new("ann").unwrap()).await.unwrap();
    assert_eq!(kind(ann.users().await), ApiErrorKind::Unauthenticated);
    bob.users().await.unwrap();
    cluster.clock.advance(Duration::from_secs(12 * 3600));
    assert_eq!(kind(bob.users().await), ApiErrorKind::Unauthenticated); // I78
}

#[tokio::test]
async fn no_secret_is_found_in_the_audit_log() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    cluster.log_in("ann").await;
    let token = cluster.token(&[SystemRole::Node]).await;
    cluster
        .anonymous()
        .sign_up(remoteler_core::SignUpRequest {
            token: Secret::new("canary-link"),
            password: Secret::new("canary-password"),
            code: None,
        })
        .await
        .unwrap_err();
    let api = cluster.service.as_caller(Caller::LocalAdmin);
    let log = serde_json::to_string(&api.events(Default::default()).await.unwrap()).unwrap();
    for secret in [PASSWORD, token.reveal(), "canary-link", "canary-password"] {
        assert!(!log.contains(secret), "{secret}"); // I76
    }
}
