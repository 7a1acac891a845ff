//! What a certificate says about its holder. Owns the one serialised form of it; the encoders for SSH and X.509 wrap
//! that form and add nothing. Never decides what the holder may do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{ClusterName, HostId, KubeClusterName, Login, NameError, NodeName, RoleName, UserName};

/// A user's attributes, from the user's record or the identity provider: name to values.
pub type Traits = BTreeMap<String, Vec<String>>;

/// Why an identity could not be read from a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// No identity of ours in the certificate.
    #[error("the certificate holds no identity of this product")]
    Missing,
    /// Its version is newer than this program reads.
    #[error("the certificate's identity has format {0}, this program reads up to {FORMAT}; update this program")]
    Format(u32),
    /// It does not parse.
    #[error("the certificate's identity is malformed: {0}")]
    Malformed(String),
    /// It is larger than any honest one.
    #[error("the certificate's identity has {0} octets; at most {MAX_OCTETS} are read")]
    TooLarge(usize),
    /// The certificate's own name fields say something else.
    #[error("the certificate names {outer:?} but its identity is {inner:?}")]
    Mismatch {
        /// Subject or key id.
        outer: String,
        /// From the identity.
        inner: String,
    },
}

/// The format written; a reader refuses a newer one.
const FORMAT: u32 = 1;
/// What is read at the most.
const MAX_OCTETS: usize = 32 * 1024;

/// A user of one cluster, as its certificate describes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserIdentity {
    /// Who.
    pub user: UserName,
    /// Of which cluster; must be the cluster of the authority that signed.
    pub cluster: ClusterName,
    /// Names of roles held.
    pub roles: BTreeSet<RoleName>,
    /// Attributes that role templates draw from.
    #[serde(default)]
    pub traits: Traits,
    /// Operating-system accounts; the principals of the SSH certificate, in this order.
    #[serde(default)]
    pub logins: Vec<Login>,
}

/// What a service of the cluster does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SystemRole {
    /// Holds the authorities.
    Auth,
    /// Holds the public port.
    Proxy,
    /// Runs SSH sessions.
    Node,
    /// Stands before a Kubernetes API server.
    Kube,
}

impl SystemRole {
    /// As it is written in config, tokens and certificates.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Proxy => "proxy",
            Self::Node => "node",
            Self::Kube => "kube",
        }
    }
}

impl fmt::Display for SystemRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SystemRole {
    type Err = UnknownSystemRole;

    fn from_str(text: &str) -> Result<Self, UnknownSystemRole> {
        match text {
            "auth" => Ok(Self::Auth),
            "proxy" => Ok(Self::Proxy),
            "node" => Ok(Self::Node),
            "kube" => Ok(Self::Kube),
            _ => Err(UnknownSystemRole(text.chars().take(40).collect())),
        }
    }
}

/// A service kind this product does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no service; known are auth, proxy, node and kube")]
pub struct UnknownSystemRole(String);

/// A host of one cluster, as its certificate describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostIdentity {
    /// Which host.
    pub id: HostId,
    /// The name it is reached by as a node.
    pub name: NodeName,
    /// Of which cluster; must be the cluster of the authority that signed.
    pub cluster: ClusterName,
    /// What it may act as.
    pub roles: BTreeSet<SystemRole>,
    /// The Kubernetes clusters it may announce.
    #[serde(default)]
    pub kube_clusters: BTreeSet<KubeClusterName>,
}

impl HostIdentity {
    /// Names that the SSH host certificate is valid for: `name`, `name.cluster`, `id`, `id.cluster`.
    #[must_use]
    pub fn principals(&self) -> Vec<String> {
        let Self { id, name, cluster, .. } = self;
        vec![name.to_string(), format!("{name}.{cluster}"), id.to_string(), format!("{id}.{cluster}")]
    }

    /// DNS names that the X.509 certificate is valid for: `id.cluster`, `name.cluster`, and a server name for each
    /// Kubernetes cluster.
    #[must_use]
    pub fn dns_names(&self) -> Vec<String> {
        let Self { id, name, cluster, .. } = self;
        let mut names = vec![format!("{id}.{cluster}"), format!("{name}.{cluster}")];
        names.extend(self.kube_clusters.iter().map(|kube| kube.server_name(cluster)));
        names
    }
}

/// A user of one cluster, at one Kubernetes cluster and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubeUserIdentity {
    /// Who.
    pub user: UserIdentity,
    /// The one place where the certificate counts.
    pub kube_cluster: KubeClusterName,
}

/// A user or a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Signed by a user authority.
    User(UserIdentity),
    /// Signed by a host authority.
    Host(HostIdentity),
    /// Signed by a user authority. A variant and not a field of the user: whoever does not know it cannot take it for a user.
    KubeUser(KubeUserIdentity),
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    v: u32,
    #[serde(flatten)]
    body: Body,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Body {
    User(UserIdentity),
    Host(HostIdentity),
    KubeUser(KubeUserIdentity),
}

impl Identity {
    /// The cluster it belongs to.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterName {
        match self {
            Self::User(user) => &user.cluster,
            Self::Host(host) => &host.cluster,
            Self::KubeUser(restricted) => &restricted.user.cluster,
        }
    }

    /// The subject name: the user's name or the host's id.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::User(user) => user.user.to_string(),
            Self::Host(host) => host.id.to_string(),
            Self::KubeUser(restricted) => restricted.user.user.to_string(),
        }
    }

    /// The one serialised form: JSON `{"v":1,"user":{…}}`, `{"v":1,"host":{…}}` or `{"v":1,"kube_user":{…}}`.
    #[must_use]
    pub fn encode(&self) -> String {
        let body = match self {
            Self::User(user) => Body::User(user.clone()),
            Self::Host(host) => Body::Host(host.clone()),
            Self::KubeUser(restricted) => Body::KubeUser(restricted.clone()),
        };
        serde_json::to_string(&Envelope { v: FORMAT, body })
            .expect("an identity holds only strings, lists and maps with string keys")
    }

    /// Reads what [`Identity::encode`] wrote.
    ///
    /// # Errors
    /// [`IdentityError`] for anything else; unknown fields are refused.
    pub fn decode(text: &str) -> Result<Self, IdentityError> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        if text.len() > MAX_OCTETS {
            return Err(IdentityError::TooLarge(text.len()));
        }
        let malformed = |cause: serde_json::Error| IdentityError::Malformed(cause.to_string());
        let Version { v } = serde_json::from_str(text).map_err(malformed)?;
        if v != FORMAT {
            return Err(IdentityError::Format(v));
        }
        match serde_json::from_str::<Envelope>(text).map_err(malformed)?.body {
            Body::User(user) => Ok(Self::User(user)),
            Body::Host(host) => Ok(Self::Host(host)),
            Body::KubeUser(restricted) => Ok(Self::KubeUser(restricted)),
        }
    }
}

impl From<NameError> for IdentityError {
    fn from(cause: NameError) -> Self {
        Self::Malformed(cause.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_as_it_was_written() {
        let user = Identity::User(UserIdentity {
            user: UserName::new("ann").unwrap(),
            cluster: ClusterName::new("root").unwrap(),
            roles: [RoleName::new("access").unwrap()].into(),
            traits: [("logins".to_owned(), vec!["root".to_owned()])].into(),
            logins: vec![Login::new("root").unwrap()],
        });
        assert_eq!(Identity::decode(&user.encode()), Ok(user));
    }

    #[test]
    fn a_user_for_one_kubernetes_cluster_is_not_written_as_a_user() {
        let user = UserIdentity {
            user: UserName::new("ann").unwrap(),
            cluster: ClusterName::new("root").unwrap(),
            roles: [RoleName::new("access").unwrap()].into(),
            traits: Traits::new(),
            logins: Vec::new(),
        };
        let restricted =
            Identity::KubeUser(KubeUserIdentity { user, kube_cluster: KubeClusterName::new("staging").unwrap() });
        let text = restricted.encode();
        assert!(text.starts_with(r#"{"v":1,"kube_user":"#), "{text}"); // I1: a reader that does not know it refuses it
        assert_eq!(Identity::decode(&text), Ok(restricted));
    }

    #[test]
    fn a_newer_format_and_unknown_fields_are_refused() {
        assert_eq!(Identity::decode(r#"{"v":2,"robot":{}}"#), Err(IdentityError::Format(2)));
        let extra = r#"{"v":1,"user":{"user":"a","cluster":"c","roles":[],"root":true}}"#;
        assert!(matches!(Identity::decode(extra), Err(IdentityError::Malformed(_))));
    }
}
