//! Second factors for single sessions: who may ask for a proof, and what it is bound to.

use std::{sync::Arc, time::Duration};

use remoteler_auth::Caller;
use remoteler_core::{
    ApiErrorKind, AuthApi, Clock, FreshProof, HostId, NewFactor, OsEntropy, Secret, SessionId, SessionProofRequest,
    SessionPurpose, SessionTarget, SystemRole, Timestamp, UserName, X509Purpose, random_uuid, verify_x509_chain,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::{
    mfa::app,
    support::{Cluster, Keys, PASSWORD, kind},
};

struct World {
    cluster: Cluster,
    ann: Arc<dyn AuthApi>,
    secret: Secret,
    recovery: Vec<Secret>,
    node: Arc<dyn AuthApi>,
    node_id: HostId,
}

impl World {
    async fn new() -> Self {
        let cluster = Cluster::start().await;
        cluster.user("ann", &["access"], &["root"]).await;
        let ann = cluster.as_user("ann").await;
        let proof = FreshProof { password: Some(Secret::new(PASSWORD)), code: None };
        let secret = ann.offer_factor(proof).await.unwrap().secret;
        let code = app(&secret, cluster.clock.now());
        let added = ann.add_factor(NewFactor { name: "phone".into(), code }).await.unwrap();
        let joined = cluster.join("n1", &[SystemRole::Node], &[]).await;
        let (node, node_id) = (cluster.as_host(&joined), joined.host_id);
        let world = Self { cluster, ann, secret, recovery: added.recovery_codes, node, node_id };
        world.later(60);
        world
    }

    fn later(&self, seconds: u64) {
        self.cluster.clock.advance(Duration::from_secs(seconds));
    }

    fn now(&self) -> Timestamp {
        self.cluster.clock.now()
    }

    fn code(&self) -> Secret {
        app(&self.secret, self.now())
    }
}

fn session() -> SessionId {
    SessionId::from_uuid(random_uuid(&OsEntropy))
}

fn ssh(session: SessionId, user: &str, code: Option<Secret>) -> SessionProofRequest {
    let purpose = SessionPurpose::Ssh {
        user: UserName::new(user).unwrap(),
        login: "root".parse().unwrap(),
        remote: Some("192.0.2.9:7".into()),
    };
    SessionProofRequest { session, purpose, code }
}

fn kube(session: SessionId, code: Option<Secret>) -> SessionProofRequest {
    let purpose =
        SessionPurpose::Kubernetes { kube_cluster: "staging".parse().unwrap(), tls_public_key: Keys::new().tls };
    SessionProofRequest { session, purpose, code }
}

// I49
#[tokio::test]
async fn a_node_gets_a_proof_for_its_own_session_for_a_minute_and_each_code_counts_once() {
    let world = World::new().await;
    let session = session();
    assert_eq!(kind(world.node.prove_session(ssh(session, "ann", None)).await), ApiErrorKind::SecondFactorNeeded);
    let wrong = world.node.prove_session(ssh(session, "ann", Some(Secret::new("000000000")))).await;
    assert_eq!(kind(wrong), ApiErrorKind::Unauthenticated);
    let code = world.code();
    let proven = world.node.prove_session(ssh(session, "ann", Some(code.clone()))).await.unwrap();
    let (proof, user) = (proven.proof, UserName::new("ann").unwrap());
    assert_eq!((proof.session(), proof.user()), (session, &user));
    let target = SessionTarget::Node { host_id: world.node_id, login: "root".parse().unwrap() };
    assert_eq!(proof.target(), &target, "the node that asked, whatever it says");
    assert_eq!(proof.expires(), world.now().plus(Duration::from_secs(60)));
    assert_eq!(proven.tls_certificate, None);
    let again = world.node.prove_session(ssh(session, "ann", Some(code))).await;
    assert_eq!(kind(again), ApiErrorKind::Unauthenticated); // I48

    let events = world.cluster.events("mfa_auth_challenge.validate").await;
    let seen: Vec<(String, serde_json::Value)> =
        events.iter().map(|event| (event.code.clone(), serde_json::to_value(event).unwrap())).collect();
    assert_eq!(seen.iter().map(|(code, _)| code.as_str()).collect::<Vec<_>>(), ["T1016W", "T1016I", "T1016W"]);
    let right = &seen[1].1;
    assert_eq!((&right["user"], &right["login"]), (&"ann".into(), &"root".into()));
    assert_eq!((&right["session"], &right["mfa_device"]), (&session.to_string().into(), &"phone".into()));
    assert_eq!((&right["target"], &right["addr.remote"]), (&world.node_id.to_string().into(), &"192.0.2.9:7".into()));
}

// I49
#[tokio::test]
async fn only_nodes_ask_for_others_and_only_users_for_a_certificate() {
    let world = World::new().await;
    let kube_host = world.cluster.join("k1", &[SystemRole::Kube], &["staging"]).await;
    let callers =
        [world.cluster.anonymous(), Arc::clone(&world.ann), world.cluster.as_host(&kube_host), world.cluster.admin()];
    for caller in callers {
        let refused = kind(caller.prove_session(ssh(session(), "ann", Some(world.code()))).await);
        assert!(matches!(refused, ApiErrorKind::Denied | ApiErrorKind::Unauthenticated), "{refused:?}");
    }
    for caller in [world.cluster.anonymous(), Arc::clone(&world.node), world.cluster.admin()] {
        let refused = kind(caller.prove_session(kube(session(), Some(world.code()))).await);
        assert!(matches!(refused, ApiErrorKind::Denied | ApiErrorKind::Unauthenticated), "{refused:?}");
    }
    assert_eq!(kind(world.node.prove_session(ssh(session(), "nobody", None)).await), ApiErrorKind::NotFound);
    world.node.prove_session(ssh(session(), "ann", Some(world.code()))).await.unwrap();
}

// I49
#[tokio::test]
async fn a_proof_for_a_kubernetes_cluster_is_a_certificate_that_counts_there_for_the_interval_and_never_beyond_the_login()
 {
    let world = World::new().await;
    let session = session();
    assert_eq!(kind(world.ann.prove_session(kube(session, None)).await), ApiErrorKind::SecondFactorNeeded);
    let proven = world.ann.prove_session(kube(session, Some(world.code()))).await.unwrap();
    let pem = proven.tls_certificate.unwrap();
    let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let trust = world.cluster.service.trust_bundle();
    let verify = |purpose, now| verify_x509_chain(std::slice::from_ref(&leaf), &trust, purpose, now);
    let user = verify(X509Purpose::KubeClient, world.now()).unwrap().user().unwrap();
    assert_eq!(user.proof(), Some(&proven.proof));
    assert_eq!(user.only_at().unwrap().to_string(), "Kubernetes cluster staging");
    assert_eq!(user.expires(), world.now().plus(Duration::from_secs(60)));
    assert!(user.login_expires() > world.now().plus(Duration::from_secs(3600)));
    assert!(verify(X509Purpose::Client, world.now()).is_err(), "it opens nothing else, the auth service neither");
    assert!(verify(X509Purpose::KubeClient, world.now().plus(Duration::from_secs(61))).is_err());

    // What is left of a login is all there is.
    let request = remoteler_core::LoginRequest {
        code: Some({
            world.later(60);
            world.code()
        }),
        ttl_seconds: Some(120),
        ..crate::support::login_request("ann", PASSWORD)
    };
    let certs = world.cluster.anonymous().login(request).await.unwrap();
    let login = world.cluster.verify(&certs.tls_certificate).user().unwrap();
    let ann = world.cluster.service.as_caller(Caller::User { user: login, addr: None });
    world.later(90);
    let proven = ann.prove_session(kube(session, Some(world.code()))).await.unwrap();
    assert_eq!(proven.proof.expires(), certs.expires); // I10
    world.later(60);
    assert_eq!(kind(ann.prove_session(kube(session, Some(world.code()))).await), ApiErrorKind::Unauthenticated);
}

#[tokio::test]
async fn the_interval_is_a_setting_for_kubernetes_and_makes_no_proof_at_a_node_last_longer_than_a_minute() {
    let world = World::new().await;
    for (interval, kubernetes, node) in [("5s", 5, 5), ("30m", 1800, 60)] {
        let document = serde_json::json!({
            "kind": "cluster_auth_preference", "version": "v2", "metadata": { "name": "cluster-auth-preference" },
            "spec": { "mfa_verification_interval": interval, "require_session_mfa": true },
        });
        world.cluster.admin().put_resource(serde_json::from_value(document).unwrap(), true).await.unwrap();
        let life = |proof: &remoteler_core::SessionProof| proof.expires().since(world.now()).as_secs();
        let proven = world.ann.prove_session(kube(session(), Some(world.code()))).await.unwrap();
        assert_eq!(life(&proven.proof), kubernetes, "{interval}");
        world.later(60);
        let proven = world.node.prove_session(ssh(session(), "ann", Some(world.code()))).await.unwrap();
        assert_eq!(life(&proven.proof), node, "{interval}"); // I49
        world.later(60);
    }
}

#[tokio::test]
async fn a_user_without_a_factor_is_told_how_to_get_one_and_recovery_codes_open_nothing() {
    let world = World::new().await;
    world.cluster.user("bob", &["access"], &["root"]).await;
    let refused = world.node.prove_session(ssh(session(), "bob", Some(Secret::new("123456")))).await.unwrap_err();
    assert_eq!(refused.kind, ApiErrorKind::Denied);
    assert!(refused.message.contains("tsh mfa add"), "{refused}");
    let attempts = world.cluster.events("auth").await;
    assert!(attempts.iter().any(|event| serde_json::to_value(event).unwrap()["user"] == "bob"), "it is on record");
    let recovery = world.recovery[0].clone();
    let spent = world.node.prove_session(ssh(session(), "ann", Some(recovery.clone()))).await;
    assert_eq!(kind(spent), ApiErrorKind::Unauthenticated);
    let login = remoteler_core::LoginRequest { code: Some(recovery), ..crate::support::login_request("ann", PASSWORD) };
    world.cluster.anonymous().login(login).await.unwrap();
}

#[tokio::test]
async fn guesses_at_codes_of_sessions_are_stopped_after_ten_and_keep_nobody_from_logging_in() {
    let world = World::new().await;
    for number in 0..10 {
        let guess = Secret::new(format!("guess{number}"));
        assert_eq!(
            kind(world.node.prove_session(ssh(session(), "ann", Some(guess))).await),
            ApiErrorKind::Unauthenticated
        );
    }
    // By user: another place asks for the same one.
    assert_eq!(kind(world.ann.prove_session(kube(session(), Some(world.code()))).await), ApiErrorKind::RateLimited);
    let attempts = world.cluster.events("auth").await;
    assert!(format!("{attempts:?}").contains("too many wrong codes"), "{attempts:?}");
    let login =
        remoteler_core::LoginRequest { code: Some(world.code()), ..crate::support::login_request("ann", PASSWORD) };
    world.cluster.anonymous().login(login).await.unwrap();
    world.later(301);
    world.node.prove_session(ssh(session(), "ann", Some(world.code()))).await.unwrap();
}

#[tokio::test]
async fn of_many_sessions_that_show_one_code_at_once_one_gets_a_proof() {
    let world = World::new().await;
    let code = world.code();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (node, request) = (Arc::clone(&world.node), ssh(session(), "ann", Some(code.clone())));
        asking.spawn(async move { node.prove_session(request).await.is_ok() });
    }
    assert_eq!(asking.join_all().await.into_iter().filter(|proven| *proven).count(), 1); // I48
}
