//! What the file says of identity providers that is no setting of the whole cluster: whether they may be on an internal network.

use super::file::IdentityProviders;

/// Checked settings of login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignOnSettings {
    /// Whether identity providers may have addresses of internal networks.
    pub allow_internal: bool,
}

impl SignOnSettings {
    pub(super) fn new(providers: Option<IdentityProviders>) -> Self {
        Self { allow_internal: providers.unwrap_or_default().allow_internal_addresses }
    }
}
