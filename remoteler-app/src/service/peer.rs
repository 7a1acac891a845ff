//! Who is at the other end of a TLS connection. The certificate is verified once for a connection, again whenever roles or authorities were replaced, and its
//! end is looked at on every request. Never decides what a user may do.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use remoteler_core::{
    AuditKind, AuditSink, Clock, Policy, PolicySource, Verified, VerifiedUser, VerifyError, X509Purpose,
    verify_x509_chain,
};
use rustls::pki_types::CertificateDer;

/// The certificates a client showed in its handshake, where it proved to hold the key of the first.
pub(super) struct Peer {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) remote: Option<String>,
    policy: Arc<dyn PolicySource>,
    clock: Arc<dyn Clock>,
    verified: Mutex<Option<(Arc<Policy>, VerifiedUser)>>,
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
        Self { chain, remote, policy, clock, verified: Mutex::new(None), refusal_recorded: AtomicBool::new(false) }
    }

    /// The user, by the trust of this moment.
    ///
    /// # Errors
    /// [`VerifyError`] when the certificate is not, or no longer, one of a user.
    pub(super) fn user(&self) -> Result<VerifiedUser, VerifyError> {
        let now = self.clock.now();
        let policy = self.policy.policy();
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((by, user)) = verified.as_ref()
            && Arc::ptr_eq(by, &policy)
            && now < user.expires()
        {
            return Ok(user.clone());
        }
        *verified = None;
        match verify_x509_chain(&self.chain, &policy.trust, X509Purpose::AppClient, now)? {
            Verified::User(user) if user.expires() <= now => Err(VerifyError::Expired(user.expires())),
            Verified::User(user) => {
                *verified = Some((policy, user.clone()));
                Ok(user)
            }
            Verified::Host(_) => Err(VerifyError::WrongType { expected: "user", found: "host" }),
        }
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
