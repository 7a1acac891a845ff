//! Whether the sessions of browsers go on that the certificates shown here are of: the auth service is asked for all of them at once, as long as there is work
//! in them. What a proxy has of a session is so worth nothing here soon after the session's end, whatever that proxy does. Owns what is known of each, and
//! forgets it; who is asked, and what ends work, are others.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use remoteler_core::{
    ApiError, AppSessionsEnded, AppSessionsRequest, EndReason, LOCKS_HOLD, LiveWork, MAX_APP_SESSIONS_ASKED, SessionId,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};

/// Asks the auth service which sessions have ended.
pub type EndedSessions =
    Arc<dyn Fn(AppSessionsRequest) -> BoxFuture<'static, Result<AppSessionsEnded, ApiError>> + Send + Sync>;

/// How often a session is asked for.
const EVERY: Duration = Duration::from_secs(2);
/// So long the end of a session that went on is kept to ourselves: a proxy that asks each second hears of it first, and leads the browser to the login.
const GRACE: Duration = Duration::from_millis(1500);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a request waits for one: for that of others, and its own.
const WAIT: Duration = Duration::from_secs(10);
/// So long after its last request a session is asked for no more, if nothing is left that goes on in it.
const FORGET: Duration = Duration::from_secs(60);
/// Sessions that are known at once.
const MAX_KNOWN: usize = 20_000;

/// All sessions that certificates were shown of.
pub(super) struct Sessions {
    ask: EndedSessions,
    live: Arc<LiveWork>,
    known: Mutex<Table>,
    /// One is to be asked for that was not known.
    wanted: Notify,
    /// Changes with each answer, and each that did not come.
    looked: watch::Sender<u64>,
}

impl Sessions {
    pub(super) fn new(ask: EndedSessions, live: Arc<LiveWork>) -> Self {
        Self { ask, live, known: Mutex::default(), wanted: Notify::new(), looked: watch::Sender::new(0) }
    }

    /// Whether a session goes on in which there is a request. That one has to be in the table of live work already: what ends later ends it there.
    ///
    /// # Errors
    /// [`EndReason::SessionEnded`], [`EndReason::SessionUnknown`]
    pub(super) async fn check(&self, session: SessionId) -> Result<(), EndReason> {
        let mut looked = self.looked.subscribe();
        if let Some(judged) = self.lock().used(session, Instant::now()) {
            return judged;
        }
        self.wanted.notify_one();
        let told = async {
            while looked.changed().await.is_ok() {
                let known = self.lock();
                if let Some(judged) = known.judged(session, Instant::now()) {
                    return judged;
                }
                if !known.0.contains_key(&session) {
                    break;
                }
            }
            Err(EndReason::SessionUnknown)
        };
        timeout(WAIT, told).await.unwrap_or(Err(EndReason::SessionUnknown))
    }

    /// Asks for what is due, for as long as the future lives, and ends what has ended. Without it no session is known to go on.
    pub(super) async fn watch(&self) {
        loop {
            let asked = Instant::now();
            let due = self.lock().due(&self.live.sessions(), asked);
            if !due.is_empty() {
                self.ask(due, asked).await;
            }
            for session in self.live.sessions() {
                if let Some(Err(reason)) = self.lock().judged(session, Instant::now()) {
                    self.live.end_session(session, &reason);
                }
            }
            self.looked.send_modify(|times| *times = times.wrapping_add(1));
            let next = self.lock().next();
            let due = async {
                match next {
                    Some(moment) => sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wanted.notified() => {}
                () = due => {}
            }
        }
    }

    async fn ask(&self, sessions: Vec<SessionId>, asked: Instant) {
        let answer = timeout(PATIENCE, (self.ask)(AppSessionsRequest { sessions: sessions.clone() })).await;
        let mut known = self.lock();
        match answer {
            Ok(Ok(AppSessionsEnded { ended })) => known.answered(&sessions, &ended, asked),
            Ok(Err(cause)) => {
                tracing::debug!(%cause, "whether sessions with apps go on was not answered");
                known.unanswered(&sessions);
            }
            Err(_) => {
                tracing::debug!("whether sessions with apps go on was not answered in time");
                known.unanswered(&sessions);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known. Pure: the time comes in.
#[derive(Default)]
struct Table(BTreeMap<SessionId, Known>);

struct Known {
    /// When the last question was sent that was answered, and whether the session has ended by that answer.
    answered: Option<(Instant, bool)>,
    /// When it was first said to have ended, of one that went on before.
    ended: Option<Instant>,
    /// When the last question was sent.
    asked: Option<Instant>,
    /// When there was a request in it last.
    used: Instant,
}

impl Table {
    /// As [`Table::judged`], for a request in it: from now on it is asked for.
    fn used(&mut self, session: SessionId, now: Instant) -> Option<Result<(), EndReason>> {
        if self.0.len() >= MAX_KNOWN && !self.0.contains_key(&session) {
            return Some(Err(EndReason::SessionUnknown));
        }
        self.0.entry(session).or_insert(Known { answered: None, ended: None, asked: None, used: now }).used = now;
        self.judged(session, now)
    }

    /// Whether a session goes on; `None` where nothing was said of it. While the auth service is away, what it said counts as long as with locks.
    fn judged(&self, session: SessionId, now: Instant) -> Option<Result<(), EndReason>> {
        let known = self.0.get(&session)?;
        Some(match known.answered? {
            (_, true) if known.ended.is_some_and(|since| now.duration_since(since) < GRACE) => Ok(()),
            (_, true) => Err(EndReason::SessionEnded),
            (at, false) if now.duration_since(at) < LOCKS_HOLD => Ok(()),
            (_, false) => Err(EndReason::SessionUnknown),
        })
    }

    /// Whom to ask for now; those of whom nobody has spoken for long, and in which there is no work, are forgotten.
    fn due(&mut self, live: &BTreeSet<SessionId>, now: Instant) -> Vec<SessionId> {
        self.0.retain(|session, known| now.duration_since(known.used) < FORGET || live.contains(session));
        let due = self.0.iter_mut().filter(|(_, known)| known.due().is_none_or(|moment| moment <= now));
        let due = due.take(MAX_APP_SESSIONS_ASKED).map(|(session, known)| {
            known.asked = Some(now);
            *session
        });
        due.collect()
    }

    /// When somebody is to be asked for next, if anybody is.
    fn next(&self) -> Option<Instant> {
        self.0.values().map(|known| known.due().unwrap_or(known.used)).min()
    }

    fn answered(&mut self, asked: &[SessionId], ended: &[SessionId], at: Instant) {
        let ended: BTreeSet<_> = ended.iter().collect();
        for session in asked {
            if let Some(known) = self.0.get_mut(session) {
                let (went_on, ended) = (matches!(known.answered, Some((_, false))), ended.contains(session));
                if went_on && ended {
                    known.ended = Some(at);
                }
                known.answered = Some((at, ended));
            }
        }
    }

    /// Of whom nothing was known before, nothing is: who waits hears that, and the next request asks anew.
    fn unanswered(&mut self, asked: &[SessionId]) {
        let asked: BTreeSet<_> = asked.iter().collect();
        self.0.retain(|session, known| known.answered.is_some() || !asked.contains(session));
    }
}

impl Known {
    fn due(&self) -> Option<Instant> {
        self.asked.map(|asked| asked + EVERY)
    }
}
