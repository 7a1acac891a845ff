//! Recordings reach the auth service whole, whatever happens on the way.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use remoteler_core::{
    ApiError, ApiErrorKind, AuditEvent, HostApi, HostCerts, InstanceId, KubeRecord, LeaseAnswer, LeaseReport,
    LeaseRequest, NodeRecord, OsEntropy, PolicyUpdate, PolicyVersion, RecordingChunk, SessionId, TrustAck, TrustAcked,
};
use remoteler_ssh::Uploader;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

/// A store of recordings that can lose acknowledgements. Everything else of the service is absent.
#[derive(Default)]
struct Store {
    stored: Mutex<HashMap<SessionId, (Vec<u8>, bool)>>,
    /// Answers that are lost after the work was done.
    lost: Mutex<usize>,
    changed: Notify,
}

impl Store {
    fn octets(&self) -> Vec<u8> {
        self.stored.lock().unwrap().values().next().map(|(octets, _)| octets.clone()).unwrap_or_default()
    }

    fn complete(&self) -> bool {
        self.stored.lock().unwrap().values().next().is_some_and(|(_, complete)| *complete)
    }
}

fn absent<T>() -> Result<T, ApiError> {
    Err(ApiError::new(ApiErrorKind::NotFound, "not part of this test"))
}

#[async_trait]
impl HostApi for Store {
    async fn prove_session(
        &self,
        _: remoteler_core::SessionProofRequest,
    ) -> Result<remoteler_core::SessionProven, ApiError> {
        absent()
    }

    async fn announce_app(&self, _: remoteler_core::AppRecord) -> Result<(), ApiError> {
        absent()
    }

    async fn ended_app_sessions(
        &self,
        _: remoteler_core::AppSessionsRequest,
    ) -> Result<remoteler_core::AppSessionsEnded, ApiError> {
        absent()
    }

    async fn app_token(&self, _: remoteler_core::AppTokenRequest) -> Result<remoteler_core::AppToken, ApiError> {
        absent()
    }

    async fn append_recording(&self, chunk: RecordingChunk) -> Result<(), ApiError> {
        assert!(chunk.octets.len() <= 1024 * 1024);
        {
            let mut stored = self.stored.lock().unwrap();
            let (octets, complete) = stored.entry(chunk.session_id).or_default();
            if *complete || octets.len() as u64 != chunk.offset {
                return Err(ApiError::new(ApiErrorKind::Conflict, "not the next octet"));
            }
            octets.extend_from_slice(&chunk.octets);
            *complete = chunk.last;
        }
        self.changed.notify_one();
        let mut lost = self.lost.lock().unwrap();
        if *lost > 0 {
            *lost -= 1;
            return Err(ApiError::new(ApiErrorKind::Unavailable, "the answer was lost"));
        }
        Ok(())
    }

    async fn recording_size(&self, session: SessionId) -> Result<u64, ApiError> {
        Ok(self.stored.lock().unwrap().get(&session).map_or(0, |(octets, _)| octets.len() as u64))
    }

    async fn renew_host(&self, _: Option<InstanceId>) -> Result<HostCerts, ApiError> {
        absent()
    }

    async fn acknowledge_trust(&self, _: TrustAck) -> Result<TrustAcked, ApiError> {
        absent()
    }

    async fn policy(&self, _: Option<PolicyVersion>, _: Duration) -> Result<Option<PolicyUpdate>, ApiError> {
        absent()
    }

    async fn announce_node(&self, _: NodeRecord) -> Result<(), ApiError> {
        absent()
    }

    async fn announce_kube(&self, _: KubeRecord) -> Result<(), ApiError> {
        absent()
    }

    async fn announce_proxy(&self, _: String) -> Result<(), ApiError> {
        absent()
    }

    async fn record_events(&self, _: Vec<AuditEvent>) -> Result<(), ApiError> {
        absent()
    }

    async fn record_texts(&self, _: Vec<String>) -> Result<(), ApiError> {
        absent()
    }

    async fn take_lease(&self, _: LeaseRequest) -> Result<LeaseAnswer, ApiError> {
        absent()
    }

    async fn report_leases(&self, _: LeaseReport) -> Result<(), ApiError> {
        absent()
    }
}

fn recording(dir: &tempfile::TempDir, octets: usize) -> (PathBuf, Vec<u8>) {
    let path = dir.path().join(format!("{ID}.cast"));
    let content: Vec<u8> = (0..octets).map(|number| (number % 251) as u8).collect();
    std::fs::write(&path, &content).unwrap();
    (path, content)
}

fn uploader(dir: &tempfile::TempDir, store: &Arc<Store>) -> Uploader {
    Uploader::new(dir.path().to_owned(), store.clone(), Arc::new(OsEntropy), Arc::new(Notify::new()))
}

#[tokio::test]
async fn a_recording_arrives_in_pieces_and_its_file_is_removed() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(Store::default()));
    let (path, content) = recording(&dir, 2_500_000);

    assert_eq!(uploader(&dir, &store).upload_all().await.unwrap(), 1);

    assert!(store.octets() == content && store.complete());
    assert!(!path.exists());
}

#[tokio::test]
async fn a_lost_answer_neither_doubles_nor_loses_anything() {
    // The second piece is the last: losing its answer is the hard case.
    for lost_after in [1, 2] {
        let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(Store::default()));
        let (path, content) = recording(&dir, 1_500_000);
        *store.lost.lock().unwrap() = lost_after;
        let uploader = uploader(&dir, &store);

        let mut rounds = 0;
        while uploader.upload_all().await.is_err() {
            assert!(path.exists(), "removed before it was acknowledged");
            rounds += 1;
            assert!(rounds < 5);
        }

        assert!(store.octets() == content && store.complete());
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn what_a_killed_process_left_is_uploaded_at_the_next_start() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(Store::default()));
    std::fs::write(dir.path().join(format!("{ID}.cast.part")), "{\"version\":2}\n[0.5, \"o\", \"x\"]\n[0.").unwrap();
    let (stop, running) = (CancellationToken::new(), uploader(&dir, &store));
    let task = tokio::spawn(running.run(stop.clone()));

    tokio::time::timeout(Duration::from_secs(60), store.changed.notified()).await.unwrap();
    stop.cancel();
    task.await.unwrap();

    assert_eq!(store.octets(), b"{\"version\":2}\n[0.5, \"o\", \"x\"]\n");
    assert!(store.complete());
}

#[tokio::test]
async fn an_empty_recording_is_closed_at_the_service_too() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(Store::default()));
    let (path, _) = recording(&dir, 0);
    assert_eq!(uploader(&dir, &store).upload_all().await.unwrap(), 1);
    assert!(store.complete() && !path.exists());
}
