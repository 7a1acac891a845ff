//! Tells the auth service again and again what this process serves, so that it is found and soon forgotten when it is gone.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "app")]
use remoteler_app::AppService;
use remoteler_core::{ApiError, AuthApi, NodeRecord};
#[cfg(feature = "kube")]
use remoteler_kube::KubeService;
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
    /// The web apps.
    #[cfg(feature = "app")]
    pub(crate) apps: Option<AppService>,
    /// The proxy's public address.
    pub(crate) proxy: Option<String>,
}

const PERIOD: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(2);

/// Announces once.
///
/// # Errors
/// The first announcement that was not taken.
pub(crate) async fn announce(api: &dyn AuthApi, announced: &Announced) -> Result<(), ApiError> {
    if let Some((record, labels)) = &announced.node {
        api.announce_node(NodeRecord { labels: labels.read(), ..record.clone() }).await?;
    }
    #[cfg(feature = "kube")]
    for record in announced.kube.iter().flat_map(KubeService::records) {
        api.announce_kube(record).await?;
    }
    if let Some(addr) = &announced.proxy {
        api.announce_proxy(addr.clone()).await?;
    }
    // After the proxy, whose address apps may not take. One that is refused for its address keeps the others from nothing.
    #[cfg_attr(not(feature = "app"), expect(unused_mut, reason = "only apps change it"))]
    let mut taken = Ok(());
    #[cfg(feature = "app")]
    for record in announced.apps.iter().flat_map(AppService::records) {
        taken = taken.and(api.announce_app(record).await);
    }
    taken
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
    pub(crate) fn beat(&mut self, taken: bool) -> (Duration, Change) {
        let before = self.failures;
        if taken {
            self.failures = 0;
            return (PERIOD, if before > 0 { Change::Back } else { Change::None });
        }
        self.failures = before.saturating_add(1);
        let wait = RETRY.saturating_mul(1 << before.min(8)).min(PERIOD);
        (wait, if before == 0 { Change::Lost } else { Change::None })
    }

    /// The same, and says so in the log.
    pub(crate) fn observe(&mut self, result: &Result<(), ApiError>) -> Duration {
        let (wait, change) = self.beat(result.is_ok());
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

/// Announces again and again until `stop`, first after `wait`; sooner after a failure.
pub(crate) async fn run(
    api: Arc<dyn AuthApi>,
    announced: Announced,
    mut pulse: Pulse,
    mut wait: Duration,
    stop: CancellationToken,
) {
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
            return;
        }
        wait = pulse.observe(&announce(&*api, &announced).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_auth_service_that_is_away_is_asked_less_and_less_often_and_named_once() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.beat(true), (PERIOD, Change::None));
        let waits: Vec<_> = (0..40).map(|_| pulse.beat(false)).collect();
        let seconds: Vec<_> = waits.iter().take(6).map(|(wait, _)| wait.as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 30, 30]);
        assert_eq!(waits.iter().filter(|(_, change)| *change == Change::Lost).count(), 1);
        assert!(waits.iter().all(|(wait, change)| *wait <= PERIOD && *change != Change::Back));
        assert_eq!(pulse.beat(true), (PERIOD, Change::Back));
        assert_eq!(pulse.beat(true), (PERIOD, Change::None));
        assert_eq!(pulse.beat(false), (RETRY, Change::Lost), "a new failure begins anew");
    }
}
