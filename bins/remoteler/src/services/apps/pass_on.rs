//! One request of a session on its way to the app's service, and the answer on its way back: nothing of it outlives the session.

use std::{
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll},
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http_body_util::{BodyExt, Empty};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Uri, Version,
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    header::{self, HeaderValue},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use remoteler_app::{keep_body, strip_request, strip_response};
use remoteler_tunnel::relay;

use super::{
    answer::{Body, BodyError, say},
    link::Link,
    request::Visit,
    session::{NoSession, Session},
    used::Used,
};

impl Visit {
    /// One request of a session, to the app's service.
    pub(super) async fn pass_on(
        &self,
        session: &Arc<Session>,
        mut request: Request<Incoming>,
    ) -> Result<Passed, Unpassed> {
        let upgrades = wants_web_socket(&request);
        // Where that ends and the new protocol begins would be guesswork.
        if upgrades && !request.body().is_end_stream() {
            return Err(Unpassed::Malformed("a request to upgrade the connection must not have a body"));
        }
        let upgrade = upgrades.then(|| hyper::upgrade::on(&mut request));
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = target.map(Uri::from).unwrap_or_default();
        *request.version_mut() = Version::HTTP_11;
        // The cookies of ours among them: a service never learns what a browser shows here (I53).
        strip_request(request.headers_mut());
        request.headers_mut().insert(
            header::HOST,
            HeaderValue::try_from(self.app.address.to_string()).context("an app's address is no header")?,
        );
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
                    _ => return Err(Unpassed::Failed(refused.into_error().into())),
                },
            }
        }
    }

    pub(super) fn answered(
        self: &Arc<Self>,
        session: Arc<Session>,
        Passed { link, mut response, upgrade }: Passed,
        ended: Ended,
    ) -> Response<Body> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(browser) = upgrade.filter(|_| is_web_socket(response.headers())) else {
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
pub(super) struct Passed {
    link: Option<Link>,
    response: Response<Incoming>,
    /// The browser's end of what was to be upgraded.
    upgrade: Option<OnUpgrade>,
}

/// Why a request did not reach the app.
pub(super) enum Unpassed {
    /// It is one that cannot be passed on.
    Malformed(&'static str),
    /// The app's service did not answer.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Unpassed {
    fn from(cause: anyhow::Error) -> Self {
        Self::Failed(cause)
    }
}

/// Ready when the session has ended.
pub(super) type Ended = BoxFuture<'static, NoSession>;

/// Copies both ways until one of them ends, or the session does.
async fn join(session: Arc<Session>, ended: Ended, link: Option<Link>, browser: OnUpgrade, service: OnUpgrade) {
    let _link = link;
    let joined = async {
        let (browser, service) = futures::try_join!(browser, service)?;
        let (mut browser, mut service) = (Used::new(TokioIo::new(browser), session), TokioIo::new(service));
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

fn wants_web_socket<B>(request: &Request<B>) -> bool {
    let tokens = request.headers().get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = tokens.flat_map(|value| value.split(',')).map(str::trim);
    request.version() == Version::HTTP_11
        && tokens.any(|token| token.eq_ignore_ascii_case("upgrade"))
        && is_web_socket(request.headers())
}

fn is_web_socket(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn apply_upgrade(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}
