//! The auth service dies at each write that a step of a rotation makes, before it or after it: the next start is in the old phase or in
//! the new one, with the keys of that phase, and the rotation goes on from there.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use remoteler_auth::{AuthConfig, AuthService, Caller, Database, EventLog, MemoryStorage, RecordingFiles};
use remoteler_core::{
    Changes, ClusterName, Expected, Item, Page, Revision, RotateRequest, RotationKind, RotationPhase, RotationPlan,
    Storage, StorageError, Timestamp, Transaction, TrustBundle,
};

use RotationPhase::{Init, Rollback, Standby, UpdateClients, UpdateServers};

/// At which write the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    Never,
    /// Before the write number so many, from 0.
    Before(usize),
    /// When it is on disk, and nobody has been told.
    After(usize),
}

/// A disk under a process that dies: it keeps what was written, and answers nothing after the death.
struct Mortal {
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
struct Machine {
    disk: Arc<MemoryStorage>,
    events: EventLog,
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let events = EventLog::new(Arc::new(Database::in_memory().unwrap()));
        Self { disk: Arc::new(MemoryStorage::default()), events, dir: tempfile::tempdir().unwrap() }
    }

    async fn start(&self) -> AuthService {
        self.start_to_die(Death::Never).await
    }

    /// A process that dies at a write which is counted from its start on.
    async fn start_to_die(&self, death: Death) -> AuthService {
        let mortal = Arc::new(Mortal { disk: self.disk.clone(), death, writes: Mutex::new(None) });
        let config = AuthConfig::new(self.dir.path(), ClusterName::new("root").unwrap());
        let recordings = RecordingFiles::open(&self.dir.path().join("recordings")).unwrap();
        let service = AuthService::with_stores(config, mortal.clone(), self.events.clone(), recordings).await.unwrap();
        *mortal.writes.lock().unwrap() = Some(0);
        service
    }
}

async fn step(service: &AuthService, kind: RotationKind, phase: RotationPhase) -> bool {
    let request = RotateRequest { kind, phase, plan: RotationPlan::Manual, force: false };
    service.as_caller(Caller::LocalAdmin).rotate(request).await.is_ok()
}

fn phase(trust: &TrustBundle, kind: RotationKind) -> RotationPhase {
    match kind {
        RotationKind::User => trust.rotation.user,
        RotationKind::Host => trust.rotation.host,
        RotationKind::Token => trust.rotation.token,
    }
}

fn keys(trust: &TrustBundle, kind: RotationKind) -> Vec<String> {
    let set = |set: &remoteler_core::CaSet| {
        assert_eq!(set.ssh.len(), set.x509.len());
        set.ssh.iter().map(|key| key.to_openssh().unwrap()).collect()
    };
    match kind {
        RotationKind::User => set(&trust.user),
        RotationKind::Host => set(&trust.host),
        RotationKind::Token => trust.tokens.iter().map(|key| key.key_id().to_owned()).collect(),
    }
}

#[tokio::test]
async fn a_process_that_dies_at_any_write_of_a_step_is_in_one_phase_afterwards_and_goes_on() {
    let ways: [&[RotationPhase]; 2] =
        [&[Init, UpdateClients, UpdateServers, Standby], &[Init, UpdateClients, Rollback, Standby]];
    for kind in RotationKind::ALL {
        for way in ways {
            let machine = Machine::new();
            let first = machine.start().await;
            let original = keys(&first.trust_bundle(), kind);
            drop(first);
            for (number, wanted) in way.iter().enumerate() {
                let present = if number == 0 { Standby } else { way[number - 1] };
                let mut deaths = 0;
                // As many writes as the step makes: until one is counted that it does not come to.
                for write in 0.. {
                    let before = machine.start().await.trust_bundle();
                    let mut done = false;
                    for death in [Death::Before(write), Death::After(write)] {
                        let service = machine.start_to_die(death).await;
                        if step(&service, kind, *wanted).await {
                            done = true;
                            break;
                        }
                        deaths += 1;
                        drop(service);
                        let again = machine.start().await;
                        let trust = again.trust_bundle();
                        let there = phase(&trust, kind);
                        assert!([present, *wanted].contains(&there), "{kind:?} {wanted} {death:?}: {there}");
                        let number_of_keys = if there == Standby { 1 } else { 2 };
                        assert_eq!(keys(&trust, kind).len(), number_of_keys, "{kind:?} {there}");
                        if there == present {
                            assert_eq!(trust, before, "nothing of a step that was not taken");
                        } else {
                            done = true;
                            break;
                        }
                    }
                    if done {
                        break;
                    }
                }
                assert!(deaths > 0, "no write was found to die at");
                let again = machine.start().await;
                assert_eq!(phase(&again.trust_bundle(), kind), *wanted);
            }
            let last = machine.start().await;
            let is_back = keys(&last.trust_bundle(), kind) == original;
            assert_eq!(is_back, way.contains(&Rollback), "{kind:?}");
        }
    }
}
