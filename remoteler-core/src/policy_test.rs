//! Policy tests: "given this user, that target: expect deny". Owns the document's spec and its run, which is the decision itself over roles that
//! may not be in force yet. Reads no store; users and targets by name come from the caller.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    AppName, Explanation, KubeClusterName, KubeRequest, Labels, Login, NameError, NodeName, Policy, Resource, RoleName,
    Traits, UserName, explain_app, explain_kube, explain_ssh, prospective_identity,
};

/// The `spec` of a document of kind `policy_test`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyTestSpec {
    /// Who asks.
    pub given: GivenSpec,
    /// What for.
    pub target: TargetSpec,
    /// As which account, on nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
    /// What must come out.
    pub expect: Expect,
}

/// Who asks: a stored user, or one made of roles and traits. Roles and traits that are given stand for those of the stored user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GivenSpec {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// Roles.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<RoleName>,
    /// Attributes.
    #[serde(skip_serializing_if = "Traits::is_empty")]
    pub traits: Traits,
}

/// What for: exactly one of the six; with a Kubernetes cluster, an object there besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetSpec {
    /// A node of the inventory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Any node with exactly these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_labels: Option<Labels>,
    /// A Kubernetes cluster of the inventory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_cluster: Option<KubeClusterName>,
    /// Any Kubernetes cluster with exactly these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes_labels: Option<Labels>,
    /// A web application of the inventory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    /// Any web application with exactly these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_labels: Option<Labels>,
    /// What is asked there; absent: anything at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes_resource: Option<KubeObjectSpec>,
}

/// A request to an API server, in the words of roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubeObjectSpec {
    /// A kind such as `pod`.
    pub kind: String,
    /// A verb such as `get`.
    pub verb: String,
    /// Namespace; absent: all, or a kind without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What must come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Access.
    Allow,
    /// None.
    Deny,
}

impl Expect {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// Why a document is no policy test.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyTestError {
    /// The name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A version that is not read.
    #[error("version {0:?} of kind policy_test is not read; v1 is")]
    Version(String),
    /// Fields that tests do not have, or values that they cannot have.
    #[error("spec of policy_test {name} is refused: {reason}")]
    Spec {
        /// Of the test.
        name: RoleName,
        /// What is wrong.
        reason: String,
    },
}

/// A checked policy test.
#[derive(Clone, Debug)]
pub struct PolicyTest {
    name: RoleName,
    spec: PolicyTestSpec,
    target: Target,
}

#[derive(Clone, Debug)]
enum Target {
    Node(Named<NodeName>, Login),
    Kube(Named<KubeClusterName>, Option<KubeRequest>),
    App(Named<AppName>),
}

#[derive(Clone, Debug)]
enum Named<T> {
    Known(T),
    Made(T, Labels),
}

/// What a test needs to know besides the roles.
#[derive(Clone, Debug, Default)]
pub struct TestWorld {
    /// Roles and traits of stored users.
    pub users: BTreeMap<UserName, (BTreeSet<RoleName>, Traits)>,
    /// Labels of nodes.
    pub nodes: BTreeMap<NodeName, Labels>,
    /// Labels of Kubernetes clusters.
    pub kube_clusters: BTreeMap<KubeClusterName, Labels>,
    /// Labels of web applications.
    pub apps: BTreeMap<AppName, Labels>,
}

/// How a test came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestOutcome {
    /// As expected.
    Passed(Explanation),
    /// Not as expected.
    Failed(Explanation),
    /// A role, user or target of that name is not there, so there is nothing to decide.
    NotRun(String),
}

impl PolicyTest {
    /// Reads and checks a document of kind `policy_test`.
    ///
    /// # Errors
    /// [`PolicyTestError`] names what is refused.
    pub fn from_document(document: &Resource) -> Result<Self, PolicyTestError> {
        let name = RoleName::new(&document.metadata.name)?;
        if document.version != "v1" {
            return Err(PolicyTestError::Version(document.version.chars().take(40).collect()));
        }
        let refused = |reason: String| PolicyTestError::Spec { name: name.clone(), reason };
        let spec: PolicyTestSpec =
            serde_json::from_value(document.spec.clone()).map_err(|cause| refused(cause.to_string()))?;
        let target = target(&spec).map_err(refused)?;
        if spec.given.user.is_none() && spec.given.roles.is_empty() {
            return Err(refused("given names neither a user nor roles".into()));
        }
        Ok(Self { name, spec, target })
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &RoleName {
        &self.name
    }

    /// What must come out.
    #[must_use]
    pub const fn expect(&self) -> Expect {
        self.spec.expect
    }

    /// Decides with the roles of `policy`, and compares.
    #[must_use]
    pub fn run(&self, policy: &Policy, world: &TestWorld) -> TestOutcome {
        match self.decide(policy, world) {
            Err(absent) => TestOutcome::NotRun(absent),
            Ok(explanation) if explanation.allowed == (self.spec.expect == Expect::Allow) => {
                TestOutcome::Passed(explanation)
            }
            Ok(explanation) => TestOutcome::Failed(explanation),
        }
    }

    /// The first of the roles that the test names that `policy` does not have. Without it a test that expects a denial would pass whatever is changed.
    #[must_use]
    pub fn missing_role(&self, policy: &Policy) -> Option<&RoleName> {
        self.spec.given.roles.iter().find(|name| !policy.roles.contains_key(*name))
    }

    fn decide(&self, policy: &Policy, world: &TestWorld) -> Result<Explanation, String> {
        if let Some(name) = self.missing_role(policy) {
            return Err(format!("there is no role {name}"));
        }
        let GivenSpec { user, roles, traits } = &self.spec.given;
        let stored = match user {
            Some(name) if roles.is_empty() || traits.is_empty() => match world.users.get(name).cloned() {
                None if roles.is_empty() => return Err(format!("there is no user {name}")),
                found => found,
            },
            Some(_) | None => None,
        };
        let (stored_roles, stored_traits) = stored.unwrap_or_default();
        let roles = if roles.is_empty() { &stored_roles } else { roles };
        let traits = if traits.is_empty() { stored_traits } else { traits.clone() };
        let user = match user {
            Some(name) => name.clone(),
            None => UserName::new("policy-test").map_err(|cause| cause.to_string())?,
        };
        let identity = prospective_identity(user, policy, roles, traits);
        match &self.target {
            Target::Node(node, login) => {
                let (name, labels) = node.labelled(|name| world.nodes.get(name).cloned(), "node")?;
                Ok(explain_ssh(&identity, policy, (name, &labels), login))
            }
            Target::Kube(kube, request) => {
                let (name, labels) =
                    kube.labelled(|name| world.kube_clusters.get(name).cloned(), "Kubernetes cluster")?;
                Ok(explain_kube(&identity, policy, (name, &labels), request.as_ref()))
            }
            Target::App(app) => {
                let (name, labels) = app.labelled(|name| world.apps.get(name).cloned(), "application")?;
                Ok(explain_app(&identity, policy, (name, &labels)))
            }
        }
    }
}

impl<T: std::fmt::Display> Named<T> {
    fn labelled(&self, find: impl FnOnce(&T) -> Option<Labels>, what: &str) -> Result<(&T, Labels), String> {
        match self {
            Self::Made(name, labels) => Ok((name, labels.clone())),
            Self::Known(name) => {
                let labels = find(name).ok_or_else(|| format!("{what} {name} is not in the inventory"))?;
                Ok((name, labels))
            }
        }
    }
}

fn target(spec: &PolicyTestSpec) -> Result<Target, String> {
    let TargetSpec { node, node_labels, kube_cluster, kubernetes_labels, app, app_labels, kubernetes_resource } =
        &spec.target;
    let of_node = [node.is_some(), node_labels.is_some()];
    let of_kube = [kube_cluster.is_some(), kubernetes_labels.is_some()];
    let of_app = [app.is_some(), app_labels.is_some()];
    if [of_node, of_kube, of_app].as_flattened().iter().filter(|given| **given).count() != 1 {
        return Err(
            "target needs exactly one of node, node_labels, kube_cluster, kubernetes_labels, app and app_labels".into(),
        );
    }
    let wrong = |cause: NameError| cause.to_string();
    if kubernetes_resource.is_some() && of_kube == [false; 2] {
        return Err("target.kubernetes_resource goes with a Kubernetes cluster only".into());
    }
    if of_node != [false; 2] {
        let login = spec.login.clone().ok_or("login is missing: the account on the node")?;
        let node = match (node, node_labels) {
            (Some(name), _) => Named::Known(name.clone()),
            (None, labels) => {
                Named::Made(NodeName::new("any-such-node").map_err(wrong)?, labels.clone().unwrap_or_default())
            }
        };
        return Ok(Target::Node(node, login));
    }
    if spec.login.is_some() {
        return Err("login goes with a node only".into());
    }
    match (app, app_labels) {
        (Some(name), _) => return Ok(Target::App(Named::Known(name.clone()))),
        (None, Some(labels)) => {
            let name = AppName::new("any-such-app").map_err(wrong)?;
            return Ok(Target::App(Named::Made(name, labels.clone())));
        }
        (None, None) => {}
    }
    let request = match kubernetes_resource {
        None => None,
        Some(KubeObjectSpec { kind, verb, namespace, name }) => {
            let request = KubeRequest::of_kind(kind, verb, namespace.clone(), name.clone());
            Some(request.map_err(|cause| format!("target.kubernetes_resource: {cause}"))?)
        }
    };
    let kube = match (kube_cluster, kubernetes_labels) {
        (Some(name), _) => Named::Known(name.clone()),
        (None, labels) => {
            let name = KubeClusterName::new("any-such-cluster").map_err(wrong)?;
            Named::Made(name, labels.clone().unwrap_or_default())
        }
    };
    Ok(Target::Kube(kube, request))
}
