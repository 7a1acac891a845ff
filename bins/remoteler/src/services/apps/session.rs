//! One session of a browser with an app, as the proxy knows it: it asks the auth service at most each second whether it goes on, and holds a short certificate
//! of the user for that app, with a key of its own, in memory only. Owns what is said while nobody answers; no key is made for what the auth service does not know.

#[cfg(test)]
pub(super) mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use rcgen::KeyPair;
use remoteler_core::{
    ApiError, ApiErrorKind, AppCertificateRequest, AppCertified, AppName, Clock, Secret, Timestamp, UserName,
};
use remoteler_tunnel::{SharedTlsIdentity, TlsIdentity};
use tokio::{sync::Mutex as Turns, time::Instant};

/// A session is not looked at more often.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// A certificate that ends sooner is replaced.
const MARGIN: Duration = Duration::from_secs(60);
/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take where the last one still counts.
const HASTE: Duration = Duration::from_secs(2);

/// Asks the auth service whether a session goes on, and for a certificate in it.
pub(super) type Certify =
    Arc<dyn Fn(AppCertificateRequest) -> BoxFuture<'static, Result<AppCertified, ApiError>> + Send + Sync>;

/// Whom sessions ask, and by which clock their certificates end.
pub(super) struct Asker {
    pub(super) certify: Certify,
    pub(super) clock: Arc<dyn Clock>,
}

/// Why a session is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// When and why nobody could say anything, and nothing counted: who waited for the same hears the same.
    failed: Option<(Instant, String)>,
    /// Its user did something since the last look.
    used: bool,
}

impl Session {
    pub(super) fn new(app: AppName, secret: Secret) -> Self {
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

    /// When it was last asked for.
    pub(super) fn looked(&self) -> Option<Instant> {
        self.known().looked
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known without asking: `None` where the last look is too old for that.
    fn judged(&self) -> Option<Result<(), NoSession>> {
        let known = self.known();
        if known.over {
            return Some(Err(NoSession::Ended));
        }
        if let Some((_, cause)) = known.failed.as_ref().filter(|(at, _)| at.elapsed() < LOOK) {
            return Some(Err(NoSession::Unknown(cause.clone())));
        }
        known.looked.is_some_and(|at| at.elapsed() < LOOK).then_some(Ok(()))
    }

    /// Whether a certificate is there that counts while nobody can be asked.
    fn is_good(&self, now: Timestamp) -> bool {
        self.known().certificate.as_ref().is_some_and(|(_, end)| now < *end)
    }

    /// Asks whether it goes on, unless that was done within the last second. Who comes meanwhile waits for the answer; but nobody waits for an auth service that
    /// has just not answered, while what it said before counts.
    pub(super) async fn look(self: &Arc<Self>, asker: &Arc<Asker>) -> Result<(), NoSession> {
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
                (known.looked, known.away, known.failed) = (Some(Instant::now()), false, None);
                Ok(())
            }
            Err(cause) if cause.kind == ApiErrorKind::Unauthenticated => {
                known.over = true;
                Err(NoSession::Ended)
            }
            Err(cause) if cause.kind == ApiErrorKind::Denied => {
                // Who looks next asks, and hears it; what was said before counts no more.
                (known.looked, known.away, known.certificate) = (None, false, None);
                Err(NoSession::Denied(cause.message))
            }
            // The auth service is away: what it said last counts as long as it said.
            Err(cause) if good => {
                tracing::debug!(%cause, "whether a session with an app goes on was not answered");
                (known.looked, known.away) = (Some(Instant::now()), true);
                Ok(())
            }
            Err(cause) => {
                known.failed = Some((Instant::now(), cause.to_string()));
                Err(NoSession::Unknown(cause.to_string()))
            }
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
        let answered = match tokio::time::timeout(patience, (asker.certify)(request)).await {
            Ok(answered) => answered,
            Err(_) => Err(ApiError::new(ApiErrorKind::Unavailable, "the auth service did not answer in time")),
        };
        if answered.is_err() && in_use {
            self.used();
        }
        answered
    }
}

fn ours(cause: impl std::fmt::Display) -> ApiError {
    ApiError::new(ApiErrorKind::Internal, cause.to_string())
}
