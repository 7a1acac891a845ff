use std::time::Duration;

use remoteler_core::{ApiErrorKind, NewUser, Secret, SignUpRequest, UserName};

use crate::support::{Cluster, PASSWORD, kind, login_request, new_user};

fn sign_up(token: &Secret, password: &str) -> SignUpRequest {
    SignUpRequest { token: token.clone(), password: Secret::new(password), code: None }
}

#[tokio::test]
async fn a_sign_up_link_sets_a_password_once() {
    let cluster = Cluster::start().await;
    let invite = cluster.admin().create_user(new_user("ann", &["access"], &["root"])).await.unwrap();
    let api = cluster.anonymous();
    assert_eq!(api.invited_user(invite.token.clone()).await.unwrap().user.as_str(), "ann");
    assert_eq!(kind(api.sign_up(sign_up(&invite.token, "short")).await), ApiErrorKind::BadRequest);

    assert_eq!(api.sign_up(sign_up(&invite.token, PASSWORD)).await.unwrap().user.as_str(), "ann");

    assert_eq!(kind(api.sign_up(sign_up(&invite.token, PASSWORD)).await), ApiErrorKind::NotFound);
    assert_eq!(kind(api.invited_user(invite.token).await), ApiErrorKind::NotFound);
    api.login(login_request("ann", PASSWORD)).await.unwrap();
}

#[tokio::test]
async fn of_two_who_use_a_link_at_once_one_wins() {
    let cluster = Cluster::start().await;
    let invite = cluster.admin().create_user(new_user("ann", &["access"], &["root"])).await.unwrap();
    let (one, two) = (cluster.anonymous(), cluster.anonymous());
    let (first, second) = tokio::join!(
        one.sign_up(sign_up(&invite.token, "password number one")),
        two.sign_up(sign_up(&invite.token, "password number two")),
    );
    assert_eq!([first, second].iter().filter(|outcome| outcome.is_ok()).count(), 1);
}

#[tokio::test]
async fn a_link_ends_by_time_and_by_a_newer_one() {
    let cluster = Cluster::start().await;
    let first = cluster.admin().create_user(new_user("ann", &["access"], &[])).await.unwrap();
    let second = cluster.admin().reset_user(UserName::new("ann").unwrap()).await.unwrap();
    let api = cluster.anonymous();
    assert_eq!(kind(api.invited_user(first.token).await), ApiErrorKind::NotFound);
    api.invited_user(second.token.clone()).await.unwrap();
    cluster.clock.advance(Duration::from_secs(3600));
    assert_eq!(kind(api.sign_up(sign_up(&second.token, PASSWORD)).await), ApiErrorKind::NotFound);
}

#[tokio::test]
async fn a_reset_takes_the_password_away() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    cluster.admin().reset_user(UserName::new("ann").unwrap()).await.unwrap();
    let refused = cluster.anonymous().login(login_request("ann", PASSWORD)).await;
    assert_eq!(kind(refused), ApiErrorKind::Unauthenticated);
    assert!(!cluster.admin().users().await.unwrap()[0].has_password);
}

#[tokio::test]
async fn links_cannot_be_guessed_without_end_from_one_address() {
    let cluster = Cluster::start().await;
    for number in 0..30 {
        let guess = Secret::new(format!("guess{number}"));
        assert_eq!(kind(cluster.anonymous().invited_user(guess).await), ApiErrorKind::NotFound);
    }
    let refused = cluster.anonymous().invited_user(Secret::new("guess")).await;
    assert_eq!(kind(refused), ApiErrorKind::RateLimited);
}

#[tokio::test]
async fn a_user_is_made_only_with_roles_that_exist_and_traits_within_bounds() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for (user, part) in [
        (new_user("ann", &[], &[]), "no role"),
        (new_user("ann", &["nothing"], &[]), "no role nothing"),
        (new_user("ann", &["access"], &["-oProxyCommand=x"]), "-oProxyCommand"),
        (new_user("ann", &["access"], &[&"x".repeat(300)]), "trait"),
    ] {
        let refused = admin.create_user(user).await.unwrap_err();
        assert_eq!(refused.kind, ApiErrorKind::BadRequest);
        assert!(refused.message.contains(part), "{}", refused.message);
    }
    assert!(admin.users().await.unwrap().is_empty());
    admin.create_user(new_user("ann", &["access"], &[])).await.unwrap();
    assert_eq!(kind(admin.create_user(new_user("ann", &["access"], &[])).await), ApiErrorKind::Conflict);
}

#[tokio::test]
async fn an_update_changes_the_next_login_and_keeps_the_password() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let update = NewUser { ..new_user("ann", &["access", "auditor"], &["ubuntu"]) };
    cluster.admin().update_user(update).await.unwrap();
    let certs = cluster.log_in("ann").await;
    assert_eq!(certs.logins, ["ubuntu"]); // I42
    assert_eq!(certs.roles.len(), 2);
    let unknown = cluster.admin().update_user(new_user("bob", &["access"], &[])).await;
    assert_eq!(kind(unknown), ApiErrorKind::NotFound);
}

#[tokio::test]
async fn who_may_not_is_refused_and_audited_and_nothing_happens() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let ann = cluster.as_user("ann").await;
    assert_eq!(kind(ann.create_user(new_user("eve", &["editor"], &[])).await), ApiErrorKind::Denied);
    assert_eq!(kind(ann.update_user(new_user("ann", &["editor"], &[])).await), ApiErrorKind::Denied);
    let password = Secret::new(PASSWORD);
    assert_eq!(kind(ann.set_password(UserName::new("ann").unwrap(), password).await), ApiErrorKind::Denied);
    assert_eq!(kind(ann.delete_user(UserName::new("ann").unwrap()).await), ApiErrorKind::Denied);
    assert_eq!(kind(ann.tokens().await), ApiErrorKind::Denied);
    assert_eq!(kind(ann.events(Default::default()).await), ApiErrorKind::Denied);
    assert_eq!(kind(cluster.anonymous().users().await), ApiErrorKind::Unauthenticated);
    assert_eq!(cluster.events("auth").await.len(), 7);
    assert_eq!(cluster.admin().users().await.unwrap().len(), 1);
}

#[tokio::test]
async fn every_change_of_a_user_has_its_event() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["editor"], &[]).await;
    let ann = cluster.as_user("ann").await;
    let bob = UserName::new("bob").unwrap();
    ann.create_user(new_user("bob", &["access"], &[])).await.unwrap();
    ann.update_user(new_user("bob", &["auditor"], &[])).await.unwrap();
    ann.set_password(bob.clone(), Secret::new(PASSWORD)).await.unwrap();
    ann.delete_user(bob).await.unwrap();
    for kind in ["user.create", "user.update", "user.password_change", "user.delete", "reset_password_token.create"] {
        let events = cluster.events(kind).await;
        let text = serde_json::to_string(events.last().unwrap()).unwrap();
        assert!(text.contains("\"ann\"") && text.contains("\"bob\""), "{text}"); // I75
    }
}
