//! Sessions of browsers with apps, as the proxy knows them: it asks the auth service at most each second whether one goes on, and holds a short certificate of
//! the user for that app, with a key of its own. All of it is in memory only, and bounded; nothing is kept, and no key made, for what the auth service does not know.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use rcgen::KeyPair;
use remoteler_core::{
    ApiError, ApiErrorKind, AppCertificateRequest, AppCertified, AppName, AuthApi, Clock, Secret, Timestamp, UserName,
};
use remoteler_tunnel::{SharedTlsIdentity, TlsIdentity};
use tokio::{sync::Mutex as Turns, time::Instant};

use super::guesses::Guesses;

/// A session is not looked at more often.
const LOOK: Duration = Duration::from_secs(1);
/// A certificate that ends sooner is replaced.
const MARGIN: Duration = Duration::from_secs(60);
/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take where the last one still counts.
const HASTE: Duration = Duration::from_secs(2);
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

struct Asker {
    api: Arc<dyn AuthApi>,
    clock: Arc<dyn Clock>,
}

/// Why a session is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSession {
    /// There is none for this cookie, or none any more.
    #[error("there is no such session")]
    Ended,
    /// Its user may not use the app any more.
    #[error("{0}")]
    Denied(String),
    /// Nobody can say.
    #[error("whether the session goes on is not known: {0}")]
    Unknown(String),
    /// This source has brought too many that are none.
    #[error("too many wrong cookies came from there")]
    TooMany,
}

impl Sessions {
    pub(crate) fn new(api: Arc<dyn AuthApi>, clock: Arc<dyn Clock>) -> Self {
        let asker = Arc::new(Asker { api, clock });
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
        session.known().used = true;
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
            held.retain(|_, session| session.known().looked.is_some_and(|at| at.elapsed() < FORGET));
        }
        if held.len() < MAX {
            held.entry(key).or_insert_with(|| session.clone());
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One session.
pub(super) struct Session {
    app: AppName,
    secret: Secret,
    known: Mutex<Known>,
    /// Of whoever asks. Holds the session's key, which is made when the auth service knows it.
    turn: Arc<Turns<Option<KeyPair>>>,
}

#[derive(Default)]
struct Known {
    user: Option<UserName>,
    certificate: Option<(Arc<SharedTlsIdentity>, Timestamp)>,
    /// When the session ends: no certificate lasts longer.
    ends: Option<Timestamp>,
    /// It has ended, and does not come back.
    over: bool,
    /// When it was looked at last.
    looked: Option<Instant>,
    /// The last look was not answered; the one before still counts.
    away: bool,
    /// Its user did something since the last look.
    used: bool,
}

impl Session {
    fn new(app: AppName, secret: Secret) -> Self {
        Self { app, secret, known: Mutex::default(), turn: Arc::default() }
    }

    /// What the proxy shows to the app's service in this session, and until when.
    pub(super) fn certificate(&self) -> Option<(Arc<SharedTlsIdentity>, Timestamp)> {
        self.known().certificate.clone()
    }

    /// Whose it is, once that is known.
    pub(super) fn user(&self) -> Option<UserName> {
        self.known().user.clone()
    }

    /// Its user did something: its login is in use.
    pub(super) fn used(&self) {
        self.known().used = true;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// What is known without asking: `None` where the last look is too old for that.
    fn judged(&self) -> Option<Result<(), NoSession>> {
        let known = self.known();
        if known.over {
            return Some(Err(NoSession::Ended));
        }
        known.looked.is_some_and(|at| at.elapsed() < LOOK).then_some(Ok(()))
    }

    /// Whether a certificate is there that counts while nobody can be asked.
    fn is_good(&self, now: Timestamp) -> bool {
        self.known().certificate.as_ref().is_some_and(|(_, end)| now < *end)
    }

    /// Asks whether it goes on, unless that was done within the last second. Who comes meanwhile waits for the answer; but nobody waits for an auth service that
    /// has just not answered, while what it said before counts.
    async fn look(self: &Arc<Self>, asker: &Arc<Asker>) -> Result<(), NoSession> {
        if let Some(judged) = self.judged() {
            return judged;
        }
        let good = self.is_good(asker.clock.now());
        if good && self.known().away {
            if let Ok(mut turn) = self.turn.clone().try_lock_owned() {
                let (session, asker) = (self.clone(), asker.clone());
                // It ends by itself, after `HASTE`; what it finds is in `known`.
                tokio::spawn(async move { session.ask(&asker, &mut turn, HASTE).await });
            }
            return Ok(());
        }
        let mut turn = self.turn.lock().await;
        if let Some(judged) = self.judged() {
            return judged;
        }
        self.ask(asker, &mut turn, if good { HASTE } else { PATIENCE }).await
    }

    async fn ask(&self, asker: &Asker, key: &mut Option<KeyPair>, patience: Duration) -> Result<(), NoSession> {
        let now = asker.clock.now();
        let answered = self.renewed(asker, key, patience).await;
        let good = self.is_good(now);
        let mut known = self.known();
        match answered {
            Ok(()) => {
                (known.looked, known.away) = (Some(Instant::now()), false);
                Ok(())
            }
            Err(cause) if cause.kind == ApiErrorKind::Unauthenticated => {
                known.over = true;
                Err(NoSession::Ended)
            }
            Err(cause) if cause.kind == ApiErrorKind::Denied => {
                // Who looks next asks, and hears it.
                (known.looked, known.away) = (None, false);
                Err(NoSession::Denied(cause.message))
            }
            // The auth service is away: what it said last counts as long as it said.
            Err(cause) if good => {
                tracing::debug!(%cause, "whether a session with an app goes on was not answered");
                (known.looked, known.away) = (Some(Instant::now()), true);
                Ok(())
            }
            Err(cause) => Err(NoSession::Unknown(cause.to_string())),
        }
    }

    /// Asks, and takes a new certificate where one is needed.
    async fn renewed(&self, asker: &Asker, key: &mut Option<KeyPair>, patience: Duration) -> Result<(), ApiError> {
        let key = match key {
            Some(key) => key,
            // Anybody may bring a cookie.
            None => {
                self.request(asker, None, patience).await?;
                key.insert(KeyPair::generate().map_err(ours)?)
            }
        };
        let now = asker.clock.now();
        let wanted = {
            let known = self.known();
            let end = known.certificate.as_ref().map(|(_, end)| *end);
            end.is_none_or(|end| end <= now.plus(MARGIN) && known.ends.is_none_or(|ends| end < ends))
        };
        let certified = self.request(asker, wanted.then(|| key.public_key_pem()), patience).await?;
        let certificate = match (certified.certificate, certified.certificate_expires) {
            (Some(pem), Some(end)) => {
                let identity = TlsIdentity::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes()).map_err(ours)?;
                Some((SharedTlsIdentity::new(identity), end))
            }
            (_, _) => None,
        };
        let mut known = self.known();
        (known.ends, known.user) = (Some(certified.expires), Some(certified.user));
        if certificate.is_some() {
            known.certificate = certificate;
        }
        Ok(())
    }

    async fn request(
        &self,
        asker: &Asker,
        tls_public_key: Option<String>,
        patience: Duration,
    ) -> Result<AppCertified, ApiError> {
        let in_use = std::mem::take(&mut self.known().used);
        let (secret, app) = (self.secret.clone(), self.app.clone());
        let request = AppCertificateRequest { secret, app, tls_public_key, in_use };
        match tokio::time::timeout(patience, asker.api.app_certificate(request)).await {
            Ok(answered) => answered,
            Err(_) => Err(ApiError::new(ApiErrorKind::Unavailable, "the auth service did not answer in time")),
        }
    }
}

fn ours(cause: impl std::fmt::Display) -> ApiError {
    ApiError::new(ApiErrorKind::Internal, cause.to_string())
}
