//! A process that dies at a chosen write to the state store, before it or after it, and the machine that outlives it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use remoteler_auth::{AuthConfig, AuthService, Database, EventLog, MemoryStorage, RecordingFiles};
use remoteler_core::{
    Changes, ClusterName, Expected, Item, Page, Revision, Storage, StorageError, Timestamp, Transaction,
};

/// At which write the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    Never,
    /// Before the write number so many, from 0.
    Before(usize),
    /// When it is on disk, and nobody has been told.
    After(usize),
}

/// A disk under a process that dies: it keeps what was written, and answers nothing after the death.
pub(crate) struct Mortal {
    disk: Arc<MemoryStorage>,
    death: Death,
    /// Since the process was up; absent before.
    writes: Mutex<Option<usize>>,
}

impl Mortal {
    fn is_alive(&self) -> Result<(), StorageError> {
        let writes = self.writes.lock().unwrap().unwrap_or_default();
        let dead = match self.death {
            Death::Never => false,
            Death::Before(number) | Death::After(number) => writes > number,
        };
        if dead { Err(StorageError::Engine("the process is dead".into())) } else { Ok(()) }
    }

    /// How many there were since the process was up.
    pub(crate) fn writes(&self) -> usize {
        self.writes.lock().unwrap().unwrap_or_default()
    }

    /// The number of the write that begins, and counts it.
    fn number(&self) -> Option<usize> {
        let mut writes = self.writes.lock().unwrap();
        let number = *writes;
        *writes = number.map(|number| number + 1);
        number
    }

    async fn write<T>(&self, write: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
        self.is_alive()?;
        let number = self.number();
        if number.is_some_and(|number| self.death == Death::Before(number)) {
            return Err(StorageError::Engine("the process died before the write".into()));
        }
        let written = write.await;
        if number.is_some_and(|number| self.death == Death::After(number)) {
            return Err(StorageError::Engine("the process died after the write".into()));
        }
        written
    }
}

#[async_trait]
impl Storage for Mortal {
    async fn get(&self, key: &str, now: Timestamp) -> Result<Option<Item>, StorageError> {
        self.is_alive()?;
        self.disk.get(key, now).await
    }

    async fn put(&self, key: &str, value: &[u8], expires: Option<Timestamp>) -> Result<Revision, StorageError> {
        self.write(self.disk.put(key, value, expires)).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Expected,
        value: &[u8],
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Revision, StorageError> {
        self.write(self.disk.compare_and_swap(key, expected, value, expires, now)).await
    }

    async fn delete(&self, key: &str, now: Timestamp) -> Result<bool, StorageError> {
        self.write(self.disk.delete(key, now)).await
    }

    async fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page, StorageError> {
        self.is_alive()?;
        self.disk.range(prefix, after, limit, now).await
    }

    async fn transact(&self, transaction: Transaction, now: Timestamp) -> Result<Revision, StorageError> {
        self.write(self.disk.transact(transaction, now)).await
    }

    async fn watch(&self, prefix: &str, after: Revision, limit: usize) -> Result<Changes, StorageError> {
        self.is_alive()?;
        self.disk.watch(prefix, after, limit).await
    }
}

/// What outlives the process.
pub(crate) struct Machine {
    pub(crate) disk: Arc<MemoryStorage>,
    events: EventLog,
    dir: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let events = EventLog::new(Arc::new(Database::in_memory().unwrap()));
        Self { disk: Arc::new(MemoryStorage::default()), events, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) async fn start(&self) -> AuthService {
        self.start_to_die(Death::Never).await
    }

    /// A process that dies at a write which is counted from its start on.
    pub(crate) async fn start_to_die(&self, death: Death) -> AuthService {
        self.start_counted(death).await.0
    }

    /// The same, with the disk that counts its writes.
    pub(crate) async fn start_counted(&self, death: Death) -> (AuthService, Arc<Mortal>) {
        let mortal = Arc::new(Mortal { disk: self.disk.clone(), death, writes: Mutex::new(None) });
        let config = AuthConfig::new(self.dir.path(), ClusterName::new("root").unwrap());
        let recordings = RecordingFiles::open(&self.dir.path().join("recordings")).unwrap();
        let service = AuthService::with_stores(config, mortal.clone(), self.events.clone(), recordings).await.unwrap();
        *mortal.writes.lock().unwrap() = Some(0);
        (service, mortal)
    }

    /// A first start that dies at a write of its own; whether it came up all the same.
    pub(crate) async fn try_first_start(&self, death: Death) -> bool {
        let mortal = Arc::new(Mortal { disk: self.disk.clone(), death, writes: Mutex::new(Some(0)) });
        let config = AuthConfig::new(self.dir.path(), ClusterName::new("root").unwrap());
        let recordings = RecordingFiles::open(&self.dir.path().join("recordings")).unwrap();
        AuthService::with_stores(config, mortal, self.events.clone(), recordings).await.is_ok()
    }
}
