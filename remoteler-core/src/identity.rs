//! What a certificate says about its holder. Owns the one serialised form of it; the encoders for SSH and X.509 wrap
//! that form and add nothing. Never decides what the holder may do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{
    AppName, ClusterName, HostId, KubeClusterName, Labels, Login, NameError, NodeName, RoleName, SessionId,
    SessionProof, SessionTarget, Timestamp, UserName,
};

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

/// The newest format; a reader refuses a newer one. Format 2 has the labels and the generation of hosts, format 3 users with a second factor for
/// one session, format 4 web applications. Who has none of it is written in format 1, so that programs which know only that still read them.
const FORMAT: u32 = 4;
const PROVEN_FORMAT: u32 = 3;
const HOST_FORMAT: u32 = 2;
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
    /// Stands before web applications.
    App,
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
            Self::App => "app",
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
            "app" => Ok(Self::App),
            _ => Err(UnknownSystemRole(text.chars().take(40).collect())),
        }
    }
}

/// A service kind this product does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no service; known are auth, proxy, node, kube and app")]
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
    /// The web applications it may announce.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub apps: BTreeSet<AppName>,
    /// Labels that its join token gave it. They win over those it gives itself.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// How many times its certificates were renewed in its own turn. One who shows fewer than others of the same id runs on a copy.
    #[serde(default, skip_serializing_if = "is_first")]
    pub generation: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_first(generation: &u64) -> bool {
    *generation == 0
}

impl HostIdentity {
    /// The same host whatever its certificates' generation: what it was let in as.
    #[must_use]
    pub fn of_generation(&self, generation: u64) -> Self {
        Self { generation, ..self.clone() }
    }

    /// `own` with the labels that the join token gave, which win.
    #[must_use]
    pub fn labelled(&self, own: Labels) -> Labels {
        let mut labels = own;
        labels.extend(self.labels.clone());
        labels
    }

    /// The format that a reader must know at least.
    fn format(&self) -> u32 {
        match (self.is_of_apps(), self.labels.is_empty() && self.generation == 0) {
            (true, _) => FORMAT,
            (false, true) => 1,
            (false, false) => HOST_FORMAT,
        }
    }

    /// Whether programs that know no web applications would stumble over it.
    fn is_of_apps(&self) -> bool {
        !self.apps.is_empty() || self.roles.contains(&SystemRole::App)
    }

    /// Names that the SSH host certificate is valid for: `name`, `name.cluster`, `id`, `id.cluster`.
    #[must_use]
    pub fn principals(&self) -> Vec<String> {
        let Self { id, name, cluster, .. } = self;
        vec![name.to_string(), format!("{name}.{cluster}"), id.to_string(), format!("{id}.{cluster}")]
    }

    /// DNS names that the X.509 certificate is valid for: `id.cluster`, `name.cluster`, and a server name for each
    /// Kubernetes cluster and each web application.
    #[must_use]
    pub fn dns_names(&self) -> Vec<String> {
        let Self { id, name, cluster, .. } = self;
        let mut names = vec![format!("{id}.{cluster}"), format!("{name}.{cluster}")];
        names.extend(self.kube_clusters.iter().map(|kube| kube.server_name(cluster)));
        names.extend(self.apps.iter().map(|app| app.server_name(cluster)));
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

/// A user who showed a second factor, at the place that the proof names and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenUserIdentity {
    /// Who.
    pub user: UserIdentity,
    /// What they proved, for which place, until when.
    pub proof: SessionProof,
    /// When the certificate of the login ends with which they asked: what is begun now may last so long.
    pub login_expires: Timestamp,
}

/// A user of one cluster, in one session with one web application and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppUserIdentity {
    /// Who.
    pub user: UserIdentity,
    /// The one place where the certificate counts.
    pub app: AppName,
    /// The session, as it stands in the audit log. No credential.
    pub session: SessionId,
    /// The second factor that was shown for the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<SessionProof>,
    /// When the login or the browser's session ends that stands behind it: what is begun now may last so long.
    pub login_expires: Timestamp,
    /// The proxy that holds its key for a browser; a lock of that shuts it out. Absent: a program of the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<AppProxy>,
}

/// A proxy that is the client in a browser's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppProxy {
    /// Its host.
    pub id: HostId,
    /// What that is called.
    pub name: NodeName,
}

impl AppUserIdentity {
    /// That a proof in it is of this user for this session there.
    fn check(&self) -> Result<(), &'static str> {
        let Some(proof) = &self.proof else { return Ok(()) };
        if proof.user() != &self.user.user {
            return Err("the second factor is another user's");
        }
        let there = matches!(proof.target(), SessionTarget::App { name } if *name == self.app);
        if !there || proof.session() != self.session {
            return Err("the second factor is for another session");
        }
        Ok(())
    }
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
    /// Signed by a user authority; a variant for the same reason.
    ProvenUser(ProvenUserIdentity),
    /// Signed by a user authority; a variant for the same reason.
    AppUser(AppUserIdentity),
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
    ProvenUser(ProvenUserIdentity),
    AppUser(AppUserIdentity),
}

impl Identity {
    /// The cluster it belongs to.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterName {
        match self {
            Self::User(user) => &user.cluster,
            Self::Host(host) => &host.cluster,
            Self::KubeUser(restricted) => &restricted.user.cluster,
            Self::ProvenUser(proven) => &proven.user.cluster,
            Self::AppUser(restricted) => &restricted.user.cluster,
        }
    }

    /// The subject name: the user's name or the host's id.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::User(user) => user.user.to_string(),
            Self::Host(host) => host.id.to_string(),
            Self::KubeUser(restricted) => restricted.user.user.to_string(),
            Self::ProvenUser(proven) => proven.user.user.to_string(),
            Self::AppUser(restricted) => restricted.user.user.to_string(),
        }
    }

    /// The one serialised form: JSON `{"v":1,"user":{…}}`, `{"v":1,"host":{…}}`, `{"v":1,"kube_user":{…}}`, `{"v":3,"proven_user":{…}}` or
    /// `{"v":4,"app_user":{…}}`; a host with labels or a generation has `"v":2`, one of web applications `"v":4`.
    #[must_use]
    pub fn encode(&self) -> String {
        let (v, body) = match self {
            Self::User(user) => (1, Body::User(user.clone())),
            Self::Host(host) => (host.format(), Body::Host(host.clone())),
            Self::KubeUser(restricted) => (1, Body::KubeUser(restricted.clone())),
            Self::ProvenUser(proven) => (PROVEN_FORMAT, Body::ProvenUser(proven.clone())),
            Self::AppUser(restricted) => (FORMAT, Body::AppUser(restricted.clone())),
        };
        serde_json::to_string(&Envelope { v, body })
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
        if !(1..=FORMAT).contains(&v) {
            return Err(IdentityError::Format(v));
        }
        let (least, identity) = match serde_json::from_str::<Envelope>(text).map_err(malformed)?.body {
            Body::User(user) => (1, Self::User(user)),
            Body::Host(host) => (host.format(), Self::Host(host)),
            Body::KubeUser(restricted) => (1, Self::KubeUser(restricted)),
            Body::ProvenUser(proven) if proven.proof.user() != &proven.user.user => {
                return Err(IdentityError::Malformed("the second factor is another user's".into()));
            }
            Body::ProvenUser(proven) => (PROVEN_FORMAT, Self::ProvenUser(proven)),
            Body::AppUser(restricted) => {
                restricted.check().map_err(|cause| IdentityError::Malformed(cause.into()))?;
                (FORMAT, Self::AppUser(restricted))
            }
        };
        if v != least {
            return Err(IdentityError::Malformed(format!("it says format {v} and is of format {least}")));
        }
        Ok(identity)
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
    use crate::SessionTarget;

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

    // I49
    #[test]
    fn a_user_with_a_second_factor_is_written_so_that_older_programs_refuse_it_and_only_with_a_factor_of_theirs() {
        let name = |name: &str| UserName::new(name).unwrap();
        let proven = |by: &str| {
            let target = SessionTarget::KubeCluster { name: KubeClusterName::new("staging").unwrap() };
            let end = Timestamp::from_unix_seconds(60);
            let user = UserIdentity {
                user: name("ann"),
                cluster: ClusterName::new("root").unwrap(),
                roles: [RoleName::new("access").unwrap()].into(),
                traits: Traits::new(),
                logins: Vec::new(),
            };
            let proof = SessionProof::new(crate::SessionId::from_uuid(uuid::Uuid::nil()), name(by), target, end);
            Identity::ProvenUser(ProvenUserIdentity { user, proof, login_expires: end })
        };
        let text = proven("ann").encode();
        assert!(text.starts_with(r#"{"v":3,"proven_user":"#), "{text}");
        assert_eq!(Identity::decode(&text), Ok(proven("ann")));
        for version in ["1", "2", "4"] {
            let disguised = text.replacen(r#""v":3"#, &format!(r#""v":{version}"#), 1);
            assert!(matches!(Identity::decode(&disguised), Err(IdentityError::Malformed(_))));
        }
        assert!(matches!(Identity::decode(&proven("eve").encode()), Err(IdentityError::Malformed(_))));
    }

    fn host(labels: &[(&str, &str)], generation: u64) -> HostIdentity {
        HostIdentity {
            id: "0190d7a4-6ba1-7000-8000-000000000001".parse().unwrap(),
            name: NodeName::new("edge").unwrap(),
            cluster: ClusterName::new("root").unwrap(),
            roles: [SystemRole::Node].into(),
            kube_clusters: BTreeSet::new(),
            apps: BTreeSet::new(),
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            generation,
        }
    }

    #[test]
    fn a_host_without_labels_and_generation_is_written_as_before_them() {
        let before = concat!(
            r#"{"v":1,"host":{"id":"0190d7a4-6ba1-7000-8000-000000000001","name":"edge","cluster":"root","#,
            r#""roles":["node"],"kube_clusters":[]}}"#
        );
        assert_eq!(Identity::Host(host(&[], 0)).encode(), before);
        assert_eq!(Identity::decode(before), Ok(Identity::Host(host(&[], 0))));
    }

    #[test]
    fn labels_and_generation_of_a_host_are_read_back_and_only_in_the_format_that_has_them() {
        for given in [host(&[("site", "7")], 0), host(&[], 41), host(&[("site", "7")], u64::MAX)] {
            let text = Identity::Host(given.clone()).encode();
            assert!(text.starts_with(r#"{"v":2,"host":"#), "{text}");
            assert_eq!(Identity::decode(&text), Ok(Identity::Host(given)));
            let disguised = text.replacen(r#""v":2"#, r#""v":1"#, 1);
            assert!(matches!(Identity::decode(&disguised), Err(IdentityError::Malformed(_))));
        }
        let plain = Identity::Host(host(&[], 0)).encode().replacen(r#""v":1"#, r#""v":2"#, 1);
        assert!(matches!(Identity::decode(&plain), Err(IdentityError::Malformed(_))));
    }

    #[test]
    fn a_host_of_applications_is_written_so_that_older_programs_say_they_are_too_old() {
        let mut of_apps = host(&[], 0);
        of_apps.roles = [SystemRole::App].into();
        of_apps.apps = [AppName::new("billing").unwrap()].into();
        let text = Identity::Host(of_apps.clone()).encode();
        assert!(text.starts_with(r#"{"v":4,"host":"#), "{text}");
        assert_eq!(Identity::decode(&text), Ok(Identity::Host(of_apps.clone())));
        let server_name = AppName::new("billing").unwrap().server_name(&of_apps.cluster);
        assert!(of_apps.dns_names().contains(&server_name));
    }

    // I51
    #[test]
    fn a_user_at_one_application_is_not_written_as_a_user_and_brings_only_a_factor_of_that_session() {
        let session = |number| SessionId::from_uuid(uuid::Uuid::from_u128(number));
        let end = Timestamp::from_unix_seconds(60);
        let at_app = |proof: Option<(&str, &str, u128)>| {
            let user = UserIdentity {
                user: UserName::new("ann").unwrap(),
                cluster: ClusterName::new("root").unwrap(),
                roles: [RoleName::new("access").unwrap()].into(),
                traits: Traits::new(),
                logins: Vec::new(),
            };
            let proof = proof.map(|(by, app, number)| {
                let target = SessionTarget::App { name: AppName::new(app).unwrap() };
                SessionProof::new(session(number), UserName::new(by).unwrap(), target, end)
            });
            let app = AppName::new("billing").unwrap();
            let session = session(1);
            Identity::AppUser(AppUserIdentity { user, app, session, proof, login_expires: end, proxy: None })
        };
        let proxy = AppProxy { id: HostId::from_uuid(Default::default()), name: NodeName::new("p1").unwrap() };
        let Identity::AppUser(of_browser) = at_app(None) else { unreachable!("it is one") };
        let of_browser = Identity::AppUser(AppUserIdentity { proxy: Some(proxy), ..of_browser });
        for good in [at_app(None), at_app(Some(("ann", "billing", 1))), of_browser] {
            let text = good.encode();
            assert!(text.starts_with(r#"{"v":4,"app_user":"#), "{text}");
            assert_eq!(Identity::decode(&text), Ok(good));
            assert!(Identity::decode(&text.replacen(r#""v":4"#, r#""v":1"#, 1)).is_err());
        }
        for bad in [("eve", "billing", 1), ("ann", "wiki", 1), ("ann", "billing", 2)] {
            assert!(
                matches!(Identity::decode(&at_app(Some(bad)).encode()), Err(IdentityError::Malformed(_))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn labels_of_the_token_win_over_those_a_host_gives_itself() {
        let own = Labels::from([("site".to_owned(), "8".to_owned()), ("env".to_owned(), "dev".to_owned())]);
        let labels = host(&[("site", "7")], 0).labelled(own);
        assert_eq!(labels, Labels::from([("site".to_owned(), "7".to_owned()), ("env".to_owned(), "dev".to_owned())]));
    }

    #[test]
    fn a_newer_format_and_unknown_fields_are_refused() {
        assert_eq!(Identity::decode(r#"{"v":5,"robot":{}}"#), Err(IdentityError::Format(5)));
        assert_eq!(Identity::decode(r#"{"v":0,"robot":{}}"#), Err(IdentityError::Format(0)));
        let extra = r#"{"v":1,"user":{"user":"a","cluster":"c","roles":[],"root":true}}"#;
        assert!(matches!(Identity::decode(extra), Err(IdentityError::Malformed(_))));
    }
}
