//! What a join token lets in: which services, under which names, with which labels, how often, and who may use it. Owns the judgement of
//! a join against a token's scope, and the `spec` of a token's document. Knows no secret and counts no uses.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{AppName, KubeClusterName, Labels, NodeName, Pattern, SystemRole};

/// How a host shows that it may join.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinMethod {
    /// By a secret that it was given.
    #[default]
    Token,
    /// By the service-account token of its pod, which the API server vouches for.
    Kubernetes,
}

impl JoinMethod {
    /// As it is written in configuration and documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Kubernetes => "kubernetes",
        }
    }
}

impl fmt::Display for JoinMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a token lets in besides its time and its uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenScope {
    /// Services that may join.
    pub roles: BTreeSet<SystemRole>,
    /// What the names of the host, of its Kubernetes clusters and of its web applications must fit: exact, a glob, or `^regex$`. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<String>,
    /// Labels that the host gets; they stand in its certificates and win over those it gives itself.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

/// Why a token cannot be made, or does not let a host in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenScopeError {
    /// It would let nobody in.
    #[error("a token is for at least one kind of service: node, kube, app or proxy")]
    NoRoles,
    /// It would let in what holds the authorities.
    #[error("an auth service cannot join with a token; give node, kube, app or proxy")]
    Auth,
    /// The pattern is none.
    #[error("name pattern {pattern:?} is refused: {reason}")]
    Pattern {
        /// As given, its beginning.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// The labels are none.
    #[error(
        "at most {MAX_LABELS} labels are given by a token, of at most {MAX_LABEL} octets without control characters, and not \"*\""
    )]
    Labels,
    /// The host wants no service.
    #[error("a host joins with at least one service: node, kube, app or proxy")]
    Nothing,
    /// The host wants a service that the token is not for.
    #[error("the join token is not for service {0}; make one with tctl tokens add --type {0}")]
    Role(SystemRole),
    /// The host wants a name that the token is not for.
    #[error(
        "the join token is for names that fit {pattern}, and {name} does not; choose another name or make another token"
    )]
    Name {
        /// Name of the host, of one of its Kubernetes clusters or of one of its web applications.
        name: String,
        /// As the token has it.
        pattern: String,
    },
}

impl TokenScopeError {
    /// Whether what was asked for makes no sense by itself, whoever asks.
    #[must_use]
    pub const fn is_malformed(&self) -> bool {
        match self {
            Self::NoRoles | Self::Auth | Self::Pattern { .. } | Self::Labels | Self::Nothing => true,
            Self::Role(_) | Self::Name { .. } => false,
        }
    }
}

impl TokenScope {
    /// Checks what a token shall be made with.
    ///
    /// # Errors
    /// [`TokenScopeError`] with the first thing that cannot be.
    pub fn check(&self) -> Result<(), TokenScopeError> {
        if self.roles.is_empty() {
            return Err(TokenScopeError::NoRoles);
        }
        if self.roles.contains(&SystemRole::Auth) {
            return Err(TokenScopeError::Auth);
        }
        self.pattern()?;
        let bad = |text: &String| {
            text.is_empty() || text == "*" || text.len() > MAX_LABEL || text.chars().any(char::is_control)
        };
        if self.labels.len() > MAX_LABELS || self.labels.iter().any(|(name, value)| bad(name) || bad(value)) {
            return Err(TokenScopeError::Labels);
        }
        Ok(())
    }

    /// Whether a host may join as this: each service and each name must be covered (I35).
    ///
    /// # Errors
    /// [`TokenScopeError`] with the first thing that is not.
    pub fn admits(
        &self,
        roles: &BTreeSet<SystemRole>,
        name: &NodeName,
        kube_clusters: &BTreeSet<KubeClusterName>,
        apps: &BTreeSet<AppName>,
    ) -> Result<(), TokenScopeError> {
        if roles.is_empty() {
            return Err(TokenScopeError::Nothing);
        }
        // What a stored token says of the auth service counts for nothing.
        if let Some(role) = roles.iter().find(|role| !self.roles.contains(role) || **role == SystemRole::Auth) {
            return Err(TokenScopeError::Role(*role));
        }
        let Some(pattern) = self.pattern()? else { return Ok(()) };
        let of_services = kube_clusters.iter().map(KubeClusterName::as_str).chain(apps.iter().map(AppName::as_str));
        let mut names = std::iter::once(name.as_str()).chain(of_services);
        match names.find(|name| !pattern.matches(name)) {
            Some(name) => {
                Err(TokenScopeError::Name { name: name.to_owned(), pattern: self.names.clone().unwrap_or_default() })
            }
            None => Ok(()),
        }
    }

    fn pattern(&self) -> Result<Option<Pattern>, TokenScopeError> {
        let Some(text) = &self.names else { return Ok(None) };
        let refuse = |reason: String| TokenScopeError::Pattern { pattern: text.chars().take(80).collect(), reason };
        if text.is_empty() || text.len() > MAX_PATTERN || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(refuse(format!("it has 1 to {MAX_PATTERN} octets without white space")));
        }
        Pattern::new(text).map(Some).map_err(|cause| refuse(cause.to_string()))
    }
}

/// A service account of a Kubernetes cluster, written `namespace:name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAccount {
    namespace: String,
    name: String,
}

/// Not the name of a service account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no service account; write NAMESPACE:NAME")]
pub struct ServiceAccountError(String);

impl ServiceAccount {
    /// The account of a user name that an API server vouches for: `system:serviceaccount:NAMESPACE:NAME`.
    ///
    /// # Errors
    /// [`ServiceAccountError`] for users that are no service account.
    pub fn of_user(user: &str) -> Result<Self, ServiceAccountError> {
        let refuse = || ServiceAccountError(user.chars().take(80).collect());
        user.strip_prefix(SERVICE_ACCOUNT_USERS).ok_or_else(refuse)?.parse()
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.namespace, self.name)
    }
}

impl FromStr for ServiceAccount {
    type Err = ServiceAccountError;

    fn from_str(text: &str) -> Result<Self, ServiceAccountError> {
        // A DNS label and a DNS subdomain (Kubernetes, "Object Names and IDs").
        let label = |text: &str| {
            let fits = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
            (1..=63).contains(&text.len()) && text.bytes().all(fits) && !text.starts_with('-') && !text.ends_with('-')
        };
        match text.split_once(':') {
            Some((namespace, name)) if label(namespace) && name.len() <= 253 && name.split('.').all(label) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            Some(_) | None => Err(ServiceAccountError(text.chars().take(80).collect())),
        }
    }
}

impl Serialize for ServiceAccount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServiceAccount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// `spec` of a token's document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSpec {
    /// Services that may join.
    pub roles: BTreeSet<SystemRole>,
    /// How a host shows that it may.
    #[serde(default)]
    pub join_method: JoinMethod,
    /// As [`TokenScope::names`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<String>,
    /// As [`TokenScope::labels`].
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// How many hosts may still join with it; absent: any number. Shown, never read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// Which pods may join, for the method `kubernetes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesRules>,
}

/// Which pods may join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesRules {
    /// Who checks the tokens of pods: only the API server (`in_cluster`) does here.
    #[serde(rename = "type", default)]
    pub checked_by: TokenChecker,
    /// Each of them may.
    pub allow: Vec<KubernetesAllow>,
}

/// Who checks the service-account tokens of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenChecker {
    /// The API server, by TokenReview.
    #[default]
    InCluster,
}

/// Pods that may join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesAllow {
    /// Those that run as this account.
    pub service_account: ServiceAccount,
}

impl TokenSpec {
    /// What it lets in.
    #[must_use]
    pub fn scope(&self) -> TokenScope {
        TokenScope { roles: self.roles.clone(), names: self.names.clone(), labels: self.labels.clone() }
    }
}

/// How an API server calls the users that are service accounts.
const SERVICE_ACCOUNT_USERS: &str = "system:serviceaccount:";
const MAX_PATTERN: usize = 256;
const MAX_LABELS: usize = 32;
const MAX_LABEL: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(roles: &[SystemRole], names: Option<&str>) -> TokenScope {
        TokenScope { roles: roles.iter().copied().collect(), names: names.map(Into::into), labels: Labels::new() }
    }

    fn admits(scope: &TokenScope, roles: &[SystemRole], name: &str, kube: &[&str]) -> Result<(), TokenScopeError> {
        let kube = kube.iter().map(|name| name.parse().unwrap()).collect();
        scope.admits(&roles.iter().copied().collect(), &NodeName::new(name).unwrap(), &kube, &BTreeSet::new())
    }

    // I35
    #[test]
    fn a_token_admits_the_services_and_names_that_it_is_for_and_no_others() {
        use SystemRole::{Auth, Kube, Node, Proxy};
        let gateways = scope(&[Node, Kube], Some("gw-*"));
        assert_eq!(admits(&gateways, &[Node], "gw-17", &[]), Ok(()));
        assert_eq!(admits(&gateways, &[Node, Kube], "gw-17", &["gw-east"]), Ok(()));
        assert!(matches!(admits(&gateways, &[Node], "web-1", &[]), Err(TokenScopeError::Name { .. })));
        assert!(matches!(admits(&gateways, &[Kube], "gw-17", &["production"]), Err(TokenScopeError::Name { .. })));
        assert_eq!(admits(&gateways, &[Node, Proxy], "gw-17", &[]), Err(TokenScopeError::Role(Proxy)));
        assert_eq!(admits(&gateways, &[], "gw-17", &[]), Err(TokenScopeError::Nothing));
        assert_eq!(admits(&scope(&[Node], Some("^gw-[0-9]+$")), &[Node], "gw-17", &[]), Ok(()));
        assert!(admits(&scope(&[Node], Some("^gw-[0-9]+$")), &[Node], "gw-x", &[]).is_err());
        assert!(admits(&scope(&[Node], Some("gw-17")), &[Node], "gw-170", &[]).is_err());
        let app = |name: &str| {
            let apps = [AppName::new(name).unwrap()].into();
            scope(&[SystemRole::App], Some("gw-*")).admits(
                &[SystemRole::App].into(),
                &NodeName::new("gw-17").unwrap(),
                &BTreeSet::new(),
                &apps,
            )
        };
        assert_eq!(app("gw-billing"), Ok(()));
        assert!(matches!(app("billing"), Err(TokenScopeError::Name { .. })));
        assert_eq!(admits(&scope(&[Auth, Node], None), &[Auth], "gw-17", &[]), Err(TokenScopeError::Role(Auth)));
    }

    #[test]
    fn what_no_token_can_be_made_with_is_refused() {
        let with = |labels: &[(&str, &str)]| TokenScope {
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..scope(&[SystemRole::Node], None)
        };
        with(&[("site", "7")]).check().unwrap();
        let long = "x".repeat(257);
        for refused in [
            scope(&[], None),
            scope(&[SystemRole::Auth], None),
            scope(&[SystemRole::Node], Some("")),
            scope(&[SystemRole::Node], Some("a b")),
            scope(&[SystemRole::Node], Some("^($")),
            scope(&[SystemRole::Node], Some(&long)),
            with(&[("*", "x")]),
            with(&[("site", "*")]),
            with(&[("site", "")]),
            with(&[("a\nb", "c")]),
            with(&[("a", &long)]),
        ] {
            let cause = refused.check().unwrap_err();
            assert!(cause.is_malformed() && !cause.to_string().contains('\n'), "{cause}");
        }
    }

    #[test]
    fn a_service_account_is_a_namespace_and_a_name_and_nothing_else() {
        let account: ServiceAccount = "kube-system:remoteler.agent".parse().unwrap();
        assert_eq!(account.to_string(), "kube-system:remoteler.agent");
        assert_eq!(ServiceAccount::of_user("system:serviceaccount:kube-system:remoteler.agent"), Ok(account));
        for none in ["", ":", "a", "a:", ":b", "a:b:c", "A:b", "a:b/c", "a:*", "-a:b", "a:b..c", "a b:c"] {
            assert!(none.parse::<ServiceAccount>().is_err(), "{none}");
            assert!(ServiceAccount::of_user(&format!("system:serviceaccount:{none}")).is_err(), "{none}");
        }
        for other in ["system:node:a:b", "a:b", "system:serviceaccount", "xsystem:serviceaccount:a:b"] {
            assert!(ServiceAccount::of_user(other).is_err(), "{other}");
        }
    }

    #[test]
    fn the_document_of_a_token_for_pods_reads_as_elsewhere() {
        let spec: TokenSpec = serde_json::from_value(serde_json::json!({
            "roles": ["kube"],
            "join_method": "kubernetes",
            "kubernetes": { "type": "in_cluster", "allow": [{ "service_account": "remoteler:agent" }] },
        }))
        .unwrap();
        assert_eq!(spec.join_method, JoinMethod::Kubernetes);
        assert_eq!(spec.kubernetes.unwrap().allow[0].service_account.to_string(), "remoteler:agent");
        let unknown = serde_json::json!({ "roles": ["kube"], "kubernetes": { "allow": [], "static_jwks": {} } });
        assert!(serde_json::from_value::<TokenSpec>(unknown).is_err()); // I80
    }
}
