//! The way to where a login at an identity provider ends, and back. Owns which page is shown at the end; nothing ends here: certificates did with `tsh logout`,
//! sessions do on the account page. Whether the login there ended the provider does not say, so that no page of ours does.

use axum::{
    extract::{Path, Query},
    response::Response,
};
use http::StatusCode;
use remoteler_core::{BrowserAction, Secret};
use serde::Deserialize;

use super::{
    login_pages::{failed, shown},
    pages::message,
    texts::ENGLISH,
    visit::Visit,
};
use crate::form_token::logout_form;

/// To the provider. The browser is known by its cookie when it comes back.
pub(super) async fn begin(visit: Visit, Path(connector): Path<String>) -> Response {
    let browser = visit.browser_or_new();
    match visit.ask_as(Some(&browser), BrowserAction::Logout { connector }).await {
        Ok(answer) => browser.keep(shown(answer)),
        Err(cause) => failed(&cause),
    }
}

#[derive(Deserialize)]
pub(super) struct Back {
    #[serde(default)]
    state: Option<Secret>,
}

/// Back from there, also when the person chose to stay signed in. Said only to the browser that went (the state is of its cookie), so that nobody is made to
/// believe it by a link.
pub(super) async fn done(
    visit: Visit,
    Path(connector): Path<String>,
    back: Result<Query<Back>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let state = back.ok().and_then(|Query(back)| back.state);
    if state.is_some_and(|state| visit.brought_back(&logout_form(&connector), &state)) {
        message(StatusCode::OK, ENGLISH.logout_back_title, ENGLISH.logout_back_text)
    } else {
        message(StatusCode::BAD_REQUEST, ENGLISH.logout_title, ENGLISH.logout_unknown)
    }
}
