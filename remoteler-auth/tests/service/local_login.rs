//! Local users who log in through a browser: the form of the login page, over the proxy's pages.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, body::Body};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use remoteler_auth::{Caller, RemoteAddr, WebNames, web_router};
use remoteler_core::{AnswerKey, LoginBegun, LoginPoll, LoginProgress, RedeemLogin, Secret, UserCerts, UserName, wire};
use tower::ServiceExt;

use crate::support::{Cluster, PASSWORD, begin_request};

/// A login that was begun, and the browser that opened it.
struct Login {
    router: Router,
    key: AnswerKey,
    begun: LoginBegun,
    cookie: String,
    token: String,
}

/// What a page answers: status, where it leads, and its text.
struct Page {
    status: StatusCode,
    location: Option<String>,
    cookie: Option<String>,
    text: String,
}

async fn send(router: &Router, mut request: Request<Body>) -> Page {
    request.extensions_mut().insert(RemoteAddr(SocketAddr::from(([192, 0, 2, 9], 1234))));
    let (head, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let text = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let cookie = text("set-cookie").map(|cookie| cookie.split(';').next().unwrap().to_owned());
    let location = text("location");
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Page { status: head.status, location, cookie, text }
}

fn token_of(page: &str) -> String {
    page.split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

impl Login {
    async fn begin(cluster: &Cluster) -> Self {
        let service = cluster.service.clone();
        let names = WebNames::new(Some("proxy.example.com:443"), []);
        let router = web_router(Arc::new(move |addr| service.as_caller(Caller::Anonymous { addr })), names);
        let key = AnswerKey::generate().unwrap();
        let begun = cluster.anonymous().begin_login(begin_request(&key)).await.unwrap();
        let page = Request::get(wire::path(wire::WEB_LOGIN_PAGE, &begun.id)).header("host", "proxy.example.com");
        let page = send(&router, page.body(Body::empty()).unwrap()).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        let (cookie, token) = (page.cookie.unwrap(), token_of(&page.text));
        Self { router, key, begun, cookie, token }
    }

    async fn post(&self, path: &str, cookie: &str, fields: &str) -> Page {
        let request = Request::post(wire::path(path, &self.begun.id))
            .header("host", "proxy.example.com")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("cookie", cookie);
        send(&self.router, request.body(Body::from(fields.to_owned())).unwrap()).await
    }

    async fn prove(&self, password: &str) -> Page {
        let fields = format!("token={}&user=ann&password={}&code=", self.token, password.replace(' ', "+"));
        self.post(wire::WEB_LOGIN_LOCAL, &self.cookie, &fields).await
    }

    async fn progress(&self, cluster: &Cluster) -> LoginProgress {
        let poll = LoginPoll { id: self.begun.id.clone(), secret: self.begun.secret.clone() };
        cluster.anonymous().poll_login(poll).await.unwrap()
    }
}

#[tokio::test]
async fn a_local_user_proves_a_password_in_the_browser_confirms_and_gets_certificates() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let login = Login::begin(&cluster).await;
    let wrong = login.prove("wrong password").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(wrong.text.contains("Wrong user name or password.") && !wrong.text.contains("wrong password\""));
    let proved = login.prove(PASSWORD).await;
    assert_eq!(proved.location.as_deref(), Some(&*format!("/web/login/{}/confirm", login.begun.id)));
    assert!(!matches!(login.progress(&cluster).await, LoginProgress::Ready { .. }), "nobody has confirmed");

    let confirm = Request::get(proved.location.unwrap()).header("host", "proxy.example.com");
    let confirm = send(&login.router, confirm.header("cookie", &login.cookie).body(Body::empty()).unwrap()).await;
    assert!(confirm.text.contains(&login.begun.code) && confirm.text.contains("laptop"), "{}", confirm.text); // I41
    let fields = format!("token={}&decision=approve", token_of(&confirm.text));
    let done = login.post(wire::WEB_LOGIN_CONFIRM, &login.cookie, &fields).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    let LoginProgress::Ready { answer } = login.progress(&cluster).await else { panic!("it is confirmed") };
    let Login { key, begun, .. } = login;
    let (grant, follow) = key.open(&begun.id, &answer).unwrap();
    let grant = Secret::new(std::str::from_utf8(&grant).unwrap());
    let request = RedeemLogin { id: begun.id, secret: begun.secret, grant, client_addr: None };
    let sealed = cluster.anonymous().redeem_login(request).await.unwrap().sealed;
    let certs: UserCerts = serde_json::from_slice(&follow.open(&sealed).unwrap()).unwrap();
    let user = cluster.verify(&certs.tls_certificate).user().unwrap();
    assert_eq!(user.identity().user, UserName::new("ann").unwrap());
}

#[tokio::test]
async fn the_form_is_taken_from_the_page_and_the_browser_that_it_was_shown_in() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let login = Login::begin(&cluster).await;
    let other = Login::begin(&cluster).await;
    let fields = |token: &str| format!("token={token}&user=ann&password={}", PASSWORD.replace(' ', "+"));
    let own = &login.token;
    for (cookie, token) in [(&other.cookie, own), (&other.cookie, &other.token), (&login.cookie, &other.token)] {
        let answer = login.post(wire::WEB_LOGIN_LOCAL, cookie, &fields(token)).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN); // I36, I52
    }
    let foreign = Request::post(wire::path(wire::WEB_LOGIN_LOCAL, &login.begun.id))
        .header("host", "proxy.example.com")
        .header("origin", "https://evil.example")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("cookie", &login.cookie);
    let foreign = send(&login.router, foreign.body(Body::from(fields(own))).unwrap()).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN); // I52
    assert!(login.prove(PASSWORD).await.location.is_some(), "whose it is may still finish it");
    assert_eq!(login.prove(PASSWORD).await.status, StatusCode::NOT_FOUND, "once");
    let refused = cluster.events("auth").await;
    assert!(refused.len() >= 3, "each is on record");
}

#[tokio::test]
async fn guesses_in_the_browser_count_with_all_others_and_are_on_record() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(Login::begin(&cluster).await.prove("wrong password").await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::BAD_REQUEST).count(), 10); // I48
    assert_eq!(statuses.last(), Some(&StatusCode::TOO_MANY_REQUESTS)); // I48
    assert_eq!(cluster.events("user.login").await.len(), 10);
}
