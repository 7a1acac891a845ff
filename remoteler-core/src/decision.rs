//! The one evaluation of roles. It yields the decision and, to a witness that wants to hear it, what each role had to say; the proofs of
//! `access` and every explanation come from here, so that an explanation cannot differ from the decision. Knows identities, labels and
//! roles; no certificates.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    AppRecord, DenyReason, KubeRecord, KubeRequest, Labels, Login, NodeRecord, Policy, Role, RoleName, RoleOptions,
    UserIdentity,
    access::header_safe,
    label::{LabelRule, LabelView},
    predicate::Scope,
    role::RoleConditions,
    template::Template,
};

/// What one role had to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which role.
    pub role: RoleName,
    /// What it says.
    pub outcome: RoleOutcome,
    /// The fields of it that decided, such as `deny.logins`: those that deny, that allow, or that do not fit.
    pub fields: Vec<String>,
}

/// What a role says of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleOutcome {
    /// It denies it, whatever others say.
    Denies,
    /// It allows it.
    Allows,
    /// It does not allow it.
    Lacks,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, outcome, fields } = self;
        let fields = fields.join(" and ");
        match outcome {
            RoleOutcome::Denies => write!(f, "role {role} denies it by {fields}"),
            RoleOutcome::Allows => write!(f, "role {role} allows it by {fields}"),
            RoleOutcome::Lacks => write!(f, "role {role} does not fit in {fields}"),
        }
    }
}

/// Who listens to an evaluation.
pub(crate) trait Witness {
    /// Whether to go on when the decision is made.
    const WHOLE: bool;
    /// Hears what a role says, in no particular order.
    fn note(&mut self, role: &Role, outcome: RoleOutcome, fields: [Option<&'static str>; 2]);
}

/// Nobody: the decision alone.
impl Witness for () {
    const WHOLE: bool = false;
    fn note(&mut self, _role: &Role, _outcome: RoleOutcome, _fields: [Option<&'static str>; 2]) {}
}

/// Everything, denials first.
impl Witness for Vec<Finding> {
    const WHOLE: bool = true;
    fn note(&mut self, role: &Role, outcome: RoleOutcome, fields: [Option<&'static str>; 2]) {
        let fields = fields.into_iter().flatten().map(str::to_owned).collect();
        let finding = Finding { role: role.name().clone(), outcome, fields };
        let at = if outcome == RoleOutcome::Denies {
            self.iter().take_while(|known| known.outcome == RoleOutcome::Denies).count()
        } else {
            self.len()
        };
        self.insert(at, finding);
    }
}

/// What was granted.
pub(crate) struct Granted<'a> {
    /// The first role that allows it.
    pub(crate) role: &'a Role,
    /// Abilities of the roles that allow it, limits of all.
    pub(crate) options: RoleOptions,
}

/// As whom to talk to an API server.
pub(crate) struct KubeNames {
    pub(crate) user: String,
    pub(crate) groups: Vec<String>,
}

/// Whether `user` may log in as `login` where `labels` are.
pub(crate) fn decide_ssh<'a, W: Witness>(
    user: &UserIdentity,
    policy: &'a Policy,
    labels: &Labels,
    login: &Login,
    witness: &mut W,
) -> Result<Granted<'a>, DenyReason> {
    let certified = user.logins.contains(login);
    if !certified && !W::WHOLE {
        return Err(DenyReason::LoginNotInCertificate);
    }
    let roles = policy.held(user).map_err(DenyReason::UnknownRole)?;
    let labels = &LabelView::of(labels, roles.len());
    let scope = Scope { user: user.user.as_str(), traits: &user.traits, labels };
    let mut tally = Tally::default();
    for role in roles {
        let (deny, allow) = (role.deny(), role.allow());
        let denied = [
            deny.nodes.denies(&scope).then_some("deny.node_labels"),
            // What cannot be worked out denies.
            names(&deny.logins, login, &scope, true).then_some("deny.logins"),
        ];
        let lacking = || {
            let nodes = (!allow.nodes.allows(&scope)).then_some("allow.node_labels");
            // Without a witness the first that is lacking is enough.
            let logins = W::WHOLE || nodes.is_none();
            [nodes, (logins && !names(&allow.logins, login, &scope, false)).then_some("allow.logins")]
        };
        tally.take(role, denied, lacking, [Some("allow.node_labels"), Some("allow.logins")], witness);
        if tally.denied.is_some() && !W::WHOLE {
            break;
        }
    }
    if certified { tally.decided() } else { Err(DenyReason::LoginNotInCertificate) }
}

/// Whether and as whom `user` may send `request` (or anything at all) to the API server where `labels` are.
pub(crate) fn decide_kube<'a, W: Witness>(
    user: &UserIdentity,
    policy: &'a Policy,
    labels: &Labels,
    request: Option<&KubeRequest>,
    witness: &mut W,
) -> Result<(Granted<'a>, KubeNames), DenyReason> {
    let roles = policy.held(user).map_err(DenyReason::UnknownRole)?;
    let labels = &LabelView::of(labels, roles.len());
    let scope = Scope { user: user.user.as_str(), traits: &user.traits, labels };
    let mut tally = Tally::default();
    let mut allowing: Vec<&Role> = Vec::new();
    for role in &roles {
        let (deny, allow) = (role.deny(), role.allow());
        let touched = |request| deny.kubernetes_resources.iter().any(|rule| rule.touches(request, &scope) != Ok(false));
        let covered = |request| allow.kubernetes_resources.iter().any(|rule| rule.covers(request, &scope) == Ok(true));
        let denied = [
            deny.kubernetes.denies(&scope).then_some("deny.kubernetes_labels"),
            request.is_some_and(touched).then_some("deny.kubernetes_resources"),
        ];
        let lacking = || {
            let labels = (!allow.kubernetes.allows(&scope)).then_some("allow.kubernetes_labels");
            let resources = W::WHOLE || labels.is_none();
            [labels, (resources && !request.is_none_or(covered)).then_some("allow.kubernetes_resources")]
        };
        let fields = [Some("allow.kubernetes_labels"), Some("allow.kubernetes_resources")];
        if tally.take(role, denied, lacking, fields, witness) {
            allowing.push(role);
        }
        if tally.denied.is_some() && !W::WHOLE {
            break;
        }
    }
    let granted = tally.decided()?;
    Ok((granted, kube_names(user, &roles, &allowing, &scope)?))
}

/// Whether `user` may use the web application where `labels` are.
pub(crate) fn decide_app<'a, W: Witness>(
    user: &UserIdentity,
    policy: &'a Policy,
    labels: &Labels,
    witness: &mut W,
) -> Result<Granted<'a>, DenyReason> {
    let roles = policy.held(user).map_err(DenyReason::UnknownRole)?;
    let labels = &LabelView::of(labels, roles.len());
    let scope = Scope { user: user.user.as_str(), traits: &user.traits, labels };
    let mut tally = Tally::default();
    for role in roles {
        let denied = [role.deny().apps.denies(&scope).then_some("deny.app_labels"), None];
        let lacking = || [(!role.allow().apps.allows(&scope)).then_some("allow.app_labels"), None];
        tally.take(role, denied, lacking, [Some("allow.app_labels"), None], witness);
        if tally.denied.is_some() && !W::WHOLE {
            break;
        }
    }
    tally.decided()
}

/// What has been heard of the roles so far.
#[derive(Default)]
struct Tally<'a> {
    denied: Option<&'a Role>,
    granted: Option<Granted<'a>>,
    limits: Option<RoleOptions>,
}

impl<'a> Tally<'a> {
    /// Takes one role in; says whether it allows. What it lacks is asked only where it does not deny.
    fn take<W: Witness>(
        &mut self,
        role: &'a Role,
        denied: [Option<&'static str>; 2],
        lacking: impl FnOnce() -> [Option<&'static str>; 2],
        fields: [Option<&'static str>; 2],
        witness: &mut W,
    ) -> bool {
        let options = *role.options();
        self.limits = Some(match self.limits {
            // Most roles say the same, and that adds nothing.
            Some(limits) if limits != options => limits.limited_by(options),
            _ => options,
        });
        if denied.iter().any(Option::is_some) {
            witness.note(role, RoleOutcome::Denies, denied);
            self.denied.get_or_insert(role);
            return false;
        }
        let lacking = lacking();
        if lacking.iter().any(Option::is_some) {
            witness.note(role, RoleOutcome::Lacks, lacking);
            return false;
        }
        witness.note(role, RoleOutcome::Allows, fields);
        match &mut self.granted {
            Some(granted) if granted.options != options => granted.options = granted.options.merge(options),
            Some(_) => {}
            none => *none = Some(Granted { role, options }),
        }
        true
    }

    fn decided(self) -> Result<Granted<'a>, DenyReason> {
        if let Some(role) = self.denied {
            return Err(DenyReason::DeniedBy(role.name().clone()));
        }
        let granted = self.granted.ok_or(DenyReason::NoRoleAllows)?;
        let options = self.limits.map_or(granted.options, |limits| granted.options.limited_by(limits));
        Ok(Granted { options, ..granted })
    }
}

/// Whether some template gives `login` or `*`; `unsure` is the answer of one that cannot be worked out.
fn names(templates: &[Template], login: &Login, scope: &Scope<'_>, unsure: bool) -> bool {
    templates.iter().any(|template| template.names(login.as_str(), scope).unwrap_or(unsure))
}

/// What one user may know of: their roles are looked up once, for many questions.
#[derive(Clone, Debug)]
pub struct Visibility<'a> {
    user: &'a UserIdentity,
    /// `None` when a role is gone: what it denied is not known, so nothing is shown.
    roles: Option<Vec<&'a Role>>,
}

impl<'a> Visibility<'a> {
    /// Of `user`, by the roles of `policy`.
    #[must_use]
    pub fn of(user: &'a UserIdentity, policy: &'a Policy) -> Self {
        Self { user, roles: policy.held(user).ok() }
    }

    /// Whether they may know of a node: some role allows its labels for some login and none denies them.
    #[must_use]
    pub fn node(&self, node: &NodeRecord) -> bool {
        self.sees(&node.labels, |conditions| &conditions.nodes)
    }

    /// Whether they may know of a Kubernetes cluster.
    #[must_use]
    pub fn kube_cluster(&self, kube: &KubeRecord) -> bool {
        self.sees(&kube.labels, |conditions| &conditions.kubernetes)
    }

    /// Whether they may know of a web application.
    #[must_use]
    pub fn app(&self, app: &AppRecord) -> bool {
        self.sees(&app.labels, |conditions| &conditions.apps)
    }

    fn sees(&self, labels: &Labels, rule: fn(&RoleConditions) -> &LabelRule) -> bool {
        let Some(roles) = &self.roles else { return false };
        let labels = &LabelView::of(labels, roles.len());
        let scope = Scope { user: self.user.user.as_str(), traits: &self.user.traits, labels };
        !roles.iter().any(|role| rule(role.deny()).denies(&scope))
            && roles.iter().any(|role| rule(role.allow()).allows(&scope))
    }
}

fn kube_names(
    user: &UserIdentity,
    roles: &[&Role],
    allowing: &[&Role],
    scope: &Scope<'_>,
) -> Result<KubeNames, DenyReason> {
    let denied = |pick: fn(&RoleConditions) -> &Vec<Template>| {
        let expand = |template: &Template| match template.expand(scope) {
            Ok(names) => names.into_iter().map(String::from).collect(),
            // What cannot be worked out denies all.
            Err(_) => vec!["*".to_owned()],
        };
        roles.iter().flat_map(|role| pick(role.deny())).flat_map(expand).collect::<Vec<String>>()
    };
    let allowed = |pick: fn(&RoleConditions) -> &Vec<Template>, denied: &[String]| {
        let given = allowing.iter().flat_map(|role| pick(role.allow()));
        let given = given.flat_map(|template| template.expand(scope).unwrap_or_default()).map(String::from);
        let mut given: Vec<String> = given.filter(|name| !is_denied(denied, name)).collect();
        given.sort();
        given.dedup();
        given
    };
    let denied_groups = denied(|conditions| &conditions.kubernetes_groups);
    let denied_users = denied(|conditions| &conditions.kubernetes_users);
    let groups = allowed(|conditions| &conditions.kubernetes_groups, &denied_groups);
    let own = user.user.to_string();
    let impersonated = match allowed(|conditions| &conditions.kubernetes_users, &denied_users).as_slice() {
        [one] => one.clone(),
        [] if !is_denied(&denied_users, &own) => own,
        [] => return Err(DenyReason::KubernetesUserDenied(own)),
        several => return Err(DenyReason::SeveralKubernetesUsers(several.to_vec())),
    };
    if groups.is_empty() {
        return Err(DenyReason::NoKubernetesIdentity);
    }
    if let Some(bad) = groups.iter().chain([&impersonated]).find(|name| !header_safe(name)) {
        return Err(DenyReason::UnusableKubernetesName(bad.chars().take(80).collect()));
    }
    Ok(KubeNames { user: impersonated, groups })
}

/// A name among those denied; `*` denies every one.
fn is_denied(denied: &[String], name: &str) -> bool {
    denied.iter().any(|pattern| pattern == "*" || pattern == name)
}
