//! Assertions that were used: each counts once (I46). Owns their keys in the store. How many there can be is bounded by how many an identity
//! provider of ours signs within a day: what is not signed by one does not get here.

use remoteler_core::{Expected, Storage, StorageError, Timestamp};
use ring::digest::{SHA256, digest};

use super::{SamlClaims, SamlError};

/// Below which the ids of used assertions are kept.
const PREFIX: &str = "saml_used/";

/// Why an assertion was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UseError {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] SamlError),
    /// The store did not answer; the assertion may be shown again.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Takes the one use of an assertion: of several callers with the same one, in whatever process, exactly one succeeds.
///
/// # Errors
/// [`SamlError::Replayed`], or what the store says.
pub async fn use_once(storage: &dyn Storage, claims: &SamlClaims, now: Timestamp) -> Result<(), UseError> {
    // Ids are the identity provider's words, of any length: what is kept is their digest, with the issuer, which has ids of its own.
    let text = format!("{}\0{}", claims.issuer, claims.assertion_id);
    let name: String = digest(&SHA256, text.as_bytes()).as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
    let kept = storage
        .compare_and_swap(&format!("{PREFIX}{name}"), Expected::Absent, b"", Some(claims.remember_until), now)
        .await;
    match kept {
        Ok(_) => Ok(()),
        Err(StorageError::Conflict { .. }) => Err(SamlError::Replayed.into()),
        Err(cause) => Err(cause.into()),
    }
}
