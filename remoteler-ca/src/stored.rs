//! An authority as it is kept. Owns the shape of the record, and which of its keys are sealed. Never writes it anywhere.

use remoteler_core::{CaKind, ClusterName, Secret};
use serde::{Deserialize, Serialize};

use crate::{KeyRing, SealError, SealedKey, Suite, TokenKey, seal::Place};

/// An authority as it is kept, private keys included: belongs into the auth service's store and nowhere else (I8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredAuthority {
    /// Whose.
    pub cluster: ClusterName,
    /// For what.
    pub kind: CaKind,
    /// With which algorithms; absent in records of before there were suites.
    #[serde(default)]
    pub suite: Suite,
    /// Signs SSH certificates.
    pub ssh_key: StoredKey,
    /// Signs X.509 certificates.
    pub x509_key: StoredKey,
    /// The self-signed certificate of `x509_key`: PEM.
    pub x509_certificate: String,
}

/// A private key as it is kept: a text in the clear, as all were once, a sealed one, or what names one in a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum StoredKey {
    /// PEM of PKCS#8.
    Clear(Secret),
    /// The same, sealed.
    Sealed(SealedKey),
    /// No private key at all: it is in a token.
    Token(TokenKey),
}

impl StoredKey {
    /// The text, if it is in the clear.
    #[must_use]
    pub const fn clear(&self) -> Option<&Secret> {
        match self {
            Self::Clear(text) => Some(text),
            Self::Sealed(_) | Self::Token(_) => None,
        }
    }
}

impl StoredKey {
    /// The text, opened where it is sealed, and the form to be kept from now on: sealed by the active key of `ring` if there is one. `None` for
    /// a key in a token, which has no text.
    pub(crate) fn take_up(
        &self,
        place: &Place<'_>,
        ring: Option<&KeyRing>,
    ) -> Result<Option<(Secret, Self)>, SealError> {
        let text = match (self, ring) {
            (Self::Clear(text), _) => text.clone(),
            (Self::Sealed(key), Some(ring)) => ring.open(place, key)?,
            (Self::Sealed(_), None) => return Err(SealError::NoKey),
            (Self::Token(_), _) => return Ok(None),
        };
        let kept = match (self, ring) {
            (Self::Sealed(key), Some(ring)) if ring.is_active(key) => self.clone(),
            (_, Some(ring)) => Self::Sealed(ring.seal(place, &text)?),
            (_, None) => self.clone(),
        };
        Ok(Some((text, kept)))
    }
}

impl From<Secret> for StoredKey {
    fn from(text: Secret) -> Self {
        Self::Clear(text)
    }
}

impl StoredAuthority {
    /// Whether each key in it is sealed with the active key of `ring` or in a token, so that there is nothing to be written again.
    #[must_use]
    pub fn is_sealed_by(&self, ring: &KeyRing) -> bool {
        [&self.ssh_key, &self.x509_key].into_iter().all(|key| match key {
            StoredKey::Clear(_) => false,
            StoredKey::Sealed(sealed) => ring.is_active(sealed),
            StoredKey::Token(_) => true,
        })
    }

    /// The same authority with every key sealed by the active key of `ring`; a key that is so already stays as it is.
    ///
    /// # Errors
    /// [`SealError`] when a key that is sealed otherwise does not open.
    pub fn sealed(&self, ring: &KeyRing) -> Result<Self, SealError> {
        self.with_keys(|key, place| match key {
            StoredKey::Sealed(sealed) if ring.is_active(sealed) => Ok(key.clone()),
            StoredKey::Sealed(sealed) => Ok(StoredKey::Sealed(ring.seal(place, &ring.open(place, sealed)?)?)),
            StoredKey::Clear(text) => Ok(StoredKey::Sealed(ring.seal(place, text)?)),
            StoredKey::Token(_) => Ok(key.clone()),
        })
    }

    /// The same authority with its keys in the clear; never to be written.
    pub(crate) fn unsealed(&self, ring: &KeyRing) -> Result<Self, SealError> {
        self.with_keys(|key, place| match key {
            StoredKey::Sealed(sealed) => Ok(StoredKey::Clear(ring.open(place, sealed)?)),
            StoredKey::Clear(_) | StoredKey::Token(_) => Ok(key.clone()),
        })
    }

    fn with_keys(
        &self,
        change: impl Fn(&StoredKey, &Place<'_>) -> Result<StoredKey, SealError>,
    ) -> Result<Self, SealError> {
        let Self { cluster, kind, suite, ssh_key, x509_key, x509_certificate } = self;
        let place = |purpose, algorithm| Place { cluster, kind: kind.as_str(), purpose, algorithm };
        Ok(Self {
            cluster: cluster.clone(),
            kind: *kind,
            suite: *suite,
            ssh_key: change(ssh_key, &place("ssh", suite.ssh()))?,
            x509_key: change(x509_key, &place("x509", suite.x509()))?,
            x509_certificate: x509_certificate.clone(),
        })
    }
}
