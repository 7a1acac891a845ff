//! Joining: by a pin, through whatever answers, and what is kept of it.

use std::sync::{Arc, Mutex};

use remoteler_client::{
    AuthTrust, HostClock, HostState, HostStateError, JoinError, JoinParams, KeyPairs, Peer, join, probe,
};
use remoteler_core::{ApiError, ApiErrorKind, Clock, JoinRequest, NodeName, Secret, SystemClock, SystemRole, wire};
use remoteler_tunnel::{ALPN_TUNNEL, ClientAuth, SharedTlsIdentity};

use crate::{
    cluster::Cluster,
    service::{self, Handler, Service, ok, refused},
};

fn params(addr: &str, pins: &[String]) -> JoinParams {
    JoinParams {
        addr: addr.into(),
        token: Secret::new("token-token-token"),
        ca_pins: pins.to_vec(),
        insecure: false,
        node_name: NodeName::new("gw-17").unwrap(),
        roles: [SystemRole::Node].into(),
        kube_clusters: Default::default(),
        apps: Default::default(),
        service_account: None,
        keys: None,
        ways: Default::default(),
    }
}

fn clock() -> HostClock {
    HostClock::default()
}

async fn auth_service(
    cluster: &Arc<Cluster>,
    shown_by: &Cluster,
    role: SystemRole,
    seen: Arc<Mutex<Vec<String>>>,
) -> Service {
    let certify = cluster.clone();
    let handler: Handler = Arc::new(move |what, body| {
        if what == "GET /v1/ping" {
            return ok(&certify.ping(SystemClock.now()));
        }
        seen.lock().unwrap().push(what.to_owned());
        assert_eq!(what, "POST /v1/join");
        let request: JoinRequest = serde_json::from_slice(body).unwrap();
        if request.token.reveal() != "token-token-token" {
            return refused(&ApiError::new(ApiErrorKind::Denied, "the token is not known"));
        }
        ok(&certify.host_certs(
            request.node_name.as_str(),
            &[SystemRole::Node],
            &request.ssh_public_key,
            &request.tls_public_key,
        ))
    });
    service::tls(cluster, shown_by.service(role), wire::ALPN_AUTH, ClientAuth::Optional, handler).await
}

#[tokio::test]
async fn a_host_joins_by_a_pin_and_finds_its_state_again() {
    let cluster = Arc::new(Cluster::new("root.example.com"));
    let service = auth_service(&cluster, &cluster, SystemRole::Auth, Arc::default()).await;

    let state = join(params(&service.addr, &[cluster.pin().to_uppercase().replace("SHA256", "sha256")]), &clock())
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    assert!(HostState::load(dir.path()).unwrap().is_none());
    state.save(dir.path()).unwrap();

    let again = HostState::load(dir.path()).unwrap().unwrap();
    assert_eq!(again.host_id(), state.host_id());
    assert_eq!(again.node_name().as_str(), "gw-17");
    assert_eq!(again.trust(), &cluster.trust());
    assert_eq!(again.tls_identity().unwrap().chain().len(), 2);
    assert_eq!(again.ssh_certificate().unwrap(), state.ssh_certificate().unwrap());
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(dir.path().join("host.json")).unwrap());
    assert_eq!(mode & 0o777, 0o600); // I67
}

#[tokio::test]
async fn without_the_right_pin_or_role_the_token_is_not_sent() {
    let (cluster, other) = (Arc::new(Cluster::new("root")), Cluster::new("root"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let foreign = auth_service(&cluster, &other, SystemRole::Auth, seen.clone()).await;
    let node = auth_service(&cluster, &cluster, SystemRole::Node, seen.clone()).await;
    for service in [&foreign, &node] {
        let error = join(params(&service.addr, &[cluster.pin()]), &clock()).await.unwrap_err();
        let JoinError::Refused { source, .. } = &error else { panic!("{error:?}") };
        assert_eq!(source.kind, ApiErrorKind::Unavailable);
        assert!(error.to_string().contains(&service.addr), "{error}");
    }
    assert!(seen.lock().unwrap().is_empty()); // I15
}

#[tokio::test]
async fn a_refusal_of_the_auth_service_is_shown() {
    let cluster = Arc::new(Cluster::new("root"));
    let service = auth_service(&cluster, &cluster, SystemRole::Auth, Arc::default()).await;
    let wrong = JoinParams { token: Secret::new("wrong-wrong-wrong"), ..params(&service.addr, &[cluster.pin()]) };
    let error = join(wrong, &clock()).await.unwrap_err().to_string();
    assert!(error.ends_with("the token is not known") && !error.contains("wrong-wrong"), "{error}"); // I76
}

#[test]
fn certificates_for_other_keys_or_by_other_authorities_are_not_kept() {
    let (cluster, other) = (Cluster::new("root"), Cluster::new("root"));
    let (keys, others) = (KeyPairs::generate("a").unwrap(), KeyPairs::generate("b").unwrap());
    let now = SystemClock.now();
    let good = cluster.host_certs("gw", &[SystemRole::Node], &keys.ssh_public, &keys.tls_public);
    HostState::new(keys.clone(), good.clone(), now).unwrap();

    assert!(matches!(HostState::new(others, good.clone(), now), Err(HostStateError::Mismatch(_))));
    let mut swapped = good;
    swapped.trust = other.trust();
    assert!(matches!(HostState::new(keys, swapped, now), Err(HostStateError::Certificate { .. })));
}

#[test]
fn a_damaged_state_is_an_error_and_never_joined_over() {
    let dir = tempfile::tempdir().unwrap();
    for (text, word) in [("{\"v\":1", "does not parse"), ("{\"v\":9,\"x\":1}", "version 9")] {
        std::fs::write(dir.path().join("host.json"), text).unwrap();
        let error = HostState::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("host.json"), "{error}");
    }
}

#[tokio::test]
async fn a_probe_tells_a_proxy_from_an_auth_service_and_believes_neither_without_reason() {
    let (cluster, other) = (Arc::new(Cluster::new("root")), Cluster::new("root"));
    let nothing: Handler = Arc::new(|_, _| (500, String::new()));
    let auth = auth_service(&cluster, &cluster, SystemRole::Auth, Arc::default()).await;
    let proxy = |identity| service::tls(&cluster, identity, ALPN_TUNNEL, ClientAuth::Required, nothing.clone());
    let good = proxy(cluster.service(SystemRole::Proxy)).await;
    let liar = proxy(cluster.service(SystemRole::Node)).await;
    let foreign = proxy(other.service(SystemRole::Proxy)).await;

    let keys = KeyPairs::generate("me").unwrap();
    let certs = cluster.host_certs("me", &[SystemRole::Node], &keys.ssh_public, &keys.tls_public);
    let me = HostState::new(keys, certs, SystemClock.now()).unwrap().tls_identity().unwrap();
    for trust in [AuthTrust::Bundle(cluster.trust()), AuthTrust::Pins(vec![cluster.pin()])] {
        let ask = |service: &Service| {
            let addr = service.addr.clone();
            let (identity, trust) = (Some(SharedTlsIdentity::new(me.clone())), trust.clone());
            async move { probe(&addr, identity, trust, Arc::new(SystemClock)).await }
        };
        assert_eq!(ask(&auth).await.unwrap(), Peer::Auth);
        assert_eq!(ask(&good).await.unwrap(), Peer::Proxy);
        assert!(ask(&liar).await.is_err());
        assert!(ask(&foreign).await.is_err());
    }
}
