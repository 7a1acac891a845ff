//! The cluster's authorities as the auth service keeps them: for users and for hosts the one that signs, a second one while a
//! rotation goes on, and where that stands. Owns their records and the trust bundle made of them; decides no step itself.

use std::sync::Arc;

use remoteler_ca::{Authority, CaError, Rotation, StoredAuthority};
use remoteler_core::{
    CaKind, CaSet, ClusterName, Entropy, Revision, RotationPhase, RotationView, Timestamp, TrustBundle,
};
use serde::{Deserialize, Serialize};

use crate::{
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
}

impl Authorities {
    /// Loads both, or makes them at the first start.
    pub(crate) async fn open(
        cluster: &ClusterName,
        records: &Records,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Self, StartError> {
        let user = AuthoritySet::open(cluster, CaKind::User, records, now, entropy).await?;
        let host = AuthoritySet::open(cluster, CaKind::Host, records, now, entropy).await?;
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
        entropy: &dyn Entropy,
    ) -> Result<Self, StartError> {
        let key = key::of(key::AUTHORITIES, kind.as_str());
        if let Some((stored, revision)) = records.read_at::<StoredSet>(&key).await? {
            let active = Arc::new(Authority::from_stored(&stored.active)?);
            let other = stored.other.as_ref().map(Authority::from_stored).transpose()?.map(Arc::new);
            return Ok(Self { rotation: stored.rotation, active, other, revision });
        }
        let active = Arc::new(Authority::generate(cluster, kind, now, entropy)?);
        let rotation = Rotation::standby(kind, 1, now);
        let stored = StoredSet { rotation: rotation.clone(), active: active.to_stored(), other: None };
        let revision = records.create(&key, &stored, None).await?;
        Ok(Self { rotation, active, other: None, revision })
    }

    /// The one that signs for users and for outgoing connections.
    pub(crate) fn active(&self) -> &Authority {
        &self.active
    }

    /// The one whose certificates servers show: in the phase `update_clients` still the one that goes.
    pub(crate) fn serving(&self) -> &Authority {
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
    pub(crate) fn generate(&self, now: Timestamp, entropy: &dyn Entropy) -> Result<Authority, CaError> {
        Authority::generate(self.active.cluster(), self.active.kind(), now, entropy)
    }
}
