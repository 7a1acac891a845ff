//! A second factor for one session (`require_session_mfa`): what is asked for, and the proof that it was given. Owns what a proof is bound to, and
//! whether one fits a session. Codes are checked in the auth service, the fit where the session begins; neither is done here by name alone.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{AppName, HostId, KubeClusterName, Login, Secret, SessionId, Timestamp, UserName};

/// How long a proof lasts at a node. What began with it goes on afterwards (I49).
pub const SSH_PROOF_LIFE: Duration = Duration::from_secs(60);

/// Where a session is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionTarget {
    /// On a node, as one account.
    Node {
        /// Which.
        host_id: HostId,
        /// As whom.
        login: Login,
    },
    /// In a Kubernetes cluster.
    KubeCluster {
        /// Which.
        name: KubeClusterName,
    },
    /// With a web application.
    App {
        /// Which.
        name: AppName,
    },
}

impl fmt::Display for SessionTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { host_id, login } => write!(f, "{login} on node {host_id}"),
            Self::KubeCluster { name } => write!(f, "Kubernetes cluster {name}"),
            Self::App { name } => write!(f, "application {name}"),
        }
    }
}

/// That a user showed a second factor for one session. Made by the auth service alone; it travels over mutual TLS to the node that asked, or inside
/// a certificate that the user authority signed. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionProof {
    session: SessionId,
    user: UserName,
    target: SessionTarget,
    expires: Timestamp,
}

/// What a proof is held against.
#[derive(Clone, Copy, Debug)]
pub struct WantedSession<'a> {
    /// Who showed a certificate.
    pub user: &'a UserName,
    /// Where they want to be.
    pub target: &'a SessionTarget,
    /// The session that whoever asked for the proof drew; `None` where a proof lasts for several.
    pub session: Option<SessionId>,
    /// Now.
    pub now: Timestamp,
}

/// Why a proof does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofMismatch {
    /// Of another user.
    #[error("the second factor was shown by {0}")]
    User(UserName),
    /// For another place or account.
    #[error("the second factor was shown for {0}")]
    Target(SessionTarget),
    /// For another session there.
    #[error("the second factor was shown for another session")]
    Session,
    /// It is over.
    #[error("the second factor counted until {0}")]
    Expired(Timestamp),
}

impl SessionProof {
    /// States that `user` showed a second factor for `session` at `target`, which counts until `expires`. Only who checked the factor says so.
    #[must_use]
    pub const fn new(session: SessionId, user: UserName, target: SessionTarget, expires: Timestamp) -> Self {
        Self { session, user, target, expires }
    }

    /// Which session, as it stands in the audit log under `with_mfa`.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// Whose.
    #[must_use]
    pub const fn user(&self) -> &UserName {
        &self.user
    }

    /// Where it counts.
    #[must_use]
    pub const fn target(&self) -> &SessionTarget {
        &self.target
    }

    /// Until when something may begin with it.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Whether it is for this and nothing else (I49).
    ///
    /// # Errors
    /// [`ProofMismatch`] with the first thing that does not fit.
    pub fn fits(&self, wanted: &WantedSession<'_>) -> Result<(), ProofMismatch> {
        if self.user != *wanted.user {
            return Err(ProofMismatch::User(self.user.clone()));
        }
        if self.target != *wanted.target {
            return Err(ProofMismatch::Target(self.target.clone()));
        }
        if wanted.session.is_some_and(|session| session != self.session) {
            return Err(ProofMismatch::Session);
        }
        if self.expires <= wanted.now {
            return Err(ProofMismatch::Expired(self.expires));
        }
        Ok(())
    }
}

/// Who asks for a proof, and for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SessionPurpose {
    /// A node, for somebody who proved there whose certificate it is. The proof counts at that node alone.
    Ssh {
        /// Who.
        user: UserName,
        /// As which account.
        login: Login,
        /// The client's address, for the audit log.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remote: Option<String>,
    },
    /// A user, for a Kubernetes cluster. The proof comes inside a certificate that counts there alone.
    Kubernetes {
        /// Which.
        kube_cluster: KubeClusterName,
        /// The key to be certified: PEM of a SubjectPublicKeyInfo.
        tls_public_key: String,
    },
    /// A user, for a web application. The proof comes inside a certificate that counts there alone, for as long as the login.
    App {
        /// Which.
        app: AppName,
        /// The key to be certified: PEM of a SubjectPublicKeyInfo.
        tls_public_key: String,
    },
}

/// Shows a second factor for one session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionProofRequest {
    /// Drawn by who asks; the proof names it.
    pub session: SessionId,
    /// For what.
    pub purpose: SessionPurpose,
    /// One-time code. Absent at first: [`crate::ApiErrorKind::SecondFactorNeeded`] says that the user has a factor and which is wanted, and where a security
    /// key may be touched instead. Empty: it was touched there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Secret>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionProven {
    /// The proof.
    pub proof: SessionProof,
    /// The certificate with it, PEM, where a key was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_certificate: Option<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session_of(number: u128) -> SessionId {
        SessionId::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn target(kind: u8) -> SessionTarget {
        let host_id = |last: u8| format!("0190d7a4-6ba1-7000-8000-00000000000{last}").parse().unwrap();
        match kind {
            0 => SessionTarget::Node { host_id: host_id(1), login: Login::new("root").unwrap() },
            1 => SessionTarget::Node { host_id: host_id(2), login: Login::new("root").unwrap() },
            2 => SessionTarget::Node { host_id: host_id(1), login: Login::new("ann").unwrap() },
            3 => SessionTarget::KubeCluster { name: KubeClusterName::new("staging").unwrap() },
            4 => SessionTarget::App { name: AppName::new("staging").unwrap() },
            _ => SessionTarget::KubeCluster { name: KubeClusterName::new("prod").unwrap() },
        }
    }

    proptest! {
        // I49
        #[test]
        fn a_proof_is_for_one_user_one_target_one_session_and_its_time(
            of in ("[ab]", 0_u8..6, 0_u128..2, 0_i64..4),
            wanted in ("[ab]", 0_u8..6, prop::option::of(0_u128..2), 0_i64..4),
        ) {
            let name = |name: &str| UserName::new(name).unwrap();
            let moment = Timestamp::from_unix_seconds;
            let proof = SessionProof::new(session_of(of.2), name(&of.0), target(of.1), moment(of.3));
            let session = wanted.2.map(session_of);
            let asked = WantedSession { user: &name(&wanted.0), target: &target(wanted.1), session, now: moment(wanted.3) };
            let same = of.0 == wanted.0 && of.1 == wanted.1 && wanted.2.is_none_or(|asked| asked == of.2);
            prop_assert_eq!(proof.fits(&asked).is_ok(), same && wanted.3 < of.3);
        }
    }

    #[test]
    fn a_proof_reads_back_and_one_that_says_more_is_none() {
        let user = UserName::new("ann").unwrap();
        let proof = SessionProof::new(session_of(7), user, target(3), Timestamp::from_unix_seconds(60));
        let text = serde_json::to_string(&proof).unwrap();
        assert_eq!(serde_json::from_str::<SessionProof>(&text).unwrap(), proof);
        let more = text.replacen('{', r#"{"everywhere":true,"#, 1);
        assert!(serde_json::from_str::<SessionProof>(&more).is_err());
    }
}
