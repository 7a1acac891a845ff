//! Certificates that were built, checked and linted, and wait for one signature. Owns the exact octets that will be signed. A value is used
//! once: it is taken by value and cannot be copied, and only the authority it was prepared for signs it.

use remoteler_core::{HostIdentity, Timestamp, UserIdentity};

use crate::{
    Authority, ProfileError, Purpose,
    lint::{self, LintError},
    ssh_certificate::{self, Fields},
    x509_leaf::{self, Leaf},
};

/// Which authority something was prepared for: a digest over its two public halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AuthorityId(pub(crate) [u8; 32]);

/// One SSH certificate, to be issued once by [`Authority::issue_ssh`].
///
/// ```compile_fail,E0382
/// # fn twice(authority: &remoteler_ca::Authority, prepared: remoteler_ca::PreparedSsh) {
/// let first = authority.issue_ssh(prepared);
/// let second = authority.issue_ssh(prepared); // it was used
/// # }
/// ```
#[derive(Debug)]
pub struct PreparedSsh {
    pub(crate) authority: AuthorityId,
    pub(crate) to_be_signed: Vec<u8>,
    pub(crate) subject_type: String,
    pub(crate) comment: String,
    purpose: Purpose,
    serial: u64,
    not_after: Option<i64>,
}

/// One X.509 certificate, to be issued once by [`Authority::issue_x509`].
#[derive(Debug)]
pub struct PreparedX509 {
    pub(crate) authority: AuthorityId,
    pub(crate) to_be_signed: Vec<u8>,
    purpose: Purpose,
    serial: [u8; 16],
    not_after: Option<i64>,
}

/// Both certificates of a user, to be issued once by [`Authority::issue_user`].
#[derive(Debug)]
pub struct PreparedUser {
    pub(crate) identity: UserIdentity,
    pub(crate) not_after: Timestamp,
    pub(crate) ssh: PreparedSsh,
    pub(crate) x509: PreparedX509,
}

/// Both certificates of a host, to be issued once by [`Authority::issue_host`].
#[derive(Debug)]
pub struct PreparedHost {
    pub(crate) identity: HostIdentity,
    pub(crate) ssh: PreparedSsh,
    pub(crate) x509: PreparedX509,
}

impl PreparedSsh {
    /// Builds and lints; `subject` is who is named in errors.
    pub(crate) fn new(
        authority: &Authority,
        purpose: Purpose,
        subject: &str,
        comment: String,
        fields: Fields,
    ) -> Result<Self, ProfileError> {
        let (serial, not_after) = (fields.serial, fields.window.not_after);
        let subject_type = ssh_certificate::certificate_type(&fields.key);
        let unbuilt = |source| ProfileError::SshCertificate { subject: subject.into(), source };
        let to_be_signed = ssh_certificate::to_be_signed(fields, authority.ssh_public()).map_err(unbuilt)?;
        lint::ssh(&to_be_signed, purpose, authority.ssh_public()).map_err(|source| refused(subject, source))?;
        Ok(Self { authority: authority.id(), to_be_signed, subject_type, comment, purpose, serial, not_after })
    }

    /// What it will be good for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Serial the certificate will have: decimal, as its verifier reports it.
    #[must_use]
    pub fn serial(&self) -> String {
        self.serial.to_string()
    }

    /// When it will end; `None` for no end.
    #[must_use]
    pub fn not_after(&self) -> Option<Timestamp> {
        self.not_after.map(Timestamp::from_unix_seconds)
    }
}

impl PreparedX509 {
    /// Builds and lints; `subject` is who is named in errors.
    pub(crate) fn new(authority: &Authority, subject: &str, leaf: &Leaf<'_>) -> Result<Self, ProfileError> {
        let to_be_signed = x509_leaf::to_be_signed(leaf, authority.issuer()).map_err(ProfileError::Clock)?;
        lint::x509(&to_be_signed, leaf.purpose, authority.issuer()).map_err(|source| refused(subject, source))?;
        Ok(Self {
            authority: authority.id(),
            to_be_signed,
            purpose: leaf.purpose,
            serial: leaf.serial,
            not_after: leaf.window.not_after,
        })
    }

    /// What it will be good for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Serial the certificate will have: hex octets joined by colons, as its verifier reports it.
    #[must_use]
    pub fn serial(&self) -> String {
        self.serial.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
    }

    /// When it will end; `None` for no end.
    #[must_use]
    pub fn not_after(&self) -> Option<Timestamp> {
        self.not_after.map(Timestamp::from_unix_seconds)
    }
}

impl PreparedUser {
    /// Who.
    #[must_use]
    pub const fn identity(&self) -> &UserIdentity {
        &self.identity
    }

    /// Serial the SSH certificate will have: decimal, as its verifier reports it.
    #[must_use]
    pub fn ssh_serial(&self) -> String {
        self.ssh.serial()
    }

    /// Serial the X.509 certificate will have: hex octets joined by colons, as its verifier reports it.
    #[must_use]
    pub fn tls_serial(&self) -> String {
        self.x509.serial()
    }

    /// When both will end.
    #[must_use]
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

impl PreparedHost {
    /// Which host.
    #[must_use]
    pub const fn identity(&self) -> &HostIdentity {
        &self.identity
    }

    /// Serial the SSH certificate will have: decimal.
    #[must_use]
    pub fn ssh_serial(&self) -> String {
        self.ssh.serial()
    }

    /// Serial the X.509 certificate will have: hex octets joined by colons.
    #[must_use]
    pub fn tls_serial(&self) -> String {
        self.x509.serial()
    }
}

fn refused(subject: &str, source: LintError) -> ProfileError {
    ProfileError::Lint { subject: subject.into(), source }
}
