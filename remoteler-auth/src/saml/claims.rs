//! What a verified response says about a user. Owns the values; only [`super::ServiceProvider::accept`] makes them.

use std::collections::BTreeMap;

use remoteler_core::Timestamp;

/// Who the assertion is about (SAML 2.0 Core section 2.2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameId {
    /// The name.
    pub value: String,
    /// What kind of name it is; absent means unspecified.
    pub format: Option<String>,
    /// Within what the name is unique, if it says so.
    pub name_qualifier: Option<String>,
    /// For which service provider, if it says so.
    pub sp_name_qualifier: Option<String>,
}

impl NameId {
    /// Whether the name is another one at each login.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.format.as_deref() == Some(super::names::TRANSIENT)
    }
}

/// Claims of a response that was verified: read from octets whose digest was signed by a key of the connector.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SamlClaims {
    /// Entity id of the identity provider.
    pub issuer: String,
    /// The user.
    pub name_id: NameId,
    /// Id of the assertion; it counts once.
    pub assertion_id: String,
    /// Until when the assertion would be believed again, so that its id is to be remembered.
    pub remember_until: Timestamp,
    /// Session at the identity provider, if it says so.
    pub session_index: Option<String>,
    /// When the session at the identity provider ends, if it says so.
    pub session_ends: Option<Timestamp>,
    /// Attributes by name, with their values in order. Values that are no text are left out.
    pub attributes: BTreeMap<String, Vec<String>>,
}
