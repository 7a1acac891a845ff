//! What only one process of a host may have, lent to the next one: the audit spool and the keeping of the host's state. Owns both while they
//! are not lent. While the spool is lent, events go to the auth service at once, and what it does not take is refused (I75).

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Context;
use async_trait::async_trait;
use remoteler_client::{FileError, HostKeeper, SpoolLimits, SpooledAudit};
use remoteler_core::{
    AuditError, AuditEvent, AuditKind, AuditSink, Clock, ClusterName, HostApi, HostId, InstanceId, OsEntropy,
    random_uuid,
};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Whose spool it is, and where.
#[derive(Clone)]
pub(crate) struct SpoolPlace {
    pub(crate) data_dir: PathBuf,
    pub(crate) host: HostId,
    pub(crate) cluster: ClusterName,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: SpoolLimits,
}

impl SpoolPlace {
    fn open(&self) -> Result<Arc<SpooledAudit>, FileError> {
        let Self { data_dir, host, cluster, clock, limits } = self;
        Ok(Arc::new(SpooledAudit::open(data_dir, *host, cluster.clone(), clock.clone(), *limits)?))
    }
}

/// Events go to the spool, or past it while that is lent.
pub(crate) struct LentSpool {
    place: SpoolPlace,
    api: Arc<dyn HostApi>,
    present: RwLock<Option<Arc<SpooledAudit>>>,
    uploading: Mutex<Option<Uploading>>,
    stop: CancellationToken,
    senders: TaskTracker,
}

struct Uploading {
    until: CancellationToken,
    task: JoinHandle<()>,
}

impl LentSpool {
    /// Opens the spool and uploads what comes into it until `stop`.
    pub(crate) async fn open(
        place: SpoolPlace,
        api: Arc<dyn HostApi>,
        stop: CancellationToken,
        senders: TaskTracker,
    ) -> Result<Arc<Self>, FileError> {
        let (present, uploading) = (RwLock::default(), Mutex::default());
        let spool = Arc::new(Self { place, api, present, uploading, stop, senders });
        spool.take_back().await?;
        Ok(spool)
    }

    /// Lets the spool go: what is in it stays on disk, what is asked for before is written.
    pub(crate) async fn lend(&self) -> anyhow::Result<()> {
        self.present.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Uploading { until, task }) = self.uploading.lock().await.take() {
            until.cancel();
            // It sends once more, for 5 s at the most.
            task.await.context("the upload of audit events failed")?;
        }
        let directory = self.place.data_dir.join("spool");
        let end = Instant::now() + LET_GO;
        while !is_free(&directory)? {
            anyhow::ensure!(Instant::now() < end, "the audit spool was not let go within {} s", LET_GO.as_secs());
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Opens the spool again.
    pub(crate) async fn take_back(&self) -> Result<(), FileError> {
        let spool = self.place.open()?;
        let until = self.stop.child_token();
        let (uploaded, api, stop) = (spool.clone(), self.api.clone(), until.clone());
        let task = self.senders.spawn(async move { uploaded.upload(api, stop).await });
        *self.uploading.lock().await = Some(Uploading { until, task });
        *self.present.write().unwrap_or_else(PoisonError::into_inner) = Some(spool);
        Ok(())
    }
}

#[async_trait]
impl AuditSink for LentSpool {
    async fn record(&self, kind: AuditKind) -> Result<(), AuditError> {
        let present = self.present.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(spool) = present {
            return spool.record(kind).await;
        }
        let SpoolPlace { clock, cluster, .. } = &self.place;
        let event = AuditEvent::new(kind, clock.now(), random_uuid(&OsEntropy), cluster.clone());
        self.api.record_events(vec![event]).await.map_err(|cause| AuditError(cause.to_string()))
    }
}

/// Whether no process has the spool.
fn is_free(directory: &std::path::Path) -> anyhow::Result<bool> {
    let fd = open(directory, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // Closing would do, were it not for a child between its fork and its exec.
            flock(&fd, FlockOperation::Unlock)?;
            Ok(true)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(cause) => Err(cause.into()),
    }
}

/// Keeps the host's state, or rests while another process does.
pub(crate) struct LentKeeper {
    instance: Option<InstanceId>,
    turn: Mutex<CancellationToken>,
    keeper: Mutex<HostKeeper>,
    api: Arc<dyn HostApi>,
    stop: CancellationToken,
}

impl LentKeeper {
    pub(crate) fn new(keeper: HostKeeper, api: Arc<dyn HostApi>, stop: CancellationToken) -> Arc<Self> {
        let (instance, turn) = (keeper.instance(), Mutex::new(stop.child_token()));
        Arc::new(Self { instance, turn, keeper: Mutex::new(keeper), api, stop })
    }

    /// Which run of the host this is, where the auth service tells runs apart.
    pub(crate) fn instance(&self) -> Option<InstanceId> {
        self.instance
    }

    /// Keeps the state until the keeping is lent or the process stops, which it says then.
    pub(crate) async fn run(self: Arc<Self>) {
        let turn = self.turn.lock().await.clone();
        let mut keeper = self.keeper.lock().await;
        keeper.run_until(&self.api, &turn).await;
        if self.stop.is_cancelled() {
            keeper.say_farewell(&*self.api).await;
        }
    }

    /// Rests; returns when nothing is done any more.
    pub(crate) async fn lend(&self) {
        self.turn.lock().await.cancel();
        drop(self.keeper.lock().await);
    }

    /// Keeps the state again.
    pub(crate) async fn take_back(self: &Arc<Self>) {
        *self.turn.lock().await = self.stop.child_token();
        tokio::spawn(self.clone().run());
    }
}

/// How long what was asked of the spool may take.
const LET_GO: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);
