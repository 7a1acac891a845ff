//! The pages of a login through a browser, and the calls of the client that waits for it. Owns which page is shown; what happens in each step is the auth service's to decide.

use std::collections::BTreeMap;

use axum::{
    Extension, Form, Router,
    extract::{
        DefaultBodyLimit, Path, Query, State,
        rejection::{FormRejection, QueryRejection},
    },
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION},
};
use remoteler_core::{
    ApiError, BeginLogin, BrowserAction, BrowserAnswer, BrowserView, ConnectorChoice, LocalChoice, LoginPoll,
    LoopbackUrl, PageRefusal, RedeemLogin, Secret, wire,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    ApiForAddress, RemoteAddr, account_pages, from_outside, logout_pages,
    pages::{
        Allowed, Browser, ConfirmPage, ConnectorLink, DeliverPage, DevicePage, LocalForm, LoginPage, OnwardPage,
        SubmitPage, TouchPage, close, message, on_record, page, plain, sentence,
    },
    texts::ENGLISH,
    visit::Visit,
};
use crate::{
    failure::bad_request,
    http::{Input, json},
};

/// What `tsh` calls.
pub(super) fn calls() -> Router<ApiForAddress> {
    Router::new()
        .route(wire::WEB_LOGIN_METHODS, get(methods))
        .route(wire::WEB_LOGINS, post(begin))
        .route(wire::WEB_LOGIN_POLL, post(poll))
        .route(wire::WEB_LOGIN_REDEEM, post(redeem))
}

/// What browsers open; shown under the proxy's own names only.
pub(super) fn router() -> Router<ApiForAddress> {
    Router::new()
        .route(wire::WEB_LOGIN_PAGE, get(open))
        .route(wire::WEB_LOGIN_LOCAL, post(local))
        .route(wire::WEB_LOGIN_KEY, post(key))
        .route(wire::WEB_LOGIN_CALLBACK, get(callback).merge(post(posted).layer(DefaultBodyLimit::max(MAX_POSTED))))
        .route(wire::WEB_SAML_METADATA, get(saml_metadata))
        .route(wire::WEB_LOGIN_CONFIRM, get(review).post(decide))
        .route(wire::WEB_DEVICE, get(device).post(enter_code))
        .route(wire::WEB_LOGOUT, get(logout_pages::begin))
        .route(wire::WEB_LOGGED_OUT, get(logout_pages::done))
        .route(wire::WEB_LOGIN_DONE, get(async || close()))
}

type Api = State<ApiForAddress>;
type Remote = Extension<RemoteAddr>;

async fn methods(State(api): Api, Extension(RemoteAddr(addr)): Remote) -> Response {
    json(api(addr).login_methods().await.map_err(from_outside))
}

async fn begin(State(api): Api, Extension(RemoteAddr(addr)): Remote, Input(request): Input<Value>) -> Response {
    // Looked at by itself: an answer that was to go elsewhere is an attack and not a slip of the pen (I40).
    let foreign = request.get("redirect").and_then(Value::as_str).and_then(|to| to.parse::<LoopbackUrl>().err());
    if let Some(cause) = foreign {
        on_record(&api, addr, PageRefusal::ForeignRedirect).await;
        return json::<()>(Err(bad_request(cause.to_string())));
    }
    let request: BeginLogin = match serde_json::from_value(request) {
        Ok(request) => request,
        Err(cause) => return json::<()>(Err(bad_request(format!("the request does not parse: {cause}")))),
    };
    let request = BeginLogin { client_addr: Some(addr.to_string()), ..request };
    json(api(addr).begin_login(request).await.map_err(from_outside))
}

async fn poll(State(api): Api, Extension(RemoteAddr(addr)): Remote, Input(request): Input<LoginPoll>) -> Response {
    json(api(addr).poll_login(request).await.map_err(from_outside))
}

async fn redeem(State(api): Api, Extension(RemoteAddr(addr)): Remote, Input(request): Input<RedeemLogin>) -> Response {
    let request = RedeemLogin { client_addr: Some(addr.to_string()), ..request };
    json(api(addr).redeem_login(request).await.map_err(from_outside))
}

#[derive(Deserialize)]
struct Chosen {
    connector: Option<String>,
}

async fn open(visit: Visit, Path(id): Path<String>, Query(Chosen { connector }): Query<Chosen>) -> Response {
    visit.step(BrowserAction::Open { id, connector }).await
}

async fn callback(
    visit: Visit,
    Path(connector): Path<String>,
    params: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Response {
    let params = params.ok().and_then(|Query(pairs)| {
        let count = pairs.len();
        let params: BTreeMap<String, String> = pairs.into_iter().collect();
        // A parameter that stands there twice is read in two ways (RFC 6749 section 3.1).
        (params.len() == count && count <= 20).then_some(params)
    });
    match params {
        Some(params) => visit.step(BrowserAction::Callback { connector, params }).await,
        None => message(StatusCode::BAD_REQUEST, ENGLISH.login_title, ENGLISH.login_unreadable),
    }
}

/// What an identity provider of SAML posts through the browser: 256 KiB in base64, escaped.
const MAX_POSTED: usize = 512 * 1024;

/// Of another site, as it must be: it brings no cookie. What it says is judged, and the browser then asked to come back with its cookie.
async fn posted(
    visit: Visit,
    Path(connector): Path<String>,
    form: Result<Form<Vec<(String, String)>>, FormRejection>,
) -> Response {
    let field = |form: &[(String, String)], name: &str| {
        let mut values = form.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone());
        values.next().filter(|_| values.next().is_none())
    };
    let fields = form.ok().and_then(|Form(form)| Some((field(&form, "SAMLResponse")?, field(&form, "RelayState")?)));
    let Some((response, state)) = fields else {
        return message(StatusCode::BAD_REQUEST, ENGLISH.login_title, ENGLISH.login_unreadable);
    };
    let params = BTreeMap::from([("SAMLResponse".to_owned(), response), ("state".to_owned(), state)]);
    visit.step(BrowserAction::Callback { connector, params }).await
}

async fn saml_metadata(visit: Visit, Path(connector): Path<String>) -> Response {
    visit.step(BrowserAction::SamlMetadata { connector }).await
}

async fn review(visit: Visit, Path(id): Path<String>) -> Response {
    visit.step(BrowserAction::Review { id }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    token: Secret,
    decision: String,
}

async fn decide(visit: Visit, Path(id): Path<String>, form: Result<Form<Decision>, FormRejection>) -> Response {
    let Ok(Form(Decision { token, decision })) = form else {
        return message(StatusCode::BAD_REQUEST, ENGLISH.login_title, ENGLISH.login_broken);
    };
    let approve = decision == "approve";
    visit.form(BrowserAction::Decide { id, token, approve }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Local {
    token: Secret,
    user: String,
    password: Secret,
    #[serde(default)]
    code: Option<Secret>,
}

async fn local(visit: Visit, Path(id): Path<String>, form: Result<Form<Local>, FormRejection>) -> Response {
    let Ok(Form(Local { token, user, password, code })) = form else {
        return message(StatusCode::BAD_REQUEST, ENGLISH.login_title, ENGLISH.login_broken);
    };
    let code = code.filter(|code| !code.reveal().trim().is_empty());
    let step = BrowserAction::Password { id, token, user, password, code };
    visit.form(step).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Touched {
    token: Secret,
    #[serde(default)]
    answer: Option<Secret>,
    #[serde(default)]
    code: Option<Secret>,
}

async fn key(visit: Visit, Path(id): Path<String>, form: Result<Form<Touched>, FormRejection>) -> Response {
    let Ok(Form(Touched { token, answer, code })) = form else {
        return message(StatusCode::BAD_REQUEST, ENGLISH.login_title, ENGLISH.login_broken);
    };
    let [answer, code] = [answer, code].map(|field| field.filter(|text| !text.reveal().trim().is_empty()));
    visit.form(BrowserAction::Key { id, token, answer, code }).await
}

/// The form's name in its token.
const DEVICE_FORM: &str = "device";

async fn device(visit: Visit) -> Response {
    let browser = visit.browser_or_new();
    let token = browser.form_token(DEVICE_FORM);
    let shown = DevicePage { t: &ENGLISH, error: None, code: "", action: wire::WEB_DEVICE, token: &token };
    browser.keep(page(StatusCode::OK, &shown, &Allowed::default()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Code {
    csrf: Secret,
    code: String,
}

async fn enter_code(visit: Visit, form: Result<Form<Code>, FormRejection>) -> Response {
    let Ok(Form(Code { csrf, code })) = form else {
        return message(StatusCode::BAD_REQUEST, ENGLISH.device_title, ENGLISH.invite_broken);
    };
    visit.own_form(DEVICE_FORM, &csrf, BrowserAction::EnterCode { code }).await
}

/// The page, or the way to the next one, that a step led to.
pub(super) fn shown(answer: BrowserAnswer) -> Response {
    let response = match answer.view {
        BrowserView::Redirect { to } => redirect(&to),
        BrowserView::Choose { id, connectors, local, account } => choose(&id, &connectors, local.as_ref(), account),
        BrowserView::Confirm { id, user, host, address, code, token } => {
            let action = wire::path(wire::WEB_LOGIN_CONFIRM, &id);
            let (host, address) = (plain(&host), plain(&address));
            let shown = ConfirmPage {
                t: &ENGLISH,
                user: user.as_str(),
                host: &host,
                address: &address,
                code: &code,
                action: &action,
                token: token.reveal(),
            };
            page(StatusCode::OK, &shown, &Allowed::default())
        }
        BrowserView::Deliver { redirect, answer } => deliver(&redirect, answer.as_deref()),
        BrowserView::SamlMetadata { document } => {
            let kind = HeaderValue::from_static("application/samlmetadata+xml");
            ([(CONTENT_TYPE, kind)], document).into_response()
        }
        BrowserView::Touch { id, token, options, code, error } => touch(&id, &token, &options, code, error.as_deref()),
        BrowserView::SessionBegun { session } => account_pages::begun(&session),
        // Answers to other pages than those of a login.
        BrowserView::KeyOffer { .. }
        | BrowserView::Nothing
        | BrowserView::SignedUp(_)
        | BrowserView::NoSession
        | BrowserView::Account(_)
        | BrowserView::TotpOffer(_)
        | BrowserView::SessionTouch { .. }
        | BrowserView::AppLaunched { .. }
        | BrowserView::AppFactor { .. }
        | BrowserView::Codes(_) => message(StatusCode::BAD_GATEWAY, ENGLISH.login_title, ENGLISH.login_nowhere),
        BrowserView::Finished { success: true, message: text } => message(StatusCode::OK, ENGLISH.close_title, &text),
        BrowserView::Finished { success: false, message: text } => {
            message(StatusCode::OK, ENGLISH.refused_title, &text)
        }
        BrowserView::Submit { to, fields } => submit(&to, &fields),
    };
    match answer.set_browser.and_then(|secret| Browser::with(&secret)) {
        Some(browser) => browser.keep(response),
        None => response,
    }
}

/// To an identity provider or to a page of ours; to nothing else.
fn redirect(to: &str) -> Response {
    let ours = to.starts_with("/web/") && !to.contains("//") && !to.contains('\\');
    // Two readers of one URL differ in what they leave out and in what stands before an "@": there is nothing of either.
    let plain =
        |uri: http::Uri| !to.contains(['\t', '#']) && !uri.authority().is_some_and(|all| all.as_str().contains('@'));
    // A URL is ASCII (RFC 3986, 2): what is not has each reader's own meaning.
    let leads = to.is_ascii() && (ours || to.starts_with("https://")) && to.parse().is_ok_and(plain);
    match HeaderValue::from_str(to).ok().filter(|_| leads) {
        // That page may lead on to an identity provider, where a form's answer may not lead: browsers hold redirects of a form to the policy for forms.
        Some(_) if leads_on(to) => page(StatusCode::OK, &OnwardPage { t: &ENGLISH, url: to }, &Allowed::default()),
        Some(to) => {
            let headers = [(LOCATION, to), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
            (StatusCode::SEE_OTHER, headers).into_response()
        }
        None => message(StatusCode::BAD_GATEWAY, ENGLISH.login_title, ENGLISH.login_nowhere),
    }
}

/// A form that goes to an identity provider and to nowhere else: by itself, or by a click where scripts do not run.
fn submit(to: &str, fields: &BTreeMap<String, String>) -> Response {
    let authority = to.parse::<http::Uri>().ok().filter(|_| to.starts_with("https://")).and_then(|uri| {
        let authority = uri.authority()?.as_str().to_owned();
        (!authority.contains('@')).then_some(authority)
    });
    let Some(authority) = authority else {
        return message(StatusCode::BAD_GATEWAY, ENGLISH.login_title, ENGLISH.login_nowhere);
    };
    let provider = plain(authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host));
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let allowed = Allowed { forms_to: vec![format!("https://{authority}")], script: true };
    page(StatusCode::OK, &SubmitPage { t: &ENGLISH, action: to, provider: &provider, fields: &fields }, &allowed)
}

/// Whether this is the page of a login, and no page behind it.
fn leads_on(to: &str) -> bool {
    let id = wire::WEB_LOGIN_PAGE.split('{').next().and_then(|prefix| to.strip_prefix(prefix));
    id.is_some_and(|id| !id.is_empty() && id.bytes().all(|c| c.is_ascii_alphanumeric()))
}

fn choose(id: &str, connectors: &[ConnectorChoice], local: Option<&LocalChoice>, account: bool) -> Response {
    let here = wire::path(wire::WEB_LOGIN_PAGE, id);
    let links: Vec<ConnectorLink> = connectors
        .iter()
        .map(|each| ConnectorLink {
            display: each.display.clone(),
            href: format!("{here}?connector={}", wire::segment(&each.name)),
        })
        .collect();
    let action = wire::path(wire::WEB_LOGIN_LOCAL, id);
    let form = |local: &LocalChoice| (plain(&local.user), local.token.reveal().to_owned(), local.code);
    let form = local.map(form);
    let form = form.as_ref().map(|(user, token, code)| LocalForm { action: &action, token, user, code: *code });
    let error = local.and_then(|local| local.error.as_deref()).map(sentence);
    let error = error.as_deref();
    let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let purpose = if account { ENGLISH.login_account } else { ENGLISH.login_purpose };
    let shown = LoginPage { t: &ENGLISH, purpose, error, connectors: &links, local: form };
    page(status, &shown, &Allowed::default())
}

fn touch(id: &str, token: &Secret, options: &str, code: bool, error: Option<&str>) -> Response {
    let action = wire::path(wire::WEB_LOGIN_KEY, id);
    let error = error.map(sentence);
    let error = error.as_deref();
    let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let text = ENGLISH.touch_text;
    let shown =
        TouchPage { t: &ENGLISH, text, error, action: &action, csrf: None, token: token.reveal(), options, code };
    page(status, &shown, &Allowed::keys())
}

/// The browser goes to the listener by itself, or by a click: a redirect of the form's answer would be held up by the policy for forms.
fn deliver(to: &LoopbackUrl, answer: Option<&str>) -> Response {
    let query = answer.map_or_else(|| "error=declined".to_owned(), |answer| format!("answer={answer}"));
    let (url, approved) = (format!("{to}?{query}"), answer.is_some());
    page(StatusCode::OK, &DeliverPage { t: &ENGLISH, url: &url, approved }, &Allowed::default())
}

/// What went wrong in a step.
pub(super) fn failed(cause: &ApiError) -> Response {
    let status = StatusCode::from_u16(wire::status(cause.kind)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Browsers ask for a password of their own at 401.
    let status = if status == StatusCode::UNAUTHORIZED { StatusCode::FORBIDDEN } else { status };
    message(status, ENGLISH.login_title, &cause.message)
}

#[cfg(test)]
mod tests {
    use webauthn_rs::prelude::Url;

    use super::*;

    #[tokio::test]
    async fn a_form_leads_to_the_page_of_a_login_without_a_redirect() {
        // Chrome and Safari hold each redirect of a form to form-action, and that page may redirect to an identity provider.
        let view = BrowserView::Redirect { to: "/web/login/0af9".into() };
        let answer = shown(BrowserAnswer { view, set_browser: None });
        assert_eq!((answer.status(), answer.headers().get(LOCATION)), (StatusCode::OK, None));
        let text = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(
            text.contains("content=\"0;url=/web/login/0af9\"") && text.contains("href=\"/web/login/0af9\""),
            "{text}"
        );
    }

    #[test]
    fn a_browser_is_sent_to_https_or_to_pages_of_ours_and_nowhere_else() {
        // I40, I54
        for right in ["https://idp.example.com/auth?x=1", "/web/login/1/confirm"] {
            assert_eq!(redirect(right).headers()[LOCATION], right);
        }
        for wrong in [
            "http://idp.example.com/",
            "javascript:alert(1)",
            "data:text/html,x",
            "//evil.example/",
            "/web//evil.example",
            "/web/\\evil.example",
            "/\\evil.example",
            "https:/\r\nX: y",
            "",
            "https://",
            "https:evil.example",
            "https:///evil.example",
            "https://user@evil.example/",
            "https://idp.example.com:443@evil.example/",
            "https://idp.example.com\\@evil.example/",
            "https://evil\t.example/",
            "\thttps://evil.example/",
            "https://idp.example.com/#/evil",
            "https://\u{445}n--evil.example/",
            "https://idp.example.com/\u{9d7}",
            "/web/\u{ff0f}evil.example",
            "/web/\t/evil.example",
            "/web/#//evil.example",
            "HTTPS://evil.example/",
            "/webx/",
        ] {
            let answer = redirect(wrong);
            assert!(answer.headers().get(LOCATION).is_none(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn wherever_a_browser_is_sent_it_reads_the_host_that_was_written(
            begin in "(https://|https:/|https:|/web/|/web|//|/|)",
            rest in "([a-z.@:/\\\\?#\t%\\[\\]]|xn--|\\PC){0,24}",
        ) {
            // I40
            let to = format!("{begin}{rest}");
            let answer = redirect(&to);
            let here = Url::parse("https://proxy.example.com/web/login/1/local").unwrap();
            let location = answer.headers().get(LOCATION).map(|to| to.to_str().unwrap());
            // What a browser cannot read leads nowhere.
            if let Some(read) = location.and_then(|to| here.join(to).ok()) {
                proptest::prop_assert!(read.scheme() == "https" && read.username().is_empty() && read.password().is_none());
                if to.starts_with('/') {
                    proptest::prop_assert_eq!(read.origin(), here.origin(), "{}", to);
                }
                let written = to.parse::<http::Uri>().unwrap();
                let plain = |host: &&str| host.chars().all(|c| c.is_ascii_alphabetic() || c == '.');
                if let Some(host) = written.host().filter(plain) {
                    let host = host.to_lowercase();
                    proptest::prop_assert_eq!(read.host_str(), Some(host.as_str()), "{}", to);
                }
            }
        }
    }

    #[test]
    fn a_form_for_a_provider_goes_to_that_provider_and_nowhere_else() {
        // I54
        let fields = BTreeMap::from([("SAMLRequest".to_owned(), "\"><script>".to_owned())]);
        let answer = submit("https://idp.example.com:8443/sso?tenant=1", &fields);
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("form-action 'self' https://idp.example.com:8443;"), "{policy}");
        assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"), "{policy}");
        for wrong in
            ["http://idp.example.com/", "https://u@idp.example.com/", "javascript:alert(1)", "/web/x", "", "https://"]
        {
            assert_eq!(submit(wrong, &fields).status(), StatusCode::BAD_GATEWAY, "{wrong}");
        }
    }
}
