//! A service's view of the rules: followed, kept on disk, and in force while the auth service is away; and what time does to it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use remoteler_client::{PolicyError, PolicyRefresher, RemoteAuth};
use remoteler_core::{
    ApiErrorKind, Clock, Knowledge, Lock, LockContext, LockMode, LockTarget, Locked, ManualClock, PolicyLimits,
    PolicySource, PolicyVersion, PolicyView, Resource, RoleName, RoleSpec, SystemClock, TrustBundle,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::Cluster,
    service::{self, Answer, ok},
};

struct Rules {
    trust: TrustBundle,
    roles: Vec<Resource>,
    limits: PolicyLimits,
    /// Parts that were sent, and how often somebody asked.
    sent: Vec<&'static str>,
    asked: usize,
}

impl Rules {
    fn new(trust: TrustBundle, roles: Vec<Resource>) -> Arc<Mutex<Self>> {
        let limits = PolicyLimits::default();
        Arc::new(Mutex::new(Self { trust, roles, limits, sent: Vec::new(), asked: 0 }))
    }

    fn answer(&mut self, known: Option<PolicyVersion>) -> Answer {
        self.asked += 1;
        let view = PolicyView::new(&self.trust, self.roles.clone(), self.limits.clone());
        let Some(update) = view.since(view.version(), known) else { return (204, String::new()) };
        let parts = [
            ("trust", update.trust.is_some()),
            ("revoked", update.revoked.is_some()),
            ("roles", update.roles.is_some()),
            ("limits", update.limits.is_some()),
        ];
        self.sent.extend(parts.into_iter().filter_map(|(name, there)| there.then_some(name)));
        ok(&update)
    }
}

/// Answers at once, also when nothing has changed.
fn serve(dir: &tempfile::TempDir, rules: Arc<Mutex<Rules>>) -> (RemoteAuth, JoinHandle<()>) {
    let answer = move |what: &str, _: &[u8]| -> Answer {
        let query = what.strip_prefix("GET /v1/policy?").unwrap_or_else(|| panic!("{what}"));
        let known = query.split('&').find_map(|pair| pair.strip_prefix("known=")).map(|text| text.parse().unwrap());
        rules.lock().unwrap().answer(known)
    };
    let (socket, task) = service::unix(&dir.path().join("auth.sock"), Arc::new(answer));
    (RemoteAuth::unix(&socket), task)
}

fn role(name: &str) -> Resource {
    Resource::role(&RoleName::new(name).unwrap(), &RoleSpec::default())
}

fn names(source: &dyn PolicySource) -> Vec<String> {
    source.policy().roles.keys().map(ToString::to_string).collect()
}

#[tokio::test]
async fn the_last_known_rules_hold_while_auth_is_away_and_after_a_restart() {
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::new("root"));
    let rules = Rules::new(cluster.trust(), vec![role("a")]);
    let (remote, task) = serve(&dir, rules.clone());
    let mut refresher = PolicyRefresher::load(&dir.path().join("data"), cluster.trust()).unwrap();
    let source = refresher.shared();
    assert!(names(&*source).is_empty());

    assert!(refresher.refresh(&remote).await.unwrap());
    assert!(!refresher.refresh(&remote).await.unwrap());
    rules.lock().unwrap().roles.push(role("b"));
    assert!(refresher.refresh(&remote).await.unwrap());
    assert_eq!(names(&*source), ["a", "b"]);

    task.abort();
    assert!(task.await.is_err());
    assert!(matches!(refresher.refresh(&remote).await, Err(PolicyError::Auth(_))));
    assert_eq!(names(&*source), ["a", "b"]);
    drop(refresher);
    let again = PolicyRefresher::load(&dir.path().join("data"), cluster.trust()).unwrap();
    assert_eq!(names(&*again.shared()), ["a", "b"]);
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_and_the_rules_stay_as_they_are() {
    const MOST: usize = 32 * 1024 * 1024;
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::new("root"));
    let rules = Rules::new(cluster.trust(), vec![role("a")]);
    let (flooding, known) = (Arc::new(AtomicBool::new(false)), rules.clone());
    let flood = flooding.clone();
    let answer = move |_: &str, _: &[u8]| -> Answer {
        if flood.load(Ordering::SeqCst) { (200, " ".repeat(MOST + 1)) } else { known.lock().unwrap().answer(None) }
    };
    let (socket, task) = service::unix(&dir.path().join("auth.sock"), Arc::new(answer));
    let remote = RemoteAuth::unix(&socket);
    let data = dir.path().join("data");
    let mut refresher = PolicyRefresher::load(&data, cluster.trust()).unwrap();
    assert!(refresher.refresh(&remote).await.unwrap());
    let kept = std::fs::read(data.join("policy.json")).unwrap();

    flooding.store(true, Ordering::SeqCst);
    let refused = refresher.refresh(&remote).await.unwrap_err();
    let PolicyError::Auth(cause) = &refused else { panic!("{refused:?}") };
    assert_eq!(cause.kind, ApiErrorKind::Internal);
    assert!(cause.message.contains(&format!("more than {MOST} octets")), "{cause}");
    assert_eq!(names(&*refresher.shared()), ["a"]);
    assert!(std::fs::read(data.join("policy.json")).unwrap() == kept, "the copy on disk is the one before");

    flooding.store(false, Ordering::SeqCst);
    rules.lock().unwrap().roles.push(role("b"));
    assert!(refresher.refresh(&remote).await.unwrap());
    assert_eq!(names(&*refresher.shared()), ["a", "b"]);
    task.abort();
}

#[tokio::test]
async fn a_role_that_cannot_be_read_is_nobodys_and_the_others_hold() {
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::new("root"));
    let mut strange = role("strange");
    strange.spec["allow"]["from_the_future"] = true.into();
    let (remote, task) = serve(&dir, Rules::new(cluster.trust(), vec![role("a"), strange]));
    let mut refresher = PolicyRefresher::load(dir.path(), cluster.trust()).unwrap();
    refresher.refresh(&remote).await.unwrap();
    assert_eq!(names(&*refresher.shared()), ["a"]);
    task.abort();
}

#[tokio::test]
async fn the_authorities_of_another_cluster_or_none_at_all_are_not_taken() {
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::new("root"));
    let rules = Rules::new(Cluster::new("other").trust(), Vec::new());
    let (remote, task) = serve(&dir, rules.clone());
    let mut refresher = PolicyRefresher::load(dir.path(), cluster.trust()).unwrap();
    assert!(matches!(refresher.refresh(&remote).await, Err(PolicyError::OtherCluster { .. }))); // I12
    let mut empty = cluster.trust();
    empty.user.x509.clear();
    rules.lock().unwrap().trust = empty;
    assert!(matches!(refresher.refresh(&remote).await, Err(PolicyError::NoAuthority)));
    assert_eq!(refresher.shared().policy().trust, cluster.trust());
    task.abort();
}

#[test]
fn a_damaged_copy_is_passed_over_and_grants_nothing() {
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::new("root"));
    std::fs::write(dir.path().join("policy.json"), "{").unwrap();
    let refresher = PolicyRefresher::load(dir.path(), cluster.trust()).unwrap();
    assert!(names(&*refresher.shared()).is_empty());
    assert_eq!(refresher.shared().policy().trust, cluster.trust());
}

fn lock(name: &str, expires: Option<remoteler_core::Timestamp>) -> Lock {
    let target = LockTarget { node: Some("edge".parse().unwrap()), ..LockTarget::default() };
    Lock { name: name.into(), target, message: String::new(), expires }
}

fn locks(source: &dyn PolicySource) -> Vec<String> {
    source.policy().locks.iter().map(|lock| lock.name.clone()).collect()
}

#[tokio::test]
async fn only_what_has_changed_is_sent_also_after_a_restart() {
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::new("root"));
    let rules = Rules::new(cluster.trust(), vec![role("a")]);
    let (remote, task) = serve(&dir, rules.clone());
    let data = dir.path().join("data");
    let mut refresher = PolicyRefresher::load(&data, cluster.trust()).unwrap();
    refresher.refresh(&remote).await.unwrap();
    rules.lock().unwrap().limits.locks = [lock("x", None)].into_iter().collect();
    assert!(refresher.refresh(&remote).await.unwrap());
    assert_eq!(
        (names(&*refresher.shared()), locks(&*refresher.shared())),
        (vec!["a".to_owned()], vec!["x".to_owned()])
    );
    assert_eq!(rules.lock().unwrap().sent, ["trust", "revoked", "roles", "limits", "limits"]);
    drop(refresher);

    // I79: what was distributed is in force before anybody was asked.
    let mut again = PolicyRefresher::load(&data, cluster.trust()).unwrap();
    assert_eq!(locks(&*again.shared()), ["x"]);
    assert!(!again.refresh(&remote).await.unwrap());
    assert_eq!(rules.lock().unwrap().sent.len(), 5);
    task.abort();
}

#[tokio::test]
async fn a_lock_ends_by_the_clock_while_nobody_answers() {
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::new("root"));
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let rules = Rules::new(cluster.trust(), Vec::new());
    let end = clock.now().plus(Duration::from_secs(3600));
    rules.lock().unwrap().limits.locks = [lock("brief", Some(end)), lock("long", None)].into_iter().collect();
    let (remote, task) = serve(&dir, rules.clone());
    let mut refresher = PolicyRefresher::load(dir.path(), cluster.trust()).unwrap().with_clock(clock.clone());
    refresher.refresh(&remote).await.unwrap();
    let (source, stop) = (refresher.shared(), CancellationToken::new());
    assert_eq!(locks(&*source), ["brief", "long"]);
    task.abort();
    let running = tokio::spawn(refresher.run(Arc::new(remote), stop.clone()));
    let mut changes = source.changes();
    clock.set(end);
    tokio::time::timeout(Duration::from_secs(60), changes.changed()).await.unwrap().unwrap();
    assert_eq!(locks(&*source), ["long"]);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_view_from_the_disk_is_old_until_the_auth_service_confirms_it_and_strict_locks_allow_nothing_by_it() {
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::new("root"));
    let rules = Rules::new(cluster.trust(), vec![role("a")]);
    rules.lock().unwrap().limits.settings.locking_mode = LockMode::Strict;
    let (remote, task) = serve(&dir, rules.clone());
    let mut refresher = PolicyRefresher::load(dir.path(), cluster.trust()).unwrap();
    refresher.refresh(&remote).await.unwrap();
    assert_eq!(refresher.shared().policy().check_locks(&LockContext::default()), Ok(()));
    drop(refresher);
    let mut again = PolicyRefresher::load(dir.path(), cluster.trust()).unwrap();
    let source = again.shared();
    assert_eq!(source.policy().knowledge, Knowledge::Old);
    assert_eq!(source.policy().check_locks(&LockContext::default()), Err(Locked::Unknown)); // I79
    assert!(!again.refresh(&remote).await.unwrap(), "nothing has changed, and that is what it says");
    assert_eq!(source.policy().check_locks(&LockContext::default()), Ok(()));
    task.abort();
}

#[tokio::test]
async fn an_auth_service_that_lets_nobody_wait_is_not_asked_all_the_time() {
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::new("root"));
    let rules = Rules::new(cluster.trust(), Vec::new());
    let (remote, task) = serve(&dir, rules.clone());
    let refresher = PolicyRefresher::load(dir.path(), cluster.trust()).unwrap();
    let stop = CancellationToken::new();
    let began = Instant::now();
    let running = tokio::spawn(refresher.run(Arc::new(remote), stop.clone()));
    let second = tokio::time::timeout(Duration::from_secs(30), async {
        while rules.lock().unwrap().asked < 2 || began.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    second.await.expect("a second request");
    stop.cancel();
    running.await.unwrap();
    let (asked, elapsed) = (rules.lock().unwrap().asked, began.elapsed());
    assert!(u128::try_from(asked).unwrap() <= 2 + elapsed.as_millis() / 200, "{asked} requests in {elapsed:?}");
    task.abort();
}
