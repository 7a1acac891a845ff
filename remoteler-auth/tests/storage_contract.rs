//! The contract of the state store, over both implementations: each case is one test of each.
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails should panic where it is")]

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use remoteler_auth::{
    AuthConfig, AuthService, Caller, Database, EventLog, MemoryStorage, OpenError, RecordingFiles, SqliteStorage,
    storage_contract::{Subject, agrees_with_the_model},
};
use remoteler_core::{ClusterName, Storage};

/// In memory: it ends with the program.
struct Forgotten(Arc<dyn Storage>);

impl Subject for Forgotten {
    fn storage(&self) -> Arc<dyn Storage> {
        Arc::clone(&self.0)
    }

    fn restarted(self: Box<Self>) -> Option<Box<dyn Subject>> {
        None
    }
}

struct OnDisk {
    storage: Arc<dyn Storage>,
    dir: tempfile::TempDir,
}

impl OnDisk {
    fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap())
    }

    fn open(dir: tempfile::TempDir) -> Self {
        // A process that another test is just starting holds a copy of the lock until it runs its own program.
        let began = std::time::Instant::now();
        let database = loop {
            match Database::open(dir.path()) {
                Ok(database) => break database,
                Err(OpenError::InUse { .. }) if began.elapsed().as_secs() < 10 => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(cause) => panic!("{cause}"),
            }
        };
        Self { storage: Arc::new(SqliteStorage::new(Arc::new(database))), dir }
    }
}

impl Subject for OnDisk {
    fn storage(&self) -> Arc<dyn Storage> {
        Arc::clone(&self.storage)
    }

    fn restarted(self: Box<Self>) -> Option<Box<dyn Subject>> {
        let Self { storage, dir } = *self;
        drop(storage);
        Some(Box::new(Self::open(dir)))
    }
}

fn sqlite_in_memory() -> Arc<dyn Storage> {
    Arc::new(SqliteStorage::new(Arc::new(Database::in_memory().unwrap())))
}

mod memory {
    use super::*;
    remoteler_auth::storage_contract!(Box::new(Forgotten(Arc::new(MemoryStorage::default()))));
}

mod sqlite_on_disk {
    use super::*;
    remoteler_auth::storage_contract!(Box::new(OnDisk::new()));
}

mod sqlite_in_memory {
    use super::*;
    remoteler_auth::storage_contract!(Box::new(Forgotten(super::sqlite_in_memory())));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_both_hold_what_a_plain_map_holds(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            agrees_with_the_model(&MemoryStorage::default(), &octets).await;
            agrees_with_the_model(&*sqlite_in_memory(), &octets).await;
        });
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
