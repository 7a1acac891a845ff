//! What a proxy shows to clients without a certificate.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{Router, body::Body};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use remoteler_auth::{Caller, RemoteAddr, WebNames, web_router};
use remoteler_core::{ApiError, ApiErrorKind, AuditKind, UserCerts, wire};
use tower::ServiceExt;

use crate::support::{Cluster, PASSWORD, login_request, new_user};

fn router(cluster: &Cluster) -> Router {
    let service = cluster.service.clone();
    web_router(Arc::new(move |addr| service.as_caller(Caller::Anonymous { addr })), names())
}

fn names() -> WebNames {
    WebNames::new(Some("proxy.example.com:443"), [])
}

async fn send(router: &Router, mut request: Request<Body>) -> (Response<()>, String) {
    request.extensions_mut().insert(RemoteAddr(SocketAddr::from(([192, 0, 2, 9], 1234))));
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    (Response::from_parts(parts, ()), text)
}

fn show(path: &str) -> Request<Body> {
    Request::get(path).header("host", "proxy.example.com").body(Body::empty()).unwrap()
}

/// A form of a page, as the browser that was shown it sends it.
struct Shown {
    path: String,
    cookie: String,
    csrf: String,
}

impl Shown {
    async fn at(router: &Router, path: &str) -> (Self, Response<()>, String) {
        let (answer, page) = send(router, show(path)).await;
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let csrf = page.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        (Self { path: path.to_owned(), cookie, csrf }, answer, page)
    }

    fn form(&self) -> http::request::Builder {
        Request::post(&self.path)
            .header("host", "proxy.example.com")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("cookie", &self.cookie)
    }

    fn body(&self, fields: &str) -> Body {
        Body::from(format!("csrf={}&{fields}", self.csrf))
    }

    fn filled(&self, fields: &str) -> Request<Body> {
        self.form().body(self.body(fields)).unwrap()
    }
}

#[tokio::test]
async fn a_login_through_the_proxy_is_audited_with_the_clients_address() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let router = router(&cluster);
    let mut login = login_request("ann", PASSWORD);
    login.client_addr = Some("6.6.6.6:6".into());
    let body = serde_json::to_string(&login).unwrap();
    let request = Request::post(wire::WEB_LOGIN).header("content-type", wire::JSON).body(Body::from(body)).unwrap();
    let (answer, text) = send(&router, request).await;
    assert_eq!(answer.status(), StatusCode::OK);
    serde_json::from_str::<UserCerts>(&text).unwrap();
    let [event] = cluster.events("user.login").await.try_into().unwrap();
    let AuditKind::UserLogin { remote, .. } = event.kind else { panic!() };
    assert_eq!(remote.as_deref(), Some("192.0.2.9:1234")); // I69

    let wrong = serde_json::to_string(&login_request("ann", "wrong password")).unwrap();
    let request = Request::post(wire::WEB_LOGIN).header("content-type", wire::JSON).body(Body::from(wrong)).unwrap();
    let (answer, text) = send(&router, request).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(serde_json::from_str::<ApiError>(&text).unwrap().kind, ApiErrorKind::Unauthenticated);
    let ping = Request::get(wire::WEB_PING).body(Body::empty()).unwrap();
    assert_eq!(send(&router, ping).await.0.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_page_behind_a_link_sets_the_password_once() {
    let cluster = Cluster::start().await;
    let invite = cluster.admin().create_user(new_user("ann", &["access"], &["root"])).await.unwrap();
    let (router, path) = (router(&cluster), wire::path(wire::WEB_INVITE, invite.token.reveal()));
    let (shown, answer, page) = Shown::at(&router, &path).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(page.contains("value=\"ann\"") && !page.contains("<script>"));
    let policy = answer.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}"); // I54
    assert!(policy.contains("script-src 'self';"), "{policy}");
    assert_eq!(answer.headers()["cache-control"], "no-store");

    for (body, part) in [
        ("password=correct+horse&again=correct+house", "not the same"),
        ("password=short&again=short", "t least 8"),
        ("password=correct+horse", "Open the link again"),
    ] {
        let (answer, page) = send(&router, shown.filled(body)).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body}");
        assert!(page.contains(part), "{page}");
    }
    let body = "password=correct+horse+battery&again=correct+horse+battery";
    let (answer, page) = send(&router, shown.filled(body)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(page.contains("--proxy=proxy.example.com<") && page.contains("--user=ann<"), "{page}");
    let (answer, _) = send(&router, shown.filled(body)).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    cluster.anonymous().login(login_request("ann", "correct horse battery")).await.unwrap();
}

#[tokio::test]
async fn a_link_is_used_by_calls_as_by_its_page_and_who_guesses_at_one_is_counted_alike() {
    let cluster = Cluster::start().await;
    let invite = cluster.admin().create_user(new_user("ann", &["access"], &["root"])).await.unwrap();
    let router = router(&cluster);
    let call = async |path: &str, body: serde_json::Value| {
        let request =
            Request::post(path).header("content-type", wire::JSON).body(Body::from(body.to_string())).unwrap();
        let (answer, text) = send(&router, request).await;
        (answer.status(), serde_json::from_str::<serde_json::Value>(&text).unwrap())
    };
    let link = serde_json::json!({ "token": invite.token.reveal() });
    let (status, invited) = call(wire::WEB_INVITED_USER, link.clone()).await;
    assert_eq!((status, &invited["user"]), (StatusCode::OK, &"ann".into()));
    let form = Request::post(wire::WEB_SIGN_UP).header("content-type", "text/plain").body(link.to_string().into());
    assert_eq!(send(&router, form.unwrap()).await.0.status(), StatusCode::BAD_REQUEST); // I52

    let with = |password: &str, code: Option<&str>| serde_json::json!({ "token": invite.token.reveal(), "password": password, "code": code });
    let (status, refused) = call(wire::WEB_SIGN_UP, with("short", None)).await;
    assert_eq!((status, &refused["kind"]), (StatusCode::BAD_REQUEST, &"bad_request".into()));
    let (status, refused) = call(wire::WEB_SIGN_UP, with(PASSWORD, Some("000"))).await;
    assert_eq!((status, &refused["kind"]), (StatusCode::UNAUTHORIZED, &"second_factor_needed".into()));
    assert_eq!(call(wire::WEB_SIGN_UP, with(PASSWORD, None)).await.0, StatusCode::OK);
    assert_eq!(call(wire::WEB_SIGN_UP, with(PASSWORD, None)).await.0, StatusCode::NOT_FOUND);
    cluster.anonymous().login(login_request("ann", PASSWORD)).await.unwrap();

    // One address has so many guesses, by whatever way.
    let guess = serde_json::json!({ "token": "0".repeat(64) });
    let mut statuses = Vec::new();
    while statuses.last() != Some(&StatusCode::TOO_MANY_REQUESTS) && statuses.len() < 100 {
        statuses.push(call(wire::WEB_INVITED_USER, guess.clone()).await.0);
        statuses.push(send(&router, show("/web/invite/none")).await.0.status());
    }
    assert!((20..=32).contains(&statuses.len()), "{statuses:?}");
    assert_eq!(call(wire::WEB_SIGN_UP, with(PASSWORD, None)).await.0, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_form_from_another_site_is_refused() {
    let cluster = Cluster::start().await;
    let invite = cluster.admin().create_user(new_user("ann", &["access"], &[])).await.unwrap();
    let (router, path) = (router(&cluster), wire::path(wire::WEB_INVITE, invite.token.reveal()));
    let body = "password=correct+horse+battery&again=correct+horse+battery";
    let (shown, ..) = Shown::at(&router, &path).await;
    for (name, value) in [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("origin", "https://evil")]
    {
        let request = shown.form().header(name, value).body(shown.body(body)).unwrap();
        assert_eq!(send(&router, request).await.0.status(), StatusCode::FORBIDDEN, "{name}: {value}"); // I52
    }
    let (other, ..) = Shown::at(&router, &path).await;
    let swapped = Shown { cookie: other.cookie, ..shown };
    assert_eq!(send(&router, swapped.filled(body)).await.0.status(), StatusCode::FORBIDDEN); // I52
    let (shown, ..) = Shown::at(&router, &path).await;
    let without = Request::post(&path).header("host", "proxy.example.com");
    let without = without.header("content-type", "application/x-www-form-urlencoded").body(shown.body(body)).unwrap();
    assert_eq!(send(&router, without).await.0.status(), StatusCode::FORBIDDEN); // I52
    let request = shown.form().header("origin", "https://proxy.example.com").body(shown.body(body)).unwrap();
    assert_eq!(send(&router, request).await.0.status(), StatusCode::OK);
    assert_eq!(refused(&cluster, "a form came from another site").await, 5);
}

#[tokio::test]
async fn a_code_is_typed_on_our_page_in_the_browser_that_was_shown_it() {
    let cluster = Cluster::start().await;
    let router = router(&cluster);
    let (shown, answer, _) = Shown::at(&router, wire::WEB_DEVICE).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let (other, ..) = Shown::at(&router, wire::WEB_DEVICE).await;
    let swapped = Shown { cookie: other.cookie, path: shown.path.clone(), csrf: shown.csrf.clone() };
    assert_eq!(send(&router, swapped.filled("code=K7QM-3XPD")).await.0.status(), StatusCode::FORBIDDEN); // I52
    let foreign = shown.form().header("origin", "https://evil.example").body(shown.body("code=K7QM-3XPD")).unwrap();
    assert_eq!(send(&router, foreign).await.0.status(), StatusCode::FORBIDDEN); // I52
    let (answer, page) = send(&router, shown.filled("code=K7QM-3XPD")).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(page.contains("no such code"), "{page}");
}

#[tokio::test]
async fn a_page_is_not_shown_under_a_forged_name() {
    let cluster = Cluster::start().await;
    let invite = cluster.admin().create_user(new_user("ann", &["access"], &[])).await.unwrap();
    let (router, path) = (router(&cluster), wire::path(wire::WEB_INVITE, invite.token.reveal()));
    for host in ["evil.example", "proxy.example.com:8443", "proxy.example.com@evil.example"] {
        let request = Request::get(&path).header("host", host).body(Body::empty()).unwrap();
        let (answer, page) = send(&router, request).await;
        assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST, "{host}"); // I13
        assert!(!page.contains("ann") && !page.contains(host), "{page}");
    }
    let nameless = Request::get(&path).body(Body::empty()).unwrap();
    assert_eq!(send(&router, nameless).await.0.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(send(&router, show(&path)).await.0.status(), StatusCode::OK);
    assert_eq!(refused(&cluster, "under a name that is not the proxy's").await, 4);
}

// I54
#[tokio::test]
async fn a_page_is_not_shown_in_a_frame_and_that_it_was_asked_for_is_on_record() {
    let cluster = Cluster::start().await;
    let invite = cluster.admin().create_user(new_user("ann", &["access"], &[])).await.unwrap();
    let (router, path) = (router(&cluster), wire::path(wire::WEB_INVITE, invite.token.reveal()));
    for frame in ["iframe", "frame", "embed", "object"] {
        let mut request = show(&path);
        request.headers_mut().insert("sec-fetch-dest", frame.parse().unwrap());
        let (answer, page) = send(&router, request).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{frame}");
        assert!(!page.contains("ann") && !page.contains("<form"), "{page}");
    }
    let mut own = show(&path);
    own.headers_mut().insert("sec-fetch-dest", "document".parse().unwrap());
    let (answer, _) = send(&router, own).await;
    assert_eq!(answer.status(), StatusCode::OK);
    // A browser that says nothing of it is told.
    assert!(answer.headers()["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    assert_eq!(refused(&cluster, "within a page of another site").await, 4);
}

// I40
#[tokio::test]
async fn a_login_whose_answer_is_to_go_elsewhere_is_refused_and_on_record() {
    let cluster = Cluster::start().await;
    let router = router(&cluster);
    let foreign = [
        "https://evil.example/",
        "http://evil.example:1/a",
        "http://127.0.0.1:1@evil.example/a",
        "http://localhost:1/a",
        "http://127.0.0.1.evil.example:1/a",
        "javascript:alert(1)",
        "//evil.example/a",
        "http://127.0.0.1:1\\@evil.example/a",
    ];
    for to in foreign {
        let body = serde_json::json!({
            "redirect": to, "ssh_public_key": "x", "tls_public_key": "x", "answer_key": "x", "host": "laptop",
        });
        let request = Request::post(wire::WEB_LOGINS).header("content-type", "application/json");
        let (answer, said) = send(&router, request.body(Body::from(body.to_string())).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{to}: {said}");
    }
    assert_eq!(refused(&cluster, "elsewhere than to the client's own machine").await, foreign.len());
}

/// How many attempts are on record, with the browser's address, that were refused for this.
async fn refused(cluster: &Cluster, reason: &str) -> usize {
    let events = cluster.events("auth").await;
    let fits = |kind: &AuditKind| {
        let AuditKind::AuthAttempt { error, remote, .. } = kind else { return false };
        error.contains(reason) && remote.as_deref() == Some("192.0.2.9:1234")
    };
    events.iter().filter(|event| fits(&event.kind)).count()
}

#[tokio::test]
async fn nothing_of_the_administration_is_reached_through_the_proxy() {
    let cluster = Cluster::start().await;
    let router = router(&cluster);
    for path in [wire::USERS, wire::EVENTS, wire::TOKENS, wire::JOIN, "/", "/web/invite/"] {
        let (answer, _) = send(&router, Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let (answer, _) = send(&router, show("/web/invite/none")).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let (answer, _) = send(&router, Request::get("/web/style.css").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers()["content-type"], "text/css; charset=utf-8");
}

#[tokio::test]
async fn without_the_clients_address_nothing_is_answered() {
    let cluster = Cluster::start().await;
    let request = Request::get(wire::WEB_PING).body(Body::empty()).unwrap();
    let answer = router(&cluster).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn however_many_ask_for_the_keys_of_tokens_the_auth_service_is_asked_once() {
    let cluster = Cluster::start().await;
    let (service, asked) = (cluster.service.clone(), Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&asked);
    let router = web_router(
        Arc::new(move |addr| {
            count.fetch_add(1, Ordering::SeqCst);
            service.as_caller(Caller::Anonymous { addr })
        }),
        names(),
    );
    for _ in 0..10 {
        let (head, body) = send(&router, Request::get(wire::WEB_JWKS).body(Body::empty()).unwrap()).await;
        let keys: remoteler_core::JwkSet = serde_json::from_str(&body).unwrap();
        assert_eq!((head.status(), keys.keys), (StatusCode::OK, cluster.service.trust_bundle().tokens));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
