//! Audit events reach the auth service, whatever happens to it and to us.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use remoteler_client::{RemoteAuth, SpoolLimits, SpooledAudit};
use remoteler_core::{
    ApiError, ApiErrorKind, AuditEvent, AuditKind, AuditSink, ClusterName, HostId, SystemClock,
    evidence::{ChainBreak, ChainHead, Chains},
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::service::{self, Answer, refused};

fn event(name: &str) -> AuditKind {
    AuditKind::UserDelete { user: "ann".into(), name: name.into() }
}

fn name_of(event: &AuditEvent) -> String {
    let AuditKind::UserDelete { name, .. } = &event.kind else { panic!("{event:?}") };
    name.clone()
}

fn host() -> HostId {
    "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap()
}

fn open(data_dir: &Path) -> Arc<SpooledAudit> {
    let limits = SpoolLimits { linger: Duration::ZERO, ..SpoolLimits::default() };
    Arc::new(
        SpooledAudit::open(data_dir, host(), ClusterName::new("root").unwrap(), Arc::new(SystemClock), limits).unwrap(),
    )
}

/// An auth service that keeps events by uid.
struct Store {
    events: Mutex<BTreeMap<String, String>>,
    chains: Mutex<Chains>,
    breaks: Mutex<Vec<ChainBreak>>,
    away: AtomicBool,
    /// The host is over its quota.
    over_quota: AtomicBool,
    /// Calls that were refused for now or for ever.
    refusals: AtomicUsize,
    count: watch::Sender<usize>,
}

impl Store {
    fn start(socket: &Path) -> (Arc<Self>, RemoteAuth, JoinHandle<()>) {
        let store = Arc::new(Self {
            events: Mutex::default(),
            chains: Mutex::default(),
            breaks: Mutex::default(),
            away: AtomicBool::new(false),
            over_quota: AtomicBool::new(false),
            refusals: AtomicUsize::new(0),
            count: watch::Sender::new(0),
        });
        let taken = store.clone();
        let (socket, task) = service::unix(socket, Arc::new(move |what, body| taken.answer(what, body)));
        (store, RemoteAuth::unix(&socket), task)
    }

    fn answer(&self, what: &str, body: &[u8]) -> Answer {
        assert_eq!(what, "POST /v1/events");
        if self.away.load(Ordering::SeqCst) {
            return refused(&ApiError::new(ApiErrorKind::Unavailable, "away"));
        }
        if self.over_quota.load(Ordering::SeqCst) {
            self.refusals.fetch_add(1, Ordering::SeqCst);
            return refused(&ApiError::new(ApiErrorKind::RateLimited, "wait"));
        }
        let Ok(batch) = serde_json::from_slice::<Vec<AuditEvent>>(body) else {
            return refused(&ApiError::new(ApiErrorKind::BadRequest, "no event"));
        };
        assert!(!batch.is_empty() && batch.len() <= 1000);
        if batch.iter().any(|event| name_of(event) == "poison") {
            self.refusals.fetch_add(1, Ordering::SeqCst);
            return refused(&ApiError::new(ApiErrorKind::BadRequest, "no"));
        }
        if batch.iter().any(|event| name_of(event) == "foreign") {
            return refused(&ApiError::new(ApiErrorKind::Denied, "not yours"));
        }
        let mut events = self.events.lock().unwrap();
        for event in batch {
            if !events.contains_key(&event.uid.to_string()) {
                let link = event.chain.as_ref().unwrap();
                let head = ChainHead::at(link, &event.to_text().unwrap());
                if let Some(found) = self.chains.lock().unwrap().take(link, head, false) {
                    self.breaks.lock().unwrap().push(found);
                }
            }
            events.insert(event.uid.to_string(), name_of(&event));
        }
        self.count.send_replace(events.len());
        (204, String::new())
    }

    async fn wait_for(&self, count: usize) {
        let mut seen = self.count.subscribe();
        let arrived = tokio::time::timeout(Duration::from_secs(60), seen.wait_for(|seen| *seen >= count)).await;
        assert!(arrived.is_ok(), "{} of {count} events arrived", self.names().len());
    }

    fn names(&self) -> BTreeSet<String> {
        self.events.lock().unwrap().values().cloned().collect()
    }
}

fn upload(spool: &Arc<SpooledAudit>, remote: RemoteAuth, stop: &CancellationToken) -> JoinHandle<()> {
    let (spool, stop) = (spool.clone(), stop.clone());
    tokio::spawn(async move { spool.upload(Arc::new(remote), stop).await })
}

fn files(data_dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(data_dir.join("spool")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "chain.json").collect()
}

#[tokio::test]
async fn events_arrive_once_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (store, remote, task) = Store::start(&dir.path().join("sock"));
    let (spool, stop) = (open(dir.path()), CancellationToken::new());
    let uploader = upload(&spool, remote, &stop);
    let records = (0..2500).map(|i| {
        let spool = spool.clone();
        async move { spool.record(event(&format!("{i}"))).await.unwrap() }
    });
    futures::future::join_all(records).await;
    store.wait_for(2500).await;
    // The store has the last of them a moment before the spool hears of it.
    let gone = async {
        while !files(dir.path()).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _what_is_left_is_seen_below = tokio::time::timeout(Duration::from_secs(60), gone).await;
    stop.cancel();
    uploader.await.unwrap();
    assert_eq!(store.names().len(), 2500); // I75
    assert!(store.breaks.lock().unwrap().is_empty());
    drop(spool);
    assert_eq!(files(dir.path()), Vec::<String>::new());
    task.abort();
}

#[tokio::test]
async fn events_wait_on_disk_while_auth_is_away_and_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, remote, task) = Store::start(&dir.path().join("sock"));
    store.away.store(true, Ordering::SeqCst);
    let (spool, stop) = (open(dir.path()), CancellationToken::new());
    let uploader = upload(&spool, remote, &stop);
    spool.record(event("one")).await.unwrap();
    spool.record(event("two")).await.unwrap();
    stop.cancel();
    uploader.await.unwrap();
    assert!(store.names().is_empty());
    drop(spool);
    task.abort();

    let (store, remote, task) = Store::start(&dir.path().join("sock2"));
    let spool = reopen(dir.path()).await;
    let stop = CancellationToken::new();
    let uploader = upload(&spool, remote, &stop);
    store.wait_for(2).await;
    assert_eq!(store.names(), ["one".into(), "two".into()].into()); // I75
    stop.cancel();
    uploader.await.unwrap();
    task.abort();
}

/// The writer of a spool that was dropped ends a moment later; until then the spool is locked.
async fn reopen(data_dir: &Path) -> Arc<SpooledAudit> {
    loop {
        let limits = SpoolLimits { linger: Duration::ZERO, ..SpoolLimits::default() };
        match SpooledAudit::open(data_dir, host(), ClusterName::new("root").unwrap(), Arc::new(SystemClock), limits) {
            Ok(spool) => return Arc::new(spool),
            Err(remoteler_client::FileError::Locked { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn an_event_that_is_never_taken_does_not_hold_up_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (store, remote, task) = Store::start(&dir.path().join("sock"));
    let (spool, stop) = (open(dir.path()), CancellationToken::new());
    for name in ["before", "poison", "between", "foreign", "after"] {
        spool.record(event(name)).await.unwrap();
    }
    let uploader = upload(&spool, remote, &stop);
    store.wait_for(3).await;
    stop.cancel();
    uploader.await.unwrap();
    assert_eq!(store.names(), ["after".into(), "before".into(), "between".into()].into());
    let kept = files(dir.path());
    assert_eq!(kept.iter().filter(|name| name.starts_with("refused-")).count(), 2, "{kept:?}"); // I75
    task.abort();
}

#[tokio::test]
async fn lines_that_are_no_events_here_or_there_are_set_aside_and_all_others_arrive_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let (store, remote, task) = Store::start(&dir.path().join("sock"));
    let (spool, stop) = (open(dir.path()), CancellationToken::new());
    spool.record(event("before")).await.unwrap();
    let segment = files(dir.path()).into_iter().find(|name| name.ends_with(".jsonl")).unwrap();
    let segment = dir.path().join("spool").join(segment);
    let mut file = std::fs::OpenOptions::new().append(true).open(&segment).unwrap();
    let unknown = r#"{"event":"of.another.version","uid":"67e55044-10b1-426f-9247-bb680e5fe0c9"}"#;
    for line in [unknown.as_bytes(), br#"{"event":"x"}"#, b"],[", b"\xff"] {
        file.write_all(&[line, b"\n"].concat()).unwrap();
    }
    let uploader = upload(&spool, remote, &stop);
    store.wait_for(1).await;
    until("the segment is done", || !segment.exists()).await;
    stop.cancel();
    uploader.await.unwrap();
    assert_eq!(store.names(), ["before".into()].into());
    assert!(store.breaks.lock().unwrap().is_empty(), "its text is the one that was chained");
    let aside: Vec<String> = files(dir.path()).into_iter().filter(|name| name.starts_with("refused-")).collect();
    assert_eq!(aside.len(), 4, "{aside:?}");
    let kept = dir.path().join("spool").join("refused-67e55044-10b1-426f-9247-bb680e5fe0c9.json");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), unknown);
    task.abort();
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect(what);
}

#[tokio::test]
async fn with_no_room_to_set_events_aside_they_stay_and_are_not_sent_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, remote, task) = Store::start(&dir.path().join("sock"));
    let (spool, stop) = (open(dir.path()), CancellationToken::new());
    let room = |number: usize| dir.path().join("spool").join(format!("refused-{number}.json"));
    for number in 0..1000 {
        std::fs::write(room(number), "{}").unwrap();
    }
    for name in ["before", "poison", "after"] {
        spool.record(event(name)).await.unwrap();
    }
    let uploader = upload(&spool, remote, &stop);
    store.wait_for(2).await;
    for (arrived, name) in [(3, "later"), (4, "much later")] {
        spool.record(event(name)).await.unwrap();
        store.wait_for(arrived).await;
    }
    // Once with its batch and once alone.
    assert_eq!(store.refusals.load(Ordering::SeqCst), 2); // I26
    let waiting = |files: &[String]| files.iter().filter(|name| name.ends_with(".jsonl")).count();
    until("the refused event alone is still there", || waiting(&files(dir.path())) == 1).await; // I75

    std::fs::remove_file(room(7)).unwrap();
    spool.record(event("last")).await.unwrap();
    until("the event is set aside when there is room", || waiting(&files(dir.path())) == 0).await;
    assert_eq!(files(dir.path()).iter().filter(|name| name.starts_with("refused-")).count(), 1000);
    stop.cancel();
    uploader.await.unwrap();
    task.abort();
}

#[tokio::test]
async fn events_over_the_quota_wait_and_none_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (store, remote, task) = Store::start(&dir.path().join("sock"));
    store.over_quota.store(true, Ordering::SeqCst);
    let (spool, stop) = (open(dir.path()), CancellationToken::new());
    spool.record(event("one")).await.unwrap();
    let uploader = upload(&spool, remote, &stop);
    until("the service was asked", || store.refusals.load(Ordering::SeqCst) > 0).await;
    store.over_quota.store(false, Ordering::SeqCst);
    store.wait_for(1).await; // I75
    assert!(!files(dir.path()).iter().any(|name| name.starts_with("refused-")));
    stop.cancel();
    uploader.await.unwrap();
    task.abort();
}

/// Not a test of its own: what the next test starts as another process and kills. Prints each event's name once it is acknowledged.
#[tokio::test]
async fn child_that_records_until_it_is_killed() {
    let Some(dir) = std::env::var_os("SPOOL_TEST_DIR") else { return };
    let spool = open(Path::new(&dir));
    for i in 0_u64.. {
        spool.record(event(&format!("{i}"))).await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nrecorded {i}").unwrap();
        out.flush().unwrap();
    }
}

#[tokio::test]
async fn an_acknowledged_event_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "spool::child_that_records_until_it_is_killed", "--nocapture"])
            .env("SPOOL_TEST_DIR", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let seen = lines.map_while(Result::ok).filter(|line| line.starts_with("recorded ")).take(50 * round).count();
        assert_eq!(seen, 50 * round);
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged += seen;
        // A crash may also tear the line that was being written.
        let last = files(dir.path()).into_iter().max().unwrap();
        let mut last = std::fs::OpenOptions::new().append(true).open(dir.path().join("spool").join(last)).unwrap();
        last.write_all(b"{\"event\":\"user.del").unwrap();
    }

    let (store, remote, task) = Store::start(&dir.path().join("sock"));
    let (spool, stop) = (open(dir.path()), CancellationToken::new());
    let uploader = upload(&spool, remote, &stop);
    store.wait_for(acknowledged).await; // I75
    assert!(store.breaks.lock().unwrap().is_empty(), "the chain goes on after a kill");
    stop.cancel();
    uploader.await.unwrap();
    // The writer removes what was taken in its own time.
    let gone = async {
        while files(dir.path()).iter().any(|name| name.ends_with(".jsonl")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("what was taken is removed");
    task.abort();
}
