//! The contract of the state store, over both implementations.
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails should panic where it is")]

use std::{sync::Arc, time::Duration};

use remoteler_auth::{
    AuthConfig, AuthService, Caller, Database, EventLog, MemoryStorage, RecordingFiles, SqliteStorage,
};
use remoteler_core::{ClusterName, Expected, Revision, Storage, StorageError, Timestamp};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_000);

fn later() -> Timestamp {
    NOW.plus(Duration::from_secs(10))
}

fn stores() -> Vec<(&'static str, Arc<dyn Storage>, Option<tempfile::TempDir>)> {
    let dir = tempfile::tempdir().unwrap();
    let on_disk = Arc::new(Database::open(dir.path()).unwrap());
    let in_memory = Arc::new(Database::in_memory().unwrap());
    vec![
        ("memory", Arc::new(MemoryStorage::default()), None),
        ("sqlite on disk", Arc::new(SqliteStorage::new(on_disk)), Some(dir)),
        ("sqlite in memory", Arc::new(SqliteStorage::new(in_memory)), None),
    ]
}

#[tokio::test]
async fn what_is_put_is_found_until_it_is_deleted() {
    for (name, store, _dir) in stores() {
        assert_eq!(store.get("a", NOW).await.unwrap(), None, "{name}");
        let first = store.put("a", b"1", None).await.unwrap();
        let second = store.put("a", b"2", None).await.unwrap();
        assert!(second > first, "{name}");
        let item = store.get("a", NOW).await.unwrap().unwrap();
        assert_eq!((item.key.as_str(), item.value.as_slice(), item.revision), ("a", b"2".as_slice(), second), "{name}");
        assert!(store.delete("a", NOW).await.unwrap(), "{name}");
        assert!(!store.delete("a", NOW).await.unwrap(), "{name}");
        assert_eq!(store.get("a", NOW).await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn a_conditional_write_happens_only_over_what_was_expected() {
    for (name, store, _dir) in stores() {
        let write = |expected| store.compare_and_swap("a", expected, b"x", None, NOW);
        assert!(matches!(write(Expected::At(Revision(1))).await, Err(StorageError::Conflict { .. })), "{name}");
        let first = write(Expected::Absent).await.unwrap();
        assert!(matches!(write(Expected::Absent).await, Err(StorageError::Conflict { .. })), "{name}");
        let second = write(Expected::At(first)).await.unwrap();
        assert!(second > first, "{name}");
        assert!(matches!(write(Expected::At(first)).await, Err(StorageError::Conflict { .. })), "{name}");
    }
}

#[tokio::test]
async fn an_expired_item_is_as_if_deleted() {
    for (name, store, _dir) in stores() {
        store.put("a", b"1", Some(later())).await.unwrap();
        assert!(store.get("a", NOW).await.unwrap().is_some(), "{name}");
        assert_eq!(store.get("a", later()).await.unwrap(), None, "{name}");
        assert!(store.range("", None, 10, later()).await.unwrap().items.is_empty(), "{name}");
        assert!(!store.delete("a", later()).await.unwrap(), "{name}");
        store.put("a", b"1", Some(later())).await.unwrap();
        store.compare_and_swap("a", Expected::Absent, b"2", None, later()).await.unwrap();
        assert_eq!(store.get("a", later()).await.unwrap().unwrap().value, b"2", "{name}");
    }
}

#[tokio::test]
async fn of_many_concurrent_deletes_and_creates_exactly_one_wins() {
    for (name, store, _dir) in stores() {
        let tasks = (0..50).map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.compare_and_swap("a", Expected::Absent, b"x", None, NOW).await.is_ok() })
        });
        let mut created = 0;
        for task in tasks.collect::<Vec<_>>() {
            created += usize::from(task.await.unwrap());
        }
        let tasks = (0..50).map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.delete("a", NOW).await.unwrap() })
        });
        let mut deleted = 0;
        for task in tasks.collect::<Vec<_>>() {
            deleted += usize::from(task.await.unwrap());
        }
        assert_eq!((created, deleted), (1, 1), "{name}");
    }
}

#[tokio::test]
async fn a_range_is_the_prefix_and_nothing_else_page_by_page() {
    for (name, store, _dir) in stores() {
        for key in ["a", "nodes", "nodes/1", "nodes/2", "nodes/ü", "nodes/3", "nodes0", "z"] {
            store.put(key, key.as_bytes(), None).await.unwrap();
        }
        let mut keys = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = store.range("nodes/", after.as_deref(), 2, NOW).await.unwrap();
            assert!(page.items.len() <= 2, "{name}");
            keys.extend(page.items.into_iter().map(|item| item.key));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(keys, ["nodes/1", "nodes/2", "nodes/3", "nodes/ü"], "{name}");
    }
}

#[tokio::test]
async fn a_whole_service_runs_over_stores_that_its_embedder_chose() {
    let dir = tempfile::tempdir().unwrap();
    let config = AuthConfig::new(dir.path().join("not used"), ClusterName::new("root").unwrap());
    let events = EventLog::new(Arc::new(Database::in_memory().unwrap()));
    let recordings = RecordingFiles::open(&dir.path().join("recordings")).unwrap();
    let storage = Arc::new(MemoryStorage::default());
    let service = AuthService::with_stores(config, storage, events, recordings).await.unwrap();
    let admin = service.as_caller(Caller::LocalAdmin);
    assert_eq!(admin.roles().await.unwrap().len(), 3);
    assert!(!dir.path().join("not used").exists());
}
