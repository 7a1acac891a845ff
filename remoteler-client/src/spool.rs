//! Audit events of a remote service on their way to the auth service: on disk before they are acknowledged, uploaded in the background,
//! removed when they have arrived. Owns `<data_dir>/spool`, and the chain of what this host writes. An event that cannot be kept is refused, and with
//! it the action (I75), unless the configuration says that events are dropped when there is no room.

mod author;
mod segments;
mod upload;
mod writer;

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use remoteler_core::{
    AuditError, AuditEvent, AuditKind, AuditSink, Clock, ClusterName, HostApi, HostId, OsEntropy, random_uuid,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::files::FileError;
use author::Author;
use segments::Segments;
use upload::Uploader;
use writer::{Request, Writer};

/// Limits of a spool.
#[derive(Clone, Copy, Debug)]
pub struct SpoolLimits {
    /// Octets kept on disk; with more than that waiting, events are refused. Default 64 MiB.
    pub max_total: u64,
    /// Octets after which a new file is begun. Default 1 MiB.
    pub max_segment: u64,
    /// How long events are collected before they are uploaded. Default 200 ms.
    pub linger: Duration,
    /// What happens to events for which there is no room. Default: they are refused.
    pub when_full: WhenFull,
}

/// What happens to events for which there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// They are refused, and with them what they would have allowed.
    #[default]
    Deny,
    /// They are dropped, and what they tell of goes on. One event says when that begins, another one how many it were, when there is room again.
    DropAndSaySo,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self {
            max_total: 64 * 1024 * 1024,
            max_segment: 1024 * 1024,
            linger: Duration::from_millis(200),
            when_full: WhenFull::Deny,
        }
    }
}

/// Takes events to disk. When `record` returns, the event survives `kill -9` and a loss of power.
pub struct SpooledAudit {
    requests: mpsc::Sender<Request>,
    fresh: Arc<Notify>,
    cluster_name: ClusterName,
    clock: Arc<dyn Clock>,
    uploader: Uploader,
}

impl SpooledAudit {
    /// Opens the spool of `host` in `data_dir`, with what an earlier process left there. Only one process may have it open.
    ///
    /// A thread of its own writes; it ends when the spool is dropped, after what was asked for before.
    ///
    /// # Errors
    /// [`FileError`] when the directory cannot be used or another process has it.
    pub fn open(
        data_dir: &Path,
        host: HostId,
        cluster_name: ClusterName,
        clock: Arc<dyn Clock>,
        limits: SpoolLimits,
    ) -> Result<Self, FileError> {
        let segments = Segments::open(&data_dir.join("spool"), limits)?;
        let fresh = Arc::new(Notify::new());
        if !segments.is_empty() {
            fresh.notify_one();
        }
        let author = Author::new(host, cluster_name.clone(), clock.clone(), &segments)?;
        let (requests, receiver) = mpsc::channel(QUEUE);
        let uploader = Uploader::new(segments.path().to_owned(), limits.linger);
        let writer = Writer::new(segments, author, limits.when_full, fresh.clone());
        std::thread::Builder::new()
            .name("audit-spool".into())
            .spawn(move || writer.run(receiver))
            .map_err(|source| FileError::Io { action: "start a thread for", path: data_dir.join("spool"), source })?;
        Ok(Self { requests, fresh, cluster_name, clock, uploader })
    }

    /// Uploads until `stop`, then once more for at most 5 s. At least once: an event may be sent twice, its `uid` tells.
    ///
    /// While the auth service is away it is tried again after 0.5 s at first and 30 s at last. One upload runs at a time.
    pub async fn upload(&self, auth: Arc<dyn HostApi>, stop: CancellationToken) {
        self.uploader.run(&self.requests, &self.fresh, &*auth, stop).await;
    }
}

#[async_trait]
impl AuditSink for SpooledAudit {
    async fn record(&self, kind: AuditKind) -> Result<(), AuditError> {
        let event = AuditEvent::new(kind, self.clock.now(), random_uuid(&OsEntropy), self.cluster_name.clone());
        let event = Box::new(event);
        let (done, answer) = oneshot::channel();
        let gone = || AuditError("the spool's writer has ended".into());
        self.requests.send(Request::Append { event, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map_err(AuditError)?;
        self.fresh.notify_one();
        Ok(())
    }
}

/// Events that wait for the writer.
const QUEUE: usize = 1024;

#[cfg(test)]
mod tests {
    use remoteler_core::SystemClock;

    use super::*;

    fn event(name: &str) -> AuditKind {
        AuditKind::UserDelete { user: "ann".into(), name: name.into() }
    }

    fn host() -> HostId {
        "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap()
    }

    fn spool(dir: &Path, limits: SpoolLimits) -> Result<SpooledAudit, FileError> {
        SpooledAudit::open(dir, host(), ClusterName::new("root").unwrap(), Arc::new(SystemClock), limits)
    }

    fn lines(dir: &Path) -> Vec<String> {
        let mut files: Vec<_> =
            std::fs::read_dir(dir.join("spool")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
            .iter()
            .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
            .flat_map(|path| std::fs::read_to_string(path).unwrap().lines().map(String::from).collect::<Vec<_>>())
            .collect()
    }

    #[tokio::test]
    async fn an_event_is_on_disk_when_it_is_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path(), SpoolLimits::default()).unwrap();
        for name in ["a", "b"] {
            spool.record(event(name)).await.unwrap();
            let last = lines(dir.path()).pop().unwrap();
            let kept: AuditEvent = serde_json::from_str(&last).unwrap();
            assert_eq!(kept.kind, event(name)); // I75
        }
    }

    #[tokio::test]
    async fn a_full_spool_refuses_events_instead_of_dropping_them() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path(), SpoolLimits { max_total: 1000, ..SpoolLimits::default() }).unwrap();
        let mut kept = 0;
        let refusal = loop {
            match spool.record(event("x")).await {
                Ok(()) => kept += 1,
                Err(error) => break error,
            }
        };
        assert!(refusal.to_string().contains("full"), "{refusal}"); // I75
        assert_eq!(lines(dir.path()).len(), kept);
    }

    #[tokio::test]
    async fn a_full_spool_that_drops_events_lets_them_go_on_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let limits = SpoolLimits { max_total: 8192, when_full: WhenFull::DropAndSaySo, ..SpoolLimits::default() };
        let spool = spool(dir.path(), limits).unwrap();
        for _ in 0..100 {
            spool.record(event("x")).await.unwrap();
        }
        let kept: Vec<AuditEvent> = lines(dir.path()).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (last, events) = kept.split_last().unwrap();
        assert!(matches!(last.kind, AuditKind::AuditDropped { count: None, .. }), "{last:?}");
        assert!(events.len() > 3 && events.iter().all(|kept| kept.kind == event("x")));

        // Everything is taken: there is room again, and it is said how many were dropped.
        let (done, closed) = oneshot::channel();
        spool.requests.send(Request::CloseAll { done }).await.ok().unwrap();
        for number in closed.await.unwrap() {
            spool.requests.send(Request::Remove { number }).await.ok().unwrap();
        }
        spool.record(event("y")).await.unwrap();
        let after: Vec<AuditEvent> = lines(dir.path()).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let AuditKind::AuditDropped { count: Some(count), .. } = after[0].kind else { panic!("{after:?}") };
        assert_eq!(count, 100 - events.len() as u64); // I75
        assert_eq!(after[1].kind, event("y"));
        assert_eq!(chain_of(&[&kept[..], &after[..]].concat()), kept.len() as u64 + 2);
    }

    /// The number of the last event, if each follows the one before.
    fn chain_of(events: &[AuditEvent]) -> u64 {
        let mut chains = remoteler_core::evidence::Chains::default();
        for event in events {
            let link = event.chain.as_ref().unwrap();
            let head = remoteler_core::evidence::ChainHead::at(link, &event.to_text().unwrap());
            assert_eq!(chains.take(link, head, false), None, "{event:?}");
        }
        chains.head(&host().to_string()).unwrap().n
    }

    #[tokio::test]
    async fn the_chain_goes_on_after_a_restart_whether_events_are_left_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut all: Vec<AuditEvent> = Vec::new();
        for round in 0..4 {
            let end = std::time::Instant::now() + Duration::from_secs(30);
            let spool = loop {
                // The writer of the one before ends a moment later.
                match spool(dir.path(), SpoolLimits::default()) {
                    Ok(spool) => break spool,
                    Err(FileError::Locked { .. }) => assert!(std::time::Instant::now() < end, "it is never released"),
                    Err(error) => panic!("{error}"),
                }
                tokio::task::yield_now().await;
            };
            for name in ["a", "b"] {
                spool.record(event(name)).await.unwrap();
            }
            if round % 2 == 0 {
                all.extend(lines(dir.path()).iter().map(|line| serde_json::from_str::<AuditEvent>(line).unwrap()));
                let (done, closed) = oneshot::channel();
                spool.requests.send(Request::CloseAll { done }).await.ok().unwrap();
                for number in closed.await.unwrap() {
                    spool.requests.send(Request::Remove { number }).await.ok().unwrap();
                }
            }
        }
        all.extend(lines(dir.path()).iter().map(|line| serde_json::from_str::<AuditEvent>(line).unwrap()));
        assert_eq!(chain_of(&all), 8); // I75
    }

    #[tokio::test]
    async fn two_processes_cannot_share_a_spool() {
        let dir = tempfile::tempdir().unwrap();
        let _first = spool(dir.path(), SpoolLimits::default()).unwrap();
        assert!(matches!(spool(dir.path(), SpoolLimits::default()), Err(FileError::Locked { .. })));
    }
}
