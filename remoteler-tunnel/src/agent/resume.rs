//! Keeps one link going: when its connection is lost, makes others until the proxy takes one of them or says that the link is no more.

use std::sync::Arc;
use std::time::Duration;

use remoteler_core::fill_random;
use tokio::time::{sleep, timeout};

use super::{AgentConfig, AgentError, connect_proxy};
use crate::backoff::Backoff;
use crate::connection::{Link, TakeUpError};
use crate::resume::{EXPORT_CHANNEL, ResumeKeys};
use crate::tls::ExportsKeys;

/// Until the link ends.
pub(super) async fn keep_going(config: Arc<AgentConfig>, link: Link, keys: ResumeKeys) {
    let mut attempt = 0;
    while link.suspended().await {
        // A path that is lost is often back at once; one that is not, is asked for every few seconds while streams wait.
        let mut backoff = Backoff::new(Duration::from_millis(100), MOST_BETWEEN);
        while link.suspended_since().is_some() {
            attempt += 1;
            match timeout(ATTEMPT, Box::pin(take_up(&config, &link, &keys, attempt))).await {
                Ok(Ok(())) => {
                    tracing::info!(proxy = %config.proxy, attempt, "tunnel goes on over another connection");
                    link.resumed().await;
                    break;
                }
                Ok(Err(Failure::Lost(reason))) => {
                    link.give_up(&reason);
                    link.closed().await;
                    return;
                }
                Ok(Err(Failure::Again(reason))) => {
                    tracing::debug!(proxy = %config.proxy, attempt, reason, "the tunnel has no other connection yet");
                }
                Err(_) => tracing::debug!(proxy = %config.proxy, attempt, "no other connection in time"),
            }
            sleep(backoff.next(u64::from_ne_bytes(fill_random(&*config.entropy)))).await;
        }
    }
}

enum Failure {
    /// The proxy knows nothing of the link.
    Lost(String),
    /// Another attempt may do.
    Again(String),
}

async fn take_up(config: &AgentConfig, link: &Link, keys: &ResumeKeys, attempt: u32) -> Result<(), Failure> {
    let again = |cause: AgentError| Failure::Again(cause.to_string());
    let io = connect_proxy(config).await.map_err(again)?;
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
const MOST_BETWEEN: Duration = Duration::from_secs(2);
