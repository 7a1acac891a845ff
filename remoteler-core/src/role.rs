//! Roles: the document as written ([`RoleSpec`]) and the checked form ([`Role`]). Only the checked one takes part in decisions.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    KubeResourceError, KubeResourceSpec, LabelError, NameError, OptionError, OptionsSpec, PredicateError, Resource,
    RoleName, RoleOptions, Verb,
    access::header_safe,
    kube_resources::KubeResourceRule,
    label::{LabelMatcher, LabelRule, OneOrMany},
    predicate::Predicate,
    template::{Template, TemplateError},
};

/// Why a role document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoleError {
    /// A label pattern is wrong.
    #[error("{field} of role {role} is refused: {source}")]
    Label {
        /// Role.
        role: RoleName,
        /// Field.
        field: String,
        /// Why.
        source: LabelError,
    },
    /// A `{{…}}` is wrong.
    #[error("{field} of role {role} is refused: {source}")]
    Template {
        /// Role.
        role: RoleName,
        /// Field.
        field: String,
        /// Why.
        source: TemplateError,
    },
    /// An option is wrong, or nobody would enforce it.
    #[error("options.{option} of role {role} is refused: {source}")]
    Option {
        /// Role.
        role: RoleName,
        /// Which.
        option: &'static str,
        /// Why.
        source: OptionError,
    },
    /// A verb this product does not have.
    #[error(
        "verb {value:?} in {part}.rules of role {role} is unknown; known are list, read, create, update, delete and *"
    )]
    Verb {
        /// Role.
        role: RoleName,
        /// `allow` or `deny`.
        part: &'static str,
        /// As written.
        value: String,
    },
    /// The name is no role name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A label expression is wrong.
    #[error("{field} of role {role} is refused: {source}")]
    Expression {
        /// Role.
        role: RoleName,
        /// Field.
        field: String,
        /// Why.
        source: PredicateError,
    },
    /// An entry of `kubernetes_resources` is wrong.
    #[error("{field} of role {role} is refused: {source}")]
    KubernetesResource {
        /// Role.
        role: RoleName,
        /// Field.
        field: String,
        /// Why.
        source: KubeResourceError,
    },
    /// A Kubernetes user or group that could not be sent as a header.
    #[error("{field} of role {role} is refused: {value:?} cannot be sent as a header; use visible ASCII")]
    KubernetesName {
        /// Role.
        role: RoleName,
        /// Field.
        field: String,
        /// As written.
        value: String,
    },
    /// More regular expressions than any role needs.
    #[error("role {role} has more than {MAX_EXPRESSIONS} regular expressions; make several roles of it")]
    TooManyExpressions {
        /// Role.
        role: RoleName,
    },
    /// A version that is not read.
    #[error("version {version:?} of kind role is not read; v5, v6 and v7 are")]
    Version {
        /// Role.
        role: RoleName,
        /// As written.
        version: String,
    },
    /// The document has fields that roles do not have, or values that they cannot have.
    #[error("spec of role {role} is refused: {reason}")]
    Spec {
        /// Role.
        role: RoleName,
        /// What is wrong.
        reason: String,
    },
}

impl RoleError {
    /// The field of the document's `spec` that is refused, from the outside in; empty when it is none of them.
    #[must_use]
    pub fn path(&self) -> Vec<&str> {
        match self {
            Self::Label { field, .. }
            | Self::Template { field, .. }
            | Self::Expression { field, .. }
            | Self::KubernetesResource { field, .. }
            | Self::KubernetesName { field, .. } => field.split('.').collect(),
            Self::Option { option, .. } => vec!["options", option],
            Self::Verb { part, .. } => vec![part, "rules"],
            Self::Name(_) | Self::TooManyExpressions { .. } | Self::Version { .. } | Self::Spec { .. } => Vec::new(),
        }
    }
}

/// The `spec` of a role document, as written. An unknown field is refused by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoleSpec {
    /// Limits and abilities.
    pub options: OptionsSpec,
    /// What the role grants.
    pub allow: ConditionsSpec,
    /// What the role forbids, whatever any role grants.
    pub deny: ConditionsSpec,
}

/// `allow` or `deny` as written. Label expressions stand beside labels: a grant needs both, a denial either.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConditionsSpec {
    /// Operating-system accounts, templates allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logins: Vec<String>,
    /// Nodes, by label.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_labels: BTreeMap<String, OneOrMany>,
    /// Nodes, by an expression over their labels and the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_labels_expression: Option<String>,
    /// Groups at the Kubernetes API server, templates allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_groups: Vec<String>,
    /// Users at the Kubernetes API server, templates allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_users: Vec<String>,
    /// Kubernetes clusters, by label.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kubernetes_labels: BTreeMap<String, OneOrMany>,
    /// Kubernetes clusters, by an expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes_labels_expression: Option<String>,
    /// Objects in Kubernetes clusters. What it means that none is named depends on the version of the role.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_resources: Vec<KubeResourceSpec>,
    /// Web applications, by label.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub app_labels: BTreeMap<String, OneOrMany>,
    /// Web applications, by an expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_labels_expression: Option<String>,
    /// Trusted clusters, by label.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cluster_labels: BTreeMap<String, OneOrMany>,
    /// Trusted clusters, by an expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_labels_expression: Option<String>,
    /// The product's own resources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleSpec>,
}

/// One rule: these verbs on these resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// Kinds such as `session`, `event`, `role`, or `*`.
    pub resources: Vec<String>,
    /// `list`, `read`, `create`, `update`, `delete` or `*`.
    pub verbs: Vec<String>,
}

/// Version of the form of a role document. They differ in what it means that a field is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleVersion {
    /// Knows no `kubernetes_resources`: every object may be touched.
    V5,
    /// Knows them for pods: those that are named and no other; objects of other kinds may be touched.
    V6,
    /// Knows them for every kind: none named is all.
    V7,
}

impl RoleVersion {
    /// Reads a version as documents write it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "v5" => Some(Self::V5),
            "v6" => Some(Self::V6),
            "v7" => Some(Self::V7),
            _ => None,
        }
    }

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V5 => "v5",
            Self::V6 => "v6",
            Self::V7 => "v7",
        }
    }
}

impl fmt::Display for RoleVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Checked conditions.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoleConditions {
    /// Operating-system accounts.
    pub(crate) logins: Vec<Template>,
    /// Nodes.
    pub(crate) nodes: LabelRule,
    /// Groups at the API server.
    pub(crate) kubernetes_groups: Vec<Template>,
    /// Users at the API server.
    pub(crate) kubernetes_users: Vec<Template>,
    /// Kubernetes clusters.
    pub(crate) kubernetes: LabelRule,
    /// Objects in them.
    pub(crate) kubernetes_resources: Vec<KubeResourceRule>,
    /// Web applications.
    pub(crate) apps: LabelRule,
    /// Own resources.
    pub(crate) rules: Vec<(Vec<String>, Vec<Verb>)>,
}

/// A checked role.
#[derive(Clone, Debug)]
pub struct Role {
    name: RoleName,
    version: RoleVersion,
    options: RoleOptions,
    allow: RoleConditions,
    deny: RoleConditions,
}

impl Role {
    /// Checks a role of the newest version.
    ///
    /// # Errors
    /// [`RoleError`] names the field that is refused.
    pub fn new(name: RoleName, spec: &RoleSpec) -> Result<Self, RoleError> {
        Self::of_version(name, RoleVersion::V7, spec)
    }

    /// Checks a role whose document is of `version`.
    ///
    /// # Errors
    /// [`RoleError`] names the field that is refused.
    pub fn of_version(name: RoleName, version: RoleVersion, spec: &RoleSpec) -> Result<Self, RoleError> {
        if expressions(spec) > MAX_EXPRESSIONS {
            return Err(RoleError::TooManyExpressions { role: name });
        }
        let options = RoleOptions::new(&spec.options).map_err(|(option, source)| RoleError::Option {
            role: name.clone(),
            option,
            source,
        })?;
        let allow = conditions(&name, version, "allow", &spec.allow)?;
        let deny = conditions(&name, version, "deny", &spec.deny)?;
        Ok(Self { name, version, options, allow, deny })
    }

    /// Reads and checks a document of kind `role`.
    ///
    /// # Errors
    /// [`RoleError`] names what is refused.
    pub fn from_document(document: &Resource) -> Result<Self, RoleError> {
        let name = RoleName::new(&document.metadata.name)?;
        let Some(version) = RoleVersion::parse(&document.version) else {
            let version = document.version.chars().take(40).collect();
            return Err(RoleError::Version { role: name, version });
        };
        let spec = if document.spec.is_null() {
            RoleSpec::default()
        } else {
            serde_json::from_value(document.spec.clone())
                .map_err(|cause| RoleError::Spec { role: name.clone(), reason: cause.to_string() })?
        };
        Self::of_version(name, version, &spec)
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &RoleName {
        &self.name
    }

    /// The version of its document.
    #[must_use]
    pub const fn version(&self) -> RoleVersion {
        self.version
    }

    /// Its options.
    #[must_use]
    pub const fn options(&self) -> &RoleOptions {
        &self.options
    }

    pub(crate) const fn allow(&self) -> &RoleConditions {
        &self.allow
    }

    pub(crate) const fn deny(&self) -> &RoleConditions {
        &self.deny
    }

    /// The operating-system accounts that this role gives a user with `traits`, for the certificate. A value that is no login, or that cannot
    /// be worked out, is left out.
    #[must_use]
    pub fn logins(&self, traits: &crate::Traits) -> Vec<crate::Login> {
        let expand = |template: &Template| template.expand_for(traits).unwrap_or_default();
        let expanded = self.allow.logins.iter().flat_map(expand);
        expanded.filter_map(|login| crate::Login::new(login).ok()).collect()
    }
}

/// Reads a duration as config, roles and flags write it: `30s`, `15m`, `12h`, `7d`, and sums of them such as `1h30m`; more than
/// zero, at most ten years. `None` for anything else.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut total: u64 = 0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let unit = after.chars().next()?;
        let factor = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = after.get(1..)?;
    }
    (1..=315_360_000).contains(&total).then(|| Duration::from_secs(total))
}

/// Most regular expressions in one role: each may take 64 KiB when it is compiled.
const MAX_EXPRESSIONS: usize = 256;

/// How many regular expressions could be in a role, at the most.
fn expressions(spec: &RoleSpec) -> usize {
    // Every text of the document begins with a quote in this form.
    let text = serde_json::to_string(spec).unwrap_or_default();
    ["\"^", "regexp.", "labels_matching", "`^"].iter().map(|sign| text.matches(sign).count()).sum()
}

fn conditions(
    role: &RoleName,
    version: RoleVersion,
    part: &'static str,
    spec: &ConditionsSpec,
) -> Result<RoleConditions, RoleError> {
    let field = |field: &str| format!("{part}.{field}");
    let labels = |name: &str, labels: &BTreeMap<String, OneOrMany>, expression: &Option<String>| {
        let matcher = LabelMatcher::new(labels).map_err(|source| RoleError::Label {
            role: role.clone(),
            field: field(name),
            source,
        })?;
        let expression = expression.as_ref().map(|text| Predicate::new(text)).transpose().map_err(|source| {
            RoleError::Expression { role: role.clone(), field: field(&format!("{name}_expression")), source }
        })?;
        Ok::<_, RoleError>(LabelRule::new(matcher, expression))
    };
    let templates = |name: &str, texts: &[String]| {
        texts
            .iter()
            .map(|text| Template::new(text))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| RoleError::Template { role: role.clone(), field: field(name), source })
    };
    // I57: what is the same for everybody is refused here already; what traits bring, when it would be sent.
    let names = |name: &str, texts: &[String]| {
        let templates = templates(name, texts)?;
        match templates.iter().filter_map(Template::constant).find(|text| !header_safe(text)) {
            Some(bad) => {
                let value = bad.chars().take(80).collect();
                Err(RoleError::KubernetesName { role: role.clone(), field: field(name), value })
            }
            None => Ok(templates),
        }
    };
    let resources = match part {
        "allow" => KubeResourceRule::allowed(&spec.kubernetes_resources, version),
        _ => KubeResourceRule::written(&spec.kubernetes_resources, version),
    };
    let mut rules = Vec::with_capacity(spec.rules.len());
    for rule in &spec.rules {
        let mut verbs = Vec::new();
        for verb in &rule.verbs {
            let parsed = Verb::parse(verb).ok_or_else(|| RoleError::Verb {
                role: role.clone(),
                part,
                value: verb.chars().take(40).collect(),
            })?;
            verbs.extend_from_slice(parsed);
        }
        rules.push((rule.resources.clone(), verbs));
    }
    // Nothing decides by these yet; a role that loads here must not turn out to be none later.
    labels("cluster_labels", &spec.cluster_labels, &spec.cluster_labels_expression)?;
    Ok(RoleConditions {
        logins: templates("logins", &spec.logins)?,
        nodes: labels("node_labels", &spec.node_labels, &spec.node_labels_expression)?,
        kubernetes_groups: names("kubernetes_groups", &spec.kubernetes_groups)?,
        kubernetes_users: names("kubernetes_users", &spec.kubernetes_users)?,
        kubernetes: labels("kubernetes_labels", &spec.kubernetes_labels, &spec.kubernetes_labels_expression)?,
        kubernetes_resources: resources.map_err(|source| RoleError::KubernetesResource {
            role: role.clone(),
            field: field("kubernetes_resources"),
            source,
        })?,
        apps: labels("app_labels", &spec.app_labels, &spec.app_labels_expression)?,
        rules,
    })
}

/// The roles of a new cluster: `access` uses everything, `editor` changes settings, `auditor` reads the audit log and recordings.
#[must_use]
pub fn preset_roles() -> Vec<(RoleName, RoleSpec)> {
    let everything = || BTreeMap::from([("*".to_owned(), OneOrMany::One("*".to_owned()))]);
    let rule = |resources: &[&str], verbs: &[&str]| RuleSpec {
        resources: resources.iter().map(|r| (*r).to_owned()).collect(),
        verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
    };
    let access = ConditionsSpec {
        logins: vec!["{{internal.logins}}".into()],
        node_labels: everything(),
        kubernetes_groups: vec!["{{internal.kubernetes_groups}}".into()],
        kubernetes_users: vec!["{{internal.kubernetes_users}}".into()],
        kubernetes_labels: everything(),
        app_labels: everything(),
        ..ConditionsSpec::default()
    };
    let editor = ConditionsSpec {
        rules: vec![
            rule(&["role", "user", "token", "node", "kube_cluster", "app", "cert_authority", "policy_test"], &["*"]),
            rule(&["cluster_auth_preference", "cluster_networking_config", "session_recording_config"], &["*"]),
        ],
        ..ConditionsSpec::default()
    };
    let auditor =
        ConditionsSpec { rules: vec![rule(&["session", "event"], &["list", "read"])], ..ConditionsSpec::default() };
    let named = |name: &str, allow| {
        let name = RoleName::new(name).expect("preset names are role names");
        (name, RoleSpec { allow, ..RoleSpec::default() })
    };
    vec![named("access", access), named("editor", editor), named("auditor", auditor)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_bounds() {
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("7d"), Some(Duration::from_secs(604_800)));
        for bad in ["", "0s", "10", "h", "1y", "-1h", "99999999999999999999s", "100000d"] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_preset_roles_pass_their_own_check() {
        for (name, spec) in preset_roles() {
            Role::new(name, &spec).unwrap();
        }
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let cause = serde_json::from_str::<RoleSpec>(r#"{"allow":{"desktop_labels":{}}}"#).unwrap_err(); // I80
        assert!(cause.to_string().contains("desktop_labels"), "{cause}");
    }

    #[test]
    fn a_kubernetes_name_that_no_header_can_carry_is_refused_when_the_role_is_loaded() {
        for name in ["a\r\nb", "a\u{0}", "\u{fc}", " a", "a\t"] {
            for field in ["kubernetes_groups", "kubernetes_users"] {
                let spec = serde_json::json!({ "allow": { field: ["fine", name] } });
                let spec: RoleSpec = serde_json::from_value(spec).unwrap();
                let refused = Role::new(RoleName::new("r").unwrap(), &spec).unwrap_err(); // I57
                assert_eq!(refused.path(), ["allow", field], "{name:?}: {refused}");
            }
        }
    }

    #[test]
    fn a_role_has_a_bound_on_what_it_makes_a_service_compile() {
        let values: Vec<String> = (0..=MAX_EXPRESSIONS).map(|number| format!("^a{number}$")).collect();
        let spec = serde_json::json!({ "allow": { "node_labels": { "env": values } } });
        let spec: RoleSpec = serde_json::from_value(spec).unwrap();
        let refused = Role::new(RoleName::new("r").unwrap(), &spec).unwrap_err(); // I25
        assert!(matches!(refused, RoleError::TooManyExpressions { .. }), "{refused}");
    }
}
