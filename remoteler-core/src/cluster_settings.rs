//! What an administrator sets for the whole cluster and every service acts by: how strict locks are, and when live work ends. Owns the form and
//! the defaults; roles may be stricter, never milder.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a service does that does not know whether there are new locks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockingMode {
    /// It goes by those it knows.
    #[default]
    BestEffort,
    /// It goes by those it knows for [`LOCKS_HOLD`], and then allows nothing new.
    Strict,
}

/// How long knowledge of locks counts as new. Services confirm it every half minute at the least.
pub const LOCKS_HOLD: Duration = Duration::from_secs(300);

/// Settings of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// How strict locks are.
    #[serde(default)]
    pub locking_mode: LockingMode,
    /// Seconds after which an SSH connection ends in which nothing happens; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_idle_timeout_seconds: Option<u64>,
    /// Whether live work ends with its certificate. Otherwise it goes on, and nothing new begins in it.
    #[serde(default)]
    pub disconnect_expired_cert: bool,
}

impl ClusterSettings {
    /// How long nothing may happen in an SSH connection.
    #[must_use]
    pub fn client_idle_timeout(&self) -> Option<Duration> {
        self.client_idle_timeout_seconds.map(Duration::from_secs)
    }
}
