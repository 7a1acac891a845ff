//! What one request of a browser is: the way in, the code that comes back from it, or one of a session, which goes to the app's service. In this order, and
//! nothing goes there without a session that was looked at within the last second, and stays there when that ends.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http_body_util::{BodyExt, Empty};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    header::{self, HeaderValue},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use remoteler_app::{Silence, check_origin, keep_body, strip_request, strip_response};
use remoteler_core::{
    ApiErrorKind, AppAddress, AppCodeRequest, AuditKind, Secret, UserName, app_state_hash, fill_random, wire,
};
use remoteler_tunnel::{Admission, relay};
use tokio_util::sync::CancellationToken;

use super::{
    AppDoor, FrontApp,
    answer::{Body, BodyError, SESSION_COOKIE, STATE_COOKIE, cookie, is_secret, redirect, say, set_cookie},
    link::{Link, Links},
    session::{NoSession, Session},
    used::Used,
};

/// How long a browser may take from wanting to come in to coming back with a code.
const STATE_LIFE: u64 = 600;
/// Path and query that are remembered while somebody logs in.
const MAX_PATH: usize = 2 * 1024;
/// Ours at every app.
const OWN_PATHS: &str = "/.remoteler/";

/// One connection of a browser to one app.
pub(super) struct Visit {
    pub(super) door: Arc<AppDoor>,
    pub(super) app: FrontApp,
    pub(super) source: SocketAddr,
    pub(super) links: Links,
    pub(super) admission: Admission,
    /// Among those who have a session.
    pub(super) place: Mutex<Option<Admission>>,
    /// Cancelled when a session was shown.
    pub(super) somebody: CancellationToken,
    /// What follows an upgrade: HTTP/1.1 does that once for a connection.
    pub(super) relay: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Visit {
    pub(super) fn take_relay(&self) -> Option<BoxFuture<'static, ()>> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        // A browser uses one connection for several names if one certificate covers them; here it learns to make another (RFC 9110 section 15.5.20).
        if !is_addressed_to(&request, &self.app.address) {
            return say(StatusCode::MISDIRECTED_REQUEST, "this connection is for another host");
        }
        let path = request.uri().path();
        if path == wire::APP_SESSION_PATH {
            return self.come_back(&request).await;
        }
        if path.starts_with(OWN_PATHS) {
            return say(StatusCode::NOT_FOUND, "there is nothing here");
        }
        let session = match cookie(request.headers(), SESSION_COOKIE) {
            None => return self.let_in(&request),
            Some(secret) => match self.door.sessions.find(&self.app.name, &secret, self.source.ip()).await {
                Ok(session) => session,
                Err(NoSession::Ended) => return self.let_in(&request),
                Err(cause) => return self.turn_away(None, &cause).await,
            },
        };
        if !self.has_place() {
            return say(StatusCode::SERVICE_UNAVAILABLE, "too many connections; try again in a minute");
        }
        let own = self.app.address.to_string();
        if let Err(cause) = check_origin(request.method(), request.headers(), &own, Silence::Refused) {
            self.on_record(session.user(), &cause.to_string()).await;
            return say(StatusCode::FORBIDDEN, &cause.to_string());
        }
        // A request that takes long, up or down, ends with its session.
        let mut ended = {
            let (door, session) = (self.door.clone(), session.clone());
            async move { door.sessions.ended(&session).await }.boxed()
        };
        let user = session.user();
        let passed = tokio::select! {
            biased;
            cause = &mut ended => return self.turn_away(user, &cause).await,
            passed = self.pass_on(&session, request) => passed,
        };
        match passed {
            Ok(passed) => self.answered(session, passed, ended),
            Err(cause) => {
                tracing::info!(app = %self.app.name, cause = crate::one_line(&cause), "an app's service did not answer");
                say(StatusCode::BAD_GATEWAY, "the app cannot be reached now; try again in a minute")
            }
        }
    }

    /// Why nothing is passed on, to a browser that showed a session.
    async fn turn_away(&self, user: Option<UserName>, cause: &NoSession) -> Response<Body> {
        match cause {
            NoSession::Ended => say(StatusCode::UNAUTHORIZED, "the session with this app has ended; open it again"),
            NoSession::Denied(said) => {
                self.on_record(user, said).await;
                say(StatusCode::FORBIDDEN, said)
            }
            NoSession::TooMany => say(StatusCode::TOO_MANY_REQUESTS, "too many wrong cookies; try again in a minute"),
            NoSession::Unknown(cause) => {
                tracing::debug!(app = %self.app.name, cause, "a browser's request was not passed on");
                say(StatusCode::SERVICE_UNAVAILABLE, "the cluster cannot be asked now; try again in a minute")
            }
        }
    }

    /// That somebody was refused here. The answer is the same whether it can be written; how much of it is kept, the log decides.
    async fn on_record(&self, user: Option<UserName>, because: &str) {
        let error = format!("application {}: {because}", self.app.name);
        tracing::debug!(source = %self.source, error, "a browser was refused");
        let user = user.map(|user| user.to_string()).unwrap_or_default();
        let remote = Some(self.source.to_string());
        let event = AuditKind::AuthAttempt { user, service: "proxy".into(), login: None, error, remote };
        if let Err(cause) = self.door.audit.record(event).await {
            tracing::debug!(%cause, "a refused browser is not in the audit log");
        }
    }

    /// Whether there is room for this connection among those with a session; from then on it is no stranger's.
    fn has_place(&self) -> bool {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            *place = self.door.places.admit(self.source.ip());
            if place.is_some() {
                self.admission.authenticated();
                self.somebody.cancel();
            }
        }
        place.is_some()
    }

    /// Sends who has no session to the proxy, and remembers that it was this browser.
    fn let_in(&self, request: &Request<Incoming>) -> Response<Body> {
        let headers = request.headers();
        let goes_there = headers.get("sec-fetch-mode").is_none_or(|mode| mode == "navigate")
            && headers.get("sec-fetch-dest").is_none_or(|dest| dest == "document")
            && !headers.contains_key(header::UPGRADE)
            && matches!(*request.method(), Method::GET | Method::HEAD);
        if !goes_there {
            return say(
                StatusCode::UNAUTHORIZED,
                "there is no session with this app; open it in a browser window to log in",
            );
        }
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let path = if is_inside(path) { path } else { "/" };
        // The same one for all windows of a browser, so that the second does not undo the first.
        let state = cookie(headers, STATE_COOKIE).unwrap_or_else(|| {
            let random: [u8; 32] = fill_random(&*self.door.entropy);
            Secret::new(random.iter().map(|octet| format!("{octet:02x}")).collect::<String>())
        });
        let (origin, launch) = (&self.door.proxy_origin, wire::path(wire::WEB_LAUNCH, self.app.name.as_str()));
        let (hash, path) = (app_state_hash(&state), wire::segment(path));
        let mut answer = redirect(StatusCode::FOUND, &format!("{origin}{launch}?state={hash}&path={path}"));
        set_cookie(answer.headers_mut(), STATE_COOKIE, state.reveal(), STATE_LIFE);
        answer
    }

    /// The browser comes back with the one-time code.
    async fn come_back(&self, request: &Request<Incoming>) -> Response<Body> {
        const AGAIN: &str = "this way in has ended, or was another browser's; open the app again";
        if *request.method() != Method::GET {
            return say(StatusCode::METHOD_NOT_ALLOWED, "a browser comes here by GET");
        }
        let code = request.uri().query().and_then(|query| query.strip_prefix("code=")).filter(|code| is_secret(code));
        let Some(code) = code else { return say(StatusCode::BAD_REQUEST, AGAIN) };
        if !self.door.sessions.may_guess(self.source.ip()) {
            return say(StatusCode::TOO_MANY_REQUESTS, "too many wrong codes; try again in a minute");
        }
        // Also without a state the code is taken, and so burnt: whose page led here with it must not have it afterwards.
        let state = cookie(request.headers(), STATE_COOKIE);
        let request = AppCodeRequest { code: Secret::new(code), state, app: self.app.name.clone() };
        match self.door.api.redeem_app_code(request).await {
            Ok(opened) => {
                // Said by the auth service; looked at here all the same (I40).
                let path = if is_inside(&opened.path) { opened.path.as_str() } else { "/" };
                let mut answer = redirect(StatusCode::SEE_OTHER, path);
                let seconds = opened.expires.since(self.door.tls.clock.now()).as_secs();
                set_cookie(answer.headers_mut(), SESSION_COOKIE, opened.secret.reveal(), seconds);
                set_cookie(answer.headers_mut(), STATE_COOKIE, "", 0);
                answer
            }
            Err(cause) if matches!(cause.kind, ApiErrorKind::Unavailable | ApiErrorKind::Internal) => {
                tracing::debug!(%cause, "a code was not redeemed");
                say(StatusCode::SERVICE_UNAVAILABLE, "the cluster cannot be asked now; try again in a minute")
            }
            Err(cause) => {
                self.door.sessions.guessed_wrong(self.source.ip());
                self.on_record(None, &format!("a code was refused: {cause}")).await;
                say(StatusCode::FORBIDDEN, AGAIN)
            }
        }
    }

    /// One request of a session, to the app's service.
    async fn pass_on(&self, session: &Arc<Session>, mut request: Request<Incoming>) -> anyhow::Result<Passed> {
        let upgrade = wants_web_socket(&request).then(|| hyper::upgrade::on(&mut request));
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = target.map(Uri::from).unwrap_or_default();
        *request.version_mut() = Version::HTTP_11;
        // The cookies of ours among them: a service never learns what a browser shows here (I53).
        strip_request(request.headers_mut());
        request.headers_mut().insert(header::HOST, HeaderValue::try_from(self.app.address.to_string())?);
        request.extensions_mut().clear();
        let mut request = match &upgrade {
            Some(_) => {
                apply_upgrade(request.headers_mut());
                request.map(|_| Empty::new().map_err(|never| match never {}).boxed_unsync())
            }
            None => {
                keep_body(&mut request);
                request.map(|body| body.map_err(BodyError::from).boxed_unsync())
            }
        };
        let now = self.door.tls.clock.now();
        loop {
            let kept = if upgrade.is_none() { self.links.take(session, now).await } else { None };
            let (link, reused) = match kept {
                Some(link) => (link, true),
                None => (self.door.dial(&self.app.name, session, self.source).await?, false),
            };
            let (sent, link) = link.send(request).await;
            match sent {
                Ok(response) => return Ok(Passed { link, response, upgrade }),
                // One that was closed meanwhile gives back a request it did not begin to send.
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) if reused => request = unsent,
                    _ => return Err(refused.into_error().into()),
                },
            }
        }
    }

    fn answered(
        self: &Arc<Self>,
        session: Arc<Session>,
        Passed { link, mut response, upgrade }: Passed,
        ended: Ended,
    ) -> Response<Body> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(browser) = upgrade else {
                return say(StatusCode::BAD_GATEWAY, "the app switched to another protocol than was asked for");
            };
            let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *answer.headers_mut() = std::mem::take(response.headers_mut());
            strip_response(answer.headers_mut(), self.app.address.host());
            apply_upgrade(answer.headers_mut());
            let service = hyper::upgrade::on(response);
            *self.relay.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(join(session, ended, link, browser, service).boxed());
            return answer;
        }
        let (mut parts, inner) = response.into_parts();
        strip_response(&mut parts.headers, self.app.address.host());
        parts.extensions.clear();
        parts.version = Version::HTTP_11;
        let mut body = Streamed { inner, visit: self.clone(), link, ended: Some(ended) };
        if body.inner.is_end_stream() {
            body.give_back();
        }
        Response::from_parts(parts, body.boxed_unsync())
    }
}

/// An app's answer, as its service passed it on.
struct Passed {
    link: Option<Link>,
    response: Response<Incoming>,
    /// The browser's end of what was to be upgraded.
    upgrade: Option<OnUpgrade>,
}

/// Ready when the session has ended.
type Ended = BoxFuture<'static, NoSession>;

/// Copies both ways until one of them ends, or the session does.
async fn join(session: Arc<Session>, ended: Ended, link: Option<Link>, browser: OnUpgrade, service: OnUpgrade) {
    let _link = link;
    let joined = async {
        let (browser, service) = futures::try_join!(browser, service)?;
        let (mut browser, mut service) = (Used { inner: TokioIo::new(browser), session }, TokioIo::new(service));
        let relayed = relay(&mut browser, &mut service).await;
        tracing::debug!(?relayed, "an upgraded connection ended");
        Ok::<_, hyper::Error>(())
    };
    tokio::select! {
        joined = joined => {
            if let Err(cause) = joined {
                tracing::debug!(%cause, "a browser's connection ended before its upgrade");
            }
        }
        cause = ended => tracing::debug!(%cause, "an upgraded connection was cut"),
    }
}

/// An answer on its way to the browser. One that goes on for long ends with the session.
struct Streamed {
    inner: Incoming,
    visit: Arc<Visit>,
    link: Option<Link>,
    /// None after the end.
    ended: Option<Ended>,
}

impl Streamed {
    fn give_back(&mut self) {
        if let Some(link) = self.link.take() {
            self.visit.links.give(link);
        }
    }
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(ended) = self.ended.as_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(cause) = ended.as_mut().poll(context) {
            (self.link, self.ended) = (None, None);
            return Poll::Ready(Some(Err(cause.into())));
        }
        loop {
            return match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => continue,
                Poll::Ready(Some(Ok(frame))) => {
                    if self.inner.is_end_stream() {
                        self.give_back();
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(Some(Err(cause))) => {
                    self.link = None;
                    Poll::Ready(Some(Err(cause.into())))
                }
                Poll::Ready(None) => {
                    self.give_back();
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Whether the request's one name is the app's. The port is what stands in front of the proxy, and of no meaning.
pub(super) fn is_addressed_to<B>(request: &Request<B>, address: &AppAddress) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let in_header = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, _) => None,
        (Some(_), Some(_)) => return false,
    };
    let in_line = request.uri().authority().map(|authority| authority.as_str());
    let named = [in_header, in_line];
    let is_it = |text: &str| {
        let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
        host.eq_ignore_ascii_case(address.host())
    };
    named.iter().flatten().count() > 0 && named.iter().flatten().all(|text| is_it(text))
}

/// Whether a path stays at the origin that it is looked up at (I40): one `/` and no second one, no backslash, which browsers read as one, and nothing that
/// they drop.
fn is_inside(path: &str) -> bool {
    path.len() <= MAX_PATH
        && path.starts_with('/')
        && !path.starts_with("//")
        && !path.starts_with(OWN_PATHS)
        && path.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'\\')
}

fn wants_web_socket<B>(request: &Request<B>) -> bool {
    let tokens = request.headers().get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = tokens.flat_map(|value| value.split(',')).map(str::trim);
    request.version() == Version::HTTP_11
        && tokens.any(|token| token.eq_ignore_ascii_case("upgrade"))
        && request
            .headers()
            .get(header::UPGRADE)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn apply_upgrade(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

#[cfg(test)]
mod tests {
    use super::*;

    // I40
    #[test]
    fn a_path_to_go_on_to_stays_at_the_app() {
        for good in ["/", "/a/b?c=d&e=https://x", "/%2f/"] {
            assert!(is_inside(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example/",
            "/a b",
            "/a\nb",
            "/.remoteler/session?code=x",
        ] {
            assert!(!is_inside(bad), "{bad:?}");
        }
        assert!(!is_inside(&format!("/{}", "a".repeat(MAX_PATH))));
    }

    // I52
    #[test]
    fn a_request_for_another_name_is_none_of_this_connection() {
        let address = AppAddress::parse("app.example.com:3080").unwrap();
        let ask = |uri: &str, hosts: &[&str]| {
            let mut request = Request::get(uri);
            for host in hosts {
                request = request.header("host", *host);
            }
            is_addressed_to(&request.body(()).unwrap(), &address)
        };
        assert!(ask("/", &["app.example.com:3080"]) && ask("/", &["App.Example.com"]));
        assert!(ask("https://app.example.com:3080/", &[]));
        for (uri, hosts) in [
            ("/", &[][..]),
            ("/", &["proxy.example.com:3080"]),
            ("/", &["app.example.com", "app.example.com"]),
            ("https://proxy.example.com/", &["app.example.com"]),
            ("/", &["app.example.com.evil.example"]),
        ] {
            assert!(!ask(uri, hosts), "{uri} {hosts:?}");
        }
    }
}
