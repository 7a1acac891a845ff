//! Second factors of people who log in by an identity provider: what stands for the password that they do not have here, at the terminal and on the account page.

use std::{sync::Arc, time::Duration};

use remoteler_auth::Caller;
use remoteler_core::{
    Account, AccountWish, ApiError, ApiErrorKind, AuthApi, BrowserAction, BrowserAnswer, BrowserStep, BrowserView,
    Clock, FactorRemoval, FreshProof, NewFactor, Secret, SessionId, SessionProofRequest, SessionPurpose, SystemRole,
    UserName,
};
use serde_json::json;

use crate::{
    identity_provider::{Attempt, ISSUER, Idp, ORIGIN, cluster_with},
    mfa::app,
    support::{Cluster, PASSWORD, kind},
};

const ANN: &str = "ann@example.com";

struct World {
    cluster: Cluster,
    idp: Idp,
}

impl World {
    async fn new() -> Self {
        let idp = Idp::new();
        let cluster = cluster_with(Arc::new(idp.clone())).await;
        let connector = json!({
            "kind": "oidc", "version": "v3", "metadata": { "name": "idp" },
            "spec": {
                "issuer_url": ISSUER, "client_id": "remoteler", "client_secret": "canary-secret",
                "redirect_url": "https://proxy.example.com/web/callback/idp",
                "claims_to_roles": [{ "claim": "groups", "value": "ssh-users", "roles": ["access"] }],
            },
        });
        cluster.admin().put_resource(serde_json::from_value(connector).unwrap(), false).await.unwrap();
        Self { cluster, idp }
    }

    fn later(&self, seconds: u64) {
        self.cluster.clock.advance(Duration::from_secs(seconds));
    }

    /// The provider's clock goes with ours.
    fn on_time(&self) {
        let now = self.cluster.clock.now().unix_seconds();
        let times = [("iat", json!(now)), ("exp", json!(now + 300))];
        self.idp.change(|provider| provider.wrong.extend(times.map(|(name, time)| (name.to_owned(), time))));
    }

    /// Ann as she is at a terminal after a login.
    async fn terminal(&self) -> Arc<dyn AuthApi> {
        self.on_time();
        let mut attempt = Attempt::begin(self.cluster.anonymous(), Some("idp"), true).await.unwrap();
        attempt.prove(&self.idp).await.unwrap();
        let certs = attempt.finish().await.unwrap();
        let user = self.cluster.verify(&certs.tls_certificate).user().unwrap();
        self.cluster.service.as_caller(Caller::User { user, addr: None })
    }

    fn code(&self, secret: &Secret) -> Secret {
        app(secret, self.cluster.clock.now())
    }

    async fn add(&self, api: &Arc<dyn AuthApi>, name: &str, proof: FreshProof) -> Result<Secret, ApiError> {
        let secret = api.offer_factor(proof).await?.secret;
        api.add_factor(NewFactor { name: name.into(), code: self.code(&secret) }).await?;
        Ok(secret)
    }

    /// Ann as she is in a browser after a login.
    async fn browser(&self, cookie: char) -> Web<'_> {
        self.on_time();
        let browser = Secret::new(cookie.to_string().repeat(64));
        let mut web = Web { world: self, browser, session: None };
        let BrowserView::Redirect { to } = web.wish(AccountWish::LogIn).await.unwrap() else { panic!() };
        let id = to.rsplit('/').next().unwrap().to_owned();
        let open = BrowserAction::Open { id, connector: Some("idp".into()) };
        let BrowserView::Redirect { to } = web.step(open).await.unwrap() else { panic!() };
        let callback = BrowserAction::Callback { connector: "idp".into(), params: self.idp.authorize(&to) };
        let BrowserView::SessionBegun { session } = web.step(callback).await.unwrap() else { panic!() };
        web.session = Some(session);
        web
    }
}

struct Web<'a> {
    world: &'a World,
    browser: Secret,
    session: Option<Secret>,
}

impl Web<'_> {
    async fn step(&self, step: BrowserAction) -> Result<BrowserView, ApiError> {
        let browser = Some(self.browser.clone());
        let step = BrowserStep { step, browser, origin: ORIGIN.into(), client_addr: None };
        self.world.cluster.anonymous().browser_step(step).await.map(|BrowserAnswer { view, .. }| view)
    }

    async fn wish(&self, wish: AccountWish) -> Result<BrowserView, ApiError> {
        self.step(BrowserAction::Account { session: self.session.clone(), agent: "Mozilla/5.0".into(), wish }).await
    }

    async fn shown(&self) -> Account {
        let shown = self.wish(AccountWish::Show).await.unwrap();
        let BrowserView::Account(account) = shown else { panic!("{shown:?}") };
        *account
    }

    async fn prove(&self, code: Secret) -> Result<BrowserView, ApiError> {
        self.wish(AccountWish::ProveByCode { code }).await
    }
}

fn nothing() -> FreshProof {
    FreshProof { password: None, code: None }
}

fn with(code: Secret) -> FreshProof {
    FreshProof { password: None, code: Some(code) }
}

#[tokio::test]
async fn a_login_of_a_moment_ago_stands_for_the_password_and_a_factor_that_is_there_is_asked_for_besides() {
    // I48
    let world = World::new().await;
    let ann = world.terminal().await;
    world.later(301);
    let stale = ann.offer_factor(nothing()).await.unwrap_err();
    assert_eq!(stale.kind, ApiErrorKind::FreshLoginNeeded);
    assert!(stale.message.contains("5 minutes") && stale.message.contains("connector idp"), "{stale}");
    let guessed = FreshProof { password: Some(Secret::new(PASSWORD)), code: None };
    assert_eq!(kind(ann.offer_factor(guessed).await), ApiErrorKind::FreshLoginNeeded);

    let ann = world.terminal().await;
    world.later(299);
    let phone = world.add(&ann, "phone", nothing()).await.unwrap();
    world.later(60);
    let ann = world.terminal().await;
    assert_eq!(kind(world.add(&ann, "tablet", nothing()).await), ApiErrorKind::SecondFactorNeeded);
    assert_eq!(kind(world.add(&ann, "tablet", with(Secret::new("000000"))).await), ApiErrorKind::Unauthenticated);
    let removal = |proof| FactorRemoval { name: "phone".into(), proof };
    assert_eq!(kind(ann.remove_factor(removal(nothing())).await), ApiErrorKind::SecondFactorNeeded);
    world.add(&ann, "tablet", with(world.code(&phone))).await.unwrap();
    world.later(60);
    ann.remove_factor(removal(with(world.code(&phone)))).await.unwrap();
    let names: Vec<String> = ann.factors().await.unwrap().into_iter().map(|factor| factor.name).collect();
    assert_eq!(names, ["tablet"]);
}

#[tokio::test]
async fn whose_factor_it_is_begins_sessions_that_want_one() {
    // I49
    let world = World::new().await;
    let ann = world.terminal().await;
    let phone = world.add(&ann, "phone", nothing()).await.unwrap();
    world.later(60);
    let joined = world.cluster.join("n1", &[SystemRole::Node], &[]).await;
    let purpose =
        SessionPurpose::Ssh { user: UserName::new(ANN).unwrap(), login: "root".parse().unwrap(), remote: None };
    let session = SessionId::from_uuid(remoteler_core::random_uuid(&remoteler_core::OsEntropy));
    let request = SessionProofRequest { session, purpose, code: Some(world.code(&phone)) };
    let proven = world.cluster.as_host(&joined).prove_session(request).await.unwrap();
    assert_eq!(proven.proof.user().as_str(), ANN);
}

#[tokio::test]
async fn a_certificate_that_was_signed_for_a_file_is_no_login() {
    let world = World::new().await;
    world.terminal().await;
    let keys = crate::support::Keys::new();
    let request = json!({
        "purpose": "user", "user": ANN, "ssh_public_key": keys.ssh, "tls_public_key": keys.tls, "ttl_seconds": 600,
    });
    let signed = world.cluster.admin().sign_certificates(serde_json::from_value(request).unwrap()).await.unwrap();
    let user = world.cluster.verify(signed.tls_certificate.as_ref().unwrap()).user().unwrap();
    let file = world.cluster.service.as_caller(Caller::User { user, addr: None });
    assert_eq!(kind(file.offer_factor(nothing()).await), ApiErrorKind::FreshLoginNeeded);
}

#[tokio::test]
async fn a_local_user_is_asked_for_the_password_and_nothing_counts_as_wrong_before_it_is_given() {
    let world = World::new().await;
    world.cluster.user("bob", &["access"], &["root"]).await;
    let bob = world.cluster.as_user("bob").await;
    for _ in 0..20 {
        assert_eq!(kind(bob.offer_factor(nothing()).await), ApiErrorKind::PasswordNeeded);
    }
    let proof = FreshProof { password: Some(Secret::new(PASSWORD)), code: None };
    world.add(&bob, "phone", proof).await.unwrap();
}

#[tokio::test]
async fn on_the_account_page_a_factor_that_is_there_is_shown_before_others_change() {
    // I48
    let world = World::new().await;
    let web = world.browser('a').await;
    let own = web.shown().await;
    assert!(own.fresh && !own.proof_needed && own.keys_possible);
    let BrowserView::TotpOffer(offered) = web.wish(AccountWish::OfferTotp).await.unwrap() else { panic!() };
    let phone = offered.secret;
    let add = AccountWish::AddTotp { name: "phone".into(), code: world.code(&phone) };
    let BrowserView::Codes(added) = web.wish(add).await.unwrap() else { panic!() };
    let recovery = added.recovery_codes[0].clone();
    world.later(60);

    // A new login at the provider proves nothing of the factor.
    let (web, other) = (world.browser('a').await, world.browser('b').await);
    assert!(web.shown().await.proof_needed);
    let refused = || {
        [
            AccountWish::OfferTotp,
            AccountWish::OfferKey,
            AccountWish::RemoveFactor { name: "phone".into() },
            AccountWish::AddTotp { name: "x".into(), code: Secret::new("123456") },
        ]
    };
    for wish in refused() {
        let answer = web.wish(wish).await.unwrap_err();
        assert_eq!(answer.kind, ApiErrorKind::Denied);
        assert!(answer.message.contains("second factors first"), "{answer}");
    }
    assert_eq!(kind(web.prove(Secret::new("000000")).await), ApiErrorKind::Unauthenticated);
    assert_eq!(kind(web.wish(AccountWish::AskKey).await), ApiErrorKind::BadRequest, "there is no key");
    let code = world.code(&phone);
    let BrowserView::Account(own) = web.prove(code.clone()).await.unwrap() else { panic!() };
    assert!(!own.proof_needed);
    assert_eq!(kind(other.prove(code).await), ApiErrorKind::Unauthenticated, "each code counts once");
    assert!(other.shown().await.proof_needed, "it was shown in one browser");
    let seen: Vec<bool> = world
        .cluster
        .events("mfa_auth_challenge.validate")
        .await
        .into_iter()
        .map(|event| event.code == "T1016I")
        .collect();
    assert_eq!(seen, [false, true, false]);
    assert!(matches!(web.wish(AccountWish::OfferTotp).await.unwrap(), BrowserView::TotpOffer(_)));

    // The one that was lost is removed by a recovery code, once.
    let BrowserView::Account(_) = other.prove(recovery.clone()).await.unwrap() else { panic!() };
    other.wish(AccountWish::RemoveFactor { name: "phone".into() }).await.unwrap();
    assert_eq!(kind(other.prove(recovery).await), ApiErrorKind::Unauthenticated);
    assert!(other.shown().await.factors.is_empty() && !other.shown().await.proof_needed);
    world.later(301);
    assert!(!other.shown().await.fresh);
    assert_eq!(kind(other.wish(AccountWish::OfferTotp).await), ApiErrorKind::Denied);
}

#[tokio::test]
async fn where_local_users_log_in_without_factors_theirs_are_still_not_given_away_for_a_password_or_a_login() {
    let world = World::new().await;
    let web = world.browser('a').await;
    let preference = json!({
        "kind": "cluster_auth_preference", "version": "v2", "metadata": { "name": "cluster-auth-preference" },
        "spec": { "second_factor": "off" },
    });
    world.cluster.admin().put_resource(serde_json::from_value(preference).unwrap(), true).await.unwrap();
    // Sessions may want one of who comes from a provider.
    let BrowserView::TotpOffer(offered) = web.wish(AccountWish::OfferTotp).await.unwrap() else { panic!() };
    let add = AccountWish::AddTotp { name: "phone".into(), code: world.code(&offered.secret) };
    web.wish(add).await.unwrap();
    let remove = AccountWish::RemoveFactor { name: "phone".into() };
    assert_eq!(kind(web.wish(remove).await), ApiErrorKind::Denied);
}

#[tokio::test]
async fn guesses_at_codes_on_the_account_page_are_stopped() {
    // I48
    let world = World::new().await;
    let ann = world.terminal().await;
    let phone = world.add(&ann, "phone", nothing()).await.unwrap();
    world.later(60);
    let web = world.browser('a').await;
    let mut refused = 0;
    while kind(web.prove(Secret::new("000000")).await) == ApiErrorKind::Unauthenticated {
        refused += 1;
        assert!(refused <= 10, "{refused} guesses");
    }
    assert_eq!(kind(web.prove(world.code(&phone)).await), ApiErrorKind::RateLimited);
}
