//! Private keys at rest: sealed with a key that is not kept beside them. Owns the key-encryption keys and the form of what is sealed:
//! AES-256-GCM (NIST SP 800-38D, by ring), bound to the cluster, authority and purpose, so that a sealed key opens only in its own place.

use base64::{Engine, engine::general_purpose::STANDARD};
use remoteler_core::{ClusterName, Secret};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{SignerAlgorithm, sealed_record::record_secret};

/// Why a key was not sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The file that should be the key-encryption key is none.
    #[error(
        "a key-encryption key has 32 random octets, this has {0}; make one with: (umask 077; head -c 32 /dev/urandom > FILE)"
    )]
    Length(usize),
    /// Every octet is the same: a file of zeros, most likely.
    #[error(
        "every octet of the key-encryption key is the same; make one with: (umask 077; head -c 32 /dev/urandom > FILE)"
    )]
    NotRandom,
    /// Something is sealed and no key-encryption key was given.
    #[error("its keys are sealed and no key-encryption key was given")]
    NoKey,
    /// Sealed with a key that is not at hand.
    #[error("its keys are sealed with key-encryption key {0}, which was not given")]
    UnknownKey(String),
    /// Changed, or moved from another place.
    #[error("a sealed key was changed or is not of this authority; restore it from a backup")]
    Opened,
    /// A record that was changed, or moved from another place.
    #[error("the sealed record {0} was changed or lay elsewhere; restore it from a backup")]
    Record(String),
    /// The system's random generator failed.
    #[error("nothing was sealed: the system's random generator failed")]
    Random,
}

/// A key that seals keys: 32 octets, from a file or a systemd credential that does not lie beside the database or its backup.
pub struct KeyEncryptionKey {
    key: LessSafeKey,
    /// What keys of records are drawn from.
    records: hkdf::Prk,
    id: String,
}

impl KeyEncryptionKey {
    /// Takes the octets as they are in the file.
    ///
    /// # Errors
    /// [`SealError::Length`] for any other number than 32, [`SealError::NotRandom`] when all are the same.
    pub fn new(octets: &[u8]) -> Result<Self, SealError> {
        let unbound = UnboundKey::new(&AES_256_GCM, octets).map_err(|_| SealError::Length(octets.len()))?;
        if octets.windows(2).all(|pair| matches!(pair, [one, other] if one == other)) {
            return Err(SealError::NotRandom);
        }
        // The id tells keys apart and tells nothing about them.
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, octets), b"remoteler key-encryption key id");
        let id = tag.as_ref().iter().take(8).map(|octet| format!("{octet:02x}")).collect();
        Ok(Self { key: LessSafeKey::new(unbound), records: record_secret(octets), id })
    }

    pub(crate) const fn records(&self) -> &hkdf::Prk {
        &self.records
    }

    /// Sixteen hex digits that name the key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl std::fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyEncryptionKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The key that seals now, and those that once did and still open.
#[derive(Debug)]
pub struct KeyRing {
    active: KeyEncryptionKey,
    previous: Vec<KeyEncryptionKey>,
}

/// A sealed private key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedKey {
    /// Which key-encryption key sealed it.
    key_id: String,
    /// 12 random octets in base64.
    nonce: String,
    /// The text and its tag in base64.
    sealed: String,
}

/// Where a key belongs. It is authenticated with the key and not kept in it.
pub(crate) struct Place<'a> {
    pub(crate) cluster: &'a ClusterName,
    pub(crate) kind: &'static str,
    pub(crate) purpose: &'a str,
    pub(crate) algorithm: SignerAlgorithm,
}

impl Place<'_> {
    /// Each part behind its length, so that no two places are written alike.
    fn aad(&self) -> Aad<Vec<u8>> {
        let parts = ["remoteler sealed key 1", self.cluster.as_str(), self.kind, self.purpose, self.algorithm.as_str()];
        let mut octets = Vec::new();
        for part in parts {
            octets.extend((part.len() as u64).to_be_bytes());
            octets.extend(part.as_bytes());
        }
        Aad::from(octets)
    }
}

impl KeyRing {
    /// Seals and opens with one key.
    #[must_use]
    pub const fn new(active: KeyEncryptionKey) -> Self {
        Self { active, previous: Vec::new() }
    }

    /// Also opens with `key`, which is being replaced.
    #[must_use]
    pub fn with_previous(mut self, key: KeyEncryptionKey) -> Self {
        self.previous.push(key);
        self
    }

    /// The key that seals now.
    pub(crate) const fn active(&self) -> &KeyEncryptionKey {
        &self.active
    }

    /// The key of this id.
    pub(crate) fn named(&self, id: &str) -> Option<&KeyEncryptionKey> {
        std::iter::once(&self.active).chain(&self.previous).find(|key| key.id == id)
    }

    /// Whether the key that seals now sealed it.
    pub(crate) fn is_active(&self, sealed: &SealedKey) -> bool {
        sealed.key_id == self.active.id
    }

    /// Seals with the active key. Nonces are drawn: a key-encryption key seals a handful of keys in its life, and 2^32 would be safe.
    pub(crate) fn seal(&self, place: &Place<'_>, text: &Secret) -> Result<SealedKey, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::Random)?;
        let clear = text.reveal().as_bytes();
        // Room for the tag first: growing would leave a copy of the clear text behind.
        let mut buffer = Zeroizing::new(Vec::with_capacity(clear.len() + AES_256_GCM.tag_len()));
        buffer.extend_from_slice(clear);
        let key = &self.active;
        key.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), place.aad(), &mut *buffer)
            .map_err(|_| SealError::Random)?;
        Ok(SealedKey { key_id: key.id.clone(), nonce: STANDARD.encode(nonce), sealed: STANDARD.encode(&*buffer) })
    }

    /// Opens with whichever key sealed it.
    pub(crate) fn open(&self, place: &Place<'_>, sealed: &SealedKey) -> Result<Secret, SealError> {
        let key = self
            .named(&sealed.key_id)
            .ok_or_else(|| SealError::UnknownKey(sealed.key_id.chars().take(40).collect()))?;
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| SealError::Opened);
        let nonce = Nonce::try_assume_unique_for_key(&decode(&sealed.nonce)?).map_err(|_| SealError::Opened)?;
        let mut octets = Zeroizing::new(decode(&sealed.sealed)?);
        let text = key.key.open_in_place(nonce, place.aad(), &mut octets).map_err(|_| SealError::Opened)?;
        std::str::from_utf8(text).map(Secret::new).map_err(|_| SealError::Opened)
    }
}
