//! What a browser does of a login, step by step. Owns that each step is one of the one browser that opened the login (I36), and which function takes it; what
//! comes of it is theirs.

use remoteler_core::{
    AccountWish, ApiError, BrowserAction, BrowserAnswer, BrowserStep, BrowserView, Secret, read_login_code, wire,
};

use super::records::{Asked, GONE, LoginRecord, Stage};
use crate::{
    Caller,
    app_launch::{Launch, ShownFactor},
    ceremonies::Asker,
    failure::{ApiResult, bad_request, denied, not_found, rate_limited},
    local_login::{KeyProof, LocalProof},
    login::{remote, source_of},
    secret_hash,
    service::Inner,
    users::ByKey,
};

pub(super) const OTHER_BROWSER: &str =
    "this login was opened in another browser; finish it there, or start again with tsh login";

impl Inner {
    pub(crate) async fn browser_step(&self, caller: &Caller, step: BrowserStep) -> ApiResult<BrowserAnswer> {
        let BrowserStep { step, browser, origin, client_addr } = step;
        let browser = browser.filter(|value| secret_hash::is_drawn(value.reveal()));
        let from = remote(caller, client_addr.as_deref());
        match step {
            BrowserAction::Open { id, connector } => self.open_page(&id, connector, browser, &origin, from).await,
            BrowserAction::Password { id, token, user, password, code } => {
                let typed = LocalProof { user, password, code };
                self.local_step(&id, browser.as_ref(), &token, typed, from, &origin).await.map(shown)
            }
            BrowserAction::EnterCode { code } => self.enter_code(&code, from).await.map(shown),
            BrowserAction::Callback { connector, params } => {
                self.callback(&connector, params, browser.as_ref(), from).await.map(shown)
            }
            BrowserAction::Review { id } => self.review(&id, browser.as_ref(), from).await.map(shown),
            BrowserAction::SamlMetadata { connector } => self.saml_metadata(&connector).await.map(shown),
            BrowserAction::Logout { connector } => {
                self.provider_logout(&connector, browser.as_ref(), &origin).await.map(shown)
            }
            BrowserAction::Refused { because } => {
                self.record_attempt(String::new(), because.reason().into(), from).await?;
                Err(denied(because.reason()))
            }
            BrowserAction::Decide { id, token, approve } => {
                self.decide(&id, browser.as_ref(), &token, approve, from).await.map(shown)
            }
            BrowserAction::Key { id, token, answer, code } => {
                let asker = Asker { browser: known(browser.as_ref())?, origin: &origin };
                self.key_step(&id, asker, &token, KeyProof { answer, code }, from).await.map(shown)
            }
            BrowserAction::OfferKey { invite } => {
                let asker = Asker { browser: known(browser.as_ref())?, origin: &origin };
                self.offer_key_with_link(&invite, asker).await.map(shown)
            }
            BrowserAction::SignUpByKey { invite, password, token, answer } => {
                let asker = Asker { browser: known(browser.as_ref())?, origin: &origin };
                let by_key = ByKey { asker, token, answer, from };
                let signed_up = self.sign_up_by_key(caller, invite, password, by_key).await?;
                Ok(shown(BrowserView::SignedUp(signed_up)))
            }
            BrowserAction::LaunchApp { app, state, path, session, code, token, answer } => {
                let asker = Asker { browser: known(browser.as_ref())?, origin: &origin };
                let shown_factor = ShownFactor { code, token, answer };
                let launch = Launch { app, state, path, session, shown: shown_factor };
                self.launch_app(launch, asker, from).await.map(shown)
            }
            BrowserAction::OpenSession { id } => self.open_session_page(&id, browser, &origin, from).await,
            BrowserAction::TouchSession { id, token, answer } => {
                let asker = Asker { browser: known(browser.as_ref())?, origin: &origin };
                self.touch_session(&id, asker, &token, &answer, from).await.map(shown)
            }
            BrowserAction::Account { session, agent, wish: AccountWish::LogIn } => {
                // A session that there is ends with the next one.
                self.end_own_session(session.as_ref()).await?;
                let begun = self.open_login(Asked::Account, None, &agent, from).await?;
                Ok(shown(BrowserView::Redirect { to: login_path(&begun.id) }))
            }
            BrowserAction::Account { session, agent: _, wish } => {
                let asker = Asker { browser: known(browser.as_ref())?, origin: &origin };
                self.account_step(caller, session.as_ref(), wish, asker, from).await.map(shown)
            }
        }
    }

    async fn enter_code(&self, typed: &str, from: Option<String>) -> ApiResult<BrowserView> {
        let source = from.as_deref().map(source_of).unwrap_or_default();
        if !self.sso.limits.codes.attempt(&source, self.clock.now()) {
            let said = "too many wrong codes from this address; wait five minutes";
            self.record_attempt(String::new(), said.into(), from).await?;
            return Err(rate_limited(said));
        }
        let found = match read_login_code(typed) {
            Some(code) => self.login_of_code(&code).await?,
            None => None,
        };
        let Some(id) = found else {
            self.record_attempt(String::new(), "a login's code was typed that is none".into(), from).await?;
            return Err(bad_request("there is no such code, or it has expired; look at what tsh shows"));
        };
        self.sso.limits.codes.succeeded(&source);
        Ok(BrowserView::Redirect { to: login_path(&id) })
    }

    /// The login, for the browser that opened it.
    pub(super) async fn login_of_browser<'a>(
        &self,
        id: &str,
        browser: Option<&'a Secret>,
        from: Option<String>,
    ) -> ApiResult<(LoginRecord, remoteler_core::Revision, &'a Secret)> {
        let (record, revision) = self.login_at(id).await?;
        match browser.filter(|browser| record.browser.as_ref() == Some(&secret_hash::hash(browser))) {
            Some(browser) => Ok((record, revision, browser)),
            None => Err(self.refuse_stranger(&record, OTHER_BROWSER, from).await?),
        }
    }

    /// The login, for the browser that opened it, while nobody has proved to be anybody.
    pub(crate) async fn open_login_of_browser<'a>(
        &self,
        id: &str,
        browser: Option<&'a Secret>,
        from: Option<String>,
    ) -> ApiResult<(LoginRecord, &'a Secret)> {
        let (record, _, browser) = self.login_of_browser(id, browser, from).await?;
        let open = matches!(record.stage, Stage::Open) && !matches!(record.asked, Asked::Report(_));
        if open { Ok((record, browser)) } else { Err(not_found(GONE)) }
    }

    /// Audits a step that the login's own browser did not take. The login itself stays as it is: whose it is may still finish it.
    pub(crate) async fn refuse_stranger(
        &self,
        record: &LoginRecord,
        said: &str,
        from: Option<String>,
    ) -> ApiResult<ApiError> {
        let begun = record.remote.as_deref().unwrap_or("this process");
        self.record_attempt(String::new(), format!("{said} (the login was begun from {begun})"), from).await?;
        Ok(denied(said))
    }
}

fn login_path(id: &str) -> String {
    wire::path(wire::WEB_LOGIN_PAGE, id)
}

pub(super) fn confirm_path(id: &str) -> String {
    wire::path(wire::WEB_LOGIN_CONFIRM, id)
}

pub(super) fn finished(success: bool, message: &str) -> BrowserView {
    BrowserView::Finished { success, message: message.to_owned() }
}

fn shown(view: BrowserView) -> BrowserAnswer {
    BrowserAnswer { view, set_browser: None }
}

/// The browser, for what only a browser that was here before may do.
fn known(browser: Option<&Secret>) -> ApiResult<&Secret> {
    browser.ok_or_else(|| {
        denied("your browser has no cookie of this page; allow cookies, open the page again and try again")
    })
}
