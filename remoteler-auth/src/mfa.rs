//! Second factors: asked for at a login of local users, set up and removed by all who have an account. Owns their records; what counts as a proof, [`Factors`] decides.

use std::time::Duration;

use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, Factor, FactorAdded, FactorKind, FactorRemoval, FreshProof, NewFactor,
    OfferedTotp, PolicySource, Revision, SecondFactor, Secret, UserName,
};

use webauthn_rs::prelude::SecurityKey;

use crate::{
    Caller,
    factors::{Factors, Proved, totp},
    failure::{ApiResult, bad_request, conflict, not_found, unauthenticated},
    fresh_logins::FRESH,
    records::{Batch, key},
    service::Inner,
    users::UserRecord,
};

/// How long an offered secret waits for its first code.
const OFFER: Duration = Duration::from_secs(600);
/// Logins of one user at the same moment that are told apart; more ask again.
pub(crate) const TURNS: usize = 8;
/// Name of the factor that is set up with the account.
const FIRST: &str = "authenticator app";
/// The same, where it is a security key.
const FIRST_KEY: &str = "security key";
const NOT_PROVED: &str = "the password or the code is wrong; a code counts once, so wait for the next one";

/// What a login's code proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// All that is asked for.
    Proved,
    /// Nothing: a code is needed.
    Needed,
    /// Nothing: a security key is needed, and codes there are none but for recovery.
    KeyNeeded,
    /// Nothing: the code is wrong, or was used.
    Wrong,
    /// Nothing: everybody needs a factor, and this user has none.
    Missing,
}

impl Inner {
    /// What logins of local users need.
    pub(crate) fn second_factor(&self) -> SecondFactor {
        self.policy.policy().settings.second_factor
    }

    pub(crate) async fn factors_of(&self, user: &UserName) -> ApiResult<(Factors, Option<Revision>)> {
        let found = self.records.read_at::<Factors>(&key::of(key::FACTORS, user)).await?;
        Ok(found.map_or_else(Default::default, |(factors, revision)| (factors, Some(revision))))
    }

    pub(crate) fn keep_factors(
        &self,
        batch: Batch,
        user: &UserName,
        factors: &Factors,
        at: Option<Revision>,
    ) -> ApiResult<Batch> {
        let key = key::of(key::FACTORS, user);
        Ok(match at {
            Some(revision) => batch.replace(&key, revision, factors)?,
            None => batch.create(&key, factors, None)?,
        })
    }

    /// Whether `code` is the user's, now. It is used up before the answer, also when several show it at once (I48).
    pub(crate) async fn ask_factor(&self, user: &UserName, code: Option<&Secret>) -> ApiResult<Asked> {
        let wanted = self.second_factor();
        if wanted == SecondFactor::Off {
            return Ok(Asked::Proved);
        }
        let factors = self.factors_of(user).await?.0;
        match (wanted.is_required(), factors.suffices(wanted, None)) {
            (true, false) => Ok(Asked::Missing),
            (false, false) => Ok(Asked::Proved),
            (_, true) => self.ask_own(user, code, wanted.takes(FactorKind::Totp)).await,
        }
    }

    pub(crate) async fn factors(&self, caller: &Caller) -> ApiResult<Vec<Factor>> {
        let user = self.owner(caller, "list second factors").await?;
        Ok(self.factors_of(&user).await?.0.shown())
    }

    pub(crate) async fn offer_factor(&self, caller: &Caller, proof: FreshProof) -> ApiResult<OfferedTotp> {
        let user = self.owner(caller, "add a second factor").await?;
        self.prove_fresh(caller, &user, proof).await?;
        self.draw_offer(&user).await
    }

    pub(crate) async fn add_factor(&self, caller: &Caller, wanted: NewFactor) -> ApiResult<FactorAdded> {
        let user = self.owner(caller, "add a second factor").await?;
        self.take_offer(&user, wanted).await
    }

    pub(crate) async fn remove_factor(&self, caller: &Caller, removal: FactorRemoval) -> ApiResult<()> {
        let user = self.owner(caller, "remove a second factor").await?;
        let FactorRemoval { name, proof } = removal;
        let known = self.factors_of(&user).await?.0;
        self.may_remove(&known, &name)?;
        self.prove_fresh(caller, &user, proof).await?;
        self.drop_factor(&user, &name).await
    }

    fn may_remove(&self, factors: &Factors, name: &str) -> ApiResult<()> {
        if !factors.shown().iter().any(|factor| factor.name == name) {
            return Err(not_found("you have no second factor of that name; tsh mfa ls lists them"));
        }
        let wanted = self.second_factor();
        if wanted.is_required() && factors.suffices(wanted, None) && !factors.suffices(wanted, Some(name)) {
            return Err(conflict(
                "this is your last second factor, and everybody needs one here; add another one first",
            ));
        }
        Ok(())
    }

    /// Removes a factor of somebody who has proved to be there.
    pub(crate) async fn drop_factor(&self, user: &UserName, name: &str) -> ApiResult<()> {
        let (mut factors, at) = self.factors_of(user).await?;
        self.may_remove(&factors, name)?;
        factors.remove(name);
        let (owner, name) = (user.to_string(), name.to_owned());
        self.record(AuditKind::MfaDelete { user: owner.clone(), owner, name }).await?;
        self.records.commit(self.keep_factors(Batch::new(), user, &factors, at)?).await?;
        Ok(())
    }

    /// A secret for an app, for somebody who has proved to be there.
    pub(crate) async fn draw_offer(&self, user: &UserName) -> ApiResult<OfferedTotp> {
        let secret = totp::draw(self.entropy.as_ref());
        let until = self.clock.now().plus(OFFER);
        self.records.write(&offer_of(user), &secret, Some(until)).await?;
        Ok(self.offered(user, secret))
    }

    /// The offered secret becomes a factor.
    pub(crate) async fn take_offer(&self, user: &UserName, wanted: NewFactor) -> ApiResult<FactorAdded> {
        let key = offer_of(user);
        let offered = self.records.read::<Secret>(&key).await?;
        let secret = offered
            .ok_or_else(|| not_found("no second factor was begun in the last 10 minutes; run tsh mfa add again"))?;
        let (mut factors, at) = self.factors_of(user).await?;
        // Guessing at a code of an offer wins nothing: whoever guesses has the secret.
        let recovery_codes = self.take_totp(&mut factors, &wanted.name, secret, &wanted.code)?;
        self.record_added(user, &wanted.name, FactorKind::Totp, !recovery_codes.is_empty()).await?;
        let taken = Batch::new().delete(&key);
        self.records.commit(self.keep_factors(taken, user, &factors, at)?).await?;
        Ok(FactorAdded { recovery_codes })
    }

    /// A key that answered an offer becomes a factor.
    pub(crate) async fn take_key(
        &self,
        user: &UserName,
        name: &str,
        (site, key): (String, SecurityKey),
    ) -> ApiResult<FactorAdded> {
        let (mut factors, at) = self.factors_of(user).await?;
        let recovery_codes = self.add_key(&mut factors, name, site, key)?;
        self.record_added(user, name, FactorKind::Webauthn, !recovery_codes.is_empty()).await?;
        self.records.commit(self.keep_factors(Batch::new(), user, &factors, at)?).await?;
        Ok(FactorAdded { recovery_codes })
    }

    /// The key of a sign-up: what is to be written with the password, and the recovery codes.
    pub(crate) async fn key_at_sign_up(
        &self,
        user: &UserName,
        (site, key): (String, SecurityKey),
    ) -> ApiResult<(Batch, Vec<Secret>)> {
        let mut factors = Factors::default();
        let codes = self.add_key(&mut factors, FIRST_KEY, site, key)?;
        self.record_added(user, FIRST_KEY, FactorKind::Webauthn, true).await?;
        Ok((Batch::new().write(&key::of(key::FACTORS, user), &factors, None)?, codes))
    }

    fn add_key(&self, factors: &mut Factors, name: &str, site: String, key: SecurityKey) -> ApiResult<Vec<Secret>> {
        let first = factors.is_empty();
        let taken = factors.add_key(name, site, key, self.clock.now());
        taken.map_err(|cause| bad_request(cause.to_string()))?;
        Ok(if first { factors.draw_recovery(self.entropy.as_ref()) } else { Vec::new() })
    }

    /// The secret that is offered with a sign-up link: the same each time the page is opened.
    pub(crate) async fn offer_with_link(
        &self,
        user: &UserName,
        link_hash: &str,
        until: remoteler_core::Timestamp,
    ) -> ApiResult<Option<OfferedTotp>> {
        if !self.second_factor().takes(FactorKind::Totp) {
            return Ok(None);
        }
        let key = key::of(key::FACTOR_OFFERS, link_hash);
        if let Some(secret) = self.records.read::<Secret>(&key).await? {
            return Ok(Some(self.offered(user, secret)));
        }
        let secret = totp::draw(self.entropy.as_ref());
        match self.records.create(&key, &secret, Some(until)).await {
            Ok(_) => Ok(Some(self.offered(user, secret))),
            Err(cause) if cause.is_conflict() => {
                let secret = self.records.read::<Secret>(&key).await?;
                Ok(secret.map(|secret| self.offered(user, secret)))
            }
            Err(cause) => Err(cause.into()),
        }
    }

    /// The factor of a sign-up: what is to be written with the password, and the recovery codes.
    pub(crate) async fn factor_at_sign_up(
        &self,
        user: &UserName,
        link_hash: &str,
        code: Option<&Secret>,
    ) -> ApiResult<(Batch, Vec<Secret>)> {
        let code = code.filter(|code| !code.reveal().trim().is_empty());
        let wanted = self.second_factor();
        let code = match (wanted, code) {
            (SecondFactor::Off, _) | (SecondFactor::Optional, None) => return Ok((Batch::new(), Vec::new())),
            (SecondFactor::Webauthn, _) => {
                return Err(bad_request("a security key is needed here; open the link in a browser"));
            }
            (SecondFactor::On | SecondFactor::Otp, None) => {
                return Err(no_code("a second factor is needed here; type a code of your authenticator app"));
            }
            (SecondFactor::On | SecondFactor::Otp | SecondFactor::Optional, Some(code)) => code,
        };
        let key = key::of(key::FACTOR_OFFERS, link_hash);
        let secret = self.records.read::<Secret>(&key).await?;
        let secret = secret.ok_or_else(|| bad_request("the second factor was not offered yet; open the link again"))?;
        let mut factors = Factors::default();
        // Apart from a password that may not be set, so that a terminal asks again for the one that was refused.
        let codes = self.take_totp(&mut factors, FIRST, secret, code).map_err(|cause| no_code(cause.message))?;
        self.record_added(user, FIRST, FactorKind::Totp, true).await?;
        let batch = Batch::new().delete(&key).write(&key::of(key::FACTORS, user), &factors, None)?;
        Ok((batch, codes))
    }

    fn take_totp(&self, factors: &mut Factors, name: &str, secret: Secret, code: &Secret) -> ApiResult<Vec<Secret>> {
        let first = factors.is_empty();
        let taken = factors.add_totp(name, secret, code, self.clock.now());
        taken.map_err(|cause| bad_request(cause.to_string()))?;
        Ok(if first { factors.draw_recovery(self.entropy.as_ref()) } else { Vec::new() })
    }

    async fn record_added(&self, user: &UserName, name: &str, kind: FactorKind, with_codes: bool) -> ApiResult<()> {
        let (user, mfa_device_type) = (user.to_string(), kind.as_str().to_owned());
        self.record(AuditKind::MfaAdd { user: user.clone(), name: name.into(), mfa_device_type }).await?;
        if with_codes {
            self.record(AuditKind::RecoveryCodesGenerate { user }).await?;
        }
        Ok(())
    }

    fn offered(&self, user: &UserName, secret: Secret) -> OfferedTotp {
        let uri = totp::uri(self.cluster.as_str(), user.as_str(), &secret);
        OfferedTotp { secret, uri }
    }

    /// The user that calls for himself.
    async fn owner(&self, caller: &Caller, what: &str) -> ApiResult<UserName> {
        match caller {
            Caller::User { user, .. } => Ok(self.current(user).await?.user.clone()),
            Caller::Anonymous { .. } | Caller::Host { .. } | Caller::LocalAdmin => Err(self.refuse(caller, what).await),
        }
    }

    /// That the owner is there and not only a certificate of theirs. Failures count with those of logins.
    async fn prove_fresh(&self, caller: &Caller, user: &UserName, proof: FreshProof) -> ApiResult<()> {
        let source = caller.source().map(|source| source.to_string());
        let turn = match self.login_turn(user.as_str(), source.as_deref()).await {
            Ok(turn) => turn,
            Err(answer) => return Err(self.not_proved(caller, answer).await),
        };
        let matches = match self.first_proof(caller, user, proof.password).await {
            Ok(matches) => matches,
            // Nobody looked at the password: nothing was wrong with it.
            Err(cause) => {
                turn.took_back();
                return Err(cause);
            }
        };
        if !matches {
            return Err(self.not_proved(caller, unauthenticated(NOT_PROVED)).await);
        }
        let (factors, _) = self.factors_of(user).await?;
        // Also where logins do without: what is there is not given away for a password.
        let asked =
            if factors.is_empty() { Asked::Proved } else { self.ask_own(user, proof.code.as_ref(), true).await? };
        match asked {
            Asked::Proved | Asked::Missing => {}
            Asked::Needed => {
                turn.took_back();
                let message = "a code of a second factor you have is needed";
                return Err(ApiError::new(ApiErrorKind::SecondFactorNeeded, message));
            }
            Asked::KeyNeeded => {
                turn.took_back();
                let message = "your second factor is a security key: do this on the account page of the proxy, /web/account, or type a recovery code";
                return Err(ApiError::new(ApiErrorKind::SecurityKeyNeeded, message));
            }
            Asked::Wrong => return Err(self.not_proved(caller, unauthenticated(NOT_PROVED)).await),
        }
        turn.succeeded();
        Ok(())
    }

    /// The password or, for who logs in by an identity provider and has none, a login there of a moment ago.
    async fn first_proof(&self, caller: &Caller, user: &UserName, password: Option<Secret>) -> ApiResult<bool> {
        let record = self.records.read::<UserRecord>(&key::of(key::USERS, user)).await?;
        if let Some(account) = record.as_ref().and_then(|record| record.sso.as_ref()) {
            if self.has_just_logged_in(caller, user).await? {
                return Ok(true);
            }
            let (minutes, connector) = (FRESH.as_secs() / 60, &account.connector);
            let message = format!(
                "second factors change within {minutes} minutes of a login by connector {connector}; log in again"
            );
            return Err(ApiError::new(ApiErrorKind::FreshLoginNeeded, message));
        }
        let Some(password) = password else {
            return Err(ApiError::new(ApiErrorKind::PasswordNeeded, "the password is needed"));
        };
        Ok(self.passwords.verify(password, record.and_then(|record| record.password)).await?)
    }

    /// As [`Inner::ask_factor`], whatever the cluster wants at logins.
    pub(crate) async fn ask_own(&self, user: &UserName, code: Option<&Secret>, apps: bool) -> ApiResult<Asked> {
        let Some(code) = code else {
            let by_code = apps && self.factors_of(user).await?.0.has(FactorKind::Totp);
            return Ok(if by_code { Asked::Needed } else { Asked::KeyNeeded });
        };
        for _ in 0..TURNS {
            let (mut factors, revision) = self.factors_of(user).await?;
            let Some(proved) = factors.prove(code, apps, self.clock.now()) else { return Ok(Asked::Wrong) };
            match self.records.commit(self.keep_factors(Batch::new(), user, &factors, revision)?).await {
                Ok(()) => {}
                Err(cause) if cause.is_conflict() => continue,
                Err(cause) => return Err(cause.into()),
            }
            if let Proved::Recovery(left) = proved {
                self.record(AuditKind::RecoveryCodeUsed { user: user.to_string(), left }).await?;
            }
            return Ok(Asked::Proved);
        }
        Err(conflict("too many proofs of this user at once; try again"))
    }

    async fn not_proved(&self, caller: &Caller, answer: ApiError) -> ApiError {
        let remote = caller.address().map(|addr| addr.to_string());
        match self.record_attempt(caller.name(), answer.message.clone(), remote).await {
            Ok(()) => answer,
            Err(cause) => cause,
        }
    }
}

/// The key of what is offered to a user who is logged in. A user's name holds no `/`, and a link's hash is hex.
pub(crate) fn offer_of(user: &UserName) -> String {
    key::of(key::FACTOR_OFFERS, format_args!("of/{user}"))
}

/// The code of a sign-up is missing or wrong.
fn no_code(message: impl Into<String>) -> ApiError {
    ApiError::new(ApiErrorKind::SecondFactorNeeded, message)
}
