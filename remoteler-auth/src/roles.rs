//! Role documents: reading, checking, writing, and the policy snapshot that follows every change.

use std::{collections::BTreeMap, sync::Arc};

use remoteler_core::{AuditKind, Policy, PolicySource, Resource, Role, RoleName, Verb, preset_roles};

use crate::{
    Caller,
    failure::{ApiResult, bad_request, conflict, not_found},
    policy_tests::Change,
    records::{Batch, RecordError, Records, key},
    service::{Inner, StartError},
    users::UserRecord,
};

/// Writes the roles of a new cluster where no role exists at all.
pub(crate) async fn write_presets(records: &Records) -> Result<(), RecordError> {
    if !records.list::<Resource>(key::ROLES).await?.is_empty() {
        return Ok(());
    }
    // In one write: a first start that is cut off must not leave a cluster with some of them.
    let mut presets = Batch::new();
    for (name, spec) in preset_roles() {
        presets = presets.write(&key::of(key::ROLES, &name), &Resource::role(&name, &spec), None)?;
    }
    records.commit(presets).await
}

/// All roles, checked. One that does not pass stops the start: what it denies would not be known (I80).
pub(crate) async fn load(records: &Records) -> Result<BTreeMap<RoleName, Arc<Role>>, StartError> {
    let mut roles = BTreeMap::new();
    for (name, document, _) in records.list::<Resource>(key::ROLES).await? {
        let role = check(&document).map_err(|cause| StartError::Role { name, reason: cause.message })?;
        roles.insert(role.name().clone(), Arc::new(role));
    }
    Ok(roles)
}

/// The role a document describes. It is stored in the version it came in, for absent fields mean what they mean there.
pub(crate) fn check(document: &Resource) -> ApiResult<Role> {
    let role = Role::from_document(document).map_err(|cause| bad_request(cause.to_string()))?;
    if document.metadata.expires.is_some() {
        let name = role.name();
        return Err(bad_request(format!("metadata.expires of role {name} is refused: roles do not end by themselves")));
    }
    Ok(role)
}

impl Inner {
    /// All role documents, for those who may read roles and for hosts, which decide by them.
    pub(crate) async fn role_documents(&self, caller: &Caller) -> ApiResult<Vec<Resource>> {
        if !matches!(caller, Caller::Host { .. }) {
            self.admit(caller, "role", Verb::Read).await?;
        }
        let roles = self.records.list::<Resource>(key::ROLES).await?;
        Ok(roles.into_iter().map(|(_, document, _)| document).collect())
    }

    /// Removes a role that nobody holds; [`Inner::changes`] is held by the caller.
    pub(crate) async fn delete_role(&self, actor: String, name: &str) -> ApiResult<()> {
        let name = RoleName::new(name).map_err(|cause| bad_request(cause.to_string()))?;
        let key = key::of(key::ROLES, &name);
        if self.records.read::<Resource>(&key).await?.is_none() {
            return Err(not_found(format!("there is no role {name}; tctl get role lists the roles there are")));
        }
        let users = self.records.list::<UserRecord>(key::USERS).await?;
        if let Some((_, holder, _)) = users.into_iter().find(|(_, user, _)| user.roles.contains(&name)) {
            return Err(conflict(format!("user {} holds role {name}; take it from them first", holder.name)));
        }
        self.keep_policy_tests(&[Change::NoRole(&name)]).await?;
        self.record(AuditKind::RoleDelete { user: actor, name: name.to_string() }).await?;
        self.records.delete(&key).await?;
        self.change_roles(|roles| drop(roles.remove(&name)));
        Ok(())
    }

    /// Decides by changed roles from here on; [`Inner::changes`] is held by the caller.
    pub(crate) fn change_roles(&self, change: impl FnOnce(&mut BTreeMap<RoleName, Arc<Role>>)) {
        let mut policy = Policy::clone(&self.policy.policy());
        change(&mut policy.roles);
        self.policy.replace(Policy { trust: self.issuer.trust(), ..policy });
    }
}
