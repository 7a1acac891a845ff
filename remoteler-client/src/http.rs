//! One HTTP/1.1 client over whatever a [`Connector`] opens. Owns kept connections, deadlines and the bound on answers.
//! Knows no call of any API and follows no redirect.

use std::{
    pin::pin,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use remoteler_core::with_causes;
use remoteler_tunnel::{AuthCarrier, TlsIdentity, Ways};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::connector::{ConnectError, Connected, Connector, LateLinks};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection to {place} broke: {reason}")]
    Broken { place: String, reason: String },
    #[error("{place} did not answer within {} s", .within.as_secs())]
    Timeout { place: String, within: Duration },
    #[error("{place} answers with more than {limit} octets")]
    TooLarge { place: String, limit: usize },
}

/// One request. The path is in origin form, its query included.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) body: Bytes,
    /// How long the service may wait before it answers. What waits may be asked again.
    pub(crate) waits: Duration,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

pub(crate) struct HttpClient {
    connector: Connector,
    kept_for: Duration,
    idle: Mutex<Vec<Kept>>,
}

/// A connection between two requests.
struct Kept {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the connection's octets; it ends with the connection's last user.
    driver: AbortOnDropHandle<()>,
    since: Instant,
    /// What it was opened as.
    shown: Option<TlsIdentity>,
    /// The link that carries it, if one does.
    carrier: Option<AuthCarrier>,
    /// Whether an answer is under way that is waited for when the link is to end.
    busy: watch::Sender<bool>,
}

impl Kept {
    /// The answer, and the connection unless it has ended.
    ///
    /// A request that is handed over at the moment in which the connection ends may stay where nobody takes it, for as long as the sender lives
    /// (hyper, issue 4122). Without a sender hyper gives it back.
    async fn send(mut self, request: Request<Full<Bytes>>) -> (Sent, Option<Self>) {
        let mut answer = pin!(self.sender.try_send_request(request));
        tokio::select! {
            biased;
            sent = &mut answer => (sent, Some(self)),
            _ = &mut self.driver => {
                drop(self);
                (answer.await, None)
            }
        }
    }
}

type Sent = Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>>;

/// How a kept connection turned out to be of no use.
enum Failed {
    /// The request did not go out; another connection may take it.
    Unsent,
    /// It went out, perhaps; the connection ended without an answer.
    Lost(HttpError),
    /// It waits in a link that is lost, and is to be made again elsewhere.
    Left,
}

impl HttpClient {
    /// The same over other ways. Connections of before are not kept.
    pub(crate) fn by(self, ways: &Ways) -> Self {
        Self { connector: self.connector.by(ways), idle: Mutex::default(), ..self }
    }

    pub(crate) fn ways(&self) -> Ways {
        self.connector.ways()
    }

    /// For a service of ours that keeps unused connections for longer than [`KEPT`].
    pub(crate) const fn new(connector: Connector) -> Self {
        Self { connector, kept_for: KEPT, idle: Mutex::new(Vec::new()) }
    }

    /// The same through links: their connections are kept for as long as those live.
    pub(crate) fn through(&self, links: &LateLinks) -> Option<Self> {
        let connector = self.connector.through(links)?;
        Some(Self { connector, kept_for: Duration::MAX, idle: Mutex::default() })
    }

    /// For the proxy's web API: it ends each connection 10 s after it was opened, whatever goes on there then (I30), so each request has one of
    /// its own.
    pub(crate) const fn for_web(connector: Connector) -> Self {
        Self { connector, kept_for: Duration::ZERO, idle: Mutex::new(Vec::new()) }
    }

    pub(crate) fn place(&self) -> String {
        self.connector.place()
    }

    /// Sends `call` and reads the answer, which may take [`REQUEST`] together beside the time that the call waits; opening a connection has a deadline of its own.
    ///
    /// A kept connection that the server has closed meanwhile is replaced without a word. A request that may have arrived is sent
    /// again only when it is a GET.
    pub(crate) async fn call(&self, call: &Call) -> Result<Answer, HttpError> {
        while let Some(kept) = self.take_idle() {
            match self.exchange(kept, call).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Unsent) => {}
                Err(Failed::Lost(HttpError::Broken { .. })) if call.method == Method::GET => break,
                Err(Failed::Lost(error)) => return Err(error),
                Err(Failed::Left) => break,
            }
        }
        loop {
            let fresh = self.open().await?;
            match self.exchange(fresh, call).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Lost(error)) => return Err(error),
                Err(Failed::Left) => {}
                Err(Failed::Unsent) => {
                    return Err(self.broken(
                        "it was closed at once; the certificate shown to it may be revoked, or of an authority that is gone",
                    ));
                }
            }
        }
    }

    fn take_idle(&self) -> Option<Kept> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        self.forget_unused(&mut idle);
        let usable = idle.iter().rposition(|kept| kept.carrier.as_ref().is_none_or(AuthCarrier::may_lead))?;
        Some(idle.remove(usable))
    }

    /// Closes connections that are not to be used any more.
    pub(crate) fn tidy(&self) {
        self.forget_unused(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn forget_unused(&self, idle: &mut Vec<Kept>) {
        if idle.is_empty() {
            return;
        }
        // Who got other certificates meanwhile is not to be judged by the ones before.
        let now = self.connector.identity();
        let now = now.as_ref().map(TlsIdentity::chain);
        idle.retain(|kept| {
            let same = kept.shown.as_ref().map(TlsIdentity::chain) == now;
            same && !kept.sender.is_closed() && kept.since.elapsed() < self.kept_for
        });
    }

    fn keep(&self, mut kept: Kept) {
        if kept.sender.is_closed() {
            return;
        }
        kept.since = Instant::now();
        kept.busy.send_replace(false);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_KEPT {
            idle.push(kept);
        }
    }

    /// Closes what is kept: the server does not believe who opened it.
    fn keep_none(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn open(&self) -> Result<Kept, HttpError> {
        let shown = self.connector.identity();
        let Connected { stream, carrier } = self.connector.connect().await?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|cause| self.broken(&cause.to_string()))?;
        let (busy, idle) = watch::channel(false);
        let end = end_of(carrier.clone(), idle);
        let driver = tokio::spawn(async move {
            tokio::select! {
                ended = connection => if let Err(cause) = ended {
                    tracing::debug!(%cause, "an HTTP connection ended");
                },
                () = end => {}
            }
        });
        Ok(Kept { sender, driver: AbortOnDropHandle::new(driver), since: Instant::now(), shown, carrier, busy })
    }

    async fn exchange(&self, mut kept: Kept, call: &Call) -> Result<Answer, Failed> {
        let carrier = kept.carrier.clone();
        let lost = loss_of(carrier.clone().filter(|_| !call.waits.is_zero()));
        let exchange = async {
            if kept.sender.ready().await.is_err() {
                return Err(Failed::Unsent);
            }
            let request = self.request(call).map_err(Failed::Lost)?;
            kept.busy.send_replace(call.waits.is_zero());
            let (sent, kept) = kept.send(request).await;
            let response = match sent {
                Ok(response) => response,
                Err(error) if error.message().is_some() => return Err(Failed::Unsent),
                Err(error) => return Err(Failed::Lost(self.broken(&with_causes(error.error())))),
            };
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|cause| {
                Failed::Lost(if cause.is::<LengthLimitError>() {
                    HttpError::TooLarge { place: self.place(), limit: MAX_ANSWER }
                } else {
                    self.broken(&with_causes(&*cause))
                })
            })?;
            Ok((Answer { status: head.status, body: body.to_bytes() }, kept))
        };
        let within = REQUEST + call.waits;
        let (answer, kept) = tokio::select! {
            biased;
            answered = tokio::time::timeout(within, exchange) => answered.unwrap_or_else(|_| {
                if let Some(carrier) = carrier {
                    carrier.leads_nowhere();
                }
                Err(Failed::Lost(HttpError::Timeout { place: self.place(), within }))
            })?,
            () = lost => return Err(Failed::Left),
        };
        if answer.status == StatusCode::UNAUTHORIZED {
            self.keep_none();
        } else if let Some(kept) = kept {
            self.keep(kept);
        }
        Ok(answer)
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, HttpError> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(&call.path)
            .header(header::HOST, self.connector.authority())
            .header(header::USER_AGENT, concat!("remoteler/", env!("CARGO_PKG_VERSION")));
        if let Some(content_type) = call.content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        request.body(Full::new(call.body.clone())).map_err(|cause| self.broken(&cause.to_string()))
    }

    fn broken(&self, reason: &str) -> HttpError {
        HttpError::Broken { place: self.place(), reason: reason.into() }
    }
}

/// Waits until the link of a connection is to end and nothing is under way on it that was asked for: a link waits for its streams.
async fn end_of(carrier: Option<AuthCarrier>, mut busy: watch::Receiver<bool>) {
    let Some(carrier) = carrier else { return std::future::pending().await };
    carrier.ending().await;
    // Fails when nobody has the connection any more, which then ends by itself.
    let _ = busy.wait_for(|busy| !busy).await;
}

/// Waits until the link of a request that waits is lost, where it would not hear of its answer for as long as the link is kept.
async fn loss_of(carrier: Option<AuthCarrier>) {
    match carrier {
        Some(carrier) => carrier.lost().await,
        None => std::future::pending().await,
    }
}

/// Deadline of one request, answer included.
const REQUEST: Duration = Duration::from_secs(30);
/// How long a connection is kept unused: half of what the auth service does, so that none is used at the moment in which it is ended.
const KEPT: Duration = Duration::from_secs(45);
/// How many connections are kept.
const MAX_KEPT: usize = 4;
/// Largest answer read.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
