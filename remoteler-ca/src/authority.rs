//! One authority of one cluster and one kind: an SSH key and an X.509 key. Owns both and signs what was prepared for it, nothing else.

use remoteler_core::{CaKind, CaSet, ClusterName, Entropy, Timestamp};
use ring::digest::{Context, SHA256};
use ssh_key::{PublicKey, encoding::Encode, public::KeyData};

use crate::{
    FileSigner, KeyHomes, KeyRing, PreparedHost, PreparedSsh, PreparedUser, PreparedX509, ProfileError, Purpose,
    SealError, Signer, SignerAlgorithm, SignerError, StoredAuthority, Suite, TokenError,
    prepared::AuthorityId,
    profile, ssh_certificate,
    x509_authority::{self, IssuerName},
    x509_leaf,
};

/// Why an authority could not be made or did not issue. Nothing was issued in any of these cases.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// What was prepared is for another authority: of another cluster, of the other kind (I1), or a key before or after a rotation.
    #[error(
        "the {kind} authority of {cluster} does not sign what was prepared for another authority; prepare it again"
    )]
    PreparedForAnother {
        /// Whose.
        cluster: ClusterName,
        /// Which.
        kind: &'static str,
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
    /// A sealed key could not be opened, or a key not sealed.
    #[error("the {kind} authority of {cluster} cannot be opened")]
    Sealed {
        /// Whose.
        cluster: ClusterName,
        /// Which.
        kind: &'static str,
        /// Why.
        source: SealError,
    },
    /// Its keys are in a token and none was given.
    #[error(
        "the keys of the {kind} authority of {cluster} are in token {token}, and no token is configured; name it in ca_key_params"
    )]
    NoToken {
        /// Whose.
        cluster: ClusterName,
        /// Which.
        kind: &'static str,
        /// The token's label.
        token: String,
    },
    /// The token did not make, find or use its keys.
    #[error("the {kind} authority of {cluster} cannot use its token")]
    Token {
        /// Whose.
        cluster: ClusterName,
        /// Which.
        kind: &'static str,
        /// Why.
        source: TokenError,
    },
    /// The key is not of the algorithm that the authority's suite demands.
    #[error("a {suite} authority signs {what} with {expected:?}, this key is {found:?}")]
    Algorithm {
        /// The suite.
        suite: Suite,
        /// SSH or X.509.
        what: &'static str,
        /// What it should be.
        expected: SignerAlgorithm,
        /// What it is.
        found: SignerAlgorithm,
    },
    /// The SSH certificate could not be put together.
    #[error("the SSH certificate was not issued")]
    SshCertificate(#[source] ssh_key::Error),
    /// The authority's own certificate could not be put together or signed.
    #[error("the authority's own X.509 certificate was not made")]
    AuthorityCertificate(#[source] rcgen::Error),
    /// A revoked serial that no certificate of ours has.
    #[error("a serial of {0} octets, or of zeros, is no certificate's; 1 to 20 octets are possible")]
    RevokedSerial(usize),
    /// The revocation list could not be put together or signed.
    #[error("the X.509 revocation list was not made")]
    RevocationList(#[source] rcgen::Error),
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

/// The user authority or the host authority of one cluster. One key never serves two purposes (I1).
///
/// Signing blocks for as long as its [`Signer`]s do: 30 µs in memory, milliseconds in a token. Asynchronous callers whose keys are in a token
/// put `issue_*` on a thread for blocking work.
pub struct Authority {
    stored: StoredAuthority,
    ssh: Box<dyn Signer>,
    x509: Box<dyn Signer>,
    ssh_public: KeyData,
    certificate: Vec<u8>,
    issuer: IssuerName,
    id: AuthorityId,
}

impl Authority {
    /// Makes new keys of the default suite, with the operating system's randomness, and a certificate of ten years; `entropy` gives its serial.
    ///
    /// # Errors
    /// [`CaError::Signer`] when the generator fails, [`CaError::Clock`] for a `now` that no certificate can express.
    pub fn generate(
        cluster: &ClusterName,
        kind: CaKind,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Self, CaError> {
        Self::generate_with(cluster, kind, Suite::default(), now, entropy)
    }

    /// Like [`Authority::generate`], with keys of `suite`.
    ///
    /// # Errors
    /// As [`Authority::generate`].
    pub fn generate_with(
        cluster: &ClusterName,
        kind: CaKind,
        suite: Suite,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Self, CaError> {
        let (ssh, ssh_key) = FileSigner::generate(suite.ssh())?;
        let (x509, x509_key) = FileSigner::generate(suite.x509())?;
        let certificate = x509_authority::self_signed(&x509, cluster, kind, now, profile::x509_serial(entropy))?;
        let stored = StoredAuthority {
            cluster: cluster.clone(),
            kind,
            suite,
            ssh_key: ssh_key.into(),
            x509_key: x509_key.into(),
            x509_certificate: certificate_pem(certificate),
        };
        Self::new(stored, Box::new(ssh), Box::new(x509))
    }

    /// Takes up what [`Authority::to_stored`] gave, where the keys are not sealed.
    ///
    /// # Errors
    /// [`CaError`] when a key is sealed or does not parse, or the parts do not belong together.
    pub fn from_stored(stored: &StoredAuthority) -> Result<Self, CaError> {
        Self::open(stored, KeyHomes::default())
    }

    /// Takes up a stored authority whose keys may be sealed with a key of `ring`. The opened keys are held by the signers only:
    /// [`Authority::to_stored`] gives the sealed form.
    ///
    /// # Errors
    /// [`CaError::Sealed`] when the ring does not open them; else as [`Authority::from_stored`].
    pub fn from_sealed(stored: &StoredAuthority, ring: &KeyRing) -> Result<Self, CaError> {
        Self::open(stored, KeyHomes { ring: Some(ring), token: None })
    }

    /// Puts an authority together from its public record and the two keys, wherever they are.
    ///
    /// # Errors
    /// [`CaError`] when the parts do not belong together.
    pub fn from_signers(stored: StoredAuthority, ssh: Box<dyn Signer>, x509: Box<dyn Signer>) -> Result<Self, CaError> {
        Self::new(stored, ssh, x509)
    }

    fn new(stored: StoredAuthority, ssh: Box<dyn Signer>, x509: Box<dyn Signer>) -> Result<Self, CaError> {
        let suite = stored.suite;
        for (what, expected, found) in
            [("SSH", suite.ssh(), ssh.algorithm()), ("X.509", suite.x509(), x509.algorithm())]
        {
            if expected != found {
                return Err(CaError::Algorithm { suite, what, expected, found });
            }
        }
        let damaged = |what| CaError::Stored { cluster: stored.cluster.clone(), kind: stored.kind.as_str(), what };
        let ssh_public = ssh_certificate::key_data(&*ssh).ok_or_else(|| damaged("its SSH key is none"))?;
        let block = pem::parse(&stored.x509_certificate).map_err(|_| damaged("its X.509 certificate is no PEM"))?;
        let certificate = block.into_contents();
        let issuer = x509_authority::issuer_name(&certificate, &*x509, &stored.cluster, stored.kind)?;
        let mut digest = Context::new(&SHA256);
        digest.update(&certificate);
        digest.update(&ssh_public.encode_vec().map_err(|_| damaged("its SSH key does not encode"))?);
        let mut id = [0; 32];
        id.copy_from_slice(digest.finish().as_ref()); // a SHA-256 digest has 32 octets
        Ok(Self { stored, ssh, x509, ssh_public, certificate, issuer, id: AuthorityId(id) })
    }

    /// The form to be kept, private keys included where they are in memory.
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

    /// With which algorithms.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.stored.suite
    }

    /// The public halves, as a trust bundle takes them.
    #[must_use]
    pub fn public(&self) -> CaSet {
        let ssh = PublicKey::new(self.ssh_public.clone(), format!("{} {} CA", self.cluster(), self.kind().as_str()));
        CaSet { ssh: vec![ssh], x509: vec![self.certificate.clone()] }
    }

    /// The X.509 certificate as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.stored.x509_certificate
    }

    pub(crate) const fn stored(&self) -> &StoredAuthority {
        &self.stored
    }

    pub(crate) const fn id(&self) -> AuthorityId {
        self.id
    }

    pub(crate) const fn ssh_public(&self) -> &KeyData {
        &self.ssh_public
    }

    pub(crate) const fn issuer(&self) -> &IssuerName {
        &self.issuer
    }

    pub(crate) fn x509_signer(&self) -> &dyn Signer {
        &*self.x509
    }

    pub(crate) fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// Whether it may sign this at all: the kind (I1) and, where an identity names one, the cluster (I12).
    pub(crate) fn check(&self, purpose: Purpose, cluster: Option<&ClusterName>) -> Result<(), ProfileError> {
        if self.kind() != purpose.authority() {
            return Err(ProfileError::WrongKind {
                cluster: self.cluster().clone(),
                authority: self.kind().as_str(),
                wanted: purpose.as_str(),
            });
        }
        match cluster {
            Some(named) if named != self.cluster() => {
                Err(ProfileError::WrongCluster { authority: self.cluster().clone(), named: named.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Signs the certificates of a user.
    ///
    /// # Errors
    /// [`CaError::PreparedForAnother`] when it was not prepared for this authority, the others when a key does not sign.
    pub fn issue_user(&self, prepared: PreparedUser) -> Result<IssuedUser, CaError> {
        let PreparedUser { ssh, x509, .. } = prepared;
        Ok(IssuedUser { ssh_certificate: self.issue_ssh(ssh)?, tls_certificate_pem: self.issue_x509(x509)? })
    }

    /// Signs the certificates of a host.
    ///
    /// # Errors
    /// As [`Authority::issue_user`].
    pub fn issue_host(&self, prepared: PreparedHost) -> Result<IssuedHost, CaError> {
        let PreparedHost { ssh, x509, .. } = prepared;
        Ok(IssuedHost { ssh_certificate: self.issue_ssh(ssh)?, tls_certificate_pem: self.issue_x509(x509)? })
    }

    /// Signs one SSH certificate: OpenSSH's one-line form.
    ///
    /// # Errors
    /// As [`Authority::issue_user`].
    pub fn issue_ssh(&self, prepared: PreparedSsh) -> Result<String, CaError> {
        self.check_prepared(prepared.authority)?;
        let PreparedSsh { to_be_signed, subject_type, comment, .. } = prepared;
        let signature = self.ssh.sign(&to_be_signed)?;
        ssh_certificate::assemble(&to_be_signed, &subject_type, &comment, self.ssh.algorithm(), signature)
            .map_err(CaError::SshCertificate)
    }

    /// Signs one X.509 certificate: PEM.
    ///
    /// # Errors
    /// As [`Authority::issue_user`].
    pub fn issue_x509(&self, prepared: PreparedX509) -> Result<String, CaError> {
        self.check_prepared(prepared.authority)?;
        let signature = self.x509.sign(&prepared.to_be_signed)?;
        Ok(certificate_pem(x509_leaf::assemble(&prepared.to_be_signed, self.x509.algorithm(), &signature)))
    }

    fn check_prepared(&self, authority: AuthorityId) -> Result<(), CaError> {
        if authority == self.id {
            return Ok(());
        }
        Err(CaError::PreparedForAnother { cluster: self.cluster().clone(), kind: self.kind().as_str() })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("cluster", self.cluster()).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

pub(crate) fn sealed(stored: &StoredAuthority, source: SealError) -> CaError {
    CaError::Sealed { cluster: stored.cluster.clone(), kind: stored.kind.as_str(), source }
}

pub(crate) fn certificate_pem(der: Vec<u8>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
}

#[cfg(test)]
mod tests {
    use remoteler_core::{Login, OsEntropy, UserIdentity, UserName};
    use ssh_key::{
        PrivateKey,
        private::{Ed25519Keypair, KeypairData},
    };

    use super::*;
    use crate::{SshPermits, TlsPublicKey, UserProfile};

    /// A token that was pulled out.
    struct Gone(Box<dyn Signer>);

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
        for ssh_is_gone in [true, false] {
            let authority = Authority::generate(&cluster, CaKind::User, now, &OsEntropy).unwrap();
            let authority = if ssh_is_gone {
                Authority { ssh: Box::new(Gone(authority.ssh)), ..authority }
            } else {
                Authority { x509: Box::new(Gone(authority.x509)), ..authority }
            };
            let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&[7; 32]));
            let profile = UserProfile {
                identity: UserIdentity {
                    user: UserName::new("ann").unwrap(),
                    cluster: cluster.clone(),
                    roles: [].into(),
                    traits: [].into(),
                    logins: vec![Login::new("root").unwrap()],
                },
                ssh_key: PrivateKey::new(pair, "").unwrap().public_key().clone(),
                tls_key: TlsPublicKey::from_pem(&rcgen::KeyPair::generate().unwrap().public_key_pem()).unwrap(),
                permits: SshPermits::default(),
                not_after: now.plus(std::time::Duration::from_secs(60)),
            };
            let prepared = profile.prepare(&authority, now, &OsEntropy).unwrap();
            assert!(matches!(authority.issue_user(prepared), Err(CaError::Signer(_))), "{ssh_is_gone}");
        }
    }

    #[test]
    fn a_key_of_another_algorithm_than_the_suites_makes_no_authority() {
        let cluster = ClusterName::new("root").unwrap();
        let now = Timestamp::from_unix_seconds(1_772_366_400);
        let authority = Authority::generate(&cluster, CaKind::User, now, &OsEntropy).unwrap();
        let (ecdsa, _) = FileSigner::generate(SignerAlgorithm::EcdsaP256).unwrap();
        let refused = Authority::new(authority.stored, Box::new(ecdsa), authority.x509);
        assert!(matches!(refused, Err(CaError::Algorithm { what: "SSH", .. }))); // I7
    }
}
