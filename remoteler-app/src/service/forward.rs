//! Sends one request to an app and streams the answer back, and what follows an upgrade. Follows no redirect, retries nothing that was sent, collects no body.

use std::sync::Arc;

use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::BodyExt;
use hyper::{
    body::{Body as _, Incoming},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use remoteler_core::LiveGuard;
use tokio::time::Instant;

use super::{
    Site,
    body::{Body, empty},
    refusal::Refusal,
    relay::{RelaySlot, Streamed, join},
    upstream::{Connection, Idle, UpstreamError},
};
use crate::headers::{connection_tokens, keep_body, keep_redirect_inside, strip_response};

/// What one request is sent by.
pub(super) struct Forward<'a> {
    /// Where to.
    pub(super) site: &'a Site,
    /// Connections of this user's connection.
    pub(super) idle: &'a Arc<Idle>,
    /// Takes the work after an upgrade.
    pub(super) relay: &'a RelaySlot,
    /// When what runs is cut.
    pub(super) deadline: Instant,
    /// Held until the answer, or what follows an upgrade, has ended.
    pub(super) live: Arc<LiveGuard>,
    /// Under which name the app may set cookies.
    pub(super) public_host: &'a str,
}

impl Forward<'_> {
    /// Sends `request`, whose headers are those the app shall see.
    pub(super) async fn send(
        self,
        mut request: Request<Body>,
        upgrade: Option<UpgradeRequest>,
    ) -> Result<Response<Body>, UpstreamError> {
        request.extensions_mut().clear();
        *request.version_mut() = Version::HTTP_11;
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = target.map(Uri::from).unwrap_or_default();
        request.headers_mut().insert(header::HOST, self.site.uri.authority().clone());
        match upgrade {
            Some(upgrade) => self.switch(upgrade, request).await,
            None => self.exchange(request).await,
        }
    }

    async fn exchange(self, mut request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        keep_body(&mut request);
        loop {
            let (connection, reused) = match self.idle.take().await {
                Some(connection) => (connection, true),
                None => (self.site.uri.dial().await?, false),
            };
            let (sent, connection) = connection.send(request).await;
            match sent {
                Ok(response) => return self.answer(response, connection),
                // An idle connection that the app closed meanwhile gives back a request it did not begin to send.
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) if reused => request = unsent,
                    _ => return Err(self.site.uri.broke_off(refused.into_error())),
                },
            }
        }
    }

    /// A request to leave HTTP, on a connection of its own. Octets are passed on only after the app has said 101.
    async fn switch(
        self,
        upgrade: UpgradeRequest,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, UpstreamError> {
        apply_upgrade(request.headers_mut());
        let (sent, connection) = self.site.uri.dial().await?.send(request).await;
        let mut response = sent.map_err(|refused| self.site.uri.broke_off(refused.into_error()))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return self.answer(response, connection);
        }
        if !is_web_socket(response.headers()) {
            return Err(self.site.uri.switched());
        }
        let mut answer = Response::new(empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        strip_response(answer.headers_mut(), self.public_host);
        apply_upgrade(answer.headers_mut());
        let app = hyper::upgrade::on(response);
        let client = upgrade.client;
        let (deadline, live) = (self.deadline, self.live);
        self.relay.put(
            async move {
                let _connection = connection;
                match futures::try_join!(client, app) {
                    Ok((client, app)) => {
                        let ended = join(TokioIo::new(client), TokioIo::new(app), deadline, &live.signal()).await;
                        tracing::debug!(?ended, "an upgraded connection ended");
                    }
                    Err(cause) => tracing::debug!(%cause, "the connection ended before its upgrade"),
                }
            }
            .boxed(),
        );
        Ok(answer)
    }

    fn answer(
        self,
        response: Response<Incoming>,
        connection: Option<Connection>,
    ) -> Result<Response<Body>, UpstreamError> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.site.uri.switched());
        }
        let (mut parts, body) = response.into_parts();
        strip_response(&mut parts.headers, self.public_host);
        keep_redirect_inside(&mut parts.headers, self.site.uri.authority().to_str().unwrap_or_default());
        parts.extensions.clear();
        parts.version = Version::HTTP_11;
        let lease = connection.map(|connection| (self.idle.clone(), connection));
        Ok(Response::from_parts(parts, Streamed::new(body, lease, self.live, self.deadline).boxed_unsync()))
    }
}

/// That a request asks for a WebSocket, and our end of the connection to be upgraded.
pub(super) struct UpgradeRequest {
    client: OnUpgrade,
}

impl UpgradeRequest {
    /// Takes the wish out of `request`. `None` for an ordinary request; an upgrade to anything else than a WebSocket is treated as RFC 9110
    /// (section 7.8) allows: not heard.
    ///
    /// # Errors
    /// [`Refusal::UpgradeWithBody`]
    pub(super) fn take(request: &mut Request<Body>) -> Result<Option<Self>, Refusal> {
        let wanted = request.version() == Version::HTTP_11
            && connection_tokens(request.headers()).any(|token| token == "upgrade")
            && is_web_socket(request.headers());
        if !wanted {
            return Ok(None);
        }
        if !request.body().is_end_stream() {
            return Err(Refusal::UpgradeWithBody);
        }
        *request.body_mut() = empty();
        Ok(Some(Self { client: hyper::upgrade::on(request) }))
    }
}

fn is_web_socket(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::UPGRADE).iter();
    let one = values.next().is_some_and(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"));
    one && values.next().is_none()
}

fn apply_upgrade(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}
