//! A user for one web application: an X.509 certificate whose identity names that application and the session, so that it opens nothing else.

use remoteler_core::{
    AppName, AppProxy, AppUserIdentity, Entropy, Identity, SessionId, SessionProof, SessionTarget, Timestamp,
    UserIdentity, x509_naming,
};

use super::{ProfileError, Window, check_readable, x509_serial};
use crate::{Authority, PreparedX509, Purpose, TlsPublicKey, x509_leaf::Leaf};

/// An X.509 certificate wanted for a user in one session with one web application. Raw: nothing in it was checked.
#[derive(Clone, Debug)]
pub struct AppProfile {
    /// Who; from the stored user and roles, never from the request (I9).
    pub identity: UserIdentity,
    /// The one place where it counts.
    pub app: AppName,
    /// The session.
    pub session: SessionId,
    /// Key for TLS.
    pub tls_key: TlsPublicKey,
    /// When it ends; rounded down to seconds.
    pub not_after: Timestamp,
    /// A second factor that was shown for this session.
    pub proof: Option<SessionProof>,
    /// When the login ends, or the browser's session.
    pub login_expires: Timestamp,
    /// The proxy whose key it is, for a browser.
    pub proxy: Option<AppProxy>,
}

impl AppProfile {
    /// Checks everything, draws the serial, builds and lints; nothing is signed yet.
    ///
    /// # Errors
    /// [`ProfileError`] with the first rule that is broken.
    pub fn prepare(
        self,
        authority: &Authority,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<PreparedX509, ProfileError> {
        let Self { identity: user, app, session, tls_key, not_after, proof, login_expires, proxy } = self;
        let (purpose, subject) = (Purpose::AppClient, user.user.to_string());
        authority.check(purpose, Some(&user.cluster))?;
        let window = Window::new(&subject, purpose, now, not_after)?;
        // I49, I51: what stands behind it counts there, and for longer than the certificate.
        let there = SessionTarget::App { name: app.clone() };
        let of_another = |proof: &SessionProof| *proof.target() != there || not_after > proof.expires();
        if not_after > login_expires || proof.as_ref().is_some_and(of_another) {
            return Err(ProfileError::OtherProof { subject });
        }
        let identity = Identity::AppUser(AppUserIdentity { user, app, session, proof, login_expires, proxy });
        check_readable(&subject, &identity)?;
        let naming = x509_naming(&identity);
        let leaf = Leaf {
            purpose,
            organizations: naming.organizations,
            common_name: naming.common_name,
            names: Vec::new(),
            key: &tls_key,
            serial: x509_serial(entropy),
            window,
            identity: Some(naming.extension),
            crl: None,
            sid: None,
        };
        PreparedX509::new(authority, &subject, &leaf)
    }
}
