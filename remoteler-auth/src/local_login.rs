//! Local users in a browser: the form of the login page, and what it proves. The check is that of every login with a password; who passes goes on to
//! confirm, as everybody who logs in through a browser.

use remoteler_core::{ApiErrorKind, BrowserView, ConnectorChoice, ConnectorReport, LocalChoice, SecondFactor, Secret};

use crate::{
    failure::{ApiResult, not_found},
    secret_hash,
    service::Inner,
    sso::Authenticated,
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

impl Inner {
    /// The login page with its form, for this browser.
    pub(crate) fn choose_view(&self, id: &str, connectors: Vec<ConnectorChoice>, browser: &Secret) -> BrowserView {
        let code = self.second_factor() != SecondFactor::Off;
        let local = LocalChoice { token: form_token(browser, id), user: String::new(), code, error: None };
        BrowserView::Choose { id: id.to_owned(), connectors, local: Some(local) }
    }

    /// The form came back.
    pub(crate) async fn local_step(
        &self,
        id: &str,
        browser: Option<&Secret>,
        token: &Secret,
        typed: LocalProof,
        from: Option<String>,
    ) -> ApiResult<BrowserView> {
        // I36: in the one browser that opened the login.
        let record = self.open_login_of_browser(id, browser, from.clone()).await?;
        let browser = browser.ok_or_else(|| not_found(crate::sso::GONE))?;
        if secret_hash::hash(token) != secret_hash::hash(&form_token(browser, id)) {
            // I52
            let said = "the form of a login was not the one that was shown";
            return Err(self.refuse_stranger(&record, said, from).await?);
        }
        let shown = typed.user.chars().take(64).collect();
        match self.prove_local(&typed, from.as_deref()).await {
            Ok(user) => {
                let who = Authenticated::Local(user.name);
                self.conclude(id, who, ConnectorReport::default()).await
            }
            Err(cause) if may_try_again(cause.kind) => {
                let connectors = self.login_methods().await?.connectors;
                let code = self.second_factor() != SecondFactor::Off;
                let token = form_token(browser, id);
                let local = LocalChoice { token, user: shown, code, error: Some(cause.message) };
                Ok(BrowserView::Choose { id: id.to_owned(), connectors, local: Some(local) })
            }
            Err(cause) => Err(cause),
        }
    }
}

fn may_try_again(kind: ApiErrorKind) -> bool {
    matches!(kind, ApiErrorKind::Unauthenticated | ApiErrorKind::SecondFactorNeeded | ApiErrorKind::BadRequest)
}

/// What the form must bring: only the page shown to this browser can know it.
fn form_token(browser: &Secret, id: &str) -> Secret {
    Secret::new(secret_hash::hash(&Secret::new(format!("password\0{}\0{id}", browser.reveal()))))
}
