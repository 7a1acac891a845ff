//! Where failures inside become what a caller may see: kind and one line. The full cause goes to the log, not to the caller.

use remoteler_ca::{CaError, ProfileError, RevokeError, SignerError};
use remoteler_core::{ApiError, ApiErrorKind, AuditError, RecordingError, StorageError, with_causes};

use crate::{DatabaseError, RecordError, event_log::EventLogError, password::PasswordError};

/// Of a call.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

pub(crate) fn bad_request(message: impl Into<String>) -> ApiError {
    ApiError::new(ApiErrorKind::BadRequest, message)
}

pub(crate) fn not_found(message: impl Into<String>) -> ApiError {
    ApiError::new(ApiErrorKind::NotFound, message)
}

pub(crate) fn conflict(message: impl Into<String>) -> ApiError {
    ApiError::new(ApiErrorKind::Conflict, message)
}

pub(crate) fn rate_limited(message: impl Into<String>) -> ApiError {
    ApiError::new(ApiErrorKind::RateLimited, message)
}

pub(crate) fn denied(message: impl Into<String>) -> ApiError {
    ApiError::new(ApiErrorKind::Denied, message)
}

pub(crate) fn unauthenticated(message: impl Into<String>) -> ApiError {
    ApiError::new(ApiErrorKind::Unauthenticated, message)
}

/// Ours to look at: logged whole, told in one line.
fn internal(cause: &(dyn std::error::Error + 'static), message: &str) -> ApiError {
    tracing::error!(error = cause, "{message}");
    ApiError::new(ApiErrorKind::Internal, format!("{message}; the auth service's log says why"))
}

impl From<RecordError> for ApiError {
    fn from(cause: RecordError) -> Self {
        if cause.is_conflict() {
            return conflict(format!("{cause}; try again"));
        }
        if let RecordError::Storage(StorageError::Refused(reason)) = &cause {
            return bad_request(reason.clone());
        }
        internal(&cause, "the state store failed")
    }
}

impl From<EventLogError> for ApiError {
    fn from(cause: EventLogError) -> Self {
        match &cause {
            EventLogError::Database(DatabaseError::Full(_)) => {
                tracing::error!(error = &cause as &dyn std::error::Error, "the audit log's disk is full");
                Self::new(ApiErrorKind::Unavailable, "the auth service's disk is full; nothing was done")
            }
            EventLogError::NoSuchEvent(_) => not_found(cause.to_string()),
            EventLogError::Database(_) | EventLogError::Malformed { .. } | EventLogError::Tampered { .. } => {
                internal(&cause, "the audit log failed")
            }
        }
    }
}

impl From<PasswordError> for ApiError {
    fn from(cause: PasswordError) -> Self {
        match cause {
            PasswordError::TooShort
            | PasswordError::TooLong
            | PasswordError::ControlCharacter
            | PasswordError::Guessable { .. }
            | PasswordError::Breached => bad_request(cause.to_string()),
            PasswordError::Busy => Self::new(ApiErrorKind::Unavailable, cause.to_string()),
            PasswordError::List(_) => internal(&cause, "the list of breached passwords cannot be read"),
            PasswordError::Hash(_) => internal(&cause, "the password could not be hashed"),
        }
    }
}

/// A profile is made from the request and the stored user: what is wrong with it, the caller can be told.
pub(crate) fn profile(cause: &ProfileError) -> ApiError {
    bad_request(format!("no certificate was issued: {}", with_causes(cause)))
}

pub(crate) fn authority(cause: &CaError) -> ApiError {
    if matches!(cause, CaError::Token { .. } | CaError::Signer(SignerError::Token(_))) {
        tracing::error!(error = cause as &dyn std::error::Error, "the token with the authority's keys failed");
        let message = "the token with the certificate authority's keys failed; nothing was issued, try again";
        return ApiError::new(ApiErrorKind::Unavailable, message);
    }
    internal(cause, "the certificate authority failed")
}

pub(crate) fn revocation_list(cause: &RevokeError) -> ApiError {
    internal(cause, "the revocation list cannot be written")
}

/// What was not recorded is not done.
pub(crate) fn audit(cause: &AuditError) -> ApiError {
    ApiError::new(ApiErrorKind::Unavailable, format!("{cause}; nothing was done"))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what is not the caller's doing is ours, also when new")]
pub(crate) fn recording(cause: RecordingError) -> ApiError {
    match cause {
        RecordingError::NotFound(_) => not_found(cause.to_string()),
        RecordingError::Offset { .. } | RecordingError::Complete(_) => conflict(cause.to_string()),
        _ => internal(&cause, "the recording store failed"),
    }
}
