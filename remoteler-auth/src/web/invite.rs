//! The page behind a sign-up link: shows for whom it is, takes the password, uses the link up.

use std::sync::Arc;

use axum::{
    Extension, Form,
    extract::{Path, State, rejection::FormRejection},
    response::Response,
};
use http::{HeaderMap, StatusCode, uri::Authority};
use remoteler_core::{ApiError, AuthApi, OsEntropy, Secret, SignUpRequest, UserName, wire};
use serde::Deserialize;

use super::{
    ApiForAddress, RemoteAddr,
    pages::{Allowed, Browser, InvitePage, SignedUpPage, foreign_form, from_own_page, message, page},
    texts::ENGLISH,
};

/// What the form sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Passwords {
    csrf: Secret,
    password: Secret,
    again: Secret,
}

/// The form's name in its token.
const FORM: &str = "invite";

pub(super) async fn show(
    State(api): State<ApiForAddress>,
    Extension(RemoteAddr(addr)): Extension<RemoteAddr>,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Response {
    let browser = Browser::of_or_new(&headers, &OsEntropy);
    match api(addr).invited_user(Secret::new(token)).await {
        Ok(user) => form(StatusCode::OK, &browser, &user, None),
        Err(cause) => failed(&cause),
    }
}

pub(super) async fn accept(
    State(api): State<ApiForAddress>,
    Extension(RemoteAddr(addr)): Extension<RemoteAddr>,
    Extension(authority): Extension<Authority>,
    Path(token): Path<String>,
    headers: HeaderMap,
    passwords: Result<Form<Passwords>, FormRejection>,
) -> Response {
    if !from_own_page(&headers, &authority) {
        return foreign_form(); // I52
    }
    let Ok(Form(Passwords { csrf, password, again })) = passwords else {
        return message(StatusCode::BAD_REQUEST, ENGLISH.invite_title, ENGLISH.invite_broken);
    };
    let Some(browser) = Browser::of(&headers).filter(|browser| browser.sent(FORM, csrf.reveal())) else {
        return foreign_form(); // I52
    };
    let api = api(addr);
    let token = Secret::new(token);
    if password != again {
        return again_with(&api, &browser, token, ENGLISH.passwords_differ).await;
    }
    match api.sign_up(SignUpRequest { token: token.clone(), password }).await {
        Ok(user) => {
            let command = format!("tsh login --proxy={authority} --user={user}");
            let done = SignedUpPage { t: &ENGLISH, codes: &[], command: &command };
            page(StatusCode::OK, &done, &Allowed::default())
        }
        Err(cause) if status(&cause) == StatusCode::BAD_REQUEST => {
            again_with(&api, &browser, token, &cause.message).await
        }
        Err(cause) => failed(&cause),
    }
}

/// The form again, with what was wrong.
async fn again_with(api: &Arc<dyn AuthApi>, browser: &Browser, token: Secret, error: &str) -> Response {
    match api.invited_user(token).await {
        Ok(user) => form(StatusCode::BAD_REQUEST, browser, &user, Some(error)),
        Err(cause) => failed(&cause),
    }
}

fn form(status: StatusCode, browser: &Browser, user: &UserName, error: Option<&str>) -> Response {
    // Without an action the form goes to the page's own address, which holds the link's secret.
    let token = browser.form_token(FORM);
    let shown = InvitePage { t: &ENGLISH, user: user.as_str(), error, token: &token, factor: None };
    browser.keep(page(status, &shown, &Allowed::default()))
}

fn failed(cause: &ApiError) -> Response {
    message(status(cause), ENGLISH.invite_title, &cause.message)
}

fn status(cause: &ApiError) -> StatusCode {
    StatusCode::from_u16(wire::status(cause.kind)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
