//! A cluster's authorities, a user, a host and their keys.

use std::time::Duration;

use remoteler_ca::{Authority, HostProfile, IssuedHost, IssuedUser, SshPermits, TlsPublicKey, UserProfile};
use remoteler_core::{
    CaKind, ClusterName, HostIdentity, KubeClusterName, Login, NodeName, OsEntropy, RoleName, SshCertificatePurpose,
    SystemRole, Timestamp, TrustBundle, UserIdentity, UserName, Verified, VerifyError, X509Purpose,
    verify_ssh_certificate, verify_x509_chain,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use ssh_key::{
    Certificate, PrivateKey, PublicKey,
    private::{Ed25519Keypair, KeypairData},
};

/// The two authorities of one cluster.
pub(crate) struct Cluster {
    pub(crate) name: ClusterName,
    pub(crate) user: Authority,
    pub(crate) host: Authority,
}

impl Cluster {
    pub(crate) fn new(name: &str) -> Self {
        let name = ClusterName::new(name).unwrap();
        let make = |kind| Authority::generate(&name, kind, now(), &OsEntropy).unwrap();
        Self { user: make(CaKind::User), host: make(CaKind::Host), name }
    }

    pub(crate) fn trust(&self) -> TrustBundle {
        TrustBundle::new(self.name.clone(), self.user.public(), self.host.public())
    }

    pub(crate) fn issue_user(&self) -> IssuedUser {
        self.user.issue_user(user_profile(&self.name).prepare(&self.user, now(), &OsEntropy).unwrap()).unwrap()
    }

    pub(crate) fn issue_host(&self) -> IssuedHost {
        self.host.issue_host(host_profile(&self.name).prepare(&self.host, now(), &OsEntropy).unwrap()).unwrap()
    }
}

/// 2026-03-01T12:00:00Z
pub(crate) fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_772_366_400)
}

pub(crate) fn user_profile(cluster: &ClusterName) -> UserProfile {
    UserProfile {
        identity: UserIdentity {
            user: UserName::new("ann").unwrap(),
            cluster: cluster.clone(),
            roles: [RoleName::new("access").unwrap(), RoleName::new("auditor").unwrap()].into(),
            traits: [("logins".to_owned(), vec!["root".to_owned(), "ubuntu".to_owned()])].into(),
            logins: vec![Login::new("root").unwrap(), Login::new("ubuntu").unwrap()],
        },
        ssh_key: ssh_key(7),
        tls_key: tls_key(),
        permits: SshPermits { pty: true, port_forwarding: true, agent_forwarding: false },
        not_after: now().plus(Duration::from_secs(8 * 3600)),
    }
}

pub(crate) fn host_profile(cluster: &ClusterName) -> HostProfile {
    HostProfile {
        identity: HostIdentity {
            id: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap(),
            name: NodeName::new("web_1").unwrap(),
            cluster: cluster.clone(),
            roles: [SystemRole::Node, SystemRole::Kube].into(),
            kube_clusters: [KubeClusterName::new("staging").unwrap()].into(),
            apps: Default::default(),
            labels: Default::default(),
            generation: 0,
        },
        ssh_key: ssh_key(8),
        tls_key: tls_key(),
    }
}

pub(crate) fn ssh_key(seed: u8) -> PublicKey {
    private_ssh_key(seed).public_key().clone()
}

pub(crate) fn private_ssh_key(seed: u8) -> PrivateKey {
    PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&[seed; 32])), "").unwrap()
}

pub(crate) fn tls_key() -> TlsPublicKey {
    TlsPublicKey::from_pem(&rcgen::KeyPair::generate().unwrap().public_key_pem()).unwrap()
}

pub(crate) fn verify_ssh(
    certificate: &str,
    trust: &TrustBundle,
    purpose: SshCertificatePurpose<'_>,
    at: Timestamp,
) -> Result<Verified, VerifyError> {
    verify_ssh_certificate(&Certificate::from_openssh(certificate).unwrap(), trust, purpose, at)
}

pub(crate) fn verify_x509(
    pem: &str,
    trust: &TrustBundle,
    purpose: X509Purpose,
    at: Timestamp,
) -> Result<Verified, VerifyError> {
    verify_x509_chain(&[CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()], trust, purpose, at)
}
