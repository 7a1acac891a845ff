//! Who is at the other end of a TLS connection that stays. The certificate is verified once, again whenever roles or authorities were replaced, and its
//! end is looked at each time. Never decides what a user may do, and records nothing.

use std::sync::{Arc, Mutex, PoisonError};

use rustls_pki_types::CertificateDer;

use crate::{
    clock::Clock,
    policy::{Policy, PolicySource},
    verify::{Verified, VerifiedUser, VerifyError},
    verify_x509::{X509Purpose, verify_x509_chain},
};

/// The certificates a client showed in its handshake, where it proved to hold the key of the first.
pub struct ConnectedUser {
    chain: Vec<CertificateDer<'static>>,
    purpose: X509Purpose,
    policy: Arc<dyn PolicySource>,
    clock: Arc<dyn Clock>,
    verified: Mutex<Option<(Arc<Policy>, VerifiedUser)>>,
}

impl ConnectedUser {
    /// Takes what the handshake yielded, leaf first; decides nothing yet.
    pub const fn new(
        chain: Vec<CertificateDer<'static>>,
        purpose: X509Purpose,
        policy: Arc<dyn PolicySource>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { chain, purpose, policy, clock, verified: Mutex::new(None) }
    }

    /// As the client showed them, not verified.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The user, by the trust of this moment. Dear once for each view of the policy, otherwise a comparison.
    ///
    /// # Errors
    /// [`VerifyError`] when the certificate is not, or no longer, one of a user.
    pub fn user(&self) -> Result<VerifiedUser, VerifyError> {
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
        match verify_x509_chain(&self.chain, &policy.trust, self.purpose, now)? {
            Verified::User(user) if user.expires() <= now => Err(VerifyError::Expired(user.expires())),
            Verified::User(user) => {
                *verified = Some((policy, user.clone()));
                Ok(user)
            }
            Verified::Host(_) => Err(VerifyError::WrongType { expected: "user", found: "host" }),
        }
    }
}
