//! One authority of one cluster and one purpose: an SSH key and an X.509 key. Owns both and signs what was prepared, nothing else.

use remoteler_core::{CaKind, CaSet, ClusterName, Entropy, Identity, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use ssh_key::PublicKey;

use crate::{
    FileSigner, PreparedHost, PreparedUser, Signer, SignerAlgorithm, SignerError, profile, ssh_certificate,
    ssh_certificate::SshSigner,
    x509_authority::{self, IssuerName},
    x509_leaf,
};

/// Why an authority could not be made or did not issue. Nothing was issued in any of these cases.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// A user certificate was asked of a host authority, or the other way round (I1).
    #[error("the {authority} authority of {cluster} does not issue certificates to a {wanted}")]
    WrongKind {
        /// Whose.
        cluster: ClusterName,
        /// What it is.
        authority: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The identity is of another cluster (I12).
    #[error("the authority of {authority} does not issue certificates that name cluster {named}")]
    WrongCluster {
        /// Whose.
        authority: ClusterName,
        /// In the identity.
        named: ClusterName,
    },
    /// What is stored does not fit together.
    #[error("the stored {kind} authority of {cluster} is damaged: {what}; restore it from a backup")]
    Stored {
        /// Whose.
        cluster: ClusterName,
        /// Which.
        kind: &'static str,
        /// What does not fit.
        what: &'static str,
    },
    /// A key could not be made, read or used.
    #[error("the authority's key failed")]
    Signer(#[from] SignerError),
    /// SSH certificates are signed with Ed25519 only.
    #[error("an SSH authority needs an Ed25519 key, this one is {0:?}")]
    SshAlgorithm(SignerAlgorithm),
    /// The SSH certificate could not be put together or signed.
    #[error("the SSH certificate was not issued")]
    SshCertificate(#[source] ssh_key::Error),
    /// The authority's own certificate could not be put together or signed.
    #[error("the authority's own X.509 certificate was not made")]
    AuthorityCertificate(#[source] rcgen::Error),
    /// The clock shows a time that certificates cannot express.
    #[error("{0} cannot be expressed in a certificate; set this machine's clock right")]
    Clock(Timestamp),
}

/// Certificates of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedUser {
    /// OpenSSH's one-line form.
    pub ssh_certificate: String,
    /// PEM.
    pub tls_certificate_pem: String,
}

/// Certificates of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedHost {
    /// OpenSSH's one-line form.
    pub ssh_certificate: String,
    /// PEM.
    pub tls_certificate_pem: String,
}

/// An authority as it is kept, private keys included: belongs into the auth service's store and nowhere else (I8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredAuthority {
    /// Whose.
    pub cluster: ClusterName,
    /// For what.
    pub kind: CaKind,
    /// Ed25519 key that signs SSH certificates: PEM of PKCS#8.
    pub ssh_key: Secret,
    /// P-256 key that signs X.509 certificates: PEM of PKCS#8.
    pub x509_key: Secret,
    /// The self-signed certificate of `x509_key`: PEM.
    pub x509_certificate: String,
}

/// The user authority or the host authority of one cluster. One key never serves two purposes (I1).
pub struct Authority {
    stored: StoredAuthority,
    ssh: Box<dyn Signer>,
    x509: Box<dyn Signer>,
    certificate: Vec<u8>,
    issuer: IssuerName,
}

impl Authority {
    /// Makes new keys, with the operating system's randomness, and a certificate of ten years; `entropy` gives its serial.
    ///
    /// # Errors
    /// [`CaError::Signer`] when the generator fails, [`CaError::Clock`] for a `now` that no certificate can express.
    pub fn generate(
        cluster: &ClusterName,
        kind: CaKind,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Self, CaError> {
        let (ssh, ssh_key) = FileSigner::generate(SignerAlgorithm::Ed25519)?;
        let (x509, x509_key) = FileSigner::generate(SignerAlgorithm::EcdsaP256)?;
        let certificate = x509_authority::self_signed(&x509, cluster, kind, now, profile::x509_serial(entropy))?;
        let x509_certificate = certificate_pem(certificate.clone());
        let stored = StoredAuthority { cluster: cluster.clone(), kind, ssh_key, x509_key, x509_certificate };
        Self::new(stored, Box::new(ssh), Box::new(x509), certificate)
    }

    /// Takes up what [`Authority::to_stored`] gave.
    ///
    /// # Errors
    /// [`CaError`] when a key does not parse or the parts do not belong together.
    pub fn from_stored(stored: &StoredAuthority) -> Result<Self, CaError> {
        let ssh = FileSigner::from_pem(SignerAlgorithm::Ed25519, &stored.ssh_key)?;
        let x509 = FileSigner::from_pem(SignerAlgorithm::EcdsaP256, &stored.x509_key)?;
        let block = pem::parse(&stored.x509_certificate).map_err(|_| CaError::Stored {
            cluster: stored.cluster.clone(),
            kind: stored.kind.as_str(),
            what: "its X.509 certificate is no PEM",
        })?;
        Self::new(stored.clone(), Box::new(ssh), Box::new(x509), block.into_contents())
    }

    fn new(
        stored: StoredAuthority,
        ssh: Box<dyn Signer>,
        x509: Box<dyn Signer>,
        certificate: Vec<u8>,
    ) -> Result<Self, CaError> {
        SshSigner::new(&*ssh)?;
        let issuer = x509_authority::issuer_name(&certificate, &*x509, &stored.cluster, stored.kind)?;
        Ok(Self { stored, ssh, x509, certificate, issuer })
    }

    /// The form to be kept, private keys included.
    #[must_use]
    pub fn to_stored(&self) -> StoredAuthority {
        self.stored.clone()
    }

    /// Whose it is.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterName {
        &self.stored.cluster
    }

    /// What it signs.
    #[must_use]
    pub const fn kind(&self) -> CaKind {
        self.stored.kind
    }

    /// The public halves, as a trust bundle takes them.
    #[must_use]
    pub fn public(&self) -> CaSet {
        // The key was accepted by `new`, so this never gives an empty list.
        let ssh = SshSigner::new(&*self.ssh)
            .map(|signer| PublicKey::new(signer.key_data(), format!("{} {} CA", self.cluster(), self.kind().as_str())));
        CaSet { ssh: ssh.into_iter().collect(), x509: vec![self.certificate.clone()] }
    }

    /// The X.509 certificate as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.stored.x509_certificate
    }

    /// Signs the certificates of a user.
    ///
    /// # Errors
    /// [`CaError::WrongKind`] by a host authority, [`CaError::WrongCluster`] for an identity of another cluster, the others when a
    /// key does not sign.
    pub fn issue_user(&self, prepared: PreparedUser) -> Result<IssuedUser, CaError> {
        let PreparedUser { identity, permits, common } = prepared;
        let principals: Vec<String> = identity.logins.iter().map(ToString::to_string).collect();
        let identity = Identity::User(identity);
        self.check(CaKind::User, &identity)?;
        let ssh_certificate =
            ssh_certificate::user(&SshSigner::new(&*self.ssh)?, &identity, principals, permits, &common)?;
        let tls = x509_leaf::user(&*self.x509, &self.issuer, &identity, &common)?;
        Ok(IssuedUser { ssh_certificate, tls_certificate_pem: certificate_pem(tls) })
    }

    /// Signs the certificates of a host.
    ///
    /// # Errors
    /// As [`Authority::issue_user`], by a user authority.
    pub fn issue_host(&self, prepared: PreparedHost) -> Result<IssuedHost, CaError> {
        let PreparedHost { identity, common } = prepared;
        let (principals, dns_names) = (identity.principals(), identity.dns_names());
        let identity = Identity::Host(identity);
        self.check(CaKind::Host, &identity)?;
        let ssh_certificate = ssh_certificate::host(&SshSigner::new(&*self.ssh)?, &identity, principals, &common)?;
        let tls = x509_leaf::host(&*self.x509, &self.issuer, &identity, &dns_names, &common)?;
        Ok(IssuedHost { ssh_certificate, tls_certificate_pem: certificate_pem(tls) })
    }

    fn check(&self, wanted: CaKind, identity: &Identity) -> Result<(), CaError> {
        if self.kind() != wanted {
            return Err(CaError::WrongKind {
                cluster: self.cluster().clone(),
                authority: self.kind().as_str(),
                wanted: wanted.as_str(),
            });
        }
        if identity.cluster() != self.cluster() {
            return Err(CaError::WrongCluster { authority: self.cluster().clone(), named: identity.cluster().clone() });
        }
        Ok(())
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("cluster", self.cluster()).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

fn certificate_pem(der: Vec<u8>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
}

#[cfg(test)]
mod tests {
    use remoteler_core::{Login, OsEntropy, UserIdentity, UserName};

    use super::*;
    use crate::{SshPermits, TlsPublicKey, UserProfile};

    /// A token that was pulled out.
    struct Gone(FileSigner);

    impl Signer for Gone {
        fn algorithm(&self) -> SignerAlgorithm {
            self.0.algorithm()
        }

        fn public_key(&self) -> &[u8] {
            self.0.public_key()
        }

        fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, SignerError> {
            Err(SignerError::Failed(self.algorithm()))
        }
    }

    #[test]
    fn a_key_that_does_not_sign_issues_nothing() {
        let cluster = ClusterName::new("root").unwrap();
        let now = Timestamp::from_unix_seconds(1_772_366_400);
        for gone in [SignerAlgorithm::Ed25519, SignerAlgorithm::EcdsaP256] {
            let mut authority = Authority::generate(&cluster, CaKind::User, now, &OsEntropy).unwrap();
            let stored = authority.to_stored();
            match gone {
                SignerAlgorithm::Ed25519 => {
                    authority.ssh = Box::new(Gone(FileSigner::from_pem(gone, &stored.ssh_key).unwrap()));
                }
                SignerAlgorithm::EcdsaP256 => {
                    authority.x509 = Box::new(Gone(FileSigner::from_pem(gone, &stored.x509_key).unwrap()));
                }
            }
            let profile = UserProfile {
                identity: UserIdentity {
                    user: UserName::new("ann").unwrap(),
                    cluster: cluster.clone(),
                    roles: [].into(),
                    traits: [].into(),
                    logins: vec![Login::new("root").unwrap()],
                },
                ssh_key: authority.public().ssh.remove(0),
                tls_key: TlsPublicKey::from_pem(&rcgen::KeyPair::generate().unwrap().public_key_pem()).unwrap(),
                permits: SshPermits::default(),
                not_after: now.plus(std::time::Duration::from_secs(60)),
            };
            let prepared = profile.prepare(now, &OsEntropy).unwrap();
            assert!(authority.issue_user(prepared).is_err(), "{gone:?}");
        }
    }

    #[test]
    fn only_an_ed25519_key_becomes_an_ssh_authority() {
        let cluster = ClusterName::new("root").unwrap();
        let now = Timestamp::from_unix_seconds(1_772_366_400);
        let authority = Authority::generate(&cluster, CaKind::User, now, &OsEntropy).unwrap();
        let (ecdsa, _) = FileSigner::generate(SignerAlgorithm::EcdsaP256).unwrap();
        let refused = Authority::new(authority.stored, Box::new(ecdsa), authority.x509, authority.certificate);
        assert!(matches!(refused, Err(CaError::SshAlgorithm(SignerAlgorithm::EcdsaP256)))); // I7
    }
}
