//! A browser's request to a page: who it comes from, and that a form is ours. Owns the check that a form comes from our own page (I52) and what is told
//! to the auth service with each step; decides nothing else.

use std::net::SocketAddr;

use axum::{
    extract::{Extension, FromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts, uri::Authority};
use remoteler_core::{ApiError, AuthApi, BrowserAction, BrowserAnswer, BrowserStep, OsEntropy, Secret};

use super::{
    ApiForAddress, RemoteAddr, from_outside,
    login_pages::{failed, shown},
    pages::{Browser, foreign_form, from_own_page},
};

/// A browser's request, as far as a page needs it. Made by the layer that checks the host's name, and of nothing that a body says.
pub(super) struct Visit {
    api: ApiForAddress,
    addr: SocketAddr,
    browser: Option<Browser>,
    authority: Authority,
    is_own_page: bool,
}

impl FromRequestParts<ApiForAddress> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, api: &ApiForAddress) -> Result<Self, Response> {
        let remote = Extension::<RemoteAddr>::from_request_parts(parts, api).await;
        let authority = Extension::<Authority>::from_request_parts(parts, api).await;
        let (Ok(Extension(RemoteAddr(addr))), Ok(Extension(authority))) = (remote, authority) else {
            return Err(StatusCode::INTERNAL_SERVER_ERROR.into_response());
        };
        let is_own_page = from_own_page(&parts.headers, &authority);
        Ok(Self { api: api.clone(), addr, browser: Browser::of(&parts.headers), authority, is_own_page })
    }
}

impl Visit {
    /// The auth service's handle for who sent it.
    pub(super) fn api(&self) -> std::sync::Arc<dyn AuthApi> {
        (self.api)(self.addr)
    }

    /// The name under which the browser knows us.
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The browser that sent it, or one that was never here; its answer has to be [`Browser::keep`].
    pub(super) fn browser_or_new(&self) -> Browser {
        self.browser.clone().unwrap_or_else(|| Browser::new(&OsEntropy))
    }

    /// The browser, if a page of ours sent this form of it (I52).
    ///
    /// # Errors
    /// The answer to a form of others.
    pub(super) fn form_of(&self, form: &str, token: &Secret) -> Result<&Browser, Box<Response>> {
        let sent = self.browser.as_ref().filter(|browser| self.is_own_page && browser.sent(form, token));
        sent.ok_or_else(|| Box::new(foreign_form()))
    }

    /// Whether the browser brings back from another site what it was given for the way there.
    pub(super) fn brought_back(&self, form: &str, token: &Secret) -> bool {
        self.browser.as_ref().is_some_and(|browser| browser.sent(form, token))
    }

    /// What the auth service says to a step.
    pub(super) async fn ask(&self, step: BrowserAction) -> Result<BrowserAnswer, ApiError> {
        self.ask_as(self.browser.as_ref(), step).await
    }

    /// The same, of a browser whose cookie is set with the answer.
    pub(super) async fn ask_as(
        &self,
        browser: Option<&Browser>,
        step: BrowserAction,
    ) -> Result<BrowserAnswer, ApiError> {
        let step = BrowserStep {
            step,
            browser: browser.map(Browser::secret),
            origin: format!("https://{}", self.authority),
            client_addr: Some(self.addr.to_string()),
        };
        self.api().browser_step(step).await.map_err(from_outside)
    }

    /// A step, and the page that follows.
    pub(super) async fn step(self, step: BrowserAction) -> Response {
        match self.ask(step).await {
            Ok(answer) => shown(answer),
            Err(cause) => failed(&cause),
        }
    }

    /// The step of a form whose token the auth service judges; only our own page may send it (I52).
    pub(super) async fn form(self, step: BrowserAction) -> Response {
        if self.is_own_page { self.step(step).await } else { foreign_form() }
    }

    /// The step of a form whose token is the browser's (I52).
    pub(super) async fn own_form(self, form: &str, token: &Secret, step: BrowserAction) -> Response {
        match self.form_of(form, token) {
            Ok(_) => self.step(step).await,
            Err(refused) => *refused,
        }
    }
}
