//! Login with a password: limits, the check that costs the same for everybody, and the certificates of a success.

use std::{sync::Arc, time::Duration};

use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, LockContext, LoginRequest, PolicySource, Role, SourceNet, SystemRole, UserCerts,
    UserIdentity, UserName,
};

use crate::{
    Caller,
    failure::{ApiResult, bad_request, conflict, unauthenticated},
    issue::{SubjectKeys, UserIssue, asked_life, user_identity},
    local_login::LocalProof,
    mfa::Asked,
    records::key,
    service::Inner,
    users::UserRecord,
};

/// Longest user name looked at, in octets.
const MAX_USER: usize = 256;
/// Longest client address kept, in octets.
const MAX_ADDR: usize = 64;
const WRONG: &str = "wrong user name or password";
pub(crate) const WRONG_CODE: &str = "wrong one-time code; each counts once, so wait for the next one";
const KEY_NEEDED: &str = "a security key is needed, which only a browser can ask for";
const NO_FACTOR: &str = "everybody needs a second factor here and you have none; ask an administrator for a new sign-up link (tctl users reset)";

impl Inner {
    pub(crate) async fn login(&self, caller: &Caller, request: LoginRequest) -> ApiResult<UserCerts> {
        let ttl = asked_life(request.ttl_seconds)?;
        let remote = remote(caller, request.client_addr.as_deref());
        let keys = SubjectKeys::parse(&request.ssh_public_key, &request.tls_public_key)?;
        let LoginRequest { user, password, code, .. } = request;
        let typed = LocalProof { user, password, code };
        let user = self.prove_local(&typed, remote.as_deref()).await?;
        let failed = |error: String| failure_of(&typed, error, remote.as_deref());
        // Who is removed at this moment is let in before that, and what they got is revoked, or not at all.
        let _turn = self.changes.read().await;
        if self.records.read::<UserRecord>(&key::of(key::USERS, &user.name)).await?.is_none() {
            self.record(failed(WRONG.into())).await?;
            return Err(unauthenticated(WRONG));
        }
        let issue = match self.prepare_login(&user, keys, ttl) {
            Ok(issue) => issue,
            Err(cause) => {
                self.record(failed(cause.message.clone())).await?;
                return Err(cause);
            }
        };
        self.record(AuditKind::UserLogin {
            user: user.name.to_string(),
            method: "local".into(),
            success: true,
            error: None,
            connector: None,
            remote: remote.clone(),
        })
        .await?;
        self.finish_login(issue, None).await
    }

    /// The user that was proven by password and, where one is needed, by a code. Whoever fails counts, and is on record.
    pub(crate) async fn prove_local(&self, typed: &LocalProof, remote: Option<&str>) -> ApiResult<UserRecord> {
        if typed.user.is_empty() || typed.user.len() > MAX_USER {
            return Err(bad_request(format!("a user name has 1 to {MAX_USER} octets")));
        }
        let address = remote.map(source_of);
        let address = address.as_deref();
        let turn = match self.login_turn(&typed.user, address).await {
            Ok(turn) => turn,
            Err(answer) => {
                // Strangers cause this at will: the audit log bounds how often it is said, a log line would not be (I26).
                self.record_attempt(typed.user.clone(), answer.message.clone(), remote.map(str::to_owned)).await?;
                return Err(answer);
            }
        };
        let failed = |error: &str| failure_of(typed, error.to_owned(), remote);
        let checked = match self.check_password(typed).await {
            Ok(checked) => checked,
            // Nobody looked at the password: nothing was wrong with it.
            Err(cause) => {
                turn.took_back();
                return Err(cause);
            }
        };
        let Some(user) = checked else {
            self.record(failed(WRONG)).await?;
            return Err(unauthenticated(WRONG));
        };
        match self.ask_factor(&user.name, typed.code.as_ref()).await? {
            Asked::Proved => {}
            // No failure yet, and no success: wrong codes before it go on counting (I48).
            Asked::Needed => {
                turn.took_back();
                return Err(ApiError::new(ApiErrorKind::SecondFactorNeeded, "a one-time code is needed"));
            }
            Asked::KeyNeeded => {
                turn.took_back();
                return Err(ApiError::new(ApiErrorKind::SecurityKeyNeeded, KEY_NEEDED));
            }
            Asked::Wrong => {
                self.record(failed(WRONG_CODE)).await?;
                return Err(unauthenticated(WRONG_CODE));
            }
            Asked::Missing => {
                self.record(failed(NO_FACTOR)).await?;
                return Err(ApiError::new(ApiErrorKind::Denied, NO_FACTOR));
            }
        }
        // Everything was right: nothing of this attempt counts as a failure.
        turn.succeeded();
        Ok(user)
    }

    /// The user, if there is one and the password is theirs. The work is the same in every case.
    async fn check_password(&self, typed: &LocalProof) -> ApiResult<Option<UserRecord>> {
        let record = match UserName::new(&typed.user) {
            Ok(name) => self.records.read::<UserRecord>(&key::of(key::USERS, &name)).await?,
            Err(_) => None,
        };
        let stored = record.as_ref().and_then(|record| record.password.clone());
        let matches = self.passwords.verify(typed.password.clone(), stored).await?;
        Ok(record.filter(|_| matches))
    }

    /// Roles and identity of a user, unless a lock holds for it. Everything is from the record (I9).
    pub(crate) fn admitted_identity(&self, user: &UserRecord) -> ApiResult<(Vec<Arc<Role>>, UserIdentity)> {
        let roles = self.roles_of(user)?;
        let identity = user_identity(&self.cluster, &user.name, &roles, &user.traits);
        self.check_locks(&LockContext::of_identity(&identity))?;
        Ok((roles, identity))
    }

    /// Everything about the certificates of a user who was proven is checked; nothing is signed yet.
    pub(crate) fn prepare_login(
        &self,
        user: &UserRecord,
        keys: SubjectKeys,
        ttl: Option<Duration>,
    ) -> ApiResult<UserIssue> {
        let (roles, identity) = self.admitted_identity(user)?;
        self.issuer.prepare_user(identity, &roles, keys, ttl)
    }

    /// Signs what was prepared; what the user gets of it.
    pub(crate) async fn finish_login(
        &self,
        issue: UserIssue,
        logout_connector: Option<String>,
    ) -> ApiResult<UserCerts> {
        let (identity, expires) = (issue.identity(), issue.expires());
        let (roles, logins) = (identity.roles.clone(), identity.logins.iter().map(ToString::to_string).collect());
        let issued = self.issuer.issue_user(issue).await?;
        Ok(UserCerts {
            ssh_certificate: issued.ssh_certificate,
            tls_certificate: issued.tls_certificate_pem,
            expires,
            roles,
            logins,
            trust: self.issuer.trust(),
            logout_connector,
        })
    }

    pub(crate) fn roles_of(&self, user: &UserRecord) -> Result<Vec<Arc<Role>>, ApiError> {
        let policy = self.policy.policy();
        let roles = user.roles.iter().map(|name| {
            policy.roles.get(name).cloned().ok_or_else(|| {
                conflict(format!("user {} holds role {name}, which does not exist; ask an administrator", user.name))
            })
        });
        roles.collect()
    }
}

fn failure_of(typed: &LocalProof, error: String, remote: Option<&str>) -> AuditKind {
    local_failure(&typed.user, error, remote)
}

/// That somebody who says to be this user was not let in.
pub(crate) fn local_failure(user: &str, error: String, remote: Option<&str>) -> AuditKind {
    AuditKind::UserLogin {
        user: user.to_owned(),
        method: "local".into(),
        success: false,
        error: Some(error),
        connector: None,
        remote: remote.map(str::to_owned),
    }
}

/// The client's address. Only a proxy is believed when it names one.
pub(crate) fn remote(caller: &Caller, claimed: Option<&str>) -> Option<String> {
    match caller {
        Caller::Host { host, .. } if host.is(SystemRole::Proxy) => {
            let plain = |text: &&str| text.len() <= MAX_ADDR && text.bytes().all(|octet| octet.is_ascii_graphic());
            claimed.filter(plain).map(str::to_owned)
        }
        Caller::Anonymous { .. } | Caller::Host { .. } | Caller::User { .. } | Caller::LocalAdmin => {
            caller.address().map(|addr| addr.to_string())
        }
    }
}

/// What attempts from an address count for: its network, without the port, which changes with each connection.
pub(crate) fn source_of(addr: &str) -> String {
    SourceNet::parse(addr).map_or_else(|| addr.to_owned(), |source| source.to_string())
}

#[cfg(test)]
mod tests;
