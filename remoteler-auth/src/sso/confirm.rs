//! The last page of a login: who, on which machine and with which code, is to be let in (I41). Owns that the browser of the login alone answers, by the form it
//! was shown (I52), and that what it then carries opens for nobody but who began.

use remoteler_core::{BrowserView, Secret, seal_answer};

use super::{
    GRANT_TTL,
    records::{Asked, GONE, Stage},
    steps::finished,
};
use crate::{
    failure::{ApiResult, bad_request, not_found},
    form_token::{form_token, is_form_token},
    secret_hash,
    service::Inner,
};

impl Inner {
    pub(super) async fn review(
        &self,
        id: &str,
        browser: Option<&Secret>,
        from: Option<String>,
    ) -> ApiResult<BrowserView> {
        let (record, _, browser) = self.login_of_browser(id, browser, from).await?;
        let Stage::Confirming(who) = &record.stage else { return Err(not_found(GONE)) };
        Ok(BrowserView::Confirm {
            id: record.id.clone(),
            user: who.username().clone(),
            host: record.host.clone(),
            address: record.remote.clone().unwrap_or_default(),
            code: record.code.clone(),
            token: form_token(browser, &form(id)),
        })
    }

    pub(super) async fn decide(
        &self,
        id: &str,
        browser: Option<&Secret>,
        token: &Secret,
        approve: bool,
        from: Option<String>,
    ) -> ApiResult<BrowserView> {
        let (mut record, revision, browser) = self.login_of_browser(id, browser, from.clone()).await?;
        if !is_form_token(browser, &form(id), token) {
            // I52
            let said = "the form that confirms a login was not the one that was shown";
            return Err(self.refuse_stranger(&record, said, from).await?);
        }
        let Stage::Confirming(who) = record.stage.clone() else { return Err(not_found(GONE)) };
        let Asked::Certificates { answer_key, redirect, .. } = record.asked.clone() else {
            return Err(not_found(GONE));
        };
        if !approve {
            let said = "the login was declined in the browser";
            self.record(who.login_event(Some(said.into()), record.remote.clone())).await?;
            record.stage = Stage::Refused(said.into());
            self.move_login(&record, revision).await?;
            return Ok(match redirect {
                Some(redirect) => BrowserView::Deliver { redirect, answer: None },
                None => finished(false, "The login was declined. You may close this tab."),
            });
        }
        let grant = secret_hash::draw(self.entropy.as_ref());
        let (answer, follow) =
            seal_answer(&answer_key, id, grant.reveal().as_bytes()).map_err(|cause| bad_request(cause.to_string()))?;
        record.stage = Stage::Approved {
            who,
            grant: secret_hash::hash(&grant),
            follow: follow.to_text(),
            answer: redirect.is_none().then(|| answer.clone()),
        };
        record.expires = record.expires.min(self.clock.now().plus(GRANT_TTL));
        self.move_login(&record, revision).await?;
        Ok(match redirect {
            Some(redirect) => BrowserView::Deliver { redirect, answer: Some(answer) },
            None => finished(true, "You are logged in. You may close this tab and go back to the terminal."),
        })
    }
}

/// The form that confirms login `id`.
fn form(id: &str) -> String {
    format!("confirm {id}")
}
