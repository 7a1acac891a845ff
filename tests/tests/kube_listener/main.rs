//! The Kubernetes service's listener, tried with clients that do what `kubectl` never would: wrong certificates, certificates that
//! end, other people's clusters. What counts is what reaches the API server's double, and what the audit log says.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod live;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, BodyStream, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::ExtendedKeyUsagePurpose;
use remoteler_core::{
    AuditKind, Clock, ClusterName, HostId, Identity, KubeClusterName, LiveWork, NullAudit, Policy, PolicySource, Role,
    Timestamp,
};
use remoteler_kube::{KubeService, KubeServiceConfig, KubeServiceError, ServeError};
use remoteler_tests::{Issue, KubeFixture, Signer};
use rustls::{
    RootCertStore, ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(60);
const NONE: Vec<String> = Vec::new();

fn message(response: &Response<Bytes>) -> String {
    let status: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["code"], response.status().as_u16());
    status["message"].as_str().unwrap().to_owned()
}

// I1, I12
#[tokio::test]
async fn every_wrong_certificate_is_refused_with_an_audit_event_and_nothing_is_sent() {
    let (api_server, fixture, _) = KubeFixture::start_for_ann().await.unwrap();
    let good = fixture.user("mallory", &["developer"]);
    let host = fixture.host();
    let now = fixture.clock.now();
    let with = |change: &dyn Fn(&mut Issue), issue: &Issue| {
        let mut issue = issue.clone();
        change(&mut issue);
        issue
    };
    let mut elsewhere = good.clone();
    if let Identity::User(user) = &mut elsewhere.identity {
        user.cluster = ClusterName::new("other.example.com").unwrap();
    }
    let hour = Duration::from_secs(3600);
    let wrong: Vec<(&str, Issue, &str)> = vec![
        (
            "a user signed by the host authority",
            with(&|i| i.signer = Signer::Host, &good),
            "host certificate is needed",
        ),
        (
            "a host signed by the user authority",
            with(&|i| i.signer = Signer::User, &host),
            "user certificate is needed",
        ),
        ("a host", host.clone(), "this is a host certificate"),
        ("a stranger's user", with(&|i| i.signer = Signer::Stranger, &good), "not signed by"),
        ("a user of another cluster", elsewhere, "says cluster other.example.com"),
        ("an expired user", with(&|i| i.valid.1 = now.minus(Duration::from_secs(1)), &good), "expired"),
        ("a future user", with(&|i| i.valid = (now.plus(hour), now.plus(hour * 2)), &good), "valid only from"),
        (
            "a user for ever",
            with(&|i| i.valid.1 = Timestamp::from_unix_seconds(253_402_300_799), &good),
            "must have an end",
        ),
        ("a user as a server", with(&|i| i.usage = ExtendedKeyUsagePurpose::ServerAuth, &good), "path is refused"),
    ];
    for (index, (what, issue, why)) in wrong.iter().enumerate() {
        let certificate = fixture.issue(issue).unwrap();
        for alpn in ["http/1.1", "h2"] {
            let uri = format!("https://proxy.example.com{}/api/v1/pods", fixture.prefix("staging"));
            let plain = fixture.asking_for("/api/v1/pods").body(Bytes::new()).unwrap();
            let absolute = Request::get(uri).body(Bytes::new()).unwrap();
            let request = if alpn == "h2" { absolute } else { plain };
            let response = fixture.send(Some(&certificate), alpn, request).await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{what} over {alpn}");
            assert!(message(&response).contains(why), "{what}: {}", message(&response));
        }
        let refusals = fixture.refusals();
        assert_eq!(refusals.len(), 2 * (index + 1), "one event for each connection: {what}");
        let (user, error) = refusals.last().unwrap();
        assert!(error.contains(why), "{what}: {error}");
        assert_eq!(*user, issue.identity.subject(), "{what}");
    }
    let before = fixture.refusals().len();
    let plain = fixture.asking_for("/api/v1/pods").body(Bytes::new()).unwrap();
    let response = fixture.send(None, "http/1.1", plain).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(message(&response).contains("no certificate was shown"));
    assert_eq!(fixture.refusals().len(), before + 1);
    assert!(api_server.seen().is_empty());
}

// I12: also where the TLS configuration verifies by itself.
#[tokio::test]
async fn a_certificate_that_fails_in_the_handshake_is_recorded_too() {
    let (_api_server, fixture, _) = KubeFixture::start_for_ann().await.unwrap();
    let key = rcgen::generate_simple_self_signed(vec!["kube".into()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(key.cert.der().clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider()).build().unwrap();
    let mut tls = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![key.cert.der().clone()], key.signing_key.serialize_der().try_into().unwrap())
        .unwrap();
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    let (policy, audit, clock) = (fixture.policy.clone(), fixture.audit.clone(), fixture.clock.clone());
    let live = LiveWork::new(policy, clock.clone());
    let service = KubeService::new(empty_config(), Arc::new(tls), live, audit, clock).unwrap();
    let stranger = fixture.issue(&Issue { signer: Signer::Stranger, ..fixture.user("mallory", &[]) }).unwrap();
    let believing_it = stranger.client_config(roots, "h2").unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let client = async {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(believing_it));
        let mut stream = connector.connect("kube".try_into().unwrap(), near).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await
    };

    let (served, heard) = tokio::join!(service.serve_stream(far, None), client);

    assert!(matches!(served, Err(ServeError::Handshake(_))), "{served:?}");
    assert!(heard.is_err(), "an alert comes");
    assert_eq!(fixture.refusals().len(), 1);
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn empty_config() -> KubeServiceConfig {
    KubeServiceConfig {
        cluster: ClusterName::new("root.example.com").unwrap(),
        host_id: HostId::from_uuid(uuid::Uuid::nil()),
        clusters: Vec::new(),
        version: "0".into(),
    }
}

// I14
#[tokio::test]
async fn no_session_is_ever_resumed() {
    let (_api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let config = fixture.client_config(Some(&ann), "http/1.1").unwrap();
    for _ in 0..3 {
        let mut stream = fixture.connect_as(config.clone(), &fixture.server_name("staging")).await.unwrap();
        let head =
            format!("GET {}/version HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n", fixture.prefix("staging"));
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

// I14
#[tokio::test]
async fn a_configuration_with_tickets_is_not_taken() {
    let (_api_server, fixture, _) = KubeFixture::start_for_ann().await.unwrap();
    let key = rcgen::generate_simple_self_signed(vec!["kube".into()]).unwrap();
    let private = key.signing_key.serialize_der().try_into().unwrap();
    let tls = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    let (policy, clock) = (fixture.policy.clone(), fixture.clock.clone());
    let live = LiveWork::new(policy, clock.clone());
    let made = KubeService::new(empty_config(), Arc::new(tls), live, Arc::new(NullAudit), clock);
    assert_eq!(made.err(), Some(KubeServiceError::Resumption));
}

#[tokio::test]
async fn an_authority_that_is_removed_takes_its_users_with_it_on_living_connections() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let stream = fixture.connect(Some(&ann), "http/1.1").await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut ask = async || {
        sender.ready().await.unwrap();
        let request = fixture.asking_for("/version").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        response.into_body().collect().await.unwrap();
        status
    };
    assert_eq!(ask().await, StatusCode::OK);

    let Policy { mut trust, roles, .. } = fixture.policy.policy().as_ref().clone();
    trust.user.x509.clear();
    fixture.policy.replace(Policy::new(trust, roles));

    assert_eq!(ask().await, StatusCode::UNAUTHORIZED);
    assert_eq!(fixture.refusals().len(), 1);
    assert_eq!(api_server.seen().len(), 1);
}

// I56
#[tokio::test]
async fn a_user_whom_no_role_gives_a_group_or_whose_role_is_gone_is_not_sent() {
    let (api_server, fixture, _) = KubeFixture::start_for_ann().await.unwrap();
    for roles in [&["nobody"][..], &["removed"], &["developer", "removed"], &[]] {
        let certificate = fixture.issue(&fixture.user("bob", roles)).unwrap();
        let response = fixture.get(&certificate, "/version").await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{roles:?}");
        assert!(message(&response).starts_with("access denied: bob may not use Kubernetes cluster staging"));
    }
    assert_eq!(fixture.refusals().len(), 4);
    assert!(api_server.seen().is_empty());
}

// I53
#[tokio::test]
async fn connections_to_the_api_server_are_kept_for_one_user_and_never_shared() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let bob = fixture.issue(&fixture.user("bob", &["developer"])).unwrap();
    for _ in 0..3 {
        assert_eq!(fixture.get(&ann, "/version").await.unwrap().status(), StatusCode::OK);
    }
    api_server.expect("bob", &["developers", "viewers"]);
    for _ in 0..2 {
        assert_eq!(fixture.get(&bob, "/version").await.unwrap().status(), StatusCode::OK);
    }
    let connections: Vec<u64> = api_server.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0, 0, 1, 1]);
    assert_eq!(api_server.violations(), NONE);
}

#[tokio::test]
async fn each_request_is_recorded_before_it_is_sent_and_not_sent_when_that_fails() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    fixture.get(&ann, "/api/v1/namespaces/dev/pods?limit=1").await.unwrap();
    let events = fixture.audit.events();
    let [
        AuditKind::KubeRequest {
            user,
            kubernetes_cluster,
            kubernetes_user,
            kubernetes_groups,
            verb,
            request_path,
            response_code,
            connection,
            with_mfa: None,
        },
    ] = events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!((user.as_str(), kubernetes_cluster.as_str(), kubernetes_user.as_str()), ("ann", "staging", "ann"));
    assert_eq!(*kubernetes_groups, ["developers", "viewers"]);
    assert_eq!((verb.as_str(), request_path.as_str()), ("GET", "/api/v1/namespaces/dev/pods?limit=1"));
    assert_eq!(*response_code, None);
    assert!(connection.remote.as_ref().unwrap().starts_with("127.0.0.1:"));

    fixture.audit.fail();
    let response = fixture.get(&ann, "/version").await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(message(&response).contains("audit log"));
    assert_eq!(api_server.seen().len(), 1);
}

// I13, I60
#[tokio::test]
async fn the_server_name_and_the_path_must_name_the_same_kubernetes_cluster_and_it_must_be_ours() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let ask = async |server_name: String, path: String| {
        let config = fixture.client_config(Some(&ann), "http/1.1").unwrap();
        let stream = fixture.connect_as(config, &server_name).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "p").body(Empty::<Bytes>::new()).unwrap();
        sender.send_request(request).await.unwrap().status()
    };
    let (staging, production) = (fixture.server_name("staging"), fixture.server_name("production"));
    let version = |kube_cluster: &str| format!("{}/version", fixture.prefix(kube_cluster));
    assert_eq!(ask(staging.clone(), version("staging")).await, StatusCode::OK);
    assert_eq!(ask(production.clone(), version("staging")).await, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(ask("kube-1.root.example.com".into(), version("staging")).await, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(ask(staging.clone(), version("production")).await, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(ask(staging.clone(), version("elsewhere")).await, StatusCode::NOT_FOUND);
    assert_eq!(ask(staging.clone(), "/v1/kube/other.example.com/staging/version".into()).await, StatusCode::NOT_FOUND);
    assert_eq!(ask(staging, "/version".into()).await, StatusCode::NOT_FOUND);
    // Served here, but its labels are not among those of ann's role.
    assert_eq!(ask(production, version("production")).await, StatusCode::FORBIDDEN);
    assert_eq!(api_server.seen().len(), 1);
    assert_eq!(fixture.refusals().len(), 7);
}

#[tokio::test]
async fn a_connection_that_found_no_place_is_served_as_soon_as_one_is_free() {
    let (_api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let mut rules = Policy::clone(&fixture.policy.policy());
    let spec = serde_json::json!({
        "options": { "max_kubernetes_connections": 1 },
        "allow": { "kubernetes_groups": ["developers", "viewers"], "kubernetes_labels": { "env": "dev" } },
    });
    let role = Role::new("developer".parse().unwrap(), &serde_json::from_value(spec).unwrap()).unwrap();
    rules.roles.insert(role.name().clone(), Arc::new(role));
    fixture.policy.replace(rules);
    let connect = async || {
        let io = TokioIo::new(fixture.connect(Some(&ann), "h2").await.unwrap());
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        (sender, tokio::spawn(connection))
    };
    let ask = async |sender: &hyper::client::conn::http2::SendRequest<Empty<Bytes>>| {
        let uri = format!("https://p{}/version", fixture.prefix("staging"));
        let request = Request::get(uri).body(Empty::new()).unwrap();
        let answer = sender.clone().send_request(request).await.unwrap();
        let status = answer.status();
        answer.into_body().collect().await.unwrap();
        status
    };
    let ((first, driver), (second, _driver)) = (connect().await, connect().await);
    assert_eq!(ask(&first).await, StatusCode::OK);
    assert_eq!([ask(&second).await, ask(&first).await], [StatusCode::FORBIDDEN, StatusCode::OK]);

    drop(first);
    driver.await.unwrap().unwrap();
    let freed = async { while ask(&second).await != StatusCode::OK {} };
    timeout(LIMIT, freed).await.expect("the same connection is served once the other has gone");
}

#[tokio::test]
async fn a_credential_that_the_api_server_refuses_is_our_fault_and_read_again() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    assert_eq!(fixture.get(&ann, "/version").await.unwrap().status(), StatusCode::OK);
    api_server.replace_token("renewed");
    api_server.write_kubeconfig(fixture.dir()).unwrap();

    let response = fixture.get(&ann, "/version").await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(message(&response).contains("credential"));
    assert!(!message(&response).contains("localhost"), "addresses are not for users");
    assert_eq!(fixture.get(&ann, "/version").await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_api_server_that_is_gone_is_named_and_a_large_answer_arrives_whole() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let large = Bytes::from(vec![b'x'; 8 * 1024 * 1024]);
    api_server.answer("/large", Response::new(large.clone()));
    assert!(fixture.get(&ann, "/large").await.unwrap().body() == &large);
    drop(api_server);
    let gone = async {
        loop {
            let response = fixture.get(&ann, "/version").await.unwrap();
            if response.status() == StatusCode::BAD_GATEWAY {
                return message(&response);
            }
        }
    };
    assert!(timeout(LIMIT, gone).await.unwrap().contains("staging did not answer"));
}

#[tokio::test]
async fn draining_lets_what_runs_go_on_and_takes_no_more() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    api_server.log("before");
    let stream = fixture.connect(Some(&ann), "h2").await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let uri = |path: &str| format!("https://p{}{path}", fixture.prefix("staging"));
    let follow = Request::get(uri("/api/v1/namespaces/dev/pods/web/log?follow=true"));
    let response = sender.send_request(follow.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    let mut frames = BodyStream::new(response.into_body());
    let mut next = async || timeout(LIMIT, frames.next()).await.unwrap().unwrap().unwrap().into_data().unwrap();
    assert_eq!(next().await, "before\n");

    fixture.service.drain();
    let refused = async { while fixture.get(&ann, "/version").await.is_ok() {} };
    timeout(LIMIT, refused).await.expect("new requests find no service");
    api_server.log("after");
    assert_eq!(next().await, "after\n");
    drop(frames);
    timeout(LIMIT, connection).await.expect("the connection ends with its last stream").unwrap().unwrap();
}

#[tokio::test]
async fn the_service_announces_its_clusters() {
    let (_api_server, fixture, _) = KubeFixture::start_for_ann().await.unwrap();
    let records = fixture.service.records();
    let names: Vec<_> = records.iter().map(|record| record.name.clone()).collect();
    assert_eq!(names, ["production", "staging"].map(|name| KubeClusterName::new(name).unwrap()));
    assert!(records.iter().all(|record| record.last_seen == fixture.clock.now() && record.addr.is_none()));
}
