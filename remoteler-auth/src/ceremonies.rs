//! Questions to security keys that wait for their answers. Owns that each lies here and not with the browser, is bound to browser, user, site and purpose, and is
//! taken once (I48); what an answer proves, `security_keys` judges.

use std::time::Duration;

use remoteler_core::{ApiErrorKind, AuditKind, Secret, UserName};
use serde::{Deserialize, Serialize};
use webauthn_rs::prelude::{SecurityKey, SecurityKeyAuthentication, SecurityKeyRegistration};

use crate::{
    factors::Touched,
    failure::{ApiResult, bad_request, conflict, denied},
    mfa::TURNS,
    records::{Batch, key},
    secret_hash,
    security_keys::{KeyFault, Site},
    service::Inner,
};

/// A question as it is put to a browser.
pub(crate) struct KeyQuestion {
    /// Brings the question back, once.
    pub(crate) token: Secret,
    /// Options for `navigator.credentials`.
    pub(crate) options: String,
}

/// A question that was put.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ceremony {
    pub(crate) user: UserName,
    /// Hash of the browser's cookie.
    browser: String,
    origin: String,
    /// For what: such as the login it belongs to. An answer for another purpose is none.
    purpose: String,
    state: State,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Registration(Box<SecurityKeyRegistration>),
    Proof(Box<SecurityKeyAuthentication>),
}

/// Who asks: a browser, by its cookie, at a site.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) browser: &'a Secret,
    pub(crate) origin: &'a str,
}

/// How long a question waits.
const QUESTION_TTL: Duration = Duration::from_secs(600);
const GONE: &str = "the question to the security key is unknown, was answered already or has expired; try again";

impl Inner {
    /// Asks for one of the user's keys; `None` when they have none for this site.
    pub(crate) async fn ask_for_key(
        &self,
        user: &UserName,
        asker: Asker<'_>,
        purpose: &str,
    ) -> ApiResult<Option<KeyQuestion>> {
        let Some(site) = self.site(asker.origin) else { return Ok(None) };
        let keys = self.factors_of(user).await?.0.keys(site.host());
        if keys.is_empty() {
            return Ok(None);
        }
        let (options, state) = site.ask(&keys).map_err(|cause| bad_request(cause.to_string()))?;
        let question = self.put_question(user, asker, purpose, options, State::Proof(Box::new(state))).await?;
        Ok(Some(question))
    }

    /// Offers to set up a key; `None` where there can be none.
    pub(crate) async fn offer_key(
        &self,
        user: &UserName,
        asker: Asker<'_>,
        purpose: &str,
    ) -> ApiResult<Option<KeyQuestion>> {
        let Some(site) = self.site(asker.origin) else { return Ok(None) };
        let known = self.factors_of(user).await?.0.keys(site.host());
        let offered = site.offer(self.cluster.as_str(), user.as_str(), &known);
        let (options, state) = offered.map_err(|cause| bad_request(cause.to_string()))?;
        let question = self.put_question(user, asker, purpose, options, State::Registration(Box::new(state))).await?;
        Ok(Some(question))
    }

    /// Whether keys can be set up under this name.
    pub(crate) fn keys_possible(&self, origin: &str) -> bool {
        self.site(origin).is_some()
    }

    /// The site that keys are for under this name; there is none for an IP address.
    pub(crate) fn site(&self, origin: &str) -> Option<Site> {
        Site::of_origin(self.cluster.as_str(), origin)
    }

    async fn put_question(
        &self,
        user: &UserName,
        Asker { browser, origin }: Asker<'_>,
        purpose: &str,
        options: String,
        state: State,
    ) -> ApiResult<KeyQuestion> {
        let token = secret_hash::draw(self.entropy.as_ref());
        let ceremony = Ceremony {
            user: user.clone(),
            browser: secret_hash::hash(browser),
            origin: origin.to_owned(),
            purpose: purpose.to_owned(),
            state,
        };
        let until = self.clock.now().plus(QUESTION_TTL);
        self.records.create(&question_key(&token), &ceremony, Some(until)).await?;
        Ok(KeyQuestion { token, options })
    }

    /// The question of this token, taken: nobody answers it again, also when this answer is not for it (I48).
    pub(crate) async fn take_question(
        &self,
        token: &Secret,
        asker: Asker<'_>,
        purpose: &str,
        from: Option<&str>,
    ) -> ApiResult<Ceremony> {
        let key = question_key(token);
        let found = self.records.read::<Ceremony>(&key).await?;
        let Some(ceremony) = found else {
            self.record_attempt(String::new(), GONE.into(), from.map(str::to_owned)).await?;
            return Err(denied(GONE));
        };
        if !self.records.delete(&key).await? {
            return Err(denied(GONE));
        }
        let same = ceremony.browser == secret_hash::hash(asker.browser)
            && ceremony.origin == asker.origin
            && ceremony.purpose == purpose;
        if same {
            return Ok(ceremony);
        }
        let said = "the answer of a security key came from another browser, or for something else than was asked";
        self.record_attempt(ceremony.user.to_string(), said.into(), from.map(str::to_owned)).await?;
        Err(denied(said))
    }

    /// Whether `answer` proves that the user is there. Counted before it is believed, and on record either way (I48).
    ///
    /// # Errors
    /// [`ApiErrorKind::Unauthenticated`] for an answer that proves nothing.
    pub(crate) async fn prove_by_key(
        &self,
        ceremony: &Ceremony,
        answer: &Secret,
        from: Option<&str>,
    ) -> ApiResult<String> {
        let user = &ceremony.user;
        match self.judge_key(ceremony, answer).await? {
            Ok(name) => {
                self.record_touch(user, Some(name.clone()), None, from).await?;
                Ok(name)
            }
            Err((name, fault)) => {
                self.record_touch(user, name, Some(fault.to_string()), from).await?;
                Err(remoteler_core::ApiError::new(ApiErrorKind::Unauthenticated, fault.to_string()))
            }
        }
    }

    /// The name of the key that answered, or why none did; counted before it is believed (I48). The caller puts it on record.
    pub(crate) async fn judge_key(
        &self,
        ceremony: &Ceremony,
        answer: &Secret,
    ) -> ApiResult<Result<String, (Option<String>, KeyFault)>> {
        let (Some(site), State::Proof(state)) = (self.site(&ceremony.origin), &ceremony.state) else {
            return Ok(Err((None, KeyFault::Wrong)));
        };
        let used = match site.judge(answer, state) {
            Ok(used) => used,
            Err(fault) => return Ok(Err((None, fault))),
        };
        for _ in 0..TURNS {
            // As it is now: a key that was removed meanwhile proves nothing, and of two uses of one counter one counts.
            let (mut factors, revision) = self.factors_of(&ceremony.user).await?;
            let name = match factors.touch(site.host(), &used, self.clock.now()) {
                Touched::By(name) => name,
                Touched::Cloned(name) => return Ok(Err((Some(name), KeyFault::Cloned))),
                Touched::Unknown => return Ok(Err((None, KeyFault::Wrong))),
            };
            match self.records.commit(self.keep_factors(Batch::new(), &ceremony.user, &factors, revision)?).await {
                Ok(()) => return Ok(Ok(name)),
                Err(cause) if cause.is_conflict() => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        Err(conflict("too many proofs of this user at once; try again"))
    }

    /// The key that answered an offer, and the name of the site it is for.
    pub(crate) fn registered(&self, ceremony: &Ceremony, answer: &Secret) -> ApiResult<(String, SecurityKey)> {
        let (Some(site), State::Registration(state)) = (self.site(&ceremony.origin), &ceremony.state) else {
            return Err(denied(GONE));
        };
        let key = site.register(answer, state).map_err(|cause| bad_request(cause.to_string()))?;
        Ok((site.host().to_owned(), key))
    }

    async fn record_touch(
        &self,
        user: &UserName,
        mfa_device: Option<String>,
        error: Option<String>,
        from: Option<&str>,
    ) -> ApiResult<()> {
        self.record(AuditKind::MfaValidate {
            user: user.to_string(),
            mfa_device,
            mfa_device_type: "webauthn".into(),
            session: None,
            target: None,
            login: None,
            success: error.is_none(),
            error,
            remote: from.map(str::to_owned),
        })
        .await
    }
}

fn question_key(token: &Secret) -> String {
    key::of(key::KEY_QUESTIONS, secret_hash::hash(token))
}
