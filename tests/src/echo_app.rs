//! A small web app that says what it was sent, for tests of what stands before it: `/echo` answers with the request as it arrived, `/events` and `/ws` go on for
//! ever, `/never` is not answered, `/redirect` and `/cookies` say what an app may not, `/set-cookies` what it is asked to. Keeps what it saw.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::Runtime,
};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A running app. Dropping it ends its connections.
#[derive(Debug)]
pub struct EchoApp {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Value>>>,
    /// Until dropped.
    _runtime: Runtime,
}

impl EchoApp {
    /// Listens on loopback.
    ///
    /// # Panics
    /// When it cannot.
    #[must_use]
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port can be bound");
        let address = listener.local_addr().expect("a bound port has an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        runtime.spawn(async move {
            let mut connection = 0_u64;
            while let Ok((tcp, _)) = listener.accept().await {
                connection += 1;
                let seen = kept.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(request, (address, connection), seen.clone()));
                    let connection = http1::Builder::new().serve_connection(TokioIo::new(tcp), service).with_upgrades();
                    // Who hangs up in the middle of /events ends it so.
                    let _ = connection.await;
                });
            }
        });
        Self { address, seen, _runtime: runtime }
    }

    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request that arrived, as `/echo` shows it.
    #[must_use]
    pub fn seen(&self) -> Vec<Value> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn answer(
    mut request: Request<Incoming>,
    (own, connection): (SocketAddr, u64),
    seen: Arc<Mutex<Vec<Value>>>,
) -> Result<Response<Body>, Infallible> {
    let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let shown = json!({
        "connection": connection,
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "headers": fields(&parts.headers),
        "body": String::from_utf8_lossy(&body),
    });
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(shown.clone());
    let (mut said, mut content) = Response::new(full(shown.to_string())).into_parts();
    let headers = &mut said.headers;
    match (parts.uri.path(), upgrade) {
        ("/ws", Some(upgrade)) => {
            let key = parts.headers.get(header::SEC_WEBSOCKET_KEY).map(|key| key.as_bytes()).unwrap_or_default();
            said.status = StatusCode::SWITCHING_PROTOCOLS;
            for (name, value) in [
                ("connection", "Upgrade".to_owned()),
                ("upgrade", "websocket".to_owned()),
                ("sec-websocket-accept", accept(key)),
            ] {
                headers.insert(name, value.parse().expect("a header's value"));
            }
            content = full(String::new());
            tokio::spawn(async move {
                if let Ok(upgraded) = upgrade.await {
                    tick(TokioIo::new(upgraded)).await;
                }
            });
        }
        ("/events", _) => {
            headers.insert(header::CONTENT_TYPE, "text/event-stream".parse().expect("a header's value"));
            let ticks = futures::stream::unfold(0, |count| async move {
                tokio::time::sleep(TICK).await;
                let frame = Frame::data(Bytes::from(format!("data: {count}\n\n")));
                Some((Ok::<_, Infallible>(frame), count + 1))
            });
            content = StreamBody::new(ticks.boxed()).boxed_unsync();
        }
        ("/never", _) => std::future::pending().await,
        ("/redirect", _) => {
            said.status = StatusCode::FOUND;
            headers.insert(
                header::LOCATION,
                format!("http://{own}/echo?from=redirect").parse().expect("a header's value"),
            );
        }
        ("/cookies", _) => {
            for cookie in [
                "app=own; Path=/",
                "__Host-remoteler-app=stolen; Path=/; Secure",
                "wide=1; Domain=proxy.localhost; Path=/",
            ] {
                headers.append(header::SET_COOKIE, cookie.parse().expect("a header's value"));
            }
        }
        // What no good app answers: of another protocol, of one that nobody asked for, and more than anybody reads.
        ("/switches" | "/switches-elsewhere", _) => {
            said.status = StatusCode::SWITCHING_PROTOCOLS;
            let to = if parts.uri.path() == "/switches" { "websocket" } else { "elsewhere" };
            headers.insert(header::CONNECTION, "Upgrade".parse().expect("a header's value"));
            headers.insert(header::UPGRADE, to.parse().expect("a header's value"));
            content = full(String::new());
        }
        ("/refuses", _) => said.status = StatusCode::FORBIDDEN,
        ("/many-headers", _) => {
            for _ in 0..150 {
                headers.append("x-many", "1".parse().expect("a header's value"));
            }
        }
        ("/large-headers", _) => {
            headers.insert("x-large", "a".repeat(256 * 1024).parse().expect("a header's value"));
        }
        ("/set-cookies", _) => {
            for cookie in parts.headers.get_all("x-set-cookie") {
                headers.append(header::SET_COOKIE, cookie.clone());
            }
        }
        ("/page", _) => {
            headers.insert(header::CONTENT_TYPE, "text/html".parse().expect("a header's value"));
            content = full("<!doctype html><title>App</title><h1>The app</h1>".into());
        }
        (_, _) => {
            headers.insert(header::CONTENT_TYPE, "application/json".parse().expect("a header's value"));
        }
    }
    Ok(Response::from_parts(said, content))
}

const TICK: Duration = Duration::from_millis(200);

/// Says `tick` in a text frame, again and again, until the other side is gone.
async fn tick<S: AsyncReadExt + AsyncWriteExt + Unpin>(mut stream: S) {
    let mut octets = [0; 256];
    loop {
        tokio::select! {
            read = stream.read(&mut octets) => if matches!(read, Ok(0) | Err(_)) { return },
            () = tokio::time::sleep(TICK) => {
                if stream.write_all(b"\x81\x04tick").await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// RFC 6455 section 4.2.2.
fn accept(key: &[u8]) -> String {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest.finish())
}

fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).boxed_unsync()
}
