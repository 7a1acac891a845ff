//! Where audit events go. Owns the promise that every sink gives; keeps nothing itself.

use async_trait::async_trait;

use crate::AuditKind;

/// Why an event was not recorded. What it would have allowed must not happen.
#[derive(Debug, thiserror::Error)]
#[error("the audit log did not take an event: {0}")]
pub struct AuditError(pub String);

/// Takes events. When `record` returns, the event will survive a crash of this process.
#[async_trait]
pub trait AuditSink: Send + Sync {
    /// Records `kind` as having happened now.
    ///
    /// # Errors
    /// [`AuditError`]: the event is not kept, and the action must not go ahead.
    async fn record(&self, kind: AuditKind) -> Result<(), AuditError>;
}

/// Keeps nothing; for embedders that audit elsewhere, and for tests of other things.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullAudit;

#[async_trait]
impl AuditSink for NullAudit {
    async fn record(&self, _kind: AuditKind) -> Result<(), AuditError> {
        Ok(())
    }
}
