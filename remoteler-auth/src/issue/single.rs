//! Single certificates for what is not the cluster's own: checked, audited and signed like all others, by the same [`Issuer`].

use std::{sync::Arc, time::Duration};

use remoteler_ca::{Authority, PreparedSsh, PreparedX509, ProfileError, SshPermits, TlsPublicKey};
use remoteler_core::{AuditKind, CaKind, Entropy, Role, Timestamp, with_causes};
use ssh_key::PublicKey;

use super::{Issuer, MAX_KEY, permits, user_end};
use crate::{
    blocking::sign,
    failure::{self, ApiResult, bad_request},
    revocations,
};

/// One certificate that was checked and may be issued once, by the authority it was prepared for.
pub(crate) struct SingleIssue<P> {
    prepared: P,
    authority: Arc<Authority>,
}

/// What the audit log says of a certificate besides what stands in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    /// The administrator who asked.
    pub(crate) by: String,
    /// User, or first name of a host.
    pub(crate) user: String,
    /// Who it says its holder is, where that is another name.
    pub(crate) subject: String,
    /// Roles of the user.
    pub(crate) roles: Vec<String>,
    /// Accounts in it.
    pub(crate) logins: Vec<String>,
}

/// The text of an SSH public key; algorithm and size are checked when the profile is prepared.
pub(super) fn ssh_key(text: &str) -> ApiResult<PublicKey> {
    check_length(text)?;
    PublicKey::from_openssh(text.trim())
        .map_err(|cause| bad_request(format!("ssh_public_key is no public key in OpenSSH's form: {cause}")))
}

/// The text of a TLS public key.
pub(super) fn tls_key(text: &str) -> ApiResult<TlsPublicKey> {
    check_length(text)?;
    TlsPublicKey::from_pem(text)
        .map_err(|cause| bad_request(format!("tls_public_key is refused: {}", with_causes(&cause))))
}

fn check_length(key: &str) -> ApiResult<()> {
    if key.len() > MAX_KEY {
        return Err(bad_request(format!("a public key has at most {MAX_KEY} octets")));
    }
    Ok(())
}

impl<P> SingleIssue<P> {
    fn event(&self, purpose: &str, serials: (String, String), expires: Option<Timestamp>, about: About) -> AuditKind {
        let About { by, user, subject, roles, logins } = about;
        let (ssh_serial, tls_serial) = serials;
        AuditKind::CertCreate {
            cert_type: self.authority.kind().as_str().into(),
            purpose: purpose.into(),
            by,
            user,
            subject,
            ssh_serial,
            tls_serial,
            roles,
            logins,
            expires,
        }
    }
}

impl SingleIssue<PreparedSsh> {
    /// When it will end.
    pub(crate) fn expires(&self) -> Option<Timestamp> {
        self.prepared.not_after()
    }
}

impl SingleIssue<PreparedX509> {
    /// When it will end.
    pub(crate) fn expires(&self) -> Option<Timestamp> {
        self.prepared.not_after()
    }
}

impl Issuer {
    /// An SSH public key of a request, if it is not revoked.
    pub(crate) fn ssh_key(&self, text: &str) -> ApiResult<PublicKey> {
        let key = ssh_key(text)?;
        revocations::check_ssh_key(self.authorities().trust(), &key)?;
        Ok(key)
    }

    /// A TLS public key of a request, if it is not revoked.
    pub(crate) fn tls_key(&self, text: &str) -> ApiResult<TlsPublicKey> {
        let key = tls_key(text)?;
        revocations::check_tls_key(self.authorities().trust(), &key)?;
        Ok(key)
    }

    /// The end that `roles` allow a user, and what they permit in an SSH session.
    pub(crate) fn user_limits(
        &self,
        roles: &[Arc<Role>],
        requested: Option<Duration>,
    ) -> ApiResult<(Timestamp, SshPermits)> {
        Ok((user_end(self.clock.now(), roles, requested)?, permits(roles)))
    }

    /// The end that was asked for a host; `None` where it ends with its authority.
    pub(crate) fn host_end(&self, requested: Option<Duration>) -> Option<Timestamp> {
        requested.map(|ttl| self.clock.now().plus(ttl))
    }

    /// Checks everything about one certificate, by `prepare` of its profile, at the authority that signs now.
    pub(crate) fn prepare_single<P>(
        &self,
        kind: CaKind,
        prepare: impl FnOnce(&Authority, Timestamp, &dyn Entropy) -> Result<P, ProfileError>,
    ) -> ApiResult<SingleIssue<P>> {
        let authority = Arc::clone(self.authorities().set(kind).active());
        let prepared =
            prepare(&authority, self.clock.now(), self.entropy.as_ref()).map_err(|cause| failure::profile(&cause))?;
        Ok(SingleIssue { prepared, authority })
    }

    /// Audits and signs an SSH certificate: OpenSSH's one-line form.
    pub(crate) async fn issue_ssh(&self, issue: SingleIssue<PreparedSsh>, about: About) -> ApiResult<String> {
        let (purpose, serial) = (issue.prepared.purpose(), issue.prepared.serial());
        self.record(issue.event(purpose.as_str(), (serial, String::new()), issue.expires(), about)).await?;
        let SingleIssue { prepared, authority } = issue;
        sign(&authority, |authority| authority.issue_ssh(prepared)).await
    }

    /// Audits and signs an X.509 certificate: PEM.
    pub(crate) async fn issue_x509(&self, issue: SingleIssue<PreparedX509>, about: About) -> ApiResult<String> {
        let (purpose, serial) = (issue.prepared.purpose(), issue.prepared.serial());
        self.record(issue.event(purpose.as_str(), (String::new(), serial), issue.expires(), about)).await?;
        let SingleIssue { prepared, authority } = issue;
        sign(&authority, |authority| authority.issue_x509(prepared)).await
    }
}
