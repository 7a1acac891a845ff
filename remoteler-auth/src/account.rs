//! What users do with their own account in a browser. Owns what needs a login of a moment ago and what needs the password; who is there, `web_sessions` says.

use remoteler_core::{Account, AccountWish, BrowserView, FactorAdded, FactorKind, NewFactor, OwnCertificate, Secret};

use crate::{
    Caller,
    ceremonies::{Asker, KeyQuestion},
    failure::{ApiResult, bad_request, conflict, denied, unauthenticated},
    login::{local_failure, source_of},
    service::Inner,
    web_sessions::Shown,
};

const STALE: &str = "your login is too long ago for this; log in again first";

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
        let Some(shown) = self.web_session(session).await? else { return Ok(BrowserView::NoSession) };
        let user = &shown.user.name;
        match wish {
            AccountWish::Show | AccountWish::LogIn => {}
            AccountWish::LogOut => {
                self.end_own_session(session).await?;
                return Ok(BrowserView::NoSession);
            }
            AccountWish::OfferTotp => {
                self.fresh(&shown)?;
                self.check_kind(FactorKind::Totp)?;
                return Ok(BrowserView::TotpOffer(self.draw_offer(user).await?));
            }
            AccountWish::AddTotp { name, code } => {
                self.fresh(&shown)?;
                self.check_kind(FactorKind::Totp)?;
                let added = self.take_offer(user, NewFactor { name, code }).await?;
                return Ok(BrowserView::Codes(added));
            }
            AccountWish::OfferKey => {
                self.fresh(&shown)?;
                self.check_kind(FactorKind::Webauthn)?;
                let offered = self.offer_key(user, asker, &purpose(&shown)).await?;
                let KeyQuestion { token, options } = offered.ok_or_else(|| {
                    bad_request("security keys are for names, and this page was opened by an IP address")
                })?;
                return Ok(BrowserView::KeyOffer { token, options });
            }
            AccountWish::AddKey { name, token, answer } => {
                self.fresh(&shown)?;
                self.check_kind(FactorKind::Webauthn)?;
                return self.add_own_key(&shown, &name, &token, &answer, asker, from).await.map(BrowserView::Codes);
            }
            AccountWish::RemoveFactor { name } => {
                self.fresh(&shown)?;
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
        let second_factor = self.second_factor();
        Ok(Account {
            user: user.name.clone(),
            has_password: user.password.is_some(),
            connector: user.sso.as_ref().map(|account| account.connector.clone()),
            fresh: shown.record.is_fresh(self.clock.now()),
            second_factor,
            keys_possible: second_factor.takes(FactorKind::Webauthn) && self.keys_possible(origin),
            factors: self.factors_of(&user.name).await?.0.shown(),
            sessions: self.shown_sessions(shown).await?,
            certificates: certificates
                .map(|held| OwnCertificate { name: held.target.to_string(), expires: held.expires })
                .collect(),
        })
    }

    fn fresh(&self, shown: &Shown) -> ApiResult<()> {
        if shown.record.is_fresh(self.clock.now()) { Ok(()) } else { Err(denied(STALE)) }
    }

    fn check_kind(&self, kind: FactorKind) -> ApiResult<()> {
        if self.second_factor().takes(kind) {
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
            let said = "the password until now is wrong";
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
