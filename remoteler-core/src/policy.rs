//! What a service knows of the cluster's rules at one moment: trust bundle and roles, replaced as a whole.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;

use crate::{Role, RoleName, RoleOptions, TrustBundle, UserIdentity};

/// One consistent view.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Authorities believed.
    pub trust: TrustBundle,
    /// All roles of the cluster.
    pub roles: BTreeMap<RoleName, Arc<Role>>,
}

impl Policy {
    /// The roles that `user` holds.
    ///
    /// # Errors
    /// The name of a role that does not exist (any more). What it would have denied is unknown, so nothing may be granted.
    pub fn roles_of(&self, user: &UserIdentity) -> Result<Vec<Arc<Role>>, RoleName> {
        user.roles.iter().map(|name| self.roles.get(name).cloned().ok_or_else(|| name.clone())).collect()
    }

    /// The same, without taking part in their ownership.
    pub(crate) fn held<'a>(&'a self, user: &UserIdentity) -> Result<Vec<&'a Role>, RoleName> {
        let mut held = Vec::with_capacity(user.roles.len());
        // Who holds most of the roles finds them by walking along both, which are in the same order.
        let walking = self.roles.len() <= user.roles.len().saturating_mul(4);
        let mut all = self.roles.iter();
        for name in &user.roles {
            let found = if walking {
                all.find(|(known, _)| *known >= name).filter(|(known, _)| *known == name).map(|(_, role)| role)
            } else {
                self.roles.get(name)
            };
            match found {
                Some(role) => held.push(role.as_ref()),
                None => return Err(name.clone()),
            }
        }
        Ok(held)
    }

    /// The options of all roles that `user` holds, merged; for what is decided before it is known which role allows it.
    ///
    /// # Errors
    /// As [`Policy::roles_of`].
    pub fn options_of(&self, user: &UserIdentity) -> Result<RoleOptions, RoleName> {
        let options = self.roles_of(user)?.iter().map(|role| *role.options()).reduce(RoleOptions::merge);
        Ok(options.unwrap_or_default())
    }
}

/// Gives the present view. Cheap: called for each connection and decision.
pub trait PolicySource: Send + Sync {
    /// The newest view this process has.
    fn policy(&self) -> Arc<Policy>;
}

/// A view that its owner replaces and everybody else reads.
#[derive(Debug)]
pub struct SharedPolicy(ArcSwap<Policy>);

impl SharedPolicy {
    /// Starts with `policy`.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self(ArcSwap::from_pointee(policy))
    }

    /// Replaces the view for all readers.
    pub fn replace(&self, policy: Policy) {
        self.0.store(Arc::new(policy));
    }
}

impl PolicySource for SharedPolicy {
    fn policy(&self) -> Arc<Policy> {
        self.0.load_full()
    }
}
