//! The key for which one SAML identity provider encrypts its assertions, and nothing else (I1). Owns the key and its certificate; its record is that of
//! the key that signs, sealed to another place. Who calls has verified a signature over what is to be opened: RSA is shown nothing else.

use rcgen::KeyUsagePurpose;
use remoteler_core::{ClusterName, Timestamp};
use zeroize::Zeroizing;

use crate::{CaError, KeyRing, OaepDigests, SignerError, StoredSamlKey, rsa_key::Opener, saml_key::ALGORITHM};

/// Opens what is encrypted for one connector: RSA of 3072 bits.
pub struct SamlDecrypter {
    stored: StoredSamlKey,
    opener: Opener,
}

impl SamlDecrypter {
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
        Self::open(&StoredSamlKey::generate(cluster, connector, KeyUsagePurpose::KeyEncipherment, now)?, ring)
    }

    /// Takes up what [`SamlDecrypter::to_stored`] gave. With a `ring` it is kept sealed from now on.
    ///
    /// # Errors
    /// [`CaError`] when the key does not open or does not parse.
    pub fn open(stored: &StoredSamlKey, ring: Option<&KeyRing>) -> Result<Self, CaError> {
        let (text, stored) = stored.take_up(KIND, ring)?;
        let malformed = || SignerError::Malformed(ALGORITHM);
        let block = pem::parse(text.reveal()).map_err(|_| malformed())?;
        let pkcs8 = Zeroizing::new(block.into_contents());
        let opener = Opener::from_pkcs8(&pkcs8).ok_or_else(malformed)?;
        Ok(Self { stored, opener })
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

    /// The key that `wrapped` holds, by RSA-OAEP with an empty label; `None` when it does not open. To be shown only octets that a verified signature of
    /// the identity provider covers.
    #[must_use]
    pub fn unwrap_key(&self, digests: OaepDigests, wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.opener.open(digests, wrapped)
    }
}

impl std::fmt::Debug for SamlDecrypter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SamlDecrypter").field("connector", &self.stored.connector).finish_non_exhaustive()
    }
}

const KIND: &str = "saml-encryption";

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use rsa::{Oaep, RsaPublicKey, pkcs1::DecodeRsaPublicKey};
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;
    use crate::{KeyEncryptionKey, SamlSigner, StoredKey, rsa_key::SystemGenerator};

    #[test]
    fn what_is_encrypted_for_the_certificate_opens_and_its_key_lies_sealed_in_a_place_of_its_own() {
        let (cluster, now) = (ClusterName::new("root").unwrap(), Timestamp::from_unix_seconds(1_772_366_400));
        let mut octets = [7; 32];
        octets[0] = 1;
        let ring = KeyRing::new(KeyEncryptionKey::new(&octets).unwrap());
        let made = SamlDecrypter::generate(&cluster, "corp", Some(&ring), now).unwrap();
        let stored = made.to_stored();
        assert!(matches!(stored.key, StoredKey::Sealed(_)));
        let again = SamlDecrypter::open(&stored, Some(&ring)).unwrap();
        assert_eq!(again.certificate(), made.certificate());
        // Neither for another connector, nor to sign with.
        let moved = StoredSamlKey { connector: "other".into(), ..stored.clone() };
        assert!(matches!(SamlDecrypter::open(&moved, Some(&ring)), Err(CaError::Sealed { .. })));
        assert!(matches!(SamlSigner::open(&stored, Some(&ring)), Err(CaError::Sealed { .. })));

        let der = STANDARD.decode(made.certificate()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.key_encipherment() && !usage.digital_signature());
        let public = RsaPublicKey::from_pkcs1_der(&certificate.public_key().subject_public_key.data).unwrap();
        let random = &mut SystemGenerator;
        let sha1 = public.encrypt(random, Oaep::<sha1::Sha1>::new(), b"key").unwrap();
        let mixed = Oaep::<sha2::Sha256, sha1::Sha1>::new_with_mgf_hash();
        let mixed = public.encrypt(random, mixed, b"key").unwrap();
        let sha256 = public.encrypt(random, Oaep::<sha2::Sha256>::new(), b"key").unwrap();
        let labelled = public.encrypt(random, Oaep::<sha2::Sha256>::new_with_label(*b"x"), b"key").unwrap();
        let all = [OaepDigests::Sha1, OaepDigests::Sha256MaskSha1, OaepDigests::Sha256];
        for (sealed, right) in [(sha1, Some(all[0])), (mixed, Some(all[1])), (sha256, Some(all[2])), (labelled, None)] {
            for digests in all {
                let opened = again.unwrap_key(digests, &sealed);
                assert_eq!(opened.is_some(), Some(digests) == right, "{digests:?} {right:?}");
                assert!(opened.is_none_or(|opened| **opened == *b"key"));
            }
        }
        assert!(again.unwrap_key(OaepDigests::Sha1, b"").is_none());
        assert!(again.unwrap_key(OaepDigests::Sha1, &[0xff; 384]).is_none());
        assert!(again.unwrap_key(OaepDigests::Sha1, &[0; 1000]).is_none());
    }
}
