//! Who is at the other end of a TLS connection, and that it was refused, which is recorded once. Never decides what a user may do.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use remoteler_core::{
    AuditKind, AuditSink, Clock, ConnectedUser, PolicySource, VerifiedUser, VerifyError, X509Purpose,
};
use rustls::pki_types::CertificateDer;

/// The certificates a client showed in its handshake, where it proved to hold the key of the first.
pub(super) struct Peer {
    user: ConnectedUser,
    pub(super) remote: Option<String>,
    refusal_recorded: AtomicBool,
}

impl Peer {
    /// Takes what the handshake yielded; decides nothing yet.
    pub(super) const fn new(
        chain: Vec<CertificateDer<'static>>,
        remote: Option<String>,
        policy: Arc<dyn PolicySource>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let user = ConnectedUser::new(chain, X509Purpose::AppClient, policy, clock);
        Self { user, remote, refusal_recorded: AtomicBool::new(false) }
    }

    /// As the client showed them, not verified.
    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        self.user.chain()
    }

    /// The user, by the trust of this moment.
    ///
    /// # Errors
    /// [`VerifyError`] when the certificate is not, or no longer, one of a user.
    pub(super) fn user(&self) -> Result<VerifiedUser, VerifyError> {
        self.user.user()
    }

    /// Records that the certificate was refused: once for a connection, however many requests it sends.
    pub(super) async fn record_refusal(&self, audit: &dyn AuditSink, cause: &VerifyError) {
        if !self.refusal_recorded.swap(true, Ordering::Relaxed) {
            record_attempt(audit, String::new(), cause.to_string(), self.remote.clone()).await;
        }
    }
}

/// Records an `auth` event. The attempt is refused whether that works or not, so a failure is only logged.
pub(super) async fn record_attempt(audit: &dyn AuditSink, user: String, error: String, remote: Option<String>) {
    // Anybody can cause this; what is kept of it, and how much, the audit sink decides.
    tracing::debug!(user, error, remote, "refused");
    let event = AuditKind::AuthAttempt { user, service: "app".into(), login: None, error, remote };
    if let Err(cause) = audit.record(event).await {
        tracing::warn!(%cause, "a refused attempt is missing from the audit log");
    }
}
