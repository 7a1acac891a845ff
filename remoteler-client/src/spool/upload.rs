//! Carries closed segments to the auth service. Owns the order, the batches and the back-off. Removes nothing that was not
//! acknowledged; what the service will never take is set aside in a file of its own.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use remoteler_core::{ApiError, ApiErrorKind, HostApi, OsEntropy, wire};
use serde::Deserialize;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    segments::{MAX_READ, name_of},
    writer::Request,
};
use crate::{
    files::{FileError, Privacy, PrivateDir},
    policy::jittered,
};

/// An event as it is carried: its text, whatever it says. The service reads the rest, which an agent's program has no code for.
#[derive(Clone)]
struct Carried {
    head: Head,
    text: String,
}

/// What every event has.
#[derive(Clone, Deserialize)]
struct Head {
    event: String,
    uid: Uuid,
}

impl Carried {
    /// A line of a segment, if it is an event.
    fn read(line: &[u8]) -> Result<Self, serde_json::Error> {
        let text = std::str::from_utf8(line).map_err(serde::de::Error::custom)?;
        Ok(Self { head: serde_json::from_str(text)?, text: text.trim_end().to_owned() })
    }
}

pub(super) struct Uploader {
    path: PathBuf,
    linger: Duration,
    /// Held while uploading: segments with refused events for which there was no more room beside the others.
    held_back: Mutex<BTreeSet<u64>>,
}

#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error(transparent)]
    Auth(#[from] ApiError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the spool's writer has ended")]
    WriterGone,
}

impl Uploader {
    pub(super) fn new(path: PathBuf, linger: Duration) -> Self {
        Self { path, linger, held_back: Mutex::default() }
    }

    pub(super) async fn run(
        &self,
        requests: &mpsc::Sender<Request>,
        fresh: &Notify,
        auth: &dyn HostApi,
        stop: CancellationToken,
    ) {
        let mut held_back = self.held_back.lock().await;
        let mut wait = FIRST_WAIT;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = fresh.notified() => {}
            }
            loop {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(self.linger) => {}
                }
                let outcome = tokio::select! {
                    () = stop.cancelled() => break,
                    outcome = self.flush(requests, auth, &mut held_back) => outcome,
                };
                let Err(error) = outcome else {
                    if wait > FIRST_WAIT {
                        tracing::info!("audit events are uploaded again");
                    }
                    wait = FIRST_WAIT;
                    break;
                };
                if wait == FIRST_WAIT {
                    tracing::warn!(%error, "audit events wait on disk");
                } else {
                    tracing::debug!(%error, "audit events wait on disk");
                }
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(jittered(wait, &OsEntropy)) => {}
                }
                wait = (wait * 2).min(LAST_WAIT);
            }
        }
        match tokio::time::timeout(FAREWELL, self.flush(requests, auth, &mut held_back)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(%error, "audit events stay on disk until the next start"),
            Err(_) => tracing::info!("audit events stay on disk until the next start"),
        }
    }

    /// Uploads all that is there now. A segment that is held back is not sent again while there is no room for what is refused in it.
    async fn flush(
        &self,
        requests: &mpsc::Sender<Request>,
        auth: &dyn HostApi,
        held_back: &mut BTreeSet<u64>,
    ) -> Result<(), UploadError> {
        let (done, closed) = oneshot::channel();
        requests.send(Request::CloseAll { done }).await.map_err(|_| UploadError::WriterGone)?;
        let mut stuck = None;
        for number in closed.await.map_err(|_| UploadError::WriterGone)? {
            if held_back.contains(&number) && self.set_aside_count().await? >= MAX_SET_ASIDE {
                continue;
            }
            match self.upload_segment(number, auth).await {
                Ok(true) => {
                    held_back.remove(&number);
                    requests.send(Request::Remove { number }).await.map_err(|_| UploadError::WriterGone)?;
                }
                // It stays, and does not hold up what came after it.
                Ok(false) => {
                    if held_back.insert(number) {
                        tracing::warn!(
                            segment = number,
                            "{MAX_SET_ASIDE} refused events were set aside already; look at them in the spool and remove them"
                        );
                    }
                }
                Err(error @ UploadError::File(_)) => {
                    stuck.get_or_insert(error);
                }
                Err(error @ (UploadError::Auth(_) | UploadError::WriterGone)) => return Err(error),
            }
        }
        stuck.map_or(Ok(()), Err)
    }

    /// `false`: something in it is refused, and there was no room to set it aside. All the rest has arrived.
    async fn upload_segment(&self, number: u64, auth: &dyn HostApi) -> Result<bool, UploadError> {
        let content = self.read(number).await?;
        let mut settled = true;
        let mut batch = Vec::new();
        let mut octets = 0;
        for line in content.split_inclusive(|octet| *octet == b'\n') {
            let event = match Carried::read(line) {
                Ok(event) => event,
                Err(_) if !line.ends_with(b"\n") => {
                    tracing::info!(segment = number, "the last line was torn by a crash; it was never acknowledged");
                    continue;
                }
                Err(cause) => {
                    tracing::warn!(segment = number, %cause, "a line is no event; it is set aside");
                    settled &= self.set_aside(&format!("{number}-{}", line_hash(line)), line).await?;
                    continue;
                }
            };
            octets += line.len();
            batch.push(event);
            if batch.len() == wire::MAX_EVENTS || octets > MAX_BATCH_OCTETS {
                octets = 0;
                settled &= self.send(std::mem::take(&mut batch), auth).await?;
            }
        }
        Ok(self.send(batch, auth).await? && settled)
    }

    /// Sends a batch. When the service refuses it, the events go one by one, and those that it still refuses are set aside: one of them
    /// must not hold up all that follow. `false`: there was no room to set one aside.
    async fn send(&self, batch: Vec<Carried>, auth: &dyn HostApi) -> Result<bool, UploadError> {
        if batch.is_empty() {
            return Ok(true);
        }
        match auth.record_texts(batch.iter().map(|event| event.text.clone()).collect()).await {
            Err(error) if is_about_an_event(&error) => {}
            outcome => return Ok(outcome.map(|()| true)?),
        }
        let mut settled = true;
        for event in batch {
            match auth.record_texts(vec![event.text.clone()]).await {
                Err(error) if is_about_an_event(&error) => {
                    tracing::warn!(uid = %event.head.uid, event = event.head.event, %error, "an event is refused; it is set aside");
                    settled &= self.set_aside(&event.head.uid.to_string(), event.text.as_bytes()).await?;
                }
                outcome => outcome?,
            }
        }
        Ok(settled)
    }

    async fn read(&self, number: u64) -> Result<Vec<u8>, UploadError> {
        let path = self.path.clone();
        let content = blocking(move || match PrivateDir::open(&path, Privacy::Tighten)? {
            Some(dir) => dir.read(&name_of(number), MAX_READ),
            None => Ok(None),
        });
        Ok(content.await?.unwrap_or_default())
    }

    /// `false`: there is no more room.
    async fn set_aside(&self, name: &str, line: &[u8]) -> Result<bool, UploadError> {
        let (path, name, line) = (self.path.clone(), format!("refused-{name}.json"), line.to_vec());
        let set_aside = blocking(move || {
            let dir = PrivateDir::create(&path, Privacy::Tighten)?;
            let files = dir.files()?;
            if files.contains(&name) {
                return Ok(true); // a segment that is sent again
            }
            let room = files.iter().filter(|name| is_set_aside(name)).count() < MAX_SET_ASIDE;
            if room {
                dir.write(&name, &line)?;
            }
            Ok(room)
        });
        set_aside.await
    }

    async fn set_aside_count(&self) -> Result<usize, UploadError> {
        let path = self.path.clone();
        let count = blocking(move || match PrivateDir::open(&path, Privacy::Tighten)? {
            Some(dir) => Ok(dir.files()?.iter().filter(|name| is_set_aside(name)).count()),
            None => Ok(0),
        });
        count.await
    }
}

fn is_set_aside(name: &str) -> bool {
    name.starts_with("refused-")
}

/// Whether sending the same again would be refused again: the service does not read one of the events, or does not take it from
/// this host.
fn is_about_an_event(error: &ApiError) -> bool {
    matches!(error.kind, ApiErrorKind::BadRequest | ApiErrorKind::Denied)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, UploadError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => Ok(outcome?),
        // Only when the runtime is shutting down: the work does not panic.
        Err(_) => Err(UploadError::WriterGone),
    }
}

fn line_hash(line: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, line);
    digest.as_ref().iter().take(8).map(|octet| format!("{octet:02x}")).collect()
}

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LAST_WAIT: Duration = Duration::from_secs(30);
/// How long the last upload may take when the process ends.
const FAREWELL: Duration = Duration::from_secs(5);
/// Half of what the service reads.
const MAX_BATCH_OCTETS: usize = wire::MAX_EVENTS_BODY / 2;
const MAX_SET_ASIDE: usize = 1000;
