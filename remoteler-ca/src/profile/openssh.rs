//! Certificates for OpenSSH where none of our programs runs: a user at a stock sshd with `TrustedUserCAKeys`, a stock sshd with
//! `HostCertificate`. There is no identity of the cluster in them, so our own nodes and clients refuse them.

use remoteler_core::{Entropy, Timestamp, UserName, fill_random};
use ssh_key::{PublicKey, certificate::CertType};

use super::{ProfileError, SshPermits, Window, bad_name, check_dns_name, check_key, check_principals, ssh_serial};
use crate::{Authority, PreparedSsh, Purpose, ssh_certificate::Fields};

/// An SSH certificate wanted for a user at servers that are not ours. Raw: nothing in it was checked.
#[derive(Clone, Debug)]
pub struct OpensshUserProfile {
    /// Who; becomes the key id, which sshd logs.
    pub user: UserName,
    /// The accounts; from the user's roles, never from the request alone (I9).
    pub principals: Vec<String>,
    /// Key for SSH.
    pub ssh_key: PublicKey,
    /// What the session may do.
    pub permits: SshPermits,
    /// When it ends; rounded down to seconds.
    pub not_after: Timestamp,
}

/// An SSH certificate wanted for a host that is not ours. Raw: nothing in it was checked.
#[derive(Clone, Debug)]
pub struct OpensshHostProfile {
    /// The names by which clients reach it: DNS names or addresses. No patterns: ssh compares them octet for octet.
    pub names: Vec<String>,
    /// The host's key.
    pub ssh_key: PublicKey,
    /// When it ends; `None`: with the rotation of the authority.
    pub not_after: Option<Timestamp>,
}

impl OpensshUserProfile {
    /// Checks everything, draws the serial, builds and lints; nothing is signed yet.
    ///
    /// # Errors
    /// [`ProfileError`] with the first rule that is broken.
    pub fn prepare(
        self,
        authority: &Authority,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<PreparedSsh, ProfileError> {
        let Self { user, principals, ssh_key, permits, not_after } = self;
        let (purpose, subject) = (Purpose::OpensshUser, user.to_string());
        authority.check(purpose, None)?;
        check_key(&subject, &ssh_key)?;
        check_principals(&subject, &principals)?;
        let fields = Fields {
            cert_type: CertType::User,
            key_id: subject.clone(),
            principals,
            key: ssh_key,
            serial: ssh_serial(entropy),
            nonce: fill_random(entropy),
            window: Window::new(&subject, purpose, now, not_after)?,
            extensions: permits.extensions().collect(),
        };
        let comment = format!("{subject}@{}", authority.cluster());
        PreparedSsh::new(authority, purpose, &subject, comment, fields)
    }
}

impl OpensshHostProfile {
    /// Checks everything, draws the serial, builds and lints; nothing is signed yet.
    ///
    /// # Errors
    /// [`ProfileError`] with the first rule that is broken.
    pub fn prepare(
        self,
        authority: &Authority,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<PreparedSsh, ProfileError> {
        let Self { names, ssh_key, not_after } = self;
        let purpose = Purpose::OpensshHost;
        authority.check(purpose, None)?;
        let subject =
            names.first().ok_or_else(|| bad_name("list of host names", "", "at least one is needed"))?.clone();
        check_key(&subject, &ssh_key)?;
        for name in &names {
            if name.starts_with('*') {
                return Err(bad_name(
                    "host name",
                    name,
                    "ssh takes no patterns in a host's certificate; list the names",
                ));
            }
            if name.parse::<std::net::IpAddr>().is_err() {
                check_dns_name(name)?;
            }
        }
        check_principals(&subject, &names)?;
        let fields = Fields {
            cert_type: CertType::Host,
            key_id: subject.clone(),
            principals: names,
            key: ssh_key,
            serial: ssh_serial(entropy),
            nonce: fill_random(entropy),
            window: Window::new(&subject, purpose, now, not_after)?,
            extensions: Vec::new(),
        };
        let comment = format!("{subject}@{}", authority.cluster());
        PreparedSsh::new(authority, purpose, &subject, comment, fields)
    }
}
