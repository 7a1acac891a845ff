//! What users do with their own account in a browser. Owns what needs a login of a moment ago and what needs the password; who is there, `web_sessions` says.

use remoteler_core::{Account, AccountWish, BrowserView, FactorAdded, FactorKind, NewFactor, OwnCertificate, Secret};

use crate::{
    Caller,
    ceremonies::{Asker, KeyQuestion},
    failure::{ApiResult, bad_request, conflict, unauthenticated},
    login::{local_failure, source_of},
    service::Inner,
    users::UserRecord,
    web_sessions::Shown,
};

impl Inner {
    /// Does what the owner of a web session wants, and shows what there is then.
    pub(crate) async fn account_step(
        &self,
        caller: &Caller,
        session: Option<&Secret>,
        wish: AccountWish,
        asker: Asker<'_>,
        from: Option<String>,
    ) -> ApiResult<BrowserView> {
        let Some(mut shown) = self.web_session(session).await? else { return Ok(BrowserView::NoSession) };
        let user = &shown.user.name.clone();
        match wish {
            AccountWish::Show | AccountWish::LogIn => {}
            AccountWish::LogOut => {
                self.end_own_session(session).await?;
                return Ok(BrowserView::NoSession);
            }
            AccountWish::ProveByCode { code } => self.prove_session_by_code(caller, &mut shown, &code, from).await?,
            AccountWish::AskKey => return self.ask_own_key(&shown, asker, None).await,
            AccountWish::ProveByKey { token, answer } => {
                if let Some(said) = self.prove_session_by_key(caller, &mut shown, &token, &answer, asker, from).await? {
                    return self.ask_own_key(&shown, asker, Some(said)).await;
                }
            }
            AccountWish::OfferTotp => {
                self.may_change(&shown).await?;
                self.check_kind(&shown.user, FactorKind::Totp)?;
                return Ok(BrowserView::TotpOffer(self.draw_offer(user).await?));
            }
            AccountWish::AddTotp { name, code } => {
                self.may_change(&shown).await?;
                self.check_kind(&shown.user, FactorKind::Totp)?;
                let added = self.take_offer(user, NewFactor { name, code }).await?;
                return Ok(BrowserView::Codes(added));
            }
            AccountWish::OfferKey => {
                self.may_change(&shown).await?;
                self.check_kind(&shown.user, FactorKind::Webauthn)?;
                let offered = self.offer_key(user, asker, &purpose(&shown)).await?;
                let KeyQuestion { token, options } = offered.ok_or_else(|| {
                    bad_request("security keys are for names, and this page was opened by an IP address")
                })?;
                return Ok(BrowserView::KeyOffer { token, options });
            }
            AccountWish::AddKey { name, token, answer } => {
                self.may_change(&shown).await?;
                self.check_kind(&shown.user, FactorKind::Webauthn)?;
                return self.add_own_key(&shown, &name, &token, &answer, asker, from).await.map(BrowserView::Codes);
            }
            AccountWish::RemoveFactor { name } => {
                self.may_change(&shown).await?;
                self.drop_factor(user, &name).await?;
            }
            AccountWish::EndSession { id } => {
                if self.end_session_of(&shown, &id).await? {
                    return Ok(BrowserView::NoSession);
                }
            }
            AccountWish::RevokeCertificates => {
                let _turn = self.changes.write().await;
                self.revoke_certificates_of(user.as_str(), user, format!("{user} revoked their own certificates"))
                    .await?;
            }
            AccountWish::ChangePassword { password, new_password } => {
                self.change_own_password(caller, &shown, password, new_password, from).await?;
            }
        }
        self.own_account(&shown, asker.origin).await.map(|account| BrowserView::Account(Box::new(account)))
    }

    async fn own_account(&self, shown: &Shown, origin: &str) -> ApiResult<Account> {
        let user = &shown.user;
        let mut certificates = self.live_certificates(&user.name).await?;
        certificates.sort_by_key(|held| std::cmp::Reverse(held.expires));
        let certificates = certificates.into_iter().filter(|held| !self.is_revoked(held.target));
        let factors = self.factors_of(&user.name).await?.0;
        Ok(Account {
            user: user.name.clone(),
            has_password: user.password.is_some(),
            connector: user.sso.as_ref().map(|account| account.connector.clone()),
            fresh: shown.record.is_fresh(self.clock.now()),
            proof_needed: self.proof_needed(shown, &factors),
            second_factor: self.second_factor(),
            keys_possible: self.counts(user, FactorKind::Webauthn) && self.keys_possible(origin),
            factors: factors.shown(),
            sessions: self.shown_sessions(shown).await?,
            certificates: certificates
                .map(|held| OwnCertificate { name: held.target.to_string(), expires: held.expires })
                .collect(),
        })
    }

    fn check_kind(&self, user: &UserRecord, kind: FactorKind) -> ApiResult<()> {
        if self.counts(user, kind) {
            return Ok(());
        }
        Err(conflict("second factors of this kind do not count in this cluster; ask an administrator"))
    }

    async fn add_own_key(
        &self,
        shown: &Shown,
        name: &str,
        token: &Secret,
        answer: &Secret,
        asker: Asker<'_>,
        from: Option<String>,
    ) -> ApiResult<FactorAdded> {
        let ceremony = self.take_question(token, asker, &purpose(shown), from.as_deref()).await?;
        // The purpose names the session, and with it the user.
        let registered = self.registered(&ceremony, answer)?;
        self.take_key(&shown.user.name, name, registered).await
    }

    /// The password until now is asked for as at a login: by the same limits, and on record.
    async fn change_own_password(
        &self,
        caller: &Caller,
        shown: &Shown,
        password: Secret,
        new_password: Secret,
        from: Option<String>,
    ) -> ApiResult<()> {
        let user = &shown.user;
        if let Some(account) = &user.sso {
            let connector = &account.connector;
            return Err(conflict(format!("you log in by connector {connector} and have no password here")));
        }
        let address = from.as_deref().map(source_of).or_else(|| caller.source().map(|source| source.to_string()));
        let turn = self.login_turn(user.name.as_str(), address.as_deref()).await?;
        if !self.passwords.verify(password, user.password.clone()).await? {
            let said = "the current password is wrong";
            self.record(local_failure(user.name.as_str(), said.into(), from.as_deref())).await?;
            return Err(unauthenticated(said));
        }
        turn.succeeded();
        self.replace_own_password(&user.name, new_password).await?;
        // Whoever had the old one is out.
        self.end_web_sessions(user.name.as_str(), &user.name, Some(&shown.hash)).await
    }
}

/// For what a key is offered: this session's account.
fn purpose(shown: &Shown) -> String {
    format!("account {}", shown.hash)
}
