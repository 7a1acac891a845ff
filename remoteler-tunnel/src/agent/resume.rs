//! Keeps one link going: when its connection is lost, makes others until the proxy takes one of them or says that the link is no more.

use std::sync::Arc;
use std::time::Duration;

use remoteler_core::{HostId, fill_random};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::connect::connect_proxy;
use super::{AgentConfig, AgentError};
use crate::backoff::Backoff;
use crate::connection::{Link, TakeUpError};
use crate::resume::{EXPORT_CHANNEL, ResumeKeys};
use crate::tls::ExportsKeys;

/// Where the link goes on.
pub(super) struct Place {
    pub(super) address: String,
    pub(super) proxy: HostId,
    /// Changes when waiting is over.
    pub(super) at_once: watch::Receiver<u64>,
}

/// Until the link ends.
pub(super) async fn keep_going(config: Arc<AgentConfig>, mut place: Place, link: Link, keys: ResumeKeys) {
    let mut attempt = 0;
    // A path that is lost is often back at once; one that is not, is asked for every few seconds while streams wait.
    let mut backoff = Backoff::new(Duration::from_millis(100), MOST_BETWEEN);
    let mut taken_up_at: Option<Instant> = None;
    while link.suspended().await {
        if taken_up_at.is_some_and(|at| at.elapsed() < OF_USE) {
            sleep(backoff.next(u64::from_ne_bytes(fill_random(&*config.entropy)))).await;
        } else {
            backoff.reset();
        }
        while link.suspended_since().is_some() {
            attempt += 1;
            let before = link.resumptions();
            match timeout(ATTEMPT, Box::pin(take_up(&config, &place, &link, &keys, attempt))).await {
                Ok(Ok(())) => {
                    tracing::info!(proxy = %place.address, attempt, "tunnel goes on over another connection");
                    // It may be lost again already: then the state has nothing to show of it.
                    link.taken_up_since(before).await;
                    taken_up_at = Some(Instant::now());
                    break;
                }
                Ok(Err(Failure::Lost(reason))) => {
                    link.give_up(&reason);
                    link.closed().await;
                    return;
                }
                Ok(Err(Failure::Again(reason))) => {
                    tracing::debug!(proxy = %place.address, attempt, reason, "the tunnel has no other connection yet");
                }
                Err(_) => tracing::debug!(proxy = %place.address, attempt, "no other connection in time"),
            }
            place.at_once.mark_unchanged();
            tokio::select! {
                () = sleep(backoff.next(u64::from_ne_bytes(fill_random(&*config.entropy)))) => {}
                // Without an agent nobody calls, and the wait goes on.
                Ok(()) = place.at_once.changed() => backoff.reset(),
            }
        }
    }
}

enum Failure {
    /// The proxy knows nothing of the link.
    Lost(String),
    /// Another attempt may do.
    Again(String),
}

async fn take_up(
    config: &AgentConfig,
    place: &Place,
    link: &Link,
    keys: &ResumeKeys,
    attempt: u32,
) -> Result<(), Failure> {
    let again = |cause: AgentError| Failure::Again(cause.to_string());
    let (io, reached) = connect_proxy(config, &place.address).await.map_err(again)?;
    if reached != place.proxy {
        // Behind a balancer the next attempt may lead to the right one.
        return Err(Failure::Again(format!("proxy {reached} answered for {}", place.proxy)));
    }
    let Some(channel) = io.export(EXPORT_CHANNEL) else {
        return Err(Failure::Lost("the TLS session exports no keys".into()));
    };
    match link.take_up(Box::new(io), keys, attempt, &channel).await {
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
const MOST_BETWEEN: Duration = Duration::from_secs(2);
