//! Login through a browser by OpenID Connect, and everything that must not work on the way.

use std::sync::Arc;

use remoteler_core::{
    ApiErrorKind, AuditKind, BrowserAction, BrowserView, EventQuery, LoginProgress, Resource, ResourceKind, RoleName,
    Secret, UserCerts, UserName,
};
use serde_json::{Value, json};

use crate::{
    identity_provider::{Attempt, ISSUER, Idp, START, SigningKey, cluster_with},
    support::{Cluster, kind},
};

pub(crate) fn connector(name: &str, spec: Value) -> Resource {
    let mut fields = json!({
        "issuer_url": ISSUER,
        "client_id": "remoteler",
        "client_secret": "canary-secret",
        "redirect_url": format!("https://proxy.example.com/web/callback/{name}"),
        "claims_to_roles": [
            { "claim": "groups", "value": "ssh-users", "roles": ["access"] },
            { "claim": "groups", "value": "admins", "roles": ["editor"] },
        ],
    });
    fields.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({ "kind": "oidc", "version": "v3", "metadata": { "name": name }, "spec": fields }))
        .unwrap()
}

pub(crate) async fn started() -> (Cluster, Idp) {
    let idp = Idp::new();
    let cluster = cluster_with(Arc::new(idp.clone())).await;
    assert_eq!(remoteler_core::Clock::now(&*cluster.clock).unix_seconds(), START);
    cluster.admin().put_resource(connector("idp", json!({})), false).await.unwrap();
    (cluster, idp)
}

pub(crate) async fn begin(cluster: &Cluster) -> Attempt {
    Attempt::begin(cluster.anonymous(), Some("idp"), true).await.unwrap()
}

pub(crate) async fn log_in(cluster: &Cluster, idp: &Idp) -> UserCerts {
    let mut attempt = begin(cluster).await;
    attempt.prove(idp).await.unwrap();
    attempt.finish().await.unwrap()
}

fn role(name: &str) -> RoleName {
    RoleName::new(name).unwrap()
}

/// Reasons of failed logins and refused attempts, oldest first.
pub(crate) async fn refusals(cluster: &Cluster) -> Vec<String> {
    let events = cluster.admin().events(EventQuery { limit: Some(1000), ..EventQuery::default() }).await.unwrap();
    let reason = |kind: AuditKind| {
        if let AuditKind::UserLogin { error, .. } = kind {
            return error;
        }
        if let AuditKind::AuthAttempt { error, .. } = kind { Some(error) } else { None }
    };
    events.into_iter().filter_map(|event| reason(event.kind)).collect()
}

#[tokio::test]
async fn who_a_provider_vouches_for_gets_certificates_after_confirming_and_once() {
    // I36, I41
    let (cluster, idp) = started().await;
    let mut attempt = begin(&cluster).await;
    let to = attempt.prove(&idp).await.unwrap();
    assert_eq!(to, BrowserView::Redirect { to: format!("/web/login/{}/confirm", attempt.begun.id) });
    let BrowserView::Confirm { user, host, address, .. } = attempt.review().await.unwrap() else { panic!() };
    assert_eq!((user.as_str(), host.as_str(), address.as_str()), ("ann@example.com", "laptop", "192.0.2.1:40000"));
    assert_eq!(attempt.poll().await.unwrap(), LoginProgress::Pending);
    let BrowserView::Deliver { redirect, answer } = attempt.decide(true).await.unwrap() else { panic!() };
    assert_eq!(redirect.to_string(), "http://127.0.0.1:4711/callback");
    // The listener alone gets the answer; who polls does not.
    assert!(!matches!(attempt.poll().await.unwrap(), LoginProgress::Ready { .. }));
    let (grant, follow) = attempt.open_answer(&answer.unwrap());
    assert_eq!(kind(attempt.redeem(&Secret::new("guess"), &follow).await), ApiErrorKind::NotFound);
    let certs = attempt.redeem(&grant, &follow).await.unwrap();
    let identity = cluster.verify(&certs.tls_certificate).user().unwrap();
    assert_eq!(identity.identity().user.as_str(), "ann@example.com");
    assert!(identity.identity().roles.contains(&role("access")) && identity.identity().roles.len() == 1);
    assert_eq!(identity.identity().traits["groups"], ["ssh-users", "staff"]);
    assert_eq!(kind(attempt.redeem(&grant, &follow).await), ApiErrorKind::NotFound);

    let query = EventQuery { event: Some("user.login".into()), ..EventQuery::default() };
    let events = cluster.admin().events(query).await.unwrap();
    let AuditKind::UserLogin { user, method, success, connector, .. } = &events.last().unwrap().kind else { panic!() };
    assert_eq!((user.as_str(), method.as_str(), *success), ("ann@example.com", "oidc", true));
    assert_eq!(connector.as_deref(), Some("idp"));
    let stored = cluster.admin().users().await.unwrap();
    assert!(stored.iter().any(|user| user.name.as_str() == "ann@example.com" && !user.has_password));
}

#[tokio::test]
async fn a_state_is_taken_once_by_the_browser_that_was_sent_away_at_its_own_callback_and_in_time() {
    // I36, I37
    let (cluster, idp) = started().await;
    cluster.admin().put_resource(connector("other", json!({})), false).await.unwrap();
    let begin = async || Attempt::begin(cluster.anonymous(), Some("idp"), true).await.unwrap();

    let mut attempt = begin().await;
    let params = idp.authorize(&attempt.open().await.unwrap());
    attempt.come_back("idp", params.clone()).await.unwrap();
    assert_eq!(kind(attempt.come_back("idp", params).await), ApiErrorKind::Denied);
    assert!(attempt.finish().await.is_ok(), "a replay does not harm who was first");

    let mut victim = begin().await;
    let params = idp.authorize(&victim.open().await.unwrap());
    let mut attacker = begin().await;
    attacker.open().await.unwrap();
    assert_eq!(kind(attacker.come_back("idp", params.clone()).await), ApiErrorKind::Denied);
    // It was taken by the attempt: a state is never shown twice.
    assert_eq!(kind(victim.come_back("idp", params).await), ApiErrorKind::Denied);

    // Login CSRF: the attacker's answer in the browser of somebody who never began.
    let mut attacker = begin().await;
    let params = idp.authorize(&attacker.open().await.unwrap());
    attacker.browser = None;
    assert_eq!(kind(attacker.come_back("idp", params).await), ApiErrorKind::Denied);

    let mut mixed = begin().await;
    let params = idp.authorize(&mixed.open().await.unwrap());
    assert_eq!(kind(mixed.come_back("other", params).await), ApiErrorKind::Denied);

    let mut late = begin().await;
    let params = idp.authorize(&late.open().await.unwrap());
    cluster.clock.advance(std::time::Duration::from_secs(600));
    assert!(late.come_back("idp", params).await.is_err());
    assert_eq!(kind(late.poll().await), ApiErrorKind::NotFound);

    let said = refusals(&cluster).await;
    for expected in ["unknown, was used or has expired", "opened in another browser", "callback of another connector"] {
        assert!(said.iter().any(|said| said.contains(expected)), "{expected}: {said:?}");
    }
}

#[tokio::test]
async fn the_answer_of_somebody_elses_login_logs_nobody_in_who_began_none_and_is_on_record() {
    // I36: login CSRF.
    let (cluster, idp) = started().await;
    let mut attacker = begin(&cluster).await;
    let params = idp.authorize(&attacker.open().await.unwrap());
    assert_eq!(refusals(&cluster).await, [] as [String; 0]);
    attacker.browser = None;
    let victim = attacker.come_back("idp", params).await.unwrap_err();
    assert!(victim.message.contains("another browser"), "{victim}");
    assert_eq!(attacker.browser, None, "the victim's browser is in no login");
    let [said] = refusals(&cluster).await.try_into().unwrap();
    assert!(said.contains("opened in another browser"), "{said}");
    assert_eq!(idp.asked("/token"), 0, "the code was not even looked at");
    assert!(cluster.admin().users().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_code_that_was_used_opens_nothing_in_another_login_and_is_on_record() {
    // I36, I37
    let (cluster, idp) = started().await;
    let mut first = begin(&cluster).await;
    let used = idp.authorize(&first.open().await.unwrap());
    first.come_back("idp", used.clone()).await.unwrap();
    let mut second = begin(&cluster).await;
    let mut params = idp.authorize(&second.open().await.unwrap());
    params.insert("code".into(), used["code"].clone());
    assert_eq!(kind(second.come_back("idp", params).await), ApiErrorKind::Denied);
    let said = refusals(&cluster).await;
    assert!(said.iter().any(|said| said.contains("status 400")), "{said:?}");
    assert!(first.finish().await.is_ok(), "who was first is not harmed");
}

#[tokio::test]
async fn where_a_login_at_the_provider_ends_is_said_by_the_provider_and_goes_nowhere_else() {
    // I40, I54
    let (cluster, idp) = started().await;
    let certs = log_in(&cluster, &idp).await;
    assert_eq!(certs.logout_connector.as_deref(), Some("idp"));
    let mut browser = begin(&cluster).await;
    let logout = |name: &str| BrowserAction::Logout { connector: name.into() };
    assert_eq!(kind(browser.step(logout("idp")).await), ApiErrorKind::NotFound);
    for (end, leads) in
        [("https://idp.example.com/end", true), ("http://idp.example.com/end", false), ("javascript:x", false)]
    {
        cluster.clock.advance(std::time::Duration::from_secs(301));
        idp.change(|provider| {
            provider.metadata.insert("end_session_endpoint".into(), json!(end));
        });
        let view = browser.step(logout("idp")).await;
        if leads {
            let to = "https://idp.example.com/end?client_id=remoteler".to_owned();
            assert_eq!(view.unwrap(), BrowserView::Redirect { to });
        } else {
            assert_eq!(kind(view), ApiErrorKind::NotFound, "{end}");
        }
    }
    assert_eq!(kind(browser.step(logout("nobody")).await), ApiErrorKind::NotFound);
}

#[tokio::test]
async fn a_login_that_one_browser_opened_is_no_other_browsers_business() {
    // I36
    let (cluster, idp) = started().await;
    let mut attempt = begin(&cluster).await;
    attempt.prove(&idp).await.unwrap();
    let own = attempt.browser.take();
    for foreign in [None, Some(Secret::new("0".repeat(64))), Some(Secret::new("x"))] {
        attempt.browser = foreign;
        assert_eq!(kind(attempt.review().await), ApiErrorKind::Denied);
        let id = attempt.begun.id.clone();
        let decided = attempt.step(BrowserAction::Decide { id, token: Secret::new("t"), approve: true }).await;
        assert_eq!(kind(decided), ApiErrorKind::Denied);
        let opened = attempt.step(BrowserAction::Open { id: attempt.begun.id.clone(), connector: None }).await;
        assert_eq!(kind(opened), ApiErrorKind::Denied);
    }
    attempt.browser = own;
    let id = attempt.begun.id.clone();
    let forged = attempt.step(BrowserAction::Decide { id, token: Secret::new("t"), approve: true }).await;
    assert_eq!(kind(forged), ApiErrorKind::Denied); // I52
    assert!(attempt.finish().await.is_ok());
}

#[tokio::test]
async fn a_token_that_is_wrong_in_anything_ends_the_login_and_tells_why_only_in_the_audit_log() {
    // I37, I38
    let (cluster, idp) = started().await;
    let wrongs = [
        json!({ "iss": "https://idp.example.com/" }),
        json!({ "aud": "another" }),
        json!({ "aud": ["remoteler", "another"] }),
        json!({ "azp": "another" }),
        json!({ "nonce": "another" }),
        json!({ "nonce": null }),
        json!({ "exp": START - 100 }),
        json!({ "exp": "never" }),
        json!({ "iat": START + 100 }),
        json!({ "iat": null }),
        json!({ "sub": null }),
        json!({ "email_verified": "true" }),
        json!({ "email_verified": null }),
        json!({ "email": null }),
    ];
    for wrong in wrongs {
        idp.change(|provider| provider.wrong = wrong.as_object().unwrap().clone());
        let mut attempt = begin(&cluster).await;
        let refused = attempt.prove(&idp).await.unwrap_err();
        assert_eq!(refused.kind, ApiErrorKind::Denied, "{wrong}");
        let LoginProgress::Refused { reason } = attempt.poll().await.unwrap() else { panic!("{wrong}") };
        assert_eq!(reason, refused.message);
        assert_eq!(kind(attempt.review().await), ApiErrorKind::NotFound);
    }
    idp.change(|provider| provider.wrong.clear());
    for header in [json!({ "alg": "none" }), json!({ "alg": "HS256" }), json!({ "alg": "ES256", "crit": ["x"] })] {
        idp.change(|provider| provider.header = Some(header.clone()));
        assert!(begin(&cluster).await.prove(&idp).await.is_err(), "{header}");
    }
    idp.change(|provider| provider.header = None);
    for (name, value) in [("iss", Some("https://evil.example")), ("iss", None), ("code", None), ("id_token", Some("x"))]
    {
        let mut attempt = begin(&cluster).await;
        let mut params = idp.authorize(&attempt.open().await.unwrap());
        match value {
            Some(value) => drop(params.insert(name.into(), value.into())),
            None => drop(params.remove(name)),
        }
        assert_eq!(kind(attempt.come_back("idp", params).await), ApiErrorKind::Denied, "{name} {value:?}");
    }
    let said = refusals(&cluster).await;
    assert!(said.iter().any(|said| said.contains("aud is not us")), "{said:?}");
    assert!(!format!("{said:?}").contains("canary"), "{said:?}"); // I76
    assert!(cluster.admin().users().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_provider_that_is_away_or_another_one_than_it_should_be_is_not_echoed() {
    // I37, I43
    let (cluster, idp) = started().await;
    idp.change(|provider| provider.down = true);
    let mut attempt = begin(&cluster).await;
    let said = attempt.open().await.unwrap_err().message;
    assert!(!said.contains("10.0.0.7") && said.contains("identity provider"), "{said}");
    assert!(refusals(&cluster).await.iter().any(|said| said.contains("10.0.0.7")));
    idp.change(|provider| provider.down = false);
    for (field, value) in [
        ("issuer", json!("https://evil.example")),
        ("token_endpoint", json!("http://idp.example.com/token")),
        ("jwks_uri", json!("file:///etc/passwd")),
        ("authorization_endpoint", json!("javascript:alert(1)")),
        ("response_types_supported", json!(["id_token"])),
    ] {
        idp.change(|provider| provider.metadata = [(field.to_owned(), value.clone())].into_iter().collect());
        assert!(begin(&cluster).await.open().await.is_err(), "{field} {value}");
    }
    idp.change(|provider| provider.metadata.clear());
    log_in(&cluster, &idp).await;
}

#[tokio::test]
async fn an_account_is_its_connector_issuer_and_subject_and_no_name_is_given_out_twice() {
    // I39
    let (cluster, idp) = started().await;
    cluster.user("bob@example.com", &["access"], &["root"]).await;
    idp.change(|provider| {
        provider.wrong = json!({ "email": "bob@example.com", "sub": "b" }).as_object().unwrap().clone()
    });
    let refused = begin(&cluster).await.prove(&idp).await.unwrap_err();
    assert!(refused.message.contains("belongs to a local user"), "{refused}");

    idp.change(|provider| provider.wrong.clear());
    log_in(&cluster, &idp).await;
    idp.change(|provider| provider.wrong = json!({ "sub": "somebody-else" }).as_object().unwrap().clone());
    let refused = begin(&cluster).await.prove(&idp).await.unwrap_err();
    assert!(refused.message.contains("another account"), "{refused}");

    // The same subject under a new address is the same user.
    idp.change(|provider| provider.wrong = json!({ "email": "new@example.com" }).as_object().unwrap().clone());
    let certs = log_in(&cluster, &idp).await;
    let user = cluster.verify(&certs.tls_certificate).user().unwrap();
    assert_eq!(user.identity().user.as_str(), "ann@example.com");

    // Through another connector it is somebody else.
    cluster.admin().put_resource(connector("second", json!({})), false).await.unwrap();
    idp.change(|provider| provider.wrong.clear());
    let mut attempt = Attempt::begin(cluster.anonymous(), Some("second"), true).await.unwrap();
    let params = idp.authorize(&attempt.open().await.unwrap());
    let refused = attempt.come_back("second", params).await.unwrap_err();
    assert!(refused.message.contains("another account, of connector idp"), "{refused}");

    // The same subject of another issuer is somebody else, also under the same connector.
    let other = format!("{ISSUER}/other");
    cluster.admin().put_resource(connector("idp", json!({ "issuer_url": other })), true).await.unwrap();
    idp.change(|provider| {
        provider.metadata.insert("issuer".into(), json!(other));
        provider.wrong.insert("iss".into(), json!(other));
    });
    let mut attempt = begin(&cluster).await;
    let mut params = idp.authorize(&attempt.open().await.unwrap());
    params.insert("iss".into(), other);
    let refused = attempt.come_back("idp", params).await.unwrap_err();
    assert!(refused.message.contains("another account"), "{refused}");
    cluster.admin().put_resource(connector("idp", json!({})), true).await.unwrap();
    idp.change(|provider| (provider.metadata, provider.wrong) = Default::default());

    let name = UserName::new("ann@example.com").unwrap();
    let admin = cluster.admin();
    assert_eq!(kind(admin.set_password(name.clone(), Secret::new("a good password")).await), ApiErrorKind::Conflict);
    assert_eq!(kind(admin.reset_user(name.clone()).await), ApiErrorKind::Conflict);
    // Who was removed begins anew.
    admin.delete_user(name).await.unwrap();
    log_in(&cluster, &idp).await;
}

#[tokio::test]
async fn roles_are_those_of_the_last_login_and_who_has_none_or_is_shut_out_gets_nothing() {
    // I42
    let (cluster, idp) = started().await;
    idp.change(|provider| provider.claims["groups"] = json!(["ssh-users", "admins"]));
    assert_eq!(log_in(&cluster, &idp).await.roles.len(), 2);
    idp.change(|provider| provider.claims["groups"] = json!(["admins"]));
    let roles = log_in(&cluster, &idp).await.roles;
    assert_eq!(roles, [role("editor")].into());
    idp.change(|provider| provider.claims["groups"] = json!(["guests"]));
    let refused = begin(&cluster).await.prove(&idp).await.unwrap_err();
    assert!(refused.message.contains("gives ann@example.com no role"), "{refused}");

    // Disabled after it was confirmed and before the certificates were fetched: denied all the same.
    idp.change(|provider| provider.claims["groups"] = json!(["ssh-users"]));
    let mut attempt = begin(&cluster).await;
    attempt.prove(&idp).await.unwrap();
    let disabled = connector("idp", json!({ "disabled": true, "client_secret": null }));
    cluster.admin().put_resource(disabled, true).await.unwrap();
    assert_eq!(kind(attempt.finish().await), ApiErrorKind::Denied);
    let begun = Attempt::begin(cluster.anonymous(), Some("idp"), true).await;
    assert_eq!(begun.err().map(|cause| cause.kind), Some(ApiErrorKind::Denied));
    assert!(cluster.anonymous().login_methods().await.unwrap().connectors.is_empty());
    // Without a secret of its own the document kept the stored one.
    cluster.admin().put_resource(connector("idp", json!({ "client_secret": null })), true).await.unwrap();
    log_in(&cluster, &idp).await;
}

#[tokio::test]
async fn on_another_machine_the_code_is_typed_and_the_client_polls() {
    let (cluster, idp) = started().await;
    let mut attempt = Attempt::begin(cluster.anonymous(), None, false).await.unwrap();
    assert_eq!(attempt.poll().await.unwrap(), LoginProgress::Pending);
    assert_eq!(attempt.poll().await.unwrap(), LoginProgress::SlowDown);
    let typed = attempt.begun.code.to_lowercase().replace('-', " ");
    let page = attempt.step(BrowserAction::EnterCode { code: typed }).await.unwrap();
    assert_eq!(page, BrowserView::Redirect { to: format!("/web/login/{}", attempt.begun.id) });
    attempt.prove(&idp).await.unwrap();
    assert!(matches!(attempt.decide(true).await.unwrap(), BrowserView::Finished { success: true, .. }));
    let LoginProgress::Ready { answer } = attempt.poll().await.unwrap() else { panic!() };
    let (grant, follow) = attempt.open_answer(&answer);
    assert!(attempt.redeem(&grant, &follow).await.is_ok());

    let mut attempt = Attempt::begin(cluster.anonymous(), None, false).await.unwrap();
    for _ in 0..10 {
        let wrong = attempt.step(BrowserAction::EnterCode { code: "BBBB-BBBB".into() }).await;
        assert_eq!(kind(wrong), ApiErrorKind::BadRequest);
    }
    let right = attempt.begun.code.clone();
    assert_eq!(kind(attempt.step(BrowserAction::EnterCode { code: right }).await), ApiErrorKind::RateLimited);
}

#[tokio::test]
async fn a_login_that_is_declined_here_or_there_tells_the_client() {
    let (cluster, idp) = started().await;
    let mut attempt = begin(&cluster).await;
    attempt.prove(&idp).await.unwrap();
    assert!(matches!(attempt.decide(false).await.unwrap(), BrowserView::Deliver { answer: None, .. }));
    let LoginProgress::Refused { reason } = attempt.poll().await.unwrap() else { panic!() };
    assert_eq!(reason, "the login was declined in the browser");

    let mut attempt = begin(&cluster).await;
    let state = idp.authorize(&attempt.open().await.unwrap())["state"].clone();
    let params =
        [("state", state.as_str()), ("iss", ISSUER), ("error", "access_denied"), ("error_description", "\u{1b}[2J")];
    let params = params.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(kind(attempt.come_back("idp", params).await), ApiErrorKind::Denied);
    let LoginProgress::Refused { reason } = attempt.poll().await.unwrap() else { panic!() };
    assert_eq!(reason, "the login was declined at the identity provider");
}

#[tokio::test]
async fn keys_that_were_rotated_are_found_and_unknown_ones_do_not_make_us_ask_each_time() {
    // I26, I38
    let (cluster, idp) = started().await;
    log_in(&cluster, &idp).await;
    idp.change(|provider| provider.key = SigningKey::new("second"));
    log_in(&cluster, &idp).await;
    let asked = idp.asked("/jwks");
    idp.change(|provider| (provider.key, provider.published) = (SigningKey::new("never-published"), false));
    for _ in 0..5 {
        assert!(begin(&cluster).await.prove(&idp).await.is_err());
    }
    assert_eq!(idp.asked("/jwks"), asked);
    cluster.clock.advance(std::time::Duration::from_secs(30));
    assert!(begin(&cluster).await.prove(&idp).await.is_err());
    assert_eq!(idp.asked("/jwks"), asked + 1);
}

#[tokio::test]
async fn userinfo_adds_claims_and_only_of_the_same_subject() {
    let (cluster, idp) = started().await;
    cluster.admin().put_resource(connector("idp", json!({ "userinfo": true })), true).await.unwrap();
    idp.change(|provider| {
        provider.claims["groups"] = json!([]);
        provider.userinfo = json!({ "sub": "subject-1", "teams": ["admins"], "email": "evil@example.com" });
    });
    let mapped =
        json!({ "userinfo": true, "claims_to_roles": [{ "claim": "teams", "value": "admins", "roles": ["editor"] }] });
    cluster.admin().put_resource(connector("idp", mapped), true).await.unwrap();
    let certs = log_in(&cluster, &idp).await;
    assert!(certs.roles.contains(&role("editor")));
    assert_eq!(cluster.verify(&certs.tls_certificate).user().unwrap().identity().user.as_str(), "ann@example.com");
    idp.change(|provider| provider.userinfo["sub"] = json!("subject-2"));
    assert!(begin(&cluster).await.prove(&idp).await.unwrap_err().message.contains("somebody else"));
}

#[tokio::test]
async fn a_test_of_a_connector_shows_what_it_gives_and_makes_nothing() {
    let (cluster, idp) = started().await;
    let draft = json!({ "claims_to_roles": [{ "claim": "groups", "value": "ssh-*", "roles": ["access"] }] });
    assert_eq!(
        kind(cluster.anonymous().test_connector(connector("idp", draft.clone())).await),
        ApiErrorKind::Unauthenticated
    );
    let begun = cluster.admin().test_connector(connector("idp", draft)).await.unwrap();
    let mut attempt = Attempt::of_test(cluster.anonymous(), begun);
    assert!(matches!(attempt.prove(&idp).await.unwrap(), BrowserView::Finished { .. }));
    let LoginProgress::Tested { report } = attempt.poll().await.unwrap() else { panic!() };
    assert_eq!(report.user.as_deref(), Some("ann@example.com"));
    assert_eq!((report.claims["groups"].len(), report.roles.as_slice()), (2, ["access".to_owned()].as_slice()));
    assert_eq!(report.mappings[0].matched.as_deref(), Some("ssh-users"));
    assert!(cluster.admin().users().await.unwrap().is_empty());
    assert_eq!(kind(attempt.review().await), ApiErrorKind::NotFound);
}

#[tokio::test]
async fn the_secret_of_a_connector_is_never_shown_and_a_changed_issuer_does_not_get_it() {
    // I76
    let (cluster, _) = started().await;
    let shown = cluster.admin().resources(ResourceKind::Oidc, None).await.unwrap();
    assert!(!serde_json::to_string(&shown).unwrap().contains("canary-secret") && shown.len() == 1);
    let stolen = json!({ "client_secret": null, "issuer_url": "https://evil.example" });
    assert_eq!(kind(cluster.admin().put_resource(connector("idp", stolen), true).await), ApiErrorKind::BadRequest);
    let unknown = connector("idp", json!({ "claim_to_roles": [] }));
    let refused = cluster.admin().put_resource(unknown, true).await.unwrap_err();
    assert!(refused.message.contains("claim_to_roles"), "{refused}"); // I80
    cluster.admin().delete_resource(ResourceKind::Oidc, "idp".into()).await.unwrap();
    assert!(cluster.admin().resources(ResourceKind::Oidc, None).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_way_in_for_who_says_nothing_is_what_the_cluster_document_says_and_names_a_connector_that_is_there() {
    let (cluster, _idp) = started().await;
    cluster.admin().put_resource(connector("backup", json!({})), false).await.unwrap();
    let preference = |spec: serde_json::Value| -> Resource {
        serde_json::from_value(json!({
            "kind": "cluster_auth_preference", "version": "v2",
            "metadata": { "name": "cluster-auth-preference" }, "spec": spec,
        }))
        .unwrap()
    };
    let methods = || async { cluster.anonymous().login_methods().await.unwrap() };
    let said = methods().await;
    assert_eq!((said.kind.as_str(), said.default_connector), ("local", None));
    for (wrong, why) in [
        (json!({ "type": "local", "connector_name": "idp" }), "type is local"),
        (json!({ "type": "saml", "connector_name": "idp" }), "connector idp is of kind oidc"),
        (json!({ "type": "oidc", "connector_name": "nobody" }), "there is no connector nobody"),
        (json!({ "type": "ldap" }), "unknown variant"),
    ] {
        let cause = cluster.admin().put_resource(preference(wrong), true).await.unwrap_err();
        assert!(cause.message.contains(why), "{}", cause.message);
    }
    let wanted = preference(json!({ "type": "oidc", "connector_name": "idp" }));
    cluster.admin().put_resource(wanted.clone(), false).await.unwrap();
    let said = methods().await;
    assert_eq!((said.kind.as_str(), said.default_connector.as_deref()), ("oidc", Some("idp")));
    // The page goes there by itself.
    let mut attempt = Attempt::begin(cluster.anonymous(), None, true).await.unwrap();
    let open = BrowserAction::Open { id: attempt.begun.id.clone(), connector: None };
    let BrowserView::Redirect { to } = attempt.step(open).await.unwrap() else { panic!("it asks") };
    assert!(to.starts_with("https://"), "{to}");
    // What is gone or disabled since is nobody's way in: people choose.
    cluster.admin().put_resource(connector("idp", json!({ "disabled": true })), true).await.unwrap();
    let said = methods().await;
    assert_eq!((said.kind.as_str(), said.default_connector), ("oidc", None));
    assert_eq!(cluster.events("auth_preference.update").await.len(), 1);
    let Cluster { service, clock, dir, .. } = cluster;
    drop((attempt, service));
    let cluster = Cluster::reopen(dir, clock).await;
    assert_eq!(cluster.anonymous().login_methods().await.unwrap().kind, "oidc");
}

#[tokio::test]
async fn logins_that_are_begun_and_not_finished_are_bounded_for_each_address() {
    // I30, I36
    let (cluster, idp) = started().await;
    for _ in 0..100 {
        begin(&cluster).await;
    }
    let refused = Attempt::begin(cluster.anonymous(), None, true).await.err().unwrap();
    assert_eq!(refused.kind, ApiErrorKind::RateLimited);
    let elsewhere = cluster.at_address([198, 51, 100, 1]);
    for _ in 0..120 {
        let mut attempt = Attempt::begin(Arc::clone(&elsewhere), None, true).await.unwrap();
        attempt.prove(&idp).await.unwrap();
        attempt.finish().await.unwrap();
    }
}
