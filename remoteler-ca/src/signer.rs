//! The signing seam: a key that signs and may never be seen. Owns the key held in memory, [`FileSigner`]. Never knows what it signs.

use pem::Pem;
use remoteler_core::Secret;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use zeroize::Zeroizing;

/// How a key signs, and the form its public half and its signatures have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignerAlgorithm {
    /// Ed25519 (RFC 8032): public key of 32 octets, signature of 64.
    Ed25519,
    /// ECDSA on P-256 with SHA-256: public key is the uncompressed point of 65 octets (SEC 1), the signature is the DER of an
    /// `ECDSA-Sig-Value` (RFC 3279 section 2.2.3).
    EcdsaP256,
}

/// Signs with a key that its holder may never see.
///
/// [`FileSigner`] holds the key in memory; a hardware token is the other kind.
///
/// An error means that nothing was signed, so callers may ask again. Calls block; implementations bound their own latency.
pub trait Signer: Send + Sync {
    /// What kind of key it is. Constant for the signer's life.
    fn algorithm(&self) -> SignerAlgorithm;
    /// The public half in the form of [`SignerAlgorithm`]. Constant for the signer's life.
    fn public_key(&self) -> &[u8];
    /// Signs `message` as it is; hashing is the signer's part.
    ///
    /// # Errors
    /// [`SignerError`] when the key did not sign.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError>;
}

/// Why a key could not be made, read or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// The system's generator failed.
    #[error("no {0:?} key could be generated: the system's random generator failed")]
    Generate(SignerAlgorithm),
    /// Not a private key of the algorithm. What was read is not told.
    #[error("the stored {0:?} private key does not parse; restore it from a backup")]
    Malformed(SignerAlgorithm),
    /// The key did not sign.
    #[error("the {0:?} key did not sign; the same request may be sent again")]
    Failed(SignerAlgorithm),
}

/// A key in this process's memory.
///
/// The text form is wiped when dropped; ring's own copy of the key is not, it ends with the allocation.
pub struct FileSigner {
    pair: Pair,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    EcdsaP256(EcdsaKeyPair),
}

impl FileSigner {
    /// Makes a key with the operating system's randomness (I7) and returns it with its stored form: PEM of PKCS#8.
    ///
    /// # Errors
    /// [`SignerError::Generate`]
    pub fn generate(algorithm: SignerAlgorithm) -> Result<(Self, Secret), SignerError> {
        let random = SystemRandom::new();
        let document = match algorithm {
            SignerAlgorithm::Ed25519 => Ed25519KeyPair::generate_pkcs8(&random),
            SignerAlgorithm::EcdsaP256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random),
        }
        .map_err(|_| SignerError::Generate(algorithm))?;
        let signer = Self::from_pkcs8(algorithm, document.as_ref())?;
        let block = Pem::new(PEM_TAG, document.as_ref());
        let text = Secret::new(pem::encode(&block));
        drop(Zeroizing::new(block.into_contents()));
        Ok((signer, text))
    }

    /// Reads what [`FileSigner::generate`] returned.
    ///
    /// # Errors
    /// [`SignerError::Malformed`] for anything but PEM of a PKCS#8 key of this algorithm.
    pub fn from_pem(algorithm: SignerAlgorithm, text: &Secret) -> Result<Self, SignerError> {
        let block = pem::parse(text.reveal()).map_err(|_| SignerError::Malformed(algorithm))?;
        let tag_fits = block.tag() == PEM_TAG;
        let pkcs8 = Zeroizing::new(block.into_contents());
        if !tag_fits {
            return Err(SignerError::Malformed(algorithm));
        }
        Self::from_pkcs8(algorithm, &pkcs8)
    }

    fn from_pkcs8(algorithm: SignerAlgorithm, pkcs8: &[u8]) -> Result<Self, SignerError> {
        let pair = match algorithm {
            SignerAlgorithm::Ed25519 => Ed25519KeyPair::from_pkcs8(pkcs8).map(Pair::Ed25519),
            SignerAlgorithm::EcdsaP256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &SystemRandom::new())
                    .map(Pair::EcdsaP256)
            }
        };
        pair.map(|pair| Self { pair }).map_err(|_| SignerError::Malformed(algorithm))
    }
}

impl Signer for FileSigner {
    fn algorithm(&self) -> SignerAlgorithm {
        match &self.pair {
            Pair::Ed25519(_) => SignerAlgorithm::Ed25519,
            Pair::EcdsaP256(_) => SignerAlgorithm::EcdsaP256,
        }
    }

    fn public_key(&self) -> &[u8] {
        match &self.pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::EcdsaP256(pair) => pair.public_key().as_ref(),
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::EcdsaP256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| SignerError::Failed(SignerAlgorithm::EcdsaP256)),
        }
    }
}

impl std::fmt::Debug for FileSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSigner").field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}

const PEM_TAG: &str = "PRIVATE KEY";

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};

    use super::*;

    #[test]
    fn a_key_signs_the_same_way_after_it_was_stored() {
        let algorithms: [(_, &dyn VerificationAlgorithm); 2] =
            [(SignerAlgorithm::Ed25519, &ED25519), (SignerAlgorithm::EcdsaP256, &ECDSA_P256_SHA256_ASN1)];
        for (algorithm, verifier) in algorithms {
            let (first, text) = FileSigner::generate(algorithm).unwrap();
            let again = FileSigner::from_pem(algorithm, &text).unwrap();
            assert_eq!(first.public_key(), again.public_key());
            let public = UnparsedPublicKey::new(verifier, first.public_key());
            public.verify(b"message", &again.sign(b"message").unwrap()).unwrap();
        }
    }

    #[test]
    fn a_key_of_another_algorithm_or_none_is_refused_without_telling_what_was_read() {
        let (_, ed25519) = FileSigner::generate(SignerAlgorithm::Ed25519).unwrap();
        let inside = ed25519.reveal().lines().nth(1).unwrap().to_owned();
        for text in [ed25519.clone(), Secret::new(inside.clone()), Secret::new("")] {
            let refused = FileSigner::from_pem(SignerAlgorithm::EcdsaP256, &text).unwrap_err();
            assert_eq!(refused, SignerError::Malformed(SignerAlgorithm::EcdsaP256));
            assert!(!format!("{refused} {refused:?}").contains(&inside)); // I76
        }
        let relabelled = ed25519.reveal().replace("PRIVATE KEY", "PUBLIC KEY");
        assert!(FileSigner::from_pem(SignerAlgorithm::Ed25519, &Secret::new(relabelled)).is_err());
    }
}
