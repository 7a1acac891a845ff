//! Explanations: what a user may do and why. Made by the evaluation that decides (`decision`), so that they cannot say something else. Owns
//! their form, and what a user may hear about themself as against what administrators hear.

use serde::{Deserialize, Serialize};

use crate::{
    AppName, DenyReason, Finding, KubeClusterName, KubeRequest, Labels, Locked, Login, NodeName, Policy, RoleName,
    RoleOptions, UserIdentity, UserName,
    decision::{Granted, decide_app, decide_kube, decide_ssh},
};

/// What is to be explained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExplainRequest {
    /// Whom it is about; absent: who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// One node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// One Kubernetes cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_cluster: Option<KubeClusterName>,
    /// One web application. With none of the three: whatever may be done anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    /// One account on nodes; absent: those that the roles give.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
}

/// What an explanation is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExplainedKind {
    /// A node or, where no account is named, a Kubernetes cluster.
    #[default]
    Infrastructure,
    /// A web application.
    App,
}

impl ExplainedKind {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a user may do one thing, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who.
    pub user: UserName,
    /// What it is about.
    #[serde(default, skip_serializing_if = "ExplainedKind::is_default")]
    pub kind: ExplainedKind,
    /// Name of the node, Kubernetes cluster or web application.
    pub target: String,
    /// As which account, on nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
    /// Whether they may.
    pub allowed: bool,
    /// One sentence.
    pub reason: String,
    /// What each role had to say; for administrators only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Under which conditions, when it is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<ShownOptions>,
}

/// The merged options of a permitted access, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownOptions {
    /// Longest life of a certificate, in seconds.
    pub max_session_ttl_seconds: u64,
    /// Whether the ssh-agent may be forwarded.
    pub forward_agent: bool,
    /// `ssh -L`.
    pub local_port_forwarding: bool,
    /// `ssh -R`.
    pub remote_port_forwarding: bool,
    /// scp and sftp.
    pub ssh_file_copy: bool,
    /// Whether what runs ends with the certificate.
    pub disconnect_expired_cert: bool,
    /// How long a session may be silent, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_idle_timeout_seconds: Option<u64>,
    /// Most sessions in one connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<u32>,
    /// Most SSH connections at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Most connections to Kubernetes clusters at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_kubernetes_connections: Option<u32>,
    /// Whether each session needs a second factor of its own, by a role or by the cluster's setting.
    #[serde(default)]
    pub require_session_mfa: bool,
}

impl From<&RoleOptions> for ShownOptions {
    fn from(options: &RoleOptions) -> Self {
        Self {
            max_session_ttl_seconds: options.max_session_ttl.as_secs(),
            forward_agent: options.forward_agent,
            local_port_forwarding: options.port_forwarding.local.allowed(),
            remote_port_forwarding: options.port_forwarding.remote.allowed(),
            ssh_file_copy: options.ssh_file_copy,
            disconnect_expired_cert: options.disconnect_expired_cert,
            client_idle_timeout_seconds: options.client_idle_timeout.map(|timeout| timeout.as_secs()),
            max_sessions: options.max_sessions,
            max_connections: options.max_connections,
            max_kubernetes_connections: options.max_kubernetes_connections,
            require_session_mfa: options.session_mfa,
        }
    }
}

/// Explains whether `user` may log in as `login` to the node `name` with `labels`.
#[must_use]
pub fn explain_ssh(
    user: &UserIdentity,
    policy: &Policy,
    (name, labels): (&NodeName, &Labels),
    login: &Login,
) -> Explanation {
    let mut findings = Vec::new();
    let decided = decide_ssh(user, policy, labels, login, &mut findings);
    made((user, policy), name.to_string(), Some(login.clone()), decided, findings)
}

/// Explains whether `user` may send `request`, or anything at all, to the API server of the Kubernetes cluster `name` with `labels`.
#[must_use]
pub fn explain_kube(
    user: &UserIdentity,
    policy: &Policy,
    (name, labels): (&KubeClusterName, &Labels),
    request: Option<&KubeRequest>,
) -> Explanation {
    let mut findings = Vec::new();
    let decided = decide_kube(user, policy, labels, request, &mut findings).map(|(granted, _)| granted);
    made((user, policy), name.to_string(), None, decided, findings)
}

/// Explains whether `user` may use the web application `name` with `labels`.
#[must_use]
pub fn explain_app(user: &UserIdentity, policy: &Policy, (name, labels): (&AppName, &Labels)) -> Explanation {
    let mut findings = Vec::new();
    let decided = decide_app(user, policy, labels, &mut findings);
    Explanation { kind: ExplainedKind::App, ..made((user, policy), name.to_string(), None, decided, findings) }
}

fn made(
    (user, policy): (&UserIdentity, &Policy),
    target: String,
    login: Option<Login>,
    decided: Result<Granted<'_>, DenyReason>,
    findings: Vec<Finding>,
) -> Explanation {
    let (reason, options) = match &decided {
        Ok(Granted { role, options }) => {
            let require_session_mfa = policy.needs_session_mfa(options);
            let condition = if require_session_mfa { WITH_FACTOR } else { "" };
            let options = ShownOptions { require_session_mfa, ..options.into() };
            (format!("role {} allows it{condition}", role.name()), Some(options))
        }
        Err(reason) => (reason.to_string(), None),
    };
    let kind = ExplainedKind::Infrastructure;
    Explanation { user: user.user.clone(), kind, target, login, allowed: decided.is_ok(), reason, findings, options }
}

impl Explanation {
    /// The same as the user themself may hear it: nothing of what stands in roles, and whether one denies or none allows is the same.
    #[must_use]
    pub fn for_the_user(self) -> Self {
        let with_factor = self.options.as_ref().is_some_and(|options| options.require_session_mfa);
        let reason = match (self.allowed, with_factor) {
            (true, false) => "your roles allow it".to_owned(),
            (true, true) => format!("your roles allow it{WITH_FACTOR}"),
            (false, _) => "your roles do not allow it; ask an administrator for a role that does".to_owned(),
        };
        Self { reason, findings: Vec::new(), ..self }
    }

    /// The same, unless a lock forbids it, whose message anybody may hear whom it shuts out.
    #[must_use]
    pub fn unless(self, locks: Result<(), Locked>) -> Self {
        match locks {
            Ok(()) => self,
            Err(locked) => Self { allowed: false, reason: locked.to_string(), options: None, ..self },
        }
    }

    /// `ann may log in as root to gw-17: role access allows it`
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { user, kind, target, login, allowed, reason, .. } = self;
        let may = if *allowed { "may" } else { "may not" };
        match login {
            _ if *kind == ExplainedKind::App => format!("{user} {may} use application {target}: {reason}"),
            Some(login) => format!("{user} {may} log in as {login} to {target}: {reason}"),
            None => format!("{user} {may} use Kubernetes cluster {target}: {reason}"),
        }
    }
}

/// The condition, as it stands behind a reason.
const WITH_FACTOR: &str = ", with a second factor for each session";

/// The identity that a user with these roles and traits would have in a new certificate of `policy`'s cluster. Roles that do not exist stay in it,
/// and refuse everything.
#[must_use]
pub fn prospective_identity<'a>(
    user: UserName,
    policy: &Policy,
    roles: impl IntoIterator<Item = &'a RoleName>,
    traits: crate::Traits,
) -> UserIdentity {
    let roles: std::collections::BTreeSet<RoleName> = roles.into_iter().cloned().collect();
    let known = roles.iter().filter_map(|name| policy.roles.get(name));
    let mut logins: Vec<Login> = Vec::new();
    for login in known.flat_map(|role| role.logins(&traits)) {
        if !logins.contains(&login) {
            logins.push(login);
        }
    }
    UserIdentity { user, cluster: policy.trust.cluster.clone(), roles, traits, logins }
}
