//! Second factors of local users.

use std::{sync::Arc, time::Duration};

use remoteler_core::{
    ApiErrorKind, AuthApi, Clock, FactorRemoval, FreshProof, LoginRequest, NewFactor, Secret, SignUpRequest, Timestamp,
    UserName,
};

use crate::support::{Cluster, PASSWORD, kind, login_request, new_user};

/// What an authenticator app shows (RFC 6238).
pub(crate) fn app(secret: &Secret, now: Timestamp) -> Secret {
    let key = data_encoding::BASE32_NOPAD.decode(secret.reveal().as_bytes()).unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
    let tag = ring::hmac::sign(&key, &(now.unix_seconds_unsigned() / 30).to_be_bytes());
    let at = usize::from(tag.as_ref()[19] & 15);
    let word = u32::from_be_bytes(tag.as_ref()[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    Secret::new(format!("{:06}", word % 1_000_000))
}

async fn wanting(second_factor: &str) -> Cluster {
    let cluster = Cluster::start().await;
    let document = serde_json::json!({
        "kind": "cluster_auth_preference", "version": "v2", "metadata": { "name": "cluster-auth-preference" },
        "spec": { "second_factor": second_factor },
    });
    cluster.admin().put_resource(serde_json::from_value(document).unwrap(), false).await.unwrap();
    cluster
}

fn proof(code: Option<Secret>) -> FreshProof {
    FreshProof { password: Some(Secret::new(PASSWORD)), code }
}

fn login(code: &Secret) -> LoginRequest {
    LoginRequest { code: Some(code.clone()), ..login_request("ann", PASSWORD) }
}

/// Ann with a phone: her handle, the phone's secret, her recovery codes.
async fn with_phone(cluster: &Cluster) -> (Arc<dyn AuthApi>, Secret, Vec<Secret>) {
    cluster.user("ann", &["access"], &["root"]).await;
    let ann = cluster.as_user("ann").await;
    let secret = ann.offer_factor(proof(None)).await.unwrap().secret;
    let code = app(&secret, cluster.clock.now());
    let added = ann.add_factor(NewFactor { name: "phone".into(), code }).await.unwrap();
    cluster.clock.advance(Duration::from_secs(60));
    (ann, secret, added.recovery_codes)
}

#[tokio::test]
async fn who_has_a_factor_logs_in_with_password_and_code_and_each_code_counts_once() {
    let cluster = Cluster::start().await;
    let (_, secret, _) = with_phone(&cluster).await;
    let anybody = cluster.anonymous();
    assert_eq!(kind(anybody.login(login_request("ann", PASSWORD)).await), ApiErrorKind::SecondFactorNeeded);
    let wrong = LoginRequest { code: Some(Secret::new("1")), ..login_request("ann", "wrong password") };
    let answer = anybody.login(wrong).await.unwrap_err();
    assert_eq!(answer.message, "wrong user name or password", "of the factor only who has the password hears");
    let code = app(&secret, cluster.clock.now());
    anybody.login(login(&code)).await.unwrap();
    assert_eq!(kind(anybody.login(login(&code)).await), ApiErrorKind::Unauthenticated); // I48
    cluster.clock.advance(Duration::from_secs(60));
    anybody.login(login(&app(&secret, cluster.clock.now()))).await.unwrap();
    let log = serde_json::to_string(&cluster.admin().events(Default::default()).await.unwrap()).unwrap();
    assert!(!log.contains(secret.reveal()) && log.contains("\"mfa.add\"") && log.contains("wrong one-time code")); // I76
}

#[tokio::test]
async fn of_many_who_show_one_code_at_once_one_gets_in() {
    let cluster = Cluster::start().await;
    let (_, secret, recovery) = with_phone(&cluster).await;
    for code in [app(&secret, cluster.clock.now()), recovery[0].clone()] {
        let mut attempts = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (api, request) = (cluster.anonymous(), login(&code));
            attempts.spawn(async move { api.login(request).await.is_ok() });
        }
        let entered = attempts.join_all().await.into_iter().filter(|entered| *entered).count();
        assert_eq!(entered, 1); // I48
    }
    let [used] = cluster.events("recovery_code.used").await.try_into().unwrap();
    assert_eq!(serde_json::to_value(used).unwrap()["left"], 7);
}

#[tokio::test]
async fn guesses_at_codes_lock_the_user_out_also_when_the_right_password_is_shown_in_between() {
    let cluster = Cluster::start().await;
    let (_, secret, _) = with_phone(&cluster).await;
    let mut refused = 0;
    for number in 0..30_u8 {
        // From many places: what counts is the user (I48).
        let api = cluster.at_address([198, 51, number, 1]);
        let answer = kind(api.login(login(&Secret::new("no code"))).await);
        if answer == ApiErrorKind::RateLimited {
            break;
        }
        assert_eq!(answer, ApiErrorKind::Unauthenticated);
        refused += 1;
        let answer = kind(api.login(login_request("ann", PASSWORD)).await);
        assert!(matches!(answer, ApiErrorKind::SecondFactorNeeded | ApiErrorKind::RateLimited), "{answer:?}");
    }
    assert!(refused <= 10, "{refused} guesses"); // I48
    let right = login(&app(&secret, cluster.clock.now()));
    assert_eq!(kind(cluster.anonymous().login(right).await), ApiErrorKind::RateLimited);
    cluster.clock.advance(Duration::from_secs(301));
    cluster.anonymous().login(login(&app(&secret, cluster.clock.now()))).await.unwrap();
}

#[tokio::test]
async fn a_password_tried_at_many_users_is_stopped_by_the_address_and_is_on_record() {
    let cluster = Cluster::start().await;
    let mut tried = 0;
    for number in 0..60 {
        let request = login_request(&format!("user{number}"), "Summer2026!");
        let answer = kind(cluster.anonymous().login(request).await);
        if answer == ApiErrorKind::RateLimited {
            break;
        }
        assert_eq!(answer, ApiErrorKind::Unauthenticated);
        tried += 1;
    }
    assert_eq!(tried, 30); // I48
    let failed = cluster.events("user.login").await;
    assert_eq!(failed.len(), 30);
    assert!(failed.iter().all(|event| event.code == "T1000W"));
}

#[tokio::test]
async fn factors_change_only_by_a_fresh_proof_of_one_that_is_there() {
    let cluster = Cluster::start().await;
    let (ann, secret, _) = with_phone(&cluster).await;
    assert_eq!(kind(ann.offer_factor(proof(None)).await), ApiErrorKind::SecondFactorNeeded);
    let wrong =
        FreshProof { password: Some(Secret::new("wrong password")), code: Some(app(&secret, cluster.clock.now())) };
    assert_eq!(kind(ann.offer_factor(wrong).await), ApiErrorKind::Unauthenticated);
    assert_eq!(kind(cluster.anonymous().offer_factor(proof(None)).await), ApiErrorKind::Unauthenticated);
    let offered = ann.offer_factor(proof(Some(app(&secret, cluster.clock.now())))).await.unwrap();
    let tablet = |code: Secret| NewFactor { name: "tablet".into(), code };
    assert_eq!(kind(ann.add_factor(tablet(Secret::new("12"))).await), ApiErrorKind::BadRequest);
    let added = ann.add_factor(tablet(app(&offered.secret, cluster.clock.now()))).await.unwrap();
    assert!(added.recovery_codes.is_empty(), "those of the first factor go on");
    let again = ann.add_factor(tablet(app(&offered.secret, cluster.clock.now()))).await;
    assert_eq!(kind(again), ApiErrorKind::NotFound, "an offer is taken once");
    let names: Vec<String> = ann.factors().await.unwrap().into_iter().map(|factor| factor.name).collect();
    assert_eq!(names, ["phone", "tablet"]);

    cluster.clock.advance(Duration::from_secs(60));
    let removal = |code: Option<Secret>| FactorRemoval { name: "phone".into(), proof: proof(code) };
    assert_eq!(kind(ann.remove_factor(removal(None)).await), ApiErrorKind::SecondFactorNeeded);
    ann.remove_factor(removal(Some(app(&offered.secret, cluster.clock.now())))).await.unwrap();
    assert_eq!(ann.factors().await.unwrap().len(), 1);
    let [removed] = cluster.events("mfa.delete").await.try_into().unwrap();
    assert_eq!(serde_json::to_value(removed).unwrap()["name"], "phone");
}

#[tokio::test]
async fn an_offer_ends_after_ten_minutes() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let ann = cluster.as_user("ann").await;
    let secret = ann.offer_factor(proof(None)).await.unwrap().secret;
    cluster.clock.advance(Duration::from_secs(601));
    let late = NewFactor { name: "phone".into(), code: app(&secret, cluster.clock.now()) };
    assert_eq!(kind(ann.add_factor(late).await), ApiErrorKind::NotFound);
}

#[tokio::test]
async fn where_everybody_needs_a_factor_nobody_signs_up_or_logs_in_without() {
    let cluster = wanting("on").await;
    let invite = cluster.admin().create_user(new_user("ann", &["access"], &["root"])).await.unwrap();
    let api = cluster.anonymous();
    let invited = api.invited_user(invite.token.clone()).await.unwrap();
    let secret = invited.totp.unwrap().secret;
    assert_eq!(
        api.invited_user(invite.token.clone()).await.unwrap().totp.unwrap().secret,
        secret,
        "also when reloaded"
    );
    let sign_up =
        |code: Option<Secret>| SignUpRequest { token: invite.token.clone(), password: Secret::new(PASSWORD), code };
    for code in [None, Some(Secret::new("")), Some(Secret::new("1234567"))] {
        assert_eq!(kind(api.sign_up(sign_up(code)).await), ApiErrorKind::SecondFactorNeeded);
    }
    let signed_up = api.sign_up(sign_up(Some(app(&secret, cluster.clock.now())))).await.unwrap();
    assert_eq!(signed_up.recovery_codes.len(), 8);
    assert_eq!(kind(api.login(login_request("ann", PASSWORD)).await), ApiErrorKind::SecondFactorNeeded);
    api.login(login(&signed_up.recovery_codes[0])).await.unwrap();

    // Whose password an administrator set has none.
    cluster.user("bob", &["access"], &["root"]).await;
    let refused = api.login(login_request("bob", PASSWORD)).await.unwrap_err();
    assert_eq!(refused.kind, ApiErrorKind::Denied);
    assert!(refused.message.contains("tctl users reset"), "{refused}");
}

#[tokio::test]
async fn the_last_factor_stays_where_everybody_needs_one() {
    let cluster = wanting("on").await;
    let invite = cluster.admin().create_user(new_user("ann", &["access"], &["root"])).await.unwrap();
    let api = cluster.anonymous();
    let secret = api.invited_user(invite.token.clone()).await.unwrap().totp.unwrap().secret;
    let code = Some(app(&secret, cluster.clock.now()));
    api.sign_up(SignUpRequest { token: invite.token, password: Secret::new(PASSWORD), code }).await.unwrap();
    cluster.clock.advance(Duration::from_secs(60));
    let certs = api.login(login(&app(&secret, cluster.clock.now()))).await.unwrap();
    let user = cluster.verify(&certs.tls_certificate).user().unwrap();
    let ann = cluster.service.as_caller(remoteler_auth::Caller::User { user, addr: None });
    cluster.clock.advance(Duration::from_secs(60));
    let proof = proof(Some(app(&secret, cluster.clock.now())));
    let removal = FactorRemoval { name: "authenticator app".into(), proof };
    assert_eq!(kind(ann.remove_factor(removal).await), ApiErrorKind::Conflict);
    assert_eq!(ann.factors().await.unwrap().len(), 1);
}

#[tokio::test]
async fn where_factors_are_off_a_password_is_enough_and_none_is_offered() {
    let cluster = wanting("off").await;
    let (_, _, _) = with_phone(&cluster).await;
    cluster.log_in("ann").await;
    let invite = cluster.admin().create_user(new_user("bob", &["access"], &[])).await.unwrap();
    assert!(cluster.anonymous().invited_user(invite.token).await.unwrap().totp.is_none());
}

#[tokio::test]
async fn a_reset_takes_the_factors_with_the_password_and_a_new_user_of_the_name_has_none() {
    let cluster = Cluster::start().await;
    let (_, secret, _) = with_phone(&cluster).await;
    let ann = || UserName::new("ann").unwrap();
    let invite = cluster.admin().reset_user(ann()).await.unwrap();
    let request = SignUpRequest { token: invite.token, password: Secret::new(PASSWORD), code: None };
    cluster.anonymous().sign_up(request).await.unwrap();
    cluster.log_in("ann").await;
    assert_eq!(kind(cluster.anonymous().login(login_request("ann", "x")).await), ApiErrorKind::Unauthenticated);
    cluster.admin().delete_user(ann()).await.unwrap();
    cluster.clock.advance(Duration::from_secs(1));
    cluster.user("ann", &["access"], &["root"]).await;
    cluster.log_in("ann").await;
    let _ = secret;
}
