//! Second factors for single sessions (`require_session_mfa`). Owns who may ask for a proof and what it is bound to: the host that asks, or the key of the
//! certificate that is made with it (I49). What counts as a code, [`Factors`] decides; who needs one, the services where sessions begin.

use std::time::Duration;

use remoteler_ca::{AppProfile, KubeProfile, PreparedX509};
use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, CaKind, FactorKind, LockContext, PolicySource, SSH_PROOF_LIFE, SecondFactor,
    Secret, SessionId, SessionProof, SessionProofRequest, SessionProven, SessionPurpose, SessionTarget, SystemRole,
    Timestamp, UserName, VerifiedUser,
};

use crate::{
    Caller,
    factors::Factors,
    failure::{ApiResult, conflict, denied, not_found, rate_limited, unauthenticated},
    issue::{About, SingleIssue},
    limiter::Turn,
    login::remote,
    records::{Batch, key},
    service::Inner,
    session_touch::{Beginning, Offer, Touched, names},
    users::UserRecord,
};

/// Proofs of one user at the same moment that are told apart; more ask again.
const TURNS: usize = 8;
const NOT_TOUCHED: &str = "no security key was touched for this session yet; touch it on the page, then press Enter";
pub(crate) const WRONG: &str =
    "the code is wrong or was used; each counts once, so wait for the next one (recovery codes open no sessions)";

/// What is to be proven, once it is known who asks.
struct Asked {
    user: UserName,
    target: SessionTarget,
    /// The key of the certificate, as it was sent.
    tls_key: Option<String>,
    remote: Option<String>,
    /// Name of the target, for people.
    place: String,
    expires: Timestamp,
    /// Made and not signed.
    certificate: Option<(SingleIssue<PreparedX509>, About)>,
}

impl Inner {
    pub(crate) async fn prove_session(
        &self,
        caller: &Caller,
        request: SessionProofRequest,
    ) -> ApiResult<SessionProven> {
        let SessionProofRequest { session, purpose, code } = request;
        // Of a user who is removed at this moment, it is before that, and revoked, or not at all.
        let _turn = self.changes.read().await;
        let Asked { user, target, tls_key, place, remote, expires, certificate } =
            self.asked_session(caller, session, purpose).await?;
        let factors = self.factors_of(&user).await?.0;
        let (tls_key, remote_text) = (tls_key.as_deref(), remote.as_deref());
        let beginning =
            Beginning { session, user: &user, target: &target, tls_key, place: &place, remote: remote_text };
        let Some(code) = code.filter(|_| !factors.is_empty()) else {
            return Err(self.needed(&caller.name(), &beginning, &factors).await?);
        };
        let proven = async || {
            let tls_certificate = match certificate {
                Some((issue, about)) => Some(self.issuer.issue_x509(issue, about).await?),
                None => None,
            };
            let proof = SessionProof::new(session, user.clone(), target.clone(), expires);
            Ok(SessionProven { proof, tls_certificate })
        };
        if code.reveal().trim().is_empty() {
            match self.take_touch(&caller.name(), &beginning).await? {
                Touched::Now => return proven().await,
                Touched::Waits => return Err(unauthenticated(NOT_TOUCHED)),
                Touched::NotAsked => {}
            }
        }
        let (place, login) = names(&target);
        let event = |device: &str, error: Option<&str>| AuditKind::MfaValidate {
            user: user.to_string(),
            mfa_device: (!device.is_empty()).then(|| device.to_owned()),
            mfa_device_type: "otp".into(),
            session: Some(session.to_string()),
            target: Some(place.clone()),
            login: login.clone(),
            success: error.is_none(),
            error: error.map(str::to_owned),
            remote: remote.clone(),
        };
        let taken = match self.take_session_code(&user, &code).await {
            // The log bounds how often it is said.
            Err(cause) if cause.kind == ApiErrorKind::RateLimited => {
                self.record_attempt(user.to_string(), cause.message.clone(), remote).await?;
                return Err(cause);
            }
            taken => taken?,
        };
        let Some(device) = taken else {
            self.record(event("", Some(WRONG))).await?;
            return Err(unauthenticated(WRONG));
        };
        self.record(event(&device, None)).await?;
        proven().await
    }

    /// Which factor a session needs, and where a key may be touched; or that the user has none.
    async fn needed(&self, caller: &str, beginning: &Beginning<'_>, factors: &Factors) -> ApiResult<ApiError> {
        let Beginning { user, remote, .. } = beginning;
        let apps = factors.shown().into_iter().filter(|factor| factor.kind == FactorKind::Totp && self.codes_count());
        let apps: Vec<String> = apps.map(|factor| factor.name).collect();
        let by_code =
            (!apps.is_empty()).then(|| format!("a one-time code is needed for this session, of: {}", apps.join(", ")));
        let message = match (by_code, self.offer_touch(caller, beginning, factors).await?) {
            (Some(by_code), Offer::Page(by_touch)) => format!("{by_code}; or {by_touch}"),
            (Some(by_code), Offer::None | Offer::TooMany) => by_code,
            (None, Offer::Page(by_touch)) => format!("a security key is needed for this session: {by_touch}"),
            (None, Offer::TooMany) => {
                return Ok(rate_limited("too many sessions wait for a touch already; try again in three minutes"));
            }
            (None, Offer::None) => {
                let message = format!(
                    "each session there needs the code of an authenticator app, or a security key for the name of the proxy, and {user} has none; run: tsh mfa add"
                );
                self.record_attempt(user.to_string(), message.clone(), remote.map(str::to_owned)).await?;
                return Ok(denied(message));
            }
        };
        Ok(ApiError::new(ApiErrorKind::SecondFactorNeeded, message))
    }

    /// Who may ask for what: the target is the host that asks, or stands in a certificate for the user who asks; never what a request says of others.
    async fn asked_session(&self, caller: &Caller, session: SessionId, purpose: SessionPurpose) -> ApiResult<Asked> {
        let interval = self.policy.policy().settings.mfa_verification_interval.duration();
        match (purpose, caller) {
            (SessionPurpose::Ssh { user, login, remote: claimed }, _) => {
                let host = self.admit_host(caller, SystemRole::Node, "take second factors for sessions").await?;
                let found = self.records.read::<UserRecord>(&key::of(key::USERS, &user)).await?;
                let user = found.ok_or_else(|| not_found(format!("user {user} is not known any more")))?.name;
                let target = SessionTarget::Node { host_id: host.id, login };
                let place = host.name.to_string();
                // A claim of the host about its own client, for the log alone.
                let plain = |text: &String| text.len() <= 64 && text.bytes().all(|octet| octet.is_ascii_graphic());
                let expires = self.clock.now().plus(interval.min(SSH_PROOF_LIFE));
                Ok(Asked {
                    user,
                    target,
                    place,
                    remote: claimed.filter(plain),
                    expires,
                    certificate: None,
                    tls_key: None,
                })
            }
            (SessionPurpose::Kubernetes { kube_cluster, tls_public_key }, Caller::User { user, .. }) => {
                let identity = self.current(user).await?;
                self.check_locks(&LockContext::of_user(user).kube(&kube_cluster))?;
                let expires = self.proof_end(user, interval);
                let name = kube_cluster.clone();
                let target = SessionTarget::KubeCluster { name: kube_cluster.clone() };
                let proof = SessionProof::new(session, identity.user.clone(), target.clone(), expires);
                let tls_key = Some(tls_public_key.clone());
                let profile = KubeProfile {
                    // I10: what the login's certificate says, for less long and for one place.
                    identity: identity.clone(),
                    kube_cluster,
                    tls_key: self.issuer.tls_key(&tls_public_key)?,
                    not_after: expires,
                    proven: Some((proof, user.expires())),
                };
                let issue = self
                    .issuer
                    .prepare_single(CaKind::User, |authority, now, entropy| profile.prepare(authority, now, entropy))?;
                let about = About {
                    user: identity.user.to_string(),
                    roles: identity.roles.iter().map(ToString::to_string).collect(),
                    ..About::default()
                };
                let (user, remote) = (identity.user.clone(), remote(caller, None));
                let place = format!("Kubernetes cluster {name}");
                Ok(Asked { user, target, place, remote, expires, certificate: Some((issue, about)), tls_key })
            }
            (SessionPurpose::App { app, tls_public_key }, Caller::User { user, .. }) => {
                let identity = self.current(user).await?;
                self.check_locks(&LockContext::of_user(user))?;
                // For as long as what is begun with it may last, and not for `mfa_verification_interval`: a session with an application is one thing from its opening to
                // its end, as a shell is, and has many connections where that has one; to ask again for each would be to ask in the middle of the work. A program on the
                // user's own machine holds the key, in memory.
                let expires = Timestamp::from_unix_seconds(user.expires().unix_seconds());
                let target = SessionTarget::App { name: app.clone() };
                let profile = AppProfile {
                    // I10: what the login's certificate says, for one place.
                    identity: identity.clone(),
                    app: app.clone(),
                    session,
                    tls_key: self.issuer.tls_key(&tls_public_key)?,
                    not_after: expires,
                    proof: Some(SessionProof::new(session, identity.user.clone(), target.clone(), expires)),
                    login_expires: user.expires(),
                    proxy: None,
                };
                let issue = self
                    .issuer
                    .prepare_single(CaKind::User, |authority, now, entropy| profile.prepare(authority, now, entropy))?;
                let about = About {
                    user: identity.user.to_string(),
                    roles: identity.roles.iter().map(ToString::to_string).collect(),
                    ..About::default()
                };
                let (user, remote) = (identity.user.clone(), remote(caller, None));
                let place = format!("application {app}");
                let (certificate, tls_key) = (Some((issue, about)), Some(tls_public_key));
                Ok(Asked { user, target, place, remote, expires, certificate, tls_key })
            }
            (
                SessionPurpose::Kubernetes { .. } | SessionPurpose::App { .. },
                Caller::Anonymous { .. } | Caller::Host { .. } | Caller::LocalAdmin,
            ) => Err(self.refuse(caller, "show a second factor for a session").await),
        }
    }

    /// In whole seconds, as certificates count, and never beyond the login.
    fn proof_end(&self, user: &VerifiedUser, interval: Duration) -> Timestamp {
        Timestamp::from_unix_seconds(self.clock.now().plus(interval).min(user.expires()).unix_seconds())
    }

    /// The name of the factor whose code this is. It is used up before the answer, also when several show it at once (I48). Wrong ones are counted by user,
    /// apart from those of logins: whoever holds a node may keep a user from sessions, and not from logging in.
    pub(crate) async fn take_session_code(&self, user: &UserName, code: &Secret) -> ApiResult<Option<String>> {
        let (limit, name) = (&self.limits.session_user, user.as_str());
        match limit.enter(name, self.clock.now()) {
            Turn::Now => {}
            Turn::Later => return Err(rate_limited("too many second factors at once; try again in a moment")),
            Turn::Never => return Err(rate_limited("too many wrong codes; wait five minutes")),
        }
        let taken = self.try_session_code(user, code).await;
        limit.leave(name, matches!(taken, Ok(None)), self.clock.now());
        if matches!(taken, Ok(Some(_))) {
            limit.clear(name);
        }
        taken
    }

    /// Whether codes of apps are second factors here; without a second factor at logins, any kind is one for sessions.
    pub(crate) fn codes_count(&self) -> bool {
        let wanted = self.second_factor();
        wanted == SecondFactor::Off || wanted.takes(FactorKind::Totp)
    }

    async fn try_session_code(&self, user: &UserName, code: &Secret) -> ApiResult<Option<String>> {
        if !self.codes_count() {
            return Ok(None);
        }
        let key = key::of(key::FACTORS, user);
        for _ in 0..TURNS {
            let Some((mut factors, revision)) = self.records.read_at::<Factors>(&key).await? else { return Ok(None) };
            let Some(device) = factors.prove_by_device(code, self.clock.now()) else { return Ok(None) };
            match self.records.commit(Batch::new().replace(&key, revision, &factors)?).await {
                Ok(()) => return Ok(Some(device)),
                Err(cause) if cause.is_conflict() => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        Err(conflict("too many proofs of this user at once; try again"))
    }
}
