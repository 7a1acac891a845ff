//! Locks: who or what is shut out now, and what to tell them. Owns the form of a lock, what it concerns, and the set that stands in a service's
//! view of the rules. Decides nothing about who may lock, keeps no record, and reads no clock: who publishes a view leaves out what has ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    AppProxy, ClusterName, HostId, HostIdentity, KubeClusterName, Login, NodeName, NodeRecord, RevocationTarget,
    RoleName, ShownCertificate, Timestamp, UserIdentity, UserName, VerifiedHost, VerifiedUser,
};

/// What a lock shuts out. Fields that are there must all fit; a lock without any concerns nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LockTarget {
    /// This user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// Everybody whose certificate has this role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
    /// SSH as this operating-system account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
    /// The host of this name or host id: itself, and everybody who wants to get there.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "server_id")]
    pub node: Option<NodeName>,
    /// The holder of this certificate or key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<RevocationTarget>,
    /// Users of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// Requests to this Kubernetes cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kube_cluster: Option<KubeClusterName>,
}

impl LockTarget {
    /// One certificate or key.
    #[must_use]
    pub fn of_serial(serial: RevocationTarget) -> Self {
        Self { serial: Some(serial), ..Self::default() }
    }

    /// Whether it names nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether all that it names fits `context`. A host is concerned only by a lock that names it or its certificate: one that names a cluster
    /// alone is about people.
    #[must_use]
    pub fn concerns(&self, context: &LockContext<'_>) -> bool {
        let Self { user, role, login, node, serial, cluster, kube_cluster } = self;
        let fits = |wanted: &Option<_>, found: Option<&_>| wanted.as_ref().is_none_or(|wanted| Some(wanted) == found);
        !self.is_empty()
            && (context.user.is_some() || node.is_some() || serial.is_some())
            && fits(user, context.user)
            && role.as_ref().is_none_or(|role| context.roles.is_some_and(|roles| roles.contains(role)))
            && login.as_ref().is_none_or(|login| Some(login) == context.login)
            && node.as_ref().is_none_or(|node| context.is_at(node.as_str()))
            && serial.is_none_or(|serial| context.is_holder_of(serial))
            && cluster.as_ref().is_none_or(|cluster| Some(cluster) == context.cluster)
            && kube_cluster.as_ref().is_none_or(|kube| Some(kube) == context.kube_cluster)
    }

    /// Whether it can be known of a certificate at its issue: it names people by user, role and cluster alone.
    #[must_use]
    pub fn is_of_holders(&self) -> bool {
        let Self { user, role, login, node, serial, cluster, kube_cluster } = self;
        (user.is_some() || role.is_some() || cluster.is_some())
            && login.is_none()
            && node.is_none()
            && serial.is_none()
            && kube_cluster.is_none()
    }
}

impl fmt::Display for LockTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, role, login, node, serial, cluster, kube_cluster } = self;
        let parts = [
            user.as_ref().map(|user| format!("user {user}")),
            role.as_ref().map(|role| format!("role {role}")),
            login.as_ref().map(|login| format!("login {login}")),
            node.as_ref().map(|node| format!("node {node}")),
            serial.as_ref().map(|serial| format!("certificate {serial}")),
            cluster.as_ref().map(|cluster| format!("cluster {cluster}")),
            kube_cluster.as_ref().map(|kube| format!("Kubernetes cluster {kube}")),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}

/// Who wants what, as far as it is known where a decision is taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct LockContext<'a> {
    user: Option<&'a UserName>,
    roles: Option<&'a BTreeSet<RoleName>>,
    cluster: Option<&'a ClusterName>,
    certificate: Option<&'a ShownCertificate>,
    login: Option<&'a Login>,
    node: (Option<&'a str>, Option<HostId>),
    kube_cluster: Option<&'a KubeClusterName>,
    /// Whose certificate is held by a proxy.
    proxy: Option<&'a AppProxy>,
    /// Of somebody who has no certificate yet.
    keys: [Option<RevocationTarget>; 2],
}

impl<'a> LockContext<'a> {
    /// A host that has no certificate yet: where it joins, and with which keys.
    #[must_use]
    pub fn joining(cluster: &'a ClusterName, keys: [Option<RevocationTarget>; 2]) -> Self {
        Self { cluster: Some(cluster), keys, ..Self::default() }
    }

    /// The holder of these keys besides.
    #[must_use]
    pub const fn keys(self, keys: [Option<RevocationTarget>; 2]) -> Self {
        Self { keys, ..self }
    }

    /// A user who has no certificate yet, or whose certificate does not matter.
    #[must_use]
    pub fn of_identity(identity: &'a UserIdentity) -> Self {
        Self::of_holder(&identity.user, &identity.roles, &identity.cluster, None)
    }

    /// The holder of a user certificate.
    #[must_use]
    pub fn of_user(user: &'a VerifiedUser) -> Self {
        let identity = user.identity();
        let holder = Self::of_holder(&identity.user, &identity.roles, &identity.cluster, Some(user.shown()));
        holder.through(user.app_proxy())
    }

    pub(crate) fn of_holder(
        user: &'a UserName,
        roles: &'a BTreeSet<RoleName>,
        cluster: &'a ClusterName,
        certificate: Option<&'a ShownCertificate>,
    ) -> Self {
        Self { user: Some(user), roles: Some(roles), cluster: Some(cluster), certificate, ..Self::default() }
    }

    /// The holder of a host certificate.
    #[must_use]
    pub fn of_host(host: &'a VerifiedHost) -> Self {
        Self { certificate: Some(host.shown()), ..Self::of_host_identity(host.identity()) }
    }

    /// The holder of a host certificate whose names are said apart.
    pub(crate) fn of_certificate(cluster: &'a ClusterName, certificate: &'a ShownCertificate) -> Self {
        Self { cluster: Some(cluster), certificate: Some(certificate), ..Self::default() }
    }

    /// A host whose certificate does not matter.
    #[must_use]
    pub fn of_host_identity(host: &'a HostIdentity) -> Self {
        let node = (Some(host.name.as_str()), Some(host.id));
        Self { cluster: Some(&host.cluster), node, ..Self::default() }
    }

    /// As this account.
    #[must_use]
    pub fn login(self, login: &'a Login) -> Self {
        Self { login: Some(login), ..self }
    }

    /// On this node.
    #[must_use]
    pub fn node(self, node: &'a NodeRecord) -> Self {
        self.host(Some(node.name.as_str()), Some(node.host_id))
    }

    /// On the host of this name, this id, or both.
    #[must_use]
    pub const fn host(self, name: Option<&'a str>, id: Option<HostId>) -> Self {
        Self { node: (name, id), ..self }
    }

    /// By way of a proxy that holds the certificate's key.
    #[must_use]
    pub const fn through(self, proxy: Option<&'a AppProxy>) -> Self {
        Self { proxy, ..self }
    }

    /// In this Kubernetes cluster.
    #[must_use]
    pub const fn kube(self, kube_cluster: &'a KubeClusterName) -> Self {
        Self { kube_cluster: Some(kube_cluster), ..self }
    }

    pub(crate) fn roles(&self) -> impl Iterator<Item = &'a RoleName> {
        self.roles.into_iter().flatten()
    }

    fn is_holder_of(&self, serial: RevocationTarget) -> bool {
        self.certificate.is_some_and(|shown| shown.is_named_by(serial)) || self.keys.contains(&Some(serial))
    }

    fn is_at(&self, node: &str) -> bool {
        let (name, id) = self.node;
        let through = |proxy: &AppProxy| proxy.name.as_str() == node || proxy.id.to_string() == node;
        name == Some(node) || id.is_some_and(|id| id.to_string() == node) || self.proxy.is_some_and(through)
    }
}

/// A lock in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Its name, unique.
    pub name: String,
    /// What it shuts out.
    pub target: LockTarget,
    /// What those are told who are shut out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Its end; absent: until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// `spec` of a lock document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockSpec {
    /// What is shut out.
    pub target: LockTarget,
    /// What those are told who are shut out; at most 400 characters on one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Why, for administrators; likewise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Its end; absent: until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// How long it lasts, counted by the clock of the auth service; instead of `expires`, and not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Shown; what a document says is passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

/// Why something is refused, or ended, by locks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Locked {
    /// A lock concerns it.
    #[error("locked by an administrator ({}){}", .0.target, words(&.0.message))]
    By(Arc<Lock>),
    /// Locks are strict, and this service does not know whether there are new ones.
    #[error(
        "this service has not heard from the auth service for too long to know what is locked, and nothing new is allowed until it does; try again later"
    )]
    Unknown,
}

fn words(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// All locks of a view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locks {
    /// Those that name a user, which are the most: found without looking at the others'.
    by_user: BTreeMap<UserName, Vec<Arc<Lock>>>,
    others: Vec<Arc<Lock>>,
}

impl Locks {
    /// The first lock that concerns `context`.
    #[must_use]
    pub fn concerning(&self, context: &LockContext<'_>) -> Option<&Arc<Lock>> {
        let own = context.user.and_then(|user| self.by_user.get(user)).into_iter().flatten();
        own.chain(&self.others).find(|lock| lock.target.concerns(context))
    }

    /// Those that have not ended at `now`.
    #[must_use]
    pub fn in_force(&self, now: Timestamp) -> Self {
        self.iter().filter(|lock| lock.expires.is_none_or(|end| end > now)).cloned().collect()
    }

    /// When the next of them ends.
    #[must_use]
    pub fn next_end(&self) -> Option<Timestamp> {
        self.iter().filter_map(|lock| lock.expires).min()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Lock>> {
        self.by_user.values().flatten().chain(&self.others)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_user.is_empty() && self.others.is_empty()
    }
}

impl FromIterator<Arc<Lock>> for Locks {
    fn from_iter<I: IntoIterator<Item = Arc<Lock>>>(all: I) -> Self {
        let mut locks = Self::default();
        for lock in all {
            match &lock.target.user {
                Some(user) => locks.by_user.entry(user.clone()).or_default().push(lock),
                None => locks.others.push(lock),
            }
        }
        for list in locks.by_user.values_mut().chain([&mut locks.others]) {
            list.sort_by(|one, other| one.name.cmp(&other.name));
        }
        locks
    }
}

impl FromIterator<Lock> for Locks {
    fn from_iter<I: IntoIterator<Item = Lock>>(all: I) -> Self {
        all.into_iter().map(Arc::new).collect()
    }
}

impl Serialize for Locks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(AsRef::as_ref))
    }
}

impl<'de> Deserialize<'de> for Locks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Lock>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(name: &str, target: &str, message: &str) -> Lock {
        let target = serde_json::from_str(target).unwrap();
        Lock { name: name.into(), target, message: message.into(), expires: None }
    }

    fn ann() -> UserIdentity {
        UserIdentity {
            user: UserName::new("ann").unwrap(),
            cluster: ClusterName::new("root").unwrap(),
            roles: [RoleName::new("dev").unwrap()].into(),
            traits: Default::default(),
            logins: Vec::new(),
        }
    }

    fn edge() -> HostIdentity {
        HostIdentity {
            id: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap(),
            name: NodeName::new("edge").unwrap(),
            cluster: ClusterName::new("root").unwrap(),
            roles: Default::default(),
            kube_clusters: Default::default(),
            apps: Default::default(),
            labels: Default::default(),
            generation: 0,
        }
    }

    // I79
    #[test]
    fn a_lock_concerns_what_all_its_fields_fit_and_nothing_else() {
        let (ann, edge) = (ann(), edge());
        let (login, kube) = (Login::new("root").unwrap(), KubeClusterName::new("staging").unwrap());
        let ssh = LockContext::of_identity(&ann).login(&login).host(Some("edge"), Some(edge.id));
        let pods = LockContext::of_identity(&ann).kube(&kube);
        let logging_in = LockContext::of_identity(&ann);
        let host = LockContext::of_host_identity(&edge);
        for (target, expected) in [
            (r#"{}"#, [false, false, false, false]),
            (r#"{"user":"ann"}"#, [true, true, true, false]),
            (r#"{"user":"bob"}"#, [false; 4]),
            (r#"{"role":"dev"}"#, [true, true, true, false]),
            (r#"{"login":"root"}"#, [true, false, false, false]),
            (r#"{"node":"edge"}"#, [true, false, false, true]),
            (r#"{"server_id":"67e55044-10b1-426f-9247-bb680e5fe0c8"}"#, [true, false, false, true]),
            (r#"{"cluster":"root"}"#, [true, true, true, false]),
            (r#"{"cluster":"leaf"}"#, [false; 4]),
            (r#"{"cluster":"root","node":"edge"}"#, [true, false, false, true]),
            (r#"{"cluster":"leaf","node":"edge"}"#, [false; 4]), // I32
            (r#"{"kube_cluster":"staging"}"#, [false, true, false, false]),
            (r#"{"user":"ann","node":"edge"}"#, [true, false, false, false]),
            (r#"{"user":"ann","login":"ubuntu"}"#, [false; 4]),
            (r#"{"serial":"ssh-user-7"}"#, [false; 4]),
        ] {
            let target: LockTarget = serde_json::from_str(target).unwrap();
            assert_eq!([ssh, pods, logging_in, host].map(|context| target.concerns(&context)), expected, "{target}");
        }
        assert!(serde_json::from_str::<LockTarget>(r#"{"windows_desktop":"x"}"#).is_err());
    }

    // I79
    #[test]
    fn who_joins_is_known_by_cluster_name_and_keys() {
        let cluster = ClusterName::new("root").unwrap();
        let digest = "ab".repeat(32);
        let key: RevocationTarget = format!("key-ssh-{digest}").parse().unwrap();
        let joining = LockContext::joining(&cluster, [Some(key), None]).host(Some("edge"), None);
        for (target, expected) in [
            (r#"{"node":"edge"}"#.to_owned(), true),
            (r#"{"node":"edge","cluster":"root"}"#.to_owned(), true),
            (r#"{"node":"edge","cluster":"leaf"}"#.to_owned(), false),
            (r#"{"cluster":"root"}"#.to_owned(), false),
            (format!(r#"{{"serial":"key-ssh-{digest}"}}"#), true),
            (format!(r#"{{"serial":"key-tls-{digest}"}}"#), false),
            (format!(r#"{{"serial":"key-ssh-{digest}","node":"other"}}"#), false),
        ] {
            let target: LockTarget = serde_json::from_str(&target).unwrap();
            assert_eq!(target.concerns(&joining), expected, "{target}");
        }
    }

    #[test]
    fn what_has_ended_is_left_out_and_the_next_end_is_known() {
        let at = Timestamp::from_unix_seconds;
        let ending = |name: &str, end| Lock { expires: end, ..lock(name, r#"{"user":"ann"}"#, "") };
        let locks: Locks =
            [ending("a", Some(at(10))), ending("b", Some(at(20))), ending("c", None)].into_iter().collect();
        assert_eq!(locks.next_end(), Some(at(10)));
        let names = |locks: &Locks| locks.iter().map(|lock| lock.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&locks.in_force(at(9))), ["a", "b", "c"]);
        assert_eq!(names(&locks.in_force(at(10))), ["b", "c"]);
        assert_eq!(names(&locks.in_force(at(99))), ["c"]);
    }

    #[test]
    fn those_shut_out_read_what_is_locked_and_the_message() {
        let told = |lock| Locked::By(Arc::new(lock)).to_string();
        assert_eq!(
            told(lock("x", r#"{"user":"ann","node":"edge"}"#, "the laptop was stolen")),
            "locked by an administrator (user ann, node edge): the laptop was stolen"
        );
        assert_eq!(told(lock("x", r#"{"role":"dev"}"#, "")), "locked by an administrator (role dev)");
    }

    #[test]
    fn a_set_reads_back_as_it_was_written() {
        let locks: Locks =
            [lock("b", r#"{"user":"ann"}"#, "why"), lock("a", r#"{"node":"edge"}"#, "")].into_iter().collect();
        let text = serde_json::to_string(&locks).unwrap();
        assert_eq!(serde_json::from_str::<Locks>(&text).unwrap(), locks);
        assert!(locks.concerning(&LockContext::of_identity(&ann())).is_some());
        assert!(Locks::default().concerning(&LockContext::of_identity(&ann())).is_none());
    }
}
