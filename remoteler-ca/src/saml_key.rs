//! The key with which this cluster signs its requests to one SAML identity provider, and nothing else (I1). Owns the key, its certificate and its
//! record. RSA, for there are identity providers that take nothing else.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyUsagePurpose, SerialNumber};
use remoteler_core::{ClusterName, OsEntropy, Secret, Timestamp, fill_random};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    CaError, FileSigner, KeyRing, Signer, SignerAlgorithm, SignerError, StoredKey, profile::BACKDATED, seal::Place,
    x509_authority::RcgenSigner,
};

/// A key for SAML requests as it is kept, the private half included: belongs into the auth service's store and nowhere else (I8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSamlKey {
    /// Whose.
    pub cluster: ClusterName,
    /// Of which connector.
    pub connector: String,
    /// In the clear or sealed, as those of the authorities.
    pub key: StoredKey,
    /// Its self-signed certificate, in which identity providers take the public half: base64 of DER.
    pub certificate: String,
}

impl StoredSamlKey {
    /// A new key with its certificate, in the clear.
    pub(crate) fn generate(
        cluster: &ClusterName,
        connector: &str,
        usage: KeyUsagePurpose,
        now: Timestamp,
    ) -> Result<Self, CaError> {
        let (signer, key) = FileSigner::generate(ALGORITHM)?;
        let certificate = self_signed(cluster, connector, usage, &signer, now)?;
        Ok(Self { cluster: cluster.clone(), connector: connector.into(), key: key.into(), certificate })
    }

    /// The key as PEM, and how it is kept from now on: sealed to the place of its `kind` where there is a `ring`.
    pub(crate) fn take_up(&self, kind: &'static str, ring: Option<&KeyRing>) -> Result<(Secret, Self), CaError> {
        let cluster = &self.cluster;
        let sealed = |source| CaError::Sealed { cluster: cluster.clone(), kind, source };
        let place = Place { cluster, kind, purpose: &self.connector, algorithm: ALGORITHM };
        let Some((text, key)) = self.key.take_up(&place, ring).map_err(sealed)? else {
            let what = "the key of a SAML connector is never in a PKCS#11 token";
            return Err(CaError::Stored { cluster: cluster.clone(), kind, what });
        };
        Ok((text, Self { key, ..self.clone() }))
    }
}

/// Signs the requests of one connector.
pub struct SamlSigner {
    stored: StoredSamlKey,
    signer: FileSigner,
}

impl SamlSigner {
    /// Makes a new key, with the operating system's randomness (I7), to be kept sealed when there is a `ring`. Takes a second or so: the key is RSA.
    ///
    /// # Errors
    /// [`CaError::Signer`] when the generator fails, [`CaError::Sealed`] when the key cannot be sealed, [`CaError::AuthorityCertificate`].
    pub fn generate(
        cluster: &ClusterName,
        connector: &str,
        ring: Option<&KeyRing>,
        now: Timestamp,
    ) -> Result<Self, CaError> {
        Self::open(&StoredSamlKey::generate(cluster, connector, KeyUsagePurpose::DigitalSignature, now)?, ring)
    }

    /// Takes up what [`SamlSigner::to_stored`] gave. With a `ring` it is kept sealed from now on.
    ///
    /// # Errors
    /// [`CaError`] when the key does not open or does not parse.
    pub fn open(stored: &StoredSamlKey, ring: Option<&KeyRing>) -> Result<Self, CaError> {
        let (text, stored) = stored.take_up(KIND, ring)?;
        let signer = FileSigner::from_pem(ALGORITHM, &text)?;
        Ok(Self { stored, signer })
    }

    /// The form to be kept.
    #[must_use]
    pub fn to_stored(&self) -> StoredSamlKey {
        self.stored.clone()
    }

    /// The certificate with the public half: base64 of DER.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.stored.certificate
    }

    /// Signs octets of a request: RSASSA-PKCS1-v1_5 with SHA-256.
    ///
    /// # Errors
    /// [`SignerError`] when the key did not sign.
    pub fn sign(&self, octets: &[u8]) -> Result<Vec<u8>, SignerError> {
        self.signer.sign(octets)
    }
}

impl std::fmt::Debug for SamlSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SamlSigner").field("connector", &self.stored.connector).finish_non_exhaustive()
    }
}

/// The certificate in which identity providers take the public half: base64 of DER.
fn self_signed(
    cluster: &ClusterName,
    connector: &str,
    usage: KeyUsagePurpose,
    signer: &FileSigner,
    now: Timestamp,
) -> Result<String, CaError> {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, cluster.as_str());
    name.push(DnType::CommonName, connector);
    let moment =
        |at: Timestamp| OffsetDateTime::from_unix_timestamp(at.unix_seconds()).map_err(|_| CaError::Clock(now));
    let mut serial = fill_random::<16>(&OsEntropy);
    // Positive, and never shorter (RFC 5280 section 4.1.2.2).
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x3f) | 0x40;
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = moment(now.minus(BACKDATED))?;
    params.not_after = moment(now.plus(LIFETIME))?;
    params.key_usages = vec![usage];
    let certificate = params.self_signed(&RcgenSigner(signer)).map_err(CaError::AuthorityCertificate)?;
    Ok(STANDARD.encode(certificate.der()))
}

pub(crate) const ALGORITHM: SignerAlgorithm = SignerAlgorithm::RsaSha256;
const KIND: &str = "saml";
/// How long the certificate lasts: ten years of 365.25 days. It is changed by making the connector anew.
const LIFETIME: Duration = Duration::from_secs(10 * 31_557_600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyEncryptionKey;

    #[test]
    fn a_key_stays_itself_when_it_is_sealed_and_opens_for_its_own_connector_only() {
        let cluster = ClusterName::new("root").unwrap();
        let signer = SamlSigner::generate(&cluster, "corp", None, Timestamp::from_unix_seconds(1_772_366_400)).unwrap();
        let mut octets = [7; 32];
        octets[0] = 1;
        let ring = KeyRing::new(KeyEncryptionKey::new(&octets).unwrap());
        let sealed = SamlSigner::open(&signer.to_stored(), Some(&ring)).unwrap().to_stored();
        assert!(matches!(sealed.key, StoredKey::Sealed(_)));
        let again = SamlSigner::open(&sealed, Some(&ring)).unwrap();
        assert_eq!(again.sign(b"x").unwrap(), signer.sign(b"x").unwrap());
        assert_eq!(again.certificate(), signer.certificate());
        let moved = StoredSamlKey { connector: "other".into(), ..sealed };
        assert!(matches!(SamlSigner::open(&moved, Some(&ring)), Err(CaError::Sealed { .. })));
    }
}
