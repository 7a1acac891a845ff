//! SSH certificates (OpenSSH PROTOCOL.certkeys): puts a prepared profile into ssh-key's builder and signs through the seam.

use remoteler_core::{Identity, SSH_IDENTITY_EXTENSION, ssh_identity_value};
use ssh_key::{
    Algorithm, Certificate, Signature,
    certificate::{Builder, CertType},
    public::{Ed25519PublicKey, KeyData},
};

use crate::{CaError, Signer, SshPermits, profile::Common, signer::SignerAlgorithm};

/// An Ed25519 signer in the shape that ssh-key's builder takes.
pub(crate) struct SshSigner<'a> {
    signer: &'a dyn Signer,
    public: Ed25519PublicKey,
}

impl<'a> SshSigner<'a> {
    /// Wraps `signer`; only Ed25519 keys sign SSH certificates.
    pub(crate) fn new(signer: &'a dyn Signer) -> Result<Self, CaError> {
        let public = match signer.algorithm() {
            SignerAlgorithm::Ed25519 => Ed25519PublicKey::try_from(signer.public_key()).ok(),
            SignerAlgorithm::EcdsaP256 => None,
        };
        public.map(|public| Self { signer, public }).ok_or(CaError::SshAlgorithm(signer.algorithm()))
    }

    pub(crate) fn key_data(&self) -> KeyData {
        KeyData::Ed25519(self.public)
    }
}

impl From<&SshSigner<'_>> for KeyData {
    fn from(signer: &SshSigner<'_>) -> Self {
        signer.key_data()
    }
}

impl signature::Signer<Signature> for SshSigner<'_> {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, signature::Error> {
        // This error type holds no cause without an allocation feature; which key failed is said by the caller.
        let octets = self.signer.sign(message).map_err(|_| signature::Error::new())?;
        Signature::new(Algorithm::Ed25519, octets).map_err(|_| signature::Error::new())
    }
}

/// Signs the certificate of a user, with abilities.
pub(crate) fn user(
    signer: &SshSigner<'_>,
    identity: &Identity,
    principals: impl IntoIterator<Item = String>,
    permits: SshPermits,
    common: &Common,
) -> Result<String, CaError> {
    let mut extensions = Vec::new();
    // OpenSSH wants them in lexical order; the builder sorts.
    for (name, given) in [
        ("permit-agent-forwarding", permits.agent_forwarding),
        ("permit-port-forwarding", permits.port_forwarding),
        ("permit-pty", permits.pty),
    ] {
        if given {
            extensions.push(name);
        }
    }
    issue(signer, CertType::User, identity, principals, &extensions, common)
}

/// Signs the certificate of a host.
pub(crate) fn host(
    signer: &SshSigner<'_>,
    identity: &Identity,
    principals: impl IntoIterator<Item = String>,
    common: &Common,
) -> Result<String, CaError> {
    issue(signer, CertType::Host, identity, principals, &[], common)
}

fn issue(
    signer: &SshSigner<'_>,
    cert_type: CertType,
    identity: &Identity,
    principals: impl IntoIterator<Item = String>,
    extensions: &[&str],
    common: &Common,
) -> Result<String, CaError> {
    let certificate =
        build(signer, cert_type, identity, principals, extensions, common).map_err(CaError::SshCertificate)?;
    certificate.to_openssh().map_err(CaError::SshCertificate)
}

fn build(
    signer: &SshSigner<'_>,
    cert_type: CertType,
    identity: &Identity,
    principals: impl IntoIterator<Item = String>,
    extensions: &[&str],
    common: &Common,
) -> ssh_key::Result<Certificate> {
    let valid_after = u64::try_from(common.not_before).unwrap_or(0);
    // "For ever" in SSH is the largest number; only hosts come without an end.
    let valid_before = common.not_after.map_or(u64::MAX, |end| u64::try_from(end).unwrap_or(0));
    let mut builder = Builder::new(common.ssh_nonce, common.ssh_key.key_data().clone(), valid_after, valid_before)?;
    builder.serial(common.ssh_serial)?;
    builder.cert_type(cert_type)?;
    builder.key_id(identity.subject())?;
    for principal in principals {
        builder.valid_principal(principal)?;
    }
    for name in extensions {
        builder.extension(*name, "")?;
    }
    builder.extension(SSH_IDENTITY_EXTENSION, ssh_identity_value(identity))?;
    builder.comment(format!("{}@{}", identity.subject(), identity.cluster()))?;
    builder.sign(signer)
}
