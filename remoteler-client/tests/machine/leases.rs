//! Connections counted at the auth service: asked for, said again, given back, and what happens while nobody answers.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use remoteler_client::{LeaseKeeper, RemoteAuth};
use remoteler_core::{
    ApiError, ApiErrorKind, ConnectionCount, ConnectionKind, EndReason, LeaseAnswer, LeaseReport, LeaseRequest,
    LockMode,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::service::{self, Answer, ok, refused};

/// What the auth service was asked and told.
#[derive(Default)]
struct Service {
    away: bool,
    /// Takes no more.
    full: bool,
    asked: Vec<LeaseRequest>,
    held: Vec<Uuid>,
    released: Vec<Uuid>,
}

fn serve(dir: &tempfile::TempDir) -> (Arc<LeaseKeeper>, Arc<Mutex<Service>>, JoinHandle<()>) {
    let state = Arc::new(Mutex::new(Service::default()));
    let kept = state.clone();
    let answer = move |what: &str, body: &[u8]| -> Answer {
        let mut state = kept.lock().unwrap();
        if what == "POST /v1/leases" {
            state.asked.push(serde_json::from_slice(body).unwrap());
        }
        if state.away {
            return refused(&ApiError::new(ApiErrorKind::Unavailable, "away"));
        }
        if what == "POST /v1/leases" {
            return ok(&LeaseAnswer { granted: !state.full, open: 0 });
        }
        assert_eq!(what, "PUT /v1/leases");
        let report: LeaseReport = serde_json::from_slice(body).unwrap();
        state.held.extend(report.held.iter().map(|lease| lease.id));
        state.released.extend(report.released.iter().map(|lease| lease.id));
        (204, String::new())
    };
    let (socket, task) = service::unix(&dir.path().join("auth.sock"), Arc::new(answer));
    (LeaseKeeper::new(Arc::new(RemoteAuth::unix(&socket))), state, task)
}

async fn take(keeper: &LeaseKeeper, mode: LockMode) -> Result<remoteler_core::Place, EndReason> {
    keeper.take("ann".parse().unwrap(), ConnectionKind::Ssh, 3, mode).await
}

async fn until(state: &Mutex<Service>, holds: impl Fn(&Service) -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds(&state.lock().unwrap()) {
        assert!(Instant::now() < end, "not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_place_is_asked_for_once_and_given_back_when_the_connection_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, state, _task) = serve(&dir);
    let stop = CancellationToken::new();
    let running = tokio::spawn(keeper.clone().run(stop.clone()));
    let first = take(&keeper, LockMode::Strict).await.unwrap();
    let asked = state.lock().unwrap().asked.clone();
    assert_eq!((asked.len(), asked[0].limit, asked[0].lease.user.as_str()), (1, 3, "ann"));
    assert!(state.lock().unwrap().released.is_empty());
    drop(first);
    until(&state, |state| state.released == [asked[0].lease.id]).await;

    state.lock().unwrap().full = true;
    assert_eq!(take(&keeper, LockMode::BestEffort).await.err(), Some(EndReason::TooMany(3)));
    state.lock().unwrap().full = false;
    let second = take(&keeper, LockMode::Strict).await.unwrap();
    let id = state.lock().unwrap().asked[2].lease.id;
    // An end in order leaves nothing behind.
    drop(second);
    stop.cancel();
    running.await.unwrap();
    assert_eq!(state.lock().unwrap().released, [asked[0].lease.id, id], "the refused one has nothing to give back");
}

#[tokio::test]
async fn while_nobody_answers_best_effort_lets_in_and_tells_later_and_strict_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, state, _task) = serve(&dir);
    state.lock().unwrap().away = true;
    let place = take(&keeper, LockMode::BestEffort).await.unwrap();
    assert_eq!(take(&keeper, LockMode::Strict).await.err(), Some(EndReason::Uncounted));
    assert_eq!(state.lock().unwrap().asked.len(), 1, "who waited in vain just now does not make others wait");

    state.lock().unwrap().away = false;
    let stop = CancellationToken::new();
    let running = tokio::spawn(keeper.clone().run(stop.clone()));
    let id = state.lock().unwrap().asked[0].lease.id;
    until(&state, |state| state.held.contains(&id)).await;
    // Whether the second one arrived nobody knows, so it is given back.
    until(&state, |state| state.released.len() == 1 && !state.released.contains(&id)).await;
    assert!(take(&keeper, LockMode::Strict).await.is_ok(), "it answers again");
    drop(place);
    until(&state, |state| state.released.contains(&id)).await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_service_that_is_silent_holds_nobody_up_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("silent.sock");
    let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let keeper = LeaseKeeper::new(Arc::new(RemoteAuth::unix(&socket)));
    let began = Instant::now();
    assert!(take(&keeper, LockMode::BestEffort).await.is_ok());
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(20), "{waited:?}");
    let began = Instant::now();
    assert!(take(&keeper, LockMode::BestEffort).await.is_ok());
    assert!(began.elapsed() < Duration::from_secs(2), "the next one need not wait as well");
}
