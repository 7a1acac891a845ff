//! The signing seam: a key that signs and may never be seen. Owns the key held in memory, [`FileSigner`]. Never knows what it signs.

use pem::Pem;
use remoteler_core::Secret;
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
        RsaKeyPair,
    },
};
use zeroize::Zeroizing;

use crate::{
    TokenError,
    rsa_key::{self, RSA_BITS},
};

/// How a key signs, and the form its public half and its signatures have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignerAlgorithm {
    /// Ed25519 (RFC 8032): public key of 32 octets, signature of 64.
    Ed25519,
    /// ECDSA on P-256 with SHA-256: public key is the uncompressed point of 65 octets (SEC 1), the signature is the DER of an
    /// `ECDSA-Sig-Value` (RFC 3279 section 2.2.3).
    EcdsaP256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 section 8.2) and a modulus of 3072 bits: public key is the DER of an `RSAPublicKey`, the
    /// signature has 384 octets.
    RsaSha256,
    /// The same with SHA-512, `rsa-sha2-512` in SSH (RFC 8332).
    RsaSha512,
}

impl SignerAlgorithm {
    /// As it is written where a key is bound to it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256 => "ecdsa-p256-sha256",
            Self::RsaSha256 => "rsa-sha256",
            Self::RsaSha512 => "rsa-sha512",
        }
    }
}

/// Signs with a key that its holder may never see.
///
/// [`FileSigner`] holds the key in memory; `Pkcs11Signer` (feature `pkcs11`) asks a hardware token.
///
/// - An error means that nothing was signed that anybody will see, so callers may ask again.
/// - Calls block, and implementations bound their own latency. A key in memory takes microseconds; a token takes milliseconds, so
///   asynchronous callers move the call to a thread for blocking work.
/// - Calls may come from several threads at once.
/// - The algorithm and the public half never change; issuers are chosen by them.
/// - The private half is never given out: not by a method, not by `Debug`, not in an error.
pub trait Signer: Send + Sync {
    /// What kind of key it is. Constant for the signer's life.
    fn algorithm(&self) -> SignerAlgorithm;
    /// The public half in the form of [`SignerAlgorithm`]. Constant for the signer's life.
    fn public_key(&self) -> &[u8];
    /// Signs `message` as it is; hashing is the signer's part. The signature has the form of [`SignerAlgorithm`].
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
    /// The token that has the key did not sign.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// A key in this process's memory. All signing is done by ring, whose RSA is blinded.
///
/// The text form is wiped when dropped; ring's own copy of the key is not, it ends with the allocation.
pub struct FileSigner {
    pair: Pair,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    EcdsaP256(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>, SignerAlgorithm),
}

impl FileSigner {
    /// Makes a key with the operating system's randomness (I7) and returns it with its stored form: PEM of PKCS#8.
    ///
    /// # Errors
    /// [`SignerError::Generate`]
    pub fn generate(algorithm: SignerAlgorithm) -> Result<(Self, Secret), SignerError> {
        let random = SystemRandom::new();
        let ring_made = |document: Result<ring::pkcs8::Document, _>| {
            document
                .map(|document| Zeroizing::new(document.as_ref().to_vec()))
                .map_err(|_: ring::error::Unspecified| SignerError::Generate(algorithm))
        };
        let document = match algorithm {
            SignerAlgorithm::Ed25519 => ring_made(Ed25519KeyPair::generate_pkcs8(&random))?,
            SignerAlgorithm::EcdsaP256 => {
                ring_made(EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random))?
            }
            SignerAlgorithm::RsaSha256 | SignerAlgorithm::RsaSha512 => {
                rsa_key::generate().ok_or(SignerError::Generate(algorithm))?
            }
        };
        let signer = Self::from_pkcs8(algorithm, &document)?;
        let block = Pem::new(PEM_TAG, &**document);
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
        let malformed = || SignerError::Malformed(algorithm);
        let pair = match algorithm {
            SignerAlgorithm::Ed25519 => Ed25519KeyPair::from_pkcs8(pkcs8).map(Pair::Ed25519),
            SignerAlgorithm::EcdsaP256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &SystemRandom::new())
                    .map(Pair::EcdsaP256)
            }
            SignerAlgorithm::RsaSha256 | SignerAlgorithm::RsaSha512 => {
                let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| malformed())?;
                if pair.public().modulus_len() * 8 != RSA_BITS {
                    return Err(malformed());
                }
                Ok(Pair::Rsa(Box::new(pair), algorithm))
            }
        };
        pair.map(|pair| Self { pair }).map_err(|_| malformed())
    }
}

impl Signer for FileSigner {
    fn algorithm(&self) -> SignerAlgorithm {
        match &self.pair {
            Pair::Ed25519(_) => SignerAlgorithm::Ed25519,
            Pair::EcdsaP256(_) => SignerAlgorithm::EcdsaP256,
            Pair::Rsa(_, algorithm) => *algorithm,
        }
    }

    fn public_key(&self) -> &[u8] {
        match &self.pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::EcdsaP256(pair) => pair.public_key().as_ref(),
            Pair::Rsa(pair, _) => pair.public_key().as_ref(),
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        let failed = |_| SignerError::Failed(self.algorithm());
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::EcdsaP256(pair) => {
                pair.sign(&SystemRandom::new(), message).map(|signature| signature.as_ref().to_vec()).map_err(failed)
            }
            Pair::Rsa(pair, algorithm) => {
                let padding =
                    if *algorithm == SignerAlgorithm::RsaSha512 { &RSA_PKCS1_SHA512 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &SystemRandom::new(), message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
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
    use ring::signature::{
        ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
    };

    use super::*;

    #[test]
    fn a_key_signs_the_same_way_after_it_was_stored() {
        let algorithms: [(_, &dyn VerificationAlgorithm); 3] = [
            (SignerAlgorithm::Ed25519, &ED25519),
            (SignerAlgorithm::EcdsaP256, &ECDSA_P256_SHA256_ASN1),
            (SignerAlgorithm::RsaSha256, &RSA_PKCS1_2048_8192_SHA256),
        ];
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
