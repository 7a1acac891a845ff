//! The access decisions: pure functions over a verified user, the roles and the target. They return proofs with private
//! fields; sessions, dials and impersonation take those and nothing else.

#[cfg(test)]
mod tests;

use std::fmt;

use crate::{
    KubeClusterName, KubeRecord, LockContext, Locked, Login, NodeName, NodeRecord, Policy, Role, RoleName, RoleOptions,
    Timestamp, UserIdentity, VerifiedUser, check_principal,
};

/// Why access was refused. The full reason is for the audit log; [`AccessDenied::public`] is what the user may see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{user} may not {action} {target}: {reason}")]
pub struct AccessDenied {
    /// Who asked.
    pub user: String,
    /// What for.
    pub action: String,
    /// Of what.
    pub target: String,
    /// Why not.
    pub reason: DenyReason,
}

impl AccessDenied {
    /// A sentence that names nothing the user may not know.
    #[must_use]
    pub fn public(&self) -> String {
        let Self { user, action, target, .. } = self;
        if let DenyReason::Locked(locked) = &self.reason {
            return format!("access denied: {locked}");
        }
        let advice = if self.reason == DenyReason::NoKubernetesIdentity {
            "no Kubernetes group is given to you; ask an administrator for the trait kubernetes_groups, or a role with groups"
        } else {
            "ask an administrator for a role that allows it"
        };
        format!("access denied: {user} may not {action} {target}; {advice}")
    }
}

/// What made the decision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DenyReason {
    /// The certificate names a role that does not exist.
    UnknownRole(RoleName),
    /// A deny rule of this role.
    DeniedBy(RoleName),
    /// No role allows the target's labels together with the login.
    NoRoleAllows,
    /// The login is not among the certificate's principals.
    LoginNotInCertificate,
    /// No role gives a Kubernetes user or group that can be sent.
    NoKubernetesIdentity,
    /// The roles give several Kubernetes users, and a request is one user's.
    SeveralKubernetesUsers(Vec<String>),
    /// A role denies the Kubernetes user that would be sent.
    KubernetesUserDenied(String),
    /// The certificate counts at another Kubernetes cluster only.
    CertificateFor(KubeClusterName),
    /// A Kubernetes user or group of this role cannot be an HTTP header's value.
    UnusableKubernetesName(String),
    /// A lock, or that locks are not known.
    Locked(Locked),
}

impl fmt::Display for DenyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRole(role) => write!(f, "role {role} of the certificate does not exist; log in again"),
            Self::DeniedBy(role) => write!(f, "role {role} denies it"),
            Self::NoRoleAllows => f.write_str("no role allows it"),
            Self::LoginNotInCertificate => f.write_str("the certificate does not hold this login"),
            Self::NoKubernetesIdentity => f.write_str("no role gives a Kubernetes user or group"),
            Self::SeveralKubernetesUsers(users) => {
                write!(f, "the roles give several Kubernetes users: {}", users.join(", "))
            }
            Self::KubernetesUserDenied(user) => write!(f, "a role denies the Kubernetes user {user:?}"),
            Self::CertificateFor(kube) => write!(f, "the certificate is for Kubernetes cluster {kube} only"),
            Self::UnusableKubernetesName(name) => write!(f, "the Kubernetes name {name:?} cannot be sent as a header"),
            Self::Locked(locked) => locked.fmt(f),
        }
    }
}

/// Proof that a user may open sessions on a node as a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshAccess {
    user: VerifiedUser,
    login: Login,
    node: NodeName,
    options: RoleOptions,
}

impl SshAccess {
    /// Who.
    #[must_use]
    pub const fn user(&self) -> &VerifiedUser {
        &self.user
    }

    /// As which account.
    #[must_use]
    pub const fn login(&self) -> &Login {
        &self.login
    }

    /// Where.
    #[must_use]
    pub const fn node(&self) -> &NodeName {
        &self.node
    }

    /// What the session may do: an ability comes from the roles that allow the login, a limit from any role of the user.
    #[must_use]
    pub const fn options(&self) -> &RoleOptions {
        &self.options
    }

    /// When the certificate that was shown ends.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.user.expires()
    }
}

/// Decides whether `user` may log in to `node` as `login`.
///
/// # Errors
/// [`AccessDenied`] with the reason; deny beats allow, and a role that does not exist refuses all.
pub fn authorize_ssh(
    user: &VerifiedUser,
    policy: &Policy,
    node: &NodeRecord,
    login: &Login,
) -> Result<SshAccess, AccessDenied> {
    let identity = user.identity();
    let refuse = |reason| AccessDenied {
        user: identity.user.to_string(),
        action: format!("log in as {login} to"),
        target: node.name.to_string(),
        reason,
    };
    let context = LockContext::of_user(user).login(login).node(node);
    policy.check_locks(&context).map_err(|locked| refuse(DenyReason::Locked(locked)))?;
    if let Some(only) = user.only_at() {
        return Err(refuse(DenyReason::CertificateFor(only.clone())));
    }
    if !identity.logins.contains(login) {
        return Err(refuse(DenyReason::LoginNotInCertificate));
    }
    let roles = policy.roles_of(identity).map_err(|role| refuse(DenyReason::UnknownRole(role)))?;
    let names_login = |templates: &[crate::template::Template]| {
        templates
            .iter()
            .flat_map(|template| template.expand(&identity.traits))
            .any(|value| value == "*" || value == login.as_str())
    };
    let denying =
        roles.iter().find(|role| role.deny().node_labels.matches(&node.labels) || names_login(&role.deny().logins));
    if let Some(role) = denying {
        return Err(refuse(DenyReason::DeniedBy(role.name().clone())));
    }
    let allowing: Vec<&Role> = roles
        .iter()
        .map(AsRef::as_ref)
        .filter(|role| role.allow().node_labels.matches(&node.labels) && names_login(&role.allow().logins))
        .collect();
    let options = merge(&allowing, roles.iter().map(AsRef::as_ref)).ok_or_else(|| refuse(DenyReason::NoRoleAllows))?;
    Ok(SshAccess { user: user.clone(), login: login.clone(), node: node.name.clone(), options })
}

/// Whether `user` may know of `node`: some role allows its labels for some login and none denies them.
pub(crate) fn may_see_node(user: &UserIdentity, policy: &Policy, node: &NodeRecord) -> bool {
    policy.roles_of(user).is_ok_and(|roles| {
        !roles.iter().any(|role| role.deny().node_labels.matches(&node.labels))
            && roles.iter().any(|role| role.allow().node_labels.matches(&node.labels))
    })
}

/// Whether `user` may know of a Kubernetes cluster.
pub(crate) fn may_see_kube(user: &UserIdentity, policy: &Policy, kube: &KubeRecord) -> bool {
    policy.roles_of(user).is_ok_and(|roles| {
        !roles.iter().any(|role| role.deny().kubernetes_labels.matches(&kube.labels))
            && roles.iter().any(|role| role.allow().kubernetes_labels.matches(&kube.labels))
    })
}

/// Proof that a user may talk to a Kubernetes API server, and as whom there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeAccess {
    user: VerifiedUser,
    kube_cluster: KubeClusterName,
    impersonate_user: String,
    impersonate_groups: Vec<String>,
    options: RoleOptions,
}

impl KubeAccess {
    /// Who.
    #[must_use]
    pub const fn user(&self) -> &VerifiedUser {
        &self.user
    }

    /// Where.
    #[must_use]
    pub const fn kube_cluster(&self) -> &KubeClusterName {
        &self.kube_cluster
    }

    /// The one user to be impersonated; never empty, fit for a header's value.
    #[must_use]
    pub fn impersonate_user(&self) -> &str {
        &self.impersonate_user
    }

    /// The groups to be impersonated, sorted, each once, each fit for a header's value. Never empty.
    #[must_use]
    pub fn impersonate_groups(&self) -> &[String] {
        &self.impersonate_groups
    }

    /// What limits the connection: see [`SshAccess::options`].
    #[must_use]
    pub const fn options(&self) -> &RoleOptions {
        &self.options
    }
}

/// Decides whether and as whom `user` may talk to the API server of `kube`.
///
/// The groups are those of the roles that allow the cluster, without those any role denies (`*` denies all). The user is the one
/// `kubernetes_users` gives; where the roles give none, it is the user's own name; several are refused. Without a group there is no access:
/// an identity that no binding at the API server names is not sent (I56).
///
/// # Errors
/// [`AccessDenied`] with the reason; deny beats allow.
pub fn authorize_kube(user: &VerifiedUser, policy: &Policy, kube: &KubeRecord) -> Result<KubeAccess, AccessDenied> {
    let identity = user.identity();
    let refuse = |reason| AccessDenied {
        user: identity.user.to_string(),
        action: "use Kubernetes cluster".into(),
        target: kube.name.to_string(),
        reason,
    };
    let context = LockContext::of_user(user).kube(&kube.name).host(None, Some(kube.host_id));
    policy.check_locks(&context).map_err(|locked| refuse(DenyReason::Locked(locked)))?;
    if let Some(only) = user.only_at().filter(|only| **only != kube.name) {
        return Err(refuse(DenyReason::CertificateFor(only.clone())));
    }
    let roles = policy.roles_of(identity).map_err(|role| refuse(DenyReason::UnknownRole(role)))?;
    if let Some(role) = roles.iter().find(|role| role.deny().kubernetes_labels.matches(&kube.labels)) {
        return Err(refuse(DenyReason::DeniedBy(role.name().clone())));
    }
    let allowing: Vec<&Role> =
        roles.iter().map(AsRef::as_ref).filter(|role| role.allow().kubernetes_labels.matches(&kube.labels)).collect();
    let options = merge(&allowing, roles.iter().map(AsRef::as_ref)).ok_or_else(|| refuse(DenyReason::NoRoleAllows))?;
    let expand = |templates: &[crate::template::Template]| -> Vec<String> {
        templates.iter().flat_map(|template| template.expand(&identity.traits)).collect()
    };
    let allowed = |pick: &dyn Fn(&Role) -> Vec<String>, denied: &[String]| {
        let mut values: Vec<String> =
            allowing.iter().flat_map(|role| pick(role)).filter(|value| !is_denied(denied, value)).collect();
        values.sort();
        values.dedup();
        values
    };
    let denied_groups: Vec<String> = roles.iter().flat_map(|role| expand(&role.deny().kubernetes_groups)).collect();
    let denied_users: Vec<String> = roles.iter().flat_map(|role| expand(&role.deny().kubernetes_users)).collect();
    let groups = allowed(&|role| expand(&role.allow().kubernetes_groups), &denied_groups);
    let own = identity.user.to_string();
    let impersonate_user = match allowed(&|role| expand(&role.allow().kubernetes_users), &denied_users).as_slice() {
        [one] => one.clone(),
        [] if !is_denied(&denied_users, &own) => own,
        [] => return Err(refuse(DenyReason::KubernetesUserDenied(own))),
        several => return Err(refuse(DenyReason::SeveralKubernetesUsers(several.to_vec()))),
    };
    if groups.is_empty() {
        return Err(refuse(DenyReason::NoKubernetesIdentity));
    }
    if let Some(bad) = groups.iter().chain([&impersonate_user]).find(|name| !header_safe(name)) {
        return Err(refuse(DenyReason::UnusableKubernetesName(bad.chars().take(80).collect())));
    }
    Ok(KubeAccess {
        user: user.clone(),
        kube_cluster: kube.name.clone(),
        impersonate_user,
        impersonate_groups: groups,
        options,
    })
}

/// A name among those denied; `*` denies every one.
fn is_denied(denied: &[String], name: &str) -> bool {
    denied.iter().any(|pattern| pattern == "*" || pattern == name)
}

/// I57: no control characters, nothing outside visible ASCII and inner spaces.
fn header_safe(name: &str) -> bool {
    check_principal(&name.replace(' ', "_")).is_ok() && name.is_ascii() && name.trim() == name
}

/// The options under which the roles that allow something let it happen, with the limits of all the user's other roles. `None` when no
/// role allows it.
fn merge<'a>(allowing: &[&Role], all: impl Iterator<Item = &'a Role>) -> Option<RoleOptions> {
    let granted = allowing.iter().map(|role| *role.options()).reduce(RoleOptions::merge)?;
    Some(all.fold(granted, |merged, role| merged.limited_by(*role.options())))
}
