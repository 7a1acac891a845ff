//! One TLS connection of a user: the handshake with its deadline, the tower stack that every request passes, and what an upgrade
//! leaves behind. Its future owns all of it; dropping the future ends the connection and everything upstream.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use remoteler_core::VerifyError;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower::{ServiceBuilder, ServiceExt};

use crate::{
    act_as::ActAs,
    audit::{audit, audit_refusals},
    authenticate::{Peer, authenticate, record_attempt},
    authorise::authorise,
    body::without_trailers,
    limit::{MAX_HEADER_OCTETS, MAX_HEADERS, limit},
    relay::{RelaySlot, cut_at, lifetime},
    route::route,
    service::Shared,
    status::AnswerForm,
};

/// The TLS handshake (I30).
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// For a connection whose certificate was refused: time to send a request and be told why.
const REFUSED_DEADLINE: Duration = Duration::from_secs(10);
/// How long an answer may still take to reach the client when its certificate has ended.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// A kept HTTP/1.1 connection without a request.
const IDLE: Duration = Duration::from_secs(120);
/// HTTP/2: how often a silent client is asked whether it is there, and how long it may take to say so.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// Why a connection ended other than well. Whoever should know has been told; this is for the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// No TLS within ten seconds.
    #[error("the TLS handshake took longer than {} s", HANDSHAKE_DEADLINE.as_secs())]
    HandshakeTimeout,
    /// No TLS.
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// The certificate is not one of a user; the client was told with status 401.
    #[error("the certificate was refused")]
    Certificate(#[from] VerifyError),
    /// The connection broke, or what came was no HTTP.
    #[error("the connection broke")]
    Http(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Serves one connection until it ends.
pub(crate) async fn serve<S>(shared: Arc<Shared>, stream: S, remote: Option<String>) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let accepted = timeout(HANDSHAKE_DEADLINE, TlsAcceptor::from(shared.tls.clone()).accept(stream)).await;
    let tls = match accepted {
        Err(_) => return Err(ServeError::HandshakeTimeout),
        Ok(Err(cause)) => {
            if is_about_certificate(&cause) {
                record_attempt(shared.audit.as_ref(), String::new(), cause.to_string(), remote).await;
            }
            return Err(ServeError::Handshake(cause));
        }
        Ok(Ok(tls)) => tls,
    };
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
    let peer = Arc::new(Peer::new(chain, remote.clone(), shared.live.policy().clone(), shared.clock.clone()));
    match peer.user() {
        Ok(user) => {
            tracing::debug!(user = %user.identity().user, remote, "connection of a user");
            let now = shared.clock.now();
            let ends = (lifetime(now, user.expires()), cut_at(now, user.login_expires()));
            serve_http(&shared, tls, peer, remote, ends).await
        }
        Err(cause) => {
            // I12: recorded before anything is read; then every request is answered with the reason, by the same stack.
            peer.record_refusal(shared.audit.as_ref(), &cause).await;
            let deadline = Instant::now() + REFUSED_DEADLINE;
            let _ = timeout_at(deadline, serve_http(&shared, tls, peer, remote, (deadline, deadline))).await;
            Err(cause.into())
        }
    }
}

/// Serves requests until the first of `ends`, and what runs then until the second.
async fn serve_http<S>(
    shared: &Arc<Shared>,
    tls: TlsStream<S>,
    peer: Arc<Peer>,
    remote: Option<String>,
    (last_request, cut): (Instant, Instant),
) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let server_name = tls.get_ref().1.server_name().map(Arc::from);
    let relay = RelaySlot::default();
    let stack = ServiceBuilder::new()
        .layer(authenticate(peer, shared.audit.clone()))
        // Above all that decides, so that each refusal is recorded with the user's name.
        .layer(audit_refusals(shared.audit.clone(), remote.clone()))
        .layer(limit())
        .layer(route(shared.sites.clone(), server_name))
        .layer(authorise(shared.live.clone()))
        // Last before the effect: a request whose event is not kept is not sent.
        .layer(audit(shared.audit.clone(), remote))
        .service(ActAs::new(relay.clone(), shared.clock.clone()));

    let service = service_fn(move |request: Request<Incoming>| {
        let form = AnswerForm::wanted_by(request.headers());
        let answer = stack.clone().oneshot(request.map(without_trailers));
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|refusal| refusal.into_response(form))) }
    });
    let http = http_server();
    let connection = http.serve_connection_with_upgrades(TokioIo::new(tls), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = shared.drain.cancelled() => None,
        // The client is told to come back with another certificate; what runs is cut by its own deadline.
        () = sleep_until(last_request) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            // A client that does not read its answer would hold the connection past the end of its certificate.
            timeout_at(cut + LAST_WORDS, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Some(work) = relay.take() {
        work.await;
    }
    ended.map_err(ServeError::Http)
}

/// I62, beside what [`limit`] looks at.
fn http_server() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(MAX_HEADER_OCTETS)
        .max_headers(MAX_HEADERS);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .max_concurrent_streams(100)
        .max_header_list_size(u32::try_from(MAX_HEADER_OCTETS).unwrap_or(u32::MAX))
        .max_local_error_reset_streams(100)
        .max_pending_accept_reset_streams(20)
        .max_send_buf_size(64 * 1024)
        .initial_stream_window_size(256 * 1024);
    http
}

/// Whether a failed handshake is an attempt with a wrong certificate, as against noise.
fn is_about_certificate(cause: &io::Error) -> bool {
    let cause = cause.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented))
}
