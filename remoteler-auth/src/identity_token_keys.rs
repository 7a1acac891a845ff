//! The keys that sign identity tokens, as the auth service keeps them: the one that signs, a second one while a rotation goes on, and
//! where that stands. Owns their record. They rotate by the same machine as the authorities, and are no authority.

use std::sync::Arc;

use remoteler_ca::{CaError, KeyMove, KeyRing, Rotation, StoredTokenKey, TokenSigner};
use remoteler_core::{ClusterName, Jwk, Revision, RotationKind, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    records::{RecordError, Records, key},
    service::StartError,
};

/// The keys at one moment.
#[derive(Clone)]
pub(crate) struct IdentityTokenKeys {
    pub(crate) rotation: Rotation,
    active: Arc<TokenSigner>,
    other: Option<Arc<TokenSigner>>,
    revision: Revision,
}

/// The same as it is kept, private keys included (I8).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKeys {
    rotation: Rotation,
    active: StoredTokenKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    other: Option<StoredTokenKey>,
}

impl IdentityTokenKeys {
    /// Loads them, or makes the first one. Those that are not sealed though there is a `ring` are sealed now.
    pub(crate) async fn open(
        cluster: &ClusterName,
        records: &Records,
        now: Timestamp,
        ring: Option<&KeyRing>,
    ) -> Result<Self, StartError> {
        if let Some((stored, revision)) = records.read_at::<StoredKeys>(&record()).await? {
            let active = Arc::new(TokenSigner::open(&stored.active, ring)?);
            let other = stored.other.as_ref().map(|other| TokenSigner::open(other, ring)).transpose()?.map(Arc::new);
            let kept = (&stored.active, &stored.other);
            let as_kept = (&active.to_stored(), &other.as_ref().map(|other| other.to_stored())) == kept;
            let keys = Self { rotation: stored.rotation, active, other, revision };
            if as_kept {
                return Ok(keys);
            }
            let keys = keys.save(records).await?;
            tracing::info!(cluster = %cluster, "the keys of identity tokens were sealed");
            return Ok(keys);
        }
        let active = Arc::new(TokenSigner::generate(cluster, ring)?);
        // Generation 0: a cluster of before there were such keys has nothing to follow.
        let rotation = Rotation::standby(RotationKind::Token, 0, now);
        let stored = StoredKeys { rotation: rotation.clone(), active: active.to_stored(), other: None };
        let revision = records.create(&record(), &stored, None).await?;
        Ok(Self { rotation, active, other: None, revision })
    }

    /// The one that signs.
    pub(crate) const fn active(&self) -> &Arc<TokenSigner> {
        &self.active
    }

    /// The public halves, the active one first.
    pub(crate) fn public(&self) -> Vec<Jwk> {
        [Some(&self.active), self.other.as_ref()].into_iter().flatten().map(|key| key.public().clone()).collect()
    }

    /// A new key for a rotation that begins.
    pub(crate) fn generate(cluster: &ClusterName, ring: Option<&KeyRing>) -> Result<TokenSigner, CaError> {
        TokenSigner::generate(cluster, ring)
    }

    /// The keys after `rotation`, not written yet.
    pub(crate) fn moved(&self, rotation: Rotation, keys: KeyMove, fresh: Option<TokenSigner>) -> Self {
        let (active, other) = match (keys, &self.other) {
            (KeyMove::Generate, _) => (self.active.clone(), fresh.map(Arc::new)),
            (KeyMove::Swap, Some(other)) => (other.clone(), Some(self.active.clone())),
            (KeyMove::Retire, _) => (self.active.clone(), None),
            (KeyMove::Keep | KeyMove::Swap, other) => (self.active.clone(), other.clone()),
        };
        Self { rotation, active, other, revision: self.revision }
    }

    /// Writes them, if nobody else has written meanwhile.
    pub(crate) async fn save(self, records: &Records) -> Result<Self, RecordError> {
        let stored = StoredKeys {
            rotation: self.rotation.clone(),
            active: self.active.to_stored(),
            other: self.other.as_ref().map(|other| other.to_stored()),
        };
        let revision = records.replace(&record(), self.revision, &stored).await?;
        Ok(Self { revision, ..self })
    }
}

fn record() -> String {
    key::of(key::AUTHORITIES, RotationKind::Token.as_str())
}
