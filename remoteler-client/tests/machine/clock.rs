//! A device whose clock is wrong: it joins by the cluster's clock if that has proved itself, and otherwise says exactly why not.

use std::sync::{Arc, Mutex};

use remoteler_client::{HostClock, HostState, JoinError, JoinParams, join};
use remoteler_core::{Clock, JoinRequest, ManualClock, NodeName, Secret, SystemClock, SystemRole, Timestamp, wire};
use remoteler_tunnel::ClientAuth;

use crate::{
    cluster::Cluster,
    service::{self, Handler, Service, ok},
};

fn params(service: &Service, pins: Vec<String>) -> JoinParams {
    JoinParams {
        addr: service.addr.clone(),
        token: Secret::new("token-token-token"),
        insecure: pins.is_empty(),
        ca_pins: pins,
        node_name: NodeName::new("gw-17").unwrap(),
        roles: [SystemRole::Node].into(),
        kube_clusters: Default::default(),
        apps: Default::default(),
        service_account: None,
        keys: None,
        ways: Default::default(),
    }
}

/// An auth service that says it is `says`, with a certificate of `shown_by`, and what it was asked.
async fn service(cluster: &Arc<Cluster>, shown_by: &Cluster, says: Timestamp) -> (Service, Arc<Mutex<Vec<String>>>) {
    let (certify, asked) = (cluster.clone(), Arc::new(Mutex::new(Vec::new())));
    let seen = asked.clone();
    let handler: Handler = Arc::new(move |what, body| {
        seen.lock().unwrap().push(what.to_owned());
        if what == "GET /v1/ping" {
            return ok(&certify.ping(says));
        }
        let request: JoinRequest = serde_json::from_slice(body).unwrap();
        let name = request.node_name.as_str();
        ok(&certify.host_certs(name, &[SystemRole::Node], &request.ssh_public_key, &request.tls_public_key))
    });
    let shown = shown_by.service(SystemRole::Auth);
    (service::tls(cluster, shown, wire::ALPN_AUTH, ClientAuth::Optional, handler).await, asked)
}

fn device(seconds: i64) -> HostClock {
    HostClock::over(Arc::new(ManualClock::new(Timestamp::from_unix_seconds(seconds))), None)
}

const IN_1970: i64 = 86_400;
/// The year 2400, when no certificate of the cluster is valid any more.
const AHEAD: i64 = 13_569_465_600;

// R5
#[tokio::test]
async fn a_device_in_1970_or_far_ahead_joins_by_the_clock_of_the_pinned_cluster() {
    let cluster = Arc::new(Cluster::new("root"));
    for wrong in [IN_1970, AHEAD] {
        let now = SystemClock.now();
        let (service, _) = service(&cluster, &cluster, now).await;
        let clock = device(wrong);
        let state = join(params(&service, vec![cluster.pin()]), &clock).await.unwrap();
        assert!(clock.is_corrected() && clock.now() >= now);
        // The device does not fall behind that when it starts again, in 1970 once more.
        let dir = tempfile::tempdir().unwrap();
        state.save(dir.path()).unwrap();
        let written = HostState::load(dir.path()).unwrap().unwrap().written();
        let again = HostClock::over(Arc::new(ManualClock::new(Timestamp::from_unix_seconds(0))), written);
        assert!(again.now() >= now);
    }
}

#[tokio::test]
async fn a_clock_that_is_hours_off_is_corrected_and_one_that_is_minutes_off_is_left() {
    let cluster = Arc::new(Cluster::new("root"));
    for (off, corrected) in [(7200, true), (-7200, true), (120, false), (-120, false), (0, false)] {
        let (service, _) = service(&cluster, &cluster, SystemClock.now()).await;
        let clock = device(SystemClock.now().unix_seconds() + off);
        join(params(&service, vec![cluster.pin()]), &clock).await.unwrap();
        assert_eq!(clock.is_corrected(), corrected, "{off}");
    }
}

// I15
#[tokio::test]
async fn nobody_but_the_pinned_cluster_moves_the_clock() {
    let (cluster, other) = (Arc::new(Cluster::new("root")), Cluster::new("root"));
    let (service, asked) = service(&cluster, &other, SystemClock.now()).await;
    let clock = device(IN_1970);
    let error = join(params(&service, vec![cluster.pin()]), &clock).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused { .. }) && error.to_string().contains("pin"), "{error}");
    assert!(!clock.is_corrected() && asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_a_pin_a_device_says_that_its_clock_is_why_it_does_not_join() {
    let cluster = Arc::new(Cluster::new("root"));
    let (service, _) = service(&cluster, &cluster, SystemClock.now()).await;
    let clock = device(IN_1970);
    let error = join(params(&service, Vec::new()), &clock).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("valid only from 20") && said.contains("clock"), "{said}");
    assert!(!clock.is_corrected());
}

#[tokio::test]
async fn two_wrong_clocks_are_named_both() {
    let cluster = Arc::new(Cluster::new("root"));
    let (service, asked) = service(&cluster, &cluster, Timestamp::from_unix_seconds(10)).await;
    let error = join(params(&service, vec![cluster.pin()]), &device(IN_1970)).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("1970-01-02") && said.contains("1970-01-01T00:00:10") && said.contains("set both"), "{said}");
    assert!(asked.lock().unwrap().iter().all(|what| what == "GET /v1/ping"), "the token was sent");
}
