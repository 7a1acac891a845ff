//! How many connections a user has over the whole cluster. Owns what services and the auth service say to each other about it; who counts is the auth
//! service, and only for users whose roles have such a limit. Asks nobody itself.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::EndReason;
use crate::{LockMode, UserName};

/// What roles count the connections of a user by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionKind {
    /// `max_connections`.
    Ssh,
    /// `max_kubernetes_connections`.
    Kube,
}

impl ConnectionKind {
    /// The option of roles that limits it.
    #[must_use]
    pub const fn option(self) -> &'static str {
        match self {
            Self::Ssh => "max_connections",
            Self::Kube => "max_kubernetes_connections",
        }
    }
}

/// A connection that counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionLease {
    /// Drawn by the service that holds the connection, so that a question asked twice counts once.
    pub id: Uuid,
    /// Whose it is.
    pub user: UserName,
    /// What it is counted as.
    pub kind: ConnectionKind,
}

/// A service asks for a place among a user's connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// The connection.
    pub lease: ConnectionLease,
    /// How many the user may have, by the roles in the certificate.
    pub limit: u32,
}

/// What the auth service says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// Whether the connection may begin. It counts from now on if so.
    pub granted: bool,
    /// How many others of the user are open.
    pub open: u64,
}

/// What a service holds and what it let go of. A connection that is not named for [`LEASE_LIFE`] counts no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseReport {
    /// Open connections; those that the auth service forgot count again.
    #[serde(default)]
    pub held: Vec<ConnectionLease>,
    /// Connections that have ended.
    #[serde(default)]
    pub released: Vec<ConnectionLease>,
}

/// How long a connection counts that nobody speaks of any more: that of a service that was killed.
pub const LEASE_LIFE: std::time::Duration = std::time::Duration::from_secs(60);

/// Most connections in one [`LeaseReport`], open and ended together.
pub const MAX_LEASES_IN_REPORT: usize = 1000;

/// Counts connections over all services. What it gives is the connection's place, which is free again when that is dropped.
#[async_trait]
pub trait ConnectionCount: Send + Sync {
    /// Takes a place among the connections of `user`, of which there may be `limit`.
    ///
    /// # Errors
    /// [`EndReason::TooMany`] when there is none; [`EndReason::Uncounted`] when the auth service does not answer and `mode` is strict. In
    /// any other mode the connection begins then, and is counted as soon as that answers.
    ///
    /// # Cancel safety
    /// A dropped future takes no place.
    async fn take(&self, user: UserName, kind: ConnectionKind, limit: u32, mode: LockMode) -> Result<Place, EndReason>;
}

/// A connection's place among those of its user, until it is dropped.
pub type Place = Box<dyn Send + Sync>;
