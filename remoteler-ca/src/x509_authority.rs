//! The X.509 certificate of an authority: self-signed, ten years, one purpose, no authorities below it.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519, PKCS_RSA_SHA256, PKCS_RSA_SHA512, PublicKeyData, SerialNumber, SignatureAlgorithm, SigningKey,
};
use remoteler_core::{CaKind, ClusterName, Timestamp};
use time::OffsetDateTime;
use x509_parser::{extensions::ParsedExtension, prelude::FromDer, x509::X509Name};

use crate::{CaError, Signer, profile::BACKDATED, signer::SignerAlgorithm};

/// How long an authority's certificate lasts: ten years of 365.25 days.
const LIFETIME: Duration = Duration::from_secs(10 * 31_557_600);

/// What leafs take over from their authority's certificate.
#[derive(Clone, Debug)]
pub(crate) struct IssuerName {
    /// DER of the subject, copied octet for octet: path building compares it so.
    pub(crate) name: Vec<u8>,
    /// SubjectKeyIdentifier.
    pub(crate) key_id: Vec<u8>,
    /// What it signs with.
    pub(crate) algorithm: SignerAlgorithm,
    /// The key, in the form of [`SignerAlgorithm`]; no leaf may have the same.
    pub(crate) public_key: Vec<u8>,
}

/// Makes the certificate, in DER.
pub(crate) fn self_signed(
    signer: &dyn Signer,
    cluster: &ClusterName,
    kind: CaKind,
    now: Timestamp,
    serial: [u8; 16],
) -> Result<Vec<u8>, CaError> {
    let moment =
        |at: Timestamp| OffsetDateTime::from_unix_timestamp(at.unix_seconds()).map_err(|_| CaError::Clock(now));
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, cluster.as_str());
    name.push(DnType::CommonName, common_name(cluster, kind));
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = moment(now.minus(BACKDATED))?;
    params.not_after = moment(now.plus(LIFETIME))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&RcgenSigner(signer)).map_err(CaError::AuthorityCertificate)?;
    Ok(certificate.der().to_vec())
}

/// Reads back what [`self_signed`] made and checks that it belongs to this key, cluster and purpose.
pub(crate) fn issuer_name(
    certificate: &[u8],
    signer: &dyn Signer,
    cluster: &ClusterName,
    kind: CaKind,
) -> Result<IssuerName, CaError> {
    let mismatch = |what| CaError::Stored { cluster: cluster.clone(), kind: kind.as_str(), what };
    let (rest, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate)
        .map_err(|_| mismatch("its X.509 certificate does not parse"))?;
    if !rest.is_empty() {
        return Err(mismatch("octets follow its X.509 certificate"));
    }
    if parsed.public_key().subject_public_key.data.as_ref() != signer.public_key() {
        return Err(mismatch("its X.509 certificate is for another key"));
    }
    if sole_common_name(parsed.subject()) != Some(common_name(cluster, kind).as_str()) {
        return Err(mismatch("its X.509 certificate is for another cluster or purpose"));
    }
    let key_id = parsed.extensions().iter().find_map(|extension| {
        if let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() {
            return Some(id.0.to_vec());
        }
        None
    });
    let key_id = key_id.ok_or_else(|| mismatch("its X.509 certificate has no key identifier"))?;
    let name = parsed.subject().as_raw().to_vec();
    Ok(IssuerName { name, key_id, algorithm: signer.algorithm(), public_key: signer.public_key().to_vec() })
}

fn common_name(cluster: &ClusterName, kind: CaKind) -> String {
    format!("{cluster} {} CA", kind.as_str())
}

fn sole_common_name<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    let mut names = name.iter_common_name();
    let first = names.next()?.as_str().ok()?;
    names.next().is_none().then_some(first)
}

/// A signer in the shape that rcgen takes.
pub(crate) struct RcgenSigner<'a>(pub(crate) &'a dyn Signer);

impl PublicKeyData for RcgenSigner<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.0.algorithm() {
            SignerAlgorithm::Ed25519 => &PKCS_ED25519,
            SignerAlgorithm::EcdsaP256 => &PKCS_ECDSA_P256_SHA256,
            SignerAlgorithm::RsaSha256 => &PKCS_RSA_SHA256,
            SignerAlgorithm::RsaSha512 => &PKCS_RSA_SHA512,
        }
    }
}

impl SigningKey for RcgenSigner<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
