//! The way of a browser to a web application, as pages: from the application's address to a login, if there was none, and back with a one-time code. Owns the cookie
//! that remembers over a login where the browser wanted to go; whether it may, the auth service decides.

use axum::{
    Form, Router,
    extract::{
        Path, Query, Request,
        rejection::{FormRejection, QueryRejection},
    },
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY, SET_COOKIE},
};
use remoteler_core::{AppAddress, AppName, BrowserAction, BrowserAnswer, BrowserView, Secret, wire};
use serde::Deserialize;

use super::{
    ApiForAddress,
    account_pages::{Begun, LOGIN_FORM, forget_session, session},
    login_pages::{failed, shown},
    pages::{Allowed, AppFactorPage, Browser, LaunchGatePage, OnwardPage, cookie, message, page, sentence, set_cookie},
    texts::{ENGLISH, fill},
    visit::Visit,
};
use crate::secret_hash;

/// The cookie that remembers where a browser wanted to go. `__Host-`: only we set it, for this host alone, over TLS. Holds no secret.
const COOKIE_NAME: &str = "__Host-remoteler-launch";
/// As long as the browser's state at the application.
const MAX_AGE: u64 = 600;
/// Longest path that is remembered over a login: cookies have 4,096 octets, and three stand for one.
const MAX_KEPT_PATH: usize = 1024;

pub(super) fn router() -> Router<ApiForAddress> {
    Router::new().route(wire::WEB_LAUNCH, get(open).post(proven))
}

/// Where a browser wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Way {
    app: AppName,
    state: String,
    path: String,
}

#[derive(Deserialize)]
struct Asked {
    state: String,
    #[serde(default)]
    path: String,
}

impl Way {
    fn new(app: &str, state: &str, path: &str) -> Option<Self> {
        let app = app.parse().ok().filter(|_| secret_hash::is_drawn(state))?;
        Some(Self { app, state: state.to_owned(), path: path.to_owned() })
    }

    /// The page that leads there.
    fn url(&self) -> String {
        let page = wire::path(wire::WEB_LAUNCH, self.app.as_str());
        format!("{page}?state={}&path={}", self.state, wire::segment(&self.path))
    }

    /// What the cookie holds: letters, digits, `-._~%`.
    fn kept(&self) -> String {
        let path = if self.path.len() > MAX_KEPT_PATH { "" } else { &self.path };
        format!("{}.{}.{}", self.app, self.state, wire::segment(path))
    }

    fn of(kept: &str) -> Option<Self> {
        let mut parts = kept.splitn(3, '.');
        let (app, state, path) = (parts.next()?, parts.next()?, parts.next()?);
        let path = percent_decode(path)?;
        Self::new(app, state, &path)
    }

    /// A form is of one way (I52).
    fn form(&self) -> String {
        format!("launch {} {}", self.app, self.state)
    }

    fn title(&self, text: &str) -> String {
        fill(text, "app", self.app.as_str())
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            octets.push(*first);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        octets.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(octets).ok()
}

async fn open(
    visit: Visit,
    Path(app): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let Some(way) = asked.ok().and_then(|Query(asked)| Way::new(&app, &asked.state, &asked.path)) else {
        return broken();
    };
    // A code is made for a window that goes there, and for no picture or script of a page (Fetch Metadata).
    let says = |name: &str, expected: &str| headers.get_all(name).iter().all(|value| value == expected);
    if !says("sec-fetch-mode", "navigate") || !says("sec-fetch-dest", "document") {
        return broken();
    }
    let browser = visit.browser_or_new();
    let (session, fields) = (session(&headers), Fields::default());
    let dead = session.is_some();
    match visit.ask_as(Some(&browser), step(&way, session, fields)).await {
        Ok(BrowserAnswer { view, .. }) => browser.keep(answer(&browser, &way, view, dead)),
        Err(cause) => failed(&cause),
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default)]
    csrf: Option<Secret>,
    #[serde(default)]
    code: Option<Secret>,
    #[serde(default)]
    token: Option<Secret>,
    #[serde(default)]
    answer: Option<Secret>,
}

async fn proven(
    visit: Visit,
    Path(app): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
    form: Result<Form<Fields>, FormRejection>,
) -> Response {
    let way = asked.ok().and_then(|Query(asked)| Way::new(&app, &asked.state, &asked.path));
    let (Some(way), Ok(Form(fields))) = (way, form) else { return broken() };
    let csrf = fields.csrf.clone().unwrap_or_else(|| Secret::new(""));
    let browser = match visit.form_of(&way.form(), &csrf) {
        Ok(browser) => browser,
        Err(refused) => return *refused, // I52
    };
    let session = session(&headers);
    let dead = session.is_some();
    match visit.ask(step(&way, session, fields)).await {
        Ok(BrowserAnswer { view, .. }) => answer(browser, &way, view, dead),
        Err(cause) => failed(&cause),
    }
}

fn step(way: &Way, session: Option<Secret>, fields: Fields) -> BrowserAction {
    let Fields { csrf: _, code, token, answer } = fields;
    let code = code.filter(|code| !code.reveal().trim().is_empty());
    let Way { app, state, path } = way.clone();
    BrowserAction::LaunchApp { app: app.to_string(), state, path, session, code, token, answer }
}

fn broken() -> Response {
    message(StatusCode::BAD_REQUEST, ENGLISH.login_title, ENGLISH.launch_broken)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other views are those of logins")]
fn answer(browser: &Browser, way: &Way, view: BrowserView, dead: bool) -> Response {
    match view {
        BrowserView::AppLaunched { origin, code } => launched(&origin, &code),
        BrowserView::NoSession => {
            let title = way.title(ENGLISH.launch_gate_title);
            let gate = LaunchGatePage { t: &ENGLISH, title: &title, token: &browser.form_token(LOGIN_FORM) };
            let gate = page(StatusCode::OK, &gate, &Allowed::default());
            let gate = set_cookie(gate, COOKIE_NAME, &way.kept(), MAX_AGE);
            if dead { forget_session(gate) } else { gate }
        }
        BrowserView::AppFactor { app: _, origin, user, codes, token, options, error } => {
            let Some(origin) = plain_origin(&origin) else { return broken() };
            let error = error.as_deref().map(sentence);
            let title = way.title(ENGLISH.launch_title);
            let key = token.as_ref().zip(options.as_deref());
            let shown = AppFactorPage {
                t: &ENGLISH,
                title: &title,
                error: error.as_deref(),
                user: user.as_str(),
                action: &way.url(),
                csrf: &browser.form_token(&way.form()),
                codes,
                key: key.map(|(token, options)| (token.reveal(), options)),
            };
            let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
            // Browsers hold the redirect that answers a form to the policy for forms.
            page(status, &shown, &Allowed { forms_to: vec![origin], script: key.is_some() })
        }
        view => shown(BrowserAnswer { view, set_browser: None }),
    }
}

/// `https://`, a name and perhaps a port, and nothing else.
fn plain_origin(origin: &str) -> Option<String> {
    Some(AppAddress::parse(origin.strip_prefix("https://")?)?.origin())
}

/// To the application, with the code. No page on the way learns it from the address: the answer has no page, and what follows is told of no referrer.
fn launched(origin: &str, code: &Secret) -> Response {
    let to = plain_origin(origin).filter(|_| secret_hash::is_drawn(code.reveal()));
    let to = to.map(|origin| format!("{origin}{}?code={}", wire::APP_SESSION_PATH, code.reveal()));
    let Some(mut to) = to.and_then(|to| HeaderValue::from_str(&to).ok()) else {
        return message(StatusCode::BAD_GATEWAY, ENGLISH.login_title, ENGLISH.login_nowhere);
    };
    to.set_sensitive(true);
    let headers = [
        (LOCATION, to),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // Whoever opened the window sees no more of it, and so not the code in its address.
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ];
    set_cookie((StatusCode::SEE_OTHER, headers).into_response(), COOKIE_NAME, "", 0)
}

/// Layer of all pages: a login that was begun on the way to an application leads back to that way. By a page and not a redirect, for the login's form may lead
/// nowhere but to us.
pub(super) async fn lead_back(request: Request, next: Next) -> Response {
    let way = cookie(request.headers(), COOKIE_NAME).and_then(Way::of);
    let answer = next.run(request).await;
    let Some(way) = way.filter(|_| answer.extensions().get::<Begun>().is_some()) else { return answer };
    let url = way.url();
    let mut onward = page(StatusCode::OK, &OnwardPage { t: &ENGLISH, url: &url }, &Allowed::default());
    for cookie in answer.headers().get_all(SET_COOKIE) {
        onward.headers_mut().append(SET_COOKIE, cookie.clone());
    }
    set_cookie(onward, COOKIE_NAME, "", 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_over_a_login_is_remembered_as_it_was() {
        let state = "a".repeat(64);
        for path in ["/", "/a.b/c?d=e&f=%20g", "/\u{e4}", ""] {
            let way = Way::new("billing", &state, path).unwrap();
            assert_eq!(Way::of(&way.kept()), Some(way.clone()));
            let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~%".contains(&octet);
            assert!(way.kept().bytes().all(plain), "{}", way.kept());
        }
        let long = Way::new("billing", &state, &"\u{e4}".repeat(2000)).unwrap();
        assert!(long.kept().len() < 4000 && Way::of(&long.kept()).unwrap().path.is_empty());
    }

    #[test]
    fn what_a_browser_brings_that_is_no_way_of_ours_leads_nowhere() {
        let state = "a".repeat(64);
        for bad in [
            "",
            "billing",
            "billing.x./",
            "Billing.{}./",
            "billing.{}",
            "billing.{}.%",
            "billing.{}.%zz",
            "billing.{}.%ff",
        ] {
            assert_eq!(Way::of(&bad.replace("{}", &state)), None, "{bad}");
        }
    }

    #[test]
    fn a_code_goes_to_an_origin_and_to_nothing_that_looks_like_one() {
        let code = Secret::new("b".repeat(64));
        let answer = launched("https://billing.p.example:3080", &code);
        let to = answer.headers()[LOCATION].to_str().unwrap();
        assert_eq!(to, format!("https://billing.p.example:3080/.remoteler/session?code={}", code.reveal()));
        assert_eq!(answer.headers()[REFERRER_POLICY], "no-referrer");
        assert_eq!(answer.headers()["cross-origin-opener-policy"], "same-origin");
        for bad in ["http://a.b", "https://a.b@evil", "https://a.b/x", "https://", "//a.b", "https://a.b?x"] {
            assert!(launched(bad, &code).headers().get(LOCATION).is_none(), "{bad}");
        }
        assert!(launched("https://a.b", &Secret::new("x&y")).headers().get(LOCATION).is_none());
    }
}
