//! The dials of a router: to an address, through the link of an agent that is here, or through another proxy that has one. Owns for how long each
//! of them is waited for. Never decides who may dial, and keeps nothing of what was said.

use std::time::Duration;

use futures::FutureExt;
use remoteler_core::HostId;
use scopeguard::ScopeGuard;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::{DialError, Place, Router};
use crate::connect::connect_tcp;
use crate::dial::{DialHeader, TargetKind};
use crate::mux::error::Code;
use crate::stream::BoxedStream;

/// What becomes of a dial into a link whose connection owes an answer for longer than one takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    /// It ends: others may have a connection that is not silent.
    Ends,
    /// It waits, as long as a dial may take.
    IsWaitedOut,
}

/// A stream to a target.
#[derive(Debug)]
pub struct Dialled {
    /// The stream.
    pub stream: BoxedStream,
    /// How many of the octets that were to be said first were written into it: the others come next.
    pub said: usize,
}

impl Dialled {
    fn unsaid(stream: BoxedStream) -> Self {
        Self { stream, said: 0 }
    }
}

impl Router {
    /// Opens a byte stream to the header's target.
    ///
    /// # Errors
    /// [`DialError`], whose text may be shown to the user.
    pub async fn dial(&self, header: &DialHeader) -> Result<BoxedStream, DialError> {
        Ok(self.dial_saying(header, &[]).await?.stream)
    }

    /// Like [`dial`](Self::dial), and says `first` to an agent whose link is here with the question, as far as its first credit goes
    /// ([`Limits::stream_window`](crate::Limits)): so that costs no round trip. Only for octets that may arrive more than once, also after the dial has
    /// failed or was dropped: another way is tried when the first brings no answer.
    ///
    /// # Errors
    /// [`DialError`], whose text may be shown to the user.
    pub async fn dial_saying(&self, header: &DialHeader, first: &[u8]) -> Result<Dialled, DialError> {
        let within = self.dial_deadline;
        match timeout(within, self.dial_now(header, first)).await {
            Ok(result) => result,
            Err(_) => Err(DialError::Timeout { target: header.target.clone(), within }),
        }
    }

    /// Opens a byte stream to the header's target for another proxy, which has no link of its agent: through a link that is here, and no other way.
    ///
    /// # Errors
    /// [`DialError`]; [`DialError::NotFound`] also when the target's agent has no link here.
    pub async fn dial_linked(&self, header: &DialHeader) -> Result<BoxedStream, DialError> {
        let not_here = || DialError::NotFound { target: header.target.clone() };
        let within = self.dial_deadline;
        let dialling = async {
            let host = match header.target.kind {
                TargetKind::Service => self.host_of_service(&header.target),
                TargetKind::Ssh | TargetKind::Kube | TargetKind::App => {
                    match self.inventory.locate(&header.target).await {
                        Ok(Some(Place::Agent(host))) => Some(host),
                        Ok(Some(Place::Address(_) | Place::Local) | None) => None,
                        Err(reason) => return Err(DialError::Lookup { target: header.target.clone(), reason }),
                    }
                }
            };
            match self.dial_agent(host.ok_or_else(not_here)?, header, &[], Silence::Ends).await {
                Err(DialError::TunnelDown { .. }) => Err(not_here()),
                dialled => Ok(dialled?.stream),
            }
        };
        timeout(within, dialling)
            .await
            .unwrap_or_else(|_| Err(DialError::Timeout { target: header.target.clone(), within }))
    }

    /// Through the link of the agent here, or through another proxy that has one. A proxy that has just started waits a little for its agents:
    /// they are on their way.
    async fn dial_anywhere(
        &self,
        header: &DialHeader,
        first: &[u8],
        host: impl Fn() -> Option<HostId> + Send + Sync,
    ) -> Result<Dialled, DialError> {
        let mut attached = self.attached.subscribe();
        let until = Instant::now() + PATIENCE;
        let here = |silence| {
            let host = host().ok_or_else(|| DialError::NotFound { target: header.target.clone() });
            async move { self.dial_agent(host?, header, first, silence).await }
        };
        let missing = match here(Silence::Ends).await {
            Err(error @ (DialError::TunnelDown { .. } | DialError::NotFound { .. })) => error,
            dialled => return dialled,
        };
        if let Some(stream) = self.others.dial(header).await? {
            return Ok(Dialled::unsaid(stream));
        }
        // Nobody else has it: what is silent may yet speak, and what was lost may be back.
        if host().is_some_and(|host| self.has_connection(host)) {
            return here(Silence::IsWaitedOut).await;
        }
        let awaited =
            self.started.elapsed() < YOUNG && !matches!(missing, DialError::TunnelDown { down_since: Some(_), .. });
        while awaited && matches!(timeout_at(until, attached.changed()).await, Ok(Ok(()))) {
            match here(Silence::IsWaitedOut).await {
                Err(DialError::TunnelDown { .. } | DialError::NotFound { .. }) => {}
                dialled => return dialled,
            }
        }
        Err(missing)
    }

    async fn dial_now(&self, header: &DialHeader, first: &[u8]) -> Result<Dialled, DialError> {
        let target = || header.target.clone();
        if header.target.kind == TargetKind::Service {
            return self.dial_anywhere(header, first, || self.host_of_service(&header.target)).await;
        }
        let place = self.inventory.locate(&header.target).await;
        match place.map_err(|reason| DialError::Lookup { target: target(), reason })? {
            None => Err(DialError::NotFound { target: target() }),
            Some(Place::Address(address)) => {
                let stream = connect_tcp(&address, self.dial_deadline).await;
                let stream = stream.map_err(|source| DialError::Connect { target: target(), source })?;
                Ok(Dialled::unsaid(Box::new(stream)))
            }
            Some(Place::Agent(host)) => self.dial_anywhere(header, first, || Some(host)).await,
            Some(Place::Local) => {
                let Some(service) = self.local.get(&header.target.kind).cloned() else {
                    return Err(DialError::NotHere { target: target() });
                };
                let (near, far) = tokio::io::duplex(LOCAL_BUFFER);
                let header = header.clone();
                // Ends with the stream: the service is given nothing else to wait for.
                tokio::spawn(async move { service.serve(Box::new(far), header).await });
                Ok(Dialled::unsaid(Box::new(near)))
            }
        }
    }

    /// Whether the agent has a link that has a connection.
    fn has_connection(&self, host: HostId) -> bool {
        self.lock().up.get(&host).is_some_and(|attached| attached.link.suspended_since().is_none())
    }

    async fn dial_agent(
        &self,
        host: HostId,
        header: &DialHeader,
        first: &[u8],
        silence: Silence,
    ) -> Result<Dialled, DialError> {
        let target = || header.target.clone();
        let link = {
            let agents = self.lock();
            match agents.up.get(&host) {
                Some(attached) => attached.link.clone(),
                None => {
                    let down_since = agents.down.get(&host).copied();
                    return Err(DialError::TunnelDown { target: target(), down_since });
                }
            }
        };
        let down = |since: std::time::Instant| {
            let down_since = Some(self.clock.now().minus(Instant::from_std(since).elapsed()));
            DialError::TunnelDown { target: target(), down_since }
        };
        if let Some(lost) = link.suspended_since()
            && timeout(PATIENCE, link.resumed()).await.is_err()
        {
            return Err(down(lost));
        }
        let opened = link.open(header.to_json()).map_err(|source| DialError::Open { target: target(), source })?;
        // With a dial that is given up ends what it said and has not left: nobody waits for it, and others do.
        let mut stream = scopeguard::guard(opened, |stream| stream.reset(Code::Cancelled.number()));
        // An error of the stream is what its answer says.
        let said = match first {
            [] => 0,
            first => stream.write(first).now_or_never().and_then(Result::ok).unwrap_or_default(),
        };
        let accepted = loop {
            match timeout(LOOKS_EVERY, stream.accepted()).await {
                Ok(accepted) => break accepted,
                Err(_) if silence == Silence::IsWaitedOut => {}
                Err(_) => {
                    if let Some(since) = link.silent_since() {
                        return Err(down(since));
                    }
                }
            }
        };
        accepted.map_err(|source| DialError::Refused { target: target(), source })?;
        Ok(Dialled { stream: Box::new(ScopeGuard::into_inner(stream)), said })
    }
}

/// How long a dial waits for a link that has lost its connection.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a dial that waits for its agent looks whether the link has fallen silent.
const LOOKS_EVERY: Duration = Duration::from_millis(250);
/// How long after its start a proxy waits for agents that are dialled and not there yet.
const YOUNG: Duration = Duration::from_secs(15);
pub(super) const DIAL_DEADLINE: Duration = Duration::from_secs(10);
const LOCAL_BUFFER: usize = 64 * 1024;
