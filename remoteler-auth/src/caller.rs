//! Who calls, and the gate each call passes: it answers with the name that stands in the audit log, or refuses, audits the refusal
//! and says so.

use std::net::SocketAddr;

use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, HostIdentity, PolicySource, SourceNet, SystemRole, UserIdentity, Verb, Verified,
    VerifiedHost, VerifiedUser, authorize_rule,
};

use crate::{
    failure::{ApiResult, unauthenticated},
    records::key,
    service::Inner,
    users::UserRecord,
};

/// On whose behalf a handle acts. Settled by how the connection was authenticated, never by a request (I9).
#[derive(Clone, Debug)]
pub enum Caller {
    /// Nobody has proved anything.
    Anonymous {
        /// Where the call comes from.
        addr: SocketAddr,
    },
    /// The holder of a user certificate.
    User {
        /// The proof.
        user: VerifiedUser,
        /// Where the call comes from; `None` within the process.
        addr: Option<SocketAddr>,
    },
    /// The holder of a host certificate.
    Host {
        /// The proof.
        host: VerifiedHost,
        /// Where the call comes from; `None` within the process.
        addr: Option<SocketAddr>,
    },
    /// The administrator of the machine: through the Unix socket, or inside the process.
    LocalAdmin,
}

impl Caller {
    /// From what the TLS handshake proved.
    #[must_use]
    pub fn from_tls(verified: Option<Verified>, addr: SocketAddr) -> Self {
        match verified {
            None => Self::Anonymous { addr },
            Some(Verified::User(user)) => Self::User { user, addr: Some(addr) },
            Some(Verified::Host(host)) => Self::Host { host, addr: Some(addr) },
        }
    }

    /// For the audit log.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Anonymous { .. } => String::new(),
            Self::User { user, .. } => user.identity().user.to_string(),
            Self::Host { host, .. } => host.identity().id.to_string(),
            Self::LocalAdmin => LOCAL_ADMIN.to_owned(),
        }
    }

    /// Where the call comes from, for the audit log.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Anonymous { addr } => Some(*addr),
            Self::User { addr, .. } | Self::Host { addr, .. } => *addr,
            Self::LocalAdmin => None,
        }
    }

    /// Whose failures count together. A proxy calls for many people, so that its own address says nothing of them.
    pub(crate) fn source(&self) -> Option<SourceNet> {
        match self {
            Self::Host { host, .. } if host.is(SystemRole::Proxy) => None,
            Self::Anonymous { .. } | Self::User { .. } | Self::Host { .. } | Self::LocalAdmin => {
                self.address().map(|addr| SourceNet::of(addr.ip()))
            }
        }
    }
}

/// How the local administrator is called in the audit log; no user name, since those have no `:`.
const LOCAL_ADMIN: &str = "local:administrator";

impl Inner {
    /// Whether the caller may do `verb` with resources of `kind`; the name to audit.
    pub(crate) async fn admit(&self, caller: &Caller, kind: &str, verb: Verb) -> ApiResult<String> {
        let what = || format!("{} {kind}", verb.as_str());
        match caller {
            Caller::LocalAdmin => Ok(caller.name()),
            Caller::User { user, .. } => {
                let identity = self.current(user).await?;
                if authorize_rule(identity, &self.policy.policy(), kind, verb).is_some() {
                    return Ok(caller.name());
                }
                Err(self.refuse(caller, &what()).await)
            }
            Caller::Host { .. } | Caller::Anonymous { .. } => Err(self.refuse(caller, &what()).await),
        }
    }

    /// The user behind a certificate, if it has not ended, is believed as it was when it was verified, and the user still exists.
    pub(crate) async fn current<'a>(&self, user: &'a VerifiedUser) -> ApiResult<&'a UserIdentity> {
        let identity = user.identity();
        if user.expires() <= self.clock.now() {
            return Err(unauthenticated(format!("the certificate expired at {}; log in again", user.expires())));
        }
        self.policy
            .policy()
            .trust
            .still_believes(user.shown())
            .map_err(|cause| unauthenticated(format!("{cause}; log in again")))?;
        let exists = self.records.read::<UserRecord>(&key::of(key::USERS, &identity.user)).await?.is_some();
        if identity.cluster != self.cluster || !exists {
            return Err(unauthenticated(format!("user {} is not known any more", identity.user)));
        }
        Ok(identity)
    }

    /// The host that calls, if it has the role.
    pub(crate) async fn admit_host<'a>(
        &self,
        caller: &'a Caller,
        role: SystemRole,
        what: &str,
    ) -> ApiResult<&'a HostIdentity> {
        match caller {
            Caller::Host { host, .. } if host.is(role) => Ok(host.identity()),
            Caller::Host { .. } | Caller::User { .. } | Caller::Anonymous { .. } | Caller::LocalAdmin => {
                Err(self.refuse(caller, what).await)
            }
        }
    }

    /// Audits a refusal and makes the answer of it. How many refusals of one source are recorded is bounded.
    pub(crate) async fn refuse(&self, caller: &Caller, what: &str) -> ApiError {
        let answer = if matches!(caller, Caller::Anonymous { .. }) {
            unauthenticated(format!("a certificate is needed to {what}; log in first"))
        } else {
            ApiError::new(ApiErrorKind::Denied, format!("access denied: {} may not {what}", caller.name()))
        };
        let remote = caller.address().map(|addr| addr.to_string());
        match self.record_attempt(caller.name(), answer.message.clone(), remote).await {
            Ok(()) => answer,
            Err(cause) => cause,
        }
    }

    /// Records an attempt that was refused, if the budget of its source allows.
    pub(crate) async fn record_attempt(&self, user: String, error: String, remote: Option<String>) -> ApiResult<()> {
        self.record(AuditKind::AuthAttempt { user, service: "auth".into(), login: None, error, remote }).await
    }
}
