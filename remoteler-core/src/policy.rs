//! What a service knows of the cluster's rules at one moment: trust bundle, roles, locks and settings, replaced as a whole; whoever lives by it is
//! told when it is.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{
    ClusterSettings, LockContext, LockMode, Locked, Locks, Role, RoleName, RoleOptions, TrustBundle, UserIdentity,
};

/// Whether a view may be old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Knowledge {
    /// The auth service confirmed it within [`crate::LOCKS_HOLD`].
    #[default]
    Confirmed,
    /// It did not.
    Old,
}

/// One consistent view.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Authorities believed.
    pub trust: TrustBundle,
    /// All roles of the cluster.
    pub roles: BTreeMap<RoleName, Arc<Role>>,
    /// What is locked now.
    pub locks: Locks,
    /// What is set for the whole cluster.
    pub settings: ClusterSettings,
    /// Whether there may be locks that are not known here.
    pub knowledge: Knowledge,
}

impl Policy {
    /// With these authorities and roles, nothing locked, and default settings.
    #[must_use]
    pub fn new(trust: TrustBundle, roles: BTreeMap<RoleName, Arc<Role>>) -> Self {
        let (locks, settings, knowledge) = (Locks::default(), ClusterSettings::default(), Knowledge::Confirmed);
        Self { trust, roles, locks, settings, knowledge }
    }

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

    /// How strict locks are for somebody whose roles have these options.
    #[must_use]
    pub fn lock_mode(&self, options: &RoleOptions) -> LockMode {
        options.lock.unwrap_or(self.settings.locking_mode)
    }

    /// Whether locks are strict for anybody, so that it decides something whether this view is old.
    #[must_use]
    pub fn has_strict_locks(&self) -> bool {
        let said = self.roles.values().filter_map(|role| role.options().lock);
        said.chain([self.settings.locking_mode]).any(|mode| mode == LockMode::Strict)
    }

    /// Whether a session that roles with these options allow needs a second factor of its own.
    #[must_use]
    pub const fn needs_session_mfa(&self, options: &RoleOptions) -> bool {
        options.session_mfa || self.settings.require_session_mfa
    }

    /// Whether locks let something new begin. Every decision asks this first. How strict they are the roles of who asks say, and where they do not
    /// the cluster's settings.
    ///
    /// # Errors
    /// [`Locked`], which the user may read.
    pub fn check_locks(&self, context: &LockContext<'_>) -> Result<(), Locked> {
        if let Some(lock) = self.locks.concerning(context) {
            return Err(Locked::By(lock.clone()));
        }
        let said = context.roles().filter_map(|name| self.roles.get(name)).filter_map(|role| role.options().lock).max();
        match (said.unwrap_or(self.settings.locking_mode), self.knowledge) {
            (LockMode::Strict, Knowledge::Old) => Err(Locked::Unknown),
            (LockMode::Strict, Knowledge::Confirmed) | (LockMode::BestEffort, _) => Ok(()),
        }
    }
}

/// Gives the present view. Cheap: called for each connection and decision.
pub trait PolicySource: Send + Sync {
    /// The newest view this process has.
    fn policy(&self) -> Arc<Policy>;

    /// Changes whenever the view is replaced; the number says nothing else.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// A view that its owner replaces and everybody else reads.
#[derive(Debug)]
pub struct SharedPolicy {
    view: ArcSwap<Policy>,
    replaced: watch::Sender<u64>,
}

impl SharedPolicy {
    /// Starts with `policy`.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { view: ArcSwap::from_pointee(policy), replaced: watch::Sender::new(0) }
    }

    /// Replaces the view for all readers, and tells those who wait.
    pub fn replace(&self, policy: Policy) {
        self.view.store(Arc::new(policy));
        self.replaced.send_modify(|times| *times = times.wrapping_add(1));
    }
}

impl PolicySource for SharedPolicy {
    fn policy(&self) -> Arc<Policy> {
        self.view.load_full()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }
}
