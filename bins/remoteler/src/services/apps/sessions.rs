//! Sessions of browsers with apps, as far as this proxy has seen them: which cookie is which session, and how many that are none one source may bring. All of it is
//! in memory only, and bounded; nothing is kept for what the auth service does not know.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use remoteler_core::{AppName, AuthApi, Clock, Secret};
use tokio::time::Instant;

use super::{
    guesses::Guesses,
    session::{Asker, Certify, LOOK, NoSession, Session},
};

/// What was not used for so long is forgotten; the next request asks anew.
const FORGET: Duration = Duration::from_secs(600);
/// Most sessions that are held.
const MAX: usize = 20_000;

/// By app and digest of the cookie: comparing digests keeps the time of a look from saying anything about a secret.
type Key = (AppName, String);

/// All that this proxy holds.
pub(crate) struct Sessions {
    asker: Arc<Asker>,
    held: Mutex<HashMap<Key, Arc<Session>>>,
    /// Those that are asked for the first time: who brings the same cookie meanwhile waits for the same answer.
    asked: Mutex<HashMap<Key, Weak<Session>>>,
    guesses: Guesses,
}

impl Sessions {
    pub(crate) fn new(api: Arc<dyn AuthApi>, clock: Arc<dyn Clock>) -> Self {
        let certify: Certify = Arc::new(move |request| {
            let api = api.clone();
            Box::pin(async move { api.app_certificate(request).await })
        });
        Self::asking(Asker { certify, clock })
    }

    fn asking(asker: Asker) -> Self {
        let asker = Arc::new(asker);
        Self { asker, held: Mutex::default(), asked: Mutex::default(), guesses: Guesses::default() }
    }

    /// The session of a cookie that came from there, if it goes on.
    pub(super) async fn find(&self, app: &AppName, secret: &Secret, source: IpAddr) -> Result<Arc<Session>, NoSession> {
        let key = (app.clone(), remoteler_core::app_state_hash(secret));
        let known = lock(&self.held).get(&key).cloned();
        let session = match known {
            Some(session) => session,
            None if !self.may_guess(source) => return Err(NoSession::TooMany),
            None => self.asked(&key, secret),
        };
        session.used();
        let looked = session.look(&self.asker).await;
        match &looked {
            Ok(()) => self.keep(key.clone(), &session),
            Err(NoSession::Ended | NoSession::Denied(_)) => {
                lock(&self.held).remove(&key);
                self.guessed_wrong(source);
            }
            Err(NoSession::Unknown(_) | NoSession::TooMany) => {}
        }
        lock(&self.asked).remove(&key);
        looked.map(|()| session)
    }

    /// Returns when the session has ended, or is not known to go on any more.
    pub(super) async fn ended(&self, session: &Arc<Session>) -> NoSession {
        loop {
            if let Err(cause) = session.look(&self.asker).await {
                return cause;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether anything that may be wrong is taken from there at this moment: an unknown cookie, or a code (I30).
    pub(super) fn may_guess(&self, source: IpAddr) -> bool {
        self.guesses.allow(source, Instant::now())
    }

    pub(super) fn guessed_wrong(&self, source: IpAddr) {
        self.guesses.count(source, Instant::now());
    }

    fn asked(&self, key: &Key, secret: &Secret) -> Arc<Session> {
        let mut asked = lock(&self.asked);
        if let Some(session) = asked.get(key).and_then(Weak::upgrade) {
            return session;
        }
        // Whose connection ended while it waited has left one behind.
        asked.retain(|_, session| session.strong_count() > 0);
        let session = Arc::new(Session::new(key.0.clone(), secret.clone()));
        asked.insert(key.clone(), Arc::downgrade(&session));
        session
    }

    fn keep(&self, key: Key, session: &Arc<Session>) {
        let mut held = lock(&self.held);
        if held.len() >= MAX {
            held.retain(|_, session| session.looked().is_some_and(|at| at.elapsed() < FORGET));
        }
        if held.len() < MAX {
            held.entry(key).or_insert_with(|| session.clone());
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
