//! The front door of web apps: browsers come in under an app's own name, and only by that door. Owns their connections, and what a connection may do before somebody
//! has a session there. Who has one the auth service says; what may be done at an app its service decides.

mod answer;
mod away;
mod guesses;
mod link;
mod pass_on;
mod request;
mod session;
mod sessions;
mod used;
mod way_in;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use remoteler_core::{AppAddress, AppName, AuditSink, AuthApi, ClusterName, Entropy};
use remoteler_tunnel::{Admission, Admissions, ClientTls, Router};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{guesses::Guesses, sessions::Sessions};
use self::{link::Links, request::Visit};

/// After so long a connection on which nobody has shown a session takes no more requests. The listener cuts it 10 s after it was accepted (I30).
const LAST_REQUEST: Duration = Duration::from_secs(6);
/// A kept HTTP/1.1 connection without a request.
const IDLE: Duration = Duration::from_secs(120);
/// HTTP/2: how often a silent browser is asked whether it is there, and how long it may take to say so.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Octets of all header names and values.
const MAX_HEADER_OCTETS: usize = 64 * 1024;

/// An app, as browsers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrontApp {
    pub(crate) name: AppName,
    /// Where browsers reach it.
    pub(crate) address: AppAddress,
}

/// What all connections of browsers share.
pub(crate) struct AppDoor {
    pub(crate) cluster: ClusterName,
    /// `https://host[:port]` of the proxy's own pages.
    pub(crate) proxy_origin: String,
    pub(crate) router: Arc<Router>,
    /// How the proxy is a client of the cluster; here without its own identity.
    pub(crate) tls: ClientTls,
    pub(crate) sessions: Sessions,
    /// One-time codes that were none.
    pub(crate) codes: Guesses,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// Bounds the connections of those who have a session.
    pub(crate) places: Arc<Admissions>,
    pub(crate) api: Arc<dyn AuthApi>,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) stop: CancellationToken,
}

impl AppDoor {
    /// Serves one connection, after its TLS handshake, in which the browser asked for `app`.
    pub(crate) async fn serve<S>(self: &Arc<Self>, stream: S, app: FrontApp, source: SocketAddr, admission: Admission)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let somebody = CancellationToken::new();
        let visit = Arc::new(Visit {
            door: self.clone(),
            app,
            source,
            links: Links::default(),
            admission,
            place: std::sync::Mutex::default(),
            somebody: somebody.clone(),
            relay: std::sync::Mutex::default(),
        });
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let visit = visit.clone();
            async move { Ok::<_, Infallible>(visit.answer(request).await) }
        });
        let server = http_server();
        let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let too_late = async {
            if somebody.run_until_cancelled(tokio::time::sleep(LAST_REQUEST)).await.is_none() {
                std::future::pending().await
            }
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = self.stop.cancelled() => None,
            () = too_late => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(cause) = ended {
            tracing::debug!(%source, %cause, "a browser's connection to an app ended");
        }
        if let Some(work) = visit.take_relay() {
            work.await;
        }
    }
}

fn http_server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(MAX_HEADER_OCTETS).max_headers(100);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .max_concurrent_streams(100)
        .max_header_list_size(u32::try_from(MAX_HEADER_OCTETS).unwrap_or(u32::MAX))
        .max_local_error_reset_streams(100)
        .max_pending_accept_reset_streams(20)
        .max_send_buf_size(64 * 1024);
    server
}
