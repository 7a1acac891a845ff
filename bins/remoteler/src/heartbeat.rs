//! Tells the auth service again and again what this process serves, so that it is found and soon forgotten when it is gone. Who is gone in order
//! says so: its last word counts as long as that of those who speak often.

use std::{sync::Arc, time::Duration};

use remoteler_core::{ApiError, AuthApi, Heartbeat, NodeRecord};
#[cfg(feature = "kube")]
use remoteler_kube::KubeService;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::services::labels::LiveLabels;

/// What is announced.
#[derive(Default)]
pub(crate) struct Announced {
    /// The node, and its labels as they change.
    pub(crate) node: Option<(NodeRecord, Arc<LiveLabels>)>,
    /// The Kubernetes clusters.
    #[cfg(feature = "kube")]
    pub(crate) kube: Option<KubeService>,
    /// The proxy's public address.
    pub(crate) proxy: Option<String>,
}

/// The longest pause after a failure.
const MOST: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(2);
/// How long the last word may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// Announces once, and says when it will again.
///
/// # Errors
/// The first announcement that was not taken.
pub(crate) async fn announce(api: &dyn AuthApi, announced: &Announced, heartbeat: Heartbeat) -> Result<(), ApiError> {
    if let Some((record, labels)) = &announced.node {
        api.announce_node(NodeRecord { labels: labels.read(), heartbeat, ..record.clone() }).await?;
    }
    #[cfg(feature = "kube")]
    for record in announced.kube.iter().flat_map(KubeService::records) {
        api.announce_kube(remoteler_core::KubeRecord { heartbeat, ..record }).await?;
    }
    if let Some(addr) = &announced.proxy {
        api.announce_proxy(addr.clone()).await?;
    }
    Ok(())
}

/// When to announce next, and whether the log should hear of it: once when the auth service stops taking heartbeats, once when it does
/// again. A pure machine.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    failures: u32,
}

/// What the log is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The first heartbeat that was not taken.
    Lost,
    /// The first that was taken again.
    Back,
    /// As before.
    None,
}

impl Pulse {
    /// After an announcement that was taken or not.
    pub(crate) fn beat(&mut self, taken: bool, heartbeat: Heartbeat) -> (Duration, Change) {
        let before = self.failures;
        if taken {
            self.failures = 0;
            return (heartbeat.period(), if before > 0 { Change::Back } else { Change::None });
        }
        self.failures = before.saturating_add(1);
        let wait = RETRY.saturating_mul(1 << before.min(8)).min(MOST);
        (wait, if before == 0 { Change::Lost } else { Change::None })
    }

    /// The same, and says so in the log.
    pub(crate) fn observe(&mut self, result: &Result<(), ApiError>, heartbeat: Heartbeat) -> Duration {
        let (wait, change) = self.beat(result.is_ok(), heartbeat);
        match (change, result) {
            (Change::Lost, Err(cause)) => {
                tracing::warn!(%cause, "the auth service does not take heartbeats; they are tried again, less and less often");
            }
            (Change::Back, _) => tracing::info!("the auth service takes heartbeats again"),
            (_, Err(cause)) => {
                tracing::debug!(%cause, retry_in = wait.as_secs(), "the auth service does not take heartbeats")
            }
            (Change::Lost | Change::None, Ok(())) => {}
        }
        wait
    }
}

/// Announces again and again until `stop`, first after `wait`, then as often as the host says that it is there; sooner after a failure.
pub(crate) async fn run(
    api: Arc<dyn AuthApi>,
    announced: Announced,
    mut pulse: Pulse,
    mut wait: Duration,
    heartbeats: watch::Receiver<Heartbeat>,
    stop: CancellationToken,
) {
    let mut said = Heartbeat::default();
    let mut labels = announced.node.as_ref().map(|(_, labels)| labels.subscribe());
    loop {
        let next = async {
            match &mut labels {
                // New labels are announced at once.
                Some(labels) => drop(tokio::time::timeout(wait, labels.changed()).await),
                None => tokio::time::sleep(wait).await,
            }
        };
        if stop.run_until_cancelled(next).await.is_none() {
            break;
        }
        // A proxy's record does not say how often it comes.
        let heartbeat = if announced.proxy.is_some() { Heartbeat::default() } else { *heartbeats.borrow() };
        let taken = announce(&*api, &announced, heartbeat).await;
        if taken.is_ok() {
            said = heartbeat;
        }
        wait = pulse.observe(&taken, heartbeat);
    }
    if said > Heartbeat::default() {
        // When it is not heard, the one before counts.
        let _ = tokio::time::timeout(FAREWELL, announce(&*api, &announced, Heartbeat::default())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_auth_service_that_is_away_is_asked_less_and_less_often_and_named_once() {
        let mut pulse = Pulse::default();
        let seldom = Heartbeat::every(Duration::from_secs(300));
        assert_eq!(pulse.beat(true, seldom), (seldom.period(), Change::None));
        let waits: Vec<_> = (0..40).map(|_| pulse.beat(false, seldom)).collect();
        let seconds: Vec<_> = waits.iter().take(6).map(|(wait, _)| wait.as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 30, 30]);
        assert_eq!(waits.iter().filter(|(_, change)| *change == Change::Lost).count(), 1);
        assert!(waits.iter().all(|(wait, change)| *wait <= MOST && *change != Change::Back));
        assert_eq!(pulse.beat(true, seldom), (seldom.period(), Change::Back));
        assert_eq!(pulse.beat(true, Heartbeat::default()), (MOST, Change::None));
        assert_eq!(pulse.beat(false, seldom), (RETRY, Change::Lost), "a new failure begins anew");
    }
}
