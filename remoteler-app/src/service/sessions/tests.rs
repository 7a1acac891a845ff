//! What is known of sessions, and of which nobody says anything.

use remoteler_core::{ApiErrorKind, CaSet, ClusterName, ManualClock, Policy, SharedPolicy, Timestamp, TrustBundle};

use super::*;

/// The auth service: which sessions have ended, what it was asked, and whether it answers.
#[derive(Default)]
struct Auth {
    ended: BTreeSet<SessionId>,
    asked: Vec<Vec<SessionId>>,
    mood: Mood,
}

#[derive(Clone, Copy, Default)]
enum Mood {
    #[default]
    Answers,
    Refuses,
    Hangs,
}

fn id(number: u128) -> SessionId {
    SessionId::from_uuid(uuid::Uuid::from_u128(number))
}

fn world() -> (Arc<Sessions>, Arc<Mutex<Auth>>) {
    let empty = || CaSet { ssh: Vec::new(), x509: Vec::new() };
    let trust = TrustBundle::new(ClusterName::new("root").unwrap(), empty(), empty());
    let policy = Arc::new(SharedPolicy::new(Policy::new(trust, BTreeMap::new())));
    let live = LiveWork::new(policy, Arc::new(ManualClock::new(Timestamp::default())));
    let auth = Arc::new(Mutex::new(Auth::default()));
    let asked = auth.clone();
    let ask: EndedSessions = Arc::new(move |request| {
        let (mood, ended) = {
            let mut auth = asked.lock().unwrap();
            auth.asked.push(request.sessions.clone());
            (auth.mood, auth.ended.clone())
        };
        Box::pin(async move {
            match mood {
                Mood::Answers => Ok(()),
                Mood::Refuses => Err(ApiError::new(ApiErrorKind::Unavailable, "away")),
                Mood::Hangs => std::future::pending().await,
            }?;
            Ok(AppSessionsEnded { ended: request.sessions.into_iter().filter(|id| ended.contains(id)).collect() })
        })
    });
    (Arc::new(Sessions::new(ask, live)), auth)
}

/// The same with somebody who asks.
fn watched() -> (Arc<Sessions>, Arc<Mutex<Auth>>) {
    let (sessions, auth) = world();
    let watching = sessions.clone();
    tokio::spawn(async move { watching.watch().await });
    (sessions, auth)
}

async fn later(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

// I50
#[tokio::test(start_paused = true)]
async fn a_session_that_has_ended_is_refused_from_the_next_question_on_and_not_asked_for_by_each_request() {
    let (sessions, auth) = watched();
    assert_eq!(sessions.check(id(1)).await, Ok(()));
    for _ in 0..100 {
        assert_eq!(sessions.check(id(1)).await, Ok(()));
    }
    assert_eq!(auth.lock().unwrap().asked, [[id(1)]], "one question for all of its requests");
    auth.lock().unwrap().ended.insert(id(1));
    later(4).await;
    tokio::task::yield_now().await;
    assert_eq!(sessions.check(id(1)).await, Err(EndReason::SessionEnded));
    assert_eq!(sessions.check(id(2)).await, Ok(()), "another one is another");
    auth.lock().unwrap().ended.insert(id(3));
    assert_eq!(sessions.check(id(3)).await, Err(EndReason::SessionEnded), "nor does one begin that had ended");
}

// I62
#[tokio::test(start_paused = true)]
async fn those_that_are_in_use_are_asked_for_together_and_those_that_are_not_are_forgotten() {
    let (sessions, auth) = watched();
    for number in 1..=3 {
        sessions.check(id(number)).await.unwrap();
    }
    later(5).await;
    let last = |auth: &Mutex<Auth>| auth.lock().unwrap().asked.last().unwrap().clone();
    assert!(last(&auth).len() > 1, "{:?}", auth.lock().unwrap().asked);
    later(50).await;
    sessions.check(id(2)).await.unwrap();
    later(20).await;
    assert_eq!(last(&auth), [id(2)]);
    later(60).await;
    let count = auth.lock().unwrap().asked.len();
    later(1000).await;
    assert_eq!(auth.lock().unwrap().asked.len(), count, "nobody is asked for nothing");
    assert!(sessions.lock().0.is_empty());
}

// I50
#[tokio::test(start_paused = true)]
async fn while_the_auth_service_is_away_what_it_said_counts_as_long_as_with_locks_and_nothing_begins() {
    for mood in [Mood::Refuses, Mood::Hangs] {
        let (sessions, auth) = watched();
        let begun = Instant::now();
        sessions.check(id(1)).await.unwrap();
        auth.lock().unwrap().mood = mood;
        for _ in 0..28 {
            later(10).await;
            let asked = Instant::now();
            assert_eq!(sessions.check(id(1)).await, Ok(()));
            assert_eq!(asked.elapsed(), Duration::ZERO, "nobody waits for it");
        }
        let asked = Instant::now();
        assert_eq!(sessions.check(id(2)).await, Err(EndReason::SessionUnknown));
        assert!(asked.elapsed() <= WAIT);
        tokio::time::sleep_until(begun + LOCKS_HOLD + EVERY).await;
        assert_eq!(sessions.check(id(1)).await, Err(EndReason::SessionUnknown));
        auth.lock().unwrap().mood = Mood::Answers;
        later(10).await;
        assert_eq!((sessions.check(id(1)).await, sessions.check(id(2)).await), (Ok(()), Ok(())));
    }
}

#[tokio::test(start_paused = true)]
async fn without_anybody_who_asks_no_session_is_known_to_go_on() {
    let (sessions, _) = world();
    assert_eq!(sessions.check(id(1)).await, Err(EndReason::SessionUnknown));
}

// I62
#[test]
fn so_many_are_known_and_so_many_asked_for_at_once_and_no_more() {
    let (mut table, now) = (Table::default(), Instant::now());
    for number in 0..MAX_KNOWN {
        assert_eq!(table.used(id(number.try_into().unwrap()), now), None);
    }
    assert_eq!(table.used(id(u128::MAX), now), Some(Err(EndReason::SessionUnknown)));
    assert_eq!(table.used(id(0), now), None, "who is known has a place");
    let mut asked = BTreeSet::new();
    for _ in 0..MAX_KNOWN / MAX_APP_SESSIONS_ASKED {
        assert_eq!(table.next(), Some(now));
        let due = table.due(&BTreeSet::new(), now);
        assert_eq!(due.len(), MAX_APP_SESSIONS_ASKED);
        asked.extend(due);
    }
    assert_eq!((asked.len(), table.next()), (MAX_KNOWN, Some(now + EVERY)));
}

// I78
#[test]
fn a_session_with_work_in_it_is_asked_for_however_long_ago_its_last_request_was() {
    let (mut table, begun) = (Table::default(), Instant::now());
    let live = BTreeSet::from([id(1)]);
    assert_eq!((table.used(id(1), begun), table.used(id(2), begun)), (None, None));
    let later = begun + Duration::from_secs(8 * 3600);
    assert_eq!(table.due(&live, later), [id(1)]);
    table.answered(&[id(1)], &[id(1)], later);
    assert_eq!(table.judged(id(1), later), Some(Err(EndReason::SessionEnded)));
}
