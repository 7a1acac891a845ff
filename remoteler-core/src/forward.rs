//! Which way a connection is forwarded over SSH, for the audit log. Decides nothing.

use serde::{Deserialize, Serialize};

/// Who connects, and who is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ForwardDirection {
    /// `ssh -L` and `-W`: the client to what the node reaches.
    Local,
    /// `ssh -R`: who connects to a port of the node to what the client reaches.
    Remote,
    /// `ssh -A`: programs of a session to the user's ssh-agent.
    Agent,
}
