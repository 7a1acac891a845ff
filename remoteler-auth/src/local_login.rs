//! Local users in a browser: the form of the login page, and what it proves. The check is that of every login with a password; who passes goes on to
//! confirm, as everybody who logs in through a browser.

use remoteler_core::{
    ApiErrorKind, BrowserView, ConnectorChoice, ConnectorReport, FactorKind, LocalChoice, Secret, UserName,
};

use crate::{
    ceremonies::{Asker, KeyQuestion},
    failure::{ApiResult, not_found},
    form_token::{form_token, is_form_token},
    login::{WRONG_CODE, local_failure, source_of},
    mfa::Asked,
    service::Inner,
    sso::{Authenticated, LoginRecord},
};

/// The name under which the form is chosen among connectors.
pub(crate) const LOCAL: &str = "local";

/// What somebody typed who says to be a local user.
pub(crate) struct LocalProof {
    /// User name; need not be one.
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) code: Option<Secret>,
}

/// What came back from the page that asks for a key.
pub(crate) struct KeyProof {
    pub(crate) answer: Option<Secret>,
    pub(crate) code: Option<Secret>,
}

impl Inner {
    /// The login page with its form, for this browser.
    pub(crate) fn choose_view(
        &self,
        record: &LoginRecord,
        connectors: Vec<ConnectorChoice>,
        browser: &Secret,
    ) -> BrowserView {
        let code = self.second_factor().takes(FactorKind::Totp);
        let id = record.id().to_owned();
        let local = LocalChoice { token: form_token(browser, &form(&id)), user: String::new(), code, error: None };
        BrowserView::Choose { id, connectors, local: Some(local), account: record.is_for_account() }
    }

    /// The form came back.
    pub(crate) async fn local_step(
        &self,
        id: &str,
        browser: Option<&Secret>,
        token: &Secret,
        typed: LocalProof,
        from: Option<String>,
        origin: &str,
    ) -> ApiResult<BrowserView> {
        // I36: in the one browser that opened the login.
        let (record, browser) = self.open_login_of_browser(id, browser, from.clone()).await?;
        if !is_form_token(browser, &form(id), token) {
            // I52
            let said = "the form of a login was not the one that was shown";
            return Err(self.refuse_stranger(&record, said, from).await?);
        }
        let shown = typed.user.chars().take(64).collect();
        let asker = Asker { browser, origin };
        match self.prove_local(&typed, from.as_deref()).await {
            Ok(user) => {
                let who = Authenticated::Local(user.name);
                self.conclude(id, who, ConnectorReport::default()).await
            }
            Err(cause) if may_try_again(cause.kind) => {
                // The password was right.
                let half = matches!(cause.kind, ApiErrorKind::SecondFactorNeeded | ApiErrorKind::SecurityKeyNeeded);
                if let Some(user) = UserName::new(&typed.user).ok().filter(|_| half)
                    && let Some(view) = self.touch_view(id, &user, asker, None).await?
                {
                    return Ok(view);
                }
                let connectors = self.login_methods().await?.connectors;
                let code = self.second_factor().takes(FactorKind::Totp);
                let token = form_token(browser, &form(id));
                let local = LocalChoice { token, user: shown, code, error: Some(cause.message) };
                let account = record.is_for_account();
                Ok(BrowserView::Choose { id: id.to_owned(), connectors, local: Some(local), account })
            }
            Err(cause) => {
                if cause.kind == ApiErrorKind::Denied {
                    self.tell_refused(id, &cause.message).await?;
                }
                Err(cause)
            }
        }
    }
}

impl Inner {
    /// The page that asks for a key of a user whose password was right; `None` when they have none for this site.
    async fn touch_view(
        &self,
        id: &str,
        user: &UserName,
        asker: Asker<'_>,
        error: Option<String>,
    ) -> ApiResult<Option<BrowserView>> {
        if !self.second_factor().takes(FactorKind::Webauthn) {
            return Ok(None);
        }
        let question = self.ask_for_key(user, asker, &purpose(id)).await?;
        Ok(question.map(|KeyQuestion { token, options }| BrowserView::Touch {
            id: id.to_owned(),
            token,
            options,
            code: true,
            error,
        }))
    }

    /// The page that asks for a key came back: with the key's answer, or with a code. The question it answers says whose password was right.
    pub(crate) async fn key_step(
        &self,
        id: &str,
        asker: Asker<'_>,
        token: &Secret,
        KeyProof { answer, code }: KeyProof,
        from: Option<String>,
    ) -> ApiResult<BrowserView> {
        self.open_login_of_browser(id, Some(asker.browser), from.clone()).await?;
        let ceremony = self.take_question(token, asker, &purpose(id), from.as_deref()).await?;
        let user = ceremony.user.clone();
        let address = from.as_deref().map(source_of);
        let turn = match self.login_turn(user.as_str(), address.as_deref()).await {
            Ok(turn) => turn,
            Err(refused) => {
                self.record_attempt(user.to_string(), refused.message.clone(), from).await?;
                return Err(refused);
            }
        };
        // A factor that was taken away meanwhile, as when an administrator resets the user, proves nothing: it is looked up now.
        let said = match (answer, code) {
            (Some(answer), _) => match self.prove_by_key(&ceremony, &answer, from.as_deref()).await {
                Ok(_) => None,
                Err(cause) if cause.kind == ApiErrorKind::Unauthenticated => Some(cause.message),
                Err(cause) => return Err(cause),
            },
            (None, code @ Some(_)) => {
                let apps = self.second_factor().takes(FactorKind::Totp);
                let asked = self.ask_own(&user, code.as_ref(), apps).await?;
                (asked != Asked::Proved).then(|| WRONG_CODE.to_owned())
            }
            (None, None) => {
                turn.took_back();
                let said = "the security key did not answer; try again".to_owned();
                return self.ask_again(id, &user, asker, said).await;
            }
        };
        if let Some(said) = said {
            self.record(local_failure(user.as_str(), said.clone(), from.as_deref())).await?;
            drop(turn);
            return self.ask_again(id, &user, asker, said).await;
        }
        turn.succeeded();
        self.conclude(id, Authenticated::Local(user), ConnectorReport::default()).await
    }

    async fn ask_again(&self, id: &str, user: &UserName, asker: Asker<'_>, said: String) -> ApiResult<BrowserView> {
        let view = self.touch_view(id, user, asker, Some(said)).await?;
        view.ok_or_else(|| not_found(crate::sso::GONE))
    }
}

fn may_try_again(kind: ApiErrorKind) -> bool {
    matches!(
        kind,
        ApiErrorKind::Unauthenticated
            | ApiErrorKind::SecondFactorNeeded
            | ApiErrorKind::SecurityKeyNeeded
            | ApiErrorKind::BadRequest
    )
}

/// For what a key is asked in login `id`.
fn purpose(id: &str) -> String {
    format!("login {id}")
}

/// The form of login `id` in which a password is typed.
fn form(id: &str) -> String {
    format!("password {id}")
}
