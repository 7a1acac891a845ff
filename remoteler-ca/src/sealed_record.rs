//! Records at rest that hold secrets of others: sealed with a key of their own, which is made of the key-encryption key and the place of the record
//! (HKDF-SHA256, RFC 5869). Owns the form of what is sealed; which records are, the auth service says.

use remoteler_core::ClusterName;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
    rand::{SecureRandom, SystemRandom},
};

use crate::{KeyRing, SealError, seal::KeyEncryptionKey};

/// What a sealed record begins with. No record in the clear does: those are JSON.
const MARK: u8 = 1;
/// Octets of the name of a key-encryption key: sixteen hex digits.
const ID: usize = 16;
const HEAD: usize = 1 + ID + NONCE_LEN;

/// Whether these octets are a sealed record, of whatever key.
#[must_use]
pub fn is_sealed_record(value: &[u8]) -> bool {
    value.first() == Some(&MARK)
}

impl KeyRing {
    /// Seals what is kept under `key`. Each record has a key of its own, so that how often it is written is no concern.
    ///
    /// # Errors
    /// [`SealError::Random`]
    pub fn seal_record(&self, cluster: &ClusterName, key: &str, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::Random)?;
        let sealing = self.active();
        let mut sealed = Vec::with_capacity(HEAD + value.len() + AES_256_GCM.tag_len());
        sealed.push(MARK);
        sealed.extend_from_slice(sealing.id().as_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(value);
        let text = sealed.get_mut(HEAD..).ok_or(SealError::Random)?;
        let tag = record_key(sealing, cluster, key)?
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), text)
            .map_err(|_| SealError::Random)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens what [`KeyRing::seal_record`] gave, with whichever key sealed it.
    ///
    /// # Errors
    /// [`SealError::UnknownKey`]; [`SealError::Record`] when it was changed, or lay elsewhere.
    pub fn open_record(&self, cluster: &ClusterName, key: &str, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let changed = || SealError::Record(key.chars().take(80).collect());
        let head = value.get(..HEAD).filter(|head| is_sealed_record(head)).ok_or_else(changed)?;
        let (id, nonce) = (head.get(1..=ID).ok_or_else(changed)?, head.get(1 + ID..).ok_or_else(changed)?);
        let id = std::str::from_utf8(id).map_err(|_| changed())?;
        let sealed_by = self.named(id).ok_or_else(|| SealError::UnknownKey(id.to_owned()))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| changed())?;
        let mut octets = value.get(HEAD..).unwrap_or_default().to_vec();
        let length = record_key(sealed_by, cluster, key)?
            .open_in_place(nonce, Aad::empty(), &mut octets)
            .map_err(|_| changed())?
            .len();
        octets.truncate(length);
        Ok(octets)
    }

    /// Whether a record is sealed with the key that seals now.
    #[must_use]
    pub fn seals_record(&self, value: &[u8]) -> bool {
        is_sealed_record(value) && value.get(1..=ID) == Some(self.active().id().as_bytes())
    }
}

/// The key of the record in this place: each part behind its length, so that no two places are written alike.
fn record_key(from: &KeyEncryptionKey, cluster: &ClusterName, key: &str) -> Result<LessSafeKey, SealError> {
    let lengths = [cluster.as_str(), key].map(|part| (part.len() as u64).to_be_bytes());
    let info = [&lengths[0][..], cluster.as_str().as_bytes(), &lengths[1][..], key.as_bytes()];
    let drawn = from.records().expand(&info, &AES_256_GCM).map_err(|_| SealError::Random)?;
    Ok(LessSafeKey::new(UnboundKey::from(drawn)))
}

/// What keys of records are drawn from.
pub(crate) fn record_secret(octets: &[u8]) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"remoteler sealed records 1").extract(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(first: u8) -> KeyEncryptionKey {
        let octets: Vec<u8> = (0..32).map(|at| at ^ first).collect();
        KeyEncryptionKey::new(&octets).unwrap()
    }

    // I8 I76
    #[test]
    fn a_record_opens_in_its_own_place_unchanged_and_by_the_key_that_sealed_it_and_else_not() {
        let (root, leaf) = (ClusterName::new("root").unwrap(), ClusterName::new("leaf").unwrap());
        let ring = KeyRing::new(key(1));
        let text = b"{\"client_secret\":\"canary\"}";
        let sealed = ring.seal_record(&root, "connectors/idp", text).unwrap();
        assert!(is_sealed_record(&sealed) && ring.seals_record(&sealed) && !is_sealed_record(text));
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        assert_ne!(sealed, ring.seal_record(&root, "connectors/idp", text).unwrap(), "nonces are drawn");
        assert_eq!(ring.open_record(&root, "connectors/idp", &sealed).unwrap(), text);
        let refused = |cluster, key: &str, value: &[u8]| ring.open_record(cluster, key, value).unwrap_err();
        let changed = SealError::Record("connectors/other".into());
        assert_eq!(refused(&root, "connectors/other", &sealed), changed);
        assert!(matches!(refused(&leaf, "connectors/idp", &sealed), SealError::Record(_)));
        for at in [17, 20, HEAD, sealed.len() - 1] {
            let mut wrong = sealed.clone();
            wrong[at] ^= 1;
            assert!(matches!(refused(&root, "connectors/idp", &wrong), SealError::Record(_)), "{at}");
        }
        for short in [0, 1, 10, HEAD - 1, HEAD, HEAD + 15] {
            assert!(matches!(refused(&root, "connectors/idp", &sealed[..short]), SealError::Record(_)), "{short}");
        }
        let other = KeyRing::new(key(2));
        assert!(matches!(other.open_record(&root, "connectors/idp", &sealed), Err(SealError::UnknownKey(_))));
        let both = KeyRing::new(key(2)).with_previous(key(1));
        assert_eq!(both.open_record(&root, "connectors/idp", &sealed).unwrap(), text);
        assert!(!both.seals_record(&sealed));
    }
}
