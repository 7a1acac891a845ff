//! All sessions of browsers with apps that this proxy knows, by cookie, and what it remembers of cookies that are none. Bounded, in memory only: whoever comes after
//! something was forgotten is asked about anew.

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
/// How often that is looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// Most sessions that are held, and most cookies that are known to be none.
const MAX: usize = 20_000;
/// Requests that wait for one answer about a cookie.
const MAX_WAITING: usize = 256;
/// For so long a cookie that was none stays none unasked: an open page asks on with it. Secrets are drawn, so none becomes one later.
const STAYS_NONE: Duration = Duration::from_secs(60);
/// For so long somebody who may not stays one unasked. Roles change.
const STAYS_DENIED: Duration = Duration::from_secs(5);

/// By app and digest of the cookie: comparing digests keeps the time of a look from saying anything about a secret.
type Key = (AppName, String);

/// All that this proxy holds.
pub(crate) struct Sessions {
    asker: Arc<Asker>,
    held: Mutex<Held>,
    /// Those that are asked for the first time: who brings the same cookie meanwhile waits for the same answer.
    asked: Mutex<HashMap<Key, Weak<Session>>>,
    /// What was refused, and until when that counts.
    refused: Mutex<HashMap<Key, (Instant, NoSession)>>,
    wrong: Guesses,
}

struct Held {
    sessions: HashMap<Key, Arc<Session>>,
    swept: Instant,
}

impl Sessions {
    pub(crate) fn new(api: Arc<dyn AuthApi>, clock: Arc<dyn Clock>) -> Self {
        let certify: Certify = Arc::new(move |request| {
            let api = api.clone();
            Box::pin(async move { api.app_certificate(request).await })
        });
        Self::with(Asker { certify, clock })
    }

    fn with(asker: Asker) -> Self {
        let held = Held { sessions: HashMap::new(), swept: Instant::now() };
        Self {
            asker: Arc::new(asker),
            held: Mutex::new(held),
            asked: Mutex::default(),
            refused: Mutex::default(),
            wrong: Guesses::default(),
        }
    }

    /// The session of a cookie that came from there, if it goes on. `used`: its user did something.
    pub(super) async fn find(
        &self,
        app: &AppName,
        secret: &Secret,
        source: IpAddr,
        used: bool,
    ) -> Result<Arc<Session>, NoSession> {
        let key = (app.clone(), remoteler_core::app_state_hash(secret));
        let known = lock(&self.held).sessions.get(&key).cloned();
        if let Some(session) = known {
            if used {
                session.used();
            }
            let looked = session.look(&self.asker).await;
            return looked.map(|()| session).inspect_err(|cause| self.refuse(&key, cause));
        }
        if let Some(refused) = self.refused(&key) {
            return Err(refused);
        }
        let asking = self.asking(key, secret)?;
        // Who waits for the answer that another one waits for brings nothing new.
        let guess = match asking.first {
            true => Some(self.wrong.take(source, Instant::now()).ok_or(NoSession::TooMany)?),
            false => None,
        };
        let session = &asking.session;
        if used {
            session.used();
        }
        let looked = session.look(&self.asker).await;
        match &looked {
            Ok(()) => self.keep(asking.key.clone(), session),
            Err(cause) => self.refuse(&asking.key, cause),
        }
        // Not known, and not allowed, are no wrong cookies.
        if let Some(guess) = guess
            && looked != Err(NoSession::Ended)
        {
            guess.give_back();
        }
        looked.map(|()| session.clone())
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

    fn asking(&self, key: Key, secret: &Secret) -> Result<Asking<'_>, NoSession> {
        let mut asked = lock(&self.asked);
        let waiting = asked.get(&key).and_then(Weak::upgrade);
        let first = waiting.is_none();
        let session = waiting.unwrap_or_else(|| Arc::new(Session::new(key.0.clone(), secret.clone())));
        if Arc::strong_count(&session) > MAX_WAITING {
            return Err(NoSession::TooMany);
        }
        if first {
            asked.insert(key.clone(), Arc::downgrade(&session));
        }
        Ok(Asking { sessions: self, key, session, first })
    }

    fn keep(&self, key: Key, session: &Arc<Session>) {
        let mut held = lock(&self.held);
        if held.sessions.len() >= MAX || held.swept.elapsed() >= SWEEP {
            held.swept = Instant::now();
            held.sessions.retain(|_, session| session.looked().is_some_and(|at| at.elapsed() < FORGET));
        }
        if held.sessions.len() < MAX {
            held.sessions.entry(key).or_insert_with(|| session.clone());
        }
    }

    fn refuse(&self, key: &Key, cause: &NoSession) {
        let stays = match cause {
            NoSession::Ended => STAYS_NONE,
            NoSession::Denied(_) => STAYS_DENIED,
            NoSession::Unknown(_) | NoSession::TooMany => return,
        };
        lock(&self.held).sessions.remove(key);
        let (now, mut refused) = (Instant::now(), lock(&self.refused));
        if refused.len() >= MAX {
            refused.retain(|_, (until, _)| now < *until);
        }
        if refused.len() < MAX {
            refused.insert(key.clone(), (now + stays, cause.clone()));
        }
    }

    fn refused(&self, key: &Key) -> Option<NoSession> {
        let mut refused = lock(&self.refused);
        let (until, cause) = refused.get(key)?;
        if Instant::now() < *until {
            return Some(cause.clone());
        }
        refused.remove(key);
        None
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One who waits for the first answer about a cookie.
struct Asking<'a> {
    sessions: &'a Sessions,
    key: Key,
    session: Arc<Session>,
    /// Nobody asked before.
    first: bool,
}

impl Drop for Asking<'_> {
    /// The last one, or the first that knows: what is known is found elsewhere.
    fn drop(&mut self) {
        let mut asked = lock(&self.sessions.asked);
        let ours = asked.get(&self.key).is_some_and(|asked| std::ptr::eq(asked.as_ptr(), Arc::as_ptr(&self.session)));
        if ours && (self.session.looked().is_some() || Arc::strong_count(&self.session) == 1) {
            asked.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rcgen::{CertificateParams, Issuer, KeyPair, SubjectPublicKeyInfo};
    use remoteler_core::{ApiError, ApiErrorKind, AppCertificateRequest, AppCertified, ManualClock, Timestamp};

    use super::*;

    /// What the auth service says at this moment.
    #[derive(Clone, Copy, PartialEq)]
    enum Says {
        Yes,
        Ended,
        Denied,
        Away,
        Nothing,
    }

    struct Auth {
        says: Mutex<Says>,
        asked: AtomicUsize,
        in_use: AtomicUsize,
        clock: Arc<ManualClock>,
    }

    impl Auth {
        fn start() -> (Arc<Self>, Arc<Sessions>) {
            let clock = Arc::new(ManualClock::new(Timestamp::from_unix_seconds(1_000_000)));
            let (asked, in_use) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let auth = Arc::new(Self { says: Mutex::new(Says::Yes), asked, in_use, clock: clock.clone() });
            let asked = auth.clone();
            let certify: Certify = Arc::new(move |request| {
                let auth = asked.clone();
                Box::pin(async move { auth.answer(request).await })
            });
            (auth, Arc::new(Sessions::with(Asker { certify, clock })))
        }

        async fn answer(&self, request: AppCertificateRequest) -> Result<AppCertified, ApiError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.in_use.fetch_add(usize::from(request.in_use), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(1)).await;
            let says = *lock(&self.says);
            let kind = match says {
                Says::Yes => {
                    let expires = self.clock.now().plus(Duration::from_secs(300));
                    let certificate = request.tls_public_key.map(|key| certify(&key));
                    return Ok(AppCertified {
                        certificate_expires: certificate.is_some().then_some(expires),
                        certificate,
                        session: "0190d7a4-6ba1-7000-8000-000000000002".parse().unwrap(),
                        user: "ann".parse().unwrap(),
                        expires: self.clock.now().plus(Duration::from_secs(3600)),
                    });
                }
                Says::Ended => ApiErrorKind::Unauthenticated,
                Says::Denied => ApiErrorKind::Denied,
                Says::Away => ApiErrorKind::Unavailable,
                Says::Nothing => return std::future::pending().await,
            };
            Err(ApiError::new(kind, "so it is"))
        }

        fn says(&self, says: Says) {
            *lock(&self.says) = says;
        }

        /// How often it was asked since this was asked last.
        fn asked(&self) -> usize {
            self.asked.swap(0, Ordering::Relaxed)
        }
    }

    fn certify(key: &str) -> String {
        let authority = KeyPair::generate().unwrap();
        let issuer = Issuer::new(CertificateParams::default(), authority);
        CertificateParams::default().signed_by(&SubjectPublicKeyInfo::from_pem(key).unwrap(), &issuer).unwrap().pem()
    }

    fn cookie(number: usize) -> Secret {
        Secret::new(format!("{number:064x}"))
    }

    async fn find(sessions: &Sessions, number: usize) -> Result<Arc<Session>, NoSession> {
        sessions.find(&"wiki".parse().unwrap(), &cookie(number), "192.0.2.1".parse().unwrap(), true).await
    }

    // I50
    #[tokio::test(start_paused = true)]
    async fn a_session_is_looked_at_once_a_second_and_over_when_the_auth_service_says_so() {
        let (auth, sessions) = Auth::start();
        for _ in 0..100 {
            assert_eq!(find(&sessions, 1).await.unwrap().user(), Some("ann".parse().unwrap()));
        }
        assert_eq!(auth.asked(), 2, "whether it is one, and for a certificate");
        tokio::time::sleep(LOOK).await;
        let session = find(&sessions, 1).await.unwrap();
        assert_eq!(auth.asked(), 1);
        auth.says(Says::Ended);
        let began = Instant::now();
        assert_eq!(sessions.ended(&session).await, NoSession::Ended);
        assert!(began.elapsed() <= LOOK * 2);
        assert_eq!(find(&sessions, 1).await.err(), Some(NoSession::Ended));
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_at_once_with_one_cookie_waits_for_one_answer() {
        let (auth, sessions) = Auth::start();
        let found = futures::future::join_all((0..MAX_WAITING - 1).map(|_| find(&sessions, 1))).await;
        let found: Vec<_> = found.into_iter().map(Result::unwrap).collect();
        assert!(found.iter().all(|one| Arc::ptr_eq(one, &found[0])));
        assert_eq!(auth.asked(), 2);
        assert!(lock(&sessions.asked).is_empty());
        // I62
        auth.says(Says::Nothing);
        let crowd = futures::future::join_all((0..MAX_WAITING * 2).map(|_| find(&sessions, 2))).await;
        assert!(crowd.iter().any(|found| *found.as_ref().err().unwrap() == NoSession::TooMany));
        assert!(lock(&sessions.asked).is_empty());
    }

    // I30
    #[tokio::test(start_paused = true)]
    async fn a_page_that_asks_on_with_a_cookie_that_ended_costs_nobody_anything() {
        let (auth, sessions) = Auth::start();
        find(&sessions, 1).await.unwrap();
        tokio::time::sleep(LOOK).await;
        auth.says(Says::Ended);
        auth.asked();
        for _ in 0..1000 {
            assert_eq!(find(&sessions, 1).await.err(), Some(NoSession::Ended));
            assert_eq!(find(&sessions, 2).await.err(), Some(NoSession::Ended));
        }
        assert_eq!(auth.asked(), 2);
        auth.says(Says::Yes);
        assert!(find(&sessions, 3).await.is_ok(), "others from there come in");
        tokio::time::sleep(STAYS_NONE).await;
        auth.says(Says::Ended);
        assert_eq!(find(&sessions, 2).await.err(), Some(NoSession::Ended));
        assert!(lock(&sessions.refused).len() <= 2);
    }

    // I30
    #[tokio::test(start_paused = true)]
    async fn of_many_cookies_that_are_none_only_so_many_are_asked_about_and_never_more_at_once() {
        let (auth, sessions) = Auth::start();
        auth.says(Says::Ended);
        let found = futures::future::join_all((0..5000).map(|number| find(&sessions, number))).await;
        let too_many = found.iter().filter(|found| found.as_ref().err() == Some(&NoSession::TooMany)).count();
        let asked = auth.asked();
        assert!(asked < 500 && asked + too_many == 5000, "{asked} {too_many}");
        let elsewhere =
            sessions.find(&"wiki".parse().unwrap(), &cookie(9999), "192.0.2.2".parse().unwrap(), true).await;
        assert_eq!(elsewhere.err(), Some(NoSession::Ended));
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_auth_service_is_away_a_session_goes_on_as_long_as_its_certificate_and_nobody_waits_for_long() {
        for away in [Says::Away, Says::Nothing] {
            let (auth, sessions) = Auth::start();
            find(&sessions, 1).await.unwrap();
            auth.says(away);
            let mut waited = Duration::ZERO;
            for _ in 0..299 {
                tokio::time::sleep(LOOK).await;
                auth.clock.set(auth.clock.now().plus(LOOK));
                let began = Instant::now();
                assert!(find(&sessions, 1).await.is_ok());
                waited += began.elapsed();
            }
            assert!(waited < Duration::from_secs(3), "{waited:?}");
            auth.clock.set(auth.clock.now().plus(LOOK * 2));
            tokio::time::sleep(LOOK * 4).await;
            assert!(matches!(find(&sessions, 1).await, Err(NoSession::Unknown(_))));
            auth.says(Says::Yes);
            tokio::time::sleep(LOOK).await;
            assert!(find(&sessions, 1).await.is_ok(), "it comes back");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_not_hears_it_at_the_next_request_and_may_again_when_the_roles_say_so() {
        let (auth, sessions) = Auth::start();
        find(&sessions, 1).await.unwrap();
        tokio::time::sleep(LOOK).await;
        auth.says(Says::Denied);
        assert_eq!(find(&sessions, 1).await.err(), Some(NoSession::Denied("so it is".into())));
        auth.says(Says::Yes);
        tokio::time::sleep(STAYS_DENIED).await;
        assert!(find(&sessions, 1).await.is_ok());
    }

    // I50
    #[tokio::test(start_paused = true)]
    async fn only_what_its_user_does_is_use_of_a_login() {
        let (auth, sessions) = Auth::start();
        let (wiki, source) = ("wiki".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let session = sessions.find(&wiki, &cookie(1), source, false).await.unwrap();
        let watched = tokio::time::timeout(Duration::from_secs(60), sessions.ended(&session)).await;
        assert!(watched.is_err() && auth.in_use.load(Ordering::Relaxed) == 0);
        session.used();
        tokio::time::sleep(LOOK).await;
        sessions.find(&wiki, &cookie(1), source, false).await.unwrap();
        assert_eq!(auth.in_use.load(Ordering::Relaxed), 1);
    }

    // I62
    #[tokio::test(start_paused = true)]
    async fn what_nobody_used_is_forgotten() {
        let (_auth, sessions) = Auth::start();
        find(&sessions, 1).await.unwrap();
        tokio::time::sleep(FORGET + SWEEP).await;
        find(&sessions, 2).await.unwrap();
        assert_eq!(lock(&sessions.held).sessions.len(), 1);
    }
}
