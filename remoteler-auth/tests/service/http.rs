//! The API over a real connection: paths, bodies, statuses, limits and the caller of the connection.

use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use remoteler_auth::{Caller, HttpApi, bind_admin_socket};
use remoteler_core::{ApiError, ApiErrorKind, Ping, SystemRole, UserSummary, wire};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, new_user};

type Client = SendRequest<Full<bytes::Bytes>>;

async fn connect(cluster: &Cluster, caller: Caller) -> Client {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let api = HttpApi::new(cluster.service.clone());
    tokio::spawn(async move { api.serve_connection(server, caller, CancellationToken::new()).await });
    handshake(client).await
}

async fn handshake(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static) -> Client {
    let (client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn send(client: &mut Client, request: Request<Full<bytes::Bytes>>) -> (StatusCode, Vec<u8>) {
    client.ready().await.unwrap();
    let answer = client.send_request(request).await.unwrap();
    let status = answer.status();
    (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
}

fn call(method: Method, path: &str, body: Option<Value>) -> Request<Full<bytes::Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", "auth");
    match body {
        Some(body) => request.header("content-type", wire::JSON).body(Full::from(body.to_string())).unwrap(),
        None => request.body(Full::default()).unwrap(),
    }
}

fn failure(body: &[u8]) -> ApiError {
    serde_json::from_slice(body).unwrap()
}

fn stranger() -> Caller {
    Caller::Anonymous { addr: "192.0.2.1:1".parse().unwrap() }
}

#[tokio::test]
async fn a_host_that_asks_nothing_keeps_its_connection_for_longer_only_inside_its_link() {
    let cluster = Cluster::start().await;
    let host = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let api = HttpApi::new(cluster.service.clone());
    let nobody = Caller::from_tls(None, "192.0.2.7:1".parse().unwrap());
    for (api, caller, kept) in [
        (api.clone(), cluster.host_caller(&host), 90),
        (api.in_links(), cluster.host_caller(&host), 1890),
        (api.in_links(), nobody, 90),
    ] {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let serving = tokio::spawn(async move { api.serve_connection(server, caller, CancellationToken::new()).await });
        let mut client = handshake(client).await;
        assert_eq!(send(&mut client, call(Method::GET, wire::PING, None)).await.0, StatusCode::OK);

        tokio::time::pause();
        let since = tokio::time::Instant::now();
        let _ended = serving.await.unwrap();
        tokio::time::resume();

        assert!((kept - 2..=kept).contains(&since.elapsed().as_secs()), "{:?}, not {kept} s", since.elapsed());
    }
}

#[tokio::test]
async fn calls_travel_as_json_and_failures_have_their_status() {
    let cluster = Cluster::start().await;
    let mut admin = connect(&cluster, Caller::LocalAdmin).await;
    let (status, body) = send(&mut admin, call(Method::GET, wire::PING, None)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(serde_json::from_slice::<Ping>(&body).unwrap().cluster_name.as_str(), "root");

    let user = serde_json::to_value(new_user("ann", &["access"], &["root"])).unwrap();
    let (status, _) = send(&mut admin, call(Method::POST, wire::USERS, Some(user.clone()))).await;
    assert_eq!(status, StatusCode::OK);
    let (status, body) = send(&mut admin, call(Method::POST, wire::USERS, Some(user.clone()))).await;
    assert_eq!((status, failure(&body).kind), (StatusCode::CONFLICT, ApiErrorKind::Conflict));
    let (_, body) = send(&mut admin, call(Method::GET, wire::USERS, None)).await;
    assert_eq!(serde_json::from_slice::<Vec<UserSummary>>(&body).unwrap().len(), 1);
    let (status, body) = send(&mut admin, call(Method::PUT, &wire::path(wire::USER, "bob"), Some(user))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(failure(&body).message.contains("bob"));
    let (status, body) = send(&mut admin, call(Method::DELETE, &wire::path(wire::USER, "ann"), None)).await;
    assert_eq!((status, body.as_slice()), (StatusCode::NO_CONTENT, b"".as_slice()));
    let (status, _) = send(&mut admin, call(Method::GET, "/v1/events?type=user.create&limit=5", None)).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_connection_without_certificate_may_only_what_anybody_may() {
    let cluster = Cluster::start().await;
    let mut client = connect(&cluster, stranger()).await;
    for path in [wire::PING, wire::TRUST, wire::OPENAPI] {
        assert_eq!(send(&mut client, call(Method::GET, path, None)).await.0, StatusCode::OK, "{path}");
    }
    for path in [
        wire::ROLES,
        wire::NODES,
        wire::KUBE_CLUSTERS,
        wire::EVENTS,
        wire::RECORDINGS,
        wire::USERS,
        wire::TOKENS,
        wire::ROTATIONS,
        "/v1/resources/role",
        "/v1/resources/role/access",
        "/v1/recordings/67e55044-10b1-426f-9247-bb680e5fe0c8",
        "/v1/recordings/67e55044-10b1-426f-9247-bb680e5fe0c8/size",
    ] {
        assert_eq!(send(&mut client, call(Method::GET, path, None)).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn every_operation_that_is_not_for_anybody_refuses_a_stranger() {
    // Driven by the document, so that a new operation is covered by being there.
    let cluster = Cluster::start().await;
    let document: Value = serde_json::from_str(&remoteler_auth::openapi_document()).unwrap();
    let open = [
        wire::PING,
        wire::TRUST,
        wire::LOGIN,
        wire::SIGN_UP,
        wire::INVITED_USER,
        wire::JOIN,
        wire::OPENAPI,
        wire::REVOCATION_LIST,
        wire::LOGIN_METHODS,
        wire::LOGINS,
        wire::LOGIN_BROWSER,
        wire::LOGIN_POLL,
        wire::LOGIN_REDEEM,
    ];
    let host_id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let record = json!({ "host_id": host_id, "name": "x", "version": "1", "last_seen": "2026-03-01T12:00:00Z" });
    let lease = json!({ "id": host_id, "user": "x", "kind": "kube" });
    let kube_session = json!({ "kubernetes": { "kube_cluster": "x", "tls_public_key": "x" } });
    let bodies = [
        ("AuditEvent", json!({})),
        ("TrustAck", json!({ "generation": 1 })),
        ("RotateRequest", json!({ "kind": "user", "phase": "init", "plan": { "mode": "manual" } })),
        ("SignRequest", json!({ "purpose": "server", "names": ["x"], "tls_public_key": "x" })),
        ("NewRevocation", json!({ "target": "ssh-user-1" })),
        ("NodeRecord", record.clone()),
        ("KubeRecord", record.clone()),
        ("AppRecord", record),
        ("AppCodeRequest", json!({ "code": "x", "state": "x", "app": "x" })),
        ("AppCertificateRequest", json!({ "secret": "x", "app": "x" })),
        ("AppSessionsRequest", json!({ "sessions": [] })),
        ("AppTokenRequest", json!({ "app": "x", "chain": [] })),
        ("ProxyAnnouncement", json!({ "public_addr": "a:1" })),
        ("ExplainRequest", json!({})),
        ("NewUser", json!({ "name": "x", "roles": ["access"] })),
        ("PasswordChange", json!({ "password": "x" })),
        ("NewToken", json!({ "roles": ["node"] })),
        ("TokenRevocation", json!({ "id_or_token": "x" })),
        ("RejoinTokenRequest", json!({ "node": "x" })),
        ("ConnectorSecretsRequest", json!({ "kind": "oidc" })),
        ("FreshProof", json!({ "password": "x" })),
        ("NewFactor", json!({ "name": "x", "code": "1" })),
        ("FactorRemoval", json!({ "name": "x", "proof": { "password": "x" } })),
        ("Resource", json!({ "kind": "role", "version": "v7", "metadata": { "name": "x" } })),
        ("LeaseReport", json!({})),
        ("LeaseRequest", json!({ "lease": lease, "limit": 1 })),
        ("SessionProofRequest", json!({ "session": host_id, "purpose": kube_session })),
    ];
    let mut checked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        if open.contains(&path.as_str()) {
            continue;
        }
        for (method, operation) in operations.as_object().unwrap() {
            let schema = operation["requestBody"].to_string();
            let body = bodies.iter().find(|(name, _)| schema.contains(&format!("/{name}\"")));
            let body = body.map(|(_, body)| if schema.contains("\"array\"") { json!([]) } else { body.clone() });
            let path = path
                .replace("{host_id}", host_id)
                .replace("{session_id}", host_id)
                .replace("{revocation}", "ssh-user-1")
                .replace("{kind}", "role")
                .replace("{name}", "x");
            let path = if schema.contains("octet-stream") { format!("{path}?offset=0") } else { path };
            let path = if path == wire::AUDIT_TILE { format!("{path}?size=1&tile=0&from=1") } else { path };
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let mut client = connect(&cluster, stranger()).await;
            let (status, answer) = send(&mut client, call(method.clone(), &path, body)).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}: {}", String::from_utf8_lossy(&answer)); // I9
            checked += 1;
        }
    }
    assert!(checked >= 25, "{checked}");
}

#[tokio::test]
async fn malformed_requests_are_refused_without_repeating_secrets() {
    let cluster = Cluster::start().await;
    let mut client = connect(&cluster, stranger()).await;
    let login = json!({ "user": "ann", "password": "p", "ssh_public_key": "k", "tls_public_key": "k", "admin": true });
    let (status, body) = send(&mut client, call(Method::POST, wire::LOGIN, Some(login))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(failure(&body).message.contains("admin"), "{}", failure(&body).message); // I80

    let token = json!({ "token": { "canary": "canary" }, "password": "canary" });
    let (status, body) = send(&mut client, call(Method::POST, wire::SIGN_UP, Some(token))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(!failure(&body).message.contains("canary"), "{}", failure(&body).message); // I76
    let numbers = json!({ "user": "ann", "password": "p", "ssh_public_key": "k", "tls_public_key": "k", "ttl_seconds": "canary" });
    let (_, body) = send(&mut client, call(Method::POST, wire::LOGIN, Some(numbers))).await;
    assert!(!failure(&body).message.contains("canary"), "{}", failure(&body).message);

    let form = Request::post(wire::LOGIN)
        .header("host", "auth")
        .header("content-type", "text/plain")
        .body(Full::from("{}"))
        .unwrap();
    assert_eq!(send(&mut client, form).await.0, StatusCode::BAD_REQUEST);
    for path in ["/v1/nothing", "/", "/v1/users/%2e%2e/x"] {
        assert_eq!(send(&mut client, call(Method::GET, path, None)).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/v1/recordings/not-an-id", "/v1/resources/robot", "/v1/events?limit=x", "/v1/events?colour=red"] {
        let mut admin = connect(&cluster, Caller::LocalAdmin).await;
        assert_eq!(send(&mut admin, call(Method::GET, path, None)).await.0, StatusCode::BAD_REQUEST, "{path}");
    }
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused() {
    let cluster = Cluster::start().await;
    let mut client = connect(&cluster, stranger()).await;
    let large = json!({ "token": "x".repeat(wire::MAX_JSON) });
    let (status, body) = send(&mut client, call(Method::POST, wire::INVITED_USER, Some(large))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST); // I62
    assert!(failure(&body).message.contains("larger"));

    // Where hosts may send much, strangers may not.
    let mut client = connect(&cluster, stranger()).await;
    let large = json!([{ "event": "x".repeat(128 * 1024) }]);
    let (status, body) = send(&mut client, call(Method::POST, wire::EVENTS, Some(large))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST); // I30
    assert!(failure(&body).message.contains("larger"), "{}", failure(&body).message);
}

#[tokio::test]
async fn a_recording_goes_up_and_down_as_octets() {
    let cluster = Cluster::start().await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let mut node = connect(&cluster, cluster.host_caller(&certs)).await;
    let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let event = json!([{
        "event": "session.start", "code": "T2000I", "time": "2026-03-01T12:00:00Z", "cluster_name": "root",
        "uid": "67e55044-10b1-426f-9247-bb680e5fe0c9", "sid": id, "user": "ann", "login": "root",
        "server_id": certs.host_id, "server_hostname": "edge", "interactive": true,
    }]);
    assert_eq!(send(&mut node, call(Method::POST, wire::EVENTS, Some(event))).await.0, StatusCode::NO_CONTENT);
    let path = wire::path(wire::RECORDING, id);
    let octets = vec![7_u8; wire::MAX_CHUNK];
    let put = Request::put(format!("{path}?offset=0&last=true"))
        .header("host", "auth")
        .header("content-type", wire::OCTETS)
        .body(Full::from(octets.clone()))
        .unwrap();
    assert_eq!(send(&mut node, put).await.0, StatusCode::NO_CONTENT);
    let (_, size) = send(&mut node, call(Method::GET, &wire::path(wire::RECORDING_SIZE, id), None)).await;
    assert_eq!(size, wire::MAX_CHUNK.to_string().as_bytes());
    let mut admin = connect(&cluster, Caller::LocalAdmin).await;
    let (status, body) = send(&mut admin, call(Method::GET, &format!("{path}?offset=1"), None)).await;
    assert_eq!((status, body.as_slice()), (StatusCode::OK, &octets[1..]));
}

#[tokio::test]
async fn http_2_works_as_well() {
    let cluster = Cluster::start().await;
    let (client, server) = tokio::io::duplex(64 * 1024);
    let api = HttpApi::new(cluster.service.clone());
    tokio::spawn(async move { api.serve_connection(server, Caller::LocalAdmin, CancellationToken::new()).await });
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut client, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://auth/v1/users").body(Full::<bytes::Bytes>::default()).unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn the_administrators_socket_serves_its_owner_until_shutdown() {
    use std::os::unix::fs::MetadataExt;
    let cluster = Cluster::start().await;
    let path = cluster.dir.path().join("auth.sock");
    drop(bind_admin_socket(cluster.dir.path()).unwrap()); // what a killed process leaves
    let listener = bind_admin_socket(cluster.dir.path()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let (api, shutdown) = (HttpApi::new(cluster.service.clone()), CancellationToken::new());
    let stop = shutdown.clone();
    let server = tokio::spawn(async move { api.serve_unix(listener, stop).await });
    let mut admin = handshake(tokio::net::UnixStream::connect(&path).await.unwrap()).await;
    assert_eq!(send(&mut admin, call(Method::GET, wire::USERS, None)).await.0, StatusCode::OK);
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(60), server).await.unwrap().unwrap();
}
