//! How the authorities' keys are made and where they are kept. Owns the choice and the way to the keys; nobody else opens one.

use std::sync::Arc;

use remoteler_ca::{Authority, CaError, KeyHomes, KeyRing, StoredAuthority, Suite, TokenKey, TokenKeys};
use remoteler_core::{CaKind, ClusterName, Entropy, Timestamp};

/// What the operator says about the authorities' keys. A change moves no key that is there: the next rotation makes new ones that fit.
#[derive(Clone, Default)]
pub struct KeyParams {
    /// Which algorithms new authorities sign with. Absent: as before, and `balanced` at the first start.
    pub suite: Option<Suite>,
    /// A token that has keys, or is to have them.
    pub token: Option<Arc<dyn TokenKeys>>,
    /// Where new keys are made.
    pub new_keys: NewKeys,
}

/// Where new keys are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewKeys {
    /// In the token, if there is one.
    #[default]
    InToken,
    /// In this process, to be kept in the database: the way back from a token.
    InDatabase,
}

/// Where private keys are made, and how they are kept at rest (I8). Calls may wait for a token.
pub(crate) struct AuthorityKeys {
    entropy: Arc<dyn Entropy>,
    ring: Option<Arc<KeyRing>>,
    params: KeyParams,
}

impl AuthorityKeys {
    pub(crate) const fn new(entropy: Arc<dyn Entropy>, ring: Option<Arc<KeyRing>>, params: KeyParams) -> Self {
        Self { entropy, ring, params }
    }

    /// What seals keys that are kept in the database, if anything does.
    pub(crate) fn ring(&self) -> Option<&KeyRing> {
        self.ring.as_deref()
    }

    /// The token that new keys are made in.
    fn token_for_new(&self) -> Option<&dyn TokenKeys> {
        match self.params.new_keys {
            NewKeys::InToken => self.params.token.as_deref(),
            NewKeys::InDatabase => None,
        }
    }

    /// Makes the keys of a new authority; `present` is the suite of the one it follows.
    pub(crate) fn generate(
        &self,
        cluster: &ClusterName,
        kind: CaKind,
        present: Option<Suite>,
        now: Timestamp,
    ) -> Result<Authority, CaError> {
        let suite = self.params.suite.or(present).unwrap_or_default();
        if let Some(token) = self.token_for_new() {
            return Authority::generate_in_token(cluster, kind, suite, now, self.entropy.as_ref(), token);
        }
        let made = Authority::generate_with(cluster, kind, suite, now, self.entropy.as_ref())?;
        match &self.ring {
            Some(ring) => Authority::from_sealed(&made.to_stored(), ring),
            None => Ok(made),
        }
    }

    pub(crate) fn open(&self, stored: &StoredAuthority) -> Result<Authority, CaError> {
        Authority::open(stored, KeyHomes { ring: self.ring.as_deref(), token: self.params.token.as_deref() })
    }

    /// Whether the record is as it would be written now.
    pub(crate) fn are_kept(&self, stored: &StoredAuthority) -> bool {
        self.ring.as_ref().is_none_or(|ring| stored.is_sealed_by(ring))
    }

    /// Whether a new authority would be made as this one was; if not, a rotation brings what the operator wants.
    pub(crate) fn would_make(&self, authority: &Authority) -> bool {
        self.params.suite.is_none_or(|suite| suite == authority.suite())
            && self.token_for_new().is_some() == authority.is_in_token()
    }

    /// Destroys keys in the token; those that are left, each with a line in the log.
    pub(crate) fn destroy(&self, keys: Vec<TokenKey>) -> Vec<TokenKey> {
        let is_left = |key: &TokenKey| {
            let Some(token) = &self.params.token else {
                tracing::warn!(
                    token = key.token(),
                    key = key.label(),
                    "a key of a former authority is left in a token that is not configured"
                );
                return true;
            };
            match token.destroy(key) {
                Ok(()) => {
                    tracing::info!(token = key.token(), key = key.label(), "a key of a former authority was destroyed");
                    false
                }
                Err(cause) => {
                    let cause = remoteler_core::with_causes(&cause);
                    tracing::warn!(
                        token = key.token(),
                        key = key.label(),
                        cause,
                        "a key of a former authority is left in its token"
                    );
                    true
                }
            }
        };
        keys.into_iter().filter(is_left).collect()
    }
}

impl std::fmt::Debug for KeyParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|token| token.token().to_owned());
        f.debug_struct("KeyParams")
            .field("suite", &self.suite)
            .field("token", &token)
            .field("new_keys", &self.new_keys)
            .finish()
    }
}
