//! Proxy side of reverse tunnels: takes an agent's link, checks what it registers against its certificate, and keeps it in the
//! router while it lives. Owns the links of agents. Never believes a name that a certificate does not say (I28).

mod led;
mod passed;
mod resume;
#[cfg(test)]
mod simulation;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use remoteler_core::{
    EndReason, HostIdentity, LiveGuard, LiveWork, LockContext, Locked, Subject, Terms, Verified, VerifiedHost,
};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::connection::{CloseReason, IncomingStream, Link, MuxStream, TakeUpError, read_body};
use crate::dial::{
    DialCode, DialHeaderError, DialReply, decode, read_message, write_dial_reply, write_message,
    write_registration_reply,
};
use crate::listener::Admission;
use crate::mux::Side;
use crate::mux::error::Code;
use crate::mux::limits::Limits;
use crate::mux::stream::StreamError;
use crate::notice::{MAX_NOTICE_LEN, Notice, ProxyAddress};
use crate::registration::{
    AUTH_METADATA, MAX_REGISTRATION_LEN, Offer, OfferError, REGISTRATION_METADATA, Registration,
};
use crate::replay::ReplayBudget;
use crate::resume::{Channel, EXPORT_CHANNEL, EXPORT_KEYS, RESUME_MAGIC, ResumeKeys, ResumeRequest};
use crate::router::{Attachment, Router};
use crate::stream::{BoxedStream, Replayed};
use crate::tls::ExportsKeys;

use led::Led;
pub use passed::EarlierProcess;
use passed::{Asked, Earlier, Passed};
use resume::{Kept, Resumable};

/// An agent that registers.
#[derive(Clone, Debug)]
pub struct AgentSession {
    /// What its certificate says.
    pub host: HostIdentity,
    /// What it offers; covered by the certificate.
    pub offer: Offer,
    /// Version of its program, as it says.
    pub version: String,
    /// Where its connection comes from.
    pub source: SocketAddr,
}

/// Why an agent was not registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// The peer is a user.
    #[error("a user's certificate was shown where an agent's is needed")]
    NotAHost,
    /// The link ended before.
    #[error("the link ended before the agent registered")]
    Link(#[from] CloseReason),
    /// The stream broke.
    #[error("the stream of the registration broke")]
    Stream(#[from] StreamError),
    /// The message was not understood.
    #[error("the registration cannot be read")]
    Message(#[from] DialHeaderError),
    /// It offers what is not its own (I28).
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// Another host with the same name serves (I28).
    #[error("another host serves under the name {name}; remove one of the two, or join it again under another name")]
    NameTaken {
        /// Of both.
        name: String,
    },
    /// Nothing in time.
    #[error("the agent did not register in time")]
    Timeout,
    /// The host is locked.
    #[error("this host is shut out: {0}")]
    Locked(#[from] Locked),
    /// The rules changed while it registered.
    #[error("this host is shut out: {0}")]
    Ended(#[from] EndReason),
    /// The audit log does not take the event; nothing may happen without it.
    #[error("the agent cannot be registered now: {reason}")]
    Audit {
        /// Why, for the agent's log.
        reason: String,
    },
}

/// Hears of agents. For the audit log and the inventory.
#[async_trait]
pub trait AgentEvents: Send + Sync {
    /// Called before the agent can be dialled. An error refuses it: there is no effect without its event.
    ///
    /// # Errors
    /// What the agent may be told.
    async fn connected(&self, agent: &AgentSession) -> Result<(), String>;
    /// The link has ended, and no newer one of the same agent has taken its place.
    async fn disconnected(&self, agent: &AgentSession, reason: &CloseReason);
    /// A link was refused.
    async fn refused(&self, host: Option<&HostIdentity>, source: SocketAddr, error: &RegistrationError);
}

/// Leads streams of agents to the auth service, as it leads connections there: the octets are copied, and TLS is between those two.
#[async_trait]
pub trait AuthStreams: Send + Sync {
    /// Serves one stream of an agent that comes from `source`, to its end.
    async fn serve(&self, stream: BoxedStream, source: SocketAddr);
}

/// Serves agents' links.
pub struct TunnelServer {
    router: Arc<Router>,
    events: Arc<dyn AgentEvents>,
    limits: Arc<Limits>,
    live: Option<Arc<LiveWork>>,
    replay: ReplayBudget,
    resumable: Arc<Resumable>,
    proxies: watch::Receiver<Vec<ProxyAddress>>,
    earlier: Earlier,
    auth: Option<Arc<dyn AuthStreams>>,
}

impl TunnelServer {
    /// Registers agents in `router`, each link within `limits`.
    #[must_use]
    pub fn new(router: Arc<Router>, events: Arc<dyn AgentEvents>, limits: Limits) -> Self {
        let (_, proxies) = watch::channel(Vec::new());
        let (replay, resumable) = (ReplayBudget::default(), Arc::default());
        let limits = Arc::new(limits);
        Self { router, events, limits, live: None, replay, resumable, proxies, earlier: Earlier::default(), auth: None }
    }

    /// Tells every agent where the proxies of the cluster are, and again whenever that changes.
    #[must_use]
    pub fn telling(self, proxies: watch::Receiver<Vec<ProxyAddress>>) -> Self {
        Self { proxies, ..self }
    }

    /// Takes streams of agents to the auth service, and tells agents so. Without it they make connections of their own.
    #[must_use]
    pub fn leading_to(self, auth: Arc<dyn AuthStreams>) -> Self {
        Self { auth: Some(auth), ..self }
    }

    /// Keeps what was sent and not acknowledged within `replay`, all links together; [`ReplayBudget::default`] when this is not said.
    #[must_use]
    pub fn keeping(self, replay: ReplayBudget) -> Self {
        Self { replay, ..self }
    }

    /// Takes no link of a host that is locked, and cuts those that are up when their host is locked or its certificate revoked: a second later, so
    /// that the host's own services can say why to those who are there.
    #[must_use]
    pub fn living_by(self, live: Arc<LiveWork>) -> Self {
        Self { live: Some(live), ..self }
    }

    /// Serves the link of a peer that TLS has verified, to its end; or takes a link up on this connection that has lost its own.
    pub fn serve<S>(
        &self,
        stream: S,
        peer: Verified,
        source: SocketAddr,
        admission: Admission,
    ) -> impl Future<Output = ()> + Send
    where
        S: AsyncRead + AsyncWrite + ExportsKeys + Send + Unpin + 'static,
    {
        // What is over long before the link is has a box of its own, and the arguments are in it: an idle link keeps little.
        let admitted = Box::pin(self.admit(stream, peer, source, admission));
        async move {
            if let Some(registered) = admitted.await {
                self.hold(registered).await;
            }
        }
    }

    /// Serves the link of an agent that has registered, to its end.
    async fn hold(&self, registered: Box<Registered>) {
        let Registered { agent, link, control, attachment, kept, live } = *registered;
        let mut shut_out = std::pin::pin!(shut_out(live).fuse());
        let mut led = Led::new();
        if let Some(control) = control {
            tokio::select! {
                () = self.registered_until(&agent, &link, control, &mut led) => {}
                reason = &mut shut_out => cut(&link, &reason),
            }
        }
        // From here on nobody dials it; what is open may end in peace, unless the host is shut out meanwhile.
        let detached = self.router.detach(attachment);
        let closed = async {
            tokio::select! {
                reason = link.closed() => return reason,
                () = led.run_out() => {}
            }
            link.closed().await
        };
        let reason = tokio::select! {
            reason = closed => reason,
            why = &mut shut_out => {
                cut(&link, &why);
                link.closed().await
            }
        };
        drop(kept);
        if detached {
            self.events.disconnected(&agent, &reason).await;
        }
    }

    /// Starts the link and lets its agent register; `None` when that was refused, which it was told then.
    async fn admit<S>(
        &self,
        stream: S,
        peer: Verified,
        source: SocketAddr,
        admission: Admission,
    ) -> Option<Box<Registered>>
    where
        S: AsyncRead + AsyncWrite + ExportsKeys + Send + Unpin + 'static,
    {
        let Verified::Host(host) = peer else {
            self.events.refused(None, source, &RegistrationError::NotAHost).await;
            return None;
        };
        let (keys, channel) = (stream.export(EXPORT_KEYS), stream.export(EXPORT_CHANNEL));
        // Kept only where a connection may have to be passed on with them.
        let certificates = if self.earlier.is_empty() { Vec::new() } else { stream.peer_certificates() };
        let mut stream: BoxedStream = Box::new(stream);
        let mut prefix = [0; 8];
        if let Err(cause) = stream.read_exact(&mut prefix).await {
            let reason = CloseReason::Broken { kind: cause.kind(), message: cause.to_string().into() };
            self.events.refused(Some(host.identity()), source, &reason.into()).await;
            return None;
        }
        if prefix.starts_with(&RESUME_MAGIC) {
            let live = match self.enter(&host) {
                Ok(live) => live,
                Err(error) => {
                    self.events.refused(Some(host.identity()), source, &error).await;
                    let reason = error.to_string();
                    let told = Resumable::turn_away(stream, &prefix, &reason);
                    let _ = timeout(REGISTRATION_DEADLINE, told).await; // the peer may be gone already
                    return None;
                }
            };
            if let Some(channel) = channel {
                admission.authenticated();
                let served = self.resume(stream, &prefix, (&host, certificates), &channel, live).await;
                tracing::debug!(node = %host.identity().name, %source, ?served, "a link was to be taken up again");
            }
            return None;
        }
        let stream: BoxedStream = Box::new(Replayed::new(Bytes::copy_from_slice(&prefix), stream));
        let keys = keys.map(|exported| ResumeKeys::new(&exported));
        let link = match keys {
            Some(_) => Link::start_resumable(stream, Side::Server, self.limits.clone(), self.replay.clone()),
            None => Link::start(stream, Side::Server, self.limits.clone()),
        };
        let registered = timeout(REGISTRATION_DEADLINE, self.register(&link, &host, source)).await;
        let (agent, control, live) = match registered.unwrap_or(Err(RegistrationError::Timeout)) {
            Ok(registered) => registered,
            Err(error) => {
                link.close(Code::Denied, &error.to_string());
                self.events.refused(Some(host.identity()), source, &error).await;
                link.closed().await; // so that the agent gets to read why
                return None;
            }
        };
        admission.authenticated();
        let attachment = self.router.attach(agent.host.id, link.clone());
        let (place, live) = match live.map(|live| watch::channel(Arc::new(live))) {
            Some((place, live)) => (Some(place), Some(live)),
            None => (None, None),
        };
        let kept = keys.map(|keys| self.resumable.keep(keys, agent.host.id, agent.offer.clone(), link.clone(), place));
        let control = confirm(control, self.auth.is_some()).await.ok();
        if control.is_none() {
            link.close(Code::Protocol, "the registration's stream broke");
        }
        Some(Box::new(Registered { agent: Box::new(agent), link, control, attachment, kept, live }))
    }

    /// Lets a link go on over this connection: one that is here, or one that an earlier process still carries.
    async fn resume(
        &self,
        mut stream: BoxedStream,
        prefix: &[u8; 8],
        (host, certificates): (&VerifiedHost, Vec<CertificateDer<'static>>),
        channel: &Channel,
        live: Option<LiveGuard>,
    ) -> Result<(), TakeUpError> {
        let late = |_| TakeUpError::Io(std::io::ErrorKind::TimedOut.into());
        let body = timeout(REGISTRATION_DEADLINE, read_body(&mut stream, prefix)).await.map_err(late)??;
        let request = ResumeRequest::parse(&body)?;
        if !self.earlier.is_empty()
            && !self.resumable.has(&request)
            && let Ok(request) = body.try_into()
        {
            let passed = Passed { channel: *channel, request, certificates };
            match self.ask_earlier(&passed).await {
                Asked::Here(there) => {
                    self.pass_on(stream, there, live.as_ref()).await;
                    return Ok(());
                }
                Asked::Nowhere => {}
                // Without an answer the agent asks again, until somebody knows.
                Asked::Unknown => return Err(TakeUpError::Io(std::io::ErrorKind::WouldBlock.into())),
            }
        }
        let served = self.resumable.serve(stream, &request, host.identity(), channel, live);
        timeout(REGISTRATION_DEADLINE, served).await.map_err(late)?
    }

    async fn register(
        &self,
        link: &Link,
        host: &VerifiedHost,
        source: SocketAddr,
    ) -> Result<(AgentSession, MuxStream, Option<LiveGuard>), RegistrationError> {
        let Some(incoming) = link.accept().await else { return Err(link.closed().await.into()) };
        if incoming.metadata() != REGISTRATION_METADATA {
            incoming.reject(Code::BadRequest, "the first stream of an agent is its registration");
            return Err(DialHeaderError::Malformed("the first stream is for something else".into()).into());
        }
        let mut control = incoming.accept()?;
        let message = read_message(&mut control, MAX_REGISTRATION_LEN).await?;
        let result = self.check(&message, host, source).await;
        if let Err(error) = &result {
            let refusal = DialReply::Refused { code: DialCode::Denied, message: error.to_string() };
            write_dial_reply(&mut control, &refusal).await?;
            control.shutdown().await.map_err(DialHeaderError::from)?;
        }
        let (agent, live) = result?;
        Ok((agent, control, live))
    }

    async fn check(
        &self,
        message: &[u8],
        host: &VerifiedHost,
        source: SocketAddr,
    ) -> Result<(AgentSession, Option<LiveGuard>), RegistrationError> {
        let registration: Registration = decode(message)?;
        registration.offer.check(host.identity())?;
        if registration.offer.services && !self.router.take_name(host.identity()) {
            return Err(RegistrationError::NameTaken { name: host.identity().name.to_string() });
        }
        let live = self.enter(host)?;
        let version = registration.version.chars().filter(|c| !c.is_control()).take(40).collect();
        let agent = AgentSession { host: host.identity().clone(), offer: registration.offer, version, source };
        self.events.connected(&agent).await.map_err(|reason| RegistrationError::Audit { reason })?;
        Ok((agent, live))
    }

    /// Waits until the agent takes its registration back or the link ends; tells it of proxies meanwhile, and leads its streams to the auth
    /// service there. An agent opens nothing besides: what else it tries is refused.
    async fn registered_until(&self, agent: &AgentSession, link: &Link, mut control: MuxStream, led: &mut Led) {
        let mut proxies = self.proxies.clone();
        proxies.mark_changed();
        let (mut nothing, mut listens) = ([0], true);
        loop {
            tokio::select! {
                incoming = link.accept() => match incoming {
                    Some(incoming) => self.lead(incoming, agent.source, led),
                    None => return,
                },
                _ = control.read(&mut nothing) => return, // its end; an agent says nothing more on it
                Some(()) = led.ended() => {}
                Ok(()) = proxies.changed(), if listens => {
                    let known = proxies.borrow_and_update().clone();
                    if known.is_empty() {
                        continue;
                    }
                    let notice = Notice::proxies(&known).to_json();
                    let told = Box::pin(write_message(&mut control, &notice, MAX_NOTICE_LEN));
                    // An agent of an earlier version reads nothing, and some day there is no room for more.
                    listens = matches!(timeout(NOTICE_DEADLINE, told).await, Ok(Ok(())));
                }
            }
        }
    }

    /// Leads a stream of an agent to the auth service, or refuses it.
    fn lead(&self, incoming: IncomingStream, source: SocketAddr, led: &mut Led) {
        match self.auth.as_ref().filter(|_| incoming.metadata() == AUTH_METADATA) {
            Some(auth) => led.lead(incoming, auth, source),
            None => refuse(incoming),
        }
    }

    /// The host's place among live work, by the certificate that it shows now.
    fn enter(&self, host: &VerifiedHost) -> Result<Option<LiveGuard>, RegistrationError> {
        let Some(live) = &self.live else { return Ok(None) };
        live.policy().policy().check_locks(&LockContext::of_host(host))?;
        Ok(Some(live.enter(Subject::host(host), Terms { grace: GRACE, ..Terms::default() })?))
    }
}

/// Waits until the host is shut out by whose certificate the link goes on now.
async fn shut_out(live: Option<watch::Receiver<Arc<LiveGuard>>>) -> EndReason {
    let Some(mut live) = live else { return std::future::pending().await };
    loop {
        let signal = live.borrow_and_update().signal();
        tokio::select! {
            reason = signal.ended() => return reason,
            Ok(()) = live.changed() => {}
        }
    }
}

fn cut(link: &Link, reason: &EndReason) {
    link.close(Code::Denied, &format!("this host is shut out: {reason}"));
}

/// An agent that can be dialled.
struct Registered {
    agent: Box<AgentSession>,
    link: Link,
    /// The registration holds as long as this is open; `None` when it broke at once.
    control: Option<MuxStream>,
    attachment: Attachment,
    /// Its place among live work.
    live: Option<watch::Receiver<Arc<LiveGuard>>>,
    /// While it can be taken up on another connection.
    kept: Option<Kept>,
}

/// Tells the agent that it can be dialled. The stream stays open for as long as the registration holds.
async fn confirm(mut control: MuxStream, auth: bool) -> Result<MuxStream, DialHeaderError> {
    write_registration_reply(&mut control, &DialReply::Connected, auth).await?;
    control.flush().await?;
    Ok(control)
}

fn refuse(incoming: IncomingStream) {
    incoming.reject(Code::NotOffered, "a proxy serves no streams of agents");
}

/// A notice that an agent has no room for is not waited for longer.
const NOTICE_DEADLINE: Duration = Duration::from_secs(1);
const REGISTRATION_DEADLINE: Duration = Duration::from_secs(10);
/// How long the services of a host that is shut out have for telling their users.
const GRACE: Duration = Duration::from_secs(1);
