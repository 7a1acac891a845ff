//! The page behind a sign-up link: shows for whom it is, takes the password, uses the link up.

use std::sync::Arc;

use axum::{
    Extension, Form,
    extract::{Path, State, rejection::FormRejection},
    response::Response,
};
use http::{HeaderMap, StatusCode, Uri, header::HOST};
use remoteler_core::{ApiError, AuthApi, Secret, SignUpRequest, UserName, wire};
use serde::Deserialize;

use super::{
    ApiForAddress, RemoteAddr,
    page::{escape, message, render},
};

/// What the form sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Passwords {
    password: Secret,
    again: Secret,
}

const TITLE: &str = "Set your password";

pub(super) async fn show(
    State(api): State<ApiForAddress>,
    Extension(RemoteAddr(addr)): Extension<RemoteAddr>,
    Path(token): Path<String>,
) -> Response {
    match api(addr).invited_user(Secret::new(token)).await {
        Ok(user) => form(StatusCode::OK, &user, None),
        Err(cause) => failed(&cause),
    }
}

pub(super) async fn accept(
    State(api): State<ApiForAddress>,
    Extension(RemoteAddr(addr)): Extension<RemoteAddr>,
    Path(token): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    passwords: Result<Form<Passwords>, FormRejection>,
) -> Response {
    let host = host(&uri, &headers);
    if !same_origin(&headers, host.as_deref()) {
        return message(StatusCode::FORBIDDEN, TITLE, "The form was sent from another site."); // I52
    }
    let Ok(Form(Passwords { password, again })) = passwords else {
        return message(StatusCode::BAD_REQUEST, TITLE, "The form did not arrive whole. Open the link again.");
    };
    let api = api(addr);
    let token = Secret::new(token);
    if password != again {
        return again_with(&api, token, "The two passwords are not the same.").await;
    }
    match api.sign_up(SignUpRequest { token: token.clone(), password }).await {
        Ok(user) => {
            let proxy = host.unwrap_or_else(|| "PROXY".into());
            let command = escape(&format!("tsh login --proxy={proxy} --user={user}"));
            let body = format!("<p>Your password is set. Log in with:</p>\n<code>{command}</code>");
            render(StatusCode::OK, "Done", &body)
        }
        Err(cause) if status(&cause) == StatusCode::BAD_REQUEST => again_with(&api, token, &cause.message).await,
        Err(cause) => failed(&cause),
    }
}

/// The form again, with what was wrong.
async fn again_with(api: &Arc<dyn AuthApi>, token: Secret, error: &str) -> Response {
    match api.invited_user(token).await {
        Ok(user) => form(StatusCode::BAD_REQUEST, &user, Some(error)),
        Err(cause) => failed(&cause),
    }
}

fn form(status: StatusCode, user: &UserName, error: Option<&str>) -> Response {
    let user = escape(user.as_str());
    let error = error.map(|text| format!("<p class=\"error\">{}</p>\n", escape(text))).unwrap_or_default();
    // Without an action the form goes to the page's own address, which holds the link's secret.
    let body = format!(
        "<p>This link is for user <b>{user}</b>. It works once.</p>\n{error}<form method=\"post\">\n\
         <input type=\"hidden\" autocomplete=\"username\" value=\"{user}\">\n\
         <label for=\"password\">Password, at least 8 characters</label>\n\
         <input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"new-password\" minlength=\"8\" maxlength=\"1024\" required autofocus>\n\
         <label for=\"again\">The same again</label>\n\
         <input id=\"again\" name=\"again\" type=\"password\" autocomplete=\"new-password\" minlength=\"8\" maxlength=\"1024\" required>\n\
         <button>Set password</button>\n</form>"
    );
    render(status, TITLE, &body)
}

fn failed(cause: &ApiError) -> Response {
    message(status(cause), TITLE, &cause.message)
}

fn status(cause: &ApiError) -> StatusCode {
    StatusCode::from_u16(wire::status(cause.kind)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Whether a browser says that its own page sent the form. Clients that say nothing are no browsers.
pub(super) fn same_origin(headers: &HeaderMap, host: Option<&str>) -> bool {
    let value = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    match (value("sec-fetch-site"), value("origin")) {
        (Some(site), _) => site == "same-origin" || site == "none",
        (None, Some(origin)) => host.is_some_and(|host| origin == format!("https://{host}")),
        (None, None) => true,
    }
}

/// The name and port under which the client reached us, if it is plain.
pub(super) fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let named = uri.authority().map(|authority| authority.as_str().to_owned());
    let host = named.or_else(|| headers.get(HOST)?.to_str().ok().map(str::to_owned))?;
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b':' | b'[' | b']');
    (host.len() <= 255 && host.bytes().all(plain)).then_some(host)
}
