//! Whose work it is, and where: what the rules are held against. Owns the one answer to what ends it by the rules alone.

use std::collections::BTreeSet;

use super::EndReason;
use crate::{
    AppName, AppProxy, ClusterName, HostId, KubeClusterName, LockContext, Locked, Login, NodeRecord, Policy, RoleName,
    SessionId, ShownCertificate, Timestamp, UserName, VerifiedHost, VerifiedUser,
};

/// Whose work it is, and where, as the rule sees it.
#[derive(Clone, Debug)]
pub struct Subject {
    who: Who,
    shown: ShownCertificate,
    login: Option<Login>,
    node: (Option<Box<str>>, Option<HostId>),
    kube_cluster: Option<KubeClusterName>,
    app: Option<AppName>,
    proxy: Option<Box<AppProxy>>,
    session: Option<SessionId>,
}

#[derive(Clone, Debug)]
enum Who {
    User { name: UserName, roles: BTreeSet<RoleName>, cluster: ClusterName, expires: Timestamp },
    Host { cluster: ClusterName },
}

impl Subject {
    /// The work of a user.
    #[must_use]
    pub fn user(user: &VerifiedUser) -> Self {
        let identity = user.identity();
        let (name, roles, cluster) = (identity.user.clone(), identity.roles.clone(), identity.cluster.clone());
        let who = Who::User { name, roles, cluster, expires: user.login_expires() };
        let proxy = user.app_proxy().cloned().map(Box::new);
        let (shown, session) = (*user.shown(), user.browser_session());
        Self { who, shown, login: None, node: (None, None), kube_cluster: None, app: None, proxy, session }
    }

    /// The work of a host.
    #[must_use]
    pub fn host(host: &VerifiedHost) -> Self {
        let identity = host.identity();
        let node = (Some(identity.name.as_str().into()), Some(identity.id));
        let who = Who::Host { cluster: identity.cluster.clone() };
        let shown = *host.shown();
        Self { who, shown, login: None, node, kube_cluster: None, app: None, proxy: None, session: None }
    }

    /// As this account.
    #[must_use]
    pub fn login(self, login: Login) -> Self {
        Self { login: Some(login), ..self }
    }

    /// On this node.
    #[must_use]
    pub fn node(self, node: &NodeRecord) -> Self {
        self.at(Some(node.name.as_str()), Some(node.host_id))
    }

    /// On the host of this name, this id, or both.
    #[must_use]
    pub fn at(self, name: Option<&str>, id: Option<HostId>) -> Self {
        Self { node: (name.map(Into::into), id), ..self }
    }

    /// In this Kubernetes cluster.
    #[must_use]
    pub fn kube(self, kube_cluster: KubeClusterName) -> Self {
        Self { kube_cluster: Some(kube_cluster), ..self }
    }

    /// With this web application.
    #[must_use]
    pub fn app(self, app: AppName) -> Self {
        Self { app: Some(app), ..self }
    }

    /// The user's name; `None` for the work of a host.
    #[must_use]
    pub const fn user_name(&self) -> Option<&UserName> {
        match &self.who {
            Who::User { name, .. } => Some(name),
            Who::Host { .. } => None,
        }
    }

    /// As which account, where that is known.
    #[must_use]
    pub const fn login_name(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// Where: the name of a node, Kubernetes cluster or web application, or a host id; empty when that is not known.
    #[must_use]
    pub fn place(&self) -> String {
        let kube = self.kube_cluster.as_ref().map(ToString::to_string);
        let name = || self.node.0.as_ref().map(ToString::to_string);
        let app = self.app.as_ref().map(ToString::to_string);
        kube.or(app).or_else(name).or_else(|| self.node.1.map(|id| id.to_string())).unwrap_or_default()
    }

    pub(super) const fn session(&self) -> Option<SessionId> {
        self.session
    }

    fn context(&self) -> LockContext<'_> {
        let (name, id) = (self.node.0.as_deref(), self.node.1);
        let context = match &self.who {
            Who::User { name: user, roles, cluster, .. } => {
                LockContext::of_holder(user, roles, cluster, Some(&self.shown))
            }
            Who::Host { cluster } => LockContext::of_certificate(cluster, &self.shown),
        };
        let context = context.host(name, id).through(self.proxy.as_deref());
        let context = match &self.login {
            Some(login) => context.login(login),
            None => context,
        };
        match &self.kube_cluster {
            Some(kube) => context.kube(kube),
            None => context,
        }
    }

    /// What ends it by `policy` alone. That its authority was replaced does not: a rotation ends nothing.
    pub(super) fn ends_by(&self, policy: &Policy) -> Option<EndReason> {
        if let Some(lock) = policy.locks.concerning(&self.context()) {
            return Some(Locked::By(lock.clone()).into());
        }
        if let Some(revoked) = policy.trust.revoked.of(&self.shown) {
            return Some(EndReason::Revoked(revoked));
        }
        let Who::User { roles, .. } = &self.who else { return None };
        roles.iter().find(|role| !policy.roles.contains_key(*role)).cloned().map(EndReason::RoleGone)
    }

    pub(super) fn is_of_user_of(&self, other: &Self) -> bool {
        match (&self.who, &other.who) {
            (Who::User { name, cluster, .. }, Who::User { name: other, cluster: of, .. }) => {
                name == other && cluster == of
            }
            (Who::User { .. } | Who::Host { .. }, _) => false,
        }
    }

    pub(super) const fn expires(&self) -> Option<Timestamp> {
        match self.who {
            Who::User { expires, .. } => Some(expires),
            Who::Host { .. } => None,
        }
    }
}
