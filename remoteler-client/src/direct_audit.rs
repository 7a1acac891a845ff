//! Audit events without a disk of one's own: each is at the auth service before what it speaks of may happen. Owns no queue, so nothing is
//! lost that was allowed.

use std::sync::Arc;

use async_trait::async_trait;
use remoteler_core::{
    AuditError, AuditEvent, AuditKind, AuditSink, Clock, ClusterName, HostApi, OsEntropy, random_uuid,
};

/// Sends each event at once.
pub struct DirectAudit {
    api: Arc<dyn HostApi>,
    cluster: ClusterName,
    clock: Arc<dyn Clock>,
}

impl DirectAudit {
    /// To the auth service of `cluster`, as the host that `api` shows.
    #[must_use]
    pub fn new(api: Arc<dyn HostApi>, cluster: ClusterName, clock: Arc<dyn Clock>) -> Self {
        Self { api, cluster, clock }
    }
}

#[async_trait]
impl AuditSink for DirectAudit {
    async fn record(&self, kind: AuditKind) -> Result<(), AuditError> {
        let event = AuditEvent::new(kind, self.clock.now(), random_uuid(&OsEntropy), self.cluster.clone());
        self.api.record_events(vec![event]).await.map_err(|cause| AuditError(cause.to_string()))
    }
}
