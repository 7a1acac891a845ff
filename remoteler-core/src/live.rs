//! What runs now on the strength of a decision: sessions, forwards, links, requests under way. Owns the table of it, and the rule by which
//! it ends: a lock, a revocation, a role that is gone, a certificate's end, silence. Opens nothing, closes nothing and waits for nothing: whoever
//! does the work holds a [`LiveGuard`] and stops when that says so, and somebody calls [`LiveWork::look`] when the rules or the time have changed.

mod count;
mod subject;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

pub use count::{
    ConnectionCount, ConnectionKind, ConnectionLease, LEASE_LIFE, LeaseAnswer, LeaseReport, LeaseRequest,
    MAX_LEASES_IN_REPORT, Place,
};
pub use subject::Subject;

use crate::{Clock, LockMode, Locked, Policy, PolicySource, RevocationTarget, RoleName, SessionId, Timestamp};

/// Why work that was allowed has to end. The text is for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndReason {
    /// It is locked.
    #[error(transparent)]
    Locked(#[from] Locked),
    /// Its certificate is revoked.
    #[error("the certificate was revoked ({0}); ask an administrator why")]
    Revoked(RevocationTarget),
    /// A role of it is gone, and with it the knowledge of what that denied.
    #[error("role {0} does not exist any more; log in again")]
    RoleGone(RoleName),
    /// Its certificate has ended, and the rules say that this ends it.
    #[error("the certificate expired at {0}; log in again")]
    Expired(Timestamp),
    /// The user has as many connections as their roles allow. Said at the beginning only.
    #[error("{0} of your connections are open, and your roles allow no more; close one")]
    TooMany(u32),
    /// How many connections the user has is not known, and where locks are strict nothing begins then. Said at the beginning only.
    #[error(
        "your roles limit how many connections you have, and the auth service that counts them does not answer; try again later"
    )]
    Uncounted,
    /// It was done in a session with a web application, which has ended.
    #[error("the session with the application has ended; open the application again")]
    SessionEnded,
    /// The same where nobody has said for long whether that goes on.
    #[error("whether the session with the application goes on is not known: the auth service does not answer")]
    SessionUnknown,
    /// Nothing happened in it.
    #[error("nothing happened for {} s", .0.as_secs())]
    Idle(Duration),
}

/// What else ends a piece of work, beside the rules of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Ends with its certificate, whatever the cluster's settings say.
    pub ends_with_certificate: bool,
    /// Ends when nothing has happened for so long ([`LiveSignal::touch`]).
    pub idle: Option<Duration>,
    /// Is told so much later, so that those who can say why end it first.
    pub grace: Duration,
    /// Is one of a user's connections of this kind, of which there may be so many.
    pub connection: Option<(ConnectionKind, Option<u32>)>,
}

/// All live work of one process. One for all its services.
pub struct LiveWork {
    policy: Arc<dyn PolicySource>,
    clock: Arc<dyn Clock>,
    /// Counts over the whole cluster; without it this process counts its own.
    count: Option<Arc<dyn ConnectionCount>>,
    table: Mutex<Table>,
    arrived: Notify,
}

#[derive(Default)]
struct Table {
    next: u64,
    slots: BTreeMap<u64, Slot>,
}

struct Slot {
    entry: Arc<Entry>,
    /// Something happened then, or was looked for first.
    active: Timestamp,
    /// Has to end since then, and why.
    condemned: Option<(Timestamp, EndReason)>,
    /// Why its session ends it ([`LiveWork::end_session`]).
    over: Option<EndReason>,
}

struct Entry {
    subject: Subject,
    terms: Terms,
    touched: AtomicBool,
    ended: OnceLock<EndReason>,
    told: Notify,
}

/// What was ended by one look, and how long nothing else will be due by the clock alone.
#[derive(Debug, Default)]
pub struct Looked {
    /// What was told to end.
    pub ended: Vec<(Subject, EndReason)>,
    /// When to look again at the latest; `None`: when the rules change.
    pub next: Option<Duration>,
}

impl LiveWork {
    /// For services that decide by `policy` and live by `clock`.
    #[must_use]
    pub fn new(policy: Arc<dyn PolicySource>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { policy, clock, count: None, table: Mutex::default(), arrived: Notify::new() })
    }

    /// The same, for a process that is one of several: `count` knows the connections at all of them.
    #[must_use]
    pub fn counted_by(
        policy: Arc<dyn PolicySource>,
        clock: Arc<dyn Clock>,
        count: Arc<dyn ConnectionCount>,
    ) -> Arc<Self> {
        Arc::new(Self { policy, clock, count: Some(count), table: Mutex::default(), arrived: Notify::new() })
    }

    /// The rules that it is measured by.
    #[must_use]
    pub const fn policy(&self) -> &Arc<dyn PolicySource> {
        &self.policy
    }

    /// Puts work into the table that was allowed just now.
    ///
    /// # Errors
    /// [`EndReason`]: the rules have changed since it was allowed, or the user has as many connections as they may, and it must not begin.
    pub fn enter(self: &Arc<Self>, subject: Subject, terms: Terms) -> Result<LiveGuard, EndReason> {
        let (touched, ended, told) = (AtomicBool::new(false), OnceLock::new(), Notify::new());
        let entry = Arc::new(Entry { subject, terms, touched, ended, told });
        let active = self.clock.now();
        let id = {
            let mut table = self.lock();
            table.room_for(&entry.subject, &terms)?;
            table.next += 1;
            let id = table.next;
            table.slots.insert(id, Slot { entry: entry.clone(), active, condemned: None, over: None });
            id
        };
        let guard = LiveGuard { work: self.clone(), id, entry, place: None };
        // Only now: a change from here on finds it in the table.
        match guard.entry.subject.ends_by(&self.policy.policy()) {
            Some(reason) => Err(reason),
            None => {
                self.arrived.notify_one();
                Ok(guard)
            }
        }
    }

    /// [`LiveWork::enter`] for a connection: one of a user with a limit is counted with those at other services first. `mode` says what to do
    /// while nobody can say how many there are. Nobody is asked about a user without a limit.
    ///
    /// # Errors
    /// As [`LiveWork::enter`], and [`EndReason::Uncounted`].
    ///
    /// # Cancel safety
    /// A dropped future has put nothing in.
    pub async fn enter_connection(
        self: &Arc<Self>,
        subject: Subject,
        terms: Terms,
        mode: LockMode,
    ) -> Result<LiveGuard, EndReason> {
        let place = match (&self.count, terms.connection, subject.user_name()) {
            (Some(count), Some((kind, Some(limit))), Some(user)) => {
                // What this process knows by itself need not be asked.
                self.lock().room_for(&subject, &terms)?;
                Some(count.take(user.clone(), kind, limit, mode).await?)
            }
            _ => None,
        };
        let mut guard = self.enter(subject, terms)?;
        guard.place = place;
        Ok(guard)
    }

    /// Waits until something was put in that may have to end by time alone, and sooner than what was there; or a session has ended.
    ///
    /// # Cancel safety
    /// Nothing is lost with a dropped future.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Ends what has to end by the rules and the time as they are now.
    pub fn look(&self) -> Looked {
        let (policy, now) = (self.policy.policy(), self.clock.now());
        let mut looked = Looked::default();
        for slot in self.lock().slots.values_mut() {
            slot.look(&policy, now, &mut looked);
        }
        looked
    }

    /// The sessions with web applications in which there is work.
    #[must_use]
    pub fn sessions(&self) -> BTreeSet<SessionId> {
        self.lock().slots.values().filter_map(|slot| slot.entry.subject.session()).collect()
    }

    /// Ends what is there of a session with a web application, with the next look, which is wanted at once. What is put in later is not ended by it: whoever
    /// does that looks afterwards whether the session goes on.
    pub fn end_session(&self, session: SessionId, reason: &EndReason) {
        let mut found = false;
        for slot in self.lock().slots.values_mut().filter(|slot| slot.entry.subject.session() == Some(session)) {
            slot.over = Some(reason.clone());
            found = true;
        }
        if found {
            self.arrived.notify_one();
        }
    }

    /// How much there is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LiveWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveWork").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Table {
    /// Whether the user may have one more, as far as this process knows.
    fn room_for(&self, subject: &Subject, terms: &Terms) -> Result<(), EndReason> {
        match terms.connection {
            Some((kind, Some(limit)))
                if self.connections(subject, kind) >= usize::try_from(limit).unwrap_or(usize::MAX) =>
            {
                Err(EndReason::TooMany(limit))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// How many connections of one kind the subject's user has (I32).
    fn connections(&self, subject: &Subject, kind: ConnectionKind) -> usize {
        let counts = |entry: &Entry| {
            let same = entry.terms.connection.is_some_and(|(of, _)| of == kind);
            same && entry.ended.get().is_none() && entry.subject.is_of_user_of(subject)
        };
        self.slots.values().filter(|slot| counts(&slot.entry)).count()
    }
}

impl Slot {
    fn look(&mut self, policy: &Policy, now: Timestamp, looked: &mut Looked) {
        if self.entry.ended.get().is_some() {
            return;
        }
        if self.entry.touched.swap(false, Ordering::Relaxed) {
            self.active = now;
        }
        let terms = &self.entry.terms;
        let mut due = None;
        let mut wait_until = |moment: Timestamp| due = Some(due.map_or(moment, |due: Timestamp| due.min(moment)));
        let expires = self
            .entry
            .subject
            .expires()
            .filter(|_| terms.ends_with_certificate || policy.settings.disconnect_expired_cert);
        let reason = match self.over.clone().or_else(|| self.entry.subject.ends_by(policy)) {
            Some(reason) => Some(reason),
            None if expires.is_some_and(|end| end <= now) => expires.map(EndReason::Expired),
            None => match terms.idle {
                Some(idle) if self.active.plus(idle) <= now => Some(EndReason::Idle(idle)),
                idle => {
                    expires.into_iter().chain(idle.map(|idle| self.active.plus(idle))).for_each(&mut wait_until);
                    None
                }
            },
        };
        match reason {
            // What was locked and is not any more, before it was told, goes on.
            None => self.condemned = None,
            Some(reason) => {
                let (since, reason) = self.condemned.take().unwrap_or((now, reason));
                let end = since.plus(terms.grace);
                if end <= now {
                    looked.ended.push((self.entry.subject.clone(), reason.clone()));
                    self.entry.end(reason);
                } else {
                    self.condemned = Some((since, reason));
                    wait_until(end);
                }
            }
        }
        if let Some(due) = due {
            let wait = due.since(now);
            looked.next = Some(looked.next.map_or(wait, |next| next.min(wait)));
        }
    }
}

impl Entry {
    fn touch(&self) {
        if self.terms.idle.is_some() && !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
    }

    fn end(&self, reason: EndReason) {
        // The first reason stays.
        let _ = self.ended.set(reason);
        self.told.notify_waiters();
    }
}

/// A piece of live work. Leaves the table when dropped.
pub struct LiveGuard {
    work: Arc<LiveWork>,
    id: u64,
    entry: Arc<Entry>,
    /// Its place among the connections of its user in the whole cluster; free when this is dropped.
    place: Option<Place>,
}

impl LiveGuard {
    /// Why the work has to end, if it has to.
    #[must_use]
    pub fn reason(&self) -> Option<&EndReason> {
        self.entry.ended.get()
    }

    /// For those who do parts of the work.
    #[must_use]
    pub fn signal(&self) -> LiveSignal {
        LiveSignal(self.entry.clone())
    }

    /// As [`LiveSignal::touch`].
    pub fn touch(&self) {
        self.entry.touch();
    }
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.work.lock().slots.remove(&self.id);
        // Only now: who is told that there is room here finds it.
        drop(self.place.take());
    }
}

impl fmt::Debug for LiveGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveGuard").field("id", &self.id).field("ended", &self.entry.ended.get()).finish()
    }
}

/// Says when a piece of work has to end, and is told that something happens in it. Clones are the same.
#[derive(Clone)]
pub struct LiveSignal(Arc<Entry>);

impl LiveSignal {
    /// Something happened: the work is not idle. Cheap enough for each piece of data.
    pub fn touch(&self) {
        self.0.touch();
    }

    /// Why it has to end, if it has to.
    #[must_use]
    pub fn reason(&self) -> Option<&EndReason> {
        self.0.ended.get()
    }

    /// Waits until it has to end.
    ///
    /// # Cancel safety
    /// Nothing is lost with a dropped future.
    pub async fn ended(&self) -> EndReason {
        loop {
            let told = self.0.told.notified();
            tokio::pin!(told);
            // In the list before the look, so that no end falls between the two.
            told.as_mut().enable();
            if let Some(reason) = self.0.ended.get() {
                return reason.clone();
            }
            told.await;
        }
    }
}

impl fmt::Debug for LiveSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LiveSignal").field(&self.0.ended.get()).finish()
    }
}
