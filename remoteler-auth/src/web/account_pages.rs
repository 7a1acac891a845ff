//! The account page and its forms. Owns the cookie of a web session (I50) and which page follows; who may do what, the auth service decides.

use axum::{
    Form, Router,
    extract::{Path, rejection::FormRejection},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, LOCATION, USER_AGENT},
};
use remoteler_core::{Account, AccountWish, ApiError, ApiErrorKind, BrowserAction, BrowserView, Secret, wire};
use serde::Deserialize;

use super::{
    ApiForAddress,
    invite::offered,
    login_pages::{failed, shown},
    pages::{
        AccountGatePage, AccountPage, AddAppPage, AddKeyPage, Allowed, CodesPage, OfferedKey, OnwardPage, TouchPage,
        cookie, message, page, sentence, set_cookie,
    },
    texts::ENGLISH,
    visit::Visit,
};
use crate::secret_hash;

/// The cookie of a web session. `__Host-`: only we set it, for this host alone, over TLS.
const COOKIE_NAME: &str = "__Host-remoteler-session";
/// Longer than any session.
const MAX_AGE: u64 = 24 * 3600;
/// Form that begins a login: there is no session it could belong to.
pub(super) const LOGIN_FORM: &str = "account login";
/// Most that is kept of what a browser says it is.
const MAX_AGENT: usize = 120;

pub(super) fn router() -> Router<ApiForAddress> {
    Router::new().route(wire::WEB_ACCOUNT, get(show)).route(wire::WEB_ACCOUNT_FORM, post(changed))
}

/// A login has begun a session: the browser gets its cookie and goes on to the account page.
pub(super) fn begun(session: &Secret) -> Response {
    if !secret_hash::is_drawn(session.reveal()) {
        return message(StatusCode::BAD_GATEWAY, ENGLISH.account_title, ENGLISH.login_nowhere);
    }
    let mut answer = set_cookie(to_account(None), COOKIE_NAME, session.reveal(), MAX_AGE);
    answer.extensions_mut().insert(Begun);
    answer
}

/// Marks the answer that begins a session: whoever came to go elsewhere is led there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun;

/// `answer`, with the cookie of a session taken away that counts nowhere any more (I50).
pub(super) fn forget_session(answer: Response) -> Response {
    set_cookie(answer, COOKIE_NAME, "", 0)
}

/// What forms send; each uses some of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    csrf: Secret,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    code: Option<Secret>,
    #[serde(default)]
    token: Option<Secret>,
    #[serde(default)]
    answer: Option<Secret>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    password: Option<Secret>,
    #[serde(default)]
    new_password: Option<Secret>,
    #[serde(default)]
    again: Option<Secret>,
}

/// The session that a browser shows.
pub(super) fn session(headers: &HeaderMap) -> Option<Secret> {
    cookie(headers, COOKIE_NAME).map(Secret::new)
}

/// What is said once on the page that a form leads to.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    done: Option<String>,
}

async fn show(
    visit: Visit,
    axum::extract::Query(Said { done }): axum::extract::Query<Said>,
    headers: HeaderMap,
) -> Response {
    let session = session(&headers);
    let done = done.as_deref().and_then(done_text);
    match ask(&visit, session.as_ref(), &headers, AccountWish::Show).await {
        Ok(BrowserView::Account(account)) => account_page(&visit, session.as_ref(), &account, None, done),
        Ok(view) => answer(&visit, session.as_ref(), view, None),
        Err(cause) => failed(&cause),
    }
}

async fn changed(
    visit: Visit,
    Path(form): Path<String>,
    headers: HeaderMap,
    fields: Result<Form<Fields>, FormRejection>,
) -> Response {
    let broken = || message(StatusCode::BAD_REQUEST, ENGLISH.account_title, ENGLISH.account_broken);
    let Ok(Form(mut fields)) = fields else { return broken() };
    let session = session(&headers);
    let name = if form == "login" { LOGIN_FORM.to_owned() } else { form_name(session.as_ref()) };
    if let Err(refused) = visit.form_of(&name, &fields.csrf) {
        return *refused; // I52
    }
    // Password managers send the field that tells them whose password it is.
    fields.user = None;
    if form == "password" && fields.new_password != fields.again {
        return again(&visit, session.as_ref(), &headers, ENGLISH.passwords_differ).await;
    }
    let Some((wish, done)) = wish(&form, fields) else { return broken() };
    match ask(&visit, session.as_ref(), &headers, wish).await {
        Ok(view) => answer(&visit, session.as_ref(), view, done),
        Err(cause) if is_for_page(&cause) => again(&visit, session.as_ref(), &headers, &sentence(&cause.message)).await,
        Err(cause) => failed(&cause),
    }
}

/// What a form asks for, and what is said when it is done.
fn wish(form: &str, fields: Fields) -> Option<(AccountWish, Option<&'static str>)> {
    Some(match form {
        "login" => (AccountWish::LogIn, None),
        "logout" => (AccountWish::LogOut, None),
        "app" => (AccountWish::OfferTotp, None),
        "app-add" => (AccountWish::AddTotp { name: fields.name?, code: fields.code? }, Some("factor")),
        "key" => (AccountWish::OfferKey, None),
        "key-add" => {
            (AccountWish::AddKey { name: fields.name?, token: fields.token?, answer: fields.answer? }, Some("factor"))
        }
        "remove" => (AccountWish::RemoveFactor { name: fields.name? }, Some("removed")),
        "end" => (AccountWish::EndSession { id: fields.id? }, Some("ended")),
        "revoke" => (AccountWish::RevokeCertificates, Some("revoked")),
        "password" => {
            let (password, new_password) = (fields.password?, fields.new_password?);
            (AccountWish::ChangePassword { password, new_password }, Some("password"))
        }
        "prove" => (AccountWish::ProveByCode { code: fields.code? }, Some("proven")),
        "ask-key" => (AccountWish::AskKey, None),
        "prove-key" => (AccountWish::ProveByKey { token: fields.token?, answer: fields.answer? }, Some("proven")),
        _ => return None,
    })
}

fn done_text(done: &str) -> Option<&'static str> {
    match done {
        "factor" => Some(ENGLISH.account_done_factor),
        "removed" => Some(ENGLISH.account_done_removed),
        "ended" => Some(ENGLISH.account_done_ended),
        "revoked" => Some(ENGLISH.account_done_revoked),
        "password" => Some(ENGLISH.account_done_password),
        "proven" => Some(ENGLISH.account_done_proven),
        _ => None,
    }
}

/// The name of the forms of a session: a form of another session, also of the same browser, is not taken (I52).
fn form_name(session: Option<&Secret>) -> String {
    format!("account {}", session.map(secret_hash::hash).unwrap_or_default())
}

async fn ask(
    visit: &Visit,
    session: Option<&Secret>,
    headers: &HeaderMap,
    wish: AccountWish,
) -> Result<BrowserView, ApiError> {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let agent = agent.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_AGENT).collect();
    let step = BrowserAction::Account { session: session.cloned(), agent, wish };
    let browser = visit.browser_or_new();
    visit.ask_as(Some(&browser), step).await.map(|answer| answer.view)
}

/// The page after a form.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other views are those of logins")]
fn answer(visit: &Visit, session: Option<&Secret>, view: BrowserView, done: Option<&'static str>) -> Response {
    let browser = visit.browser_or_new();
    let token = browser.form_token(&form_name(session));
    match view {
        BrowserView::NoSession => {
            let gate = AccountGatePage { t: &ENGLISH, token: &browser.form_token(LOGIN_FORM) };
            // I50: what the browser has counts nowhere any more.
            let gate = page(StatusCode::OK, &gate, &Allowed::default());
            browser.keep(if session.is_some() { forget_session(gate) } else { gate })
        }
        BrowserView::Account(_) => to_account(done),
        BrowserView::Codes(added) if added.recovery_codes.is_empty() => to_account(done),
        BrowserView::Codes(added) => {
            let codes: Vec<&str> = added.recovery_codes.iter().map(Secret::reveal).collect();
            page(StatusCode::OK, &CodesPage { t: &ENGLISH, codes: &codes }, &Allowed::default())
        }
        BrowserView::TotpOffer(totp) => {
            let shown = AddAppPage { t: &ENGLISH, token: &token, factor: offered(&totp) };
            page(StatusCode::OK, &shown, &Allowed::default())
        }
        BrowserView::KeyOffer { token: offer, options } => {
            let key = OfferedKey { token: offer.reveal().to_owned(), options };
            page(StatusCode::OK, &AddKeyPage { t: &ENGLISH, token: &token, key }, &Allowed::keys())
        }
        BrowserView::Touch { id: _, token: question, options, code, error } => {
            let error = error.as_deref().map(sentence);
            let action = format!("{}/prove-key", wire::WEB_ACCOUNT);
            let shown = TouchPage {
                t: &ENGLISH,
                text: ENGLISH.account_touch_text,
                error: error.as_deref(),
                action: &action,
                csrf: Some(&token),
                token: question.reveal(),
                options: &options,
                code,
            };
            let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
            page(status, &shown, &Allowed::keys())
        }
        BrowserView::Redirect { to } if to.starts_with("/web/login/") => {
            page(StatusCode::OK, &OnwardPage { t: &ENGLISH, url: &to }, &Allowed::default())
        }
        view => shown(remoteler_core::BrowserAnswer { view, set_browser: None }),
    }
}

/// The account page, with what was wrong.
async fn again(visit: &Visit, session: Option<&Secret>, headers: &HeaderMap, error: &str) -> Response {
    match ask(visit, session, headers, AccountWish::Show).await {
        Ok(BrowserView::Account(account)) => account_page(visit, session, &account, Some(error), None),
        Ok(view) => answer(visit, session, view, None),
        Err(cause) => failed(&cause),
    }
}

fn account_page(
    visit: &Visit,
    session: Option<&Secret>,
    account: &Account,
    error: Option<&str>,
    done: Option<&str>,
) -> Response {
    let browser = visit.browser_or_new();
    let (token, login) = (browser.form_token(&form_name(session)), browser.form_token(LOGIN_FORM));
    let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let shown = AccountPage::new(&ENGLISH, account, &token, &login, error, done);
    browser.keep(page(status, &shown, &Allowed::default()))
}

/// To the account page: a form that was sent is not sent again by who loads the page again.
fn to_account(done: Option<&'static str>) -> Response {
    let to = done.map_or_else(|| wire::WEB_ACCOUNT.to_owned(), |done| format!("{}?done={done}", wire::WEB_ACCOUNT));
    let to = HeaderValue::from_str(&to).unwrap_or(HeaderValue::from_static(wire::WEB_ACCOUNT));
    let headers = [(LOCATION, to), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// What the person can mend.
fn is_for_page(cause: &ApiError) -> bool {
    matches!(
        cause.kind,
        ApiErrorKind::BadRequest
            | ApiErrorKind::Unauthenticated
            | ApiErrorKind::Denied
            | ApiErrorKind::Conflict
            | ApiErrorKind::NotFound
            | ApiErrorKind::RateLimited
    )
}
