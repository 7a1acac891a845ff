//! Accounts of people whom identity providers vouch for: (connector, issuer, subject) and nothing else says whose they are (I39). Owns the link from an account
//! to its user; a name that another account or a local user has is never given out a second time.

use remoteler_core::{AuditKind, Secret, Timestamp, UserName};
use serde::{Deserialize, Serialize};

use super::conclude::ProviderIdentity;
use crate::{
    failure::{ApiResult, conflict, unauthenticated},
    records::{Batch, key},
    secret_hash,
    service::Inner,
    users::UserRecord,
};

/// Whose account a user is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SsoMark {
    pub(crate) connector: String,
    pub(crate) issuer: String,
    pub(crate) subject: String,
}

impl SsoMark {
    fn of(identity: &ProviderIdentity) -> Self {
        let ProviderIdentity { connector, issuer, subject, .. } = identity;
        Self { connector: connector.clone(), issuer: issuer.clone(), subject: subject.clone() }
    }

    /// Under which the account's user is found.
    pub(crate) fn key(&self) -> String {
        let Self { connector, issuer, subject } = self;
        // Each part behind its length, so that no two accounts are written alike.
        let parts = [connector, issuer, subject].map(|part| format!("{}:{part}", part.len())).concat();
        key::of(key::SSO_ACCOUNTS, secret_hash::hash(&Secret::new(parts)))
    }
}

/// What tells a user from another one of the same name, and from itself before it was reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserMark {
    created: Timestamp,
    /// Digest of the password's hash.
    password: Option<String>,
}

impl UserMark {
    fn of(user: &UserRecord) -> Self {
        let password = user.password.as_ref().map(|hash| secret_hash::hash(&Secret::new(hash)));
        Self { created: user.created, password }
    }
}

impl Inner {
    /// The mark of a user who is there.
    pub(super) async fn mark_of(&self, name: &UserName) -> ApiResult<Option<UserMark>> {
        let user = self.records.read::<UserRecord>(&key::of(key::USERS, name)).await?;
        Ok(user.as_ref().map(UserMark::of))
    }

    /// That the user is still the one that was proven, where there was one: neither removed nor made anew, and with the same password.
    pub(super) async fn still_proven(&self, name: &UserName, proven: Option<&UserMark>) -> ApiResult<()> {
        match proven {
            Some(mark) if self.mark_of(name).await?.as_ref() != Some(mark) => {
                Err(unauthenticated(format!("user {name} was changed meanwhile; log in again")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A user without a provider, who has a password to be proven by.
    pub(super) async fn local_user(&self, name: &UserName) -> ApiResult<UserRecord> {
        let user = self.records.read::<UserRecord>(&key::of(key::USERS, name)).await?;
        user.filter(|user| user.sso.is_none() && user.password.is_some())
            .ok_or_else(|| unauthenticated("wrong user name or password"))
    }

    /// The user that an account is, or will be, with the roles and traits of this login. Writes nothing.
    pub(super) async fn user_of_account(&self, identity: &ProviderIdentity) -> ApiResult<UserRecord> {
        let mark = SsoMark::of(identity);
        let known = self.records.read::<UserName>(&mark.key()).await?;
        let name = known.unwrap_or_else(|| identity.username.clone());
        let stored = self.records.read::<UserRecord>(&key::of(key::USERS, &name)).await?;
        let (roles, traits) = (identity.roles.clone(), identity.traits.clone());
        match stored {
            Some(user) if user.sso.as_ref() == Some(&mark) => Ok(UserRecord { roles, traits, ..user }),
            Some(user) => {
                let whose = match user.sso {
                    None => "a local user".to_owned(),
                    Some(other) => format!("another account, of connector {}", other.connector),
                };
                Err(conflict(format!(
                    "the name {name} belongs to {whose}; an administrator can remove that one with tctl users rm, or map another claim to names"
                )))
            }
            None => Ok(UserRecord {
                name,
                roles,
                traits,
                password: None,
                created: self.clock.now(),
                invite: None,
                sso: Some(mark),
            }),
        }
    }

    /// Keeps the user of an account as this login made it (I42). Most logins change nothing and take no turn.
    pub(super) async fn keep_account(&self, identity: &ProviderIdentity) -> ApiResult<UserRecord> {
        let user = self.user_of_account(identity).await?;
        let user_key = key::of(key::USERS, &user.name);
        let same = |stored: &UserRecord| stored.roles == user.roles && stored.traits == user.traits;
        if self.records.read::<UserRecord>(&user_key).await?.as_ref().is_some_and(same) {
            return Ok(user);
        }
        let _turn = self.changes.write().await;
        // Somebody may have been quicker.
        let user = self.user_of_account(identity).await?;
        let user_key = key::of(key::USERS, &user.name);
        let mark = SsoMark::of(identity);
        let by = format!("{}:{}", identity.method, identity.connector);
        let roles = user.roles.iter().map(ToString::to_string).collect();
        let name = user.name.to_string();
        match self.records.read_at::<UserRecord>(&user_key).await? {
            Some((_, revision)) => {
                self.record(AuditKind::UserUpdate { user: by, name, roles }).await?;
                self.records.replace(&user_key, revision, &user).await?;
            }
            None => {
                self.record(AuditKind::UserCreate { user: by, name, roles }).await?;
                let batch = Batch::new().write(&mark.key(), &user.name, None)?.create(&user_key, &user, None)?;
                self.records.commit(batch).await?;
            }
        }
        Ok(user)
    }

    /// Whether the user is still there, still of the same account and as it was. [`Inner::changes`] is held by the caller.
    pub(super) async fn still_there(&self, user: &UserRecord) -> ApiResult<()> {
        let stored = self.records.read::<UserRecord>(&key::of(key::USERS, &user.name)).await?;
        let same = |stored: &UserRecord| stored.sso == user.sso && UserMark::of(stored) == UserMark::of(user);
        match stored.filter(same) {
            Some(_) => Ok(()),
            None => Err(unauthenticated(format!("user {} was removed meanwhile; log in again", user.name))),
        }
    }
}
