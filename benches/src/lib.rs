//! What the benches measure with: a cluster's authorities and rules in memory, a user and a node. Owns no measurement.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use remoteler_ca::{Authority, HostProfile, KubeProfile, OpensshUserProfile, SshPermits, TlsPublicKey, UserProfile};
use remoteler_client::KeyPairs;
use remoteler_core::{
    CaKind, Clock, ClusterName, HostId, HostIdentity, KubeClusterName, Labels, Login, NodeName, NodeRecord, OsEntropy,
    Policy, Role, RoleName, SystemClock, SystemRole, Timestamp, TrustBundle, UserIdentity, UserName, preset_roles,
    random_uuid,
};
use ssh_key::PublicKey;

/// A cluster with the preset roles, and keys for one user and one host.
pub struct Cluster {
    /// Signs users.
    pub user_authority: Authority,
    /// Signs hosts.
    pub host_authority: Authority,
    /// What a node knows.
    pub policy: Policy,
    /// The moment at which everything happens.
    pub now: Timestamp,
    name: ClusterName,
    ssh_key: PublicKey,
    tls_key: TlsPublicKey,
}

impl Cluster {
    /// Makes the authorities and keys.
    ///
    /// # Panics
    /// When the operating system gives no randomness.
    #[must_use]
    pub fn new() -> Self {
        let name = ClusterName::new("bench.example.com").expect("the constant is a cluster name");
        let now = SystemClock.now();
        let authority =
            |kind| Authority::generate(&name, kind, now, &OsEntropy).expect("authorities of the present can be made");
        let (user_authority, host_authority) = (authority(CaKind::User), authority(CaKind::Host));
        let trust = TrustBundle::new(name.clone(), user_authority.public(), host_authority.public());
        let roles: BTreeMap<_, _> = preset_roles()
            .into_iter()
            .map(|(role, spec)| {
                let checked = Role::new(role.clone(), &spec).expect("preset roles pass their check");
                (role, Arc::new(checked))
            })
            .collect();
        let keys = KeyPairs::generate("bench").expect("keys can be made");
        let ssh_key = PublicKey::from_openssh(&keys.ssh_public).expect("the key was written by us");
        let tls_key = TlsPublicKey::from_pem(&keys.tls_public).expect("the key was written by us");
        Self { user_authority, host_authority, policy: Policy::new(trust, roles), now, name, ssh_key, tls_key }
    }

    /// The login that the user has.
    ///
    /// # Panics
    /// Never: the constant is a login.
    #[must_use]
    pub fn login(&self) -> Login {
        Login::new("root").expect("the constant is a login")
    }

    /// Certificates for a user with role `access` for 12 hours.
    ///
    /// # Panics
    /// Never: the constants are names.
    #[must_use]
    pub fn user_profile(&self) -> UserProfile {
        let identity = UserIdentity {
            user: UserName::new("ann@example.com").expect("the constant is a user name"),
            cluster: self.name.clone(),
            roles: [RoleName::new("access").expect("the constant is a role name")].into(),
            traits: [("logins".to_owned(), vec!["root".to_owned()])].into(),
            logins: vec![self.login()],
        };
        UserProfile {
            identity,
            ssh_key: self.ssh_key.clone(),
            tls_key: self.tls_key.clone(),
            permits: SshPermits { pty: true, port_forwarding: true, agent_forwarding: true },
            not_after: self.now.plus(Duration::from_secs(12 * 3600)),
        }
    }

    /// The SSH certificate alone, for the same user.
    ///
    /// # Panics
    /// Never: the constants are names.
    #[must_use]
    pub fn openssh_profile(&self) -> OpensshUserProfile {
        let UserProfile { identity, ssh_key, permits, not_after, .. } = self.user_profile();
        let principals = identity.logins.iter().map(ToString::to_string).collect();
        OpensshUserProfile { user: identity.user, principals, ssh_key, permits, not_after }
    }

    /// An X.509 certificate alone, for the same user at one Kubernetes cluster.
    ///
    /// # Panics
    /// Never: the constants are names.
    #[must_use]
    pub fn kube_profile(&self) -> KubeProfile {
        let UserProfile { identity, tls_key, not_after, .. } = self.user_profile();
        let kube_cluster = KubeClusterName::new("staging").expect("the constant is a name");
        KubeProfile { identity, kube_cluster, tls_key, not_after, proven: None }
    }

    /// Certificates for a node.
    ///
    /// # Panics
    /// Never: the constant is a name.
    #[must_use]
    pub fn host_profile(&self) -> HostProfile {
        let identity = HostIdentity {
            id: HostId::from_uuid(random_uuid(&OsEntropy)),
            name: NodeName::new("node-1").expect("the constant is a node name"),
            cluster: self.name.clone(),
            roles: [SystemRole::Node].into(),
            kube_clusters: [].into(),
            apps: Default::default(),
            labels: Default::default(),
            generation: 0,
        };
        HostProfile { identity, ssh_key: self.ssh_key.clone(), tls_key: self.tls_key.clone() }
    }

    /// A node with two labels.
    ///
    /// # Panics
    /// Never: the constant is a name.
    #[must_use]
    pub fn node(&self) -> NodeRecord {
        let labels = [("env", "prod"), ("place", "edge")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        NodeRecord {
            host_id: HostId::from_uuid(random_uuid(&OsEntropy)),
            name: NodeName::new("node-1").expect("the constant is a node name"),
            labels: Labels::from(labels),
            addr: None,
            version: "0.1.0".into(),
            last_seen: self.now,
            heartbeat: Default::default(),
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}
