//! Agent side of reverse tunnels: keeps a link to a proxy and serves the streams that come through it. Owns the connection and
//! its retries. Listens on nothing, and dials nothing that a peer names: a stream goes to a service that was given here, or is
//! refused (I29).

mod resume;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use remoteler_core::{Clock, Entropy, HostIdentity, SystemRole, Timestamp, fill_random};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::connect::{ConnectError, connect_tcp};
use crate::connection::{CloseReason, IncomingStream, Link, MuxStream};
use crate::dial::{DialHeader, DialHeaderError, DialReply, TargetKind, read_dial_reply, write_message};
use crate::listener::ALPN_TUNNEL;
use crate::mux::Side;
use crate::mux::error::{Code, OpenError};
use crate::mux::limits::Limits;
use crate::registration::{MAX_REGISTRATION_LEN, Offer, REGISTRATION_METADATA, Registration};
use crate::replay::ReplayBudget;
use crate::resume::{EXPORT_KEYS, ResumeKeys};
use crate::router::StreamService;
use crate::tls::{ClientTls, ExportsKeys, TlsConfigError};

/// What an agent is made of.
#[derive(Clone)]
pub struct AgentConfig {
    /// `host:port` of the proxy. The name is resolved anew for each attempt.
    pub proxy: String,
    /// Who this host is; its certificate is in `tls`.
    pub host: HostIdentity,
    /// What is offered; the host's certificate must cover it.
    pub offer: Offer,
    /// Who serves the streams of each kind.
    pub services: HashMap<TargetKind, Arc<dyn StreamService>>,
    /// How the proxy is believed, and what is shown to it.
    pub tls: ClientTls,
    /// Tells the time for the state that is shown.
    pub clock: Arc<dyn Clock>,
    /// Spreads the retries.
    pub entropy: Arc<dyn Entropy>,
    /// Bounds of the link. Default [`Limits::client`].
    pub limits: Limits,
    /// What all links of the process may keep for being taken up again.
    pub replay: ReplayBudget,
}

/// How an agent stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentState {
    /// Makes a connection.
    Connecting,
    /// Registered: can be dialled.
    Connected {
        /// Since when.
        since: Timestamp,
    },
    /// The connection is lost; the streams wait for another one, which is being made.
    Suspended {
        /// Since when.
        since: Timestamp,
    },
    /// The last attempt or link failed; the next attempt is at `until`.
    Waiting {
        /// When.
        until: Timestamp,
        /// What failed.
        reason: Arc<str>,
    },
    /// Was shut down.
    Stopped,
}

/// Why an agent is not connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The TLS configuration is not possible.
    #[error(transparent)]
    Config(#[from] TlsConfigError),
    /// No TCP connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The handshake failed: mostly a proxy that is not believed.
    #[error("the TLS handshake with the proxy failed: {0}")]
    Handshake(#[source] std::io::Error),
    /// The link failed.
    #[error("the tunnel ended: {0}")]
    Link(#[from] CloseReason),
    /// The registration cannot be sent.
    #[error("the registration cannot be sent")]
    Open(#[from] OpenError),
    /// The reply cannot be read.
    #[error("the proxy's reply to the registration cannot be read")]
    Reply(#[from] DialHeaderError),
    /// The proxy does not take this agent.
    #[error("the proxy refused the agent: {message}")]
    Refused {
        /// Its explanation.
        message: String,
    },
    /// Took too long.
    #[error("the proxy did not finish the connection within {} s", SETUP_DEADLINE.as_secs())]
    Timeout,
}

/// A running agent. Dropping it cuts its links.
#[derive(Debug)]
pub struct Agent {
    state: watch::Receiver<AgentState>,
    stop: CancellationToken,
    /// How long the streams may take to end once stopped.
    drain: watch::Sender<Duration>,
    tasks: TaskTracker,
}

impl Agent {
    /// Starts on the current runtime.
    #[must_use]
    pub fn start(config: AgentConfig) -> Self {
        let (shown, state) = watch::channel(AgentState::Connecting);
        let (drain, drain_seen) = watch::channel(Duration::ZERO);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let keeper = Keeper {
            config: Arc::new(config),
            shown,
            stop: stop.clone(),
            drain: drain_seen,
            tasks: tasks.clone(),
            backoff: Backoff::for_agents(),
        };
        tasks.spawn(keeper.run());
        Self { state, stop, drain, tasks }
    }

    /// How it stands, now and later.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<AgentState> {
        self.state.clone()
    }

    /// Takes no new streams; waits up to `deadline` for those that are open, then ends them.
    pub async fn shutdown(&self, deadline: Duration) {
        self.drain.send_replace(deadline);
        self.stop.cancel();
        self.tasks.close();
        // The links end by themselves at the deadline; a service that hangs with a closed stream is not waited for.
        let _ = timeout(deadline + Duration::from_secs(2), self.tasks.wait()).await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
    }
}

struct Keeper {
    config: Arc<AgentConfig>,
    shown: watch::Sender<AgentState>,
    stop: CancellationToken,
    drain: watch::Receiver<Duration>,
    tasks: TaskTracker,
    backoff: Backoff,
}

impl Keeper {
    async fn run(mut self) {
        let stop = self.stop.clone();
        // Why the last attempt failed: said once, not at each.
        let mut last: Option<Arc<str>> = None;
        while !stop.is_cancelled() {
            self.shown.send_replace(AgentState::Connecting);
            let attempt = tokio::select! {
                attempt = Box::pin(connect(&self.config)) => attempt,
                () = stop.cancelled() => break,
            };
            let reason: Arc<str> = match attempt {
                Ok(registered) => {
                    last = None;
                    self.keep(registered).await.to_string().into()
                }
                Err(error) => readable(&error).into(),
            };
            if stop.is_cancelled() {
                break;
            }
            let wait = self.backoff.next(u64::from_ne_bytes(fill_random(&*self.config.entropy)));
            let wait_ms = wait.as_millis();
            if last.as_ref() == Some(&reason) {
                tracing::debug!(proxy = %self.config.proxy, %reason, "tunnel is still down, next attempt in {wait_ms} ms");
            } else {
                tracing::info!(proxy = %self.config.proxy, %reason, "tunnel is down, next attempt in {wait_ms} ms");
            }
            last = Some(reason.clone());
            self.shown.send_replace(AgentState::Waiting { until: self.config.clock.now().plus(wait), reason });
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => break,
            }
        }
        self.shown.send_replace(AgentState::Stopped);
    }

    /// Serves a link until it ends, or until the proxy wants no more of it: then the rest is served beside the next one.
    async fn keep(&mut self, registered: Registered) -> CloseReason {
        let Registered { link, control, keys } = registered;
        let up_since = Instant::now();
        if let Some(keys) = keys {
            self.tasks.spawn(resume::keep_going(self.config.clone(), link.clone(), keys));
        }
        tracing::info!(proxy = %self.config.proxy, "tunnel is up");
        let unregister = CancellationToken::new();
        let serving = serve_streams(self.config.clone(), link.clone(), control, unregister.clone(), self.tasks.clone());
        self.tasks.spawn(serving);
        let reason = tokio::select! {
            reason = self.show_until_closed(&link) => reason,
            () = link.going_away() => {
                unregister.cancel();
                CloseReason::Peer { reason: "the proxy takes no new streams".into() }
            }
            () = self.stop.cancelled() => {
                unregister.cancel();
                let deadline = *self.drain.borrow();
                link.shutdown("the agent stops", deadline).await;
                link.closed().await
            }
        };
        if up_since.elapsed() >= STABLE {
            self.backoff.reset();
        }
        reason
    }
}

impl Keeper {
    /// Shows how the link stands, until it ends.
    async fn show_until_closed(&self, link: &Link) -> CloseReason {
        let watched = async {
            loop {
                self.shown.send_replace(AgentState::Connected { since: self.config.clock.now() });
                if !link.suspended().await {
                    return;
                }
                self.shown.send_replace(AgentState::Suspended { since: self.config.clock.now() });
                link.resumed().await;
            }
        };
        watched.await;
        link.closed().await
    }
}

/// A link over which the agent can be dialled.
struct Registered {
    link: Link,
    control: MuxStream,
    /// With which it is taken up on another connection; `None` when it ends with its own.
    keys: Option<ResumeKeys>,
}

/// Connects, proves who we are, and registers.
async fn connect(config: &AgentConfig) -> Result<Registered, AgentError> {
    timeout(SETUP_DEADLINE, async {
        let stream = connect_proxy(config).await?;
        let keys = stream.export(EXPORT_KEYS).map(|exported| ResumeKeys::new(&exported));
        let link = match keys {
            Some(_) => Link::start_resumable(Box::new(stream), Side::Client, config.limits, config.replay.clone()),
            None => Link::start(stream, Side::Client, config.limits),
        };
        let control = register(&link, &config.offer).await?;
        Ok(Registered { link, control, keys })
    })
    .await
    .unwrap_or(Err(AgentError::Timeout))
}

/// A TLS session with the proxy, in which both have proved who they are.
async fn connect_proxy(config: &AgentConfig) -> Result<Box<TlsStream<TcpStream>>, AgentError> {
    let tls = config.tls.to_cluster(&[SystemRole::Proxy], ALPN_TUNNEL)?;
    let socket = connect_tcp(&config.proxy, CONNECT_DEADLINE).await?;
    let name = ServerName::try_from(config.host.cluster.to_string());
    let name = name.map_err(|cause| AgentError::Handshake(std::io::Error::other(cause)))?;
    let stream = TlsConnector::from(tls).connect(name, socket).await;
    Ok(Box::new(stream.map_err(AgentError::Handshake)?))
}

async fn register(link: &Link, offer: &Offer) -> Result<MuxStream, AgentError> {
    link.ready().await?;
    let mut control = link.open(REGISTRATION_METADATA)?;
    let message = serde_json::to_vec(&Registration::new(offer.clone()))
        .map_err(|cause| DialHeaderError::Malformed(cause.to_string()))?;
    write_message(&mut control, &message, MAX_REGISTRATION_LEN).await?;
    match read_dial_reply(&mut control).await? {
        DialReply::Connected => Ok(control),
        DialReply::Refused { message, .. } => Err(AgentError::Refused { message }),
    }
}

/// Serves what comes through one link, to its end. The registration holds as long as its stream is open: it is closed first
/// when the link shall end, so that the last of the others is the last of all.
async fn serve_streams(
    config: Arc<AgentConfig>,
    link: Link,
    control: MuxStream,
    unregister: CancellationToken,
    tasks: TaskTracker,
) {
    let mut control = Some(control);
    loop {
        tokio::select! {
            incoming = link.accept() => match incoming {
                Some(incoming) => serve_stream(&config, incoming, &tasks),
                None => return,
            },
            () = unregister.cancelled(), if control.is_some() => control = None,
        }
    }
}

fn serve_stream(config: &AgentConfig, incoming: IncomingStream, tasks: &TaskTracker) {
    let header = match DialHeader::from_json(incoming.metadata()) {
        Ok(header) => header,
        Err(error) => return incoming.reject(Code::BadRequest, &error.to_string()),
    };
    let service = config.services.get(&header.target.kind).cloned();
    let Some(service) = service.filter(|_| config.offer.includes(&header.target, &config.host)) else {
        tracing::debug!(target = %header.target, "a stream was refused: this agent does not offer its target");
        return incoming.reject(Code::NotOffered, &format!("this agent does not offer {}", header.target));
    };
    if let Ok(stream) = incoming.accept() {
        tasks.spawn(async move { service.serve(Box::new(stream), header).await });
    }
}

impl fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentConfig").field("proxy", &self.proxy).field("offer", &self.offer).finish_non_exhaustive()
    }
}

/// The error with its causes: what is shown in the state is all that people see of it.
fn readable(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Connecting, handshake and registration together.
const SETUP_DEADLINE: Duration = Duration::from_secs(20);
/// A link that lived so long was a success.
const STABLE: Duration = Duration::from_secs(30);
