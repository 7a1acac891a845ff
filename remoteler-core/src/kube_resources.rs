//! `kubernetes_resources` of roles: which objects at an API server may be touched, and how. Owns the list of kinds and the two ways of looking:
//! an allow rule must cover everything that a request could reach, a deny rule is met when a request could reach anything of it. What cannot be
//! told from the request line (the name in the body of a `create`, the objects of a list) counts as "could be any" (I80).

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    LabelError, RoleVersion,
    predicate::{EvalError, Scope},
    template::TextPattern,
};

/// One entry of `kubernetes_resources` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubeResourceSpec {
    /// A kind such as `pod`, or `*`.
    pub kind: String,
    /// Pattern of namespaces, templates allowed. Not needed for kinds that have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Pattern of names, templates allowed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `exec`, `portforward` or `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<String>,
}

/// Why an entry is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KubeResourceError {
    /// A kind that is not in the list.
    #[error("kind {kind:?} is unknown; known are {}", known())]
    Kind {
        /// As written.
        kind: String,
    },
    /// A kind that roles of this version do not have.
    #[error("a role of version {version} knows kind pod only, not {kind:?}; write the role in version v7")]
    KindOfVersion {
        /// As written.
        kind: String,
        /// Of the role.
        version: RoleVersion,
    },
    /// The field came with version v6.
    #[error("a role of version {0} has no kubernetes_resources; write the role in version v6 or v7")]
    Version(RoleVersion),
    /// A verb that is not in the list.
    #[error(
        "verb {verb:?} is unknown; known are get, list, watch, create, update, patch, delete, deletecollection, exec, portforward and *"
    )]
    Verb {
        /// As written.
        verb: String,
    },
    /// Something that must be said is not.
    #[error("{field} is missing for kind {kind:?}; {field}: {all} is every one of them")]
    Missing {
        /// Which.
        field: &'static str,
        /// Of what.
        kind: String,
        /// How "all" is written.
        all: &'static str,
    },
    /// A pattern is none.
    #[error(transparent)]
    Pattern(#[from] LabelError),
}

/// What is asked of an API server, as far as the request line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeRequest {
    /// How.
    pub verb: KubeVerb,
    /// Of what.
    pub target: KubeTarget,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KubeVerb {
    /// Read one object.
    Get,
    /// Read all.
    List,
    /// Read changes.
    Watch,
    /// Make one.
    Create,
    /// Replace one.
    Update,
    /// Change one.
    Patch,
    /// Remove one.
    Delete,
    /// Remove all.
    DeleteCollection,
    /// Run a program in a pod, attach to one, or add a container to debug it.
    Exec,
    /// Reach the ports of a pod.
    PortForward,
    /// Anything else: only a rule with every verb covers it, and every deny rule meets it.
    Other,
}

impl KubeVerb {
    const NAMED: [(&'static str, Self); 10] = [
        ("get", Self::Get),
        ("list", Self::List),
        ("watch", Self::Watch),
        ("create", Self::Create),
        ("update", Self::Update),
        ("patch", Self::Patch),
        ("delete", Self::Delete),
        ("deletecollection", Self::DeleteCollection),
        ("exec", Self::Exec),
        ("portforward", Self::PortForward),
    ];

    /// Reads a verb as roles write it.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(name, _)| *name == word).map(|(_, verb)| *verb)
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMED.iter().find(|(_, verb)| *verb == self).map_or("use", |(name, _)| name)
    }
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeTarget {
    /// What every client asks first: versions, groups and their kinds, health.
    Discovery,
    /// Another path that is no resource.
    Path(String),
    /// Objects.
    Resource {
        /// API group; empty for the core group.
        group: String,
        /// In the plural, as in paths.
        resource: String,
        /// Below the object, such as `log`.
        subresource: Option<String>,
        /// `None` for kinds without, and for all namespaces.
        namespace: Option<String>,
        /// `None` for all.
        name: Option<String>,
    },
}

impl KubeRequest {
    /// A request in the words of roles: `get` of a `pod`.
    ///
    /// # Errors
    /// [`KubeResourceError`] for a kind or verb that roles do not have; `*` is none.
    pub fn of_kind(
        kind: &str,
        verb: &str,
        namespace: Option<String>,
        name: Option<String>,
    ) -> Result<Self, KubeResourceError> {
        let unknown = || KubeResourceError::Kind { kind: kind.chars().take(60).collect() };
        let (group, resource) = match KINDS.iter().find(|known| known.kind == kind) {
            Some(known) => (known.groups.first().copied().unwrap_or_default(), known.resource),
            None if kind == "namespace" => ("", "namespaces"),
            None => return Err(unknown()),
        };
        let verb =
            KubeVerb::parse(verb).ok_or_else(|| KubeResourceError::Verb { verb: verb.chars().take(60).collect() })?;
        let (group, resource) = (group.to_owned(), resource.to_owned());
        Ok(Self { verb, target: KubeTarget::Resource { group, resource, subresource: None, namespace, name } })
    }
}

impl fmt::Display for KubeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = self.verb.as_str();
        match &self.target {
            KubeTarget::Discovery => write!(f, "{verb} the API's own description"),
            KubeTarget::Path(path) => write!(f, "{verb} {path:?}"),
            KubeTarget::Resource { group, resource, subresource, namespace, name } => {
                write!(f, "{verb} {resource}")?;
                if let Some(subresource) = subresource {
                    write!(f, "/{subresource}")?;
                }
                if !group.is_empty() {
                    write!(f, ".{group}")?;
                }
                if let Some(name) = name {
                    write!(f, " {name:?}")?;
                }
                namespace.as_ref().map_or(Ok(()), |namespace| write!(f, " in namespace {namespace:?}"))
            }
        }
    }
}

/// A checked entry.
#[derive(Clone, Debug)]
pub(crate) struct KubeResourceRule {
    kind: Kind,
    namespace: Option<TextPattern>,
    name: TextPattern,
    verbs: Verbs,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Any,
    /// What roles of version v6 leave alone.
    AllButPods,
    /// Namespaces, and everything inside of them.
    Namespace,
    One(&'static KnownKind),
}

#[derive(Clone, Debug)]
enum Verbs {
    All,
    These(Vec<KubeVerb>),
}

#[derive(Debug)]
struct KnownKind {
    kind: &'static str,
    /// The groups in which API servers have had it.
    groups: &'static [&'static str],
    resource: &'static str,
    namespaced: bool,
}

const fn known_kind(
    kind: &'static str,
    groups: &'static [&'static str],
    resource: &'static str,
    namespaced: bool,
) -> KnownKind {
    KnownKind { kind, groups, resource, namespaced }
}

const APPS: &[&str] = &["apps", "extensions"];
const RBAC: &[&str] = &["rbac.authorization.k8s.io"];

/// The kinds of roles of version v7, but for `namespace` and `*`.
const KINDS: [KnownKind; 20] = [
    known_kind("pod", &[""], "pods", true),
    known_kind("secret", &[""], "secrets", true),
    known_kind("configmap", &[""], "configmaps", true),
    known_kind("service", &[""], "services", true),
    known_kind("serviceaccount", &[""], "serviceaccounts", true),
    known_kind("kube_node", &[""], "nodes", false),
    known_kind("persistentvolume", &[""], "persistentvolumes", false),
    known_kind("persistentvolumeclaim", &[""], "persistentvolumeclaims", true),
    known_kind("deployment", APPS, "deployments", true),
    known_kind("replicaset", APPS, "replicasets", true),
    known_kind("statefulset", APPS, "statefulsets", true),
    known_kind("daemonset", APPS, "daemonsets", true),
    known_kind("clusterrole", RBAC, "clusterroles", false),
    known_kind("kube_role", RBAC, "roles", true),
    known_kind("clusterrolebinding", RBAC, "clusterrolebindings", false),
    known_kind("rolebinding", RBAC, "rolebindings", true),
    known_kind("cronjob", &["batch"], "cronjobs", true),
    known_kind("job", &["batch"], "jobs", true),
    known_kind("certificatesigningrequest", &["certificates.k8s.io"], "certificatesigningrequests", false),
    known_kind("ingress", &["networking.k8s.io", "extensions"], "ingresses", true),
];

fn known() -> String {
    let names = KINDS.iter().map(|known| known.kind).chain(["namespace", "*"]);
    names.collect::<Vec<_>>().join(", ")
}

impl KubeResourceRule {
    /// The rules of `allow` in a role of `version`: those that are written, or what a role of that version means when none is.
    pub(crate) fn allowed(specs: &[KubeResourceSpec], version: RoleVersion) -> Result<Vec<Self>, KubeResourceError> {
        let mut rules = Self::written(specs, version)?;
        match version {
            RoleVersion::V5 => rules.push(Self::of_all(Kind::Any)?),
            RoleVersion::V6 => rules.push(Self::of_all(Kind::AllButPods)?),
            RoleVersion::V7 if specs.is_empty() => rules.push(Self::of_all(Kind::Any)?),
            RoleVersion::V7 => {}
        }
        Ok(rules)
    }

    /// The rules of `deny`.
    pub(crate) fn written(specs: &[KubeResourceSpec], version: RoleVersion) -> Result<Vec<Self>, KubeResourceError> {
        if version == RoleVersion::V5 && !specs.is_empty() {
            return Err(KubeResourceError::Version(version));
        }
        specs.iter().map(|spec| Self::new(spec, version)).collect()
    }

    fn of_all(kind: Kind) -> Result<Self, KubeResourceError> {
        let any = || TextPattern::new("*");
        Ok(Self { kind, namespace: Some(any()?), name: any()?, verbs: Verbs::All })
    }

    fn new(spec: &KubeResourceSpec, version: RoleVersion) -> Result<Self, KubeResourceError> {
        let short = || spec.kind.chars().take(60).collect::<String>();
        let missing = |field, all| KubeResourceError::Missing { field, kind: short(), all };
        let kind = match spec.kind.as_str() {
            "*" => Kind::Any,
            "namespace" => Kind::Namespace,
            word => match KINDS.iter().find(|known| known.kind == word) {
                Some(known) => Kind::One(known),
                None => return Err(KubeResourceError::Kind { kind: short() }),
            },
        };
        if version == RoleVersion::V6 && spec.kind != "pod" {
            return Err(KubeResourceError::KindOfVersion { kind: short(), version });
        }
        let namespace = match kind {
            Kind::Namespace | Kind::One(KnownKind { namespaced: false, .. }) => None,
            Kind::Any | Kind::AllButPods | Kind::One(_) if spec.namespace.is_empty() => {
                return Err(missing("namespace", "\"*\""));
            }
            Kind::Any | Kind::AllButPods | Kind::One(_) => Some(TextPattern::new(&spec.namespace)?),
        };
        if spec.name.is_empty() {
            return Err(missing("name", "\"*\""));
        }
        let mut verbs = Vec::with_capacity(spec.verbs.len());
        for word in spec.verbs.iter().filter(|word| *word != "*") {
            let verb = KubeVerb::parse(word);
            verbs.push(verb.ok_or_else(|| KubeResourceError::Verb { verb: word.chars().take(60).collect() })?);
        }
        let verbs =
            if spec.verbs.iter().any(|word| word == "*") || (spec.verbs.is_empty() && version == RoleVersion::V6) {
                Verbs::All
            } else if verbs.is_empty() {
                return Err(missing("verbs", "[\"*\"]"));
            } else {
                Verbs::These(verbs)
            };
        Ok(Self { kind, namespace, name: TextPattern::new(&spec.name)?, verbs })
    }

    /// Whether everything that `request` could reach is of this rule.
    pub(crate) fn covers(&self, request: &KubeRequest, scope: &Scope<'_>) -> Result<bool, EvalError> {
        let verb = match &self.verbs {
            Verbs::All => true,
            Verbs::These(verbs) => verbs.contains(&request.verb),
        };
        let (group, resource, namespace, name) = match &request.target {
            KubeTarget::Discovery => return Ok(true),
            KubeTarget::Path(_) => return Ok(self.is_everything()),
            KubeTarget::Resource { group, resource, subresource: _, namespace, name } => {
                (group, resource, namespace.as_deref(), name.as_deref())
            }
        };
        if !verb || !self.is_of(group, resource, namespace.is_some()) {
            return Ok(false);
        }
        let all_of = |pattern: &TextPattern, value: Option<&str>| match value {
            Some(value) => pattern.matches(value, scope),
            None => Ok(pattern.is_any()),
        };
        if matches!(self.kind, Kind::Namespace) {
            return if is_namespace(group, resource) {
                all_of(&self.name, name)
            } else {
                all_of(&self.name, namespace)
            };
        }
        Ok(match &self.namespace {
            Some(pattern) => all_of(pattern, namespace)?,
            None => true,
        } && all_of(&self.name, name)?)
    }

    /// Whether `request` could reach anything of this rule.
    pub(crate) fn touches(&self, request: &KubeRequest, scope: &Scope<'_>) -> Result<bool, EvalError> {
        let verb = match (&self.verbs, request.verb) {
            (Verbs::All, _) | (Verbs::These(_), KubeVerb::Other) => true,
            // What lists or watches reads each object; what removes all removes each.
            (Verbs::These(verbs), asked @ (KubeVerb::List | KubeVerb::Watch)) => {
                verbs.contains(&asked) || verbs.contains(&KubeVerb::Get)
            }
            (Verbs::These(verbs), KubeVerb::DeleteCollection) => {
                verbs.contains(&KubeVerb::DeleteCollection) || verbs.contains(&KubeVerb::Delete)
            }
            (
                Verbs::These(verbs),
                asked @ (KubeVerb::Get
                | KubeVerb::Create
                | KubeVerb::Update
                | KubeVerb::Patch
                | KubeVerb::Delete
                | KubeVerb::Exec
                | KubeVerb::PortForward),
            ) => verbs.contains(&asked),
        };
        let (group, resource, namespace, name) = match &request.target {
            KubeTarget::Discovery | KubeTarget::Path(_) => return Ok(self.is_everything()),
            KubeTarget::Resource { group, resource, subresource: _, namespace, name } => {
                (group, resource, namespace.as_deref(), name.as_deref())
            }
        };
        // A named object outside of all namespaces, or one of a kind that has none.
        let cluster_wide = namespace.is_none() && (name.is_some() || is_cluster_wide(group, resource));
        if !verb || !self.is_of(group, resource, !cluster_wide) {
            return Ok(false);
        }
        let any_of = |pattern: &TextPattern, value: Option<&str>| match value {
            Some(value) => pattern.matches(value, scope),
            None => Ok(true),
        };
        if matches!(self.kind, Kind::Namespace) {
            return if is_namespace(group, resource) {
                any_of(&self.name, name)
            } else {
                any_of(&self.name, namespace)
            };
        }
        Ok(match &self.namespace {
            Some(pattern) if cluster_wide && matches!(self.kind, Kind::Any) => pattern.is_any(),
            Some(pattern) => any_of(pattern, namespace)?,
            None => true,
        } && any_of(&self.name, name)?)
    }

    /// Every kind everywhere with every verb: the one rule that also covers what is no object.
    fn is_everything(&self) -> bool {
        matches!(self.kind, Kind::Any)
            && matches!(self.verbs, Verbs::All)
            && self.name.is_any()
            && self.namespace.as_ref().is_none_or(TextPattern::is_any)
    }

    fn is_of(&self, group: &str, resource: &str, in_namespace: bool) -> bool {
        match self.kind {
            Kind::Any => true,
            Kind::AllButPods => !(group.is_empty() && resource == "pods"),
            Kind::Namespace => is_namespace(group, resource) || in_namespace,
            Kind::One(known) => known.resource == resource && known.groups.contains(&group),
        }
    }
}

fn is_cluster_wide(group: &str, resource: &str) -> bool {
    let known = KINDS.iter().find(|known| known.resource == resource && known.groups.contains(&group));
    is_namespace(group, resource) || known.is_some_and(|known| !known.namespaced)
}

fn is_namespace(group: &str, resource: &str) -> bool {
    group.is_empty() && resource == "namespaces"
}
