//! The cluster's authorities as the auth service keeps them: for users and for hosts the one that signs, a second one while a
//! rotation goes on, and where that stands. Owns their records and the trust bundle made of them; decides no step itself.

use std::sync::Arc;

use remoteler_ca::{Authority, CaError, Rotation, StoredAuthority, Suite, TokenKey};
use remoteler_core::{
    CaKind, CaSet, ClusterName, KeyPlaces, Revision, RotationPhase, RotationView, Timestamp, TrustBundle,
};
use serde::{Deserialize, Serialize};

use crate::{
    blocking::blocking,
    key_params::AuthorityKeys,
    records::{RecordError, Records, key},
    service::StartError,
};

/// Both authorities at one moment.
#[derive(Clone)]
pub(crate) struct Authorities {
    pub(crate) user: AuthoritySet,
    pub(crate) host: AuthoritySet,
    /// What everybody is to believe, made of the two.
    trust: TrustBundle,
}

/// One authority: the key pairs of it, and its rotation.
#[derive(Clone)]
pub(crate) struct AuthoritySet {
    pub(crate) rotation: Rotation,
    active: Arc<Authority>,
    other: Option<Arc<Authority>>,
    /// Keys of authorities that were let go, not destroyed yet.
    retired: Vec<TokenKey>,
    revision: Revision,
}

/// The same as it is kept, private keys included (I8).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSet {
    rotation: Rotation,
    active: StoredAuthority,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    other: Option<StoredAuthority>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    retired: Vec<TokenKey>,
}

impl Authorities {
    /// Loads both, or makes them at the first start.
    pub(crate) async fn open(
        cluster: &ClusterName,
        records: &Records,
        now: Timestamp,
        keys: &Arc<AuthorityKeys>,
    ) -> Result<Self, StartError> {
        let user = AuthoritySet::open(cluster, CaKind::User, records, now, keys).await?;
        let host = AuthoritySet::open(cluster, CaKind::Host, records, now, keys).await?;
        Ok(Self::new(cluster.clone(), user, host))
    }

    fn new(cluster: ClusterName, user: AuthoritySet, host: AuthoritySet) -> Self {
        let mut trust = TrustBundle::new(cluster, user.public(), host.public());
        trust.rotation = RotationView {
            generation: user.rotation.generation().max(host.rotation.generation()),
            user: user.rotation.phase(),
            host: host.rotation.phase(),
        };
        Self { user, host, trust }
    }

    pub(crate) const fn trust(&self) -> &TrustBundle {
        &self.trust
    }

    pub(crate) const fn set(&self, kind: CaKind) -> &AuthoritySet {
        match kind {
            CaKind::User => &self.user,
            CaKind::Host => &self.host,
        }
    }

    /// With one of the two replaced.
    pub(crate) fn with(&self, set: AuthoritySet) -> Self {
        let cluster = self.trust.cluster.clone();
        match set.rotation.kind() {
            CaKind::User => Self::new(cluster, set, self.host.clone()),
            CaKind::Host => Self::new(cluster, self.user.clone(), set),
        }
    }
}

impl AuthoritySet {
    async fn open(
        cluster: &ClusterName,
        kind: CaKind,
        records: &Records,
        now: Timestamp,
        keys: &Arc<AuthorityKeys>,
    ) -> Result<Self, StartError> {
        let key = key::of(key::AUTHORITIES, kind.as_str());
        let Some((stored, revision)) = records.read_at::<StoredSet>(&key).await? else {
            let active = Arc::new(generate(cluster, kind, None, now, keys).await?);
            let rotation = Rotation::standby(kind, 1, now);
            let mut set = Self { rotation, active, other: None, retired: Vec::new(), revision: Revision(0) };
            match records.create(&key, &set.stored(), None).await {
                Ok(revision) => set.revision = revision,
                Err(cause) => {
                    discard(&set.active, keys).await;
                    return Err(cause.into());
                }
            }
            return Ok(set);
        };
        let StoredSet { rotation, active, other, retired } = stored;
        let (opened, opener) = ((active, other), Arc::clone(keys));
        let (active, other, kept) = blocking(move || {
            let (active, other) = opened;
            let kept = std::iter::once(&active).chain(&other).all(|stored| opener.are_kept(stored));
            let other = other.as_ref().map(|other| opener.open(other)).transpose()?;
            Ok::<_, CaError>((opener.open(&active)?, other, kept))
        })
        .await?;
        let mut set = Self { rotation, active: Arc::new(active), other: other.map(Arc::new), retired, revision };
        if !kept {
            set = set.save(records).await?;
            tracing::info!(cluster = %cluster, kind = kind.as_str(), "the authority's keys were sealed");
        }
        if set.rotation.phase() == RotationPhase::Standby && !keys.would_make(&set.active) {
            tracing::info!(
                kind = kind.as_str(),
                "the authority's keys are not of the kind or at the place that is configured; rotate it to change that"
            );
        }
        Ok(set.destroy_retired(records, keys).await)
    }

    /// The one that signs for users and for outgoing connections.
    pub(crate) const fn active(&self) -> &Arc<Authority> {
        &self.active
    }

    /// The one whose certificates servers show: in the phase `update_clients` still the one that goes.
    pub(crate) const fn serving(&self) -> &Arc<Authority> {
        match (self.rotation.phase(), &self.other) {
            (RotationPhase::UpdateClients, Some(other)) => other,
            _ => &self.active,
        }
    }

    /// The public halves, the active one first.
    fn public(&self) -> CaSet {
        let mut set = self.active.public();
        if let Some(other) = &self.other {
            let other = other.public();
            set.ssh.extend(other.ssh);
            set.x509.extend(other.x509);
        }
        set
    }

    /// The set after `rotation` with these keys, not written yet.
    pub(crate) fn moved(&self, rotation: Rotation, keys: remoteler_ca::KeyMove, fresh: Option<Arc<Authority>>) -> Self {
        use remoteler_ca::KeyMove;
        let (active, other) = match (keys, &self.other) {
            (KeyMove::Generate, _) => (self.active.clone(), fresh),
            (KeyMove::Swap, Some(other)) => (other.clone(), Some(self.active.clone())),
            (KeyMove::Retire, _) => (self.active.clone(), None),
            (KeyMove::Keep | KeyMove::Swap, other) => (self.active.clone(), other.clone()),
        };
        let mut retired = self.retired.clone();
        if keys == KeyMove::Retire {
            retired.extend(self.other.iter().flat_map(|gone| gone.token_keys()));
        }
        Self { rotation, active, other, retired, revision: self.revision }
    }

    fn stored(&self) -> StoredSet {
        StoredSet {
            rotation: self.rotation.clone(),
            active: self.active.to_stored(),
            other: self.other.as_ref().map(|other| other.to_stored()),
            retired: self.retired.clone(),
        }
    }

    /// Destroys the keys of authorities that were let go, in the token that has them, and writes that it is done. What cannot be destroyed now
    /// stays in the record, and is tried again at the next step and the next start.
    pub(crate) async fn destroy_retired(self, records: &Records, keys: &Arc<AuthorityKeys>) -> Self {
        let (before, retired, keys) = (self.retired.len(), self.retired.clone(), Arc::clone(keys));
        if before == 0 {
            return self;
        }
        let left = blocking(move || keys.destroy(retired)).await;
        if left.len() == before {
            return self;
        }
        match (Self { retired: left, ..self.clone() }).save(records).await {
            Ok(set) => set,
            Err(cause) => {
                tracing::warn!(%cause, "it is not written that keys of a former authority were destroyed");
                self
            }
        }
    }

    /// Where the private keys lie, those of the one that signs first.
    pub(crate) fn key_places(&self) -> Vec<KeyPlaces> {
        std::iter::once(&self.active).chain(&self.other).map(|authority| authority.key_places()).collect()
    }

    /// Writes the set, if nobody else has written meanwhile.
    pub(crate) async fn save(self, records: &Records) -> Result<Self, RecordError> {
        let key = key::of(key::AUTHORITIES, self.rotation.kind().as_str());
        let revision = records.replace(&key, self.revision, &self.stored()).await?;
        Ok(Self { revision, ..self })
    }

    /// A new key pair for a rotation that begins.
    pub(crate) async fn generate(&self, now: Timestamp, keys: &Arc<AuthorityKeys>) -> Result<Arc<Authority>, CaError> {
        let present = &self.active;
        generate(present.cluster(), present.kind(), Some(present.suite()), now, keys).await.map(Arc::new)
    }
}

async fn generate(
    cluster: &ClusterName,
    kind: CaKind,
    present: Option<Suite>,
    now: Timestamp,
    keys: &Arc<AuthorityKeys>,
) -> Result<Authority, CaError> {
    let (cluster, keys) = (cluster.clone(), Arc::clone(keys));
    blocking(move || keys.generate(&cluster, kind, present, now)).await
}

/// Undoes [`AuthoritySet::generate`] for an authority that no record names.
pub(crate) async fn discard(made: &Authority, keys: &Arc<AuthorityKeys>) {
    let (made, keys) = (made.token_keys(), Arc::clone(keys));
    blocking(move || drop(keys.destroy(made))).await;
}
