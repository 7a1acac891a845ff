//! Backups for the administrator of the machine: one at a time, made beside the running service and fetched in parts. Owns the one that is held, and
//! when it is let go. What is in it, the database decides.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use remoteler_core::{ApiError, ApiErrorKind, AuditKind, BackupStatus, random_uuid};
use ring::digest::{Context, SHA256};
use tokio::time::Instant;

use crate::{
    Caller, Database, DatabaseError, OpenError,
    blocking::blocking,
    database::Backup,
    failure::{ApiResult, bad_request, conflict, not_found},
    service::Inner,
};

/// How long a backup is held that nobody asks for.
const IDLE: Duration = Duration::from_secs(60);
/// Octets answered at once.
const CHUNK: usize = 1024 * 1024;

/// The backup that is held, if any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backups(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    database: OnceLock<Arc<Database>>,
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    id: String,
    asked: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    Making,
    Made { file: Arc<File>, status: BackupStatus },
    Failed(ApiError),
}

impl Backups {
    /// Backups are of this database.
    pub(crate) fn over(&self, database: Arc<Database>) {
        let _ = self.0.database.set(database); // there is one
    }

    /// What is backed up; `None` where the service keeps its state elsewhere.
    pub(crate) fn database(&self) -> Option<&Arc<Database>> {
        self.0.database.get()
    }

    fn with<T>(&self, work: impl FnOnce(&mut Option<Held>) -> T) -> T {
        work(&mut self.0.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the place, if it is free or nobody came back for what is there.
    fn begin(&self, id: &str) -> ApiResult<()> {
        self.with(|held| {
            let taken = |held: &Held| match held.state {
                State::Making => true, // it ends by itself
                State::Failed(_) => false,
                _ => held.asked.elapsed() < IDLE,
            };
            if held.as_ref().is_some_and(taken) {
                return Err(conflict("another backup is being made or fetched; try again in a minute"));
            }
            *held = Some(Held { id: id.to_owned(), asked: Instant::now(), state: State::Making });
            Ok(())
        })
    }

    fn end(&self, id: &str) {
        self.with(|held| drop(held.take_if(|held| held.id == id)));
    }

    /// The one of that name, which was just asked for.
    fn look<T>(&self, id: &str, look: impl FnOnce(&State) -> ApiResult<T>) -> ApiResult<T> {
        self.with(|held| {
            let held = held.as_mut().filter(|held| held.id == id);
            let held = held.ok_or_else(|| not_found("there is no such backup any more; begin another"))?;
            held.asked = Instant::now();
            look(&held.state)
        })
    }

    /// Makes it, then holds it until it was fetched or nobody asks any more.
    async fn make(self, id: String, database: Arc<Database>) {
        let made = blocking(move || {
            let backup = database.back_up()?;
            Some(backup.and_then(|backup| {
                Ok((hash(&backup).map_err(|cause| OpenError::from_io("the backup".as_ref(), cause))?, backup))
            }))
        })
        .await;
        let state = match made {
            Some(Ok((sha256, Backup { file, size, clear_keys }))) => {
                let status = BackupStatus { id: id.clone(), size: Some(size), sha256: Some(sha256), clear_keys };
                State::Made { file: Arc::new(file), status }
            }
            Some(Err(cause)) => State::Failed(failed(&cause)),
            None => State::Failed(no_database()),
        };
        self.with(|held| {
            if let Some(held) = held.as_mut().filter(|held| held.id == id) {
                held.state = state;
                held.asked = Instant::now();
            }
        });
        loop {
            let left = self.with(|held| {
                let held = held.as_ref().filter(|held| held.id == id)?;
                IDLE.checked_sub(held.asked.elapsed()).filter(|left| !left.is_zero())
            });
            let Some(left) = left else { break };
            tokio::time::sleep(left).await;
        }
        self.end(&id);
    }
}

impl Inner {
    pub(crate) async fn start_backup(&self, caller: &Caller) -> ApiResult<BackupStatus> {
        self.admit_to_backups(caller).await?;
        let Some(database) = self.backups.database() else { return Err(no_database()) };
        let id = random_uuid(self.entropy.as_ref()).to_string();
        self.backups.begin(&id)?;
        if let Err(cause) = self.record(AuditKind::BackupCreate { user: caller.name() }).await {
            self.backups.end(&id);
            return Err(cause);
        }
        // Ends by itself: when it was fetched, or a minute after it was last asked for.
        tokio::spawn(self.backups.clone().make(id.clone(), Arc::clone(database)));
        Ok(BackupStatus { id, size: None, sha256: None, clear_keys: false })
    }

    pub(crate) async fn backup(&self, caller: &Caller, id: &str) -> ApiResult<BackupStatus> {
        self.admit_to_backups(caller).await?;
        self.backups.look(id, |state| match state {
            State::Making => Ok(BackupStatus { id: id.to_owned(), size: None, sha256: None, clear_keys: false }),
            State::Made { status, .. } => Ok(status.clone()),
            State::Failed(cause) => Err(cause.clone()),
        })
    }

    pub(crate) async fn read_backup(&self, caller: &Caller, id: &str, offset: u64) -> ApiResult<Vec<u8>> {
        self.admit_to_backups(caller).await?;
        let file = self.backups.look(id, |state| match state {
            State::Made { file, .. } => Ok(Arc::clone(file)),
            State::Making => Err(conflict("the backup is still being made")),
            State::Failed(cause) => Err(cause.clone()),
        })?;
        let read = blocking(move || {
            let mut octets = vec![0; CHUNK];
            let length = file.read_at(&mut octets, offset)?;
            octets.truncate(length);
            Ok::<_, std::io::Error>(octets)
        });
        let octets = read.await.map_err(|cause| failed(&OpenError::from_io("the backup".as_ref(), cause)))?;
        if octets.is_empty() {
            self.backups.end(id);
        }
        Ok(octets)
    }

    /// The whole cluster is in a backup, its keys included: it is for who could read the data directory anyway.
    async fn admit_to_backups(&self, caller: &Caller) -> ApiResult<()> {
        if matches!(caller, Caller::LocalAdmin) {
            return Ok(());
        }
        let refused = self.refuse(caller, "make a backup").await;
        if refused.kind != ApiErrorKind::Denied {
            return Err(refused);
        }
        Err(ApiError::new(
            refused.kind,
            "a backup holds the cluster's keys and is made on the auth service's own machine only; run tctl backup there, as root or the service's user",
        ))
    }
}

fn hash(backup: &Backup) -> std::io::Result<String> {
    let (mut context, mut octets, mut offset) = (Context::new(&SHA256), vec![0; CHUNK], 0);
    loop {
        let length = backup.file.read_at(&mut octets, offset)?;
        let Some(read) = octets.get(..length).filter(|read| !read.is_empty()) else { break };
        context.update(read);
        offset += u64::try_from(length).unwrap_or(u64::MAX);
    }
    Ok(context.finish().as_ref().iter().map(|octet| format!("{octet:02x}")).collect())
}

fn no_database() -> ApiError {
    bad_request("this auth service keeps its state elsewhere; back that up")
}

fn failed(cause: &OpenError) -> ApiError {
    tracing::error!(error = cause as &dyn std::error::Error, "a backup was not made");
    if matches!(cause, OpenError::Full { .. }) {
        let full = DatabaseError::Full("the auth service".into());
        return ApiError::new(
            ApiErrorKind::Unavailable,
            format!("the backup was not made: {full}; it needs as much room as the database has"),
        );
    }
    ApiError::new(ApiErrorKind::Internal, "the backup was not made; the auth service's log says why")
}
