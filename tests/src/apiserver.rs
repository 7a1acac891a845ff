//! A double of a Kubernetes API server, as far as `kubectl get`, `apply`, `logs`, `exec`, `attach`, `cp`, `port-forward` and
//! `auth whoami` need one. It is suspicious: a request without the service's credential, or whose impersonation is not exactly what
//! the test expects, is refused and written down.
//!
//! Commands of `exec` are real processes in a directory of their own; ports of `port-forward` are ports of this machine.

mod discovery;
mod logs;
mod process;
mod reviews;
mod session;
mod spdy;
mod store;
mod suspicion;
mod websocket;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

pub use self::suspicion::{Expected, Seen};
use self::{logs::Logs, reviews::Vouched, store::Store};

/// Bodies of answers.
type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A running double. Stops when dropped.
pub struct ApiServer {
    addr: SocketAddr,
    authority: String,
    state: Arc<State>,
    _accepting: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct State {
    token: Mutex<String>,
    expected: Mutex<Option<Expected>>,
    violations: Mutex<Vec<String>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicU64,
    answers: Mutex<Vec<(String, Response<Bytes>)>>,
    /// Paths that are never answered.
    stalled: Mutex<Vec<String>>,
    vouched: Mutex<Vec<Vouched>>,
    store: Store,
    logs: Logs,
    root: TempDir,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ApiServer {
    /// Starts one on a free port of the loopback interface, with namespace `dev` and a running pod `web` in it.
    ///
    /// # Errors
    /// No port, or no directory.
    pub async fn start() -> anyhow::Result<Self> {
        let key = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()])?;
        let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], private)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let state = Arc::new(State {
            token: Mutex::new("service-account-of-the-forwarder".into()),
            expected: Mutex::default(),
            violations: Mutex::default(),
            seen: Mutex::default(),
            connections: AtomicU64::new(0),
            answers: Mutex::default(),
            stalled: Mutex::default(),
            vouched: Mutex::default(),
            store: Store::new(),
            logs: Logs::default(),
            root: tempfile::tempdir()?,
        });
        let addr = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), state.clone()));
        Ok(Self { addr, authority: key.cert.pem(), state, _accepting: AbortOnDrop(accepting) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Writes the kubeconfig of the service that forwards to it, with its bearer token in a file beside.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn write_kubeconfig(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        fs::write(dir.join("api-server-token"), lock(&self.state.token).as_str())?;
        let authority = STANDARD.encode(&self.authority);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: double\ncontexts:\n- name: double\n  context: {{cluster: double, user: service}}\n\
             clusters:\n- name: double\n  cluster: {{server: 'https://localhost:{}', certificate-authority-data: {authority}}}\n\
             users:\n- name: service\n  user: {{tokenFile: api-server-token}}\n",
            self.addr.port()
        );
        let path = dir.join("api-server.kubeconfig");
        fs::write(&path, text)?;
        Ok(path)
    }

    /// From now on every request must impersonate exactly this.
    pub fn expect(&self, user: &str, groups: &[&str]) {
        *lock(&self.state.expected) = Some(Expected::new(user, groups));
    }

    /// From now on this is the credential that counts.
    pub fn replace_token(&self, token: &str) {
        *lock(&self.state.token) = token.into();
    }

    /// What was wrong with requests so far. Empty is what every test wants in the end.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        lock(&self.state.violations).clone()
    }

    /// All requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state.seen).clone()
    }

    /// Leaves requests for `path` without an answer from now on.
    pub fn stall(&self, path: &str) {
        lock(&self.state.stalled).push(path.to_owned());
    }

    /// Answers requests for `path` with `response` from now on.
    pub fn answer(&self, path: &str, response: Response<Bytes>) {
        lock(&self.state.answers).push((path.into(), response));
    }

    /// From now on this is the token of `user`, for `audience`, when a TokenReview asks about it.
    pub fn vouch(&self, token: &str, audience: &str, user: &str) {
        let vouched = Vouched { token: token.into(), audience: audience.into(), user: user.into() };
        lock(&self.state.vouched).push(vouched);
    }

    /// Writes a line to the log of pod `web`.
    pub fn log(&self, line: &str) {
        self.state.logs.append(line);
    }

    /// The object as it is stored, if it is.
    #[must_use]
    pub fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.state.store.object(resource, namespace, name)
    }

    /// Puts an object there, as if somebody else had.
    pub fn put(&self, resource: &str, namespace: &str, name: &str, object: Value) {
        self.state.store.put(resource, namespace, name, object);
    }

    /// The directory in which commands of `exec` run.
    #[must_use]
    pub fn pod_dir(&self) -> &Path {
        self.state.root.path()
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, state) = (tls.clone(), state.clone());
        connections.spawn(async move {
            let _ = tcp.set_nodelay(true);
            let Ok(stream) = tls.accept(tcp).await else { return };
            let connection = state.connections.fetch_add(1, Ordering::Relaxed);
            let service = service_fn(move |request| {
                let state = state.clone();
                async move { Ok::<_, std::convert::Infallible>(serve(&state, connection, request).await) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(state: &Arc<State>, connection: u64, request: Request<Incoming>) -> Response<Body> {
    if request.uri().path() == reviews::PATH && request.method() == Method::POST {
        return reviews::serve(state, request).await;
    }
    let user = match suspicion::check(state, connection, &request) {
        Ok(user) => user,
        Err((code, complaint)) => return failure(code, &complaint),
    };
    let stalled = lock(&state.stalled).iter().any(|path| path == request.uri().path());
    if stalled {
        std::future::pending::<()>().await;
    }
    let canned = lock(&state.answers).iter().rev().find(|(path, _)| path == request.uri().path()).cloned();
    if let Some((_, response)) = canned {
        return response.map(|body| Full::new(body).boxed_unsync());
    }
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let segments: Vec<&str> = path.split('/').collect();
    match segments.as_slice() {
        ["api", "v1", "namespaces", _, "pods", _, "log"] => logs::serve(&state.logs, &request),
        ["api", "v1", "namespaces", _, "pods", _, "exec" | "attach" | "portforward"] => {
            session::serve(state, request).unwrap_or_else(|complaint| failure(StatusCode::BAD_REQUEST, complaint))
        }
        ["apis", group @ ("authentication.k8s.io" | "authorization.k8s.io"), version, kind]
            if request.method() == Method::POST =>
        {
            json_answer(StatusCode::CREATED, &discovery::review(group, version, kind, &user))
        }
        ["api", "v1", "namespaces", namespace, resource @ ("pods" | "configmaps"), rest @ ..] if rest.len() < 2 => {
            store::serve(&state.store, resource, namespace, rest.first().copied(), request).await
        }
        ["api", "v1", resource @ ("pods" | "configmaps" | "namespaces"), rest @ ..] if rest.len() < 2 => {
            store::serve(&state.store, resource, "", rest.first().copied(), request).await
        }
        _ => match discovery::document(&path) {
            Some(document) => json_answer(StatusCode::OK, &document),
            None => failure(StatusCode::NOT_FOUND, "the server could not find the requested resource"),
        },
    }
}

fn json_answer(code: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn failure(code: StatusCode, message: &str) -> Response<Body> {
    let reason = match code {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::UNAUTHORIZED => "Unauthorized",
        _ => "BadRequest",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16()});
    json_answer(code, &status)
}

/// Whether a query has `name` with a value that means yes.
fn asks(request: &Request<Incoming>, name: &str) -> bool {
    values(request, name).iter().any(|value| matches!(value.as_str(), "true" | "1"))
}

/// All values of one query parameter, decoded.
fn values(request: &Request<Incoming>, name: &str) -> Vec<String> {
    let pairs = request.uri().query().unwrap_or_default().split('&');
    let of_name = pairs.filter_map(|pair| pair.split_once('=')).filter(|(key, _)| *key == name);
    of_name
        .map(|(_, value)| {
            let spaced = value.replace('+', " ");
            percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        })
        .collect()
}
