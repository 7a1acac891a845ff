//! The authorities of a test's cluster, and certificates for whoever takes part. Owns keys that are good for nothing else.

use std::collections::BTreeSet;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use remoteler_core::{
    CaSet, ClusterName, HostId, HostIdentity, Identity, NodeName, SystemRole, TrustBundle, UserIdentity, UserName,
    X509_IDENTITY_OID, x509_naming,
};
use rustls::pki_types::PrivateKeyDer;

use crate::tls::TlsIdentity;

/// User and host authority of one cluster.
pub struct Authorities {
    cluster: ClusterName,
    user: CertifiedIssuer<'static, KeyPair>,
    host: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authorities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorities").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Authorities {
    /// New ones.
    ///
    /// # Panics
    /// When `cluster` is no name of a cluster.
    #[must_use]
    pub fn new(cluster: &str) -> Self {
        let cluster = ClusterName::new(cluster).expect("the test names its cluster well");
        Self { cluster, user: authority("user"), host: authority("host") }
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Whom members of the cluster believe.
    #[must_use]
    pub fn trust(&self) -> TrustBundle {
        let set = |issuer: &CertifiedIssuer<'_, KeyPair>| CaSet { ssh: Vec::new(), x509: vec![issuer.der().to_vec()] };
        TrustBundle::new(self.cluster.clone(), set(&self.user), set(&self.host))
    }

    /// A host, with an id made of its name.
    ///
    /// # Panics
    /// When `name` is no name of a host.
    #[must_use]
    pub fn host_identity(&self, name: &str, roles: &[SystemRole]) -> HostIdentity {
        let mut id: u128 = 0xcbf2_9ce4_8422_2325;
        for octet in name.bytes() {
            id = (id ^ u128::from(octet)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
        // Version 4, variant of RFC 9562.
        let id = (id & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let text = format!("{id:032x}");
        let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        let text = format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32));
        HostIdentity {
            id: text.parse::<HostId>().expect("thirty-two hex digits in groups"),
            name: NodeName::new(name).expect("the test names its hosts well"),
            cluster: self.cluster.clone(),
            roles: roles.iter().copied().collect(),
            kube_clusters: BTreeSet::new(),
            apps: Default::default(),
            labels: Default::default(),
            generation: 0,
        }
    }

    /// A host's certificate and key, good until 2030.
    #[must_use]
    pub fn host(&self, identity: &HostIdentity) -> TlsIdentity {
        leaf(&self.host, &Identity::Host(identity.clone()))
    }

    /// A user's certificate and key, good until 2030.
    ///
    /// # Panics
    /// When `name` is no name of a user.
    #[must_use]
    pub fn user(&self, name: &str) -> TlsIdentity {
        let identity = UserIdentity {
            user: UserName::new(name).expect("the test names its users well"),
            cluster: self.cluster.clone(),
            roles: BTreeSet::new(),
            traits: Default::default(),
            logins: Vec::new(),
        };
        leaf(&self.user, &Identity::User(identity))
    }
}

fn leaf(issuer: &CertifiedIssuer<'static, KeyPair>, identity: &Identity) -> TlsIdentity {
    let naming = x509_naming(identity);
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names cannot be wrong");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, naming.common_name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&X509_IDENTITY_OID, naming.extension)];
    let key = KeyPair::generate().expect("this machine has randomness");
    let certificate = params.signed_by(&key, issuer).expect("the authority signs");
    let chain = vec![certificate.der().clone(), issuer.der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("rcgen writes PKCS #8");
    TlsIdentity::new(chain, key).expect("the key is that of the certificate")
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names cannot be wrong");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("this machine has randomness");
    CertifiedIssuer::self_signed(params, key).expect("an authority signs itself")
}
