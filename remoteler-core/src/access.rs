//! The access decisions: pure functions over a verified user, the roles and the target. They return proofs with private
//! fields; sessions, dials and impersonation take those and nothing else.

#[cfg(test)]
mod tests;

use std::fmt;

use crate::{
    AppName, AppRecord, Finding, KubeClusterName, KubeRecord, KubeRequest, LockContext, Locked, Login, NodeName,
    NodeRecord, OnlyAt, Policy, ProofMismatch, RoleName, RoleOptions, SessionId, SessionProof, SessionTarget,
    Timestamp, UserIdentity, VerifiedUser, WantedSession, check_principal,
    decision::{Granted, KubeNames, decide_app, decide_kube, decide_ssh},
};

/// Why access was refused. The full reason is for the audit log; [`AccessDenied::public`] is what the user may see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{user} may not {action} {target}: {reason}{}", Findings(findings))]
pub struct AccessDenied {
    /// Who asked.
    pub user: String,
    /// What for.
    pub action: String,
    /// Of what.
    pub target: String,
    /// Why not.
    pub reason: DenyReason,
    /// What each role had to say, those that deny first.
    pub findings: Box<[Finding]>,
}

impl AccessDenied {
    /// A sentence that names nothing the user may not know: what they asked for, what stands in their own certificate, and what to do. Whether
    /// a role denies or none allows is the same to them.
    #[must_use]
    pub fn public(&self) -> String {
        let Self { user, action, target, .. } = self;
        if let DenyReason::Locked(locked) = &self.reason {
            return format!("access denied: {locked}");
        }
        let advice = match &self.reason {
            DenyReason::NoKubernetesIdentity => {
                "no Kubernetes group is given to you; ask an administrator for the trait kubernetes_groups, or a role with groups"
            }
            DenyReason::LoginNotInCertificate => {
                "your certificate does not hold that account, 'tsh status' shows those it holds; ask an administrator for the account or, if it is new to you, log in again"
            }
            DenyReason::UnknownRole(_) => "a role of yours is gone; log in again",
            DenyReason::SessionMfaNeeded => {
                "each session there needs a second factor; 'tsh ssh', 'tsh proxy app' and kubectl after 'tsh kube login' ask for the code, and 'tsh mfa add' sets a factor up"
            }
            DenyReason::OtherSession(_) => "the second factor was shown for something else; try again",
            DenyReason::CertificateFor(_) => "this certificate is for one place only; log in again",
            DenyReason::DeniedBy(_)
            | DenyReason::NoRoleAllows
            | DenyReason::SeveralKubernetesUsers(_)
            | DenyReason::KubernetesUserDenied(_)
            | DenyReason::UnusableKubernetesName(_)
            | DenyReason::Locked(_) => {
                "ask an administrator for a role that allows it; 'tsh explain' shows what you may do"
            }
        };
        format!("access denied: {user} may not {action} {target}; {advice}")
    }
}

/// The findings as they stand behind a reason: bounded, for they go into the audit log.
struct Findings<'a>(&'a [Finding]);

impl fmt::Display for Findings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, finding) in self.0.iter().take(MAX_SHOWN).enumerate() {
            f.write_str(if number == 0 { ": " } else { "; " })?;
            finding.fmt(f)?;
        }
        match self.0.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// How many roles a reason names.
const MAX_SHOWN: usize = 20;

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
    /// The certificate counts at another place only.
    CertificateFor(OnlyAt),
    /// A Kubernetes user or group of this role cannot be an HTTP header's value.
    UnusableKubernetesName(String),
    /// A lock, or that locks are not known.
    Locked(Locked),
    /// It is allowed, but for a second factor that each session needs and that was not shown.
    SessionMfaNeeded,
    /// A second factor was shown, but not for this.
    OtherSession(Box<ProofMismatch>),
}

impl DenyReason {
    /// Whether roles made the decision, so that each of them has something to say about it.
    const fn is_of_roles(&self) -> bool {
        match self {
            Self::DeniedBy(_) | Self::NoRoleAllows | Self::LoginNotInCertificate => true,
            Self::UnknownRole(_)
            | Self::NoKubernetesIdentity
            | Self::SeveralKubernetesUsers(_)
            | Self::KubernetesUserDenied(_)
            | Self::CertificateFor(_)
            | Self::UnusableKubernetesName(_)
            | Self::Locked(_)
            | Self::SessionMfaNeeded
            | Self::OtherSession(_) => false,
        }
    }
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
            Self::CertificateFor(place) => write!(f, "the certificate is for {place} only"),
            Self::UnusableKubernetesName(name) => write!(f, "the Kubernetes name {name:?} cannot be sent as a header"),
            Self::Locked(locked) => locked.fmt(f),
            Self::SessionMfaNeeded => f.write_str("a second factor for this session is needed (require_session_mfa)"),
            Self::OtherSession(mismatch) => mismatch.fmt(f),
        }
    }
}

/// Proof that a user may open sessions on a node as a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshAccess {
    user: VerifiedUser,
    login: Login,
    node: NodeName,
    role: RoleName,
    options: RoleOptions,
    with_mfa: Option<SessionId>,
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

    /// The reason: the first role that allows it. Its `node_labels` and `logins` fit, and no role denies.
    #[must_use]
    pub const fn role(&self) -> &RoleName {
        &self.role
    }

    /// What the session may do: an ability comes from the roles that allow the login, a limit from any role of the user.
    #[must_use]
    pub const fn options(&self) -> &RoleOptions {
        &self.options
    }

    /// The session for which a second factor was shown; `None` without one.
    #[must_use]
    pub const fn with_mfa(&self) -> Option<SessionId> {
        self.with_mfa
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
    ssh_access(user, policy, node, login, None)
}

/// The same for somebody who showed a second factor for `session`, which may be needed or not ([`DenyReason::SessionMfaNeeded`]).
///
/// # Errors
/// As [`authorize_ssh`]; [`DenyReason::OtherSession`] when the proof is for anything else than `user` as `login` on `node` in `session` at `now` (I49).
pub fn authorize_ssh_proven(
    user: &VerifiedUser,
    policy: &Policy,
    node: &NodeRecord,
    login: &Login,
    (proof, session, now): (&SessionProof, SessionId, Timestamp),
) -> Result<SshAccess, AccessDenied> {
    let target = SessionTarget::Node { host_id: node.host_id, login: login.clone() };
    let wanted = WantedSession { user: &user.identity().user, target: &target, session: Some(session), now };
    ssh_access(user, policy, node, login, Some(proof.fits(&wanted).map(|()| session)))
}

fn ssh_access(
    user: &VerifiedUser,
    policy: &Policy,
    node: &NodeRecord,
    login: &Login,
    proven: Option<Result<SessionId, ProofMismatch>>,
) -> Result<SshAccess, AccessDenied> {
    let identity = user.identity();
    let locks = policy.check_locks(&LockContext::of_user(user).login(login).node(node));
    let decided = match (locks, user.only_at()) {
        (Err(locked), _) => Err(DenyReason::Locked(locked)),
        (Ok(()), Some(only)) => Err(DenyReason::CertificateFor(only.clone())),
        (Ok(()), None) => decide_ssh(identity, policy, &node.labels, login, &mut ()),
    };
    let decided = decided.and_then(|granted| {
        let with_mfa = second_factor(policy, &granted.options, proven)?;
        Ok((granted, with_mfa))
    });
    match decided {
        Ok((Granted { role, options }, with_mfa)) => Ok(SshAccess {
            user: user.clone(),
            login: login.clone(),
            node: node.name.clone(),
            role: role.name().clone(),
            options,
            with_mfa,
        }),
        Err(reason) => {
            // Refusals are few, so that the whole account of one may cost a second look.
            let mut findings = Vec::new();
            if reason.is_of_roles() {
                let _same = decide_ssh(identity, policy, &node.labels, login, &mut findings);
            }
            let (action, target) = (format!("log in as {login} to"), node.name.to_string());
            Err(AccessDenied { user: identity.user.to_string(), action, target, reason, findings: findings.into() })
        }
    }
}

/// Proof that a user may talk to a Kubernetes API server, and as whom there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeAccess {
    user: VerifiedUser,
    kube_cluster: KubeClusterName,
    impersonate_user: String,
    impersonate_groups: Vec<String>,
    role: RoleName,
    options: RoleOptions,
    with_mfa: Option<SessionId>,
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

    /// The reason: the first role that allows it.
    #[must_use]
    pub const fn role(&self) -> &RoleName {
        &self.role
    }

    /// See [`SshAccess::with_mfa`].
    #[must_use]
    pub const fn with_mfa(&self) -> Option<SessionId> {
        self.with_mfa
    }

    /// What limits the connection: see [`SshAccess::options`].
    #[must_use]
    pub const fn options(&self) -> &RoleOptions {
        &self.options
    }
}

/// Decides whether and as whom `user` may talk to the API server of `kube` at all.
///
/// The groups are those of the roles that allow the cluster, without those any role denies (`*` denies all). The user is the one
/// `kubernetes_users` gives; where the roles give none, it is the user's own name; several are refused. Without a group there is no access:
/// an identity that no binding at the API server names is not sent (I56).
///
/// # Errors
/// [`AccessDenied`] with the reason; deny beats allow.
pub fn authorize_kube(user: &VerifiedUser, policy: &Policy, kube: &KubeRecord) -> Result<KubeAccess, AccessDenied> {
    kube_access(user, policy, kube, None)
}

/// Decides whether and as whom `user` may send `request` to the API server of `kube`: as [`authorize_kube`], by the roles whose
/// `kubernetes_resources` cover all that the request could reach.
///
/// # Errors
/// [`AccessDenied`] with the reason; deny beats allow.
pub fn authorize_kube_request(
    user: &VerifiedUser,
    policy: &Policy,
    kube: &KubeRecord,
    request: &KubeRequest,
) -> Result<KubeAccess, AccessDenied> {
    kube_access(user, policy, kube, Some(request))
}

fn kube_access(
    user: &VerifiedUser,
    policy: &Policy,
    kube: &KubeRecord,
    request: Option<&KubeRequest>,
) -> Result<KubeAccess, AccessDenied> {
    let identity = user.identity();
    let locks = policy.check_locks(&LockContext::of_user(user).kube(&kube.name).host(None, Some(kube.host_id)));
    let elsewhere = |only: &&OnlyAt| !matches!(only, OnlyAt::KubeCluster(name) if *name == kube.name);
    let decided = match (locks, user.only_at().filter(elsewhere)) {
        (Err(locked), _) => Err(DenyReason::Locked(locked)),
        (Ok(()), Some(only)) => Err(DenyReason::CertificateFor(only.clone())),
        (Ok(()), None) => decide_kube(identity, policy, &kube.labels, request, &mut ()),
    };
    let decided = decided.and_then(|(granted, names)| {
        // Its time is the certificate's, whose end is looked at with each request.
        let proven = user.proof().map(|proof| match proof.target() {
            SessionTarget::KubeCluster { name } if *name == kube.name => Ok(proof.session()),
            other @ (SessionTarget::KubeCluster { .. } | SessionTarget::Node { .. } | SessionTarget::App { .. }) => {
                Err(ProofMismatch::Target(other.clone()))
            }
        });
        let with_mfa = second_factor(policy, &granted.options, proven)?;
        Ok((granted, names, with_mfa))
    });
    match decided {
        Ok((Granted { role, options }, KubeNames { user: impersonate_user, groups: impersonate_groups }, with_mfa)) => {
            Ok(KubeAccess {
                user: user.clone(),
                kube_cluster: kube.name.clone(),
                impersonate_user,
                impersonate_groups,
                role: role.name().clone(),
                options,
                with_mfa,
            })
        }
        Err(reason) => {
            let mut findings = Vec::new();
            if reason.is_of_roles() {
                let _same = decide_kube(identity, policy, &kube.labels, request, &mut findings);
            }
            // What the cluster itself is refused for has nothing to do with the request.
            let of_request = request
                .filter(|_| reason.is_of_roles() && decide_kube(identity, policy, &kube.labels, None, &mut ()).is_ok());
            let action = match of_request {
                None => "use Kubernetes cluster".to_owned(),
                Some(request) => format!("{request} of Kubernetes cluster"),
            };
            let target = kube.name.to_string();
            Err(AccessDenied { user: identity.user.to_string(), action, target, reason, findings: findings.into() })
        }
    }
}

/// Proof that a user may use a web application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppAccess {
    user: VerifiedUser,
    app: AppName,
    role: RoleName,
    options: RoleOptions,
    with_mfa: Option<SessionId>,
}

impl AppAccess {
    /// Who.
    #[must_use]
    pub const fn user(&self) -> &VerifiedUser {
        &self.user
    }

    /// Which.
    #[must_use]
    pub const fn app(&self) -> &AppName {
        &self.app
    }

    /// The reason: the first role that allows it.
    #[must_use]
    pub const fn role(&self) -> &RoleName {
        &self.role
    }

    /// See [`SshAccess::options`].
    #[must_use]
    pub const fn options(&self) -> &RoleOptions {
        &self.options
    }

    /// See [`SshAccess::with_mfa`].
    #[must_use]
    pub const fn with_mfa(&self) -> Option<SessionId> {
        self.with_mfa
    }
}

/// Decides whether `user` may use `app`: some role's `app_labels` fit, and no role's deny it.
///
/// # Errors
/// [`AccessDenied`] with the reason; deny beats allow, and a certificate for another place, or with a second factor for one, is refused.
pub fn authorize_app(user: &VerifiedUser, policy: &Policy, app: &AppRecord) -> Result<AppAccess, AccessDenied> {
    let identity = user.identity();
    let locks = policy.check_locks(&LockContext::of_user(user).host(None, Some(app.host_id)));
    let elsewhere = |only: &&OnlyAt| !matches!(only, OnlyAt::App(name) if *name == app.name);
    let decided = match (locks, user.only_at().filter(elsewhere)) {
        (Err(locked), _) => Err(DenyReason::Locked(locked)),
        (Ok(()), Some(only)) => Err(DenyReason::CertificateFor(only.clone())),
        (Ok(()), None) => decide_app(identity, policy, &app.labels, &mut ()),
    };
    let decided = decided.and_then(|granted| {
        // Its time is the certificate's, whose end is looked at with each request.
        let proven = user.proof().map(|proof| match proof.target() {
            SessionTarget::App { name } if *name == app.name => Ok(proof.session()),
            other @ (SessionTarget::App { .. } | SessionTarget::KubeCluster { .. } | SessionTarget::Node { .. }) => {
                Err(ProofMismatch::Target(other.clone()))
            }
        });
        let with_mfa = second_factor(policy, &granted.options, proven)?;
        Ok((granted, with_mfa))
    });
    let (Granted { role, options }, with_mfa) =
        decided.map_err(|reason| app_denied((identity, policy), app, reason))?;
    Ok(AppAccess { user: user.clone(), app: app.name.clone(), role: role.name().clone(), options, with_mfa })
}

/// What roles and locks give a user at a web application, before there is a certificate: opens nothing by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppGrant {
    role: RoleName,
    options: RoleOptions,
    needs_session_mfa: bool,
}

impl AppGrant {
    /// See [`AppAccess::role`].
    #[must_use]
    pub const fn role(&self) -> &RoleName {
        &self.role
    }

    /// See [`AppAccess::options`].
    #[must_use]
    pub const fn options(&self) -> &RoleOptions {
        &self.options
    }

    /// Whether a session there needs a second factor of its own.
    #[must_use]
    pub const fn needs_session_mfa(&self) -> bool {
        self.needs_session_mfa
    }
}

/// Decides what `identity` may be given at `app`: as [`authorize_app`], but for a second factor.
///
/// # Errors
/// As [`authorize_app`].
pub fn grant_app(identity: &UserIdentity, policy: &Policy, app: &AppRecord) -> Result<AppGrant, AccessDenied> {
    let locks = policy.check_locks(&LockContext::of_identity(identity).host(None, Some(app.host_id)));
    let decided = locks.map_err(DenyReason::Locked).and_then(|()| decide_app(identity, policy, &app.labels, &mut ()));
    let Granted { role, options } = decided.map_err(|reason| app_denied((identity, policy), app, reason))?;
    Ok(AppGrant { role: role.name().clone(), options, needs_session_mfa: policy.needs_session_mfa(&options) })
}

fn app_denied((identity, policy): (&UserIdentity, &Policy), app: &AppRecord, reason: DenyReason) -> AccessDenied {
    let mut findings = Vec::new();
    if reason.is_of_roles() {
        let _same = decide_app(identity, policy, &app.labels, &mut findings);
    }
    let (user, target) = (identity.user.to_string(), app.name.to_string());
    AccessDenied { user, action: "use application".to_owned(), target, reason, findings: findings.into() }
}

/// I49: whether a second factor that a session needs was shown for it. One that was shown for something else is refused also where none is needed.
fn second_factor(
    policy: &Policy,
    options: &RoleOptions,
    proven: Option<Result<SessionId, ProofMismatch>>,
) -> Result<Option<SessionId>, DenyReason> {
    match proven {
        Some(Ok(session)) => Ok(Some(session)),
        Some(Err(mismatch)) => Err(DenyReason::OtherSession(Box::new(mismatch))),
        None if policy.needs_session_mfa(options) => Err(DenyReason::SessionMfaNeeded),
        None => Ok(None),
    }
}

/// I57: no control characters, nothing outside visible ASCII and inner spaces.
pub(crate) fn header_safe(name: &str) -> bool {
    check_principal(&name.replace(' ', "_")).is_ok() && name.is_ascii() && name.trim() == name
}
