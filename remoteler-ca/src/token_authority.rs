//! Authorities and where their private keys are: opened from memory, unsealed, or left in a token. Owns the way from a stored record to
//! signers, and what becomes of keys in a token when their authority is not made or is let go. Never signs.

use remoteler_core::{CaKind, ClusterName, Entropy, KeyPlace, KeyPlaces, Timestamp};

use crate::{
    Authority, CaError, FileSigner, KeyRing, SealError, Signer, SignerAlgorithm, StoredAuthority, StoredKey, Suite,
    TokenError, TokenKey, TokenKeyId, TokenKeys,
    authority::{certificate_pem, sealed},
    profile, x509_authority,
};

/// What stored authorities are opened with. Without either, only keys in the clear are opened.
#[derive(Clone, Copy, Default)]
pub struct KeyHomes<'a> {
    /// Opens sealed keys, and seals those in the clear.
    pub ring: Option<&'a KeyRing>,
    /// Has the keys that are in a token.
    pub token: Option<&'a dyn TokenKeys>,
}

impl Authority {
    /// Takes up a stored authority, wherever its keys are. What was opened is held by the signers only: [`Authority::to_stored`] gives the
    /// sealed form where there is a ring, and what names a key in a token as it is.
    ///
    /// # Errors
    /// [`CaError::Sealed`] when a key does not open, [`CaError::NoToken`] and [`CaError::Token`] when one cannot be reached, and others when
    /// the parts do not belong together.
    pub fn open(stored: &StoredAuthority, homes: KeyHomes<'_>) -> Result<Self, CaError> {
        let (opened, kept) = match homes.ring {
            Some(ring) => {
                let refused = |source| sealed(stored, source);
                (stored.unsealed(ring).map_err(refused)?, stored.sealed(ring).map_err(refused)?)
            }
            None => (stored.clone(), stored.clone()),
        };
        let signer = |key: &StoredKey, algorithm: SignerAlgorithm| -> Result<Box<dyn Signer>, CaError> {
            match key {
                StoredKey::Clear(text) => Ok(Box::new(FileSigner::from_pem(algorithm, text)?)),
                StoredKey::Sealed(_) => Err(sealed(stored, SealError::NoKey)),
                StoredKey::Token(key) => {
                    let (cluster, kind) = (stored.cluster.clone(), stored.kind.as_str());
                    let Some(token) = homes.token else {
                        return Err(CaError::NoToken { cluster, kind, token: key.token().to_owned() });
                    };
                    token.open(algorithm, key).map_err(|source| CaError::Token { cluster, kind, source })
                }
            }
        };
        let ssh = signer(&opened.ssh_key, stored.suite.ssh())?;
        let x509 = signer(&opened.x509_key, stored.suite.x509())?;
        Self::from_signers(kept, ssh, x509)
    }

    /// Makes a new authority like [`Authority::generate_with`], its keys in `token`.
    ///
    /// # Errors
    /// [`CaError::Token`] when the token does not make or use them, [`CaError::Clock`] for a `now` that no certificate can express. No key of
    /// it is left in the token then, as far as that can still be asked.
    pub fn generate_in_token(
        cluster: &ClusterName,
        kind: CaKind,
        suite: Suite,
        now: Timestamp,
        entropy: &dyn Entropy,
        token: &dyn TokenKeys,
    ) -> Result<Self, CaError> {
        let mut made = Vec::new();
        let authority = Self::generate_keys_in_token(cluster, kind, suite, now, entropy, token, &mut made);
        if authority.is_err() {
            for key in &made {
                // The first error is the one to be told; a key that nobody names is of no use to anybody.
                let _ = token.destroy(key);
            }
        }
        authority
    }

    fn generate_keys_in_token(
        cluster: &ClusterName,
        kind: CaKind,
        suite: Suite,
        now: Timestamp,
        entropy: &dyn Entropy,
        token: &dyn TokenKeys,
        made: &mut Vec<TokenKey>,
    ) -> Result<Self, CaError> {
        let failed = |source: TokenError| CaError::Token { cluster: cluster.clone(), kind: kind.as_str(), source };
        let mut make = |algorithm, purpose: &str| {
            let label = format!("{cluster} {} {purpose}", kind.as_str());
            let (signer, key) = token.generate(algorithm, TokenKeyId::random(entropy), &label).map_err(failed)?;
            made.push(key.clone());
            Ok::<_, CaError>((signer, key))
        };
        let (ssh, ssh_key) = make(suite.ssh(), "ssh")?;
        let (x509, x509_key) = make(suite.x509(), "x509")?;
        let certificate = x509_authority::self_signed(&*x509, cluster, kind, now, profile::x509_serial(entropy))?;
        let stored = StoredAuthority {
            cluster: cluster.clone(),
            kind,
            suite,
            ssh_key: StoredKey::Token(ssh_key),
            x509_key: StoredKey::Token(x509_key),
            x509_certificate: certificate_pem(certificate),
        };
        Self::from_signers(stored, ssh, x509)
    }

    /// Whether signing asks a token, so that it may take a while.
    #[must_use]
    pub fn is_in_token(&self) -> bool {
        !self.stored().token_keys().is_empty()
    }

    /// Where its private keys lie.
    #[must_use]
    pub fn key_places(&self) -> KeyPlaces {
        let place = |key: &StoredKey| match key {
            StoredKey::Clear(_) => KeyPlace::File,
            StoredKey::Sealed(_) => KeyPlace::Sealed,
            StoredKey::Token(key) => KeyPlace::Token { token: key.token().to_owned() },
        };
        KeyPlaces { ssh: place(&self.stored().ssh_key), x509: place(&self.stored().x509_key) }
    }

    /// Its keys that are in a token: to be destroyed there when it is let go for good.
    #[must_use]
    pub fn token_keys(&self) -> Vec<TokenKey> {
        self.stored().token_keys()
    }
}

impl StoredAuthority {
    fn token_keys(&self) -> Vec<TokenKey> {
        let in_token = |key: &StoredKey| match key {
            StoredKey::Token(key) => Some(key.clone()),
            StoredKey::Clear(_) | StoredKey::Sealed(_) => None,
        };
        [&self.ssh_key, &self.x509_key].into_iter().filter_map(in_token).collect()
    }
}
