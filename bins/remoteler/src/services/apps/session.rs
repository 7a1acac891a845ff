//! Sessions of browsers with apps, as the proxy knows them: it asks the auth service at most each second whether one goes on, and holds a short certificate of
//! the user for that app, with a key of its own. All of it is in memory only, and bounded.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rcgen::KeyPair;
use remoteler_core::{ApiError, ApiErrorKind, AppCertificateRequest, AppName, AuthApi, Clock, Secret, Timestamp};
use remoteler_tunnel::{SharedTlsIdentity, TlsIdentity};
use tokio::time::Instant;

/// A session is not looked at more often.
const LOOK: Duration = Duration::from_secs(1);
/// A certificate that ends sooner is replaced.
const MARGIN: Duration = Duration::from_secs(60);
/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What was not used for so long is forgotten; the next request asks anew.
const FORGET: Duration = Duration::from_secs(600);
/// Most sessions that are held.
const MAX: usize = 20_000;

/// All that this proxy holds.
pub(crate) struct Sessions {
    api: Arc<dyn AuthApi>,
    clock: Arc<dyn Clock>,
    held: Mutex<HashMap<(AppName, String), Arc<Session>>>,
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
}

impl Sessions {
    pub(crate) fn new(api: Arc<dyn AuthApi>, clock: Arc<dyn Clock>) -> Self {
        Self { api, clock, held: Mutex::default() }
    }

    /// The session of a cookie, if it goes on.
    pub(super) async fn find(&self, app: &AppName, secret: &Secret) -> Result<Arc<Session>, NoSession> {
        // The cookie itself is the key of a map that nobody sees; comparing digests keeps the time of a look from saying anything about it.
        let key = (app.clone(), remoteler_core::app_state_hash(secret));
        let known = self.lock().get(&key).cloned();
        let session = match known {
            Some(session) => session,
            None => Arc::new(Session::new(app.clone(), secret.clone())?),
        };
        match session.look(&*self.api, &*self.clock).await {
            Ok(()) => {
                self.keep(key, &session);
                Ok(session)
            }
            Err(cause) => {
                if !matches!(cause, NoSession::Unknown(_)) {
                    self.lock().remove(&key);
                }
                Err(cause)
            }
        }
    }

    /// Returns when the session has ended, or is not known to go on any more.
    pub(super) async fn ended(&self, session: &Session) -> NoSession {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(cause) = session.look(&*self.api, &*self.clock).await {
                return cause;
            }
        }
    }

    fn keep(&self, key: (AppName, String), session: &Arc<Session>) {
        let mut held = self.lock();
        if held.len() >= MAX {
            held.retain(|_, session| session.looked_at().is_some_and(|at| at.elapsed() < FORGET));
        }
        if held.len() < MAX {
            held.entry(key).or_insert_with(|| session.clone());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(AppName, String), Arc<Session>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One session.
pub(super) struct Session {
    app: AppName,
    secret: Secret,
    key: KeyPair,
    known: tokio::sync::Mutex<Known>,
    /// When it was looked at last.
    looked: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Known {
    certificate: Option<(Arc<SharedTlsIdentity>, Timestamp)>,
    /// When the session ends: no certificate lasts longer.
    ends: Option<Timestamp>,
    /// It has ended, and does not come back.
    over: bool,
}

impl Session {
    fn new(app: AppName, secret: Secret) -> Result<Self, NoSession> {
        let key = KeyPair::generate().map_err(|cause| NoSession::Unknown(cause.to_string()))?;
        Ok(Self { app, secret, key, known: tokio::sync::Mutex::default(), looked: Mutex::default() })
    }

    /// What the proxy shows to the app's service in this session, and until when.
    pub(super) async fn certificate(&self) -> Option<(Arc<SharedTlsIdentity>, Timestamp)> {
        self.known.lock().await.certificate.clone()
    }

    fn looked_at(&self) -> Option<Instant> {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks whether it goes on, unless that was done within the last second. Who comes meanwhile waits for the answer.
    async fn look(&self, api: &dyn AuthApi, clock: &dyn Clock) -> Result<(), NoSession> {
        let mut known = self.known.lock().await;
        if known.over {
            return Err(NoSession::Ended);
        }
        if self.looked_at().is_some_and(|at| at.elapsed() < LOOK) {
            return Ok(());
        }
        let now = clock.now();
        let good_until = known.certificate.as_ref().map(|(_, end)| *end);
        let wanted = good_until.is_none_or(|end| end <= now.plus(MARGIN) && known.ends.is_none_or(|ends| end < ends));
        let request = AppCertificateRequest {
            secret: self.secret.clone(),
            app: self.app.clone(),
            tls_public_key: wanted.then(|| self.key.public_key_pem()),
        };
        let answered = match tokio::time::timeout(PATIENCE, api.app_certificate(request)).await {
            Ok(answered) => answered,
            Err(_) => Err(ApiError::new(ApiErrorKind::Unavailable, "the auth service did not answer in time")),
        };
        match answered {
            Ok(certified) => {
                known.ends = Some(certified.expires);
                if let (Some(pem), Some(end)) = (certified.certificate, certified.certificate_expires) {
                    let identity = TlsIdentity::from_pem(pem.as_bytes(), self.key.serialize_pem().as_bytes())
                        .map_err(|cause| NoSession::Unknown(cause.to_string()))?;
                    known.certificate = Some((SharedTlsIdentity::new(identity), end));
                }
            }
            Err(cause) if cause.kind == ApiErrorKind::Unauthenticated => {
                known.over = true;
                return Err(NoSession::Ended);
            }
            Err(cause) if cause.kind == ApiErrorKind::Denied => return Err(NoSession::Denied(cause.message)),
            // The auth service is away: what it said last counts as long as it said.
            Err(cause) if good_until.is_some_and(|end| now < end) => {
                tracing::debug!(%cause, "whether a session with an app goes on was not answered");
            }
            Err(cause) => return Err(NoSession::Unknown(cause.to_string())),
        }
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Ok(())
    }
}
