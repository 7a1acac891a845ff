//! The auth service over HTTP: kinds of failure, kept connections, whom it is believed by.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use remoteler_client::{AuthTrust, RemoteAuth};
use remoteler_core::{ApiError, ApiErrorKind, AuthApi, SystemRole, wire};
use remoteler_tunnel::ClientAuth;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};

use crate::{
    cluster::Cluster,
    service::{self, Handler, Service, ok, ping, refused},
};

async fn start(cluster: &Arc<Cluster>, role: SystemRole, handler: Handler) -> Service {
    service::tls(cluster, cluster.service(role), wire::ALPN_AUTH, ClientAuth::Optional, handler).await
}

/// Connections at once: more than there are processors, so that callers are stopped at any point.
const CALLERS: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 16)]
async fn a_call_on_a_connection_that_is_closed_at_that_moment_is_answered() {
    let cluster = Cluster::new("root");
    let (_, body) = ping(&cluster);
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let dir = tempfile::tempdir().unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let socket = dir.path().join(caller.to_string());
        let listener = UnixListener::bind(&socket).unwrap();
        let answer = answer.clone();
        // As a service that is killed: each connection ends after one answer, and nothing says so before.
        let service = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        callers.spawn(async move {
            let remote = RemoteAuth::unix(&socket);
            for call in 0..500 {
                let answered = tokio::time::timeout(Duration::from_secs(20), remote.ping()).await;
                assert!(matches!(answered, Ok(Ok(_))), "call {call}: {answered:?}");
            }
            service.abort();
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn calls_one_after_the_other_share_a_connection_and_a_closed_one_is_replaced() {
    let cluster = Arc::new(Cluster::new("root"));
    let known = cluster.clone();
    let handler: Handler = Arc::new(move |what, _| match what {
        "GET /v1/ping" => ping(&known),
        "GET /v1/resources/role/close" => ok(&Vec::<String>::new()),
        other => panic!("{other}"),
    });
    let service = start(&cluster, SystemRole::Auth, handler).await;
    let remote = RemoteAuth::tls(&service.addr, None, AuthTrust::Bundle(cluster.trust())).unwrap();
    for _ in 0..3 {
        assert_eq!(remote.ping().await.unwrap().cluster_name, cluster.name);
    }
    assert_eq!(service.connections.load(Ordering::SeqCst), 1);
    remote.resources(remoteler_core::ResourceKind::Role, Some("close".into())).await.unwrap();
    remote.ping().await.unwrap();
    assert_eq!(service.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_connection_is_not_kept_past_the_identity_or_the_trust_it_was_opened_with() {
    let cluster = Arc::new(Cluster::new("root"));
    let known = cluster.clone();
    let doubts = Arc::new(AtomicUsize::new(0));
    let refusals = doubts.clone();
    let handler: Handler = Arc::new(move |_, _| {
        let doubted = refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if doubted { refused(&ApiError::new(ApiErrorKind::Unauthenticated, "who?")) } else { ping(&known) }
    });
    let service = start(&cluster, SystemRole::Auth, handler).await;
    let identity = cluster.service(SystemRole::Node);
    let trust = AuthTrust::Bundle(cluster.trust());
    let remote = RemoteAuth::tls(&service.addr, Some(identity.clone()), trust).unwrap();
    let opened = async || {
        remote.ping().await.unwrap();
        remote.ping().await.unwrap();
        service.connections.load(Ordering::SeqCst)
    };
    assert_eq!(opened().await, 1);
    identity.replace(cluster.service(SystemRole::Node).current());
    assert_eq!(opened().await, 2);
    doubts.store(1, Ordering::SeqCst);
    assert_eq!(remote.ping().await.unwrap_err().kind, ApiErrorKind::Unauthenticated);
    assert_eq!(opened().await, 3);
}

#[tokio::test]
async fn failures_keep_their_kind_over_the_wire() {
    let cluster = Arc::new(Cluster::new("root"));
    let turn = AtomicUsize::new(0);
    let kinds = [ApiErrorKind::Denied, ApiErrorKind::Conflict, ApiErrorKind::RateLimited, ApiErrorKind::NotFound];
    let handler: Handler =
        Arc::new(move |_, _| refused(&ApiError::new(kinds[turn.fetch_add(1, Ordering::SeqCst)], "because")));
    let service = start(&cluster, SystemRole::Auth, handler).await;
    let remote = RemoteAuth::tls(&service.addr, None, AuthTrust::Bundle(cluster.trust())).unwrap();
    for kind in kinds {
        assert_eq!(remote.users().await.unwrap_err(), ApiError::new(kind, "because"));
    }
}

#[tokio::test]
async fn an_answer_that_is_not_understood_is_no_success() {
    let cluster = Arc::new(Cluster::new("root"));
    let service = start(&cluster, SystemRole::Auth, Arc::new(|_, _| (200, "<html>".into()))).await;
    let remote = RemoteAuth::tls(&service.addr, None, AuthTrust::Bundle(cluster.trust())).unwrap();
    let error = remote.roles().await.unwrap_err();
    assert_eq!(error.kind, ApiErrorKind::Internal);
    assert!(error.message.contains("/v1/roles"), "{error}");
}

#[tokio::test]
async fn a_service_that_is_away_is_named_and_one_that_is_no_auth_service_is_refused() {
    let cluster = Arc::new(Cluster::new("root"));
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = gone.local_addr().unwrap().to_string();
    drop(gone);
    let remote = RemoteAuth::tls(&addr, None, AuthTrust::Bundle(cluster.trust())).unwrap();
    let error = remote.ping().await.unwrap_err();
    assert_eq!(error.kind, ApiErrorKind::Unavailable);
    assert!(error.message.starts_with(&addr), "{error}");

    let proxy = start(&cluster, SystemRole::Proxy, Arc::new(|_, _| panic!("nothing may be asked"))).await;
    for trust in [AuthTrust::Bundle(cluster.trust()), AuthTrust::Bundle(Cluster::new("root").trust())] {
        let remote = RemoteAuth::tls(&proxy.addr, None, trust).unwrap();
        assert_eq!(remote.ping().await.unwrap_err().kind, ApiErrorKind::Unavailable); // I1
    }
}

#[tokio::test]
async fn many_calls_at_once_are_all_answered() {
    let cluster = Arc::new(Cluster::new("root"));
    let known = cluster.clone();
    let dir = tempfile::tempdir().unwrap();
    let (socket, task) = service::unix(&dir.path().join("auth.sock"), Arc::new(move |_, _| ping(&known)));
    let remote = RemoteAuth::unix(&socket);
    let answers = futures::future::join_all((0..100).map(|_| remote.ping())).await;
    assert!(answers.iter().all(Result::is_ok));
    task.abort();
}
