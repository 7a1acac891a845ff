//! Fields that many kinds of events share.

use serde::{Deserialize, Serialize};

/// Fields that every event of an SSH session has.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SessionFields {
    /// Session id.
    pub sid: String,
    /// User of the cluster.
    pub user: String,
    /// Operating-system account.
    pub login: String,
    /// Host id of the node.
    pub server_id: String,
    /// Name of the node.
    pub server_hostname: String,
}

/// Where a connection came from and went to.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConnectionFields {
    /// The client's address, as far as known.
    #[serde(rename = "addr.remote", default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
}
