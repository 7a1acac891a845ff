//! Web applications: who sees which, and sessions of browsers with them, from the launch page to what ends them.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use remoteler_core::{
    ApiErrorKind, AppCertificateRequest, AppCertified, AppCodeRequest, AppRecord, AppSessionOpened, AppTokenRequest,
    AuthApi, Clock, FreshProof, HostCerts, JoinRequest, Labels, NewFactor, NewUser, OnlyAt, Resource, ResourceKind,
    Secret, SessionId, SessionProofRequest, SessionPurpose, SessionTarget, SystemRole, Timestamp, UserName,
    VerifiedUser, VerifyError, X509Purpose, app_state_hash, verify_x509_chain,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};

use crate::{
    account::{Browser, Page, field},
    mfa::app as authenticator,
    support::{Cluster, Keys, PASSWORD, join_request, kind},
};

pub(crate) const PROXY: &str = "proxy.example.com:443";
/// Values of state cookies.
const STATE: &str = "state of the browser";

/// A cluster with the applications `billing` and `wiki`, a proxy, and Ann.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) proxy: Arc<dyn AuthApi>,
    pub(crate) service: Arc<dyn AuthApi>,
    pub(crate) service_certs: HostCerts,
    pub(crate) browser: Browser,
}

pub(crate) fn record(certs: &HostCerts, name: &str) -> AppRecord {
    AppRecord {
        host_id: certs.host_id,
        name: name.parse().unwrap(),
        public_addr: None,
        labels: Labels::from([("app".into(), name.into())]),
        version: "0.1.0".into(),
        addr: None,
        last_seen: Timestamp::default(),
        heartbeat: Default::default(),
    }
}

pub(crate) async fn join_apps(cluster: &Cluster, host: &str, apps: &[&str]) -> HostCerts {
    let token = cluster.token(&[SystemRole::App]).await;
    let apps = apps.iter().map(|name| name.parse().unwrap()).collect();
    let request = JoinRequest { apps, ..join_request(&token, host, &[SystemRole::App], &[]) };
    cluster.anonymous().join(request).await.unwrap()
}

/// The role of this name allows these applications, with these options.
pub(crate) async fn role(cluster: &Cluster, name: &str, allow: Value, options: Value) {
    let document = json!({
        "kind": "role", "version": "v7", "metadata": { "name": name },
        "spec": { "options": options, "allow": allow },
    });
    cluster.admin().put_resource(serde_json::from_value(document).unwrap(), true).await.unwrap();
}

impl World {
    pub(crate) async fn new() -> Self {
        let cluster = Cluster::start().await;
        role(&cluster, "apps", json!({ "app_labels": { "app": ["billing", "wiki"] } }), json!({})).await;
        cluster.user("ann", &["apps"], &[]).await;
        let service_certs = join_apps(&cluster, "apps-1", &["billing", "wiki", "secret"]).await;
        let service = cluster.as_host(&service_certs);
        for name in ["billing", "wiki", "secret"] {
            service.announce_app(record(&service_certs, name)).await.unwrap();
        }
        let joined = cluster.join("p1", &[SystemRole::Proxy], &[]).await;
        let proxy = cluster.as_host(&joined);
        proxy.announce_proxy(PROXY.into()).await.unwrap();
        let browser = Browser::new(&cluster);
        Self { cluster, proxy, service, service_certs, browser }
    }

    /// The services' hearts beat on.
    pub(crate) async fn later(&self, seconds: u64) {
        self.cluster.clock.advance(Duration::from_secs(seconds));
        for name in ["billing", "wiki", "secret"] {
            self.service.announce_app(record(&self.service_certs, name)).await.unwrap();
        }
    }

    /// The code that the launch page gives for an application.
    async fn launch(&self, app: &str) -> Secret {
        code(&self.browser.get(&way(app, "/")).await, app)
    }

    async fn redeem(&self, code: &Secret, state: &str, app: &str) -> Result<AppSessionOpened, ApiErrorKind> {
        let (code, app) = (code.clone(), app.parse().unwrap());
        let state = (!state.is_empty()).then(|| Secret::new(state));
        self.proxy.redeem_app_code(AppCodeRequest { code, state, app }).await.map_err(|cause| cause.kind)
    }

    /// The secret of a new session.
    pub(crate) async fn open(&self, app: &str) -> Secret {
        let code = self.launch(app).await;
        self.redeem(&code, STATE, app).await.unwrap().secret
    }

    pub(crate) async fn certified(&self, secret: &Secret, app: &str) -> Result<AppCertified, ApiErrorKind> {
        self.looked_at(secret, app, true).await
    }

    pub(crate) async fn looked_at(
        &self,
        secret: &Secret,
        app: &str,
        in_use: bool,
    ) -> Result<AppCertified, ApiErrorKind> {
        let tls_public_key = Some(Keys::new().tls);
        let request =
            AppCertificateRequest { secret: secret.clone(), app: app.parse().unwrap(), tls_public_key, in_use };
        self.proxy.app_certificate(request).await.map_err(|cause| cause.kind)
    }

    pub(crate) async fn user_of(&self, secret: &Secret, app: &str) -> (VerifiedUser, Vec<CertificateDer<'static>>) {
        let pem = self.certified(secret, app).await.unwrap().certificate.unwrap();
        let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
        let verified = self.verify(&chain, X509Purpose::AppClient).unwrap();
        (verified, chain)
    }

    fn verify(&self, chain: &[CertificateDer<'_>], purpose: X509Purpose) -> Result<VerifiedUser, VerifyError> {
        let trust = self.cluster.service.trust_bundle();
        verify_x509_chain(chain, &trust, purpose, self.cluster.clock.now()).map(|verified| verified.user().unwrap())
    }
}

/// Where a browser goes that has no session with an application.
pub(crate) fn way(app: &str, path: &str) -> String {
    let path = form_urlencoded::byte_serialize(path.as_bytes()).collect::<String>();
    format!("/web/launch/{app}?state={}&path={path}", app_state_hash(&Secret::new(STATE)))
}

fn code(page: &Page, app: &str) -> Secret {
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.text);
    let prefix = format!("https://{app}.proxy.example.com/.remoteler/session?code=");
    Secret::new(page.location.strip_prefix(&prefix).unwrap_or_else(|| panic!("{}", page.location)))
}

#[tokio::test]
async fn everybody_sees_the_applications_that_their_roles_allow_and_proxies_are_told_of_all() {
    let world = World::new().await;
    let names = |apps: Vec<AppRecord>| apps.into_iter().map(|app| app.name.to_string()).collect::<Vec<_>>();
    let ann = world.cluster.as_user("ann").await;
    assert_eq!(names(ann.apps().await.unwrap()), ["billing", "wiki"]);
    assert_eq!(names(world.proxy.apps().await.unwrap()), ["billing", "secret", "wiki"]);
    assert_eq!(kind(world.cluster.anonymous().apps().await), ApiErrorKind::Unauthenticated);
    let told = world.proxy.inventory(None, Duration::ZERO).await.unwrap();
    assert_eq!(told.apps.len(), 3);
    assert!(told.apps.iter().all(|app| app.labels.is_empty()), "proxies decide nothing by labels");
    world.cluster.admin().delete_resource(ResourceKind::App, "wiki".into()).await.unwrap();
    let told = world.proxy.inventory(Some(told.revision), Duration::ZERO).await.unwrap();
    assert_eq!(told.gone_apps.iter().map(ToString::to_string).collect::<Vec<_>>(), ["wiki"]);
    let documents: Vec<Resource> = world.cluster.admin().resources(ResourceKind::App, None).await.unwrap();
    assert_eq!(
        documents.iter().map(|document| document.metadata.name.as_str()).collect::<Vec<_>>(),
        ["billing", "secret"]
    );
}

#[tokio::test]
async fn a_browser_without_a_login_is_led_through_it_and_back_to_the_application() {
    let world = World::new().await;
    let gate = world.browser.get(&way("billing", "/a?b=c")).await;
    assert_eq!(gate.status, StatusCode::OK, "{}", gate.text);
    assert!(gate.text.contains("Log in to go to billing"), "{}", gate.text);
    let begun = world.browser.post("/web/account/login", &format!("csrf={}", field(&gate.text, "csrf"))).await;
    let login = begun.text.split("url=").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let token = field(&world.browser.get(&login).await.text, "token");
    let password = PASSWORD.replace(' ', "+");
    let back = world
        .browser
        .post(&format!("{login}/local"), &format!("token={token}&user=ann&password={password}&code="))
        .await;
    // A page and not a redirect: the form of a login leads nowhere but to the proxy.
    assert_eq!(back.status, StatusCode::OK, "{}", back.text);
    let onward =
        back.text.split("url=").nth(1).unwrap().split('"').next().unwrap().replace("&#38;", "&").replace("&amp;", "&");
    let code = code(&world.browser.get(&onward).await, "billing");
    let opened = world.redeem(&code, STATE, "billing").await.unwrap();
    assert_eq!(opened.path, "/a?b=c");
    // Once: the next login leads to the account page.
    assert!(world.browser.jar.lock().unwrap().get("__Host-remoteler-launch").is_none_or(String::is_empty));
}

// I36, I51
#[tokio::test]
async fn a_code_counts_once_for_its_browser_and_its_application_and_for_a_minute() {
    let world = World::new().await;
    world.browser.log_in("ann", PASSWORD).await;
    let code = world.launch("billing").await;
    assert_eq!(kind(world.service.redeem_app_code(request(&code)).await), ApiErrorKind::Denied, "proxies only");
    let opened = world.redeem(&code, STATE, "billing").await.unwrap();
    assert_eq!(opened.path, "/");
    assert_eq!(world.redeem(&code, STATE, "billing").await.unwrap_err(), ApiErrorKind::NotFound, "once");
    for (state, app) in [("state of another browser", "billing"), ("", "billing"), (STATE, "wiki")] {
        let code = world.launch("billing").await;
        assert_eq!(world.redeem(&code, state, app).await.unwrap_err(), ApiErrorKind::NotFound);
        assert_eq!(world.redeem(&code, STATE, "billing").await.unwrap_err(), ApiErrorKind::NotFound, "it is burnt");
    }
    let late = world.launch("billing").await;
    world.later(60).await;
    assert_eq!(world.redeem(&late, STATE, "billing").await.unwrap_err(), ApiErrorKind::NotFound);
    assert_eq!(world.redeem(&Secret::new("x"), STATE, "billing").await.unwrap_err(), ApiErrorKind::NotFound);
}

fn request(code: &Secret) -> AppCodeRequest {
    AppCodeRequest { code: code.clone(), state: Some(Secret::new(STATE)), app: "billing".parse().unwrap() }
}

#[tokio::test]
async fn who_may_not_use_an_application_hears_what_they_hear_of_one_that_is_not_there() {
    let world = World::new().await;
    world.browser.log_in("ann", PASSWORD).await;
    let told = async |app: &str| {
        let page = world.browser.get(&way(app, "/")).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{}", page.text);
        page.text.replace(app, "APP")
    };
    assert_eq!(told("secret").await, told("nothing").await);
    let refused = world.cluster.events("auth").await;
    assert!(refused.iter().any(|event| format!("{event:?}").contains("secret")), "the log has the reason");
}

// I51
#[tokio::test]
async fn a_session_is_for_one_application_and_its_name_in_the_log_opens_nothing() {
    let world = World::new().await;
    world.browser.log_in("ann", PASSWORD).await;
    let secret = world.open("billing").await;
    let certified = world.certified(&secret, "billing").await.unwrap();
    assert_eq!(certified.user.as_str(), "ann");
    let now = world.cluster.clock.now();
    assert_eq!(certified.certificate_expires, Some(now.plus(Duration::from_secs(300))));
    assert_eq!(certified.expires, now.plus(Duration::from_secs(8 * 3600)), "as the web session at the latest");
    assert_eq!(world.certified(&secret, "wiki").await.unwrap_err(), ApiErrorKind::Unauthenticated);

    let started = world.cluster.events("app.session.start").await;
    let event = serde_json::to_value(started.last().unwrap()).unwrap();
    assert_eq!((&event["user"], &event["app_name"]), (&"ann".into(), &"billing".into()));
    assert_eq!(event["app_public_addr"], "billing.proxy.example.com");
    assert_eq!(event["sid"], certified.session.to_string());
    let log = serde_json::to_string(&started).unwrap();
    assert!(!log.contains(secret.reveal()));
    for id in [event["sid"].as_str().unwrap(), event["uid"].as_str().unwrap()] {
        assert_eq!(world.certified(&Secret::new(id), "billing").await.unwrap_err(), ApiErrorKind::Unauthenticated);
    }
    let by_service =
        AppCertificateRequest { secret, app: "billing".parse().unwrap(), tls_public_key: None, in_use: true };
    assert_eq!(kind(world.service.app_certificate(by_service).await), ApiErrorKind::Denied, "proxies only");
}

// I1, I51
#[tokio::test]
async fn a_certificate_of_a_session_counts_at_its_application_and_nowhere_else() {
    let world = World::new().await;
    world.browser.log_in("ann", PASSWORD).await;
    let secret = world.open("billing").await;
    let (user, chain) = world.user_of(&secret, "billing").await;
    assert_eq!(user.only_at(), Some(&OnlyAt::App("billing".parse().unwrap())));
    assert_eq!((user.app_session().is_some(), user.proof()), (true, None));
    let end = world.cluster.clock.now().plus(Duration::from_secs(8 * 3600));
    assert_eq!(user.login_expires(), end, "what began goes on as long as the session");
    for elsewhere in [X509Purpose::Client, X509Purpose::KubeClient] {
        assert!(matches!(world.verify(&chain, elsewhere), Err(VerifyError::Restricted(_))), "{elsewhere:?}");
    }
    world.later(301).await;
    assert!(matches!(world.verify(&chain, X509Purpose::AppClient), Err(VerifyError::Expired(_))));
}

// I50
#[tokio::test]
async fn a_logout_a_lock_and_a_removal_end_a_session_at_once() {
    for by in ["logout", "lock", "removal", "role", "end of the web session"] {
        let world = World::new().await;
        world.browser.log_in("ann", PASSWORD).await;
        let secret = world.open("billing").await;
        world.certified(&secret, "billing").await.unwrap();
        let admin = world.cluster.admin();
        match by {
            "logout" => {
                let page = world.browser.get("/web/account").await;
                let form = page.text.split("action=\"/web/account/logout\"").nth(1).unwrap().to_owned();
                world.browser.post("/web/account/logout", &format!("csrf={}", field(&form, "csrf"))).await;
            }
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
        let kind = world.certified(&secret, "billing").await.unwrap_err();
        let expected = if by == "role" { ApiErrorKind::Denied } else { ApiErrorKind::Unauthenticated };
        assert_eq!(kind, expected, "{by}");
    }
}

// I75
#[tokio::test]
async fn who_is_denied_an_application_in_a_session_is_on_record_by_name() {
    let world = World::new().await;
    world.browser.log_in("ann", PASSWORD).await;
    let secret = world.open("billing").await;
    role(&world.cluster, "apps", json!({ "app_labels": { "app": "wiki" } }), json!({})).await;
    for _ in 0..300 {
        assert_eq!(world.certified(&secret, "billing").await.unwrap_err(), ApiErrorKind::Denied);
    }
    let refused = world.cluster.events("auth").await;
    let refused: Vec<Value> = refused.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    let of_ann = |event: &&Value| event["user"] == "ann" && event["error"].as_str().unwrap().contains("billing");
    let denied: Vec<_> = refused.iter().filter(of_ann).collect();
    assert!((1..300).contains(&denied.len()), "as bounded as other refusals: {}", denied.len());
    assert_eq!(denied[0]["addr.remote"], "192.0.2.9:1234", "where the browser is");
}

#[tokio::test]
async fn a_session_lasts_while_it_is_used_and_no_longer_than_roles_allow() {
    let world = World::new().await;
    role(&world.cluster, "apps", json!({ "app_labels": { "*": "*" } }), json!({ "max_session_ttl": "2h" })).await;
    world.browser.log_in("ann", PASSWORD).await;
    let secret = world.open("billing").await;
    let begun = world.cluster.clock.now();
    for _ in 0..5 {
        world.later(1200).await;
        let certified = world.certified(&secret, "billing").await.unwrap();
        assert_eq!(certified.expires, begun.plus(Duration::from_secs(7200)));
    }
    world.later(1020).await;
    let certified = world.certified(&secret, "billing").await.unwrap();
    assert_eq!(certified.certificate_expires, Some(begun.plus(Duration::from_secs(7200))), "not beyond the session");
    world.later(180).await;
    assert_eq!(world.certified(&secret, "billing").await.unwrap_err(), ApiErrorKind::Unauthenticated);
}

// I50
#[tokio::test]
async fn that_an_application_is_open_is_no_use_of_the_login_that_opens_all_of_them() {
    let world = World::new().await;
    world.browser.log_in("ann", PASSWORD).await;
    let secret = world.open("billing").await;
    world.later(1200).await;
    world.looked_at(&secret, "billing", false).await.unwrap();
    world.later(599).await;
    world.looked_at(&secret, "billing", false).await.unwrap();
    world.later(1).await;
    assert_eq!(world.looked_at(&secret, "billing", false).await.unwrap_err(), ApiErrorKind::Unauthenticated);
    let gate = world.browser.get(&way("billing", "/")).await;
    assert!(gate.text.contains("Log in to go to billing"), "{}", gate.text);
}

// I36
#[tokio::test]
async fn a_code_is_made_for_a_window_that_goes_there_and_for_nothing_within_a_page() {
    let world = World::new().await;
    world.browser.log_in("ann", PASSWORD).await;
    let ask = async |mode: &str, dest: &str| {
        let request = http::Request::get(way("billing", "/")).header("sec-fetch-mode", mode);
        world.browser.send(request.header("sec-fetch-dest", dest), String::new()).await
    };
    for (mode, dest) in [("no-cors", "image"), ("cors", "empty"), ("navigate", "iframe"), ("navigate", "object")] {
        let refused = ask(mode, dest).await;
        assert!(refused.status.is_client_error() && refused.location.is_empty(), "{mode} {dest}: {}", refused.status);
    }
    code(&ask("navigate", "document").await, "billing");
}

// I49
#[tokio::test]
async fn a_second_factor_begins_a_session_within_the_interval_and_counts_to_its_end() {
    let world = World::new().await;
    world.browser.log_in("ann", PASSWORD).await;
    let document = json!({
        "kind": "cluster_auth_preference", "version": "v2", "metadata": { "name": "cluster-auth-preference" },
        "spec": { "mfa_verification_interval": "10s" },
    });
    world.cluster.admin().put_resource(serde_json::from_value(document).unwrap(), true).await.unwrap();
    let phone = with_phone(&world).await;
    role(&world.cluster, "apps", json!({ "app_labels": { "*": "*" } }), json!({ "require_session_mfa": true })).await;
    let proven = async || {
        world.later(60).await;
        let asked = world.browser.get(&way("billing", "/")).await;
        let right = authenticator(&phone, world.cluster.clock.now());
        let fields = format!("csrf={}&code={}", field(&asked.text, "csrf"), right.reveal());
        code(&world.browser.post(&way("billing", "/"), &fields).await, "billing")
    };
    let late = proven().await;
    world.later(10).await;
    assert_eq!(world.redeem(&late, STATE, "billing").await.unwrap_err(), ApiErrorKind::NotFound);
    let soon = proven().await;
    world.later(9).await;
    let opened = world.redeem(&soon, STATE, "billing").await.unwrap();
    world.later(1200).await;
    let (user, _) = world.user_of(&opened.secret, "billing").await;
    assert_eq!(user.proof().unwrap().expires(), opened.expires);
    assert!(user.app_proxy().is_some_and(|proxy| proxy.name.as_str() == "p1"));
}

/// Ann's authenticator app.
async fn with_phone(world: &World) -> Secret {
    let ann = world.cluster.as_user("ann").await;
    let proof = FreshProof { password: Some(Secret::new(PASSWORD)), code: None };
    let secret = ann.offer_factor(proof).await.unwrap().secret;
    let code = authenticator(&secret, world.cluster.clock.now());
    ann.add_factor(NewFactor { name: "phone".into(), code }).await.unwrap();
    secret
}

// I49
#[tokio::test]
async fn where_sessions_need_a_second_factor_it_is_asked_on_the_way_and_stands_in_the_certificate() {
    let world = World::new().await;
    world.browser.log_in("ann", PASSWORD).await;
    let before = world.open("billing").await;
    let options = json!({ "require_session_mfa": true });
    role(&world.cluster, "apps", json!({ "app_labels": { "*": "*" } }), options).await;
    assert_eq!(world.certified(&before, "billing").await.unwrap_err(), ApiErrorKind::Unauthenticated, "begun without");
    let none = world.browser.get(&way("billing", "/")).await;
    assert_eq!(none.status, StatusCode::FORBIDDEN);
    assert!(none.text.contains("set one up on your account page"), "{}", none.text);

    let phone = with_phone(&world).await;
    world.later(60).await;
    let asked = world.browser.get(&way("billing", "/x")).await;
    assert_eq!(asked.status, StatusCode::OK, "{}", asked.text);
    let csrf = field(&asked.text, "csrf");
    let send = async |code: &str| world.browser.post(&way("billing", "/x"), &format!("csrf={csrf}&code={code}")).await;
    let wrong = send("000000000").await;
    assert_eq!((wrong.status, wrong.location.as_str()), (StatusCode::BAD_REQUEST, ""));
    let foreign = world.browser.post(&way("billing", "/x"), "csrf=x&code=1").await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN); // I52
    let right = authenticator(&phone, world.cluster.clock.now());
    let other_way = world.browser.post(&way("wiki", "/x"), &format!("csrf={csrf}&code={}", right.reveal())).await;
    assert_eq!(other_way.status, StatusCode::FORBIDDEN, "the form is of one way");
    let way_open = code(&send(right.reveal()).await, "billing");
    assert_eq!(send(right.reveal()).await.status, StatusCode::BAD_REQUEST, "a code counts once"); // I48

    let opened = world.redeem(&way_open, STATE, "billing").await.unwrap();
    let (user, _) = world.user_of(&opened.secret, "billing").await;
    let proof = user.proof().unwrap();
    assert_eq!(proof.target(), &SessionTarget::App { name: "billing".parse().unwrap() });
    assert_eq!((Some(proof.session()), proof.expires()), (user.app_session(), opened.expires));
    let event = serde_json::to_value(world.cluster.events("app.session.start").await.last().unwrap()).unwrap();
    assert_eq!((&event["with_mfa"], &event["sid"]), (&event["sid"], &proof.session().to_string().into()));
    let shown = world.cluster.events("mfa_auth_challenge.validate").await;
    let shown: Vec<Value> = shown.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    assert!(shown.iter().any(|event| event["session"] == proof.session().to_string() && event["target"] == "billing"));
}

// I48
#[tokio::test]
async fn no_code_is_spent_on_a_way_that_is_not_opened_because_there_were_too_many() {
    let world = World::new().await;
    world.browser.log_in("ann", PASSWORD).await;
    let phone = with_phone(&world).await;
    world.later(60).await;
    let options = || json!({ "require_session_mfa": true });
    role(&world.cluster, "apps", json!({ "app_labels": { "*": "*" } }), options()).await;
    let csrf = field(&world.browser.get(&way("billing", "/")).await.text, "csrf");
    role(&world.cluster, "apps", json!({ "app_labels": { "*": "*" } }), json!({})).await;
    for _ in 0..60 {
        world.launch("billing").await;
    }
    role(&world.cluster, "apps", json!({ "app_labels": { "*": "*" } }), options()).await;
    let right = authenticator(&phone, world.cluster.clock.now());
    let fields = format!("csrf={csrf}&code={}", right.reveal());
    let sent = world.browser.post(&way("billing", "/"), &fields).await;
    assert_eq!(sent.status, StatusCode::TOO_MANY_REQUESTS, "{}", sent.text);
    assert_eq!(world.browser.get(&way("billing", "/")).await.status, StatusCode::TOO_MANY_REQUESTS);
    let login = crate::support::login_request("ann", PASSWORD);
    world.cluster.anonymous().login(remoteler_core::LoginRequest { code: Some(right), ..login }).await.unwrap();
}

// I49
#[tokio::test]
async fn a_program_of_the_user_gets_a_certificate_with_the_factor_for_one_application_as_long_as_the_login() {
    let world = World::new().await;
    let phone = with_phone(&world).await;
    world.later(60).await;
    let now = world.cluster.clock.now();
    let login = remoteler_core::LoginRequest {
        code: Some(authenticator(&phone, now)),
        ..crate::support::login_request("ann", PASSWORD)
    };
    let certs = world.cluster.anonymous().login(login).await.unwrap();
    let user = world.cluster.verify(&certs.tls_certificate).user().unwrap();
    let ann = world.cluster.service.as_caller(remoteler_auth::Caller::User { user, addr: None });
    world.later(60).await;
    let session = SessionId::from_uuid(uuid::Uuid::from_u128(7));
    let asked = |code: Option<Secret>| SessionProofRequest {
        session,
        purpose: SessionPurpose::App { app: "billing".parse().unwrap(), tls_public_key: Keys::new().tls },
        code,
    };
    assert_eq!(kind(ann.prove_session(asked(None)).await), ApiErrorKind::SecondFactorNeeded);
    let code = authenticator(&phone, world.cluster.clock.now());
    let proven = ann.prove_session(asked(Some(code))).await.unwrap();
    let pem = proven.tls_certificate.unwrap();
    let chain = [CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
    let user = world.verify(&chain, X509Purpose::AppClient).unwrap();
    assert_eq!(user.expires(), certs.expires);
    assert_eq!(user.proof().unwrap().target(), &SessionTarget::App { name: "billing".parse().unwrap() });
    assert!(world.verify(&chain, X509Purpose::Client).is_err());
    assert_eq!((user.app_session(), user.browser_session()), (Some(session), None));
    world.service.app_token(AppTokenRequest::new("billing".parse().unwrap(), &chain)).await.unwrap();
}

// I9, I51
#[tokio::test]
async fn a_token_is_for_who_showed_a_certificate_at_that_application_and_ends_with_it() {
    let world = World::new().await;
    world.browser.log_in("ann", PASSWORD).await;
    let secret = world.open("billing").await;
    let (_, chain) = world.user_of(&secret, "billing").await;
    let ask = async |app: &str, chain: &[CertificateDer<'_>]| {
        let request = AppTokenRequest::new(app.parse().unwrap(), chain);
        world.service.app_token(request).await.map_err(|cause| cause.kind)
    };
    let token = ask("billing", &chain).await.unwrap();
    let claims = claims(&token.token);
    assert_eq!((&claims["aud"], &claims["sub"]), (&"https://billing.proxy.example.com".into(), &"ann".into()));
    assert_eq!(claims["exp"], token.expires.unix_seconds());
    assert_eq!(token.expires, world.cluster.clock.now().plus(Duration::from_secs(300)));
    world.later(240).await;
    let later = ask("billing", &chain).await.unwrap();
    assert_eq!(later.expires, token.expires, "not beyond the certificate");

    assert_eq!(ask("wiki", &chain).await.unwrap_err(), ApiErrorKind::Denied, "of another application's session");
    let other = join_apps(&world.cluster, "apps-2", &["other"]).await;
    let request = AppTokenRequest::new("billing".parse().unwrap(), &chain);
    assert_eq!(kind(world.cluster.as_host(&other).app_token(request).await), ApiErrorKind::Denied, "not its own");
    let host = [CertificateDer::from_pem_slice(other.tls_certificate.as_bytes()).unwrap()];
    assert_eq!(ask("billing", &host).await.unwrap_err(), ApiErrorKind::Unauthenticated);
    assert_eq!(ask("billing", &[]).await.unwrap_err(), ApiErrorKind::Unauthenticated);
    let login = world.cluster.log_in("ann").await;
    let login = [CertificateDer::from_pem_slice(login.tls_certificate.as_bytes()).unwrap()];
    assert_eq!(ask("secret", &login).await.unwrap_err(), ApiErrorKind::Denied, "roles do not allow it");
    ask("wiki", &login).await.unwrap();
    world.later(61).await;
    assert_eq!(ask("billing", &chain).await.unwrap_err(), ApiErrorKind::Unauthenticated, "the certificate is over");
    world.cluster.admin().delete_user(UserName::new("ann").unwrap()).await.unwrap();
    assert_eq!(ask("wiki", &login).await.unwrap_err(), ApiErrorKind::Unauthenticated, "removed");
}

pub(crate) fn claims(token: &Secret) -> Value {
    let payload = token.reveal().split('.').nth(1).unwrap();
    serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_new_user_of_the_preset_role_may_use_every_application() {
    let world = World::new().await;
    let new = NewUser {
        name: UserName::new("bob").unwrap(),
        roles: ["access".parse().unwrap()].into(),
        traits: Default::default(),
    };
    world.cluster.admin().create_user(new).await.unwrap();
    world.cluster.admin().set_password(UserName::new("bob").unwrap(), Secret::new(PASSWORD)).await.unwrap();
    assert_eq!(world.cluster.as_user("bob").await.apps().await.unwrap().len(), 3);
}
