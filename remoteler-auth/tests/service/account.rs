//! The account page over the proxy's pages: its sessions and what ends them, its forms and whose they are.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use remoteler_auth::{Caller, RemoteAddr, WebNames, web_router};
use remoteler_core::{
    AccountWish, AuditKind, BrowserAction, BrowserAnswer, BrowserStep, BrowserView, Resource, Secret, UserName,
};
use serde_json::json;
use tower::ServiceExt;

use crate::{
    identity_provider::{Idp, cluster_with},
    support::{Cluster, PASSWORD, login_request, new_user},
};

const ACCOUNT: &str = "/web/account";
const NEW: &str = "another horse battery staple";

/// What a page answers.
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) location: String,
    pub(crate) set: Vec<String>,
    pub(crate) text: String,
}

/// A browser with its cookies.
pub(crate) struct Browser {
    router: Router,
    pub(crate) jar: Mutex<BTreeMap<String, String>>,
}

impl Browser {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let service = cluster.service.clone();
        let names = WebNames::new(Some("proxy.example.com:443"), []);
        let router = web_router(Arc::new(move |addr| service.as_caller(Caller::Anonymous { addr })), names);
        Self { router, jar: Mutex::default() }
    }

    pub(crate) async fn send(&self, request: http::request::Builder, body: String) -> Page {
        let jar = self.jar.lock().unwrap().clone();
        let cookies: Vec<String> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = request.header("host", "proxy.example.com").header("user-agent", "Mozilla/5.0 (Test)");
        let mut request = request.header("cookie", cookies.join("; ")).body(Body::from(body)).unwrap();
        request.extensions_mut().insert(RemoteAddr(SocketAddr::from(([192, 0, 2, 9], 1234))));
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let set: Vec<String> =
            head.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap().to_owned()).collect();
        for cookie in &set {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            self.jar.lock().unwrap().insert(name.to_owned(), value.to_owned());
        }
        let location = head.headers.get("location").map_or("", |to| to.to_str().unwrap()).to_owned();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Page { status: head.status, location, set, text }
    }

    pub(crate) async fn get(&self, path: &str) -> Page {
        self.send(Request::get(path), String::new()).await
    }

    pub(crate) async fn post(&self, path: &str, fields: &str) -> Page {
        let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        self.send(request, fields.to_owned()).await
    }

    /// Sends a form of the account page.
    pub(crate) async fn form(&self, form: &str, fields: &str) -> Page {
        let shown = self.get(ACCOUNT).await;
        self.post(&format!("{ACCOUNT}/{form}"), &format!("csrf={}&{fields}", csrf(&shown.text, form))).await
    }

    /// To the page that asks who it is.
    async fn begin(&self) -> (String, Page) {
        let onward = self.form("login", "").await;
        assert_eq!(onward.status, StatusCode::OK, "{}", onward.text);
        let login = onward.text.split("url=").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let page = self.get(&login).await;
        (login, page)
    }

    pub(crate) async fn log_in(&self, user: &str, password: &str) -> Page {
        let (login, page) = self.begin().await;
        let token = field(&page.text, "token");
        let password = password.replace(' ', "+");
        self.post(&format!("{login}/local"), &format!("token={token}&user={user}&password={password}&code=")).await
    }

    fn session(&self) -> Option<String> {
        self.jar.lock().unwrap().get("__Host-remoteler-session").filter(|value| !value.is_empty()).cloned()
    }

    async fn is_in(&self) -> bool {
        let page = self.get(ACCOUNT).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        page.text.contains("/web/account/logout")
    }
}

pub(crate) fn field(page: &str, name: &str) -> String {
    page.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned()
}

fn csrf(page: &str, form: &str) -> String {
    let form = page.split(&format!("action=\"{ACCOUNT}/{form}\"")).nth(1);
    form.map_or_else(|| "none".to_owned(), |form| field(form, "csrf"))
}

async fn ann() -> (Cluster, Browser) {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let browser = Browser::new(&cluster);
    (cluster, browser)
}

fn name(user: &str) -> UserName {
    UserName::new(user).unwrap()
}

#[tokio::test]
async fn a_login_gives_a_session_with_an_id_of_its_own_that_ends_with_the_logout() {
    // I50
    let (cluster, browser) = ann().await;
    assert!(!browser.is_in().await);
    let begun = browser.log_in("ann", PASSWORD).await;
    assert_eq!((begun.status, begun.location.as_str()), (StatusCode::SEE_OTHER, ACCOUNT), "{}", begun.text);
    let cookie = begun.set.iter().find(|cookie| cookie.contains("-session=")).unwrap();
    for part in ["__Host-remoteler-session=", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/;"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let first = browser.session().unwrap();
    assert_eq!(first.len(), 64);
    let page = browser.get(ACCOUNT).await;
    assert!(page.text.contains("You are ann.") && page.text.contains("This browser"), "{}", page.text);
    assert!(!page.text.contains(&first));

    // Nobody is asked to log in again who has just done it.
    cluster.clock.advance(Duration::from_secs(301));
    browser.log_in("ann", PASSWORD).await;
    assert_ne!(browser.session().unwrap(), first, "each login has a new id");
    let other = Browser::new(&cluster);
    other.jar.lock().unwrap().insert("__Host-remoteler-session".into(), first);
    assert!(!other.is_in().await, "and the one before is over");

    let second = browser.session().unwrap();
    let gone = browser.form("logout", "").await;
    assert!(gone.set.iter().any(|cookie| cookie.contains("-session=;") && cookie.contains("Max-Age=0")));
    other.jar.lock().unwrap().insert("__Host-remoteler-session".into(), second.clone());
    assert!(!other.is_in().await && !browser.is_in().await);
    let kept = std::fs::read_dir(cluster.dir.path()).unwrap();
    for file in kept.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        let octets = std::fs::read(&file).unwrap();
        assert!(!octets.windows(64).any(|part| part == second.as_bytes()), "{}", file.display());
    }
    let logins = cluster.events("user.login").await;
    assert_eq!(logins.len(), 2);
}

#[tokio::test]
async fn whatever_happens_to_the_user_ends_the_session_with_the_next_request() {
    // I50
    let (cluster, browser) = ann().await;
    let lock = json!({
        "kind": "lock", "version": "v2", "metadata": { "name": "l" }, "spec": { "target": { "user": "ann" } },
    });
    browser.log_in("ann", PASSWORD).await;
    assert!(browser.is_in().await);
    cluster.admin().put_resource(serde_json::from_value::<Resource>(lock).unwrap(), false).await.unwrap();
    assert!(!browser.is_in().await);
    let locked = browser.log_in("ann", PASSWORD).await;
    assert_eq!(locked.status, StatusCode::FORBIDDEN);
    cluster.admin().delete_resource(remoteler_core::ResourceKind::Lock, "l".into()).await.unwrap();
    assert!(!browser.is_in().await, "a session that was met while locked is over");

    browser.log_in("ann", PASSWORD).await;
    assert!(browser.is_in().await);
    cluster.admin().set_password(name("ann"), Secret::new(NEW)).await.unwrap();
    assert!(!browser.is_in().await);

    browser.log_in("ann", NEW).await;
    assert!(browser.is_in().await);
    cluster.admin().reset_user(name("ann")).await.unwrap();
    assert!(!browser.is_in().await);

    cluster.admin().set_password(name("ann"), Secret::new(NEW)).await.unwrap();
    browser.log_in("ann", NEW).await;
    assert!(browser.is_in().await);
    cluster.admin().delete_user(name("ann")).await.unwrap();
    assert!(!browser.is_in().await);
    cluster.admin().create_user(new_user("ann", &["access"], &["root"])).await.unwrap();
    assert!(!browser.is_in().await, "another user of the name is somebody else");
}

#[tokio::test]
async fn a_session_ends_when_it_is_not_used_and_in_any_case_after_a_day_of_work() {
    let (cluster, browser) = ann().await;
    let minutes = |count: u64| cluster.clock.advance(Duration::from_secs(60 * count));
    browser.log_in("ann", PASSWORD).await;
    minutes(29);
    assert!(browser.is_in().await);
    minutes(29);
    assert!(browser.is_in().await);
    minutes(31);
    assert!(!browser.is_in().await);
    browser.log_in("ann", PASSWORD).await;
    for _ in 0..(8 * 3 - 1) {
        minutes(20);
        assert!(browser.is_in().await);
    }
    minutes(20);
    assert!(!browser.is_in().await);
}

#[tokio::test]
async fn forms_of_others_and_of_other_sessions_change_nothing() {
    // I52
    let (cluster, browser) = ann().await;
    cluster.user("bob", &["access"], &["root"]).await;
    browser.log_in("ann", PASSWORD).await;
    let (shown, old) = (browser.get(ACCOUNT).await, browser.session().unwrap());
    let token = csrf(&shown.text, "revoke");
    let token = if token == "none" { csrf(&shown.text, "logout") } else { token };
    let eve = Browser::new(&cluster);
    eve.log_in("bob", PASSWORD).await;
    for wrong in ["none".to_owned(), csrf(&eve.get(ACCOUNT).await.text, "logout")] {
        let answer = browser.post("/web/account/logout", &format!("csrf={wrong}")).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    let foreign = Request::post("/web/account/logout")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("origin", "https://evil.example");
    assert_eq!(browser.send(foreign, format!("csrf={token}")).await.status, StatusCode::FORBIDDEN);
    assert!(browser.is_in().await);
    cluster.clock.advance(Duration::from_secs(301));
    browser.log_in("ann", PASSWORD).await;
    assert_ne!(browser.session().unwrap(), old);
    let stale = browser.post("/web/account/logout", &format!("csrf={token}")).await;
    assert_eq!(stale.status, StatusCode::FORBIDDEN, "a form of the session before");

    // The name of another user's session is of no use.
    let id = |page: &str| field(page.split("account/end").nth(1).unwrap(), "id");
    let second = Browser::new(&cluster);
    second.log_in("ann", PASSWORD).await;
    let hers = id(&browser.get(ACCOUNT).await.text);
    eve.form("end", &format!("id={hers}")).await;
    // Eve has one session only, so her page has no such form: she makes one up with a token of hers.
    let token = csrf(&eve.get(ACCOUNT).await.text, "logout");
    let answer = eve.post("/web/account/end", &format!("csrf={token}&id={hers}")).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert!(second.is_in().await);
    browser.form("end", &format!("id={hers}")).await;
    assert!(!second.is_in().await && browser.is_in().await);
}

#[tokio::test]
async fn the_own_password_changes_for_who_knows_it_and_other_browsers_are_out() {
    let (cluster, browser) = ann().await;
    let other = Browser::new(&cluster);
    browser.log_in("ann", PASSWORD).await;
    other.log_in("ann", PASSWORD).await;
    let change = |now: &str, new: &str, again: &str| {
        let [now, new, again] = [now, new, again].map(|text| text.replace(' ', "+"));
        format!("user=ann&password={now}&new_password={new}&again={again}")
    };
    for (fields, said) in [
        (change("wrong", NEW, NEW), "current password is wrong"),
        (change(PASSWORD, NEW, PASSWORD), "not the same"),
        (change(PASSWORD, "password1", "password1"), "easy to guess"),
    ] {
        let answer = browser.form("password", &fields).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.text.contains(said) && !answer.text.contains(NEW), "{}", answer.text);
    }
    assert!(other.is_in().await);
    let done = browser.form("password", &change(PASSWORD, NEW, NEW)).await;
    assert_eq!(done.location, "/web/account?done=password");
    assert!(browser.is_in().await && !other.is_in().await);
    assert!(cluster.anonymous().login(login_request("ann", PASSWORD)).await.is_err());
    cluster.anonymous().login(login_request("ann", NEW)).await.unwrap();
    let changed = cluster.events("user.password_change").await;
    let by = |kind: &AuditKind| matches!(kind, AuditKind::PasswordChange { user, by } if user == "ann" && by == "ann");
    assert_eq!(changed.iter().filter(|event| by(&event.kind)).count(), 1);
    // Guesses count with those of logins.
    for _ in 0..10 {
        browser.form("password", &change("wrong", NEW, NEW)).await;
    }
    let answer = browser.form("password", &change(NEW, PASSWORD, PASSWORD)).await;
    assert!(answer.text.contains("too many") || answer.text.contains("Too many"), "{}", answer.text);
}

#[tokio::test]
async fn factors_change_for_who_has_just_logged_in_and_the_last_one_stays_where_one_is_needed() {
    let (cluster, browser) = ann().await;
    browser.log_in("ann", PASSWORD).await;
    let offered = browser.form("app", "").await;
    assert!(offered.text.contains("/web/account/app-add"), "{}", offered.text);
    let wrong = browser.form_after(&offered, "app-add", "name=phone&code=000000").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    let offer = browser.form("key", "").await;
    assert!(offer.text.contains("data-webauthn=\"create\""), "{}", offer.text);
    let answer = browser
        .form_after(&offer, "key-add", &format!("name=k&token={}&answer=%7B%7D", field(&offer.text, "token")))
        .await;
    assert!(answer.text.contains("answer cannot be read"), "{}", answer.text);

    cluster.clock.advance(Duration::from_secs(301));
    let page = browser.get(ACCOUNT).await;
    assert!(page.text.contains("show once more that it is you") && !page.text.contains("account/app\""));
    let token = csrf(&page.text, "logout");
    for (form, fields) in [("app", ""), ("key", ""), ("remove", "name=phone"), ("app-add", "name=x&code=1")] {
        let answer = browser.post(&format!("{ACCOUNT}/{form}"), &format!("csrf={token}&{fields}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{form}");
        assert!(answer.text.contains("too long ago"), "{form}: {}", answer.text);
    }
    assert!(cluster.events("mfa.add").await.is_empty());
}

impl Browser {
    /// Sends the form of a page that was shown.
    async fn form_after(&self, page: &Page, form: &str, fields: &str) -> Page {
        self.post(&format!("{ACCOUNT}/{form}"), &format!("csrf={}&{fields}", csrf(&page.text, form))).await
    }
}

#[tokio::test]
async fn certificates_are_listed_and_revoked_by_whose_they_are() {
    let (cluster, browser) = ann().await;
    let certs = cluster.log_in("ann").await;
    browser.log_in("ann", PASSWORD).await;
    let page = browser.get(ACCOUNT).await;
    assert!(page.text.contains("/web/account/revoke"), "{}", page.text);
    let done = browser.form("revoke", "").await;
    assert_eq!(done.location, "/web/account?done=revoked");
    assert!(!browser.get(ACCOUNT).await.text.contains("/web/account/revoke"));
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    let certificate = CertificateDer::from_pem_slice(certs.tls_certificate.as_bytes()).unwrap();
    let trust = cluster.service.trust_bundle();
    let purpose = remoteler_core::X509Purpose::Client;
    let now = remoteler_core::Clock::now(&*cluster.clock);
    assert!(remoteler_core::verify_x509_chain(&[certificate], &trust, purpose, now).is_err());
}

#[tokio::test]
async fn who_logs_in_by_a_provider_reaches_the_account_page_in_the_browser_that_began() {
    // I36
    let idp = Idp::new();
    let cluster = cluster_with(Arc::new(idp.clone())).await;
    let connector = json!({
        "kind": "oidc", "version": "v3", "metadata": { "name": "idp" },
        "spec": {
            "issuer_url": crate::identity_provider::ISSUER, "client_id": "remoteler", "client_secret": "canary-secret",
            "redirect_url": "https://proxy.example.com/web/callback/idp",
            "claims_to_roles": [{ "claim": "groups", "value": "ssh-users", "roles": ["access"] }],
        },
    });
    cluster.admin().put_resource(serde_json::from_value(connector).unwrap(), false).await.unwrap();
    let api = cluster.anonymous();
    let step = async |browser: &str, action: BrowserAction| {
        let step = BrowserStep {
            step: action,
            browser: Some(Secret::new(browser)),
            origin: "https://proxy.example.com".into(),
            client_addr: None,
        };
        api.browser_step(step).await.map(|BrowserAnswer { view, .. }| view)
    };
    let account = |session: Option<Secret>, wish| BrowserAction::Account { session, agent: "Mozilla/5.0".into(), wish };
    let (ann, eve) = ("a".repeat(64), "e".repeat(64));
    let away = async |browser: &str| {
        let BrowserView::Redirect { to } = step(browser, account(None, AccountWish::LogIn)).await.unwrap() else {
            panic!()
        };
        let id = to.rsplit('/').next().unwrap().to_owned();
        let open = BrowserAction::Open { id, connector: Some("idp".into()) };
        let BrowserView::Redirect { to } = step(browser, open).await.unwrap() else { panic!() };
        idp.authorize(&to)
    };
    let callback = |params| BrowserAction::Callback { connector: "idp".into(), params };
    // Login CSRF: the answer that eve got, in ann's browser.
    let params = away(&eve).await;
    assert!(step(&ann, callback(params)).await.is_err());
    let params = away(&ann).await;
    let BrowserView::SessionBegun { session } = step(&ann, callback(params)).await.unwrap() else { panic!() };
    let shown = step(&ann, account(Some(session.clone()), AccountWish::Show)).await.unwrap();
    let BrowserView::Account(own) = shown else { panic!("{shown:?}") };
    assert_eq!((own.user.as_str(), own.connector.as_deref()), ("ann@example.com", Some("idp")));
    assert!(!own.has_password && own.fresh && own.keys_possible);
    assert_eq!(own.sessions.len(), 1);

    cluster.admin().delete_resource(remoteler_core::ResourceKind::Oidc, "idp".into()).await.unwrap();
    let shown = step(&ann, account(Some(session), AccountWish::Show)).await.unwrap();
    assert_eq!(shown, BrowserView::NoSession, "a session ends with the connector it came by");
}
