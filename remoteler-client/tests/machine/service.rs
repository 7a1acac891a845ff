//! An HTTP service for tests, behind TLS on loopback or a socket of this machine; what it answers is a function.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use remoteler_core::{ApiError, Ping, SystemClock, Timestamp, TrustBundle};
use remoteler_tunnel::{ClientAuth, ServerTls, SharedTlsIdentity};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::cluster::Cluster;

pub(crate) type Answer = (u16, String);
pub(crate) type Handler = Arc<dyn Fn(&str, &[u8]) -> Answer + Send + Sync>;

pub(crate) fn ok(value: &impl Serialize) -> Answer {
    (200, serde_json::to_string(value).unwrap())
}

pub(crate) fn refused(error: &ApiError) -> Answer {
    (remoteler_core::wire::status(error.kind), serde_json::to_string(error).unwrap())
}

pub(crate) fn ping(cluster: &Cluster) -> Answer {
    let server_time = Timestamp::from_unix_millis(0);
    ok(&Ping { cluster_name: cluster.name.clone(), server_version: "0.0.0".into(), server_time })
}

/// A running service; it ends when this is dropped.
pub(crate) struct Service {
    pub(crate) addr: String,
    pub(crate) connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `handler` is called with `METHOD path` and the body.
pub(crate) async fn tls(
    cluster: &Cluster,
    identity: Arc<SharedTlsIdentity>,
    alpn: &str,
    auth: ClientAuth,
    handler: Handler,
) -> Service {
    tls_by(cluster.trust(), identity, alpn, auth, handler).await
}

/// The same, where clients are believed by `trust`.
pub(crate) async fn tls_by(
    trust: TrustBundle,
    identity: Arc<SharedTlsIdentity>,
    alpn: &str,
    auth: ClientAuth,
    handler: Handler,
) -> Service {
    let server = ServerTls { identity, trust: Arc::new(trust), clock: Arc::new(SystemClock) };
    listen(server.own_protocol(alpn, auth).unwrap(), handler).await
}

/// The same as a proxy's web API, without client certificates.
pub(crate) async fn web(identity: Arc<SharedTlsIdentity>, handler: Handler) -> Service {
    listen(remoteler_tunnel::web_server_config(&identity).unwrap(), handler).await
}

async fn listen(config: Arc<rustls::ServerConfig>, handler: Handler) -> Service {
    let acceptor = TlsAcceptor::from(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let task = tokio::spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let (acceptor, handler) = (acceptor.clone(), handler.clone());
            open.spawn(async move {
                if let Ok(stream) = acceptor.accept(tcp).await {
                    serve(stream, handler).await;
                }
            });
        }
    });
    Service { addr, connections, task }
}

pub(crate) fn unix(path: &Path, handler: Handler) -> (PathBuf, JoinHandle<()>) {
    let listener = UnixListener::bind(path).unwrap();
    let task = tokio::spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            open.spawn(serve(stream, handler.clone()));
        }
    });
    (path.to_owned(), task)
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, handler: Handler) {
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let what = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let (status, text) = handler(&what, &body);
            let mut response = Response::builder().status(status);
            if what.ends_with("close") {
                response = response.header("connection", "close");
            }
            Ok::<_, hyper::Error>(response.body(Full::new(Bytes::from(text))).unwrap())
        }
    });
    // A client that goes away is no failure of the service.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
