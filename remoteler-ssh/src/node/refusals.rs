//! Audit of what was refused. Anybody who can connect can cause such events; how many of them are kept, the audit sink decides (I26).

use std::sync::Arc;

use remoteler_core::{AuditKind, AuditSink, ConnectionKind, EndReason, NodeRecord};

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

/// A limit of the user's roles that is reached, or that nobody can say is not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// Its name in a role.
    pub(super) option: &'static str,
    /// How many there may be, and are; `None` when they could not be counted.
    pub(super) reached: Option<u32>,
}

impl Limit {
    /// That which keeps a connection out, if one does.
    pub(super) const fn of_connections(reason: &EndReason) -> Option<Self> {
        let option = ConnectionKind::Ssh.option();
        if let EndReason::TooMany(limit) = reason {
            Some(Self { option, reached: Some(*limit) })
        } else if let EndReason::Uncounted = reason {
            Some(Self { option, reached: None })
        } else {
            None
        }
    }
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

    /// Records one for which the user's roles have no room.
    pub(super) async fn record_rejected(&self, node: &NodeRecord, limit: Limit, refused: Refused) {
        let Refused { user, login, error, remote } = refused;
        tracing::debug!(user, login = login.as_deref(), error, client = remote.as_deref(), "no room");
        let Limit { option, reached: maximum } = limit;
        let reason = match maximum {
            Some(_) => format!("{option} limit reached"),
            None => format!("{option} could not be counted"),
        };
        let (service, server_hostname) = ("node".into(), node.name.to_string());
        let kind = AuditKind::SessionRejected { user, login, service, server_hostname, reason, maximum, error, remote };
        if let Err(error) = self.sink.record(kind).await {
            tracing::warn!(%error, "a refusal is not in the audit log");
        }
    }
}
