//! The cluster's authorities as the auth service keeps them: for users and for hosts the one that signs, a second one while a
//! rotation goes on, and where that stands. Owns their records and the trust bundle made of them; decides no step itself.

use std::sync::Arc;

use remoteler_ca::{Authority, CaError, Rotation, StoredAuthority, Suite, TokenKey};
use remoteler_core::{
    CaKind, CaSet, ClusterName, KeyPlaces, Revision, Revocations, RotationKind, RotationPhase, RotationView, Timestamp,
    TrustBundle,
};
use serde::{Deserialize, Serialize};

use crate::{
    blocking::blocking,
    identity_token_keys::IdentityTokenKeys,
    key_params::AuthorityKeys,
    records::{RecordError, Records, key},
    service::StartError,
};

/// Both authorities at one moment.
#[derive(Clone)]
pub(crate) struct Authorities {
    pub(crate) user: AuthoritySet,
    pub(crate) host: AuthoritySet,
    /// Beside them: the keys of identity tokens, which rotate in the same way.
    pub(crate) tokens: IdentityTokenKeys,
    /// What everybody is to believe, made of all of these.
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
        let tokens = IdentityTokenKeys::open(cluster, records, now, keys.ring()).await?;
        Ok(Self::new(cluster.clone(), user, host, tokens))
    }

    fn new(cluster: ClusterName, user: AuthoritySet, host: AuthoritySet, tokens: IdentityTokenKeys) -> Self {
        let mut trust = TrustBundle::new(cluster, user.public(), host.public());
        trust.rotation = RotationView {
            generation: [&user.rotation, &host.rotation, &tokens.rotation]
                .map(Rotation::generation)
                .into_iter()
                .fold(0, u64::max),
            user: user.rotation.phase(),
            host: host.rotation.phase(),
            token: tokens.rotation.phase(),
        };
        trust.tokens = tokens.public();
        Self { user, host, tokens, trust }
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

    /// Where one of the rotations stands.
    pub(crate) const fn rotation(&self, kind: RotationKind) -> &Rotation {
        match kind.authority() {
            Some(kind) => &self.set(kind).rotation,
            None => &self.tokens.rotation,
        }
    }

    /// With the keys of identity tokens replaced.
    pub(crate) fn with_tokens(&self, tokens: IdentityTokenKeys) -> Self {
        Self::new(self.trust.cluster.clone(), self.user.clone(), self.host.clone(), tokens)
            .revoking(self.trust.revoked.clone())
    }

    /// With one of the two authorities replaced.
    pub(crate) fn with(&self, set: AuthoritySet) -> Self {
        let cluster = self.trust.cluster.clone();
        let replaced = match set.active.kind() {
            CaKind::User => Self::new(cluster, set, self.host.clone(), self.tokens.clone()),
            CaKind::Host => Self::new(cluster, self.user.clone(), set, self.tokens.clone()),
        };
        replaced.revoking(self.trust.revoked.clone())
    }

    /// With this revoked, and nothing else.
    pub(crate) fn revoking(&self, revoked: Revocations) -> Self {
        let mut replaced = self.clone();
        replaced.trust.revoked = revoked;
        replaced
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
            let rotation = Rotation::standby(kind.into(), 1, now);
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
        match set.destroy_retired(keys).await {
            Some(left) => Ok(set.save_retired(left, records).await),
            None => Ok(set),
        }
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

    /// All key pairs, the active one first.
    pub(crate) fn believed(&self) -> impl Iterator<Item = &Arc<Authority>> {
        std::iter::once(&self.active).chain(&self.other)
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

    /// Destroys the keys of authorities that were let go, in the token that has them; those that are left, for [`AuthoritySet::save_retired`],
    /// if there are fewer. What cannot be destroyed now stays in the record, and is tried again at the next step and the next start.
    pub(crate) async fn destroy_retired(&self, keys: &Arc<AuthorityKeys>) -> Option<Vec<TokenKey>> {
        let (before, retired, keys) = (self.retired.len(), self.retired.clone(), Arc::clone(keys));
        if before == 0 {
            return None;
        }
        let left = blocking(move || keys.destroy(retired)).await;
        (left.len() < before).then_some(left)
    }

    /// Writes that no more than these keys are left of those that were let go.
    pub(crate) async fn save_retired(self, left: Vec<TokenKey>, records: &Records) -> Self {
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
