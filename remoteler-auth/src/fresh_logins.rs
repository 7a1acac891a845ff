//! That somebody is there, for changes of their own second factors, beyond a certificate or a cookie: a login of a moment ago and, of who has a factor, that
//! factor. Owns how long a moment is; passwords are looked at by `mfa`, touches by `ceremonies`.

use std::time::Duration;

use remoteler_core::{ApiErrorKind, AuditKind, BrowserView, FactorKind, SecondFactor, Secret, UserName};

use crate::{
    Caller,
    ceremonies::{Asker, KeyQuestion},
    factors::Factors,
    failure::{ApiResult, bad_request, denied, unauthenticated},
    issue::UserIssue,
    login::source_of,
    mfa::Asked,
    records::key,
    service::Inner,
    users::UserRecord,
    web_sessions::Shown,
};

/// So long after a login, or after a factor was shown, one who is there is believed to be there still.
pub(crate) const FRESH: Duration = Duration::from_secs(300);

const STALE: &str = "your login is too long ago for this; log in again first";
const UNPROVEN: &str = "show one of your second factors first";
const WRONG: &str = "the code is wrong, or was used: each counts once, so wait for the next one";

impl Inner {
    /// Remembers for a moment with which certificate somebody came from an identity provider.
    pub(crate) async fn remember_login(&self, issue: &UserIssue) -> ApiResult<()> {
        let until = self.clock.now().plus(FRESH);
        let key = key::of(key::FRESH_LOGINS, issue.tls_serial());
        self.records.write(&key, &issue.identity().user, Some(until)).await?;
        Ok(())
    }

    /// Whether the certificate that is shown came from a login at an identity provider a moment ago: none that was signed for a file or another place does.
    pub(crate) async fn has_just_logged_in(&self, caller: &Caller, user: &UserName) -> ApiResult<bool> {
        let Caller::User { user: shown, .. } = caller else { return Ok(false) };
        let key = key::of(key::FRESH_LOGINS, shown.serial());
        Ok(self.records.read::<UserName>(&key).await?.as_ref() == Some(user))
    }

    /// Whether factors of this kind are of use to the user. Where local users log in without, sessions may still want one of who comes from a provider.
    pub(crate) fn counts(&self, user: &UserRecord, kind: FactorKind) -> bool {
        let wanted = self.second_factor();
        wanted.takes(kind) || (user.sso.is_some() && wanted == SecondFactor::Off)
    }

    /// Whether a factor has to be shown in a web session before any is changed: its login asked for none, and there is one.
    pub(crate) fn proof_needed(&self, shown: &Shown, factors: &Factors) -> bool {
        let asked_at_login = shown.user.sso.is_none() && self.second_factor() != SecondFactor::Off;
        !asked_at_login && !factors.is_empty() && !shown.record.is_proven(self.clock.now())
    }

    /// That the owner of a web session may change their factors now.
    pub(crate) async fn may_change(&self, shown: &Shown) -> ApiResult<()> {
        if !shown.record.is_fresh(self.clock.now()) {
            return Err(denied(STALE));
        }
        let factors = self.factors_of(&shown.user.name).await?.0;
        if self.proof_needed(shown, &factors) { Err(denied(UNPROVEN)) } else { Ok(()) }
    }

    /// The owner of a web session shows a factor by its code, or a recovery code. Counted with logins, and on record either way (I48).
    pub(crate) async fn prove_session_by_code(
        &self,
        caller: &Caller,
        shown: &mut Shown,
        code: &Secret,
        from: Option<String>,
    ) -> ApiResult<()> {
        let user = shown.user.name.clone();
        let turn = self.login_turn(user.as_str(), address(caller, from.as_deref()).as_deref()).await?;
        let right = self.ask_own(&user, Some(code), true).await? == Asked::Proved;
        self.record(AuditKind::MfaValidate {
            user: user.to_string(),
            mfa_device: None,
            mfa_device_type: "otp".into(),
            session: None,
            target: None,
            login: None,
            success: right,
            error: (!right).then(|| WRONG.to_owned()),
            remote: from,
        })
        .await?;
        if !right {
            return Err(unauthenticated(WRONG));
        }
        turn.succeeded();
        self.keep_proven(shown).await
    }

    /// The page that asks for a key of the owner of a web session.
    pub(crate) async fn ask_own_key(
        &self,
        shown: &Shown,
        asker: Asker<'_>,
        error: Option<String>,
    ) -> ApiResult<BrowserView> {
        let question = self.ask_for_key(&shown.user.name, asker, &purpose(shown)).await?;
        let KeyQuestion { token, options } =
            question.ok_or_else(|| bad_request("you have no security key for the name of this page; type a code"))?;
        Ok(BrowserView::Touch { id: String::new(), token, options, code: false, error })
    }

    /// The key's answer; what was wrong with it, if it may be asked once more.
    pub(crate) async fn prove_session_by_key(
        &self,
        caller: &Caller,
        shown: &mut Shown,
        token: &Secret,
        answer: &Secret,
        asker: Asker<'_>,
        from: Option<String>,
    ) -> ApiResult<Option<String>> {
        // The purpose names the session, and with it the user.
        let ceremony = self.take_question(token, asker, &purpose(shown), from.as_deref()).await?;
        let address = address(caller, from.as_deref());
        let turn = self.login_turn(shown.user.name.as_str(), address.as_deref()).await?;
        match self.prove_by_key(&ceremony, answer, from.as_deref()).await {
            Ok(_) => turn.succeeded(),
            Err(cause) if cause.kind == ApiErrorKind::Unauthenticated => return Ok(Some(cause.message)),
            Err(cause) => return Err(cause),
        }
        self.keep_proven(shown).await?;
        Ok(None)
    }
}

/// For what a key is asked: to change the factors of this session's owner.
fn purpose(shown: &Shown) -> String {
    format!("account proof {}", shown.hash)
}

/// Whose failures count together.
fn address(caller: &Caller, from: Option<&str>) -> Option<String> {
    from.map(source_of).or_else(|| caller.source().map(|source| source.to_string()))
}
