//! Resource documents: `kind / version / metadata / spec`, as `tctl get` prints and `tctl create` reads them.

use serde::{Deserialize, Serialize};

use crate::RoleSpec;

/// Why a document is no resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// A kind this product does not have.
    #[error(
        "{0:?} is no kind of resource; known are role, user, token, node, kube_cluster, app, policy_test, lock, cluster_auth_preference, cluster_networking_config, session_recording_config, oidc, github and saml"
    )]
    UnknownKind(String),
    /// A version of that kind it does not read.
    #[error("version {version:?} of kind {kind} is not read; {known} is")]
    UnknownVersion {
        /// Kind.
        kind: String,
        /// As written.
        version: String,
        /// What is read.
        known: &'static str,
    },
}

/// Kinds of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    /// What may be done.
    Role,
    /// Who does it.
    User,
    /// How hosts join.
    Token,
    /// An SSH server.
    Node,
    /// A Kubernetes cluster.
    KubeCluster,
    /// A web application.
    App,
    /// What must come out of the roles.
    PolicyTest,
    /// Who or what is shut out.
    Lock,
    /// How users log in, and how strict locks are.
    ClusterAuthPreference,
    /// How long connections stand.
    ClusterNetworkingConfig,
    /// Whether sessions are recorded.
    SessionRecordingConfig,
    /// Login by OpenID Connect.
    Oidc,
    /// Login by GitHub.
    Github,
    /// Login by SAML 2.0.
    Saml,
}

impl ResourceKind {
    /// As it is written in documents and in rules.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::User => "user",
            Self::Token => "token",
            Self::Node => "node",
            Self::KubeCluster => "kube_cluster",
            Self::App => "app",
            Self::PolicyTest => "policy_test",
            Self::Lock => "lock",
            Self::ClusterAuthPreference => "cluster_auth_preference",
            Self::ClusterNetworkingConfig => "cluster_networking_config",
            Self::SessionRecordingConfig => "session_recording_config",
            Self::Oidc => "oidc",
            Self::Github => "github",
            Self::Saml => "saml",
        }
    }

    /// Versions of its documents that are read; the last is written.
    #[must_use]
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Role => &["v5", "v6", "v7"],
            Self::User | Self::Token | Self::Node | Self::Lock | Self::Saml => &["v2"],
            Self::KubeCluster | Self::App | Self::Oidc | Self::Github => &["v3"],
            Self::PolicyTest => &["v1"],
            Self::ClusterAuthPreference | Self::ClusterNetworkingConfig | Self::SessionRecordingConfig => &["v2"],
        }
    }

    /// How things of this kind come to be when not by a document; `None` for kinds that documents make.
    #[must_use]
    pub const fn made_elsewhere(self) -> Option<&'static str> {
        match self {
            Self::Role
            | Self::User
            | Self::Token
            | Self::PolicyTest
            | Self::Lock
            | Self::Oidc
            | Self::Github
            | Self::ClusterAuthPreference
            | Self::ClusterNetworkingConfig
            | Self::SessionRecordingConfig
            | Self::Saml => None,
            Self::Node | Self::KubeCluster | Self::App => Some("they are written by the services themselves"),
        }
    }

    /// Reads a kind, also in the plural (`roles`), as people type it.
    ///
    /// # Errors
    /// [`ResourceError::UnknownKind`]
    pub fn parse(text: &str) -> Result<Self, ResourceError> {
        Ok(match text {
            "role" | "roles" => Self::Role,
            "user" | "users" => Self::User,
            "token" | "tokens" => Self::Token,
            "node" | "nodes" => Self::Node,
            "kube_cluster" | "kube_clusters" | "kube" => Self::KubeCluster,
            "app" | "apps" => Self::App,
            "policy_test" | "policy_tests" => Self::PolicyTest,
            "lock" | "locks" => Self::Lock,
            "cluster_auth_preference" | "cap" => Self::ClusterAuthPreference,
            "cluster_networking_config" | "netconfig" => Self::ClusterNetworkingConfig,
            "session_recording_config" | "recconfig" => Self::SessionRecordingConfig,
            "oidc" => Self::Oidc,
            "github" => Self::Github,
            "saml" => Self::Saml,
            _ => return Err(ResourceError::UnknownKind(text.chars().take(40).collect())),
        })
    }
}

/// `metadata` of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Name, unique within its kind.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Labels of the resource itself.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub labels: crate::Labels,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<crate::Timestamp>,
}

/// A document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Kind, as written.
    pub kind: String,
    /// Version of the kind's format.
    pub version: String,
    /// Name and labels.
    pub metadata: Metadata,
    /// The kind's own part.
    #[serde(default)]
    pub spec: serde_json::Value,
}

impl Resource {
    /// A role as a document; written in version v7, the newest that is read.
    #[must_use]
    pub fn role(name: &crate::RoleName, spec: &RoleSpec) -> Self {
        Self {
            kind: "role".into(),
            version: "v7".into(),
            metadata: Metadata {
                name: name.to_string(),
                description: None,
                labels: crate::Labels::new(),
                expires: None,
            },
            spec: serde_json::to_value(spec).expect("a role is strings, lists and maps with string keys"),
        }
    }
}
