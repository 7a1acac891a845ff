//! The page on which a security key is touched for one session. Owns its form; what is asked and what an answer proves, the auth service decides.

use axum::{
    Form, Router,
    extract::{Path, rejection::FormRejection},
    response::Response,
    routing::get,
};
use http::StatusCode;
use remoteler_core::{BrowserAction, BrowserAnswer, BrowserView, Secret, wire};
use serde::Deserialize;

use super::{
    ApiForAddress,
    login_pages::{failed, shown},
    pages::{Allowed, Browser, SessionPage, message, page, plain, sentence},
    texts::ENGLISH,
    visit::Visit,
};

pub(super) fn router() -> Router<ApiForAddress> {
    Router::new().route(wire::WEB_SESSION, get(open).post(touched))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Touched {
    csrf: Secret,
    token: Secret,
    answer: Secret,
}

async fn open(visit: Visit, Path(id): Path<String>) -> Response {
    let browser = visit.browser_or_new();
    match visit.ask_as(Some(&browser), BrowserAction::OpenSession { id }).await {
        Ok(BrowserAnswer { view, .. }) => browser.keep(answer(&browser, view)),
        Err(cause) => failed(&cause),
    }
}

async fn touched(visit: Visit, Path(id): Path<String>, form: Result<Form<Touched>, FormRejection>) -> Response {
    let Ok(Form(Touched { csrf, token, answer: said })) = form else {
        return message(StatusCode::BAD_REQUEST, ENGLISH.session_title, ENGLISH.account_broken);
    };
    let browser = match visit.form_of(&form_name(&id), &csrf) {
        Ok(browser) => browser,
        Err(refused) => return *refused, // I52
    };
    match visit.ask(BrowserAction::TouchSession { id, token, answer: said }).await {
        Ok(BrowserAnswer { view, .. }) => answer(browser, view),
        Err(cause) => failed(&cause),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other views are those of logins")]
fn answer(browser: &Browser, view: BrowserView) -> Response {
    match view {
        BrowserView::SessionTouch { id, user, place, login, address, code, token, options, error } => {
            let error = error.as_deref().map(sentence);
            let (place, login, address) = (plain(&place), login.as_deref().map(plain), address.as_deref().map(plain));
            let page_of = SessionPage {
                t: &ENGLISH,
                error: error.as_deref(),
                user: user.as_str(),
                place: &place,
                login: login.as_deref(),
                address: address.as_deref(),
                code: &code,
                action: &wire::path(wire::WEB_SESSION, &id),
                csrf: &browser.form_token(&form_name(&id)),
                token: token.reveal(),
                options: &options,
            };
            let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
            page(status, &page_of, &Allowed::keys())
        }
        view => shown(BrowserAnswer { view, set_browser: None }),
    }
}

/// A form is of one session's page (I52).
fn form_name(id: &str) -> String {
    format!("session {id}")
}
