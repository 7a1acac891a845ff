//! The page behind a sign-up link: shows for whom it is, takes the password, uses the link up.

use axum::{
    Form,
    extract::{Path, rejection::FormRejection},
    response::Response,
};
use data_encoding::BASE64;
use http::StatusCode;
use qrcode::{QrCode, render::svg};
use remoteler_core::{
    ApiError, ApiErrorKind, BrowserAction, BrowserAnswer, BrowserView, Invited, OfferedTotp, Secret, SignUpRequest,
    SignedUp, wire,
};
use serde::Deserialize;

use super::{
    pages::{Allowed, Browser, InvitePage, OfferedFactor, OfferedKey, SignedUpPage, message, page, sentence},
    texts::ENGLISH,
    visit::Visit,
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
    #[serde(default)]
    key_token: Option<Secret>,
    #[serde(default)]
    key_answer: Option<Secret>,
}

/// The form's name in its token.
const FORM: &str = "invite";

pub(super) async fn show(visit: Visit, Path(token): Path<String>) -> Response {
    again_with(&visit, Secret::new(token), None).await
}

pub(super) async fn accept(
    visit: Visit,
    Path(token): Path<String>,
    passwords: Result<Form<Passwords>, FormRejection>,
) -> Response {
    let Ok(Form(Passwords { csrf, password, again, code, key_token, key_answer })) = passwords else {
        return message(StatusCode::BAD_REQUEST, ENGLISH.invite_title, ENGLISH.invite_broken);
    };
    if let Err(refused) = visit.form_of(FORM, &csrf) {
        return *refused;
    }
    let token = Secret::new(token);
    if password != again {
        return again_with(&visit, token, Some(ENGLISH.passwords_differ)).await;
    }
    let answer = key_answer.filter(|answer| !answer.reveal().is_empty());
    let signed_up = match key_token.zip(answer) {
        Some((key, answer)) => {
            let step = BrowserAction::SignUpByKey { invite: token.clone(), password, token: key, answer };
            visit.ask(step).await.and_then(|answer| signed_up(answer.view))
        }
        None => visit.api().sign_up(SignUpRequest { token: token.clone(), password, code }).await,
    };
    match signed_up {
        Ok(SignedUp { user, recovery_codes }) => {
            let command = format!("tsh login --proxy={} --user={user}", visit.authority());
            let codes: Vec<&str> = recovery_codes.iter().map(Secret::reveal).collect();
            let done = SignedUpPage { t: &ENGLISH, codes: &codes, command: &command };
            page(StatusCode::OK, &done, &Allowed::default())
        }
        Err(cause) if status(&cause) == StatusCode::BAD_REQUEST => {
            again_with(&visit, token, Some(&sentence(&cause.message))).await
        }
        Err(cause) => failed(&cause),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a sign-up has one answer")]
fn signed_up(view: BrowserView) -> Result<SignedUp, ApiError> {
    match view {
        BrowserView::SignedUp(signed_up) => Ok(signed_up),
        _ => Err(ApiError::new(ApiErrorKind::Internal, "the sign-up was answered with another page; try again")),
    }
}

/// The form, with what was wrong before.
async fn again_with(visit: &Visit, token: Secret, error: Option<&str>) -> Response {
    let invited = match visit.api().invited_user(token.clone()).await {
        Ok(invited) => invited,
        Err(cause) => return failed(&cause),
    };
    let browser = visit.browser_or_new();
    let key = match visit.ask_as(Some(&browser), BrowserAction::OfferKey { invite: token }).await {
        Ok(BrowserAnswer { view: BrowserView::KeyOffer { token, options }, .. }) => {
            Some(OfferedKey { token: token.reveal().to_owned(), options })
        }
        Ok(_) => None,
        Err(cause) => return failed(&cause),
    };
    form(&browser, &invited, key, error)
}

fn form(browser: &Browser, invited: &Invited, key: Option<OfferedKey>, error: Option<&str>) -> Response {
    // Without an action the form goes to the page's own address, which holds the link's secret.
    let token = browser.form_token(FORM);
    let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let allowed = if key.is_some() { Allowed::keys() } else { Allowed::default() };
    let shown = InvitePage {
        t: &ENGLISH,
        user: invited.user.as_str(),
        error,
        token: &token,
        factor: invited.totp.as_ref().map(offered),
        key,
        required: invited.second_factor.is_required(),
    };
    browser.keep(page(status, &shown, &allowed))
}

/// The secret as people see it: a picture within the page, and text in groups.
pub(super) fn offered(totp: &OfferedTotp) -> OfferedFactor {
    // The URI is short: a code that holds it exists.
    let image = QrCode::new(totp.uri.reveal()).map(|code| {
        let picture = code.render::<svg::Color<'_>>().min_dimensions(200, 200).quiet_zone(true).build();
        format!("data:image/svg+xml;base64,{}", BASE64.encode(picture.as_bytes()))
    });
    let letters: Vec<char> = totp.secret.reveal().chars().collect();
    let groups: Vec<String> = letters.chunks(4).map(|group| group.iter().collect()).collect();
    OfferedFactor { image: image.unwrap_or_default(), secret: groups.join(" ") }
}

pub(super) fn failed(cause: &ApiError) -> Response {
    let said = super::from_outside(cause.clone());
    message(status(&said), ENGLISH.invite_title, &said.message)
}

fn status(cause: &ApiError) -> StatusCode {
    StatusCode::from_u16(wire::status(cause.kind)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
