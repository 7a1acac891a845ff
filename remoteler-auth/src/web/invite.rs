//! The page behind a sign-up link, and the two calls of `tsh` that do the same: for whom it is, the password, and the link is used up.

use axum::{
    Extension, Form, Router,
    extract::{Path, State, rejection::FormRejection},
    response::Response,
    routing::post,
};
use data_encoding::BASE64;
use http::StatusCode;
use qrcode::{QrCode, render::svg};
use remoteler_core::{
    ApiError, ApiErrorKind, BrowserAction, BrowserAnswer, BrowserView, Invited, OfferedTotp, Secret, SignUpRequest,
    SignedUp,
    wire::{self, InviteQuery},
};
use serde::Deserialize;

use super::{
    ApiForAddress, RemoteAddr, from_outside,
    pages::{Allowed, Browser, InvitePage, OfferedFactor, OfferedKey, SignedUpPage, message, page, sentence},
    texts::ENGLISH,
    visit::Visit,
};
use crate::http::{Input, json};

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

/// What `tsh` calls. Who has a link may try as often as the page lets it; who guesses at one is counted by the address, as there.
pub(super) fn calls() -> Router<ApiForAddress> {
    Router::new().route(wire::WEB_INVITED_USER, post(invited_user)).route(wire::WEB_SIGN_UP, post(sign_up))
}

type Api = State<ApiForAddress>;
type Remote = Extension<RemoteAddr>;

async fn invited_user(
    State(api): Api,
    Extension(RemoteAddr(addr)): Remote,
    Input(query): Input<InviteQuery>,
) -> Response {
    json(api(addr).invited_user(query.token).await.map_err(from_outside))
}

async fn sign_up(
    State(api): Api,
    Extension(RemoteAddr(addr)): Remote,
    Input(request): Input<SignUpRequest>,
) -> Response {
    json(api(addr).sign_up(request).await.map_err(from_outside))
}

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
        Err(cause) if matches!(cause.kind, ApiErrorKind::BadRequest | ApiErrorKind::SecondFactorNeeded) => {
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
    let said = from_outside(cause.clone());
    message(status(&said), ENGLISH.invite_title, &said.message)
}

fn status(cause: &ApiError) -> StatusCode {
    StatusCode::from_u16(wire::status(cause.kind)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
