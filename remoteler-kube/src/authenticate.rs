//! Who is at the other end of a TLS connection, looked at on every request, and that it was refused, which is recorded once. Never
//! decides what a user may do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use remoteler_core::{
    AuditKind, AuditSink, Clock, ConnectedUser, PolicySource, VerifiedUser, VerifyError, X509Purpose,
};
use rustls::pki_types::CertificateDer;
use tower::{Layer, Service, ServiceExt, layer::layer_fn};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{body::Body, refusal::Refusal};

/// A request and the proof of who sent it.
pub(crate) struct Authenticated {
    /// The proof.
    pub(crate) user: VerifiedUser,
    /// The request, as it came.
    pub(crate) request: Request<Body>,
}

/// The certificates a client showed in its handshake, where it proved to hold the key of the first.
pub(crate) struct Peer {
    user: ConnectedUser,
    remote: Option<String>,
    refusal_recorded: AtomicBool,
}

impl Peer {
    /// Takes what the handshake yielded; decides nothing yet.
    pub(crate) const fn new(
        chain: Vec<CertificateDer<'static>>,
        remote: Option<String>,
        policy: Arc<dyn PolicySource>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let user = ConnectedUser::new(chain, X509Purpose::KubeClient, policy, clock);
        Self { user, remote, refusal_recorded: AtomicBool::new(false) }
    }

    /// The user, by the trust of this moment.
    ///
    /// # Errors
    /// [`VerifyError`] when the certificate is not, or no longer, one of a user.
    pub(crate) fn user(&self) -> Result<VerifiedUser, VerifyError> {
        self.user.user()
    }

    /// Records that the certificate was refused: once for a connection, however many requests it sends.
    pub(crate) async fn record_refusal(&self, audit: &dyn AuditSink, cause: &VerifyError) {
        if self.refusal_recorded.swap(true, Ordering::Relaxed) {
            return;
        }
        let user = claimed_subject(self.user.chain());
        record_attempt(audit, user, cause.to_string(), self.remote.clone()).await;
    }
}

/// Records an `auth` event. The attempt is refused whether that works or not, so a failure is only logged.
pub(crate) async fn record_attempt(audit: &dyn AuditSink, user: String, error: String, remote: Option<String>) {
    // Anybody can cause this; what is kept of it, and how much, the audit sink decides.
    tracing::debug!(user, error, remote, "refused");
    let event = AuditKind::AuthAttempt { user, service: "kube".into(), login: None, error, remote };
    if let Err(cause) = audit.record(event).await {
        tracing::warn!(%cause, "a refused attempt is missing from the audit log");
    }
}

/// What an unverified certificate says of its holder: for the record only.
fn claimed_subject(chain: &[CertificateDer<'_>]) -> String {
    let parsed = chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok());
    let name = parsed.as_ref().and_then(|(_, leaf)| leaf.subject().iter_common_name().next()?.as_str().ok());
    name.unwrap_or_default().chars().filter(|c| !c.is_control()).take(128).collect()
}

/// Lets requests of verified users through, with the proof.
pub(crate) fn authenticate<S>(
    peer: Arc<Peer>,
    audit: Arc<dyn AuditSink>,
) -> impl Layer<S, Service = Authenticate<S>> + Clone {
    layer_fn(move |inner| Authenticate { inner, peer: peer.clone(), audit: audit.clone() })
}

/// See [`authenticate`].
#[derive(Clone)]
pub(crate) struct Authenticate<S> {
    inner: S,
    peer: Arc<Peer>,
    audit: Arc<dyn AuditSink>,
}

impl<S> Service<Request<Body>> for Authenticate<S>
where
    S: Service<Authenticated, Response = Response<Body>, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Response<Body>, Refusal>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.peer.user() {
            Ok(user) => self.inner.clone().oneshot(Authenticated { user, request }).boxed(),
            Err(cause) => {
                let (peer, audit) = (self.peer.clone(), self.audit.clone());
                async move {
                    peer.record_refusal(audit.as_ref(), &cause).await;
                    Err(cause.into())
                }
                .boxed()
            }
        }
    }
}
