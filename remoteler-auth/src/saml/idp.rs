//! Keys of an identity provider, as its configuration or metadata has them: in certificates. Owns what makes a key one that is believed. A
//! certificate is only what a key comes in: nobody's signature on it is asked for, its dates are.

use base64::{Engine, engine::general_purpose::STANDARD};
use remoteler_core::Timestamp;
use ring::signature::UnparsedPublicKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::algorithm::{KeyKind, SignatureAlgorithm};

/// Most keys of one identity provider: one, and another while it changes them, and some more.
pub(crate) const MAX_KEYS: usize = 8;
/// Largest certificate, in octets of DER.
const MAX_CERTIFICATE: usize = 16 * 1024;

/// Why a certificate's key is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdpKeyError {
    /// Neither PEM nor base64 of a certificate.
    #[error("the identity provider's certificate does not parse; give it as PEM, or as base64 of DER")]
    Malformed,
    /// Another key than RSA of 2048 to 8192 bits, or ECDSA on P-256 or P-384.
    #[error("the identity provider's key is {0}; RSA of 2048 to 8192 bits and ECDSA on P-256 or P-384 are believed")]
    Key(&'static str),
}

/// A key that signs what an identity provider says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdpKey {
    kind: KeyKind,
    /// As ring takes it: an `RSAPublicKey`, or a point.
    public: Box<[u8]>,
    from: Timestamp,
    until: Timestamp,
}

impl IdpKey {
    /// Reads one certificate: PEM, or base64 of DER as it stands in metadata.
    ///
    /// # Errors
    /// [`IdpKeyError`]
    pub fn from_certificate(text: &str) -> Result<Self, IdpKeyError> {
        if text.len() > 2 * MAX_CERTIFICATE {
            return Err(IdpKeyError::Malformed);
        }
        let der = if text.contains("-----BEGIN") {
            let block = pem::parse(text).map_err(|_| IdpKeyError::Malformed)?;
            if block.tag() != "CERTIFICATE" {
                return Err(IdpKeyError::Malformed);
            }
            block.into_contents()
        } else {
            let joined: String = text.split_ascii_whitespace().collect();
            STANDARD.decode(joined).map_err(|_| IdpKeyError::Malformed)?
        };
        Self::from_der(&der)
    }

    fn from_der(der: &[u8]) -> Result<Self, IdpKeyError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| IdpKeyError::Malformed)?;
        if !rest.is_empty() {
            return Err(IdpKeyError::Malformed);
        }
        let key = certificate.public_key();
        let algorithm = key.algorithm.algorithm.to_id_string();
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let curve = curve.map(|oid| oid.to_id_string());
        let public = &key.subject_public_key.data;
        let kind = match (algorithm.as_str(), curve.as_deref()) {
            (RSA, _) => match rsa_bits(public) {
                Some(2048..=8192) => KeyKind::Rsa,
                Some(_) => return Err(IdpKeyError::Key("RSA of another size")),
                None => return Err(IdpKeyError::Malformed),
            },
            (EC, Some(P256)) => KeyKind::P256,
            (EC, Some(P384)) => KeyKind::P384,
            (EC, _) => return Err(IdpKeyError::Key("ECDSA on another curve")),
            _ => return Err(IdpKeyError::Key("of another kind")),
        };
        let validity = certificate.validity();
        Ok(Self {
            kind,
            public: public.to_vec().into(),
            from: Timestamp::from_unix_seconds(validity.not_before.timestamp()),
            until: Timestamp::from_unix_seconds(validity.not_after.timestamp()),
        })
    }

    /// Whether it counts at `now`.
    pub(crate) fn is_current(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.until
    }

    /// When its certificate ends.
    #[must_use]
    pub const fn until(&self) -> Timestamp {
        self.until
    }

    /// Whether `signature` on `message` was made with it.
    pub(crate) fn made(&self, algorithm: SignatureAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        algorithm.key_kind() == self.kind
            && UnparsedPublicKey::new(algorithm.verifier(), &self.public).verify(message, signature).is_ok()
    }
}

/// Bits of the modulus in an `RSAPublicKey` (RFC 8017 appendix A.1.1).
fn rsa_bits(public: &[u8]) -> Option<usize> {
    let (_, key) = x509_parser::public_key::RSAPublicKey::from_der(public).ok()?;
    let modulus: Vec<u8> = key.modulus.iter().copied().skip_while(|octet| *octet == 0).collect();
    let first = modulus.first()?;
    Some(modulus.len() * 8 - first.leading_zeros() as usize)
}

const RSA: &str = "1.2.840.113549.1.1.1";
const EC: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
