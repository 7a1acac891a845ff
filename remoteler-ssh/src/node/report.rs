//! Writes audit events of sessions: fills in what every event of a session has. Never sends anything by itself.

use std::sync::Arc;

use remoteler_core::{
    AuditError, AuditKind, AuditSink, ConnectionFields, ForwardDirection, NodeRecord, SessionFields, SessionId,
    SshAccess, Timestamp,
};

use super::sftp_watch::{Found, Operation};

/// The node's part of every event.
pub(super) struct Reporter {
    sink: Arc<dyn AuditSink>,
    server_id: String,
    server_hostname: String,
}

impl Reporter {
    pub(super) fn new(sink: Arc<dyn AuditSink>, node: &NodeRecord) -> Self {
        Self { sink, server_id: node.host_id.to_string(), server_hostname: node.name.to_string() }
    }

    /// The events of one session.
    pub(super) fn session(&self, id: SessionId, access: &SshAccess) -> SessionReport {
        let session = SessionFields {
            sid: id.to_string(),
            user: access.user().identity().user.to_string(),
            login: access.login().to_string(),
            server_id: self.server_id.clone(),
            server_hostname: self.server_hostname.clone(),
        };
        let with_mfa = access.with_mfa().map(|session| session.to_string());
        SessionReport { sink: self.sink.clone(), session, role: access.role().to_string(), with_mfa }
    }
}

/// What is forwarded, or was to be.
#[derive(Clone, Debug)]
pub(super) struct Forwarded {
    pub(super) direction: ForwardDirection,
    pub(super) addr: String,
    /// Who asks an agent.
    pub(super) originator: Option<String>,
}

/// The events of one session.
#[derive(Clone)]
pub(super) struct SessionReport {
    sink: Arc<dyn AuditSink>,
    session: SessionFields,
    /// That allows it.
    role: String,
    /// For which a second factor was shown.
    with_mfa: Option<String>,
}

impl SessionReport {
    pub(super) async fn start(
        &self,
        client: Option<String>,
        interactive: bool,
        size: Option<String>,
        command: Option<&[u8]>,
    ) -> Result<(), AuditError> {
        let session = self.session.clone();
        let connection = ConnectionFields { remote: client };
        let initial_command = command.map(command_text).into_iter().collect();
        let (role, with_mfa) = (Some(self.role.clone()), self.with_mfa.clone());
        let start = AuditKind::SessionStart { session, connection, interactive, size, initial_command, role, with_mfa };
        self.sink.record(start).await
    }

    pub(super) async fn end(&self, interactive: bool, recorded: bool, times: (Timestamp, Timestamp)) {
        let (session_start, session_stop) = times;
        let session = self.session.clone();
        self.late(AuditKind::SessionEnd { session, interactive, session_start, session_stop, recorded }).await;
    }

    /// The one event of a command, with how it ended; before it began, `session.start` named it.
    pub(super) async fn exec_ended(&self, command: &[u8], exit_code: Option<String>, error: Option<String>) {
        let (session, command) = (self.session.clone(), command_text(command));
        self.late(AuditKind::Exec { session, command, exit_code, error }).await;
    }

    pub(super) async fn sftp_start(&self) -> Result<(), AuditError> {
        self.sink.record(self.sftp_event("start")).await
    }

    /// Records what a client did to files, until it has ended.
    pub(super) async fn sftp_operations(self, mut found: Found) {
        while let Some(Operation { action, path, target_path, flags }) = found.operations.recv().await {
            let session = self.session.clone();
            let action = action.to_owned();
            self.late(AuditKind::Sftp { session, action, path, target_path, flags, count: None }).await;
        }
        let unlisted = found.unlisted();
        if unlisted > 0 {
            let session = self.session.clone();
            let (action, path, count) = ("summary".to_owned(), String::new(), Some(unlisted));
            self.late(AuditKind::Sftp { session, action, path, target_path: None, flags: None, count }).await;
        }
    }

    fn sftp_event(&self, action: &str) -> AuditKind {
        let (session, action) = (self.session.clone(), action.to_owned());
        AuditKind::Sftp { session, action, path: String::new(), target_path: None, flags: None, count: None }
    }

    pub(super) async fn port(&self, what: Forwarded) -> Result<(), AuditError> {
        self.sink.record(self.port_event(what, None)).await
    }

    pub(super) async fn port_refused(&self, what: Forwarded, error: String) {
        self.late(self.port_event(what, Some(error))).await;
    }

    fn port_event(&self, what: Forwarded, error: Option<String>) -> AuditKind {
        let (session, success) = (self.session.clone(), error.is_none());
        let Forwarded { direction, addr, originator } = what;
        AuditKind::Port { session, addr, success, error, direction: Some(direction), originator }
    }

    /// Records what has happened already: a failure changes nothing any more, but somebody should look.
    async fn late(&self, kind: AuditKind) {
        let event = kind.name();
        if let Err(error) = self.sink.record(kind).await {
            tracing::warn!(%error, event, session = self.session.sid, "an audit event is lost");
        }
    }
}

fn command_text(command: &[u8]) -> String {
    String::from_utf8_lossy(command.get(..MAX_COMMAND).unwrap_or(command)).into_owned()
}

const MAX_COMMAND: usize = 8 * 1024;
