//! What verification of a certificate yields: values that only the two verification functions can make, and the
//! reasons for refusing.

use std::{fmt, sync::Arc};

use crate::{
    AppName, AppProxy, ClusterName, HostIdentity, IdentityError, KubeClusterName, NameError, RevocationTarget,
    SessionId, SessionProof, SessionTarget, ShownCertificate, SystemRole, Timestamp, UserIdentity,
};

/// The one place where a restricted certificate counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnlyAt {
    /// A Kubernetes cluster.
    KubeCluster(KubeClusterName),
    /// A web application.
    App(AppName),
}

impl fmt::Display for OnlyAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KubeCluster(name) => write!(f, "Kubernetes cluster {name}"),
            Self::App(name) => write!(f, "application {name}"),
        }
    }
}

/// What stands behind a certificate that lasts for less than it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Behind {
    /// A second factor for one place.
    pub(crate) proof: Option<SessionProof>,
    /// The session with a web application.
    pub(crate) app_session: Option<SessionId>,
    /// The proxy that holds the key of that.
    pub(crate) app_proxy: Option<AppProxy>,
    /// When the login ends, or the browser's session.
    pub(crate) login_expires: Timestamp,
}

/// Proof that a certificate of a user authority was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedUser {
    /// Shared, for each decision hands out a proof with it.
    identity: Arc<UserIdentity>,
    expires: Timestamp,
    serial: String,
    /// Apart, for proofs travel by value.
    only_at: Option<Box<OnlyAt>>,
    behind: Option<Box<Behind>>,
    /// Apart, for proofs travel by value.
    shown: Box<ShownCertificate>,
}

impl VerifiedUser {
    pub(crate) fn new(identity: UserIdentity, expires: Timestamp, serial: String, shown: ShownCertificate) -> Self {
        let identity = Arc::new(identity);
        Self { identity, expires, serial, only_at: None, behind: None, shown: Box::new(shown) }
    }

    /// By what the certificate can be revoked.
    #[must_use]
    pub fn shown(&self) -> &ShownCertificate {
        &self.shown
    }

    pub(crate) fn restricted(self, only_at: OnlyAt) -> Self {
        Self { only_at: Some(Box::new(only_at)), ..self }
    }

    pub(crate) fn with(self, behind: Behind) -> Self {
        Self { behind: Some(Box::new(behind)), ..self }
    }

    /// The second factor that stands in the certificate.
    #[must_use]
    pub fn proof(&self) -> Option<&SessionProof> {
        self.behind.as_ref()?.proof.as_ref()
    }

    /// The session with a web application that the certificate is of.
    #[must_use]
    pub fn app_session(&self) -> Option<SessionId> {
        self.behind.as_ref()?.app_session
    }

    /// The same where a browser has that session, by a proxy: it is one that the auth service keeps, and that may end before the certificate. A program of the user
    /// draws the name of its own, which nobody keeps.
    #[must_use]
    pub fn browser_session(&self) -> Option<SessionId> {
        self.app_session().filter(|_| self.app_proxy().is_some())
    }

    /// The proxy that holds the certificate's key, for a browser that has a session with a web application.
    #[must_use]
    pub fn app_proxy(&self) -> Option<&AppProxy> {
        self.behind.as_ref()?.app_proxy.as_ref()
    }

    /// Until when something that began may last: the certificate's end or, where that is short because of a second factor or of a browser's session,
    /// the end of the login or of that session.
    #[must_use]
    pub fn login_expires(&self) -> Timestamp {
        self.behind.as_ref().map_or(self.expires, |behind| behind.login_expires)
    }

    /// The one place where the certificate counts; `None`: everywhere. Decisions about anything else refuse where there is one.
    #[must_use]
    pub fn only_at(&self) -> Option<&OnlyAt> {
        self.only_at.as_deref()
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &UserIdentity {
        &self.identity
    }

    /// When the certificate ends.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Serial of the certificate, as text.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }
}

/// Proof that a certificate of a host authority was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedHost {
    identity: HostIdentity,
    /// Apart, for proofs travel by value.
    shown: Box<ShownCertificate>,
}

impl VerifiedHost {
    pub(crate) fn new(identity: HostIdentity, shown: ShownCertificate) -> Self {
        Self { identity, shown: Box::new(shown) }
    }

    /// By what the certificate can be revoked.
    #[must_use]
    pub fn shown(&self) -> &ShownCertificate {
        &self.shown
    }

    /// Which host it is.
    #[must_use]
    pub const fn identity(&self) -> &HostIdentity {
        &self.identity
    }

    /// Whether the host may act as `role`.
    #[must_use]
    pub fn is(&self, role: SystemRole) -> bool {
        self.identity.roles.contains(&role)
    }
}

/// A user or a host, by the authority that signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Signed by a user authority.
    User(VerifiedUser),
    /// Signed by a host authority.
    Host(VerifiedHost),
}

impl Verified {
    /// The user, if it is one.
    #[must_use]
    pub fn user(self) -> Option<VerifiedUser> {
        match self {
            Self::User(user) => Some(user),
            Self::Host(_) => None,
        }
    }

    /// The host, if it is one.
    #[must_use]
    pub fn host(self) -> Option<VerifiedHost> {
        match self {
            Self::Host(host) => Some(host),
            Self::User(_) => None,
        }
    }
}

/// Why a certificate is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// An empty chain.
    #[error("no certificate was shown")]
    Missing,
    /// Signed by a key that is not an authority for this purpose.
    #[error("the certificate was not signed by the {purpose} authority of cluster {cluster}")]
    UnknownAuthority {
        /// Authority that was expected.
        purpose: &'static str,
        /// Cluster whose bundle was used.
        cluster: ClusterName,
    },
    /// A user certificate where a host certificate is expected, or the other way round.
    #[error("a {expected} certificate is needed here, this is a {found} certificate")]
    WrongType {
        /// What was needed.
        expected: &'static str,
        /// What was shown.
        found: &'static str,
    },
    /// The certificate counts at one place only.
    #[error("this certificate is for {0} and nothing else; log in for more")]
    Restricted(OnlyAt),
    /// The certificate brings a second factor for one place and counts there only.
    #[error("this certificate is for a session with {0} and nothing else; show that of the login")]
    OneSession(SessionTarget),
    /// The name inside is of another cluster than the authority that signed.
    #[error("the certificate says cluster {named}, but the authority of {signed_by} signed it")]
    WrongCluster {
        /// From the identity.
        named: ClusterName,
        /// Whose authority signed.
        signed_by: ClusterName,
    },
    /// Its end has passed.
    #[error("the certificate expired at {0}; log in again")]
    Expired(Timestamp),
    /// Its beginning has not come.
    #[error("the certificate is valid only from {0}; check this machine's clock")]
    NotYetValid(Timestamp),
    /// A user certificate without an end.
    #[error("a user certificate must have an end")]
    ForEver,
    /// An administrator revoked it, or its key.
    #[error("the certificate was revoked ({0}); a new one is needed, ask an administrator why")]
    Revoked(RevocationTarget),
    /// The signature does not verify.
    #[error("the certificate's signature is wrong")]
    BadSignature,
    /// An algorithm or key size outside the list.
    #[error("the certificate uses {0}, which is not accepted")]
    Algorithm(String),
    /// A critical option or extension that must not be passed over.
    #[error("the certificate demands {0:?}, which is not supported")]
    CriticalOption(String),
    /// No principals, or too many: an empty list would mean everybody.
    #[error("the certificate lists {0} principals; 1 to 256 are allowed")]
    PrincipalCount(usize),
    /// A principal that is none.
    #[error("the certificate's principal is refused")]
    Principal(#[from] NameError),
    /// The host certificate is for other names.
    #[error("the host certificate is not for {wanted:?}; it is for {valid_for}")]
    WrongHost {
        /// Name that was dialled.
        wanted: String,
        /// Names in the certificate.
        valid_for: String,
    },
    /// No identity, or one that does not fit.
    #[error("the certificate's identity is refused")]
    Identity(#[from] IdentityError),
    /// Principals and identity contradict each other.
    #[error("the certificate's principals are not those of its identity")]
    PrincipalMismatch,
    /// Not a certificate.
    #[error("the certificate does not parse: {0}")]
    Malformed(String),
    /// The path to the authority is not sound (RFC 5280 section 6).
    #[error("the certificate's path is refused: {0}")]
    Path(String),
}
