//! What an administrator is told of a backup of the auth service. Owns the words only.

use serde::{Deserialize, Serialize};

/// A backup: being made while it has no size, to be fetched from then on, for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupStatus {
    /// Names it in further calls.
    pub id: String,
    /// Octets of the file, once it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// SHA-256 of the file in hex, once it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Whether private keys of the authorities lie in it in the clear, as they do in the database: whoever has the file is then the cluster.
    #[serde(default)]
    pub clear_keys: bool,
}
