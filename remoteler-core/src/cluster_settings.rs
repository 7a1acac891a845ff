//! What an administrator sets for the whole cluster and every service acts by: how strict locks are, and when live work ends. Owns the form and
//! the defaults; what a role says of locks counts instead, and limits of roles count beside these.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{LockMode, RecordingMode, SecondFactor, VerificationInterval};

/// How long knowledge of locks counts as new. Services confirm it in time where locks are strict for anybody.
pub const LOCKS_HOLD: Duration = Duration::from_secs(300);

/// Settings of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// How strict locks are.
    #[serde(default)]
    pub locking_mode: LockMode,
    /// Seconds after which an SSH connection ends in which nothing happens; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_idle_timeout_seconds: Option<u64>,
    /// Whether live work ends with its certificate. Otherwise it goes on, and nothing new begins in it.
    #[serde(default)]
    pub disconnect_expired_cert: bool,
    /// Whether a second factor is asked for at a login.
    #[serde(default)]
    pub second_factor: SecondFactor,
    /// Whether terminal sessions are recorded, and where.
    #[serde(default)]
    pub session_recording: RecordingMode,
    /// Whether each session needs a second factor of its own, whatever roles say.
    #[serde(default)]
    pub require_session_mfa: bool,
    /// How long a second factor counts that was shown for a Kubernetes cluster.
    #[serde(default)]
    pub mfa_verification_interval: VerificationInterval,
}

impl ClusterSettings {
    /// How long nothing may happen in an SSH connection.
    #[must_use]
    pub fn client_idle_timeout(&self) -> Option<Duration> {
        self.client_idle_timeout_seconds.map(Duration::from_secs)
    }
}
