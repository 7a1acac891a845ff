//! Joining again: the proof that is sent, what is kept of the answer, and a running host that is shut out and comes back.

use std::{sync::Arc, time::Duration};

use remoteler_client::{
    AuthTrust, HostClock, HostKeeper, HostState, JoinError, KeyPairs, PolicyRefresher, RejoinParams, RemoteAuth,
    ShutOut, rejoin,
};
use remoteler_core::{
    ApiError, ApiErrorKind, CaKind, Clock, HostId, JoinRequest, OsEntropy, PolicySource, RejoinStatement,
    RevocationTarget, Secret, SystemClock, SystemRole, TlsSerial, TrustBundle, random_uuid, wire,
};
use remoteler_tunnel::ClientAuth;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::Cluster,
    service::{self, Handler, Service, ok, refused},
};

const NODE: &[SystemRole] = &[SystemRole::Node];

/// A host of the cluster as it was, and the cluster as it is now: the same name, other authorities.
struct Story {
    state: HostState,
    keys: KeyPairs,
    now: Arc<Cluster>,
    dir: tempfile::TempDir,
}

impl Story {
    fn new() -> Self {
        let before = Cluster::new("root");
        let keys = KeyPairs::generate("gw-17").unwrap();
        let certs = before.host_certs("gw-17", NODE, &keys.ssh_public, &keys.tls_public);
        let state = HostState::new(keys.clone(), certs, SystemClock.now()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        state.save(dir.path()).unwrap();
        Self { state, keys, now: Arc::new(Cluster::new("root")), dir }
    }

    /// An auth service of today, which takes `id` back if the proof is good.
    async fn auth_service(&self, id: HostId) -> Service {
        let (cluster, host, keys) = (self.now.clone(), self.state.host_id(), self.keys.clone());
        let handler: Handler = Arc::new(move |what, body| {
            if what != "POST /v1/join" {
                return refused(&ApiError::new(ApiErrorKind::NotFound, "only joins are answered here"));
            }
            let request: JoinRequest = serde_json::from_slice(body).unwrap();
            let proof = request.rejoin.as_ref().unwrap();
            let statement = RejoinStatement {
                cluster: &cluster.name,
                token: &Secret::new("token-token-token"),
                host_id: host,
                node_name: &request.node_name,
                ssh_public_key: &keys.ssh_public,
                tls_public_key: &keys.tls_public,
                signed_at: proof.signed_at,
            };
            let key = ssh_key::PublicKey::from_openssh(&keys.ssh_public).unwrap();
            statement.verify(&proof.signature, &key, SystemClock.now()).unwrap();
            let (name, ssh, tls) = (request.node_name.as_str(), &request.ssh_public_key, &request.tls_public_key);
            ok(&cluster.host_certs_of(id, name, NODE, ssh, tls))
        });
        service::tls(&self.now, self.now.service(SystemRole::Auth), wire::ALPN_AUTH, ClientAuth::Optional, handler)
            .await
    }

    fn params(&self, service: &Service) -> RejoinParams {
        let token = Secret::new("token-token-token");
        RejoinParams {
            addr: service.addr.clone(),
            token,
            ca_pins: vec![self.now.pin()],
            insecure: false,
            new_keys: None,
        }
    }
}

#[tokio::test]
async fn a_host_proves_which_one_it_is_and_keeps_its_keys() {
    let story = Story::new();
    let service = story.auth_service(story.state.host_id()).await;
    let again = rejoin(&story.state, story.params(&service), &HostClock::default()).await.unwrap();
    assert_eq!((again.host_id(), again.node_name()), (story.state.host_id(), story.state.node_name()));
    assert_eq!(again.trust(), &story.now.trust());
    assert_eq!(again.keys().unwrap().ssh_public, story.keys.ssh_public);

    // What was known of the authorities before goes with the old certificates.
    PolicyRefresher::load(story.dir.path(), story.state.trust().clone()).unwrap();
    let old = serde_json::json!({ "v": 1, "trust": story.state.trust(), "roles": [] });
    std::fs::write(story.dir.path().join("policy.json"), old.to_string()).unwrap();
    again.save_rejoined(story.dir.path()).unwrap();
    let view = PolicyRefresher::load(story.dir.path(), again.trust().clone()).unwrap().source().policy();
    assert_eq!(view.trust, story.now.trust());
}

#[tokio::test]
async fn an_answer_that_makes_it_another_host_is_not_kept_and_a_wrong_pin_sends_nothing() {
    let story = Story::new();
    let service = story.auth_service(HostId::from_uuid(random_uuid(&OsEntropy))).await;
    let error = rejoin(&story.state, story.params(&service), &HostClock::default()).await.unwrap_err();
    assert!(matches!(error, JoinError::State(_)), "{error:?}");

    let other = RejoinParams { ca_pins: vec![Cluster::new("root").pin()], ..story.params(&service) };
    let error = rejoin(&story.state, other, &HostClock::default()).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused { .. }), "{error:?}"); // I15
    let without = RejoinParams { ca_pins: Vec::new(), ..story.params(&service) };
    assert!(matches!(rejoin(&story.state, without, &HostClock::default()).await, Err(JoinError::NoPin { .. })));
}

#[tokio::test]
async fn a_running_host_says_that_it_is_shut_out_and_takes_over_what_a_rejoin_writes() {
    let story = Story::new();
    let service = story.auth_service(story.state.host_id()).await;
    let refresher = PolicyRefresher::load(story.dir.path(), story.state.trust().clone()).unwrap();
    let (shared, clock) = (refresher.shared(), Arc::new(SystemClock));
    let keeper = HostKeeper::new(story.state.clone(), story.dir.path().to_owned(), shared.clone(), clock).unwrap();
    let keeper = keeper.with_auth_at(&service.addr, shared.clone());
    let (mut standing, shown, stop) = (keeper.standing(), keeper.identities(), CancellationToken::new());
    let trust = AuthTrust::Policy(shared.clone());
    let auth = Arc::new(RemoteAuth::tls(&service.addr, Some(shown.client.clone()), trust).unwrap());
    let running = tokio::spawn(keeper.run(auth, stop.clone()));
    let limit = Duration::from_secs(30);
    let seen = tokio::time::timeout(limit, standing.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert_eq!(*seen, Some(ShutOut::UnknownAuthority));
    drop(seen);
    assert_eq!(shared.policy().trust, *story.state.trust());

    let again = rejoin(&story.state, story.params(&service), &HostClock::default()).await.unwrap();
    again.save_rejoined(story.dir.path()).unwrap();
    tokio::time::timeout(limit, standing.wait_for(Option::is_none)).await.unwrap().unwrap();
    assert_eq!(shared.policy().trust, story.now.trust());
    assert_eq!(shown.ssh.borrow().certificate, again.ssh_certificate().unwrap());
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_running_host_whose_certificate_was_revoked_says_so_and_comes_back_by_a_rejoin() {
    let cluster = Arc::new(Cluster::new("root"));
    let keys = KeyPairs::generate("gw-17").unwrap();
    let certs = cluster.host_certs("gw-17", NODE, &keys.ssh_public, &keys.tls_public);
    let (host, was) = (certs.host_id, certs.ssh_certificate.clone());
    let state = HostState::new(keys.clone(), certs, SystemClock.now()).unwrap();
    let leaf = state.tls_identity().unwrap().chain()[0].clone();
    let serial = x509_parser::parse_x509_certificate(&leaf).unwrap().1.raw_serial().to_vec();
    let target =
        RevocationTarget::TlsSerial { authority: CaKind::Host, serial: TlsSerial::from_octets(&serial).unwrap() };
    let dir = tempfile::tempdir().unwrap();
    state.save(dir.path()).unwrap();

    let known = cluster.clone();
    let handler: Handler = Arc::new(move |what, body| match what {
        "POST /v1/join" => {
            let JoinRequest { ssh_public_key, tls_public_key, .. } = serde_json::from_slice(body).unwrap();
            ok(&known.host_certs_of(host, "gw-17", NODE, &ssh_public_key, &tls_public_key))
        }
        _ => ok(&()),
    });
    let trust = TrustBundle { revoked: [target].into_iter().collect(), ..cluster.trust() };
    let shown = cluster.service(SystemRole::Auth);
    let service = service::tls_by(trust, shown, wire::ALPN_AUTH, ClientAuth::Optional, handler).await;

    let refresher = PolicyRefresher::load(dir.path(), state.trust().clone()).unwrap();
    let (shared, clock) = (refresher.shared(), Arc::new(SystemClock));
    let keeper = HostKeeper::new(state.clone(), dir.path().to_owned(), shared.clone(), clock).unwrap();
    let keeper = keeper.with_auth_at(&service.addr, shared.clone());
    let (mut standing, shown, stop) = (keeper.standing(), keeper.identities(), CancellationToken::new());
    let auth = RemoteAuth::tls(&service.addr, Some(shown.client.clone()), AuthTrust::Policy(shared)).unwrap();
    let running = tokio::spawn(keeper.run(Arc::new(auth), stop.clone()));
    let limit = Duration::from_secs(30);
    let seen = tokio::time::timeout(limit, standing.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert_eq!(*seen, Some(ShutOut::Revoked));
    drop(seen);

    let token = Secret::new("token-token-token");
    let params = RejoinParams {
        addr: service.addr.clone(),
        token,
        ca_pins: vec![cluster.pin()],
        insecure: false,
        new_keys: None,
    };
    rejoin(&state, params, &HostClock::default()).await.unwrap().save_rejoined(dir.path()).unwrap();
    tokio::time::timeout(limit, standing.wait_for(Option::is_none)).await.unwrap().unwrap();
    assert_ne!(shown.ssh.borrow().certificate.to_openssh().unwrap(), was);
    assert_ne!(shown.client.current().chain()[0], leaf);
    stop.cancel();
    running.await.unwrap();
}

// R5: the answer is lost, and the record holds the new key already.
#[tokio::test]
async fn a_host_that_takes_new_keys_and_loses_the_answer_asks_again_by_the_key_that_is_on_record_then() {
    let story = Story::new();
    let (cluster, host, old) = (story.now.clone(), story.state.host_id(), story.keys.clone());
    let recorded = Arc::new(std::sync::Mutex::new(old.ssh_public.clone()));
    let handler: Handler = Arc::new(move |what, body| {
        if what != "POST /v1/join" {
            return refused(&ApiError::new(ApiErrorKind::NotFound, "only joins are answered here"));
        }
        let request: JoinRequest = serde_json::from_slice(body).unwrap();
        let proof = request.rejoin.as_ref().unwrap();
        let statement = RejoinStatement {
            cluster: &cluster.name,
            token: &request.token,
            host_id: host,
            node_name: &request.node_name,
            ssh_public_key: &request.ssh_public_key,
            tls_public_key: &request.tls_public_key,
            signed_at: proof.signed_at,
        };
        let mut recorded = recorded.lock().unwrap();
        let key = ssh_key::PublicKey::from_openssh(&recorded).unwrap();
        if let Err(cause) = statement.verify(&proof.signature, &key, SystemClock.now()) {
            return refused(&ApiError::new(ApiErrorKind::Denied, cause.to_string()));
        }
        recorded.clone_from(&request.ssh_public_key);
        ok(&cluster.host_certs_of(host, "gw-17", NODE, &request.ssh_public_key, &request.tls_public_key))
    });
    let shown = story.now.service(SystemRole::Auth);
    let service = service::tls(&story.now, shown, wire::ALPN_AUTH, ClientAuth::Optional, handler).await;
    let new_keys = KeyPairs::generate("gw-17").unwrap();
    let params = || RejoinParams { new_keys: Some(new_keys.clone()), ..story.params(&service) };
    for _answer_lost in 0..3 {
        let again = rejoin(&story.state, params(), &HostClock::default()).await.unwrap();
        assert_eq!(again.host_id(), story.state.host_id());
        assert_eq!(again.keys().unwrap().ssh_public, new_keys.ssh_public);
    }
    // Without the new keys it is not the host any more: a copy of its disk from before gets nothing.
    let error = rejoin(&story.state, story.params(&service), &HostClock::default()).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused { .. }), "{error}");
}
