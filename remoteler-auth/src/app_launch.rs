//! The way of a browser to a web application: from a web session at the proxy to a one-time code that the application's own origin turns into a session. Owns
//! what a code is bound to (the browser's state there, the application, the web session), and the second factor that is shown on the way (I49). Who may use an
//! application, core decides; what a session is, `app_sessions`.

use std::time::Duration;

use remoteler_core::{
    AccessDenied, AppAddress, AppGrant, AppName, AppRecord, AuditKind, BrowserView, DenyReason, FactorKind,
    PolicySource, SecondFactor, Secret, SessionId, Timestamp, UserIdentity, UserName, grant_app, random_uuid,
};
use serde::{Deserialize, Serialize};

use crate::{
    ceremonies::{Asker, KeyQuestion},
    failure::{ApiResult, bad_request, denied, rate_limited},
    issue::user_identity,
    limiter::Turn,
    records::key,
    secret_hash,
    service::Inner,
    session_mfa::WRONG,
    users::UserRecord,
    web_sessions::Shown,
};

/// How long a code counts.
const CODE_TTL: Duration = Duration::from_secs(60);
/// Longest path that a browser is brought back to; a longer one leads to the application's first page.
const MAX_PATH: usize = 2048;

/// What a browser brings to the page.
pub(crate) struct Launch {
    pub(crate) app: String,
    pub(crate) state: String,
    pub(crate) path: String,
    pub(crate) session: Option<Secret>,
    pub(crate) shown: ShownFactor,
}

/// The second factor that it shows, if any.
#[derive(Default)]
pub(crate) struct ShownFactor {
    pub(crate) code: Option<Secret>,
    pub(crate) token: Option<Secret>,
    pub(crate) answer: Option<Secret>,
}

/// A code as stored, under its hash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AppCode {
    pub(crate) app: AppName,
    pub(crate) user: UserName,
    /// [`remoteler_core::app_state_hash`] of the state of the one browser that may bring it.
    pub(crate) state: String,
    /// Hash of the secret of the web session that it comes from.
    pub(crate) web: String,
    /// Of the session that is to be.
    pub(crate) session: SessionId,
    /// Whether a second factor was shown for it.
    pub(crate) with_mfa: bool,
    pub(crate) path: String,
    /// The browser's address, as the proxy saw it.
    pub(crate) remote: Option<String>,
    pub(crate) expires: Timestamp,
}

/// What became of the second factor.
enum Proven {
    /// It was shown.
    Yes,
    /// It is still to be shown; what was wrong before.
    NotYet(Option<String>),
}

impl Inner {
    /// Brings the browser of a web session to an application, or says what it needs for that.
    pub(crate) async fn launch_app(
        &self,
        launch: Launch,
        asker: Asker<'_>,
        from: Option<String>,
    ) -> ApiResult<BrowserView> {
        let Launch { app, state, path, session, shown } = launch;
        if !secret_hash::is_drawn(&state) {
            return Err(bad_request("this page is opened by the application's own address; go there"));
        }
        let Some(web) = self.web_session(session.as_ref()).await? else { return Ok(BrowserView::NoSession) };
        let user = web.user.name.clone();
        let (app, grant) = match self.granted_app(&web.user, &app).await? {
            Ok(granted) => granted,
            Err((full, said)) => {
                self.record_attempt(user.to_string(), full, from).await?;
                return Err(denied(said));
            }
        };
        let Some(address) = self.app_address(&app).await? else {
            return Err(bad_request(format!(
                "application {} has no address that a browser could go to; give it a public_addr, or the proxy one with a DNS name",
                app.name
            )));
        };
        let session = SessionId::from_uuid(random_uuid(self.entropy.as_ref()));
        let with_mfa = grant.needs_session_mfa();
        // Before a code or a touch is spent on it; a page that only asks is none.
        let (limit, now) = (&self.limits.app_launches, self.clock.now());
        let asks = with_mfa && shown.code.is_none() && shown.answer.is_none();
        if !(if asks { limit.is_open(user.as_str(), now) } else { limit.attempt(user.as_str(), now) }) {
            return Err(rate_limited("too many sessions with applications begin at once; wait five minutes"));
        }
        if with_mfa {
            let at = At { web: &web, app: &app.name, state: &state, session };
            match self.app_factor(&at, shown, asker, from.clone()).await? {
                Proven::Yes => {}
                Proven::NotYet(error) => return self.app_factor_view(&at, &address, asker, error, from).await,
            }
        }
        let code = secret_hash::draw(self.entropy.as_ref());
        // A factor counts for so long until the session begins with it; from then on it is the session's.
        let interval = self.policy.policy().settings.mfa_verification_interval.duration();
        let life = if with_mfa { CODE_TTL.min(interval) } else { CODE_TTL };
        let expires = self.clock.now().plus(life);
        let record = AppCode {
            app: app.name,
            user,
            state,
            web: web.hash,
            session,
            with_mfa,
            path: local_path(&path),
            remote: from,
            expires,
        };
        self.records.create(&key::of(key::APP_CODES, secret_hash::hash(&code)), &record, Some(expires)).await?;
        Ok(BrowserView::AppLaunched { origin: address.origin(), code })
    }

    /// What a user may be given at the application of this name as of now; else why not, in full and as they may hear it. Whether it is not there or must not
    /// be known is the same to them.
    pub(crate) async fn granted_app(
        &self,
        user: &UserRecord,
        app: &str,
    ) -> ApiResult<Result<(AppRecord, AppGrant), (String, String)>> {
        let shown: String = app.chars().take(63).collect();
        let absent = format!(
            "there is no application {shown} here that you may use; ask an administrator for a role that allows it"
        );
        let Ok(name) = app.parse::<AppName>() else { return Ok(Err((absent.clone(), absent))) };
        let Some(record) = self.records.read::<AppRecord>(&key::of(key::APPS, &name)).await? else {
            return Ok(Err((absent.clone(), absent)));
        };
        let identity = self.identity_of(user)?;
        let granted = grant_app(&identity, &self.policy.policy(), &record);
        Ok(match granted {
            Ok(grant) => Ok((record, grant)),
            Err(cause) => {
                let said = if matches!(cause.reason, DenyReason::Locked(_)) { cause.public() } else { absent };
                Err((AccessDenied::to_string(&cause), said))
            }
        })
    }

    /// As a certificate of now would say it.
    pub(crate) fn identity_of(&self, user: &UserRecord) -> ApiResult<UserIdentity> {
        Ok(user_identity(&self.cluster, &user.name, &self.roles_of(user)?, &user.traits))
    }

    /// Looks at a second factor for one session. Counted with those of other sessions, and on record either way (I48).
    async fn app_factor(
        &self,
        at: &At<'_>,
        shown: ShownFactor,
        asker: Asker<'_>,
        from: Option<String>,
    ) -> ApiResult<Proven> {
        let user = &at.web.user.name;
        let event = |kind: &str, device: Option<String>, error: Option<String>| AuditKind::MfaValidate {
            user: user.to_string(),
            mfa_device: device,
            mfa_device_type: kind.into(),
            session: Some(at.session.to_string()),
            target: Some(at.app.to_string()),
            login: None,
            success: error.is_none(),
            error,
            remote: from.clone(),
        };
        match shown {
            ShownFactor { token: Some(token), answer: Some(answer), .. } => {
                let ceremony = self.take_question(&token, asker, &at.purpose(), from.as_deref()).await?;
                if ceremony.user != *user {
                    return Err(denied("the answer of a security key is of another user")); // the purpose is of this web session
                }
                let limit = &self.limits.session_user;
                if !matches!(limit.enter(user.as_str(), self.clock.now()), Turn::Now) {
                    let said = "too many wrong answers; wait five minutes";
                    self.record_attempt(user.to_string(), said.into(), from).await?;
                    return Err(rate_limited(said));
                }
                let judged = self.judge_key(&ceremony, &answer).await;
                limit.leave(user.as_str(), matches!(judged, Ok(Err(_))), self.clock.now());
                let (device, fault) = match judged? {
                    Ok(device) => (Some(device), None),
                    Err((device, fault)) => (device, Some(fault.to_string())),
                };
                self.record(event("webauthn", device, fault.clone())).await?;
                if fault.is_none() {
                    limit.clear(user.as_str());
                }
                Ok(fault.map_or(Proven::Yes, |fault| Proven::NotYet(Some(fault))))
            }
            ShownFactor { code: Some(code), .. } => {
                let taken = match self.take_session_code(user, &code).await {
                    Err(cause) => {
                        self.record_attempt(user.to_string(), cause.message.clone(), from).await?;
                        return Err(cause);
                    }
                    Ok(taken) => taken,
                };
                let error = taken.is_none().then(|| WRONG.to_owned());
                self.record(event("otp", taken, error.clone())).await?;
                Ok(error.map_or(Proven::Yes, |error| Proven::NotYet(Some(error))))
            }
            ShownFactor { .. } => Ok(Proven::NotYet(None)),
        }
    }

    /// The page that asks for a factor; there is none for who has none that counts.
    async fn app_factor_view(
        &self,
        at: &At<'_>,
        address: &AppAddress,
        asker: Asker<'_>,
        error: Option<String>,
        from: Option<String>,
    ) -> ApiResult<BrowserView> {
        let user = &at.web.user.name;
        let factors = self.factors_of(user).await?.0;
        let codes = self.codes_count() && factors.shown().iter().any(|factor| factor.kind == FactorKind::Totp);
        let question = if self.second_factor() == SecondFactor::Otp {
            None
        } else {
            self.ask_for_key(user, asker, &at.purpose()).await?
        };
        if !codes && question.is_none() {
            let said = "each session there needs the code of an authenticator app, or a security key, and you have none; set one up on your account page";
            self.record_attempt(user.to_string(), said.into(), from).await?;
            return Err(denied(said));
        }
        let (token, options) = question.map(|KeyQuestion { token, options }| (token, options)).unzip();
        let (app, origin) = (at.app.to_string(), address.origin());
        Ok(BrowserView::AppFactor { app, origin, user: user.clone(), codes, token, options, error })
    }
}

/// Which session is to begin, on whose behalf.
struct At<'a> {
    web: &'a Shown,
    app: &'a AppName,
    state: &'a str,
    session: SessionId,
}

impl At<'_> {
    /// For what a key is asked: this way of this web session to this application, and nothing else.
    fn purpose(&self) -> String {
        format!("app {} {} {}", self.app, self.state, self.web.hash)
    }
}

/// Path and query at the same origin, as one parser reads them (I40); anything else is the first page.
fn local_path(path: &str) -> String {
    let first = || "/".to_owned();
    let strange = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '\\' | '#');
    if path.len() > MAX_PATH || !path.starts_with('/') || path.starts_with("//") || path.contains(strange) {
        return first();
    }
    path.parse::<http::uri::PathAndQuery>().map_or_else(|_| first(), |path| path.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::local_path;

    #[test]
    fn a_path_that_another_reader_could_take_for_another_site_leads_to_the_first_page() {
        for good in ["/", "/a/b?c=d&e=%2F%2Fevil", "/a//b", "/@x"] {
            assert_eq!(local_path(good), good);
        }
        let long = format!("/{}", "a".repeat(3000));
        for bad in [
            "",
            "a",
            "//evil",
            "/\\evil",
            "\\\\evil",
            "https://evil",
            "/a b",
            "/a\tb",
            "/a\r\nSet-Cookie: x",
            "/#x",
            &long,
        ] {
            assert_eq!(local_path(bad), "/", "{bad:?}"); // I40
        }
    }
}
