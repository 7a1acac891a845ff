//! One TLS connection of a user: the handshake with its deadline, what every request goes through, and what an upgrade leaves behind. Its future owns all of it;
//! dropping the future ends the connection and everything upstream.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use remoteler_core::{
    AppTokenRequest, AuditKind, ConnectionFields, Subject, Terms, VerifiedUser, VerifyError, authorize_app,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Shared, Site,
    body::{Body, without_trailers},
    forward::{Forward, UpgradeRequest},
    limit::{self, MAX_HEADER_OCTETS, MAX_HEADERS},
    peer::{Peer, record_attempt},
    refusal::Refusal,
    relay::{RelaySlot, cut_at, lifetime},
    upstream::Idle,
};
use crate::{
    headers::{Told, strip_request, tell},
    origin::{Silence, check_origin, is_origin_of, is_this_machine},
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
/// Octets of a path that an event keeps. Queries may hold secrets of the app, and are not kept.
const MAX_PATH: usize = 2 * 1024;

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
pub(super) async fn serve<S>(shared: Arc<Shared>, stream: S, client: Option<SocketAddr>) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let remote = client.map(|client| client.to_string());
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
    let peer = Peer::new(chain, remote, shared.live.policy().clone(), shared.clock.clone());
    let site = tls.get_ref().1.server_name().and_then(|name| shared.sites.get(&name.to_ascii_lowercase())).cloned();
    let verified = peer.user();
    let door = Arc::new(Door {
        shared,
        site,
        peer,
        client: client.map(|client| client.ip().to_string()),
        idle: Arc::default(),
        relay: RelaySlot::default(),
    });
    match verified {
        Ok(user) => {
            let now = door.shared.clock.now();
            let ends = (lifetime(now, user.expires()), cut_at(now, user.login_expires()));
            serve_http(&door, tls, ends).await
        }
        Err(cause) => {
            // I12: recorded before anything is read; then every request is answered with the reason.
            door.peer.record_refusal(door.shared.audit.as_ref(), &cause).await;
            let deadline = Instant::now() + REFUSED_DEADLINE;
            let _ = timeout_at(deadline, serve_http(&door, tls, (deadline, deadline))).await;
            Err(cause.into())
        }
    }
}

/// Serves requests until the first of the moments, and what runs then until the second.
async fn serve_http<S>(
    door: &Arc<Door>,
    tls: TlsStream<S>,
    (last_request, cut): (Instant, Instant),
) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let door = door.clone();
        async move { Ok::<_, Infallible>(door.answer(request.map(without_trailers)).await) }
    });
    let http = http_server();
    let connection = http.serve_connection_with_upgrades(TokioIo::new(tls), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = door.shared.drain.cancelled() => None,
        // The client is to come back with another certificate; what runs is cut by its own deadline.
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
    if let Some(work) = door.relay.take() {
        work.await;
    }
    ended.map_err(ServeError::Http)
}

/// One connection, as its requests see it.
struct Door {
    shared: Arc<Shared>,
    /// The app that the TLS server name stands for.
    site: Option<Arc<Site>>,
    peer: Peer,
    /// The address it comes from.
    client: Option<String>,
    idle: Arc<Idle>,
    relay: RelaySlot,
}

impl Door {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let user = match self.peer.user() {
            Ok(user) => user,
            Err(cause) => {
                self.peer.record_refusal(self.shared.audit.as_ref(), &cause).await;
                return Refusal::from(cause).into_response();
            }
        };
        let asked = format!("{} {}", request.method(), request.uri().path());
        match self.forward(&user, request).await {
            Ok(answer) => answer,
            Err(refusal) => {
                if refusal.is_decision() {
                    let asked: String = asked.chars().take(MAX_PATH).collect();
                    let (user, error) = (user.identity().user.to_string(), format!("{asked}: {refusal}"));
                    record_attempt(self.shared.audit.as_ref(), user, error, self.peer.remote.clone()).await;
                } else {
                    let app = self.site.as_ref().map(|site| site.record.name.to_string());
                    let cause = remoteler_core::with_causes(&refusal);
                    tracing::warn!(app, cause, "a request got no answer from its app");
                }
                refusal.into_response()
            }
        }
    }

    /// Decides, records, sends. In this order: nothing is sent that is not allowed, told of and recorded.
    async fn forward(&self, user: &VerifiedUser, mut request: Request<Body>) -> Result<Response<Body>, Refusal> {
        limit::check(&request)?;
        let site = self.site.as_ref().ok_or(Refusal::Unknown)?;
        let authority = limit::authority(&request).unwrap_or_default().to_ascii_lowercase();
        check_origin(request.method(), request.headers(), &authority, Silence::Taken)?;
        let policy = self.shared.live.policy().policy();
        let access = authorize_app(user, &policy, &site.record)?;
        let idle = access.options().client_idle_timeout.into_iter().chain(policy.settings.client_idle_timeout()).min();
        let subject = Subject::user(user).app(site.record.name.clone()).at(None, Some(site.record.host_id));
        let terms = Terms { idle, ends_with_certificate: true, ..Terms::default() };
        let live = Arc::new(self.shared.live.enter(subject, terms)?);
        // Only now: an end from here on finds it in the table.
        if let Some(session) = user.browser_session() {
            self.shared.sessions.check(session).await?;
        }
        let now = self.shared.clock.now();
        let (app, chain) = (&site.record.name, self.peer.chain());
        let kept = match chain.first() {
            Some(certificate) => self.shared.kept.of(app, certificate, user.expires(), now),
            None => return Err(Refusal::Unknown), // who showed none is no user
        };
        let assertion = kept.get(&self.shared.assertions, now, || AppTokenRequest::new(app.clone(), chain)).await?;
        let public_addr = assertion.address.to_string();
        if !may_be_addressed(&authority, &public_addr) {
            return Err(Refusal::Misdirected);
        }
        // Read before the stripping below takes `Connection` and `Upgrade` away.
        let upgrade = UpgradeRequest::take(&mut request)?;
        strip_request(request.headers_mut());
        speak_of_inside(&mut request, &authority, site);
        let client = self.client.as_deref();
        let told = Told { client, public_addr: &public_addr, assertion: &assertion.value };
        tell(request.headers_mut(), &told);

        let event = AuditKind::AppSessionRequest {
            user: user.identity().user.to_string(),
            sid: user.app_session().map(|session| session.to_string()),
            app_name: site.record.name.to_string(),
            method: request.method().to_string(),
            path: request.uri().path().chars().take(MAX_PATH).collect(),
            status_code: None,
            connection: ConnectionFields { remote: self.peer.remote.clone() },
            with_mfa: access.with_mfa().map(|session| session.to_string()),
        };
        self.shared.audit.record(event).await?;

        let signal = live.signal();
        let deadline = cut_at(now, user.login_expires());
        let forward = Forward {
            site,
            idle: &self.idle,
            relay: &self.relay,
            deadline,
            live,
            public_host: assertion.address.host(),
        };
        tokio::select! {
            sent = timeout_at(deadline, forward.send(request, upgrade)) => Ok(sent.map_err(|_| Refusal::TooLate)??),
            reason = signal.ended() => Err(reason.into()),
        }
    }
}

/// The app's own name, or this machine as `tsh proxy app` makes it: any other name was made to lead here by somebody else.
fn may_be_addressed(authority: &str, public_addr: &str) -> bool {
    is_origin_of(&format!("https://{authority}"), public_addr) || is_this_machine(authority)
}

/// An `Origin` that is the app's own is written as `Host` is: many apps compare the two.
fn speak_of_inside(request: &mut Request<Body>, authority: &str, site: &Site) {
    let own = request.headers().get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    if own.is_some_and(|origin| is_origin_of(origin, authority))
        && let Ok(inside) = site.uri.authority().to_str()
        && let Ok(value) = HeaderValue::try_from(format!("{}://{inside}", site.uri.scheme()))
    {
        request.headers_mut().insert(header::ORIGIN, value);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_addressed_by_its_own_name_or_as_this_machine() {
        for (authority, expected) in [
            ("app.example.com:3080", true),
            ("app.example.com", false),
            ("127.0.0.1:8080", true),
            ("localhost", true),
            ("[::1]:8080", true),
            ("evil.example:8080", false),
            ("localhost.evil.example:1", false),
            ("", false),
        ] {
            assert_eq!(may_be_addressed(authority, "app.example.com:3080"), expected, "{authority}");
        }
        assert!(may_be_addressed("app.example.com", "app.example.com:443"));
    }
}
