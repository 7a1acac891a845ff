//! Locks and the rules that services follow: who is locked gets nothing from the auth service, services are told at once, and what programs not ours
//! read names the certificates of those who are locked.

use std::{sync::Arc, time::Duration};

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use remoteler_auth::{Caller, HttpApi};
use remoteler_ca::Krl;
use remoteler_core::{
    ApiErrorKind, AuditKind, AuthApi, CaKind, Clock, PolicyUpdate, Resource, ResourceKind, SignRequest, SystemRole,
    UserName, wire,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, Keys, PASSWORD, join_request, kind, login_request};

fn lock(name: &str, spec: Value) -> Resource {
    serde_json::from_value(json!({ "kind": "lock", "version": "v2", "metadata": { "name": name }, "spec": spec }))
        .unwrap()
}

impl Cluster {
    async fn lock(&self, name: &str, target: Value) {
        let document = lock(name, json!({ "target": target, "message": "call the help desk" }));
        self.admin().put_resource(document, false).await.unwrap();
    }

    async fn unlock(&self, name: &str) {
        self.admin().delete_resource(ResourceKind::Lock, name.into()).await.unwrap();
    }
}

const LONG: Duration = Duration::from_secs(25);

fn parts(update: &PolicyUpdate) -> [bool; 4] {
    [update.trust.is_some(), update.revoked.is_some(), update.roles.is_some(), update.limits.is_some()]
}

/// One call of a caller over HTTP; status and body.
async fn call(cluster: &Cluster, caller: Caller, path: &str) -> (StatusCode, String) {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let api = HttpApi::new(cluster.service.clone());
    tokio::spawn(async move { api.serve_connection(server, caller, CancellationToken::new()).await });
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, "auth").body(Full::<bytes::Bytes>::default()).unwrap();
    let answer = client.send_request(request).await.unwrap();
    let status = answer.status();
    (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

// I79
#[tokio::test]
async fn a_service_that_waits_is_told_of_a_lock_at_once_and_of_nothing_else() {
    let cluster = Cluster::start().await;
    let host = cluster.join("n1", &[SystemRole::Node], &[]).await;
    let api = cluster.as_host(&host);
    let all = api.policy(None, Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(parts(&all), [true; 4]);
    assert_eq!(api.policy(Some(all.version), Duration::ZERO).await.unwrap(), None);

    let waiting = tokio::spawn({
        let api = Arc::clone(&api);
        async move { api.policy(Some(all.version), LONG).await.unwrap() }
    });
    tokio::task::yield_now().await;
    cluster.lock("x", json!({ "user": "ann" })).await;
    let told = tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(parts(&told), [false, false, false, true]);
    let locks: Vec<_> = told.limits.unwrap().locks.iter().map(|lock| lock.name.clone()).collect();
    assert_eq!(locks, ["x"]);

    cluster.unlock("x").await;
    let told = api.policy(Some(told.version), LONG).await.unwrap().unwrap();
    assert_eq!(told.version, all.version, "the rules are what they were");
    for other in [cluster.anonymous(), cluster.admin()] {
        assert!(other.policy(None, Duration::ZERO).await.is_err());
    }
}

#[tokio::test]
async fn a_service_that_has_everything_waits_no_longer_than_it_said_and_not_many_times_at_once() {
    let cluster = Cluster::start().await;
    let host = cluster.join("n1", &[SystemRole::Node], &[]).await;
    let api = cluster.as_host(&host);
    let known = Some(api.policy(None, Duration::ZERO).await.unwrap().unwrap().version);
    let began = std::time::Instant::now();
    assert_eq!(api.policy(known, Duration::from_millis(300)).await.unwrap(), None);
    assert!(began.elapsed() >= Duration::from_millis(300));
    // Who has waited longest makes room, and is told what it may be told: that nothing has changed.
    let wait = || {
        let api = Arc::clone(&api);
        async move { api.policy(known, LONG).await.unwrap() }
    };
    let mut waiting: JoinSet<_> = (0..5).map(|_| wait()).collect();
    assert_eq!(waiting.join_next().await.unwrap().unwrap(), None);
    assert!(tokio::time::timeout(Duration::from_millis(100), waiting.join_next()).await.is_err(), "four wait");
    assert_eq!(api.policy(known, Duration::from_millis(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_service_that_waits_is_answered_when_the_auth_service_stops() {
    let cluster = Cluster::start().await;
    let host = cluster.join("n1", &[SystemRole::Node], &[]).await;
    let known = cluster.as_host(&host).policy(None, Duration::ZERO).await.unwrap().unwrap().version;
    let (client, server) = tokio::io::duplex(64 * 1024);
    let (api, stop) = (HttpApi::new(cluster.service.clone()), CancellationToken::new());
    let (caller, stopping) = (cluster.host_caller(&host), stop.clone());
    let serving = tokio::spawn(async move { api.serve_connection(server, caller, stopping).await });
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    let path = format!("{}?known={known}&wait_seconds=25", wire::POLICY);
    let request = Request::get(path).header(header::HOST, "auth").body(Full::<bytes::Bytes>::default()).unwrap();
    let mut answer = tokio::spawn(client.send_request(request));
    // It waits.
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut answer).await.is_err());
    let began = std::time::Instant::now();
    stop.cancel();
    assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::NO_CONTENT);
    serving.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn who_is_locked_gets_no_certificate_and_no_answer_until_the_lock_is_gone() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access", "editor"], &["root"]).await;
    cluster.user("bob", &["access"], &["root"]).await;
    let certs = cluster.log_in("ann").await;
    let user = cluster.verify(&certs.tls_certificate).user().unwrap();
    let ann = || Caller::User { user: user.clone(), addr: Some("192.0.2.9:1".parse().unwrap()) };
    assert_eq!(call(&cluster, ann(), wire::NODES).await.0, StatusCode::OK);
    let sign = || SignRequest::User {
        user: UserName::new("ann").unwrap(),
        ssh_public_key: Keys::new().ssh,
        tls_public_key: Keys::new().tls,
        ttl_seconds: None,
    };
    for target in [json!({ "user": "ann" }), json!({ "role": "editor" }), json!({ "user": "ann", "role": "access" })] {
        cluster.lock("x", target).await;
        let refused = cluster.anonymous().login(login_request("ann", PASSWORD)).await.unwrap_err();
        assert_eq!(refused.kind, ApiErrorKind::Denied);
        assert!(refused.message.contains("call the help desk"), "{}", refused.message);
        // Who does not know the password learns nothing of it.
        let stranger = cluster.anonymous().login(login_request("ann", "wrong")).await.unwrap_err();
        assert_eq!(stranger.message, "wrong user name or password");
        assert_eq!(kind(cluster.admin().sign_certificates(sign()).await), ApiErrorKind::Denied);
        let (status, said) = call(&cluster, ann(), wire::NODES).await;
        assert!(status == StatusCode::FORBIDDEN && said.contains("call the help desk"), "{status} {said}");
        cluster.log_in("bob").await;
        cluster.unlock("x").await;
        cluster.log_in("ann").await;
        assert_eq!(call(&cluster, ann(), wire::NODES).await.0, StatusCode::OK);
    }
    // Of a role together with a user who does not have it, nobody is concerned.
    cluster.lock("y", json!({ "user": "bob", "role": "editor" })).await;
    cluster.log_in("bob").await;
    let failures = cluster.events("user.login").await;
    let told = |event: &remoteler_core::AuditEvent| matches!(&event.kind, AuditKind::UserLogin { error: Some(error), .. } if error.contains("locked by an administrator"));
    assert_eq!(failures.iter().filter(|event| told(event)).count(), 3);
    let refused = cluster.events("auth").await;
    assert!(refused.iter().any(|event| matches!(&event.kind, AuditKind::AuthAttempt { user, error, .. } if user == "ann" && error.contains("locked"))));
}

// I10, I79
#[tokio::test]
async fn a_locked_host_is_not_renewed_and_joins_no_more_and_is_told_little_of_the_rules() {
    let cluster = Cluster::start().await;
    let (host, other) =
        (cluster.join("n1", &[SystemRole::Node], &[]).await, cluster.join("n2", &[SystemRole::Node], &[]).await);
    let (api, other) = (cluster.as_host(&host), cluster.as_host(&other));
    let before = api.policy(None, Duration::ZERO).await.unwrap().unwrap();
    cluster.lock("other", json!({ "user": "ann" })).await;
    for node in ["n1".to_owned(), host.host_id.to_string()] {
        cluster.lock("x", json!({ "node": node })).await;
        assert_eq!(kind(api.renew_host(None).await), ApiErrorKind::Denied);
        other.renew_host(None).await.unwrap();
        let (status, said) = call(&cluster, cluster.host_caller(&host), wire::NODES).await;
        assert!(status == StatusCode::FORBIDDEN && said.contains("call the help desk"), "{status} {said}");
        // It hears of its lock, and of nothing else that was not known to it.
        let told = api.policy(Some(before.version), LONG).await.unwrap().unwrap();
        assert_eq!(told.roles, Some(Vec::new()));
        let locks: Vec<_> = told.limits.unwrap().locks.iter().map(|lock| lock.name.clone()).collect();
        assert_eq!(locks, ["x"]);
        let (status, _) = call(&cluster, cluster.host_caller(&host), wire::POLICY).await;
        assert_eq!(status, StatusCode::OK);
        cluster.unlock("x").await;
        api.renew_host(None).await.unwrap();
    }
    let token = cluster.token(&[SystemRole::Node]).await;
    cluster.lock("y", json!({ "node": "n3" })).await;
    let join = || join_request(&token, "n3", &[SystemRole::Node], &[]);
    let refused = cluster.anonymous().join(join()).await.unwrap_err();
    assert!(refused.kind == ApiErrorKind::Denied && refused.message.contains("call the help desk"), "{refused}");
    cluster.unlock("y").await;
    cluster.anonymous().join(join()).await.unwrap();
}

#[tokio::test]
async fn a_lock_is_on_record_before_it_is_in_force_and_ends_by_the_clock() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let spec = json!({ "target": { "user": "ann" }, "message": "m", "reason": "r", "ttl": "1h" });
    admin.put_resource(lock("x", spec), false).await.unwrap();
    let end = cluster.clock.now().plus(Duration::from_secs(3600));
    let [event] = &cluster.events("lock.created").await[..] else { panic!() };
    let AuditKind::LockCreated { user, name, message, reason, expires, .. } = &event.kind else { panic!() };
    assert_eq!((user.as_str(), name.as_str(), message.as_str()), ("local:administrator", "x", "m"));
    assert_eq!((reason.as_str(), *expires, event.code.as_str()), ("r", Some(end), "TLK00I"));

    let shown = admin.resources(ResourceKind::Lock, Some("x".into())).await.unwrap();
    assert_eq!(shown[0].spec["expires"], end.to_string());
    assert_eq!(shown[0].spec["created_by"], "local:administrator");
    // As it is shown, it can be written again.
    assert_eq!(kind(admin.put_resource(shown[0].clone(), false).await), ApiErrorKind::Conflict);
    admin.put_resource(shown[0].clone(), true).await.unwrap();

    let locked = || !cluster.service.policy_source().policy().locks.is_empty();
    cluster.clock.set(end.minus(Duration::from_millis(1)));
    cluster.service.drop_ended_locks().await;
    assert!(locked());
    cluster.clock.set(end);
    cluster.service.drop_ended_locks().await;
    assert!(!locked() && admin.resources(ResourceKind::Lock, None).await.unwrap().is_empty());
    assert_eq!(kind(admin.delete_resource(ResourceKind::Lock, "x".into()).await), ApiErrorKind::NotFound);
    admin.put_resource(lock("z", json!({ "target": { "node": "n" } })), false).await.unwrap();
    cluster.unlock("z").await;
    assert_eq!(cluster.events("lock.deleted").await.len(), 1);
}

#[tokio::test]
async fn documents_that_lock_nothing_or_say_what_is_not_known_are_refused() {
    let cluster = Cluster::start().await;
    let long = "x".repeat(401);
    for (name, spec, said) in [
        ("x", json!({ "target": {} }), "it names nothing"),
        ("x", json!({ "target": { "mfa_device": "d" } }), "mfa_device"),
        ("x", json!({ "target": { "user": "-" } }), "user name"),
        ("x/y", json!({ "target": { "user": "ann" } }), "a lock's name"),
        ("x", json!({ "target": { "user": "ann" }, "message": long }), "its message"),
        ("x", json!({ "target": { "user": "ann" }, "message": "a\u{1b}[2J" }), "its message"),
        ("x", json!({ "target": { "user": "ann" }, "ttl": "soon" }), "no duration"),
        ("x", json!({ "target": { "user": "ann" }, "expires": "2020-01-01T00:00:00Z" }), "its end has passed"),
        ("x", json!({ "target": { "user": "ann" }, "expires": "2027-01-01T00:00:00Z", "ttl": "1h" }), "two ends"),
    ] {
        let refused = cluster.admin().put_resource(lock(name, spec), false).await.unwrap_err();
        assert!(refused.kind == ApiErrorKind::BadRequest && refused.message.contains(said), "{said}: {refused}");
    }
    cluster.user("ann", &["editor"], &["root"]).await;
    let ann = cluster.as_user("ann").await;
    assert_eq!(
        kind(ann.put_resource(lock("x", json!({ "target": { "user": "bob" } })), false).await),
        ApiErrorKind::Denied
    );
}

#[tokio::test]
async fn locks_are_there_again_after_a_restart() {
    let cluster = Cluster::start().await;
    cluster.lock("x", json!({ "user": "ann" })).await;
    let (dir, clock) = (cluster.dir, cluster.clock);
    drop(cluster.service);
    let name = remoteler_core::ClusterName::new("root").unwrap();
    let config = remoteler_auth::AuthConfig { clock, ..remoteler_auth::AuthConfig::new(dir.path(), name) };
    let service = remoteler_auth::AuthService::open(config).await.unwrap();
    assert_eq!(service.policy_source().policy().locks.iter().count(), 1);
}

async fn revoked(api: &dyn AuthApi, cluster: &Cluster, serials: &[u64]) -> Vec<bool> {
    let list = api.revocation_list("user.krl".parse().unwrap()).await.unwrap();
    let krl = Krl::from_bytes(&list.files[0]).unwrap();
    let authority = cluster.service.trust_bundle().user.ssh[0].key_data().clone();
    serials.iter().map(|serial| krl.revokes_certificate(&authority, *serial, "")).collect()
}

fn serial(certs: &remoteler_core::UserCerts) -> u64 {
    ssh_key::Certificate::from_openssh(&certs.ssh_certificate).unwrap().serial()
}

#[tokio::test]
async fn lists_for_other_programs_name_what_is_locked_and_who() {
    let cluster = Cluster::start().await;
    for (name, role) in [("ann", "access"), ("bob", "access"), ("eve", "auditor")] {
        cluster.user(name, &[role], &["root"]).await;
    }
    let admin = cluster.admin();
    let (first, ann) = (cluster.log_in("ann").await, cluster.log_in("ann").await);
    let serials =
        [serial(&first), serial(&ann), serial(&cluster.log_in("bob").await), serial(&cluster.log_in("eve").await)];
    for (target, expected) in [
        (json!({ "user": "ann" }), [true, true, false, false]),
        (json!({ "role": "access" }), [true, true, true, false]),
        (json!({ "cluster": "root" }), [true; 4]),
        (json!({ "serial": format!("ssh-user-{}", serials[2]) }), [false, false, true, false]),
        // A list cannot say where a certificate is shown, so these are for our services alone.
        (json!({ "user": "ann", "node": "n1" }), [false; 4]),
        (json!({ "login": "root" }), [false; 4]),
    ] {
        cluster.lock("x", target.clone()).await;
        assert_eq!(revoked(&*admin, &cluster, &serials).await, expected, "{target}");
        cluster.unlock("x").await;
        assert_eq!(revoked(&*admin, &cluster, &serials).await, [false; 4], "{target}");
    }
    // Only certificates that have not ended are worth a line.
    cluster.clock.set(first.expires.plus(Duration::from_secs(1)));
    cluster.lock("x", json!({ "user": "ann" })).await;
    assert_eq!(revoked(&*admin, &cluster, &serials).await, [false; 4]);
}

#[tokio::test]
async fn what_a_removed_user_holds_is_refused_everywhere_and_a_namesake_is_somebody_else() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let before = cluster.log_in("ann").await;
    let shown = *cluster.verify(&before.tls_certificate).user().unwrap().shown();
    cluster.admin().delete_user(UserName::new("ann").unwrap()).await.unwrap();
    let trust = cluster.service.trust_bundle();
    assert!(trust.still_believes(&shown).is_err());
    assert!(
        trust.revoked.contains(&remoteler_core::RevocationTarget::ssh_serial(CaKind::User, serial(&before)).unwrap())
    );
    cluster.user("ann", &["access"], &["root"]).await;
    let after = cluster.log_in("ann").await;
    assert!(matches!(cluster.verify(&after.tls_certificate), remoteler_core::Verified::User(_)));
    let revocations = cluster.admin().revocations().await.unwrap();
    assert_eq!(revocations.len(), 2);
    assert!(
        revocations.iter().all(|each| each.until == Some(before.expires) && each.comment == "user ann was removed")
    );
}

// I79
#[tokio::test]
async fn a_lock_on_a_key_or_on_a_name_in_this_cluster_shuts_out_who_joins() {
    let cluster = Cluster::start().await;
    let token = cluster.token(&[SystemRole::Node]).await;
    let request = join_request(&token, "n1", &[SystemRole::Node], &[]);
    let key = remoteler_core::RevocationTarget::key(&request.tls_public_key).unwrap();
    for target in [json!({ "serial": key.to_string() }), json!({ "node": "n1", "cluster": "root" })] {
        cluster.lock("x", target).await;
        let refused = cluster.anonymous().join(request.clone()).await.unwrap_err();
        assert_eq!(refused.kind, ApiErrorKind::Denied);
        assert!(refused.message.contains("call the help desk"), "{refused}");
        cluster.unlock("x").await;
    }
    cluster.lock("x", json!({ "node": "n1", "cluster": "elsewhere" })).await;
    cluster.anonymous().join(request).await.unwrap();
}
