//! Audit of what was refused. Anybody who can connect can cause such events; how many of them are kept, the audit sink decides (I26).

use std::sync::Arc;

use remoteler_core::{AuditKind, AuditSink};

pub(super) struct Refusals {
    sink: Arc<dyn AuditSink>,
}

/// One refused attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused {
    /// Who it claimed to be.
    pub(super) user: String,
    pub(super) login: Option<String>,
    pub(super) error: String,
    pub(super) remote: Option<String>,
}

impl Refusals {
    pub(super) fn new(sink: Arc<dyn AuditSink>) -> Self {
        Self { sink }
    }

    pub(super) async fn record(&self, refused: Refused) {
        let Refused { user, login, error, remote } = refused;
        tracing::debug!(user, login = login.as_deref(), error, client = remote.as_deref(), "refused");
        let kind = AuditKind::AuthAttempt { user, service: "node".into(), login, error, remote };
        if let Err(error) = self.sink.record(kind).await {
            tracing::warn!(%error, "a refusal is not in the audit log");
        }
    }
}
