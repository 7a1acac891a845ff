//! Security keys for single sessions: a page that shows who begins what and asks for a touch, for whoever sits before a terminal, which cannot. Owns the question
//! and that its answer begins one session of one user at one place, once and within a minute (I49); what an answer proves, `ceremonies` judges.

use std::time::Duration;

use remoteler_core::{
    AuditKind, BrowserAnswer, BrowserView, SSH_PROOF_LIFE, SecondFactor, Secret, SessionId, SessionTarget, Timestamp,
    UserName, draw_login_code,
};
use serde::{Deserialize, Serialize};

use crate::{
    ceremonies::{Asker, KeyQuestion},
    factors::Factors,
    failure::{ApiResult, bad_request, conflict, denied, not_found, rate_limited},
    limiter::Turn,
    records::{Batch, RecordError, key},
    secret_hash,
    service::Inner,
};

/// A session that waits for a touch.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SessionQuestion {
    user: UserName,
    target: SessionTarget,
    /// Name of the target, for people.
    place: String,
    /// The client's address, as the node or the auth service saw it.
    remote: Option<String>,
    /// SubjectPublicKeyInfo of the certificate that is made with the proof, if one is.
    tls_key: Option<String>,
    /// Drawn for this question: the number of a session is whoever's who begins it, and comes again.
    nonce: Secret,
    /// What terminal and page show.
    code: String,
    /// Hash of the cookie of the one browser that may answer.
    browser: Option<String>,
    opened: u8,
    expires: Timestamp,
    touched: Option<Touch>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Touch {
    device: String,
    at: Timestamp,
}

/// Whether a session's key was touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    /// It was, and the touch is used up.
    Now,
    /// Not yet.
    Waits,
    /// No touch was asked for.
    NotAsked,
}

/// Whether a page is there for a touch.
pub(crate) enum Offer {
    /// What the terminal says of it.
    Page(String),
    /// The user has no key for the proxy's name, or keys do not count.
    None,
    /// Too many pages wait already.
    TooMany,
}

/// Who begins what.
pub(crate) struct Beginning<'a> {
    pub(crate) session: SessionId,
    pub(crate) user: &'a UserName,
    pub(crate) target: &'a SessionTarget,
    pub(crate) tls_key: Option<&'a str>,
    pub(crate) place: &'a str,
    pub(crate) remote: Option<&'a str>,
}

/// How long a page waits: who is asked at a node has two minutes.
const QUESTION: Duration = Duration::from_secs(180);
/// Pages of one user that one caller may have open.
pub(crate) const PAGES: u32 = 20;
pub(crate) const PAGES_WINDOW: Duration = QUESTION;
/// How often a page can be opened.
const MAX_OPENED: u8 = 20;
const GONE: &str = "this session is unknown, began already or waits no more; begin it again";
const OTHER_BROWSER: &str =
    "this session's page was opened in another browser; answer there, or begin the session again";
const DONE: &str = "The security key was touched. Go back to the terminal and press Enter; you may close this tab.";

impl Inner {
    /// Asks for a touch of one of the user's keys, if they have one for the proxy's name: what the terminal says of it. Asked again, it is the same page.
    pub(crate) async fn offer_touch(
        &self,
        caller: &str,
        beginning: &Beginning<'_>,
        factors: &Factors,
    ) -> ApiResult<Offer> {
        let Some(addr) = self.proxy_addr().await else { return Ok(Offer::None) };
        let counts = self.second_factor() != SecondFactor::Otp;
        let site = self.site(&format!("https://{addr}")).filter(|_| counts);
        if site.is_none_or(|site| factors.keys(site.host()).is_empty()) {
            return Ok(Offer::None);
        }
        let now = self.clock.now();
        let Beginning { session, user, target, tls_key, place, remote } = beginning;
        let question = SessionQuestion {
            user: (*user).clone(),
            target: (*target).clone(),
            place: (*place).to_owned(),
            remote: remote.map(str::to_owned),
            tls_key: tls_key.map(str::to_owned),
            nonce: secret_hash::draw(self.entropy.as_ref()),
            code: draw_login_code(self.entropy.as_ref()),
            browser: None,
            opened: 0,
            expires: now.plus(QUESTION),
            touched: None,
        };
        let code = match self.records.read::<SessionQuestion>(&question_key(*session)).await? {
            Some(asked) if asked.is_for(user, target, *tls_key) => asked.code,
            // Of another user, place or key: whoever drew the same number gets no page.
            Some(_) => return Ok(Offer::None),
            None => {
                // I26: a host that asks for pages without end gets none, and codes still count.
                if !self.limits.session_pages.attempt(&pages_of(caller, user), now) {
                    return Ok(Offer::TooMany);
                }
                match self.records.create(&question_key(*session), &question, Some(question.expires)).await {
                    Ok(_) => question.code,
                    Err(cause) if RecordError::is_conflict(&cause) => return Ok(Offer::None),
                    Err(cause) => return Err(cause.into()),
                }
            }
        };
        Ok(Offer::Page(format!(
            "open https://{addr}/web/session/{session} which shows {code}, touch your security key and press Enter"
        )))
    }

    /// Takes the touch of a session, once, for who begins it, where and with which key (I48, I49).
    pub(crate) async fn take_touch(&self, caller: &str, beginning: &Beginning<'_>) -> ApiResult<Touched> {
        let Beginning { session, user, target, tls_key, .. } = beginning;
        let key = question_key(*session);
        let Some((asked, revision)) = self.records.read_at::<SessionQuestion>(&key).await? else {
            return Ok(Touched::NotAsked);
        };
        if !asked.is_for(user, target, *tls_key) {
            return Ok(Touched::NotAsked);
        }
        let Some(touch) = asked.touched else { return Ok(Touched::Waits) };
        if touch.at.plus(SSH_PROOF_LIFE) <= self.clock.now() || asked.expires <= self.clock.now() {
            return Err(denied("the security key was touched too long ago; begin the session again"));
        }
        // A key that was taken away meanwhile, as when an administrator resets the user, begins nothing.
        let known = self.factors_of(user).await?.0.shown();
        if !known.iter().any(|factor| factor.name == touch.device) {
            return Err(denied("the security key is not the user's any more"));
        }
        match self.records.commit(Batch::new().delete_at(&key, revision)).await {
            Ok(()) => {
                self.limits.session_pages.succeeded(&pages_of(caller, user));
                Ok(Touched::Now)
            }
            Err(cause) if cause.is_conflict() => Ok(Touched::NotAsked),
            Err(cause) => Err(cause.into()),
        }
    }

    /// The page of a session, in the first browser that opens it.
    pub(crate) async fn open_session_page(
        &self,
        id: &str,
        browser: Option<Secret>,
        origin: &str,
        from: Option<String>,
    ) -> ApiResult<BrowserAnswer> {
        let browser = browser.unwrap_or_else(|| secret_hash::draw(self.entropy.as_ref()));
        let (session, mut asked, revision) = self.session_question(id).await?;
        let hash = secret_hash::hash(&browser);
        if asked.browser.as_ref().is_some_and(|known| *known != hash) {
            return self.refuse_browser(&asked, from).await;
        }
        if asked.opened >= MAX_OPENED {
            return Err(rate_limited("this page was opened too often; begin the session again"));
        }
        (asked.browser, asked.opened) = (Some(hash), asked.opened + 1);
        self.move_question(session, &asked, revision).await?;
        let view = match asked.touched {
            Some(_) => finished(),
            None => self.session_view(session, &asked, Asker { browser: &browser, origin }, None).await?,
        };
        Ok(BrowserAnswer { view, set_browser: Some(browser) })
    }

    /// The key's answer on the page of a session. Wrong ones count with wrong codes of sessions; each is on record with the session and its place.
    pub(crate) async fn touch_session(
        &self,
        id: &str,
        asker: Asker<'_>,
        token: &Secret,
        answer: &Secret,
        from: Option<String>,
    ) -> ApiResult<BrowserView> {
        let (session, mut asked, _) = self.session_question(id).await?;
        if asked.browser != Some(secret_hash::hash(asker.browser)) {
            return self.refuse_browser(&asked, from).await;
        }
        if asked.touched.is_some() {
            return Ok(finished());
        }
        let ceremony = self.take_question(token, asker, &asked.purpose(session), from.as_deref()).await?;
        if ceremony.user != asked.user {
            return self.refuse_browser(&asked, from).await; // the purpose is of this question, and it of this user
        }
        let (limit, user) = (&self.limits.session_user, asked.user.clone());
        match limit.enter(user.as_str(), self.clock.now()) {
            Turn::Now => {}
            Turn::Later | Turn::Never => {
                let said = "too many wrong answers; wait five minutes";
                self.record_attempt(user.to_string(), said.into(), from).await?;
                return Err(rate_limited(said));
            }
        }
        let judged = self.judge_key(&ceremony, answer).await;
        limit.leave(user.as_str(), matches!(judged, Ok(Err(_))), self.clock.now());
        let (device, fault) = match judged? {
            Ok(device) => (Some(device), None),
            Err((device, fault)) => (device, Some(fault.to_string())),
        };
        let (target, login) = names(&asked.target);
        self.record(AuditKind::MfaValidate {
            user: user.to_string(),
            mfa_device: device.clone(),
            mfa_device_type: "webauthn".into(),
            session: Some(session.to_string()),
            target: Some(target),
            login,
            success: fault.is_none(),
            error: fault.clone(),
            remote: from,
        })
        .await?;
        match (device, fault) {
            (Some(device), None) => {
                limit.clear(user.as_str());
                // As it is now: opened once more meanwhile, it was written anew.
                let (_, current, revision) = self.session_question(id).await?;
                if current.purpose(session) != asked.purpose(session) || current.browser != asked.browser {
                    return Err(not_found(GONE)); // another question under the same number, which nobody touched a key for
                }
                asked = SessionQuestion { touched: Some(Touch { device, at: self.clock.now() }), ..current };
                self.move_question(session, &asked, revision).await?;
                Ok(finished())
            }
            (_, fault) => self.session_view(session, &asked, asker, fault).await,
        }
    }

    async fn session_view(
        &self,
        session: SessionId,
        asked: &SessionQuestion,
        asker: Asker<'_>,
        error: Option<String>,
    ) -> ApiResult<BrowserView> {
        let question = self.ask_for_key(&asked.user, asker, &asked.purpose(session)).await?;
        let KeyQuestion { token, options } = question.ok_or_else(|| {
            bad_request(format!(
                "{} has no security key for the name of this page; type a code in the terminal",
                asked.user
            ))
        })?;
        Ok(BrowserView::SessionTouch {
            id: session.to_string(),
            user: asked.user.clone(),
            place: asked.place.clone(),
            login: names(&asked.target).1,
            address: asked.remote.clone(),
            code: asked.code.clone(),
            token,
            options,
            error,
        })
    }

    async fn session_question(&self, id: &str) -> ApiResult<(SessionId, SessionQuestion, remoteler_core::Revision)> {
        let gone = || not_found(GONE);
        let session: SessionId = id.parse().map_err(|_| gone())?;
        let found = self.records.read_at::<SessionQuestion>(&question_key(session)).await?;
        let (asked, revision) = found.ok_or_else(gone)?;
        if asked.expires <= self.clock.now() { Err(gone()) } else { Ok((session, asked, revision)) }
    }

    async fn move_question(
        &self,
        session: SessionId,
        asked: &SessionQuestion,
        revision: remoteler_core::Revision,
    ) -> ApiResult<()> {
        let batch = Batch::new().replace_until(&question_key(session), revision, asked, asked.expires)?;
        match self.records.commit(batch).await {
            Ok(()) => Ok(()),
            Err(cause) if cause.is_conflict() => Err(conflict("the page was opened twice at once; open it again")),
            Err(cause) => Err(cause.into()),
        }
    }

    async fn refuse_browser<T>(&self, asked: &SessionQuestion, from: Option<String>) -> ApiResult<T> {
        self.record_attempt(asked.user.to_string(), OTHER_BROWSER.into(), from).await?;
        Err(denied(OTHER_BROWSER))
    }
}

fn finished() -> BrowserView {
    BrowserView::Finished { success: true, message: DONE.to_owned() }
}

/// Whose pages are counted together.
fn pages_of(caller: &str, user: &UserName) -> String {
    format!("{caller} {user}")
}

impl SessionQuestion {
    fn is_for(&self, user: &UserName, target: &SessionTarget, tls_key: Option<&str>) -> bool {
        self.user == *user && self.target == *target && self.tls_key.as_deref() == tls_key
    }

    /// For what a key is asked: this question, and no other one of the same session.
    fn purpose(&self, session: SessionId) -> String {
        format!("session {session} {}", secret_hash::hash(&self.nonce))
    }
}

fn question_key(session: SessionId) -> String {
    key::of(key::SESSION_QUESTIONS, session)
}

/// A target as the audit log names it, and the account.
pub(crate) fn names(target: &SessionTarget) -> (String, Option<String>) {
    match target {
        SessionTarget::Node { host_id, login } => (host_id.to_string(), Some(login.to_string())),
        SessionTarget::KubeCluster { name } => (name.to_string(), None),
        SessionTarget::App { name } => (name.to_string(), None),
    }
}
