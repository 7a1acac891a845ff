//! Revoking: who may, what happens to whom, what is recorded, and the lists for programs that are not ours.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method, Request, StatusCode};
use remoteler_auth::{
    AuthConfig, AuthService, Caller, Database, EventLog, HttpApi, MemoryStorage, RecordingFiles, RemoteAddr, WebNames,
    web_router,
};
use remoteler_ca::Krl;
use remoteler_core::{
    ApiErrorKind, AuditKind, CaKind, Clock, ClusterName, NewRevocation, Revocation, RevocationList, RevocationReason,
    RevocationTarget, RotateRequest, RotationPhase, RotationPlan, SshCertificatePurpose, Storage, SystemRole,
    Timestamp, UserCerts, VerifyError, X509Purpose, verify_ssh_certificate, verify_x509_chain, wire,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use ssh_key::Certificate;
use tower::ServiceExt;

use crate::support::{Cluster, PASSWORD, join_request, kind, login_request};

fn wanted(target: RevocationTarget) -> NewRevocation {
    NewRevocation {
        target,
        reason: RevocationReason::KeyCompromise,
        comment: "laptop was stolen".into(),
        ttl_seconds: None,
    }
}

fn target(text: &str) -> RevocationTarget {
    text.parse().unwrap()
}

/// Both serials of a login.
fn serials(certs: &UserCerts) -> [RevocationTarget; 2] {
    let ssh = Certificate::from_openssh(&certs.ssh_certificate).unwrap();
    let tls = CertificateDer::from_pem_slice(certs.tls_certificate.as_bytes()).unwrap();
    let serial = x509_parser::parse_x509_certificate(&tls).unwrap().1.raw_serial().to_vec();
    [
        RevocationTarget::ssh_serial(CaKind::User, ssh.serial()).unwrap(),
        RevocationTarget::TlsSerial {
            authority: CaKind::User,
            serial: remoteler_core::TlsSerial::from_octets(&serial).unwrap(),
        },
    ]
}

/// Whether the two certificates are believed by the cluster's bundle of now.
fn stand(cluster: &Cluster, certs: &UserCerts) -> [Result<(), VerifyError>; 2] {
    let (trust, now) = (cluster.service.policy_source().policy().trust.clone(), cluster.clock.now());
    assert_eq!(trust, cluster.service.trust_bundle());
    let ssh = Certificate::from_openssh(&certs.ssh_certificate).unwrap();
    let tls = CertificateDer::from_pem_slice(certs.tls_certificate.as_bytes()).unwrap();
    [
        verify_ssh_certificate(&ssh, &trust, SshCertificatePurpose::User, now).map(drop),
        verify_x509_chain(&[tls], &trust, X509Purpose::Client, now).map(drop),
    ]
}

#[tokio::test]
async fn a_revoked_serial_is_refused_from_then_on_and_that_is_in_the_log_before() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["ann"]).await;
    let (certs, other) = (cluster.log_in("ann").await, cluster.log_in("ann").await);
    let [ssh, tls] = serials(&certs);
    let done = cluster.admin().revoke(wanted(ssh)).await.unwrap();
    assert_eq!((done.target, done.since), (ssh, cluster.clock.now()));
    // No certificate of a user lasts longer.
    assert!(done.until.unwrap() > cluster.clock.now().plus(Duration::from_secs(30 * 3600)));
    assert_eq!(stand(&cluster, &certs), [Err(VerifyError::Revoked(ssh)), Ok(())]);
    cluster.admin().revoke(wanted(tls)).await.unwrap();
    assert_eq!(stand(&cluster, &certs), [Err(VerifyError::Revoked(ssh)), Err(VerifyError::Revoked(tls))]);
    assert_eq!(stand(&cluster, &other), [Ok(()), Ok(())]);

    let events: Vec<_> = cluster.events("cert_revocation.create").await.into_iter().map(|event| event.kind).collect();
    let AuditKind::CertRevocationCreate { user, name, reason, comment, expires } = &events[0] else { panic!() };
    assert_eq!(
        (name.as_str(), reason.as_str(), comment.as_str()),
        (ssh.to_string().as_str(), "key_compromise", "laptop was stolen")
    );
    assert!(user == "local:administrator" && *expires == done.until && events.len() == 2); // I75

    let listed = cluster.admin().revocations().await.unwrap();
    assert_eq!(listed.iter().map(|each| each.target).collect::<Vec<_>>(), [ssh, tls]);
    cluster.admin().unrevoke(ssh).await.unwrap();
    cluster.admin().unrevoke(tls).await.unwrap();
    assert_eq!(stand(&cluster, &certs), [Ok(()), Ok(())]);
    assert_eq!(cluster.events("cert_revocation.delete").await.len(), 2); // I75
    assert_eq!(kind(cluster.admin().unrevoke(ssh).await), ApiErrorKind::NotFound);
}

#[tokio::test]
async fn a_revocation_ends_with_what_it_revokes_and_outlives_the_process() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let brief = NewRevocation { ttl_seconds: Some(60), ..wanted(target("ssh-user-7")) };
    admin.revoke(brief).await.unwrap();
    admin.revoke(wanted(target("tls-user-4f"))).await.unwrap();
    let host = admin.revoke(wanted(target("ssh-host-9"))).await.unwrap();
    assert_eq!(host.until, None, "hosts' certificates have no end");
    let names = |listed: Vec<Revocation>| listed.iter().map(|each| each.target.to_string()).collect::<Vec<_>>();
    assert_eq!(names(admin.revocations().await.unwrap()), ["ssh-user-7", "ssh-host-9", "tls-user-4f"]);

    cluster.clock.advance(Duration::from_secs(59));
    cluster.service.drop_ended_revocations().await;
    assert_eq!(cluster.service.trust_bundle().revoked.len(), 3);
    cluster.clock.advance(Duration::from_secs(1));
    cluster.service.drop_ended_revocations().await;
    let trust = cluster.service.trust_bundle();
    assert!(trust.revoked.len() == 2 && !trust.revoked.contains(&target("ssh-user-7")));
    assert_eq!(cluster.service.policy_source().policy().trust, trust);

    let Cluster { service, clock, dir } = cluster;
    drop((service, admin));
    let mut config = AuthConfig::new(dir.path(), ClusterName::new("root").unwrap());
    config.clock = clock;
    let again = AuthService::open(config).await.unwrap();
    assert_eq!(again.trust_bundle(), trust);
    assert_eq!(again.policy_source().policy().trust, trust);
    assert_eq!(names(again.as_caller(Caller::LocalAdmin).revocations().await.unwrap()), ["ssh-host-9", "tls-user-4f"]);
}

/// Takes the steps, a minute after each other.
async fn rotate(cluster: &Cluster, kind: CaKind, phases: &[RotationPhase]) {
    for phase in phases {
        cluster.clock.advance(Duration::from_secs(60));
        let request = RotateRequest { kind: kind.into(), phase: *phase, plan: RotationPlan::Manual, force: false };
        cluster.admin().rotate(request).await.unwrap();
    }
}

fn revoked(cluster: &Cluster) -> Vec<String> {
    let trust = cluster.service.trust_bundle();
    assert_eq!(cluster.service.policy_source().policy().trust, trust);
    let names = ["ssh-host-7", "ssh-host-8", "ssh-host-9", "tls-host-4f", "ssh-user-7"];
    names.iter().filter(|name| trust.revoked.contains(&target(name))).map(ToString::to_string).collect()
}

const KEY: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE";

#[tokio::test]
async fn revocations_survive_the_rotation_of_an_authority_but_not_the_authority_itself() {
    use RotationPhase::{Init, Standby, UpdateClients, UpdateServers};
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for name in ["ssh-host-7", "tls-host-4f", "ssh-user-7"] {
        admin.revoke(wanted(target(name))).await.unwrap();
    }
    let key = RevocationTarget::key(KEY).unwrap();
    admin.revoke(wanted(key)).await.unwrap();
    rotate(&cluster, CaKind::Host, &[Init]).await;
    // Either authority's, as of the next step: nobody knows which one's.
    admin.revoke(wanted(target("ssh-host-8"))).await.unwrap();
    rotate(&cluster, CaKind::Host, &[UpdateClients, UpdateServers]).await;
    let now = cluster.clock.now();
    cluster.clock.set(Timestamp::from_unix_seconds(now.unix_seconds() - 3600));
    admin.revoke(wanted(target("ssh-host-9"))).await.unwrap(); // by a clock that is behind
    cluster.clock.set(now);
    admin.revoke(wanted(target("ssh-host-7"))).await.unwrap(); // again: since when it is, stays
    cluster.service.drop_ended_revocations().await;
    let all = ["ssh-host-7", "ssh-host-8", "ssh-host-9", "tls-host-4f", "ssh-user-7"];
    assert_eq!(revoked(&cluster), all, "both are believed");

    rotate(&cluster, CaKind::Host, &[Standby]).await;
    cluster.service.drop_ended_revocations().await;
    let left = ["ssh-host-8", "ssh-host-9", "ssh-user-7"];
    assert_eq!(revoked(&cluster), left);
    assert!(cluster.service.trust_bundle().revoked.contains(&key));
    assert_eq!(admin.revocations().await.unwrap().len(), 4);
    assert!(cluster.events("cert_revocation.delete").await.is_empty(), "the event is that of the rotation");

    let Cluster { service, clock, dir } = cluster;
    drop((service, admin));
    let mut config = AuthConfig::new(dir.path(), ClusterName::new("root").unwrap());
    config.clock = Arc::clone(&clock) as Arc<dyn Clock>;
    let cluster = Cluster { service: AuthService::open(config).await.unwrap(), clock, dir };
    assert_eq!(revoked(&cluster), left);
}

#[tokio::test]
async fn a_rotation_that_was_rolled_back_takes_no_revocation_with_it() {
    use RotationPhase::{Init, Rollback, Standby, UpdateClients, UpdateServers};
    let cluster = Cluster::start().await;
    cluster.admin().revoke(wanted(target("ssh-host-7"))).await.unwrap();
    rotate(&cluster, CaKind::Host, &[Init, UpdateClients, UpdateServers, Rollback, Standby]).await;
    cluster.service.drop_ended_revocations().await;
    assert_eq!(revoked(&cluster), ["ssh-host-7"]);
}

#[tokio::test]
async fn only_administrators_of_the_authorities_revoke() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access", "auditor"], &[]).await;
    cluster.user("eve", &["editor"], &[]).await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    for (who, api) in [
        ("a stranger", cluster.anonymous()),
        ("a user", cluster.as_user("ann").await),
        ("a host", cluster.as_host(&certs)),
    ] {
        let refused = [
            api.revoke(wanted(target("ssh-user-7"))).await.unwrap_err().kind,
            api.revocations().await.unwrap_err().kind,
            api.unrevoke(target("ssh-user-7")).await.unwrap_err().kind,
        ];
        let expected = if who == "a stranger" { ApiErrorKind::Unauthenticated } else { ApiErrorKind::Denied };
        assert_eq!(refused, [expected; 3], "{who}");
        // What is refused is no secret: servers that are not ours fetch it.
        api.revocation_list("user.krl".parse().unwrap()).await.unwrap();
    }
    let editor = cluster.as_user("eve").await;
    editor.revoke(wanted(target("ssh-user-7"))).await.unwrap();
    assert_eq!(editor.revocations().await.unwrap()[0].revoked_by, "eve");
    editor.unrevoke(target("ssh-user-7")).await.unwrap();
}

#[tokio::test]
async fn wrong_requests_change_nothing() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for (what, wrong) in [
        ("two lines", NewRevocation { comment: "a\nb".into(), ..wanted(target("ssh-user-7")) }),
        ("a long comment", NewRevocation { comment: "x".repeat(201), ..wanted(target("ssh-user-7")) }),
        ("no time", NewRevocation { ttl_seconds: Some(0), ..wanted(target("ssh-user-7")) }),
        ("ages", NewRevocation { ttl_seconds: Some(u64::MAX), ..wanted(target("ssh-user-7")) }),
    ] {
        assert_eq!(kind(admin.revoke(wrong).await), ApiErrorKind::BadRequest, "{what}");
    }
    // An authority is replaced, not revoked: everything it signed would be gone at once, this administrator included.
    let trust = cluster.service.trust_bundle();
    let mut authorities = trust.host_pins().unwrap();
    authorities.extend(trust.user.ssh.iter().map(|key| key.to_openssh().unwrap()));
    for authority in authorities {
        let refused = admin.revoke(wanted(RevocationTarget::key(&authority).unwrap())).await.unwrap_err();
        assert!(refused.message.contains("tctl auth rotate"), "{refused}");
    }
    assert!(admin.revocations().await.unwrap().is_empty() && trust == cluster.service.trust_bundle());
    assert!(cluster.events("cert_revocation.create").await.is_empty());
}

#[tokio::test]
async fn no_certificate_is_issued_for_a_revoked_key() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["ann"]).await;
    let request = login_request("ann", PASSWORD);
    for key in [&request.ssh_public_key, &request.tls_public_key] {
        let key = RevocationTarget::key(key).unwrap();
        cluster.admin().revoke(wanted(key)).await.unwrap();
        let refused = cluster.anonymous().login(request.clone()).await.unwrap_err();
        assert!(refused.kind == ApiErrorKind::Denied && refused.message.contains("revoked"), "{refused}");
        cluster.admin().unrevoke(key).await.unwrap();
    }
    cluster.anonymous().login(request).await.unwrap();

    let token = cluster.token(&[SystemRole::Node]).await;
    let request = join_request(&token, "edge", &[SystemRole::Node], &[]);
    let key = RevocationTarget::key(&request.ssh_public_key).unwrap();
    cluster.admin().revoke(wanted(key)).await.unwrap();
    assert_eq!(kind(cluster.anonymous().join(request.clone()).await), ApiErrorKind::Denied);
    cluster.admin().unrevoke(key).await.unwrap();
    let certs = cluster.anonymous().join(request).await.unwrap();
    cluster.admin().revoke(wanted(key)).await.unwrap();
    assert_eq!(kind(cluster.as_host(&certs).renew_host(None).await), ApiErrorKind::Denied);
}

/// A connection of `caller` to the API that stays open: what a call of it is answered with, as long as there is a connection.
struct Open(hyper::client::conn::http1::SendRequest<http_body_util::Empty<bytes::Bytes>>);

impl Open {
    async fn new(cluster: &Cluster, caller: Caller) -> Self {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let api = HttpApi::new(cluster.service.clone());
        let never = tokio_util::sync::CancellationToken::new();
        tokio::spawn(async move { api.serve_connection(server, caller, never).await });
        let io = hyper_util::rt::TokioIo::new(client);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn call(&mut self, path: &str) -> (StatusCode, HeaderMap, String) {
        self.0.ready().await.unwrap();
        let request = Request::get(path).header("host", "auth").body(http_body_util::Empty::new()).unwrap();
        let (head, body) = self.0.send_request(request).await.unwrap().into_parts();
        let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The next call is refused for `why`, and there is no call after it.
    async fn ends(mut self, path: &str, why: &str) {
        let (status, headers, body) = self.call(path).await;
        assert!(status == StatusCode::UNAUTHORIZED && headers["connection"] == "close", "{status} {headers:?}");
        assert!(body.contains(why), "{body}");
        let closed = tokio::time::timeout(Duration::from_secs(60), self.0.ready()).await.unwrap();
        assert!(closed.is_err());
    }
}

fn user_caller(cluster: &Cluster, certs: &UserCerts) -> Caller {
    let user = cluster.verify(&certs.tls_certificate).user().unwrap();
    Caller::User { user, addr: Some("192.0.2.7:41000".parse().unwrap()) }
}

#[tokio::test]
async fn the_next_call_on_a_connection_that_was_open_before_is_refused_and_recorded() {
    let cluster = Cluster::start().await;
    cluster.user("eve", &["editor"], &[]).await;
    let certs = cluster.log_in("eve").await;
    let mut open = Open::new(&cluster, user_caller(&cluster, &certs)).await;
    assert_eq!(open.call(wire::USERS).await.0, StatusCode::OK);
    let [_, tls] = serials(&certs);
    cluster.admin().revoke(wanted(tls)).await.unwrap();
    open.ends(wire::USERS, &tls.to_string()).await;
    let events = cluster.events("auth").await;
    let AuditKind::AuthAttempt { user, error, .. } = &events.last().unwrap().kind else { panic!() };
    assert!(user == "eve" && error.contains("revoked"), "{error}");
}

#[tokio::test]
async fn a_connection_ends_with_the_authority_that_it_was_opened_under() {
    let cluster = Cluster::start().await;
    cluster.user("eve", &["editor"], &[]).await;
    let certs = cluster.log_in("eve").await;
    let before = user_caller(&cluster, &certs);
    let mut user = Open::new(&cluster, before.clone()).await;
    // It does not follow, and is passed over.
    let joined = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let mut host = Open::new(&cluster, cluster.host_caller(&joined)).await;
    let rotate = async |kind: CaKind, phase| {
        let request = RotateRequest { kind: kind.into(), phase, plan: RotationPlan::Manual, force: true };
        cluster.admin().rotate(request).await.unwrap();
    };
    for kind in [CaKind::User, CaKind::Host] {
        for phase in [RotationPhase::Init, RotationPhase::UpdateClients, RotationPhase::UpdateServers] {
            rotate(kind, phase).await;
            assert_eq!(user.call(wire::USERS).await.0, StatusCode::OK, "{kind:?} {phase}");
            assert_eq!(host.call(wire::ROLES).await.0, StatusCode::OK, "{kind:?} {phase}");
        }
        if kind == CaKind::User {
            rotate(kind, RotationPhase::Standby).await;
            assert_eq!(host.call(wire::ROLES).await.0, StatusCode::OK, "another authority's");
            let refusal = "was not signed by the user authority of cluster root";
            user.ends(wire::USERS, refusal).await; // I1
            // The proof itself is worth no more where no connection is.
            let refused = cluster.service.as_caller(before.clone()).users().await.unwrap_err();
            assert!(refused.kind == ApiErrorKind::Unauthenticated && refused.message.contains(refusal), "{refused}");
            user = Open::new(&cluster, user_caller(&cluster, &cluster.log_in("eve").await)).await;
        }
    }
    rotate(CaKind::Host, RotationPhase::Standby).await;
    assert_eq!(user.call(wire::USERS).await.0, StatusCode::OK);
    host.ends(wire::ROLES, "was not signed by the host authority of cluster root").await; // I1
    let attempts = cluster.events("auth").await.into_iter().filter_map(|event| {
        let AuditKind::AuthAttempt { user, error, .. } = event.kind else { return None };
        Some((user, error))
    });
    let attempts: Vec<_> = attempts.filter(|(_, error)| error.contains("was not signed by")).collect();
    let users: Vec<_> = attempts.iter().map(|(user, _)| user.as_str()).collect();
    assert_eq!(users, ["eve", joined.host_id.to_string().as_str()]); // I75
}

#[tokio::test]
async fn an_http_2_connection_ends_too_when_its_certificate_is_revoked() {
    let cluster = Cluster::start().await;
    let joined = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let request = || Request::get(format!("http://auth{}", wire::ROLES)).body(axum::body::Body::empty()).unwrap();
    let (client, server) = tokio::io::duplex(64 * 1024);
    let (api, caller) = (HttpApi::new(cluster.service.clone()), cluster.host_caller(&joined));
    let never = tokio_util::sync::CancellationToken::new();
    let served = tokio::spawn(async move { api.serve_connection(server, caller, never).await });
    let (executor, io) = (hyper_util::rt::TokioExecutor::new(), hyper_util::rt::TokioIo::new(client));
    let (mut client, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(client.send_request(request()).await.unwrap().status(), StatusCode::OK);
    let key = CertificateDer::from_pem_slice(joined.tls_certificate.as_bytes()).unwrap();
    let key = RevocationTarget::key(&remoteler_core::spki_pin(&key).unwrap()).unwrap();
    cluster.admin().revoke(wanted(key)).await.unwrap();
    assert_eq!(client.send_request(request()).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    // Who hangs up first is chance, so the outcome is not looked at.
    let _ = tokio::time::timeout(Duration::from_secs(60), served).await.unwrap().unwrap();
    assert!(client.ready().await.is_err());
}

#[tokio::test]
async fn ten_thousand_are_revoked_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(MemoryStorage::default());
    // As if they had been revoked one after another, which takes a durable event each.
    let serial = |at| RevocationTarget::ssh_serial(CaKind::User, at).unwrap();
    for at in 1..10_000 {
        let record = Revocation {
            target: serial(at),
            reason: RevocationReason::Superseded,
            comment: String::new(),
            revoked_by: "ann".into(),
            since: Timestamp::default(),
            until: None,
        };
        let record = serde_json::to_vec(&record).unwrap();
        storage.put(&format!("revocations/{}", serial(at)), &record, None).await.unwrap();
    }
    let events = EventLog::new(Arc::new(Database::in_memory().unwrap()));
    let recordings = RecordingFiles::open(&dir.path().join("recordings")).unwrap();
    let config = AuthConfig::new(dir.path(), ClusterName::new("root").unwrap());
    let service = AuthService::with_stores(config, storage, events, recordings).await.unwrap();
    let admin = service.as_caller(Caller::LocalAdmin);
    admin.revoke(wanted(serial(10_000))).await.unwrap();
    assert_eq!(service.trust_bundle().revoked.len(), 10_000);

    let refused = admin.revoke(wanted(serial(10_001))).await.unwrap_err();
    assert!(refused.kind == ApiErrorKind::Conflict && refused.message.contains("10000"), "{refused}");
    assert!(refused.message.contains("tctl auth unrevoke") && refused.message.contains("replace the authority"));
    // What is revoked already may be revoked anew.
    admin.revoke(wanted(serial(1))).await.unwrap();
    let list = admin.revocation_list("user.krl".parse().unwrap()).await.unwrap();
    assert!(list.files[0].len() < 2_000, "consecutive serials are a range: {}", list.files[0].len());
    admin.unrevoke(serial(2)).await.unwrap();
    admin.revoke(wanted(serial(10_001))).await.unwrap();
}

fn krl(list: &RevocationList) -> Krl {
    Krl::from_bytes(&list.files[0]).unwrap()
}

#[tokio::test]
async fn the_lists_of_one_authority_hold_what_it_signed_and_their_numbers_grow() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for name in ["ssh-user-7", "ssh-host-9", "tls-user-4f", "tls-host-50"] {
        admin.revoke(wanted(target(name))).await.unwrap();
    }
    let key = *ssh_key::PublicKey::from_openssh(&login_request("ann", "").ssh_public_key)
        .unwrap()
        .key_data()
        .ed25519()
        .unwrap();
    let key = ssh_key::public::KeyData::Ed25519(key);
    admin.revoke(wanted(RevocationTarget::ssh_key(&key))).await.unwrap();
    let list = async |name: &str| cluster.anonymous().revocation_list(name.parse().unwrap()).await.unwrap();
    let (user, host) = (list("user.krl").await, list("host.krl").await);
    let trust = cluster.service.trust_bundle();
    let (of_users, of_hosts) = (trust.user.ssh[0].key_data(), trust.host.ssh[0].key_data());
    let says = |list: &RevocationList, authority, serial| krl(list).revokes_certificate(authority, serial, "");
    assert!(says(&user, of_users, 7) && !says(&user, of_users, 9) && !says(&user, of_hosts, 7));
    assert!(says(&host, of_hosts, 9) && !says(&host, of_hosts, 7));
    assert!(krl(&user).revokes_key(&key) && krl(&host).revokes_key(&key));
    assert_eq!(krl(&user).version, user.number);

    // The same until something changes, or an hour has passed; then a larger number, also when the clock is set back.
    assert_eq!(list("user.krl").await, user);
    admin.revoke(wanted(target("ssh-user-8"))).await.unwrap();
    let second = list("user.krl").await;
    assert!(second.number > user.number && says(&second, of_users, 8));
    cluster.clock.advance(Duration::from_secs(3601));
    let third = list("user.krl").await;
    assert!(third.number > second.number && third.next_update == third.made.plus(Duration::from_secs(86_400)));
    cluster.clock.set(Timestamp::from_unix_seconds(cluster.clock.now().unix_seconds() - 7200));
    assert!(list("user.krl").await.number > third.number);

    // While an authority is replaced, there is one of each of its keys.
    assert_eq!(list("user.crl").await.files.len(), 1);
    let request = RotateRequest {
        kind: CaKind::User.into(),
        phase: RotationPhase::Init,
        plan: RotationPlan::Manual,
        force: false,
    };
    admin.rotate(request).await.unwrap();
    let both = list("user.crl").await;
    assert_eq!(both.files.len(), 2);
    let trust = cluster.service.trust_bundle();
    for (der, issuer) in both.files.iter().zip(&trust.user.x509) {
        use x509_parser::prelude::FromDer;
        let (rest, crl) = x509_parser::revocation_list::CertificateRevocationList::from_der(der).unwrap();
        let (_, issuer) = x509_parser::parse_x509_certificate(issuer).unwrap();
        assert!(rest.is_empty() && crl.issuer() == issuer.subject());
        let serials: Vec<_> = crl.iter_revoked_certificates().map(|each| each.raw_serial().to_vec()).collect();
        assert_eq!(serials, [vec![0x4f]]);
        assert_eq!(crl.crl_number().unwrap().to_string(), both.number.to_string());
    }
    let fourth = list("user.krl").await;
    assert!(trust.user.ssh.len() == 2 && trust.user.ssh.iter().all(|key| says(&fourth, key.key_data(), 7)));
}

#[tokio::test]
async fn the_proxy_shows_the_lists_to_anybody_and_a_reader_that_has_them_gets_nothing_twice() {
    let cluster = Cluster::start().await;
    cluster.admin().revoke(wanted(target("ssh-user-7"))).await.unwrap();
    let service = cluster.service.clone();
    let router =
        web_router(Arc::new(move |addr| service.as_caller(Caller::Anonymous { addr })), WebNames::new(None, []));
    let router = router.layer(axum::Extension(RemoteAddr("192.0.2.1:1".parse().unwrap())));
    let get = async |file: &str, header: Option<(&str, &str)>| {
        let mut request = Request::builder().method(Method::GET).uri(wire::path(wire::WEB_REVOCATION_LIST, file));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let answer = router.clone().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, 1024 * 1024).await.unwrap();
        (head.status, head.headers, body)
    };
    let text = |headers: &HeaderMap, name: &str| headers[name].to_str().unwrap().to_owned();
    for (file, content_type) in [
        ("user.krl", "application/octet-stream"),
        ("host.krl", "application/octet-stream"),
        ("user.crl", "application/pkix-crl"),
        ("host.crl", "application/pkix-crl"),
        ("user.crl.pem", "application/x-pem-file"),
    ] {
        let (status, headers, body) = get(file, None).await;
        assert_eq!((status, text(&headers, "content-type").as_str()), (StatusCode::OK, content_type), "{file}");
        assert_eq!(text(&headers, "cache-control"), "public, max-age=60");
        assert!(!body.is_empty());
        let (tag, date) = (text(&headers, "etag"), text(&headers, "last-modified"));
        assert_eq!(date, "Sun, 01 Mar 2026 12:00:00 GMT");
        for header in [
            ("if-none-match", tag.as_str()),
            ("if-none-match", &format!("\"x\", W/{tag}")),
            ("if-modified-since", &date),
        ] {
            let (status, headers, body) = get(file, Some(header)).await;
            assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0), "{file} {header:?}");
            assert_eq!(text(&headers, "etag"), tag);
        }
        for header in [
            ("if-none-match", "\"other\""),
            ("if-modified-since", "Sat, 28 Feb 2026 12:00:00 GMT"),
            // Who tells the time of his last visit was shown who knows what.
            ("if-modified-since", "Sun, 01 Mar 2026 12:00:01 GMT"),
            ("if-modified-since", "soon"),
        ] {
            assert_eq!(get(file, Some(header)).await.0, StatusCode::OK, "{file} {header:?}");
        }
    }
    let (_, _, body) = get("user.krl", None).await;
    assert!(Krl::from_bytes(&body).unwrap().revokes_certificate(
        cluster.service.trust_bundle().user.ssh[0].key_data(),
        7,
        ""
    ));
    for none in ["user", "user.krl.pem", "robot.krl", "..%2Fuser.krl", "user.crl.pem.pem"] {
        assert_eq!(get(none, None).await.0, StatusCode::NOT_FOUND, "{none}");
    }
}

#[tokio::test]
async fn a_list_made_within_the_second_of_the_one_before_is_not_hidden_by_its_date() {
    let cluster = Cluster::start().await;
    // A proxy of its own each time: none remembers the list of before.
    let get = async |since: Option<&str>| {
        let service = cluster.service.clone();
        let router =
            web_router(Arc::new(move |addr| service.as_caller(Caller::Anonymous { addr })), WebNames::new(None, []));
        let router = router.layer(axum::Extension(RemoteAddr("192.0.2.1:1".parse().unwrap())));
        let mut request = Request::get(wire::path(wire::WEB_REVOCATION_LIST, "user.krl"));
        if let Some(since) = since {
            request = request.header("if-modified-since", since);
        }
        let answer = router.oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
        (answer.status(), answer.headers()["last-modified"].to_str().unwrap().to_owned())
    };
    let (status, first) = get(None).await;
    assert_eq!((status, get(Some(&first)).await.0), (StatusCode::OK, StatusCode::NOT_MODIFIED));
    cluster.clock.advance(Duration::from_millis(300));
    cluster.admin().revoke(wanted(target("ssh-user-7"))).await.unwrap();
    assert_eq!(get(Some(&first)).await, (StatusCode::OK, first.clone()));

    cluster.clock.advance(Duration::from_secs(2));
    cluster.admin().revoke(wanted(target("ssh-user-8"))).await.unwrap();
    let (status, later) = get(Some(&first)).await;
    assert!(status == StatusCode::OK && later != first);
    assert_eq!(get(Some(&later)).await.0, StatusCode::NOT_MODIFIED);
}
