//! The identity in an SSH certificate: an extension named `identity@remoteler.dev` whose value is the serialised form.

use ssh_key::Certificate;

use crate::{Identity, IdentityError};

/// Name of the certificate extension that holds the identity.
pub const SSH_IDENTITY_EXTENSION: &str = "identity@remoteler.dev";

/// The extension's value for `identity`.
#[must_use]
pub fn ssh_identity_value(identity: &Identity) -> String {
    identity.encode()
}

/// Reads the identity out of a certificate. Says nothing about who signed it: [`crate::verify_ssh_certificate`] does.
///
/// # Errors
/// [`IdentityError`] when it is missing, malformed, or contradicts the key id.
pub fn ssh_identity(certificate: &Certificate) -> Result<Identity, IdentityError> {
    let value = certificate.extensions().get(SSH_IDENTITY_EXTENSION).ok_or(IdentityError::Missing)?;
    let identity = Identity::decode(value)?;
    let inner = identity.subject();
    if certificate.key_id() != inner {
        return Err(IdentityError::Mismatch { outer: certificate.key_id().chars().take(80).collect(), inner });
    }
    Ok(identity)
}
