//! The keys of SAML connectors, while they are made and written. Owns who makes one and when: few at once, away from the threads that wait for sockets,
//! and never while [`Inner::changes`] is held, for a key of RSA takes a second or more, in which nothing else of the cluster could change.

use std::sync::Arc;

use remoteler_ca::{CaError, KeyRing, SamlDecrypter, SamlSigner, StoredSamlKey};
use remoteler_core::{ClusterName, ResourceKind, SamlSpec, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::described;
use crate::{
    blocking::blocking,
    failure::{self, ApiResult},
    records::{Batch, key},
    service::Inner,
    sso::{connectors::Connector, records::Asked, stored::StoredConnector},
};

/// Turns at making keys. Each takes a core, and whoever asks for metadata may be who has one made (I26).
pub(in crate::sso) struct KeyTurns {
    turn: Arc<Semaphore>,
    /// Those who have the turn or wait for it.
    waiting: Arc<Semaphore>,
}

/// Most who wait for a key and its turn.
const WAITING: usize = 8;

impl Default for KeyTurns {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), waiting: Arc::new(Semaphore::new(WAITING)) }
    }
}

/// A turn at making keys, until it is dropped.
pub(super) struct Turn {
    _turn: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl KeyTurns {
    /// Waits for the turn.
    pub(super) async fn next(&self) -> ApiResult<Turn> {
        let busy = || failure::rate_limited("keys of other SAML connectors are being made; try again in a while");
        let place = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| busy())?;
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|_| busy())?;
        Ok(Turn { _turn: turn, _place: place })
    }

    /// How many have the turn or wait for it.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        WAITING - self.waiting.available_permits()
    }
}

/// Keys that were made for a connector and are not written yet.
#[derive(Default)]
pub(in crate::sso) struct MadeKeys {
    signing: Option<StoredSamlKey>,
    decrypting: Option<StoredSamlKey>,
}

/// What a connector would be without, if it were written now.
#[derive(Clone, Copy)]
struct Lacking {
    signing: bool,
    decrypting: bool,
    /// A stored key that decrypts is another identity provider's, or nobody knows whose.
    forget: bool,
}

impl Lacking {
    const fn is_nothing(self) -> bool {
        !self.signing && !self.decrypting
    }
}

/// What makes a key: [`SamlSigner::generate`], [`SamlDecrypter::generate`].
type Generate<K> = fn(&ClusterName, &str, Option<&KeyRing>, Timestamp) -> Result<K, CaError>;

impl Inner {
    /// The key that signs the request of a login. A test of a connector that is not stored has one of its own, which nobody keeps.
    /// [`Inner::changes`] is not held by the caller.
    pub(in crate::sso) async fn saml_key_for(&self, name: &str, asked: &Asked) -> ApiResult<SamlSigner> {
        if !matches!(asked, Asked::Report(_)) || self.is_stored_saml(name).await? {
            return self.saml_key(name).await;
        }
        let turn = self.sso.key_turns.next().await?;
        let (signer, _turn) = self.make_saml_key(turn, name, SamlSigner::generate).await?;
        Ok(signer)
    }

    /// The key that signs for a connector that is stored, made when there is none yet. [`Inner::changes`] is not held by the caller.
    pub(in crate::sso) async fn saml_key(&self, name: &str) -> ApiResult<SamlSigner> {
        if let Some(signer) = self.stored_saml_signer(name).await? {
            return Ok(signer);
        }
        let turn = self.sso.key_turns.next().await?;
        // Who had the turn before may have made it.
        if let Some(signer) = self.stored_saml_signer(name).await? {
            return Ok(signer);
        }
        let (signer, turn) = self.make_saml_key(turn, name, SamlSigner::generate).await?;
        drop(turn);
        let _still = self.changes.read().await;
        // Written for one that is gone it would be there for ever, and be the next one's of this name.
        let removed = || failure::not_found("the connector was removed meanwhile");
        if !self.is_stored_saml(name).await? {
            return Err(removed());
        }
        match self.records.create(&key::of(key::SAML_KEYS, name), &signer.to_stored(), None).await {
            Ok(_) => Ok(signer),
            Err(cause) if cause.is_conflict() => {
                let stored = self.stored_saml_signer(name).await?;
                stored.ok_or_else(removed)
            }
            Err(cause) => Err(cause.into()),
        }
    }

    async fn is_stored_saml(&self, name: &str) -> ApiResult<bool> {
        Ok(self.stored_connector(name).await?.is_some_and(|stored| stored.is_of(ResourceKind::Saml)))
    }

    async fn stored_saml_signer(&self, name: &str) -> ApiResult<Option<SamlSigner>> {
        let stored = self.records.read::<StoredSamlKey>(&key::of(key::SAML_KEYS, name)).await?;
        let opened = stored.map(|stored| SamlSigner::open(&stored, self.issuer.keys().ring())).transpose();
        opened.map_err(|cause| failure::authority(&cause))
    }

    /// Makes the keys that a connector would lack if it were written now, and writes none of them: [`Inner::changes`] is not held by the caller, who takes it
    /// then and asks [`Inner::with_saml_keys`] whether they are what is lacking still.
    pub(in crate::sso) async fn make_saml_keys(&self, connector: &Connector) -> ApiResult<MadeKeys> {
        let Connector::Saml { name, spec } = connector else { return Ok(MadeKeys::default()) };
        if self.lacking_saml_keys(name, spec).await?.is_nothing() {
            return Ok(MadeKeys::default());
        }
        let mut turn = self.sso.key_turns.next().await?;
        // Who had the turn before may have made and written them.
        let lacking = self.lacking_saml_keys(name, spec).await?;
        let mut made = MadeKeys::default();
        if lacking.signing {
            let signer: SamlSigner;
            (signer, turn) = self.make_saml_key(turn, name, SamlSigner::generate).await?;
            made.signing = Some(signer.to_stored());
        }
        if lacking.decrypting {
            let (decrypter, _turn) = self.make_saml_key(turn, name, SamlDecrypter::generate).await?;
            made.decrypting = Some(decrypter.to_stored());
        }
        Ok(made)
    }

    /// `batch`, in which a connector is written, with its keys: those of `made` that it lacks. A key of another identity provider is forgotten. `None` if it
    /// lacks one that was not made, because the connector changed since. [`Inner::changes`] is held by the caller.
    pub(in crate::sso) async fn with_saml_keys(
        &self,
        connector: &Connector,
        made: &MadeKeys,
        mut batch: Batch,
    ) -> ApiResult<Option<Batch>> {
        let Connector::Saml { name, spec } = connector else { return Ok(Some(batch)) };
        let lacking = self.lacking_saml_keys(name, spec).await?;
        if lacking.signing {
            let Some(signing) = &made.signing else { return Ok(None) };
            batch = batch.create(&key::of(key::SAML_KEYS, name), signing, None)?;
        }
        let place = key::of(key::SAML_ENCRYPTION_KEYS, name);
        if lacking.decrypting {
            let Some(decrypting) = &made.decrypting else { return Ok(None) };
            batch = batch.write(&place, decrypting, None)?;
        } else if lacking.forget {
            batch = batch.delete(&place);
        }
        Ok(Some(batch))
    }

    async fn lacking_saml_keys(&self, name: &str, spec: &SamlSpec) -> ApiResult<Lacking> {
        let entity = |spec: &SamlSpec| {
            // As of no time: whose metadata it is does not change when that is over.
            let found = described(spec, Timestamp::default()).ok().flatten().map(|described| described.entity_id);
            (found.or_else(|| spec.issuer.clone()), spec.entity_descriptor_url.clone())
        };
        let known = self.stored_connector(name).await?.and_then(StoredConnector::into_saml);
        let forget = known.is_none_or(|known| entity(&known) != entity(spec));
        let signing = self.records.read::<StoredSamlKey>(&key::of(key::SAML_KEYS, name)).await?.is_none();
        let place = key::of(key::SAML_ENCRYPTION_KEYS, name);
        let decrypting =
            spec.encrypted_assertions && (forget || self.records.read::<StoredSamlKey>(&place).await?.is_none());
        Ok(Lacking { signing, decrypting, forget })
    }

    /// Makes one key. The turn goes with the work: it ends with it, also when nobody waits for the key any more.
    async fn make_saml_key<K: Send + 'static>(
        &self,
        turn: Turn,
        name: &str,
        generate: Generate<K>,
    ) -> ApiResult<(K, Turn)> {
        let keys = Arc::clone(self.issuer.keys());
        let (cluster, connector, now) = (self.cluster.clone(), name.to_owned(), self.clock.now());
        let (made, turn) = blocking(move || (generate(&cluster, &connector, keys.ring(), now), turn)).await;
        Ok((made.map_err(|cause| failure::authority(&cause))?, turn))
    }
}
