//! The way to an identity provider and back: which one a browser is sent to, with a state that it brings back once (I36), and what then comes of the
//! answer. Who an answer proves, each protocol judges.

use std::collections::BTreeMap;

use remoteler_core::{BrowserAnswer, BrowserView, ConnectorChoice, Secret};

use super::{
    conclude::{LoginFault, Proven, excerpt},
    connectors::{Connector, url_at},
    records::{Asked, GONE, LoginRecord, PendingState, Stage},
    steps::{OTHER_BROWSER, confirm_path},
};
use crate::{
    failure::{ApiResult, denied, not_found, rate_limited},
    form_token::{form_token, logout_form},
    local_login::LOCAL,
    secret_hash,
    service::Inner,
};

/// How often a login's page can be opened (I26).
const MAX_OPENED: u8 = 20;

impl Inner {
    pub(super) async fn open_page(
        &self,
        id: &str,
        chosen: Option<String>,
        browser: Option<Secret>,
        origin: &str,
        from: Option<String>,
    ) -> ApiResult<BrowserAnswer> {
        let (mut record, revision) = self.login_at(id).await?;
        let browser = browser.unwrap_or_else(|| secret_hash::draw(self.entropy.as_ref()));
        // Also the one that is there: it lasts as long as this login from now on.
        let set_browser = Some(browser.clone());
        let hash = secret_hash::hash(&browser);
        if record.browser.as_ref().is_some_and(|known| *known != hash) {
            return Err(self.refuse_stranger(&record, OTHER_BROWSER, from).await?);
        }
        if record.opened >= MAX_OPENED {
            return Err(rate_limited("this login was opened too often; start again with tsh login"));
        }
        record.browser = Some(hash.clone());
        record.opened += 1;
        self.move_login(&record, revision).await?;
        let answer = |view| Ok(BrowserAnswer { view, set_browser: set_browser.clone() });
        match &record.stage {
            Stage::Open => {}
            Stage::Confirming(_) => return answer(BrowserView::Redirect { to: confirm_path(id) }),
            Stage::Approved { .. } | Stage::Refused(_) | Stage::Tested(_) => return Err(not_found(GONE)),
        }
        // Who waits for a login that is not the browser's choice is told that there is no way to finish it.
        let is_chosen = record.connector.is_none() && chosen.is_some();
        let connector = match (&record.asked, record.connector.clone().or(chosen)) {
            (Asked::Report(document), _) => Connector::parse(document.as_ref().clone())?,
            (Asked::Certificates { .. } | Asked::Account, Some(name)) if name == LOCAL => {
                return answer(self.choose_view(&record, Vec::new(), &browser));
            }
            (Asked::Certificates { .. } | Asked::Account, Some(name)) if is_chosen => {
                self.usable_connector(&name).await?
            }
            (Asked::Certificates { .. } | Asked::Account, Some(name)) => self.connector_or_end(id, &name).await?,
            (Asked::Certificates { .. } | Asked::Account, None) => {
                let methods = self.login_methods().await?;
                match (methods.default_connector, methods.connectors) {
                    (Some(name), _) => self.connector_or_end(id, &name).await?,
                    (None, connectors) => match connectors.as_slice() {
                        [ConnectorChoice { name, .. }] if methods.kind != LOCAL => {
                            self.connector_or_end(id, name).await?
                        }
                        _ => return answer(self.choose_view(&record, connectors, &browser)),
                    },
                }
            }
        };
        let redirect_url = connector.redirect_url(origin);
        let away = match &connector {
            Connector::Oidc { spec, .. } => self.send_to_oidc(spec, &redirect_url).await,
            Connector::Github { spec, .. } => Ok(self.send_to_github(spec, &redirect_url)),
            Connector::Saml { .. } => Ok(self.send_to_saml()),
        };
        let away = match away {
            Ok(away) => away,
            Err(cause) => return Err(self.login_failed(&record.id, connector.name(), cause).await?),
        };
        let pending = PendingState {
            login: record.id,
            connector: connector.name().to_owned(),
            browser: hash,
            redirect_url,
            secrets: away.secrets,
        };
        let state = self.remember_state(&pending).await?;
        answer(match &connector {
            // The state is part of what is signed.
            Connector::Saml { name, spec } => {
                match self.saml_request(name, spec, &record.asked, &pending, &state).await {
                    Ok(view) => view,
                    Err(cause) => return Err(self.login_failed(&pending.login, name, cause).await?),
                }
            }
            Connector::Oidc { .. } | Connector::Github { .. } => {
                BrowserView::Redirect { to: format!("{}&state={}", away.url, state.reveal()) }
            }
        })
    }

    pub(super) async fn callback(
        &self,
        connector: &str,
        params: BTreeMap<String, String>,
        browser: Option<&Secret>,
        from: Option<String>,
    ) -> ApiResult<BrowserView> {
        let posted = params.contains_key(super::saml::FIELD);
        let state = params.get("state").filter(|state| state.len() <= 128).map(Secret::new);
        let pending = match &state {
            Some(state) => self.take_state(state).await?,
            None => None,
        };
        let Some(pending) = pending else {
            let said = "a browser came back from a provider with a state that is unknown, was used or has expired";
            self.record_attempt(String::new(), format!("{said}, at connector {}", excerpt(connector)), from).await?;
            return Err(denied(
                "the identity provider's answer is unknown, was used already or came too late; start again with tsh login",
            ));
        };
        let (record, _) = self.login_at(&pending.login).await?;
        if pending.connector != connector {
            let said = "the identity provider's answer came to the callback of another connector";
            return Err(self.refuse_stranger(&record, said, from).await?);
        }
        if posted {
            return self.saml_posted(record, pending, &params, from).await;
        }
        if browser.map(secret_hash::hash).as_ref() != Some(&pending.browser)
            || record.browser != Some(pending.browser.clone())
        {
            return Err(self.refuse_stranger(&record, OTHER_BROWSER, from).await?);
        }
        if !matches!(record.stage, Stage::Open) {
            return Err(denied(GONE));
        }
        match self.judge(&record, &pending, &params).await {
            Ok((who, report)) => self.conclude(&pending.login, who, report).await,
            Err(cause) => Err(self.login_failed(&pending.login, connector, cause).await?),
        }
    }

    /// Whom the provider's answer proves.
    async fn judge(
        &self,
        record: &LoginRecord,
        pending: &PendingState,
        params: &BTreeMap<String, String>,
    ) -> Result<Proven, LoginFault> {
        let connector = match &record.asked {
            Asked::Report(document) => Connector::parse(document.as_ref().clone()),
            Asked::Certificates { .. } | Asked::Account => self.usable_connector(&pending.connector).await,
        };
        let connector = connector.map_err(|cause| LoginFault::said(cause.message))?;
        if let Some(error) = params.get("error") {
            let error = excerpt(error);
            let said = if error == "access_denied" {
                "the login was declined at the identity provider".to_owned()
            } else {
                format!("the identity provider refused the login: {error}")
            };
            let more = params.get("error_description").map(|text| excerpt(text)).unwrap_or_default();
            return Err(LoginFault { detail: format!("{said} {more}").trim_end().to_owned(), said });
        }
        let (who, report) = match &connector {
            Connector::Oidc { name, spec } => self.oidc_answer(name, spec, pending, params).await?,
            Connector::Github { name, spec } => self.github_answer(name, spec, pending, params).await?,
            // It was judged when it was posted.
            Connector::Saml { .. } => return super::saml::proven(pending),
        };
        Ok((who.under(&connector), report))
    }

    /// Where the browser goes to end its login at a provider: the login here ended with the certificates. It comes back to where it is, if the connector
    /// names that, with a state that only this browser has. Elsewhere it would come without its cookie.
    pub(super) async fn provider_logout(
        &self,
        name: &str,
        browser: Option<&Secret>,
        origin: &str,
    ) -> ApiResult<BrowserView> {
        let end = match self.usable_connector(name).await? {
            Connector::Oidc { spec, name } => {
                let here = spec.post_logout_redirect_url.as_ref().and_then(|urls| url_at(urls, origin));
                let back =
                    here.zip(browser).map(|(url, browser)| (url.to_owned(), form_token(browser, &logout_form(&name))));
                self.end_of_oidc(&spec, back).await.map_err(|cause| denied(cause.said))?
            }
            Connector::Github { .. } | Connector::Saml { .. } => None,
        };
        Ok(match end {
            Some(to) => BrowserView::Redirect { to },
            None => {
                return Err(not_found(
                    "this identity provider names no page where its login ends; log out there yourself",
                ));
            }
        })
    }
}
