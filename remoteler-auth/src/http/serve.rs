//! Serves the API on one authenticated stream: the stream's caller is put into each request, and nothing in a request can change it.
//! Every connection has limits on headers, streams and time.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{HeaderValue, Request, Response, Version, header};
use http_body_util::Limited;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use remoteler_core::{ApiError, ApiErrorKind, Heartbeat, wire};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    body::{Api, Failure},
    routes::{self, policy::Closing},
    unix,
};
use crate::{AuthService, Caller};

/// A connection ended otherwise than it should.
#[derive(Debug, thiserror::Error)]
#[error("the connection to the auth service's API failed")]
pub struct ServeError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// The API over HTTP/1.1 and HTTP/2. Clones share everything.
#[derive(Clone, Debug)]
pub struct HttpApi {
    service: AuthService,
    router: Router,
    /// After which a connection of a host with no request is closed.
    idle_of_hosts: Duration,
}

/// A connection with no request for so long is closed.
const IDLE: Duration = Duration::from_secs(90);
/// The same of a host's inside its link, which finds out by itself that its path is gone: its words may come half an hour apart, and each needs no
/// connection of its own.
const IDLE_IN_LINKS: Duration = Heartbeat::LONGEST.period().saturating_add(IDLE);
/// From the head of a request to its answer.
const REQUEST: Duration = Duration::from_secs(60);
const MAX_HEADERS: usize = 100;
const MAX_HEADER_OCTETS: u32 = 64 * 1024;
const MAX_STREAMS: u32 = 100;
/// The same for who showed no certificate, so that strangers cannot fill the memory: streams at once, and octets of one body.
const MAX_STREAMS_OF_NOBODY: u32 = 8;
const MAX_BODY_OF_NOBODY: usize = 64 * 1024;

impl HttpApi {
    /// Over a service.
    #[must_use]
    pub fn new(service: AuthService) -> Self {
        Self { service, router: routes::router(), idle_of_hosts: IDLE }
    }

    /// The same for connections inside links of hosts.
    #[must_use]
    pub fn in_links(&self) -> Self {
        Self { idle_of_hosts: IDLE_IN_LINKS, ..self.clone() }
    }

    /// Serves `stream` for `caller` until the peer ends it. On `shutdown` the requests under way are answered and no more are
    /// taken. The same happens when a request comes after the caller's certificate has lost its worth: that request is refused, and the
    /// connection ends.
    ///
    /// The stream is ready to be read: TLS is done, and `caller` is what it proved ([`Caller::from_tls`]).
    ///
    /// # Errors
    /// [`ServeError`] when the peer breaks the protocol or the connection.
    pub async fn serve_connection<S>(
        &self,
        stream: S,
        caller: Caller,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (streams, octets, idle) = match caller {
            Caller::Anonymous { .. } => (MAX_STREAMS_OF_NOBODY, MAX_BODY_OF_NOBODY, IDLE),
            Caller::User { .. } | Caller::LocalAdmin => (MAX_STREAMS, usize::MAX, IDLE),
            Caller::Host { .. } => (MAX_STREAMS, usize::MAX, self.idle_of_hosts),
        };
        let api = Api(self.service.as_caller(caller.clone()));
        let (router, inner, caller) = (self.router.clone(), self.service.inner(), Arc::new(caller));
        let fallen = CancellationToken::new();
        let falls = fallen.clone();
        let closing = Closing(shutdown.clone());
        let respond = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(api.clone());
            request.extensions_mut().insert(closing.clone());
            let (router, inner, caller) = (router.clone(), Arc::clone(&inner), Arc::clone(&caller));
            let falls = falls.clone();
            async move {
                if let Err(cause) = inner.still_stands(&caller).await {
                    falls.cancel();
                    return Ok(last_answer(cause, request.version()));
                }
                if let Err(cause) = inner.lets_in(&caller, request.uri().path()).await {
                    return Ok(axum::response::IntoResponse::into_response(Failure(cause)));
                }
                answer(router, request.map(|body| Body::new(Limited::new(body, octets)))).await
            }
        });
        let server = builder(streams, idle);
        let connection = server.serve_connection(TokioIo::new(stream), respond);
        tokio::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(ServeError),
            () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
            () = fallen.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await.map_err(ServeError)
    }

    /// Serves the local administrator on a Unix socket until `shutdown`, then waits for the requests under way. Who is neither
    /// root nor the user of this process is refused and audited, whatever the socket's mode.
    pub async fn serve_unix(&self, listener: UnixListener, shutdown: CancellationToken) {
        unix::serve(self, &self.service, listener, shutdown).await;
    }
}

/// After which nothing more is taken on the connection; in HTTP/2 another frame says so (RFC 9113 section 8.2.2).
fn last_answer(cause: ApiError, version: Version) -> Response<Body> {
    let mut response = axum::response::IntoResponse::into_response(Failure(cause));
    if version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer(router: Router, request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
    let waits = if request.uri().path() == wire::POLICY { wire::LONGEST_WAIT } else { Duration::ZERO };
    match tokio::time::timeout(REQUEST + waits, router.oneshot(request)).await {
        Ok(answered) => answered,
        Err(_) => {
            let cause = ApiError::new(ApiErrorKind::Unavailable, "the call took too long; try again");
            Ok(axum::response::IntoResponse::into_response(Failure(cause)))
        }
    }
}

fn builder(streams: u32, idle: Duration) -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_headers(MAX_HEADERS);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(IDLE / 3)
        .keep_alive_timeout(IDLE / 3)
        .max_concurrent_streams(streams)
        .max_header_list_size(MAX_HEADER_OCTETS);
    server
}
