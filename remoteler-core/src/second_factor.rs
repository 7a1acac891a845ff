//! Whether logins of local users need more than a password.

use serde::{Deserialize, Serialize};

/// Whether a second factor is asked for beside the password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecondFactor {
    /// Never, also of users who have one.
    Off,
    /// Of users who have one.
    #[default]
    Optional,
    /// Of everybody: who has none registers one first.
    On,
}
