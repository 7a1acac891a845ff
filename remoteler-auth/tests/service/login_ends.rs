//! How logins through a browser end when something is not as it should be: what a provider does not vouch for, what changes between proof and certificates,
//! what is broken, and who is told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use http::{Request, Response};
use remoteler_auth::{Caller, FetchError, Fetcher};
use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, BrowserAction, BrowserStep, BrowserView, FreshProof, LoginProgress, NewFactor,
    Resource, ResourceKind, Secret, Storage, UserName,
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    identity_provider::{Attempt, ISSUER, Idp, ORIGIN, cluster_with},
    mortal::Machine,
    support::{Cluster, PASSWORD, kind, login_request, new_user},
};

fn connector(name: &str, spec: Value) -> Resource {
    let mut fields = json!({
        "issuer_url": ISSUER,
        "client_id": "remoteler",
        "client_secret": "canary-secret",
        "redirect_url": format!("https://proxy.example.com/web/callback/{name}"),
        "claims_to_roles": [{ "claim": "groups", "value": "ssh-users", "roles": ["access"] }],
    });
    fields.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({ "kind": "oidc", "version": "v3", "metadata": { "name": name }, "spec": fields }))
        .unwrap()
}

async fn started(spec: Value) -> (Cluster, Idp) {
    let idp = Idp::new();
    let cluster = cluster_with(Arc::new(idp.clone())).await;
    cluster.admin().put_resource(connector("idp", spec), false).await.unwrap();
    (cluster, idp)
}

async fn begin(cluster: &Cluster) -> Attempt {
    Attempt::begin(cluster.anonymous(), Some("idp"), true).await.unwrap()
}

async fn log_in(cluster: &Cluster, idp: &Idp) -> Result<(), ApiError> {
    let mut attempt = begin(cluster).await;
    attempt.prove(idp).await?;
    attempt.finish().await.map(drop)
}

fn ann() -> UserName {
    UserName::new("ann").unwrap()
}

/// A login of local user ann up to the page that asks for confirmation.
async fn proven_by_password(cluster: &Cluster) -> Result<Attempt, (ApiError, Attempt)> {
    let mut attempt = Attempt::begin(cluster.anonymous(), None, true).await.unwrap();
    let id = attempt.begun.id.clone();
    let page = attempt.step(BrowserAction::Open { id: id.clone(), connector: Some("local".into()) }).await.unwrap();
    let BrowserView::Choose { local: Some(local), .. } = page else { panic!("{page:?}") };
    let (user, password) = ("ann".to_owned(), Secret::new(PASSWORD));
    match attempt.step(BrowserAction::Password { id, token: local.token, user, password, code: None }).await {
        Ok(BrowserView::Redirect { .. }) => Ok(attempt),
        Ok(other) => panic!("{other:?}"),
        Err(cause) => Err((cause, attempt)),
    }
}

#[tokio::test]
async fn an_address_that_the_provider_does_not_vouch_for_gives_no_role() {
    // I39
    let by_address = json!({ "claim": "email", "value": "*@example.com", "roles": ["access"] });
    let spec = json!({ "username_claim": "nick", "claims_to_roles": [by_address] });
    let (cluster, idp) = started(spec.clone()).await;
    for verified in [json!(false), json!("true"), json!(null)] {
        let claims = json!({ "nick": "ann", "email": "boss@example.com", "email_verified": verified });
        idp.change(|provider| provider.claims = claims);
        let refused = log_in(&cluster, &idp).await.unwrap_err();
        assert!(refused.message.contains("gives ann no role"), "{verified}: {refused}");
    }
    // Who was turned away stands in the log.
    let event = cluster.events("user.login").await.pop().unwrap();
    let AuditKind::UserLogin { user, success: false, .. } = event.kind else { panic!("{event:?}") };
    assert_eq!(user, "ann");

    // Nor does another source vouch for it that knows another address.
    let mut with_userinfo = spec.clone();
    with_userinfo["userinfo"] = json!(true);
    cluster.admin().put_resource(connector("idp", with_userinfo), true).await.unwrap();
    idp.change(|provider| {
        provider.claims = json!({ "nick": "ann", "email": "boss@example.com" });
        provider.userinfo = json!({ "sub": "subject-1", "email": "ann@elsewhere.example", "email_verified": true });
    });
    assert!(log_in(&cluster, &idp).await.unwrap_err().message.contains("gives ann no role"));
    idp.change(|provider| provider.userinfo["email"] = json!("boss@example.com"));
    log_in(&cluster, &idp).await.unwrap();

    cluster.admin().put_resource(connector("idp", spec.clone()), true).await.unwrap();
    idp.change(|provider| provider.claims["email_verified"] = json!(true));
    log_in(&cluster, &idp).await.unwrap();
    let mut lenient = spec;
    lenient["allow_unverified_email"] = json!(true);
    cluster.admin().put_resource(connector("idp", lenient), true).await.unwrap();
    idp.change(|provider| provider.claims["email_verified"] = json!(false));
    log_in(&cluster, &idp).await.unwrap();
}

#[tokio::test]
async fn what_was_proven_under_another_connector_or_for_another_user_of_the_name_gives_nothing() {
    // I42
    let (cluster, idp) = started(json!({})).await;
    let mut attempt = begin(&cluster).await;
    attempt.prove(&idp).await.unwrap();
    let narrower = json!({ "claims_to_roles": [{ "claim": "groups", "value": "hr", "roles": ["access"] }] });
    cluster.admin().put_resource(connector("idp", narrower), true).await.unwrap();
    let refused = attempt.finish().await.unwrap_err();
    assert!(refused.kind == ApiErrorKind::Denied && refused.message.contains("was changed meanwhile"), "{refused}");

    cluster.admin().put_resource(connector("idp", json!({})), true).await.unwrap();
    log_in(&cluster, &idp).await.unwrap();
    let mut attempt = begin(&cluster).await;
    attempt.prove(&idp).await.unwrap();
    cluster.admin().delete_user(UserName::new("ann@example.com").unwrap()).await.unwrap();
    assert_eq!(kind(attempt.finish().await), ApiErrorKind::Unauthenticated);
    assert!(cluster.admin().users().await.unwrap().is_empty(), "a login under way makes nobody anew");
    log_in(&cluster, &idp).await.unwrap();
}

#[tokio::test]
async fn a_password_that_was_changed_before_the_certificates_were_fetched_gives_none() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let mut attempt = proven_by_password(&cluster).await.unwrap_or_else(|_| panic!());
    assert!(attempt.finish().await.is_ok());

    let mut attempt = proven_by_password(&cluster).await.unwrap_or_else(|_| panic!());
    cluster.admin().set_password(ann(), Secret::new("another horse battery")).await.unwrap();
    assert_eq!(kind(attempt.finish().await), ApiErrorKind::Unauthenticated);
    cluster.admin().set_password(ann(), Secret::new(PASSWORD)).await.unwrap();

    let mut attempt = proven_by_password(&cluster).await.unwrap_or_else(|_| panic!());
    cluster.admin().reset_user(ann()).await.unwrap();
    assert_eq!(kind(attempt.finish().await), ApiErrorKind::Unauthenticated);
    cluster.admin().set_password(ann(), Secret::new(PASSWORD)).await.unwrap();

    let mut attempt = proven_by_password(&cluster).await.unwrap_or_else(|_| panic!());
    cluster.admin().delete_user(ann()).await.unwrap();
    cluster.user("ann", &["access", "editor"], &["root"]).await;
    assert_eq!(kind(attempt.finish().await), ApiErrorKind::Unauthenticated);
}

#[tokio::test]
async fn a_factor_that_was_begun_before_a_reset_cannot_be_finished_after_it() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let offer = || FreshProof { password: Some(Secret::new(PASSWORD)), code: None };
    let finish = || NewFactor { name: "theirs".into(), code: Secret::new("000000") };
    cluster.as_user("ann").await.offer_factor(offer()).await.unwrap();
    cluster.admin().reset_user(ann()).await.unwrap();
    cluster.admin().set_password(ann(), Secret::new(PASSWORD)).await.unwrap();
    assert_eq!(kind(cluster.as_user("ann").await.add_factor(finish()).await), ApiErrorKind::NotFound);

    cluster.as_user("ann").await.offer_factor(offer()).await.unwrap();
    cluster.admin().delete_user(ann()).await.unwrap();
    cluster.clock.advance(std::time::Duration::from_secs(60));
    cluster.user("ann", &["access"], &["root"]).await;
    assert_eq!(kind(cluster.as_user("ann").await.add_factor(finish()).await), ApiErrorKind::NotFound);
}

#[tokio::test]
async fn a_connector_that_cannot_be_read_stands_in_nobodys_way_and_can_be_removed_or_replaced() {
    let machine = Machine::new();
    let service = machine.start().await;
    let admin = service.as_caller(Caller::LocalAdmin);
    admin.put_resource(connector("idp", json!({})), false).await.unwrap();
    let names = async || {
        let methods = admin.login_methods().await.unwrap();
        methods.connectors.into_iter().map(|each| each.name).collect::<Vec<_>>()
    };
    let written = |change: &dyn Fn(&mut Value)| {
        let mut document = json!(connector("old", json!({})));
        change(&mut document);
        serde_json::to_vec(&document).unwrap()
    };
    for (broken, why) in [
        (written(&|old| old["spec"]["of_another_version"] = json!(true)), "of_another_version"),
        (written(&|old| old["metadata"]["of_another_version"] = json!(true)), "of_another_version"),
        (written(&|old| old["of_another_version"] = json!(true)), "of_another_version"),
        (written(&|old| old["metadata"]["name"] = json!("idp")), "another name"),
        // Of which not even the kind can be told.
        (written(&|old| old["kind"] = json!({ "of_another_version": true })), "does not parse"),
        (b"{".to_vec(), "does not parse"),
    ] {
        machine.disk.put("connectors/old", &broken, None).await.unwrap();
        assert_eq!(names().await, ["idp"]);
        // Who asks for the list is not given a part of it, and is told which is the rest.
        for refused in
            [admin.resources(ResourceKind::Oidc, None).await, admin.connector_secrets(ResourceKind::Oidc, None).await]
        {
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind, ApiErrorKind::Conflict);
            let said = refused.message;
            assert!(said.contains("oidc/old (") && said.contains(why) && said.ends_with(": oidc/idp"), "{said}");
            assert!(!said.contains("canary"), "{said}");
        }
        assert_eq!(admin.resources(ResourceKind::Oidc, Some("idp".into())).await.unwrap().len(), 1);
        let said = admin.resources(ResourceKind::Oidc, Some("old".into())).await.unwrap_err().message;
        assert!(said.contains("oidc/old (") && !said.contains("oidc/idp"), "{said}");
        assert_eq!(kind(admin.put_resource(connector("old", json!({})), false).await), ApiErrorKind::Conflict);
        admin.put_resource(connector("other", json!({})), false).await.unwrap();
        admin.delete_resource(ResourceKind::Oidc, "other".into()).await.unwrap();
        admin.put_resource(connector("old", json!({})), true).await.unwrap();
        assert_eq!(names().await, ["idp", "old"]);

        machine.disk.put("connectors/old", &broken, None).await.unwrap();
        admin.delete_resource(ResourceKind::Oidc, "old".into()).await.unwrap();
        assert_eq!(kind(admin.delete_resource(ResourceKind::Oidc, "old".into()).await), ApiErrorKind::NotFound);
        assert_eq!(names().await, ["idp"]);
    }
    // Of which the kind can be told, that is of no other kind.
    let broken = written(&|old| old["metadata"]["of_another_version"] = json!(true));
    machine.disk.put("connectors/old", &broken, None).await.unwrap();
    assert!(admin.resources(ResourceKind::Github, None).await.unwrap().is_empty());
    assert_eq!(kind(admin.delete_resource(ResourceKind::Github, "old".into()).await), ApiErrorKind::NotFound);
}

#[tokio::test]
async fn a_store_that_fails_makes_no_password_wrong() {
    let machine = Machine::new();
    let service = machine.start().await;
    let admin = service.as_caller(Caller::LocalAdmin);
    admin.create_user(new_user("ann", &["access"], &["root"])).await.unwrap();
    admin.set_password(ann(), Secret::new(PASSWORD)).await.unwrap();
    let now = remoteler_core::Clock::now(&remoteler_core::SystemClock);
    let record = machine.disk.get("users/ann", now).await.unwrap().unwrap().value;
    machine.disk.put("users/ann", b"{", None).await.unwrap();
    let anonymous = service.as_caller(Caller::Anonymous { addr: ([192, 0, 2, 1], 40_000).into() });
    for _ in 0..30 {
        assert_eq!(kind(anonymous.login(login_request("ann", PASSWORD)).await), ApiErrorKind::Internal);
    }
    machine.disk.put("users/ann", &record, None).await.unwrap();
    anonymous.login(login_request("ann", PASSWORD)).await.unwrap();
}

#[tokio::test]
async fn who_waits_is_told_that_the_connector_is_gone() {
    let (cluster, _) = started(json!({})).await;
    let mut disabled = begin(&cluster).await;
    let mut removed = begin(&cluster).await;
    cluster.admin().put_resource(connector("idp", json!({ "disabled": true })), true).await.unwrap();
    assert_eq!(kind(disabled.open().await), ApiErrorKind::Denied);
    let LoginProgress::Refused { reason } = disabled.poll().await.unwrap() else { panic!() };
    assert!(reason.contains("disabled"), "{reason}");
    cluster.admin().delete_resource(ResourceKind::Oidc, "idp".into()).await.unwrap();
    assert_eq!(kind(removed.open().await), ApiErrorKind::Denied);
    let LoginProgress::Refused { reason } = removed.poll().await.unwrap() else { panic!() };
    assert!(reason.contains("no connector idp"), "{reason}");

    // A choice that is none ends nothing: the browser may choose again.
    let mut chosen = Attempt::begin(cluster.anonymous(), None, true).await.unwrap();
    let open = BrowserAction::Open { id: chosen.begun.id.clone(), connector: Some("idp".into()) };
    assert_eq!(kind(chosen.step(open).await), ApiErrorKind::NotFound);
    assert_eq!(chosen.poll().await.unwrap(), LoginProgress::Pending);
}

#[tokio::test]
async fn who_waits_is_told_that_a_second_factor_is_missing() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let document = json!({
        "kind": "cluster_auth_preference", "version": "v2", "metadata": { "name": "cluster-auth-preference" },
        "spec": { "second_factor": "on" },
    });
    cluster.admin().put_resource(serde_json::from_value(document).unwrap(), false).await.unwrap();
    let Err((refused, attempt)) = proven_by_password(&cluster).await else { panic!("nobody gets in without") };
    assert_eq!(refused.kind, ApiErrorKind::Denied);
    let LoginProgress::Refused { reason } = attempt.poll().await.unwrap() else { panic!() };
    assert_eq!(reason, refused.message);
    assert_eq!(cluster.events("user.login").await.len(), 1, "it is on record once");
}

#[tokio::test]
async fn each_opening_of_the_page_lets_the_cookie_last_as_long_as_the_login() {
    let (cluster, _) = started(json!({})).await;
    let mut attempt = begin(&cluster).await;
    attempt.open().await.unwrap();
    let step = BrowserAction::Open { id: attempt.begun.id.clone(), connector: None };
    let step = BrowserStep { step, browser: attempt.browser.clone(), origin: ORIGIN.into(), client_addr: None };
    let again = attempt.api.browser_step(step).await.unwrap();
    assert!(again.set_browser.is_some() && again.set_browser == attempt.browser);
}

/// A provider that holds back the first exchange of a code until it may go on.
struct Slow {
    idp: Idp,
    held: Mutex<bool>,
    arrived: Arc<Notify>,
    go_on: Arc<Notify>,
}

#[async_trait]
impl Fetcher for Slow {
    async fn fetch(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, FetchError> {
        let first = request.uri().path() == "/token" && !std::mem::replace(&mut *self.held.lock().unwrap(), true);
        if first {
            self.arrived.notify_one();
            self.go_on.notified().await;
            return Err(FetchError("it took too long".into()));
        }
        self.idp.fetch(request).await
    }
}

#[tokio::test]
async fn a_tab_that_fails_late_does_not_end_what_another_tab_has_proven() {
    let (idp, arrived, go_on) = (Idp::new(), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = Slow { idp: idp.clone(), held: Mutex::new(false), arrived: arrived.clone(), go_on: go_on.clone() };
    let cluster = cluster_with(Arc::new(slow)).await;
    cluster.admin().put_resource(connector("idp", json!({})), false).await.unwrap();
    let mut attempt = begin(&cluster).await;
    let first = idp.authorize(&attempt.open().await.unwrap());
    let second = idp.authorize(&attempt.open().await.unwrap());
    let callback = |params: BTreeMap<String, String>| BrowserStep {
        step: BrowserAction::Callback { connector: "idp".into(), params },
        browser: attempt.browser.clone(),
        origin: ORIGIN.into(),
        client_addr: None,
    };
    let (api, late) = (attempt.api.clone(), callback(first));
    let late = tokio::spawn(async move { api.browser_step(late).await });
    arrived.notified().await;
    attempt.api.browser_step(callback(second)).await.unwrap();
    go_on.notify_one();
    assert_eq!(kind(late.await.unwrap()), ApiErrorKind::Denied);
    assert!(attempt.finish().await.is_ok());
    let failed = |event: &remoteler_core::AuditEvent| matches!(event.kind, AuditKind::UserLogin { success: false, .. });
    assert!(!cluster.events("user.login").await.iter().any(failed), "the login did not fail");
}

#[tokio::test]
async fn who_shows_a_grant_a_second_time_gets_nothing_and_is_on_record() {
    let (cluster, idp) = started(json!({})).await;
    let mut attempt = begin(&cluster).await;
    attempt.prove(&idp).await.unwrap();
    let BrowserView::Deliver { answer: Some(answer), .. } = attempt.decide(true).await.unwrap() else { panic!() };
    let (grant, follow) = attempt.open_answer(&answer);
    assert_eq!(kind(attempt.redeem(&Secret::new("0".repeat(64)), &follow).await), ApiErrorKind::NotFound);
    attempt.redeem(&grant, &follow).await.unwrap();
    assert_eq!(kind(attempt.redeem(&grant, &follow).await), ApiErrorKind::NotFound);
    let tried = cluster.events("auth").await;
    let redeemed =
        |kind: &AuditKind| matches!(kind, AuditKind::AuthAttempt { error, .. } if error.contains("redeemed already"));
    assert_eq!(tried.iter().filter(|event| redeemed(&event.kind)).count(), 2, "{tried:?}");
    let log = serde_json::to_string(&cluster.admin().events(Default::default()).await.unwrap()).unwrap();
    assert!(!log.contains(grant.reveal())); // I76
}
