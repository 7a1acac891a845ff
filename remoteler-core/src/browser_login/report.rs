//! What a test of a connector found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a test of a connector found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectorReport {
    /// The name the user would have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Who it is at the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Each claim with its values.
    #[serde(default)]
    pub claims: BTreeMap<String, Vec<String>>,
    /// Each mapping, in order.
    #[serde(default)]
    pub mappings: Vec<MappingOutcome>,
    /// Roles the user would have.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Why the login would be refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What one mapping gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingOutcome {
    /// The mapping as it is written.
    pub mapping: String,
    /// The value that it matched; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<String>,
    /// Roles it gave.
    #[serde(default)]
    pub roles: Vec<String>,
}
