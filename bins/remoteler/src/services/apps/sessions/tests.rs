//! Cookies that are sessions and cookies that are none.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    super::session::tests::{Auth, Mood, auth},
    *,
};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

fn sessions() -> (Arc<Mutex<Auth>>, Sessions) {
    let (auth, asker) = auth();
    (auth, Sessions::asking(asker))
}

fn app() -> AppName {
    "billing".parse().unwrap()
}

fn cookie(number: u32) -> Secret {
    Secret::new(format!("{number:064x}"))
}

async fn later(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

// I51
#[tokio::test(start_paused = true)]
async fn a_cookie_is_one_session_for_all_who_bring_it_and_another_at_another_app() {
    let (auth, sessions) = sessions();
    let (app, secret) = (app(), cookie(1));
    let (first, second) = tokio::join!(sessions.find(&app, &secret, HOME), sessions.find(&app, &secret, ELSEWHERE));
    let first = first.unwrap();
    assert!(Arc::ptr_eq(&first, &second.unwrap()));
    assert_eq!(auth.lock().unwrap().asked.len(), 2, "asked for once, and certified once");
    let wiki = "wiki".parse().unwrap();
    assert!(!Arc::ptr_eq(&first, &sessions.find(&wiki, &secret, HOME).await.unwrap()));
    assert_eq!(auth.lock().unwrap().asked.last().unwrap().app, wiki);
}

// I30
#[tokio::test(start_paused = true)]
async fn who_brings_many_wrong_cookies_is_not_asked_for_and_a_session_from_there_goes_on() {
    let (auth, sessions) = sessions();
    let good = sessions.find(&app(), &cookie(0), HOME).await.unwrap();
    auth.lock().unwrap().mood = Mood::Ended;
    let mut wrong = 0;
    while sessions.may_guess(HOME) {
        wrong += 1;
        assert!(matches!(sessions.find(&app(), &cookie(wrong), HOME).await, Err(NoSession::Ended)));
    }
    let asked = auth.lock().unwrap().asked.len();
    assert!(matches!(sessions.find(&app(), &cookie(wrong + 1), HOME).await, Err(NoSession::TooMany)));
    assert_eq!(auth.lock().unwrap().asked.len(), asked);
    assert_eq!((lock(&sessions.held).len(), lock(&sessions.asked).len()), (1, 0), "nothing is kept of them");

    auth.lock().unwrap().mood = Mood::GoesOn;
    assert!(Arc::ptr_eq(&good, &sessions.find(&app(), &cookie(0), HOME).await.unwrap()));
    sessions.find(&app(), &cookie(wrong + 1), ELSEWHERE).await.unwrap();
    later(60).await;
    sessions.find(&app(), &cookie(wrong + 2), HOME).await.unwrap();
}

// I50
#[tokio::test(start_paused = true)]
async fn what_goes_on_for_long_hears_of_the_end_within_two_seconds_and_why() {
    for (mood, said) in [(Mood::Ended, "there is no such session"), (Mood::Denied, "your roles do not allow it")] {
        let (auth, sessions) = sessions();
        let session = sessions.find(&app(), &cookie(1), HOME).await.unwrap();
        let ended = sessions.ended(&session);
        let mut ended = std::pin::pin!(ended);
        assert!(tokio::time::timeout(Duration::from_secs(30), &mut ended).await.is_err(), "it goes on");
        auth.lock().unwrap().mood = mood;
        let begun = Instant::now();
        assert_eq!(ended.await.to_string(), said);
        assert!(begun.elapsed() <= Duration::from_secs(2), "{:?}", begun.elapsed());
        assert!(sessions.find(&app(), &cookie(1), HOME).await.is_err());
        assert!(lock(&sessions.held).is_empty(), "and it is forgotten");
    }
}

// I50
#[tokio::test(start_paused = true)]
async fn what_goes_on_for_long_while_nobody_answers_ends_after_five_minutes() {
    for mood in [Mood::Hangs, Mood::Refuses] {
        let (auth, sessions) = sessions();
        let session = sessions.find(&app(), &cookie(1), HOME).await.unwrap();
        auth.lock().unwrap().mood = mood;
        let begun = Instant::now();
        assert!(matches!(sessions.ended(&session).await, NoSession::Unknown(_)));
        let lasted = begun.elapsed().as_secs();
        assert!((290..=315).contains(&lasted), "{mood:?}: {lasted} s");
    }
}

// I62
#[tokio::test(start_paused = true)]
async fn so_many_sessions_are_held_and_those_that_nobody_uses_make_room() {
    let (_, sessions) = sessions();
    let first = sessions.find(&app(), &cookie(0), HOME).await.unwrap();
    for number in 1..=u32::try_from(MAX).unwrap() {
        sessions.keep((app(), number.to_string()), &first);
    }
    assert_eq!(lock(&sessions.held).len(), MAX);
    sessions.find(&app(), &cookie(1), HOME).await.unwrap();
    assert_eq!(lock(&sessions.held).len(), MAX, "it is served, and not held");
    later(FORGET.as_secs()).await;
    sessions.find(&app(), &cookie(1), HOME).await.unwrap();
    assert_eq!(lock(&sessions.held).len(), 1);
}
