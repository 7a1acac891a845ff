//! The cluster's authorities as the auth service keeps them: for users and for hosts the one that signs, a second one while a
//! rotation goes on, and where that stands. Owns their records and the trust bundle made of them; decides no step itself.

use std::sync::Arc;

use remoteler_ca::{Authority, CaError, KeyRing, Rotation, StoredAuthority, Suite};
use remoteler_core::{
    CaKind, CaSet, ClusterName, Entropy, Revision, Revocations, RotationKind, RotationPhase, RotationView, Timestamp,
    TrustBundle,
};
use serde::{Deserialize, Serialize};

use crate::{
    records::{RecordError, Records, key},
    service::StartError,
    token_keys::TokenKeys,
};

/// Both authorities at one moment.
#[derive(Clone)]
pub(crate) struct Authorities {
    pub(crate) user: AuthoritySet,
    pub(crate) host: AuthoritySet,
    /// Beside them: the keys of identity tokens, which rotate in the same way.
    pub(crate) tokens: TokenKeys,
    /// What everybody is to believe, made of all of these.
    trust: TrustBundle,
}

/// One authority: the key pairs of it, and its rotation.
#[derive(Clone)]
pub(crate) struct AuthoritySet {
    pub(crate) rotation: Rotation,
    active: Arc<Authority>,
    other: Option<Arc<Authority>>,
    revision: Revision,
}

/// Where private keys are made, and how they are kept at rest (I8).
pub(crate) struct AuthorityKeys {
    entropy: Arc<dyn Entropy>,
    ring: Option<Arc<KeyRing>>,
}

impl AuthorityKeys {
    pub(crate) const fn new(entropy: Arc<dyn Entropy>, ring: Option<Arc<KeyRing>>) -> Self {
        Self { entropy, ring }
    }

    /// What seals them, if anything does.
    pub(crate) fn ring(&self) -> Option<&KeyRing> {
        self.ring.as_deref()
    }

    fn generate(
        &self,
        cluster: &ClusterName,
        kind: CaKind,
        suite: Suite,
        now: Timestamp,
    ) -> Result<Authority, CaError> {
        let made = Authority::generate_with(cluster, kind, suite, now, self.entropy.as_ref())?;
        match &self.ring {
            Some(ring) => Authority::from_sealed(&made.to_stored(), ring),
            None => Ok(made),
        }
    }

    fn open(&self, stored: &StoredAuthority) -> Result<Authority, CaError> {
        match &self.ring {
            Some(ring) => Authority::from_sealed(stored, ring),
            None => Authority::from_stored(stored),
        }
    }

    /// Whether the record is as it would be written now.
    fn are_kept(&self, stored: &StoredAuthority) -> bool {
        self.ring.as_ref().is_none_or(|ring| stored.is_sealed_by(ring))
    }
}

/// The same as it is kept, private keys included (I8).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSet {
    rotation: Rotation,
    active: StoredAuthority,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    other: Option<StoredAuthority>,
}

impl Authorities {
    /// Loads both, or makes them at the first start.
    pub(crate) async fn open(
        cluster: &ClusterName,
        records: &Records,
        now: Timestamp,
        keys: &AuthorityKeys,
    ) -> Result<Self, StartError> {
        let user = AuthoritySet::open(cluster, CaKind::User, records, now, keys).await?;
        let host = AuthoritySet::open(cluster, CaKind::Host, records, now, keys).await?;
        let tokens = TokenKeys::open(cluster, records, now, keys.ring()).await?;
        Ok(Self::new(cluster.clone(), user, host, tokens))
    }

    fn new(cluster: ClusterName, user: AuthoritySet, host: AuthoritySet, tokens: TokenKeys) -> Self {
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
    pub(crate) fn with_tokens(&self, tokens: TokenKeys) -> Self {
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
        keys: &AuthorityKeys,
    ) -> Result<Self, StartError> {
        let key = key::of(key::AUTHORITIES, kind.as_str());
        if let Some((stored, revision)) = records.read_at::<StoredSet>(&key).await? {
            let StoredSet { rotation, active, other } = stored;
            let sealed = std::iter::once(&active).chain(&other).all(|stored| keys.are_kept(stored));
            let active = Arc::new(keys.open(&active)?);
            let other = other.as_ref().map(|other| keys.open(other)).transpose()?.map(Arc::new);
            let set = Self { rotation, active, other, revision };
            if sealed {
                return Ok(set);
            }
            let set = set.save(records).await?;
            tracing::info!(cluster = %cluster, kind = kind.as_str(), "the authority's keys were sealed");
            return Ok(set);
        }
        let active = Arc::new(keys.generate(cluster, kind, Suite::default(), now)?);
        let rotation = Rotation::standby(kind.into(), 1, now);
        let stored = StoredSet { rotation: rotation.clone(), active: active.to_stored(), other: None };
        let revision = records.create(&key, &stored, None).await?;
        Ok(Self { rotation, active, other: None, revision })
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
    pub(crate) fn moved(&self, rotation: Rotation, keys: remoteler_ca::KeyMove, fresh: Option<Authority>) -> Self {
        use remoteler_ca::KeyMove;
        let (active, other) = match (keys, &self.other) {
            (KeyMove::Generate, _) => (self.active.clone(), fresh.map(Arc::new)),
            (KeyMove::Swap, Some(other)) => (other.clone(), Some(self.active.clone())),
            (KeyMove::Retire, _) => (self.active.clone(), None),
            (KeyMove::Keep | KeyMove::Swap, other) => (self.active.clone(), other.clone()),
        };
        Self { rotation, active, other, revision: self.revision }
    }

    /// Writes the set, if nobody else has written meanwhile.
    pub(crate) async fn save(self, records: &Records) -> Result<Self, RecordError> {
        let key = key::of(key::AUTHORITIES, self.rotation.kind().as_str());
        let stored = StoredSet {
            rotation: self.rotation.clone(),
            active: self.active.to_stored(),
            other: self.other.as_ref().map(|other| other.to_stored()),
        };
        let revision = records.replace(&key, self.revision, &stored).await?;
        Ok(Self { revision, ..self })
    }

    /// A new key pair for a rotation that begins.
    pub(crate) fn generate(&self, now: Timestamp, keys: &AuthorityKeys) -> Result<Authority, CaError> {
        keys.generate(self.active.cluster(), self.active.kind(), self.active.suite(), now)
    }
}
