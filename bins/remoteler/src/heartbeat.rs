//! Tells the auth service again and again what this process serves, so that it is found and soon forgotten when it is gone. Who is gone in order
//! says so: its last word counts as long as that of those who speak often.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

#[cfg(feature = "app")]
use remoteler_app::AppService;
use remoteler_core::{ApiError, ApiErrorKind, Heartbeat, HostApi, NodeRecord};
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
    /// The web apps.
    #[cfg(feature = "app")]
    pub(crate) apps: Option<AppService>,
    /// The proxy's public address.
    pub(crate) proxy: Option<String>,
}

/// The longest pause after a failure.
const MOST: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(2);
/// How long the last word may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// What the auth service does not take for what it says, and why: an address that is another app's, a name that a proxy cannot have. The host is heard all the same.
type Refused = BTreeMap<String, String>;

/// Announces once, and says when it will again.
///
/// # Errors
/// The first announcement that was not taken, but for those that are refused for what they say.
pub(crate) async fn announce(
    api: &dyn HostApi,
    announced: &Announced,
    heartbeat: Heartbeat,
) -> Result<Refused, ApiError> {
    let mut refused = Refused::new();
    if let Some((record, labels)) = &announced.node {
        api.announce_node(NodeRecord { labels: labels.read(), heartbeat, ..record.clone() }).await?;
    }
    #[cfg(feature = "kube")]
    for record in announced.kube.iter().flat_map(KubeService::records) {
        api.announce_kube(remoteler_core::KubeRecord { heartbeat, ..record }).await?;
    }
    if let Some(addr) = &announced.proxy {
        let taken = api.announce_proxy(addr.clone()).await;
        unless_refused(taken, || format!("proxy {addr}"), &mut refused)?;
    }
    // After the proxy, whose address apps may not take.
    #[cfg(feature = "app")]
    for record in announced.apps.iter().flat_map(AppService::records) {
        let name = record.name.clone();
        let taken = api.announce_app(remoteler_core::AppRecord { heartbeat, ..record }).await;
        unless_refused(taken, || format!("app {name}"), &mut refused)?;
    }
    Ok(refused)
}

/// Keeps what is refused for what it says apart from what failed.
fn unless_refused(
    taken: Result<(), ApiError>,
    what: impl FnOnce() -> String,
    refused: &mut Refused,
) -> Result<(), ApiError> {
    match taken {
        Err(cause) if matches!(cause.kind, ApiErrorKind::Conflict | ApiErrorKind::BadRequest) => {
            refused.insert(what(), cause.message);
            Ok(())
        }
        taken => taken,
    }
}

/// When to announce next, and whether the log should hear of it: once when the auth service stops taking heartbeats, once when it does
/// again, and once of each that it refuses. A pure machine.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    failures: u32,
    refused: Refused,
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

    /// Of what is refused that which was not before, or for another reason; and what was, and is not any more.
    fn refusals(&mut self, refused: Refused) -> (Refused, Vec<String>) {
        let before = std::mem::replace(&mut self.refused, refused);
        let new = self.refused.iter().filter(|(what, because)| before.get(*what) != Some(because));
        let new = new.map(|(what, because)| (what.clone(), because.clone())).collect();
        (new, before.into_keys().filter(|what| !self.refused.contains_key(what)).collect())
    }

    /// The same as [`Pulse::beat`], and says so in the log.
    pub(crate) fn observe(&mut self, result: Result<Refused, ApiError>, heartbeat: Heartbeat) -> Duration {
        let (wait, change) = self.beat(result.is_ok(), heartbeat);
        let result = result.map(|refused| {
            let (new, taken) = self.refusals(refused);
            for (what, cause) in new {
                tracing::warn!(what, cause, "the auth service refuses what this host announces; the rest is announced");
            }
            for what in taken {
                tracing::info!(what, "the auth service takes what it refused before");
            }
        });
        match (change, &result) {
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

/// Announces again and again until `stop`, first after `wait`, then as often as the host says that it is there; at once when that or the labels
/// change, and sooner after a failure.
pub(crate) async fn run(
    api: Arc<dyn HostApi>,
    announced: Announced,
    pulse: Pulse,
    wait: Duration,
    heartbeats: watch::Receiver<Heartbeat>,
    stop: CancellationToken,
) {
    let labels = announced.node.as_ref().map(|(_, labels)| labels.subscribe());
    // A proxy's record does not say how often it comes.
    let heartbeats = announced.proxy.is_none().then_some(heartbeats);
    let announced = Arc::new(announced);
    let say = |heartbeat| {
        let (api, announced) = (api.clone(), announced.clone());
        async move { announce(&*api, &announced, heartbeat).await }
    };
    say_again(say, (pulse, wait), (labels, heartbeats), stop).await;
}

async fn say_again<L, F>(
    say: impl Fn(Heartbeat) -> F,
    (mut pulse, mut wait): (Pulse, Duration),
    (mut labels, mut heartbeats): (Option<watch::Receiver<L>>, Option<watch::Receiver<Heartbeat>>),
    stop: CancellationToken,
) where
    F: Future<Output = Result<Refused, ApiError>>,
{
    let mut said = Heartbeat::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
            () = turn(&mut labels) => {}
            () = turn(&mut heartbeats) => {}
        }
        let heartbeat = heartbeats.as_mut().map(|period| *period.borrow_and_update()).unwrap_or_default();
        let taken = say(heartbeat).await;
        if taken.is_ok() {
            said = heartbeat;
        }
        wait = pulse.observe(taken, heartbeat);
    }
    if said > Heartbeat::default() {
        // When it is not heard, the one before counts.
        let _ = tokio::time::timeout(FAREWELL, say(Heartbeat::default())).await;
    }
}

/// Waits for another value; for ever where none will come.
async fn turn<T>(values: &mut Option<watch::Receiver<T>>) {
    if let Some(values) = values
        && values.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    };

    use tokio::time::{Instant, sleep};

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

    #[test]
    fn what_is_refused_is_named_once_and_the_host_is_heard() {
        let mut refused = Refused::new();
        let taken = |kind| Err(ApiError::new(kind, "that is another's"));
        for kind in [ApiErrorKind::Conflict, ApiErrorKind::BadRequest] {
            unless_refused(taken(kind), || "app wiki".into(), &mut refused).unwrap();
        }
        for kind in [ApiErrorKind::Unavailable, ApiErrorKind::Denied, ApiErrorKind::Copied] {
            assert_eq!(unless_refused(taken(kind), || "app lost".into(), &mut refused).unwrap_err().kind, kind);
        }
        assert_eq!(refused.keys().collect::<Vec<_>>(), ["app wiki"]);

        let mut pulse = Pulse::default();
        let seldom = Heartbeat::every(Duration::from_secs(300));
        assert_eq!(pulse.observe(Ok(refused.clone()), seldom), seldom.period(), "it speaks as seldom as others");
        assert_eq!(pulse.beat(false, seldom).1, Change::Lost, "a loss is told all the same");
        let mut now = |texts: &[(&str, &str)]| {
            let texts = texts.iter().map(|(what, because)| ((*what).into(), (*because).into()));
            let (new, taken) = pulse.refusals(texts.collect());
            (new.into_keys().collect::<Vec<_>>(), taken)
        };
        let none = Vec::<String>::new;
        assert_eq!(now(&[("app wiki", "that is another's")]), (none(), none()));
        assert_eq!(
            now(&[("app wiki", "another reason"), ("app b", "x")]),
            (vec!["app b".into(), "app wiki".into()], none())
        );
        assert_eq!(now(&[("app b", "x")]), (none(), vec!["app wiki".into()]));
        assert_eq!(now(&[("app b", "x"), ("app wiki", "another reason")]).0, ["app wiki"]);
    }

    /// Records what is said, and when; as many are not taken as `lost` says.
    #[derive(Default)]
    struct Said {
        words: Mutex<Vec<(u64, u64)>>,
        lost: AtomicU32,
    }

    impl Said {
        /// Says on, until `stop`.
        fn on(
            self: &Arc<Self>,
            period: &watch::Sender<Heartbeat>,
            labels: &watch::Sender<()>,
        ) -> (CancellationToken, tokio::task::JoinHandle<()>) {
            let (stop, began, said) = (CancellationToken::new(), Instant::now(), self.clone());
            let say = move |heartbeat: Heartbeat| {
                let said = said.clone();
                async move {
                    let lost = said.lost.fetch_update(SeqCst, SeqCst, |lost| lost.checked_sub(1)).is_ok();
                    said.words.lock().unwrap().push((began.elapsed().as_secs(), heartbeat.period().as_secs()));
                    if lost { Err(ApiError::new(ApiErrorKind::Unavailable, "away")) } else { Ok(Refused::new()) }
                }
            };
            let follows = (Some(labels.subscribe()), Some(period.subscribe()));
            let start = (Pulse::default(), Heartbeat::default().period());
            let running = tokio::spawn(say_again(say, start, follows, stop.clone()));
            (stop, running)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_period_is_said_at_once_and_who_is_gone_in_order_says_the_shortest() {
        let (said, period, labels) =
            (Arc::new(Said::default()), watch::Sender::new(Heartbeat::from(300)), watch::Sender::new(()));
        let (stop, running) = said.on(&period, &labels);
        sleep(Duration::from_secs(400)).await;
        period.send_replace(Heartbeat::from(30));
        sleep(Duration::from_secs(35)).await;
        period.send_replace(Heartbeat::from(1800));
        sleep(Duration::from_secs(1000)).await;
        labels.send_replace(());
        sleep(Duration::from_secs(65)).await;
        stop.cancel();
        running.await.unwrap();
        let expected = [(30, 300), (330, 300), (400, 30), (430, 30), (435, 1800), (1435, 1800), (1500, 30)];
        assert_eq!(*said.words.lock().unwrap(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn who_speaks_often_says_no_last_word_and_one_that_is_not_heard_is_said_again_soon() {
        let (said, period, labels) =
            (Arc::new(Said::default()), watch::Sender::new(Heartbeat::default()), watch::Sender::new(()));
        said.lost.store(2, SeqCst);
        let (stop, running) = said.on(&period, &labels);
        // Nobody will say another period any more, and the present one holds.
        drop((period, labels));
        sleep(Duration::from_secs(70)).await;
        stop.cancel();
        running.await.unwrap();
        assert_eq!(*said.words.lock().unwrap(), [(30, 30), (32, 30), (36, 30), (66, 30)]);
    }
}
