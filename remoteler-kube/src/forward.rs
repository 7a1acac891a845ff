//! Sends one request to an API server and streams the answer back. Takes only requests that carry the user's headers and the service's
//! credential. Follows no redirect, retries nothing that was sent, collects no body.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use remoteler_core::{EndReason, LiveGuard};
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};
use tower::Service;

use crate::{
    body::{Body, BodyError, empty},
    credential::{Credential, Credentialed},
    farewell::{is_lines_of_json, watch_event},
    headers::strip_response,
    path::ApiPath,
    pool::{Connection, PoolKey},
    relay::{RelaySlot, join},
    route::Site,
    upgrade::UpgradeRequest,
    upstream::UpstreamError,
};

/// How long a connection from the pool may need to be done with its last request.
const SETTLE: Duration = Duration::from_millis(20);

/// Forwards one request.
#[derive(Clone)]
pub(crate) struct Forward {
    /// Where to.
    pub(crate) site: Arc<Site>,
    /// The path there.
    pub(crate) path: ApiPath,
    /// Takes the work after an upgrade.
    pub(crate) relay: RelaySlot,
    /// The certificate's end.
    pub(crate) deadline: Instant,
    /// Whose connections may be used.
    pub(crate) key: PoolKey,
    /// The client's wish to leave HTTP, and its end of the connection.
    pub(crate) upgrade: Arc<Mutex<Option<UpgradeRequest>>>,
    /// Whether the answer will be a sequence of events.
    pub(crate) is_watch: bool,
    /// Held until the answer, or what follows an upgrade, has ended.
    pub(crate) live: Arc<LiveGuard>,
}

impl Service<Credentialed> for Forward {
    type Response = Response<Body>;
    type Error = UpstreamError;
    type Future = BoxFuture<'static, Result<Response<Body>, UpstreamError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Credentialed) -> Self::Future {
        let this = self.clone();
        async move {
            let mut request = request.into_request();
            request.extensions_mut().clear();
            *request.version_mut() = Version::HTTP_11;
            *request.uri_mut() = this.site.upstream.target(&this.path)?;
            request.headers_mut().insert(header::HOST, this.site.upstream.authority());
            let deadline = this.deadline;
            let upgrade = this.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
            let answer = async {
                match upgrade {
                    Some(upgrade) => this.switch(upgrade, request).await,
                    None => this.exchange(request).await,
                }
            };
            timeout_at(deadline, answer)
                .await
                .map_err(|_| UpstreamError::Timeout { what: "the request, whose certificate has expired,".into() })?
        }
        .boxed()
    }
}

impl Forward {
    /// An ordinary request.
    async fn exchange(self, mut request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        loop {
            let (connection, reused) = match self.idle().await {
                Some(connection) => (connection, true),
                None => (self.site.upstream.dial().await?, false),
            };
            let (sent, connection) = connection.send(request).await;
            match sent {
                Ok(response) => return self.answer(response, connection),
                // An idle connection that the API server closed meanwhile gives back a request it did not begin to send.
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) if reused => request = unsent,
                    _ => return Err(self.site.upstream.broke_off(refused.into_error())),
                },
            }
        }
    }

    async fn idle(&self) -> Option<Connection> {
        while let Some(mut connection) = self.site.pool.take(&self.key) {
            if let Ok(Ok(())) = timeout(SETTLE, connection.sender.ready()).await {
                return Some(connection);
            }
        }
        None
    }

    /// A request to leave HTTP, on a connection of its own.
    async fn switch(
        self,
        upgrade: UpgradeRequest,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, UpstreamError> {
        upgrade.apply(request.headers_mut());
        let (sent, connection) = self.site.upstream.dial().await?.send(request).await;
        let mut response = sent.map_err(|refused| self.site.upstream.broke_off(refused.into_error()))?;
        if !upgrade.is_answered_by(&response) {
            // An answer such as 403 goes on as it is.
            return self.answer(response, connection);
        }
        let mut answer = Response::new(empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        let protocol = upgrade.is_web_socket().then(|| {
            let named = answer.headers().get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
            named.unwrap_or_default().to_owned()
        });
        strip_response(answer.headers_mut());
        upgrade.apply(answer.headers_mut());

        let api_server = hyper::upgrade::on(response);
        let client = upgrade.into_client();
        let (deadline, live) = (self.deadline, self.live);
        self.relay.put(
            async move {
                let _connection = connection;
                match futures::try_join!(client, api_server) {
                    Ok((client, api_server)) => {
                        let ended = join(
                            TokioIo::new(client),
                            TokioIo::new(api_server),
                            deadline,
                            Some((&live.signal(), protocol)),
                        )
                        .await;
                        tracing::debug!(?ended, "upgraded connection ended");
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
        let address = || self.site.upstream.address();
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => return Err(UpstreamError::Switched { address: address() }),
            StatusCode::UNAUTHORIZED => {
                if let Credential::TokenFile(file) = self.site.upstream.credential().as_ref() {
                    file.forget();
                }
                return Err(UpstreamError::Credential { address: address() });
            }
            _ => {}
        }
        let (mut parts, body) = response.into_parts();
        // What is no watch has a length, or ends before anybody could say something in it.
        let speaks = self.is_watch && is_lines_of_json(&parts.headers);
        strip_response(&mut parts.headers);
        parts.extensions.clear();
        let lease = connection.map(|connection| Lease { site: self.site, key: self.key, connection });
        let (deadline, ends) = (Deadline::new(self.deadline), Ends::new(self.live));
        let mut body = Streamed { inner: body, lease, deadline, ends, speaks, between_lines: true, said: false };
        body.return_when_ended();
        Ok(Response::from_parts(parts, body.boxed_unsync()))
    }
}

/// A connection in use, and where it goes afterwards.
struct Lease {
    site: Arc<Site>,
    key: PoolKey,
    connection: Connection,
}

/// An answer on its way. Holds the connection until its end, gives it back then, and ends with the certificate.
struct Streamed {
    inner: Incoming,
    lease: Option<Lease>,
    deadline: Deadline,
    ends: Ends,
    /// Whether it consists of lines, after each of which a last one may be said.
    speaks: bool,
    between_lines: bool,
    /// The last line was said.
    said: bool,
}

impl Streamed {
    fn return_when_ended(&mut self) {
        if self.inner.is_end_stream() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if let Some(Lease { site, key, connection }) = self.lease.take() {
            site.pool.give(key, connection);
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
        if self.said {
            return Poll::Ready(None);
        }
        loop {
            return match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => continue,
                Poll::Ready(Some(Ok(frame))) if self.ends.reason().is_none() && self.deadline.is_future() => {
                    self.ends.live.touch();
                    self.return_when_ended();
                    if let Some(last) = frame.data_ref().and_then(|data| data.last()) {
                        self.between_lines = *last == b'\n';
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(Some(Err(cause))) => {
                    self.lease = None;
                    Poll::Ready(Some(Err(BodyError::new(cause))))
                }
                Poll::Ready(None) => {
                    self.give_back();
                    Poll::Ready(None)
                }
                Poll::Pending
                    if self.ends.poll_ended(context).is_pending()
                        && self.deadline.poll_passed(context).is_pending() =>
                {
                    Poll::Pending
                }
                // The rules or the certificate's end: broken off, so that nobody takes the part for the whole.
                Poll::Ready(Some(Ok(_))) | Poll::Pending => {
                    self.lease = None;
                    let reason = self.ends.reason().map(ToString::to_string);
                    if let Some(reason) = &reason
                        && self.speaks
                        && self.between_lines
                    {
                        // The event says that this is not the whole, so the stream may end in peace: a reset could overtake it.
                        self.said = true;
                        return Poll::Ready(Some(Ok(Frame::data(watch_event(reason).into()))));
                    }
                    Poll::Ready(Some(Err(BodyError::new(reason.unwrap_or_else(|| "the certificate expired".into())))))
                }
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

/// The place of an answer among live work, with a future only for answers that make somebody wait.
struct Ends {
    live: Arc<LiveGuard>,
    told: Option<BoxFuture<'static, EndReason>>,
}

impl Ends {
    const fn new(live: Arc<LiveGuard>) -> Self {
        Self { live, told: None }
    }

    fn reason(&self) -> Option<&EndReason> {
        self.live.reason()
    }

    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<EndReason> {
        if let Some(reason) = self.live.reason() {
            return Poll::Ready(reason.clone());
        }
        let signal = self.live.signal();
        self.told.get_or_insert_with(|| async move { signal.ended().await }.boxed()).as_mut().poll(context)
    }
}

/// A moment, with a timer only for answers that make somebody wait.
struct Deadline {
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    const fn new(at: Instant) -> Self {
        Self { at, timer: None }
    }

    fn is_future(&self) -> bool {
        Instant::now() < self.at
    }

    fn poll_passed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(at))).as_mut().poll(context)
    }
}
