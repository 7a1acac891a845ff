//! The page behind a sign-up link: shows for whom it is, takes the password, uses the link up.

use std::sync::Arc;

use axum::{
    Extension, Form,
    extract::{Path, State, rejection::FormRejection},
    response::Response,
};
use data_encoding::BASE64;
use http::{HeaderMap, StatusCode, uri::Authority};
use qrcode::{QrCode, render::svg};
use remoteler_core::{
    ApiError, AuthApi, Invited, OfferedTotp, OsEntropy, SecondFactor, Secret, SignUpRequest, SignedUp, wire,
};
use serde::Deserialize;

use super::{
    ApiForAddress, RemoteAddr,
    pages::{Allowed, Browser, InvitePage, OfferedFactor, SignedUpPage, foreign_form, from_own_page, message, page},
    texts::ENGLISH,
};

/// What the form sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Passwords {
    csrf: Secret,
    password: Secret,
    again: Secret,
    #[serde(default)]
    code: Option<Secret>,
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
        Ok(invited) => form(StatusCode::OK, &browser, &invited, None),
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
    let Ok(Form(Passwords { csrf, password, again, code })) = passwords else {
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
    match api.sign_up(SignUpRequest { token: token.clone(), password, code }).await {
        Ok(SignedUp { user, recovery_codes }) => {
            let command = format!("tsh login --proxy={authority} --user={user}");
            let codes: Vec<&str> = recovery_codes.iter().map(Secret::reveal).collect();
            let done = SignedUpPage { t: &ENGLISH, codes: &codes, command: &command };
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
        Ok(invited) => form(StatusCode::BAD_REQUEST, browser, &invited, Some(error)),
        Err(cause) => failed(&cause),
    }
}

fn form(status: StatusCode, browser: &Browser, invited: &Invited, error: Option<&str>) -> Response {
    // Without an action the form goes to the page's own address, which holds the link's secret.
    let token = browser.form_token(FORM);
    let required = invited.second_factor == SecondFactor::On;
    let factor = invited.totp.as_ref().map(|totp| offered(totp, required));
    let shown = InvitePage { t: &ENGLISH, user: invited.user.as_str(), error, token: &token, factor };
    browser.keep(page(status, &shown, &Allowed::default()))
}

/// The secret as people see it: a picture within the page, and text in groups.
fn offered(totp: &OfferedTotp, required: bool) -> OfferedFactor {
    // The URI is short: a code that holds it exists.
    let image = QrCode::new(totp.uri.reveal()).map(|code| {
        let picture = code.render::<svg::Color<'_>>().min_dimensions(200, 200).quiet_zone(true).build();
        format!("data:image/svg+xml;base64,{}", BASE64.encode(picture.as_bytes()))
    });
    let letters: Vec<char> = totp.secret.reveal().chars().collect();
    let groups: Vec<String> = letters.chunks(4).map(|group| group.iter().collect()).collect();
    OfferedFactor { required, image: image.unwrap_or_default(), secret: groups.join(" ") }
}

fn failed(cause: &ApiError) -> Response {
    message(status(cause), ENGLISH.invite_title, &cause.message)
}

fn status(cause: &ApiError) -> StatusCode {
    StatusCode::from_u16(wire::status(cause.kind)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
