//! The one thread that writes a spool. Owns the group commit (events that came while it wrote share the next write and sync), and what
//! happens when there is no room.

use std::{io, sync::Arc};

use remoteler_core::{AuditEvent, Timestamp};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{WhenFull, author::Author, segments::Segments};
use crate::files::FileError;

/// What is asked of the writer.
pub(super) enum Request {
    /// Keep this event; answered when it is on disk.
    Append { event: Box<AuditEvent>, done: oneshot::Sender<Result<(), String>> },
    /// Close the open segment; answered with all closed ones.
    CloseAll { done: oneshot::Sender<Vec<u64>> },
    /// Remove a segment.
    Remove { number: u64 },
}

type Waiting = (Box<AuditEvent>, oneshot::Sender<Result<(), String>>);

/// Events that were dropped and are not accounted for yet.
struct Dropped {
    count: u64,
    since: Timestamp,
    /// Whether it is on record that events are dropped.
    said: bool,
}

/// The thread's state.
pub(super) struct Writer {
    pub(super) segments: Segments,
    pub(super) author: Author,
    pub(super) when_full: WhenFull,
    /// Told when the writer wrote something that nobody asked for.
    pub(super) fresh: Arc<Notify>,
    dropped: Option<Dropped>,
}

impl Writer {
    pub(super) const fn new(segments: Segments, author: Author, when_full: WhenFull, fresh: Arc<Notify>) -> Self {
        Self { segments, author, when_full, fresh, dropped: None }
    }

    /// Serves requests until nobody can ask any more.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut batch: Vec<Waiting> = Vec::new();
        while let Some(first) = requests.blocking_recv() {
            let mut next = Some(first);
            while let Some(request) = next.take() {
                match request {
                    Request::Append { event, done } => batch.push((event, done)),
                    Request::CloseAll { done } => {
                        self.commit(&mut batch);
                        // A caller that has gone needs no answer.
                        let _ = done.send(self.segments.close_all());
                    }
                    Request::Remove { number } => self.remove(number),
                }
                if batch.len() < MAX_BATCH {
                    next = requests.try_recv().ok();
                }
            }
            self.commit(&mut batch);
        }
        self.account_for_dropped();
    }

    fn remove(&mut self, number: u64) {
        // Where the chain ends must be known when no segment is left to tell it.
        let outcome = match self.segments.is_last(number) {
            true => self.segments.write_head(&self.author.head()),
            false => Ok(()),
        };
        if let Err(error) = outcome.and_then(|()| self.segments.remove(number)) {
            tracing::warn!(%error, "an uploaded audit segment could not be removed; it will be sent again");
        }
        if self.account_for_dropped() {
            self.fresh.notify_one();
        }
    }

    fn commit(&mut self, batch: &mut Vec<Waiting>) {
        if batch.is_empty() {
            return;
        }
        self.account_for_dropped();
        let before = self.author.head();
        let mut room = self.room();
        let mut lines = Vec::new();
        let mut kept = Vec::new();
        let mut left_out = Vec::new();
        for (event, done) in batch.drain(..) {
            let head = self.author.head();
            match self.author.line(*event) {
                Ok(line) => match room.checked_sub(length(&line)) {
                    Some(left) => {
                        room = left;
                        lines.extend_from_slice(&line);
                        kept.push(done);
                    }
                    None => {
                        self.author.go_back(head);
                        left_out.push(done);
                    }
                },
                Err(cause) => {
                    let _ = done.send(Err(cause.0));
                }
            }
        }
        if !kept.is_empty() {
            match self.segments.append(&lines) {
                Ok(()) => kept.into_iter().for_each(|done| {
                    let _ = done.send(Ok(()));
                }),
                Err(error) => {
                    self.author.go_back(before);
                    if is_full(&error) {
                        left_out.extend(kept);
                    } else {
                        for done in kept {
                            let _ = done.send(Err(error.to_string()));
                        }
                    }
                }
            }
        }
        self.leave_out(left_out);
    }

    /// What is told to those for whose events there is no room.
    fn leave_out(&mut self, left_out: Vec<oneshot::Sender<Result<(), String>>>) {
        if left_out.is_empty() {
            return;
        }
        let outcome = match self.when_full {
            WhenFull::Deny => {
                let reason = "the spool is full, because the auth service has not taken events for long, or the disk is full; check the connection to it and free some space";
                Err(reason.to_owned())
            }
            WhenFull::DropAndSaySo => {
                self.drop_events(left_out.len() as u64);
                Ok(())
            }
        };
        for done in left_out {
            let _ = done.send(outcome.clone());
        }
    }

    fn drop_events(&mut self, count: u64) {
        let now = self.author.now();
        let dropped = self.dropped.get_or_insert(Dropped { count: 0, since: now, said: false });
        dropped.count = dropped.count.saturating_add(count);
        if dropped.said {
            return;
        }
        let since = dropped.since;
        tracing::error!(count, "audit events are dropped: the spool is full");
        let said = self.write_own(None, since);
        if let Some(dropped) = &mut self.dropped {
            dropped.said = said;
        }
    }

    /// Says how many events were dropped, once there is room for others again. Whether it wrote something.
    fn account_for_dropped(&mut self) -> bool {
        let Some(Dropped { count, since, .. }) = self.dropped else { return false };
        if self.room() < ROOM_AGAIN.min(self.segments.limit() / 8) || !self.write_own(Some(count), since) {
            return false;
        }
        tracing::warn!(count, %since, "audit events were dropped; there is room for them again");
        self.dropped = None;
        true
    }

    /// Writes what the writer itself has to say, for which there is room set aside.
    fn write_own(&mut self, count: Option<u64>, since: Timestamp) -> bool {
        let before = self.author.head();
        let event = self.author.dropped(count, since);
        let written = self.author.line(event).ok().filter(|line| length(line) <= self.segments.room());
        let written = written.is_some_and(|line| match self.segments.append(&line) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "that audit events are dropped could not be written either");
                false
            }
        });
        if !written {
            self.author.go_back(before);
        }
        written
    }

    /// Octets for events.
    fn room(&self) -> u64 {
        let set_aside = match self.when_full {
            WhenFull::Deny => 0,
            WhenFull::DropAndSaySo => SET_ASIDE,
        };
        self.segments.room().saturating_sub(set_aside)
    }
}

fn length(line: &[u8]) -> u64 {
    u64::try_from(line.len()).unwrap_or(u64::MAX)
}

/// Whether a file could not be written for want of room.
fn is_full(error: &FileError) -> bool {
    let FileError::Io { source, .. } = error else { return false };
    matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Events that share one sync at the most.
const MAX_BATCH: usize = 1024;
/// Octets kept for what the writer itself says when it drops events.
const SET_ASIDE: u64 = 4 * 1024;
/// Octets of room from which on events are not being dropped any more.
const ROOM_AGAIN: u64 = 64 * 1024;
