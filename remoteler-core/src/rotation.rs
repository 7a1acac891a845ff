//! What the cluster's parts tell each other about the rotation of an authority: the phase it is in, what a service has taken over,
//! and what is waited for. Owns the words only; the state machine stands in `remoteler-ca`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{CaKind, Heartbeat, HostId, InstanceId, NodeName, SystemRole, Timestamp};

/// What is rotated: an authority, or the key of identity tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotationKind {
    /// The authority of users.
    User,
    /// The authority of hosts.
    Host,
    /// The key that signs identity tokens.
    Token,
}

impl RotationKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::User, Self::Host, Self::Token];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Host => "host",
            Self::Token => "token",
        }
    }

    /// The authority, if it is one.
    #[must_use]
    pub const fn authority(self) -> Option<CaKind> {
        match self {
            Self::User => Some(CaKind::User),
            Self::Host => Some(CaKind::Host),
            Self::Token => None,
        }
    }
}

impl From<CaKind> for RotationKind {
    fn from(kind: CaKind) -> Self {
        match kind {
            CaKind::User => Self::User,
            CaKind::Host => Self::Host,
        }
    }
}

/// Where the rotation of one authority stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotationPhase {
    /// One authority, nothing going on.
    #[default]
    Standby,
    /// A new authority exists and is believed everywhere; the old one still signs.
    Init,
    /// The new authority signs. Users and outgoing connections show its certificates, servers still show those of the old one.
    UpdateClients,
    /// Servers show certificates of the new authority; the old one is still believed.
    UpdateServers,
    /// The old authority signs again; the new one is still believed until everybody is back.
    Rollback,
}

impl RotationPhase {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Init => "init",
            Self::UpdateClients => "update_clients",
            Self::UpdateServers => "update_servers",
            Self::Rollback => "rollback",
        }
    }
}

impl std::fmt::Display for RotationPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The part of a trust bundle that says where the rotations stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationView {
    /// Grows by one with each step of any authority; what services acknowledge.
    pub generation: u64,
    /// Of the authority of users.
    pub user: RotationPhase,
    /// Of the authority of hosts.
    pub host: RotationPhase,
    /// Of the key of identity tokens.
    #[serde(default)]
    pub token: RotationPhase,
}

/// A service says which generation of the trust bundle it believes and acts by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustAck {
    /// [`RotationView::generation`] of the bundle in force there, with the certificates that it demands.
    pub generation: u64,
    /// Which run of the host's daemon says so. Two that say so at the same time are two machines with one identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// When it will say so again; absent: in [`Heartbeat::default`]. Said only to an auth service that takes it
    /// ([`TrustAcked::longest_heartbeat`]).
    #[serde(rename = "heartbeat_seconds", default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Heartbeat>,
}

/// What a service is told in turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustAcked {
    /// It shall renew its certificates now, so that they differ from those of any copy of its disk.
    #[serde(default)]
    pub renew: bool,
    /// How seldom its next words may come; a run that does not speak for the host yet is told so that it speaks when it may. Absent: an auth
    /// service of a version that expects [`Heartbeat::default`] of everybody.
    #[serde(rename = "longest_heartbeat_seconds", default, skip_serializing_if = "Option::is_none")]
    pub longest_heartbeat: Option<Heartbeat>,
}

/// What the auth service knows of a service's view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceContact {
    /// Which host.
    pub host_id: HostId,
    /// Its name.
    pub name: NodeName,
    /// What it does.
    pub roles: BTreeSet<SystemRole>,
    /// The newest generation it acknowledged.
    pub generation: u64,
    /// When it was last heard of.
    pub last_contact: Timestamp,
    /// How often it says that it is there.
    #[serde(rename = "heartbeat_seconds", default, skip_serializing_if = "Heartbeat::is_default")]
    pub heartbeat: Heartbeat,
}

/// How a rotation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "mode", deny_unknown_fields)]
pub enum RotationPlan {
    /// Each phase is asked for.
    Manual,
    /// Phases follow by themselves, each after a third of the grace period at the earliest.
    Automatic {
        /// The whole grace period, in seconds.
        grace_seconds: u64,
    },
}

/// Asks for a step of a rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// Which authority.
    pub kind: RotationKind,
    /// The phase wanted. `init` begins a rotation.
    pub phase: RotationPhase,
    /// How it goes on from `init`; in other phases it must be manual, which makes the rest of the rotation so.
    pub plan: RotationPlan,
    /// Goes on although services have not acknowledged the phase before; they may be locked out by it.
    #[serde(default)]
    pub force: bool,
}

/// Where one authority's rotation stands, and who is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationStatus {
    /// Which authority.
    pub kind: RotationKind,
    /// Where it stands.
    pub phase: RotationPhase,
    /// Since when.
    pub since: Timestamp,
    /// How it goes on.
    pub plan: RotationPlan,
    /// What services must acknowledge.
    pub generation: u64,
    /// Services heard of lately that have not acknowledged yet: the rotation waits for them.
    pub waiting: Vec<ServiceContact>,
    /// Services not heard of lately that have not acknowledged either: an automatic rotation goes on without them, a manual one
    /// only by force, and afterwards they must rejoin.
    pub offline: Vec<ServiceContact>,
    /// Where the private keys lie: of the key pairs that sign, and, while a rotation goes on, of the other ones.
    #[serde(default)]
    pub keys: Vec<KeyPlaces>,
}

/// Where the two private keys of an authority lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPlaces {
    /// Of the key that signs SSH certificates.
    pub ssh: KeyPlace,
    /// Of the key that signs X.509 certificates.
    pub x509: KeyPlace,
}

/// Where a private key lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "place")]
#[non_exhaustive]
pub enum KeyPlace {
    /// In the auth service's database, in the clear.
    File,
    /// In the auth service's database, sealed with a key that is not there.
    Sealed,
    /// In a token, which does not give it out.
    Token {
        /// The token's label.
        token: String,
    },
}
