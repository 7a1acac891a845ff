//! Keeps one link going: when its connection is lost, makes others until the proxy takes one of them or says that the link is no more.

use std::sync::Arc;
use std::time::Duration;

use remoteler_core::{HostId, fill_random};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::AgentConfig;
use super::connect::connect_proxy;
use crate::backoff::Backoff;
use crate::connection::{Link, TakeUpError};
use crate::link::DOUBT_AFTER;
use crate::resume::{Channel, EXPORT_CHANNEL, ResumeKeys};
use crate::stream::BoxedStream;
use crate::tls::ExportsKeys;

/// Where a link goes on. A proxy over TLS is one; a test has others.
pub(crate) trait Place: Send + Sync {
    /// Another connection to the proxy that has the link, and what is particular to it.
    fn connect(&self) -> impl Future<Output = Result<(BoxedStream, Channel), Failure>> + Send;
    /// Spreads the attempts.
    fn random(&self) -> u64;
    /// For the log.
    fn address(&self) -> &str;
}

/// Why a connection did not serve.
#[derive(Debug)]
pub(crate) enum Failure {
    /// None will: the link is lost.
    Lost(String),
    /// Another attempt may do.
    Again(String),
}

/// A proxy, over TLS.
pub(super) struct Proxy {
    pub(super) config: Arc<AgentConfig>,
    pub(super) address: String,
    pub(super) id: HostId,
}

impl Place for Proxy {
    async fn connect(&self) -> Result<(BoxedStream, Channel), Failure> {
        let (io, reached) =
            connect_proxy(&self.config, &self.address).await.map_err(|cause| Failure::Again(cause.to_string()))?;
        if reached != self.id {
            // Behind a balancer the next attempt may lead to the right one.
            return Err(Failure::Again(format!("proxy {reached} answered for {}", self.id)));
        }
        match io.export(EXPORT_CHANNEL) {
            Some(channel) => Ok((io, channel)),
            None => Err(Failure::Lost("the TLS session exports no keys".into())),
        }
    }

    fn random(&self) -> u64 {
        u64::from_ne_bytes(fill_random(&*self.config.entropy))
    }

    fn address(&self) -> &str {
        &self.address
    }
}

/// Until the link ends. Waits for nothing once `at_once` changes.
pub(crate) async fn keep_going(place: impl Place, mut at_once: watch::Receiver<u64>, link: Link, keys: ResumeKeys) {
    let mut attempt = 0;
    // A path that is lost is often back at once; one that is not, is asked for every few seconds while streams wait.
    let mut backoff = Backoff::new(Duration::from_millis(100), MOST_BETWEEN);
    let mut rest = LEAST_REST;
    let mut needless_at: Option<Instant> = None;
    let mut taken_up_at: Option<Instant> = None;
    while let Some(trouble) = trouble(&link).await {
        match trouble {
            Trouble::Doubted { since } => {
                attempt += 1;
                if beside(&place, &link, &keys, attempt, since).await {
                    taken_up_at = Some(Instant::now());
                    rest = LEAST_REST;
                    continue;
                }
                // Needless, or as lost as this one: the next one waits longer, so that a proxy that is slow is not made slower.
                if needless_at.replace(Instant::now()).is_some_and(|at| at.elapsed() > FORGOTTEN_AFTER) {
                    rest = LEAST_REST;
                }
                let spread = Duration::from_millis(place.random() % 100);
                let _ = timeout(rest + spread, link.suspended()).await;
                rest = (2 * rest).min(MOST_REST);
                continue;
            }
            Trouble::Suspended if taken_up_at.is_some_and(|at| at.elapsed() < OF_USE) => {
                sleep(backoff.next(place.random())).await;
            }
            Trouble::Suspended => backoff.reset(),
        }
        while link.suspended_since().is_some() {
            attempt += 1;
            let before = link.resumptions();
            match timeout(ATTEMPT, Box::pin(take_up(&place, &link, &keys, attempt))).await {
                Ok(Ok(())) => {
                    tracing::info!(proxy = place.address(), attempt, "tunnel goes on over another connection");
                    // It may be lost again already: then the state has nothing to show of it.
                    link.taken_up_since(before).await;
                    taken_up_at = Some(Instant::now());
                    rest = LEAST_REST;
                    break;
                }
                Ok(Err(Failure::Lost(reason))) => {
                    link.give_up(&reason);
                    link.closed().await;
                    return;
                }
                Ok(Err(Failure::Again(reason))) => {
                    tracing::debug!(proxy = place.address(), attempt, reason, "the tunnel has no other connection yet");
                }
                Err(_) => tracing::debug!(proxy = place.address(), attempt, "no other connection in time"),
            }
            at_once.mark_unchanged();
            tokio::select! {
                biased;
                () = sleep(backoff.next(place.random())) => {}
                // Without an agent nobody calls, and the wait goes on.
                Ok(()) = at_once.changed() => backoff.reset(),
            }
        }
    }
}

/// Why a link needs another connection.
enum Trouble {
    /// It has none.
    Suspended,
    /// The one it has is silent.
    Doubted {
        /// Since when.
        since: std::time::Instant,
    },
}

/// Waits for it; `None` when the link has ended.
async fn trouble(link: &Link) -> Option<Trouble> {
    tokio::select! {
        biased;
        suspended = link.suspended() => suspended.then_some(Trouble::Suspended),
        since = link.doubted() => Some(Trouble::Doubted { since }),
    }
}

/// Makes another connection while the present one is silent; true when the link goes on there. When it stands and the other has not said a word
/// all the while, the proxy is asked there for the link: one that answers, and not here, is no longer behind this one. The present one is let go
/// only when that says yes: who answers may be another process of the proxy, which does not reach the link.
async fn beside(place: &impl Place, link: &Link, keys: &ResumeKeys, attempt: u32, since: std::time::Instant) -> bool {
    let connection = match timeout(ATTEMPT, Box::pin(place.connect())).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(Failure::Again(cause) | Failure::Lost(cause))) => {
            tracing::debug!(proxy = place.address(), cause, "a tunnel's connection is silent, and there is no other");
            return false;
        }
        Err(_) => return false,
    };
    let before = link.resumptions();
    let Some(_held) = link.hold(since) else { return false };
    match timeout(MOST_HELD, Box::pin(ask(link, keys, attempt, connection))).await {
        Ok(Ok(())) => {
            tracing::info!(
                proxy = place.address(),
                attempt,
                "tunnel goes on over another connection, the one before was silent"
            );
            link.taken_up_since(before).await;
            true
        }
        Ok(Err(Failure::Lost(reason) | Failure::Again(reason))) => {
            tracing::debug!(
                proxy = place.address(),
                attempt,
                reason,
                "a tunnel's connection is silent and keeps its place"
            );
            false
        }
        Err(_) => false,
    }
}

async fn take_up(place: &impl Place, link: &Link, keys: &ResumeKeys, attempt: u32) -> Result<(), Failure> {
    ask(link, keys, attempt, place.connect().await?).await
}

/// Asks for the link on a connection that stands.
async fn ask(
    link: &Link,
    keys: &ResumeKeys,
    attempt: u32,
    (io, channel): (BoxedStream, Channel),
) -> Result<(), Failure> {
    match link.take_up(io, keys, attempt, &channel).await {
        Ok(()) => Ok(()),
        Err(TakeUpError::Resume(cause)) => Err(Failure::Lost(cause.to_string())),
        Err(cause @ TakeUpError::Io(_)) => Err(Failure::Again(cause.to_string())),
        Err(cause @ TakeUpError::Over) => Err(Failure::Lost(cause.to_string())),
    }
}

/// For one attempt, from the name's resolution to the proxy's answer.
const ATTEMPT: Duration = Duration::from_secs(10);
/// A connection that was lost sooner is not made anew without a pause.
const OF_USE: Duration = Duration::from_millis(20);
/// For the proxy's answer while a connection is held: well before the other side doubts it.
const MOST_HELD: Duration = Duration::from_secs(DOUBT_AFTER.as_secs() / 2);
const MOST_BETWEEN: Duration = Duration::from_secs(2);
/// After a connection that was made beside a silent one and not needed.
const LEAST_REST: Duration = Duration::from_millis(500);
const MOST_REST: Duration = Duration::from_secs(30);
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);
