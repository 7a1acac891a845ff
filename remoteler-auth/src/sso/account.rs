//! Accounts of people whom identity providers vouch for: (connector, issuer, subject) and nothing else says whose they are (I39). Owns the link from an account
//! to its user; a name that another account or a local user has is never given out a second time.

use remoteler_core::{AuditKind, UserName};
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
        key::of(key::SSO_ACCOUNTS, secret_hash::hash(&remoteler_core::Secret::new(parts)))
    }
}

impl Inner {
    /// A user without a provider.
    pub(super) async fn local_user(&self, name: &UserName) -> ApiResult<UserRecord> {
        let user = self.records.read::<UserRecord>(&key::of(key::USERS, name)).await?;
        user.filter(|user| user.sso.is_none()).ok_or_else(|| unauthenticated("wrong user name or password"))
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

    /// Whether the user is still there and still of the same account. [`Inner::changes`] is held by the caller.
    pub(super) async fn still_there(&self, user: &UserRecord) -> ApiResult<()> {
        let stored = self.records.read::<UserRecord>(&key::of(key::USERS, &user.name)).await?;
        match stored.filter(|stored| stored.sso == user.sso) {
            Some(_) => Ok(()),
            None => Err(unauthenticated(format!("user {} was removed meanwhile; log in again", user.name))),
        }
    }
}
