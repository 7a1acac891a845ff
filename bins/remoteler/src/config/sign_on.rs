//! How people log in: the cluster's way, the connector used when none is named, and whether identity providers may be on an internal network.

use super::{
    ConfigError,
    file::{Authentication, IdentityProviders},
    settings::value,
};

/// Checked settings of login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignOnSettings {
    /// `local`, `oidc`, `github` or `saml`.
    pub kind: String,
    /// The connector used when none is named.
    pub connector: Option<String>,
    /// Whether identity providers may have addresses of internal networks.
    pub allow_internal: bool,
}

impl SignOnSettings {
    pub(super) fn new(
        authentication: Option<&Authentication>,
        providers: Option<IdentityProviders>,
    ) -> Result<Self, ConfigError> {
        let kind = authentication.map_or("local", |given| given.kind.as_str());
        if !matches!(kind, "local" | "oidc" | "github" | "saml") {
            return Err(value(
                "authentication.type",
                format!("{kind:?} is not available; local, oidc, github and saml are"),
            ));
        }
        let connector = authentication.and_then(|given| given.connector_name.clone());
        let allow_internal = providers.unwrap_or_default().allow_internal_addresses;
        Ok(Self { kind: kind.to_owned(), connector, allow_internal })
    }
}
