//! Roles: the document as written ([`RoleSpec`]) and the checked form ([`Role`]). Only the checked one takes part in decisions.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    LabelError, LabelMatcher, NameError, OptionError, OptionsSpec, RoleName, RoleOptions, Verb,
    label::OneOrMany,
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
}

impl RoleError {
    /// The field of the document's `spec` that is refused, from the outside in; empty when it is none of them.
    #[must_use]
    pub fn path(&self) -> Vec<&str> {
        match self {
            Self::Label { field, .. } | Self::Template { field, .. } => field.split('.').collect(),
            Self::Option { option, .. } => vec!["options", option],
            Self::Verb { part, .. } => vec![part, "rules"],
            Self::Name(_) => Vec::new(),
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

/// `allow` or `deny` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConditionsSpec {
    /// Operating-system accounts, templates allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logins: Vec<String>,
    /// Nodes, by label.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_labels: BTreeMap<String, OneOrMany>,
    /// Groups at the Kubernetes API server, templates allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_groups: Vec<String>,
    /// Users at the Kubernetes API server, templates allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_users: Vec<String>,
    /// Kubernetes clusters, by label.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kubernetes_labels: BTreeMap<String, OneOrMany>,
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

/// Checked conditions.
#[derive(Clone, Debug, Default)]
pub struct RoleConditions {
    /// Operating-system accounts.
    pub(crate) logins: Vec<Template>,
    /// Nodes.
    pub(crate) node_labels: LabelMatcher,
    /// Groups at the API server.
    pub(crate) kubernetes_groups: Vec<Template>,
    /// Users at the API server.
    pub(crate) kubernetes_users: Vec<Template>,
    /// Kubernetes clusters.
    pub(crate) kubernetes_labels: LabelMatcher,
    /// Own resources.
    pub(crate) rules: Vec<(Vec<String>, Vec<Verb>)>,
}

/// A checked role.
#[derive(Clone, Debug)]
pub struct Role {
    name: RoleName,
    options: RoleOptions,
    allow: RoleConditions,
    deny: RoleConditions,
}

impl Role {
    /// Checks a document.
    ///
    /// # Errors
    /// [`RoleError`] names the field that is refused.
    pub fn new(name: RoleName, spec: &RoleSpec) -> Result<Self, RoleError> {
        let options = RoleOptions::new(&spec.options).map_err(|(option, source)| RoleError::Option {
            role: name.clone(),
            option,
            source,
        })?;
        let allow = conditions(&name, "allow", &spec.allow)?;
        let deny = conditions(&name, "deny", &spec.deny)?;
        Ok(Self { name, options, allow, deny })
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &RoleName {
        &self.name
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

    /// The operating-system accounts that this role gives a user with `traits`, for the certificate. A value that is no login is left out.
    #[must_use]
    pub fn logins(&self, traits: &crate::Traits) -> Vec<crate::Login> {
        let expanded = self.allow.logins.iter().flat_map(|template| template.expand(traits));
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

fn conditions(role: &RoleName, part: &'static str, spec: &ConditionsSpec) -> Result<RoleConditions, RoleError> {
    let labels = |field: &str, labels: &BTreeMap<String, OneOrMany>| {
        LabelMatcher::new(labels).map_err(|source| RoleError::Label {
            role: role.clone(),
            field: format!("{part}.{field}"),
            source,
        })
    };
    let templates = |field: &str, texts: &[String]| {
        texts
            .iter()
            .map(|text| Template::new(text))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| RoleError::Template { role: role.clone(), field: format!("{part}.{field}"), source })
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
    Ok(RoleConditions {
        logins: templates("logins", &spec.logins)?,
        node_labels: labels("node_labels", &spec.node_labels)?,
        kubernetes_groups: templates("kubernetes_groups", &spec.kubernetes_groups)?,
        kubernetes_users: templates("kubernetes_users", &spec.kubernetes_users)?,
        kubernetes_labels: labels("kubernetes_labels", &spec.kubernetes_labels)?,
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
        ..ConditionsSpec::default()
    };
    let editor = ConditionsSpec {
        rules: vec![rule(&["role", "user", "token", "node", "kube_cluster", "cert_authority"], &["*"])],
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
}
