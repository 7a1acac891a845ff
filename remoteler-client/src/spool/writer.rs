//! The one thread that writes a spool. Owns the group commit: events that came while it wrote share the next write and sync.

use tokio::sync::{mpsc, oneshot};

use super::segments::Segments;

/// What is asked of the writer.
pub(super) enum Request {
    /// Keep this line; answered when it is on disk.
    Append { line: Vec<u8>, done: oneshot::Sender<Result<(), String>> },
    /// Close the open segment; answered with all closed ones.
    CloseAll { done: oneshot::Sender<Vec<u64>> },
    /// Remove a segment.
    Remove { number: u64 },
}

type Waiting = (Vec<u8>, oneshot::Sender<Result<(), String>>);

/// Serves requests until nobody can ask any more.
pub(super) fn run(mut segments: Segments, mut requests: mpsc::Receiver<Request>) {
    let mut batch: Vec<Waiting> = Vec::new();
    while let Some(first) = requests.blocking_recv() {
        let mut next = Some(first);
        while let Some(request) = next.take() {
            match request {
                Request::Append { line, done } => batch.push((line, done)),
                Request::CloseAll { done } => {
                    commit(&mut segments, &mut batch);
                    // A caller that has gone needs no answer.
                    let _ = done.send(segments.close_all());
                }
                Request::Remove { number } => {
                    if let Err(error) = segments.remove(number) {
                        tracing::warn!(%error, "an uploaded audit segment could not be removed; it will be sent again");
                    }
                }
            }
            if batch.len() < MAX_BATCH {
                next = requests.try_recv().ok();
            }
        }
        commit(&mut segments, &mut batch);
    }
}

fn commit(segments: &mut Segments, batch: &mut Vec<Waiting>) {
    let mut room = segments.room();
    let mut lines = Vec::new();
    let mut kept = Vec::new();
    for (line, done) in batch.drain(..) {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        match room.checked_sub(length) {
            Some(left) => {
                room = left;
                lines.extend_from_slice(&line);
                kept.push(done);
            }
            None => {
                let reason = "the spool is full, because the auth service has not taken events for long; check the connection to it";
                let _ = done.send(Err(reason.into()));
            }
        }
    }
    if kept.is_empty() {
        return;
    }
    let outcome = segments.append(&lines).map_err(|error| error.to_string());
    for done in kept {
        let _ = done.send(outcome.clone());
    }
}

/// Events that share one sync at the most.
const MAX_BATCH: usize = 1024;
