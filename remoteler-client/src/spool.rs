//! Audit events of a remote service on their way to the auth service: on disk before they are acknowledged, uploaded in the background,
//! removed when they have arrived. Owns `<data_dir>/spool`. An event that cannot be kept is refused, and with it the action (I75).

mod segments;
mod upload;
mod writer;

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use remoteler_core::{
    AuditError, AuditEvent, AuditKind, AuditSink, AuthApi, Clock, ClusterName, OsEntropy, random_uuid,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::files::FileError;
use segments::Segments;
use upload::Uploader;
use writer::Request;

/// Limits of a spool.
#[derive(Clone, Copy, Debug)]
pub struct SpoolLimits {
    /// Octets kept on disk; with more than that waiting, events are refused. Default 64 MiB.
    pub max_total: u64,
    /// Octets after which a new file is begun. Default 1 MiB.
    pub max_segment: u64,
    /// How long events are collected before they are uploaded. Default 200 ms.
    pub linger: Duration,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self { max_total: 64 * 1024 * 1024, max_segment: 1024 * 1024, linger: Duration::from_millis(200) }
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
    /// Opens the spool in `data_dir`, with what an earlier process left there. Only one process may have it open.
    ///
    /// A thread of its own writes; it ends when the spool is dropped, after what was asked for before.
    ///
    /// # Errors
    /// [`FileError`] when the directory cannot be used or another process has it.
    pub fn open(
        data_dir: &Path,
        cluster_name: ClusterName,
        clock: Arc<dyn Clock>,
        limits: SpoolLimits,
    ) -> Result<Self, FileError> {
        let segments = Segments::open(&data_dir.join("spool"), limits)?;
        let fresh = Arc::new(Notify::new());
        if !segments.is_empty() {
            fresh.notify_one();
        }
        let (requests, receiver) = mpsc::channel(QUEUE);
        let uploader = Uploader::new(segments.path().to_owned(), limits.linger);
        std::thread::Builder::new()
            .name("audit-spool".into())
            .spawn(move || writer::run(segments, receiver))
            .map_err(|source| FileError::Io { action: "start a thread for", path: data_dir.join("spool"), source })?;
        Ok(Self { requests, fresh, cluster_name, clock, uploader })
    }

    /// Uploads until `stop`, then once more for at most 5 s. At least once: an event may be sent twice, its `uid` tells.
    ///
    /// While the auth service is away it is tried again after 0.5 s at first and 30 s at last. One upload runs at a time.
    pub async fn upload(&self, auth: Arc<dyn AuthApi>, stop: CancellationToken) {
        self.uploader.run(&self.requests, &self.fresh, &*auth, stop).await;
    }
}

#[async_trait]
impl AuditSink for SpooledAudit {
    async fn record(&self, kind: AuditKind) -> Result<(), AuditError> {
        let event = AuditEvent::new(kind, self.clock.now(), random_uuid(&OsEntropy), self.cluster_name.clone());
        let line = line_of(event)?;
        let (done, answer) = oneshot::channel();
        let gone = || AuditError("the spool's writer has ended".into());
        self.requests.send(Request::Append { line, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map_err(AuditError)?;
        self.fresh.notify_one();
        Ok(())
    }
}

/// One line of JSON, at most [`MAX_EVENT`] octets: long texts are cut, with a mark (I76).
fn line_of(event: AuditEvent) -> Result<Vec<u8>, AuditError> {
    let encode = |value: &serde_json::Value| {
        let mut line = value.to_string().into_bytes();
        line.push(b'\n');
        line
    };
    let mut value = serde_json::to_value(&event).map_err(|cause| AuditError(cause.to_string()))?;
    let line = encode(&value);
    if line.len() <= MAX_EVENT {
        return Ok(line);
    }
    cut(&mut value);
    let line = encode(&value);
    if line.len() > MAX_EVENT {
        return Err(AuditError(format!("event {} has {} octets, {MAX_EVENT} are kept", event.name(), line.len())));
    }
    Ok(line)
}

fn cut(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) if text.len() > MAX_TEXT => {
            let mut end = MAX_TEXT;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push_str("… [cut]");
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(cut),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(cut),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

const MAX_EVENT: usize = 64 * 1024;
const MAX_TEXT: usize = 8 * 1024;
/// Events that wait for the writer.
const QUEUE: usize = 1024;

#[cfg(test)]
mod tests {
    use remoteler_core::{SystemClock, Timestamp};

    use super::*;

    fn event(name: &str) -> AuditKind {
        AuditKind::UserDelete { user: "ann".into(), name: name.into() }
    }

    fn spool(dir: &Path, limits: SpoolLimits) -> Result<SpooledAudit, FileError> {
        SpooledAudit::open(dir, ClusterName::new("root").unwrap(), Arc::new(SystemClock), limits)
    }

    fn lines(dir: &Path) -> Vec<String> {
        let mut files: Vec<_> =
            std::fs::read_dir(dir.join("spool")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
            .iter()
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
    async fn two_processes_cannot_share_a_spool() {
        let dir = tempfile::tempdir().unwrap();
        let _first = spool(dir.path(), SpoolLimits::default()).unwrap();
        assert!(matches!(spool(dir.path(), SpoolLimits::default()), Err(FileError::Locked { .. })));
    }

    #[test]
    fn an_event_larger_than_64_kib_is_cut_with_a_mark() {
        let kind = AuditKind::UserDelete { user: "é".repeat(100_000), name: "x".into() };
        let event = AuditEvent::new(kind, Timestamp::default(), uuid::Uuid::nil(), ClusterName::new("root").unwrap());
        let line = line_of(event).unwrap();
        assert!(line.len() < MAX_EVENT); // I76
        let kept: AuditEvent = serde_json::from_slice(&line).unwrap();
        let AuditKind::UserDelete { user, name } = kept.kind else { panic!("{kept:?}") };
        assert!(user.ends_with("é… [cut]") && name == "x");
    }
}
