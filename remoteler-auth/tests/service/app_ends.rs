//! How the service of an application hears that a browser's session there has ended: it asks, for what it does for long.

use std::time::Duration;

use remoteler_core::{
    ApiErrorKind, AppSessionsRequest, AppTokenRequest, AuthApi, Clock, MAX_APP_SESSIONS_ASKED, SessionId, UserName,
};
use serde_json::json;

use crate::{
    apps::{World, join_apps, role},
    support::{PASSWORD, kind},
};

/// Those of the sessions that are told to have ended.
async fn ended(api: &dyn AuthApi, sessions: &[SessionId]) -> Vec<SessionId> {
    let request = AppSessionsRequest { sessions: sessions.to_vec() };
    api.ended_app_sessions(request).await.unwrap().ended
}

fn unknown() -> SessionId {
    SessionId::from_uuid(uuid::Uuid::from_u128(7))
}

// I50, I51
#[tokio::test]
async fn whatever_ends_a_session_its_applications_service_hears_of_it() {
    for by in ["logout", "lock", "removal", "role", "end of the web session"] {
        let world = World::new().await;
        world.browser.log_in("ann", PASSWORD).await;
        let [first, other] = [world.open("billing").await, world.open("wiki").await];
        let session = world.certified(&first, "billing").await.unwrap().session;
        let both = [session, world.certified(&other, "wiki").await.unwrap().session];
        assert_eq!(ended(&*world.service, &both).await, [], "{by}: both go on");
        let admin = world.cluster.admin();
        match by {
            "logout" => drop(world.browser.form("logout", "").await),
            "lock" => {
                let lock = json!({
                    "kind": "lock", "version": "v2", "metadata": { "name": "l" }, "spec": { "target": { "user": "ann" } },
                });
                admin.put_resource(serde_json::from_value(lock).unwrap(), false).await.unwrap();
            }
            "removal" => {
                admin.delete_user(UserName::new("ann").unwrap()).await.unwrap();
                world.cluster.user("ann", &["apps"], &[]).await; // somebody else of the name
            }
            "role" => role(&world.cluster, "apps", json!({ "app_labels": { "app": "wiki" } }), json!({})).await,
            _ => world.later(1800).await,
        }
        let expected = if by == "role" { &both[..1] } else { &both[..] };
        assert_eq!(ended(&*world.service, &both).await, expected, "{by}");
        assert_eq!(ended(&*world.service, &both).await, expected, "{by}: it stays so");
    }
}

// I51
#[tokio::test]
async fn a_service_hears_of_sessions_at_its_own_applications_and_nobody_else_hears_anything() {
    let world = World::new().await;
    world.browser.log_in("ann", PASSWORD).await;
    let secret = world.open("billing").await;
    let session = world.certified(&secret, "billing").await.unwrap().session;
    assert_eq!(ended(&*world.service, &[unknown(), session]).await, [unknown()]);
    let other = world.cluster.as_host(&join_apps(&world.cluster, "apps-2", &["other"]).await);
    assert_eq!(ended(&*other, &[unknown(), session]).await, [unknown(), session], "of others all are the same");

    let request = AppSessionsRequest { sessions: vec![session] };
    for api in [world.proxy.clone(), world.cluster.admin(), world.cluster.anonymous()] {
        let refused = kind(api.ended_app_sessions(request.clone()).await);
        assert!(matches!(refused, ApiErrorKind::Denied | ApiErrorKind::Unauthenticated), "{refused:?}");
    }
    let most = AppSessionsRequest { sessions: vec![unknown(); MAX_APP_SESSIONS_ASKED] };
    assert_eq!(world.service.ended_app_sessions(most).await.unwrap().ended.len(), MAX_APP_SESSIONS_ASKED);
    let more = AppSessionsRequest { sessions: vec![unknown(); MAX_APP_SESSIONS_ASKED + 1] };
    assert_eq!(kind(world.service.ended_app_sessions(more).await), ApiErrorKind::BadRequest);
    world.certified(&secret, "billing").await.unwrap();
}

// I50
#[tokio::test]
async fn that_a_service_asks_for_a_session_is_no_use_of_the_login() {
    let world = World::new().await;
    world.browser.log_in("ann", PASSWORD).await;
    let secret = world.open("billing").await;
    let session = world.looked_at(&secret, "billing", false).await.unwrap().session;
    world.later(1200).await;
    assert_eq!(ended(&*world.service, &[session]).await, []);
    world.later(599).await;
    assert_eq!(ended(&*world.service, &[session]).await, []);
    world.later(1).await;
    assert_eq!(ended(&*world.service, &[session]).await, [session]);
}

// I9, I51
#[tokio::test]
async fn a_certificate_gets_no_token_when_the_session_that_it_is_of_has_ended() {
    let world = World::new().await;
    world.browser.log_in("ann", PASSWORD).await;
    let secret = world.open("billing").await;
    let (user, chain) = world.user_of(&secret, "billing").await;
    let token = || world.service.app_token(AppTokenRequest::new("billing".parse().unwrap(), &chain));
    token().await.unwrap();
    world.browser.form("logout", "").await;
    assert!(user.expires() > world.cluster.clock.now().plus(Duration::from_secs(60)), "the certificate itself goes on");
    assert_eq!(kind(token().await), ApiErrorKind::Unauthenticated);
}
