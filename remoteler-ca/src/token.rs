//! Private keys that lie in a token: what is kept of them here, and the seam behind which they are made, found and destroyed. Owns no
//! secret: what signs stays in the token. Never talks to one itself; that is the part of [`TokenKeys`]' implementations.

use std::{path::PathBuf, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use remoteler_core::Entropy;
use serde::{Deserialize, Serialize};

use crate::{Signer, SignerAlgorithm};

/// Names a private key in a token and holds its public half. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKey {
    /// `CKA_ID`: 16 random octets in hex, drawn for this key.
    id: String,
    /// `CKA_LABEL`: for people who look into the token.
    label: String,
    /// Label of the token, for people who look for it.
    token: String,
    /// The public half in the form of [`SignerAlgorithm`], in base64.
    public: String,
}

impl TokenKey {
    /// A key as the token made it.
    #[must_use]
    pub fn new(id: TokenKeyId, label: &str, token: &str, public: &[u8]) -> Self {
        Self { id: id.to_string(), label: label.to_owned(), token: token.to_owned(), public: STANDARD.encode(public) }
    }

    /// What the token knows it by.
    ///
    /// # Errors
    /// [`TokenError::Record`] when this was written by somebody else.
    pub fn id(&self) -> Result<TokenKeyId, TokenError> {
        let pair = |at: usize| self.id.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let octets: Option<Vec<u8>> = (0..ID_OCTETS).map(|at| pair(2 * at)).collect();
        let octets: Option<[u8; ID_OCTETS]> = octets.and_then(|octets| octets.try_into().ok());
        match octets {
            Some(octets) if self.id.len() == 2 * ID_OCTETS => Ok(TokenKeyId(octets)),
            _ => Err(TokenError::Record { label: self.label.clone() }),
        }
    }

    /// For people who look into the token.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Label of the token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The public half in the form of [`SignerAlgorithm`].
    ///
    /// # Errors
    /// [`TokenError::Record`] when this was written by somebody else.
    pub fn public(&self) -> Result<Vec<u8>, TokenError> {
        STANDARD.decode(&self.public).map_err(|_| TokenError::Record { label: self.label.clone() })
    }
}

const ID_OCTETS: usize = 16;

/// What a token knows a key by: 16 random octets, its `CKA_ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenKeyId([u8; ID_OCTETS]);

impl TokenKeyId {
    /// Draws one that no other key has.
    #[must_use]
    pub fn random(entropy: &dyn Entropy) -> Self {
        Self(remoteler_core::fill_random(entropy))
    }

    /// As the token takes it.
    #[must_use]
    pub const fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Display for TokenKeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// A token: makes keys that never leave it.
///
/// [`crate::Pkcs11Token`] (feature `pkcs11`) talks to a PKCS#11 module.
///
/// - Calls block, for as long as [`TokenError::Silent`] says at the most, and may come from several threads at once.
/// - A key is made so that the token gives its private half to nobody, and only signs with it; one that turns out otherwise is refused.
/// - An error of `generate` means that there is no key, as far as the token can still be asked.
/// - A wrong PIN is shown to the token once.
pub trait TokenKeys: Send + Sync {
    /// Label of the token.
    fn token(&self) -> &str;
    /// Makes a key pair in the token.
    ///
    /// # Errors
    /// [`TokenError`]
    fn generate(
        &self,
        algorithm: SignerAlgorithm,
        id: TokenKeyId,
        label: &str,
    ) -> Result<(Box<dyn Signer>, TokenKey), TokenError>;
    /// Finds a key again and checks that it is the one: that it signs for the public half that is kept here.
    ///
    /// # Errors
    /// [`TokenError`]
    fn open(&self, algorithm: SignerAlgorithm, key: &TokenKey) -> Result<Box<dyn Signer>, TokenError>;
    /// Destroys a key in the token. One that is not there is none to destroy.
    ///
    /// # Errors
    /// [`TokenError`]
    fn destroy(&self, key: &TokenKey) -> Result<(), TokenError>;
}

/// What the module answered, or why it could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ModuleAnswer(pub(crate) String);

/// Why a token did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The library that speaks to the token is none, or not there.
    #[error("PKCS#11 module {} cannot be loaded; install the token's library, or correct module_path", .module.display())]
    Module {
        /// Its file.
        module: PathBuf,
        /// Why.
        source: ModuleAnswer,
    },
    /// The module does not show the token.
    #[error(
        "PKCS#11 module {} shows no token with {wanted}, but {found}; connect the token, or correct token_label or slot_number",
        .module.display()
    )]
    NoToken {
        /// The module's file.
        module: PathBuf,
        /// `label "…"` or `slot number …`.
        wanted: String,
        /// What it shows.
        found: String,
    },
    /// Several tokens have the label.
    #[error("PKCS#11 module {} shows {count} tokens with {wanted}; name one by its slot_number", .module.display())]
    SeveralTokens {
        /// The module's file.
        module: PathBuf,
        /// `label "…"`.
        wanted: String,
        /// How many.
        count: usize,
    },
    /// The PIN is wrong. It is not shown to the token again: three wrong ones lock many a token.
    #[error("token {token} refused the PIN, which is not tried again; correct the file of pin_path and restart")]
    Pin {
        /// Its label.
        token: String,
        /// The module's answer.
        source: ModuleAnswer,
    },
    /// The token says that the last PIN shown to it was wrong, and that it counts.
    #[error(
        "token {token} was shown a wrong PIN before and counts; it is shown no other until somebody has logged in with the right one, \
         such as by `pkcs11-tool --module {} --token-label {token:?} --login --list-objects`", .module.display()
    )]
    PinCounted {
        /// Its label.
        token: String,
        /// The module's file.
        module: PathBuf,
    },
    /// Too many wrong PINs.
    #[error("the PIN of token {token} is locked after too many wrong ones; unlock it with its security officer's PIN")]
    PinLocked {
        /// Its label.
        token: String,
    },
    /// The token cannot make or use such keys.
    #[error(
        "token {token} has no {mechanism}, which {} keys need; choose another signature_algorithm_suite: token needs ECDSA on P-256 only",
        .algorithm.as_str()
    )]
    Mechanism {
        /// Its label.
        token: String,
        /// PKCS#11's name.
        mechanism: String,
        /// For which keys.
        algorithm: SignerAlgorithm,
    },
    /// The key is not in the token.
    #[error(
        "token {token} has no private key {label:?} (id {id}); connect the token that has it, or restore it from the token's backup"
    )]
    KeyGone {
        /// The token's label.
        token: String,
        /// The key's.
        label: String,
        /// `CKA_ID` in hex.
        id: String,
    },
    /// The key in the token is another than the one that was made.
    #[error(
        "key {label:?} (id {id}) in token {token} signs for another public key than the authority's; restore it from the token's backup"
    )]
    OtherKey {
        /// The token's label.
        token: String,
        /// The key's.
        label: String,
        /// `CKA_ID` in hex.
        id: String,
    },
    /// The token would give the private half out.
    #[error("token {token} would give out key {label:?}: it is {what}; use a token that keeps its keys")]
    GivenOut {
        /// The token's label.
        token: String,
        /// The key's.
        label: String,
        /// Which property is wrong.
        what: &'static str,
    },
    /// The record of the key is damaged.
    #[error("the record of token key {label:?} is damaged; restore it from a backup")]
    Record {
        /// The key's label.
        label: String,
    },
    /// The token or its module failed.
    #[error("token {token} failed to {doing}; see that it is connected, the same request may be sent again")]
    Failed {
        /// Its label.
        token: String,
        /// What it was asked for.
        doing: &'static str,
        /// The module's answer.
        source: ModuleAnswer,
    },
    /// No answer came in time.
    #[error("token {token} did not {doing} within {} s; see that it is connected", .limit.as_secs())]
    Silent {
        /// Its label.
        token: String,
        /// What it was asked for.
        doing: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// More is asked of the token than it answers.
    #[error("token {token} has too much to do; the same request may be sent again")]
    Busy {
        /// Its label.
        token: String,
    },
}

#[cfg(test)]
mod tests {
    use remoteler_core::OsEntropy;

    use super::*;

    #[test]
    fn a_record_names_its_key_and_a_damaged_one_is_refused() {
        let id = TokenKeyId::random(&OsEntropy);
        let key = TokenKey::new(id, "root user ssh", "ca", &[4, 5]);
        assert_eq!(key.id().unwrap(), id);
        assert_eq!(key.public().unwrap(), [4, 5]);
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<TokenKey>(&text).unwrap(), key);
        for id in ["", "00", &"0".repeat(31), &"0".repeat(33), &"g".repeat(32), &"ä".repeat(16)] {
            let damaged = TokenKey { id: id.to_owned(), ..key.clone() };
            assert_eq!(damaged.id(), Err(TokenError::Record { label: "root user ssh".into() }), "{id}");
        }
        assert!(TokenKey { public: "*".into(), ..key }.public().is_err());
    }
}
