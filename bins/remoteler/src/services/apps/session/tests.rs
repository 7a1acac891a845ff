//! A session's life, in simulated time: how often it is asked for, what counts while nobody answers, and what is said of its end.

use rcgen::{CertificateParams, Issuer, KeyPair, PublicKeyData, SignatureAlgorithm};
use remoteler_core::{ManualClock, SessionId};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};

use super::*;

/// The auth service: what it says of the one session there is, and what it was asked.
pub(in super::super) struct Auth {
    pub(in super::super) mood: Mood,
    pub(in super::super) asked: Vec<AppCertificateRequest>,
    /// When the session ends at the latest.
    ends: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Mood {
    GoesOn,
    Ended,
    Denied,
    Refuses,
    Hangs,
}

/// A clock of the wall that goes as the simulated one does.
struct Wall(Instant, ManualClock);

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        self.1.now().plus(self.0.elapsed())
    }
}

/// The key of whoever asks, as it stands in the request.
struct Asked(Vec<u8>);

impl PublicKeyData for Asked {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl Auth {
    fn certificate(&self, public: &str) -> String {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(public.as_bytes()).unwrap();
        // The point, uncompressed: it stands last in a SubjectPublicKeyInfo.
        let key = Asked(der[der.len() - 65..].to_vec());
        CertificateParams::default().signed_by(&key, &self.issuer).unwrap().pem()
    }
}

const CERTIFICATE: Duration = Duration::from_secs(300);
pub(in super::super) const SESSION: Duration = Duration::from_secs(3600);

/// The auth service, and whoever asks it.
pub(in super::super) fn auth() -> (Arc<Mutex<Auth>>, Asker) {
    let clock = Arc::new(Wall(Instant::now(), ManualClock::new(Timestamp::from_unix_seconds(1_000))));
    let issuer = Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
    let ends = clock.now().plus(SESSION);
    let auth = Arc::new(Mutex::new(Auth { mood: Mood::GoesOn, asked: Vec::new(), ends, issuer }));
    let (asked, wall) = (auth.clone(), clock.clone());
    let certify: Certify = Arc::new(move |request| {
        let (asked, wall) = (asked.clone(), wall.clone());
        Box::pin(async move {
            let mood = {
                let mut auth = asked.lock().unwrap();
                auth.asked.push(request.clone());
                auth.mood
            };
            // An answer takes its time, so that others come meanwhile.
            tokio::time::sleep(Duration::from_millis(10)).await;
            match mood {
                Mood::GoesOn => {}
                Mood::Ended => return Err(ApiError::new(ApiErrorKind::Unauthenticated, "gone")),
                Mood::Denied => return Err(ApiError::new(ApiErrorKind::Denied, "your roles do not allow it")),
                Mood::Refuses => return Err(ApiError::new(ApiErrorKind::Unavailable, "away")),
                Mood::Hangs => std::future::pending().await,
            }
            let auth = asked.lock().unwrap();
            let certificate = request.tls_public_key.map(|key| auth.certificate(&key));
            Ok(AppCertified {
                certificate_expires: certificate.is_some().then(|| wall.now().plus(CERTIFICATE).min(auth.ends)),
                certificate,
                session: SessionId::from_uuid(Default::default()),
                user: "ann".parse().unwrap(),
                expires: auth.ends,
            })
        })
    });
    (auth, Asker { certify, clock })
}

struct World {
    auth: Arc<Mutex<Auth>>,
    asker: Arc<Asker>,
    session: Arc<Session>,
}

impl World {
    fn new() -> Self {
        let (auth, asker) = auth();
        let session = Arc::new(Session::new("billing".parse().unwrap(), Secret::new("5a".repeat(32))));
        Self { auth, asker: Arc::new(asker), session }
    }

    fn auth_is(&self, mood: Mood) {
        self.auth.lock().unwrap().mood = mood;
    }

    fn questions(&self) -> usize {
        self.auth.lock().unwrap().asked.len()
    }

    /// What a request hears, and after how long.
    async fn look(&self) -> (Result<(), String>, Duration) {
        let begun = Instant::now();
        let looked = self.session.look(&self.asker).await.map_err(|cause| cause.to_string());
        // The answer's own time is not waiting.
        (looked, begun.elapsed().saturating_sub(Duration::from_millis(20)))
    }

    async fn goes_on(&self) {
        assert_eq!(self.look().await, (Ok(()), Duration::ZERO));
    }
}

async fn later(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

// I50
#[tokio::test(start_paused = true)]
async fn a_session_is_asked_for_at_most_once_a_second_and_its_end_is_known_with_the_next_question() {
    let world = World::new();
    world.goes_on().await;
    assert_eq!(world.questions(), 2, "one before there is a key, and one for the certificate");
    let user = world.session.user().unwrap();
    assert_eq!(user.as_str(), "ann");
    for _ in 0..50 {
        world.goes_on().await;
    }
    assert_eq!(world.questions(), 2);
    world.auth_is(Mood::Ended);
    world.goes_on().await;
    later(1).await;
    assert_eq!(world.look().await.0, Err("there is no such session".into()));
    world.auth_is(Mood::GoesOn);
    later(60).await;
    let count = world.questions();
    assert_eq!(world.look().await.0, Err("there is no such session".into()), "it does not come back");
    assert_eq!(world.questions(), count, "and nobody asks again");
}

// I30
#[tokio::test(start_paused = true)]
async fn those_who_come_at_one_moment_wait_for_one_answer_and_no_key_is_made_for_an_unknown_cookie() {
    let world = World::new();
    let looked = futures::future::join_all((0..20).map(|_| world.look())).await;
    assert!(looked.iter().all(|(looked, _)| looked.is_ok()));
    assert_eq!(world.questions(), 2);

    let world = World::new();
    world.auth_is(Mood::Ended);
    let looked = futures::future::join_all((0..20).map(|_| world.look())).await;
    assert!(looked.iter().all(|(looked, _)| looked.is_err()));
    assert_eq!(world.questions(), 1);
    assert_eq!(world.auth.lock().unwrap().asked[0].tls_public_key, None);
    assert!(world.session.turn.try_lock().unwrap().is_none(), "no key");

    // Nor do they wait for an answer each that does not come.
    let world = World::new();
    world.auth_is(Mood::Hangs);
    let looked = futures::future::join_all((0..20).map(|_| world.look())).await;
    let heard = |(looked, waited): &(Result<(), String>, Duration)| looked.is_err() && *waited <= PATIENCE;
    assert!(looked.iter().all(heard), "{looked:?}");
    assert_eq!(world.questions(), 1);
    world.auth_is(Mood::GoesOn);
    later(1).await;
    world.goes_on().await;
}

// I50
#[tokio::test(start_paused = true)]
async fn while_nobody_answers_a_known_session_goes_on_until_its_certificate_ends_and_one_request_at_most_waits() {
    for mood in [Mood::Hangs, Mood::Refuses] {
        let world = World::new();
        world.goes_on().await;
        world.auth_is(mood);
        later(2).await;
        let (looked, waited) = world.look().await;
        assert_eq!((looked, waited <= HASTE), (Ok(()), true), "{mood:?}: {waited:?}");
        while world.session.is_good(world.asker.clock.now().plus(Duration::from_secs(3))) {
            world.goes_on().await;
            later(1).await;
        }
        // It was asked again and again meanwhile, one question at a time.
        let asked = world.questions();
        assert!((60..400).contains(&asked), "{mood:?}: {asked}");
        later(5).await;
        let (looked, waited) = world.look().await;
        assert!(looked.unwrap_err().contains("is not known"));
        assert!(waited <= PATIENCE, "{mood:?}: {waited:?}");
        world.auth_is(Mood::GoesOn);
        later(1).await;
        world.goes_on().await;
    }
}

// I50
#[tokio::test(start_paused = true)]
async fn what_a_question_finds_that_nobody_waited_for_counts_for_the_next_request() {
    for (mood, said) in [(Mood::Ended, "there is no such session"), (Mood::Denied, "your roles do not allow it")] {
        let world = World::new();
        world.goes_on().await;
        world.auth_is(Mood::Refuses);
        later(1).await;
        world.goes_on().await;
        world.auth_is(mood);
        later(1).await;
        world.goes_on().await;
        later(1).await;
        assert_eq!(world.look().await.0, Err(said.into()), "{mood:?}");
    }
}

// I50
#[tokio::test(start_paused = true)]
async fn who_was_refused_is_not_let_in_when_nobody_can_be_asked_and_is_when_roles_allow_it_again() {
    let world = World::new();
    world.goes_on().await;
    world.auth_is(Mood::Denied);
    later(1).await;
    assert_eq!(world.look().await.0, Err("your roles do not allow it".into()));
    assert!(world.session.certificate().is_none());
    world.auth_is(Mood::Hangs);
    assert!(world.look().await.0.unwrap_err().contains("is not known"));
    world.auth_is(Mood::GoesOn);
    later(1).await;
    world.goes_on().await;
    assert!(world.session.certificate().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_replaced_before_it_ends_for_the_same_key_and_none_lasts_longer_than_the_session() {
    let world = World::new();
    let begun = world.asker.clock.now();
    let mut ends = Vec::new();
    while world.asker.clock.now() < begun.plus(SESSION) {
        world.goes_on().await;
        let (_, end) = world.session.certificate().unwrap();
        let left = end.since(world.asker.clock.now());
        assert!(left + Duration::from_secs(2) > MARGIN || end == begun.plus(SESSION), "{left:?}");
        if ends.last() != Some(&end) {
            ends.push(end);
        }
        later(2).await;
    }
    assert_eq!(ends.last(), Some(&begun.plus(SESSION)));
    assert!(ends.len() < 20, "{}", ends.len());
    let auth = world.auth.lock().unwrap();
    let keys: Vec<_> = auth.asked.iter().filter_map(|request| request.tls_public_key.as_ref()).collect();
    assert_eq!(keys.len(), ends.len(), "the other questions ask for none");
    assert!(keys.iter().all(|key| *key == keys[0]));
}

// I50
#[tokio::test(start_paused = true)]
async fn use_is_told_with_the_next_question_that_is_answered_and_once() {
    let world = World::new();
    world.goes_on().await;
    let told = || world.auth.lock().unwrap().asked.last().unwrap().in_use;
    assert!(!told());
    world.session.used();
    world.auth_is(Mood::Refuses);
    later(1).await;
    world.goes_on().await;
    assert!(told());
    world.auth_is(Mood::GoesOn);
    for expected in [true, false] {
        later(1).await;
        world.goes_on().await;
        later(1).await;
        assert_eq!(told(), expected);
    }
}
