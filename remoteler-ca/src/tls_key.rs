//! The public key of a TLS certificate's holder, checked against the exact list before anything is computed with it (I7).

use x509_parser::{
    asn1_rs::FromDer,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
    },
    public_key::RSAPublicKey,
    x509::SubjectPublicKeyInfo,
};

/// A SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7) of a key that is certified: ECDSA on P-256 or P-384, Ed25519, or RSA of 2048 to
/// 8192 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPublicKey {
    der: Vec<u8>,
}

/// Why a key is not certified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsKeyError {
    /// Not PEM of a public key.
    #[error("the TLS public key does not parse: {0}; PEM with BEGIN PUBLIC KEY is expected")]
    Malformed(String),
    /// An algorithm or size outside the list.
    #[error("the TLS public key is {0}; ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits is needed")]
    Algorithm(String),
}

impl TlsPublicKey {
    /// Reads PEM with `BEGIN PUBLIC KEY` (RFC 7468 section 13).
    ///
    /// # Errors
    /// [`TlsKeyError`] for anything else, and for keys outside the list.
    pub fn from_pem(text: &str) -> Result<Self, TlsKeyError> {
        if text.len() > MAX_PEM {
            return Err(TlsKeyError::Malformed(format!("{} octets are too many", text.len())));
        }
        let block = pem::parse(text).map_err(|cause| TlsKeyError::Malformed(cause.to_string()))?;
        if block.tag() != "PUBLIC KEY" {
            return Err(TlsKeyError::Malformed("another kind of PEM block".into()));
        }
        Self::from_der(block.contents())
    }

    /// Reads DER of a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// As [`TlsPublicKey::from_pem`].
    pub fn from_der(der: &[u8]) -> Result<Self, TlsKeyError> {
        let (rest, info) =
            SubjectPublicKeyInfo::from_der(der).map_err(|cause| TlsKeyError::Malformed(cause.to_string()))?;
        if !rest.is_empty() || info.subject_public_key.unused_bits != 0 {
            return Err(TlsKeyError::Malformed("octets follow the key".into()));
        }
        let key = info.subject_public_key.data.as_ref();
        let parameters = info.algorithm.parameters.as_ref();
        let oid = &info.algorithm.algorithm;
        if *oid == OID_SIG_ED25519 {
            return match (parameters, key.len()) {
                (None, 32) => Ok(Self { der: der.to_vec() }),
                _ => Err(TlsKeyError::Malformed("an Ed25519 key has 32 octets and no parameters".into())),
            };
        }
        if *oid == OID_KEY_TYPE_EC_PUBLIC_KEY {
            let curve = parameters.and_then(|any| any.as_oid().ok());
            let octets = match curve {
                Some(curve) if curve == OID_EC_P256 => 65,
                Some(curve) if curve == OID_NIST_EC_P384 => 97,
                _ => return Err(TlsKeyError::Algorithm("ECDSA on another curve".into())),
            };
            return if key.len() == octets && key.first() == Some(&4) {
                Ok(Self { der: der.to_vec() })
            } else {
                Err(TlsKeyError::Malformed("an uncompressed point is expected".into()))
            };
        }
        if *oid == OID_PKCS1_RSAENCRYPTION {
            check_rsa(key)?;
            return Ok(Self { der: der.to_vec() });
        }
        Err(TlsKeyError::Algorithm(format!("of algorithm {oid}")))
    }

    /// The SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }
}

fn check_rsa(key: &[u8]) -> Result<(), TlsKeyError> {
    let malformed = || TlsKeyError::Malformed("not an RSA public key".into());
    let (rest, rsa) = RSAPublicKey::from_der(key).map_err(|_| malformed())?;
    if !rest.is_empty() {
        return Err(malformed());
    }
    // DER: one leading zero octet at the most, and only where the next one's top bit is set; else the number would be negative.
    let modulus = match rsa.modulus {
        [0, tail @ ..] => tail,
        [first, ..] if first & 0x80 == 0 => rsa.modulus,
        _ => return Err(malformed()),
    };
    let leading = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
    let bits = (modulus.len() * 8).saturating_sub(leading);
    if !(2048..=8192).contains(&bits) || leading == 8 {
        return Err(TlsKeyError::Algorithm(format!("RSA of {bits} bits")));
    }
    let exponent = rsa.try_exponent().map_err(|_| malformed())?;
    if exponent < 65_537 || exponent % 2 == 0 || exponent > u64::from(u32::MAX) {
        return Err(TlsKeyError::Algorithm(format!("RSA with exponent {exponent}")));
    }
    Ok(())
}

/// An RSA key of 8192 bits takes about 1500 characters.
const MAX_PEM: usize = 4096;
