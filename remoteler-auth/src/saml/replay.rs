//! Assertions that were used: each counts once (I46). Owns that one use. How many there can be is bounded by how many an identity
//! provider of ours signs within a day: what is not signed by one does not get here.

use remoteler_core::{Expected, Secret, Storage, StorageError, Timestamp};

use super::{SamlClaims, SamlError};
use crate::{records::key, secret_hash};

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
    let place = key::of(key::SAML_USED, secret_hash::hash(&Secret::new(text)));
    match storage.compare_and_swap(&place, Expected::Absent, b"", Some(claims.remember_until), now).await {
        Ok(_) => Ok(()),
        Err(StorageError::Conflict { .. }) => Err(SamlError::Replayed.into()),
        Err(cause) => Err(cause.into()),
    }
}
