//! The key that signs identity tokens: what tells a web application who its user is. A key of its own, which signs nothing else (I1).
//! Owns the key and the form of a token: a JWS in compact form (RFC 7515 section 7.1) with ES256. Never decides who gets one.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use remoteler_core::{ClusterName, Jwk, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{CaError, FileSigner, KeyRing, Signer, SignerAlgorithm, SignerError, StoredKey, seal::Place};

/// What an identity token says (RFC 7519 section 4.1), all of it by the auth service's own records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenClaims {
    /// Whose word it is: the cluster.
    #[serde(rename = "iss")]
    pub issuer: ClusterName,
    /// Who the user is.
    #[serde(rename = "sub")]
    pub subject: String,
    /// The one for whom it is; everybody else refuses it.
    #[serde(rename = "aud")]
    pub audience: String,
    /// The user's roles.
    pub roles: Vec<String>,
    /// When it was issued.
    #[serde(rename = "iat", serialize_with = "seconds")]
    pub issued_at: Timestamp,
    /// When it ends.
    #[serde(rename = "exp", serialize_with = "seconds")]
    pub expires: Timestamp,
    /// Its name in the audit log.
    #[serde(rename = "jti")]
    pub token_id: String,
}

/// A token key as it is kept, the private half included: belongs into the auth service's store and nowhere else (I8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredTokenKey {
    /// Whose.
    pub cluster: ClusterName,
    /// In the clear or sealed, as those of the authorities.
    pub key: StoredKey,
}

/// Signs identity tokens of one cluster.
///
/// Signing blocks for as long as its [`Signer`] does: microseconds in memory.
pub struct TokenSigner {
    stored: StoredTokenKey,
    signer: Box<dyn Signer>,
    public: Jwk,
}

impl TokenSigner {
    /// Makes a new key, with the operating system's randomness (I7), to be kept sealed when there is a `ring`.
    ///
    /// # Errors
    /// [`CaError::Signer`] when the generator fails, [`CaError::Sealed`] when the key cannot be sealed.
    pub fn generate(cluster: &ClusterName, ring: Option<&KeyRing>) -> Result<Self, CaError> {
        let (_, key) = FileSigner::generate(ALGORITHM)?;
        Self::open(&StoredTokenKey { cluster: cluster.clone(), key: key.into() }, ring)
    }

    /// Takes up what [`TokenSigner::to_stored`] gave. With a `ring` it is kept sealed from now on.
    ///
    /// # Errors
    /// [`CaError`] when the key does not open or does not parse.
    pub fn open(stored: &StoredTokenKey, ring: Option<&KeyRing>) -> Result<Self, CaError> {
        let cluster = &stored.cluster;
        let sealed = |source| CaError::Sealed { cluster: cluster.clone(), kind: KIND, source };
        let place = Place { cluster, kind: KIND, purpose: "jwt", algorithm: ALGORITHM };
        let Some((text, key)) = stored.key.take_up(&place, ring).map_err(sealed)? else {
            let what = "keys of identity tokens are never in a PKCS#11 token";
            return Err(CaError::Stored { cluster: cluster.clone(), kind: KIND, what });
        };
        let signer = FileSigner::from_pem(ALGORITHM, &text)?;
        let public = Jwk::es256(signer.public_key()).ok_or(SignerError::Malformed(ALGORITHM))?;
        let stored = StoredTokenKey { cluster: cluster.clone(), key };
        Ok(Self { stored, signer: Box::new(signer), public })
    }

    /// The form to be kept.
    #[must_use]
    pub fn to_stored(&self) -> StoredTokenKey {
        self.stored.clone()
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &Jwk {
        &self.public
    }

    /// Signs a token.
    ///
    /// # Errors
    /// [`CaError::PreparedForAnother`] when the claims are another cluster's word (I12), [`CaError::Signer`] when the key did not sign.
    pub fn sign(&self, claims: &TokenClaims) -> Result<String, CaError> {
        if claims.issuer != self.stored.cluster {
            return Err(CaError::PreparedForAnother { cluster: self.stored.cluster.clone(), kind: KIND });
        }
        let header = serde_json::json!({ "alg": "ES256", "kid": self.public.key_id(), "typ": "JWT" });
        let claims = serde_json::to_string(claims).expect("claims are strings, numbers and a list of strings");
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = fixed(&self.signer.sign(token.as_bytes())?).ok_or(SignerError::Failed(ALGORITHM))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSigner").field("key_id", &self.public.key_id()).finish_non_exhaustive()
    }
}

/// A JWS has both numbers in 32 octets each (RFC 7518 section 3.4), a [`Signer`] gives DER.
fn fixed(der: &[u8]) -> Option<[u8; 64]> {
    let (r, s) = yasna::parse_der(der, |reader| {
        reader.read_sequence(|reader| Ok((reader.next().read_bigint_bytes()?, reader.next().read_bigint_bytes()?)))
    })
    .ok()?;
    let mut octets = [0; 64];
    for (half, (number, positive)) in octets.chunks_exact_mut(32).zip([r, s]) {
        let number = number.get(number.iter().take_while(|octet| **octet == 0).count()..)?;
        if !positive || number.len() > half.len() {
            return None;
        }
        let start = half.len() - number.len();
        half.get_mut(start..)?.copy_from_slice(number);
    }
    Some(octets)
}

fn seconds<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(time.unix_seconds())
}

const ALGORITHM: SignerAlgorithm = SignerAlgorithm::EcdsaP256;
const KIND: &str = "token";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_signature_take_32_octets_each_whatever_their_length() {
        // r = 1, s = 2^255: one is filled up, the other loses the octet that keeps it positive in DER.
        let mut der = vec![0x30, 0x26, 0x02, 0x01, 0x01, 0x02, 0x21, 0x00, 0x80];
        der.extend([0; 31]);
        let octets = fixed(&der).unwrap();
        assert_eq!((octets[30], octets[31], octets[32], octets[63]), (0, 1, 0x80, 0));
        assert_eq!(fixed(&[0x30, 0x06, 0x02, 0x01, 0xff, 0x02, 0x01, 0x01]), None, "negative");
        assert_eq!(fixed(&der[..20]), None);
    }
}
