//! Users and hosts of the cluster: an SSH and an X.509 certificate each, with the same identity in both.

use remoteler_core::{
    Entropy, HostIdentity, Identity, SSH_IDENTITY_EXTENSION, Timestamp, UserIdentity, fill_random, ssh_identity_value,
    x509_naming,
};
use ssh_key::{PublicKey, certificate::CertType};

use super::{
    MAX_DNS_NAME, ProfileError, SshPermits, Window, check_key, check_principals, check_readable, ssh_serial,
    x509_serial,
};
use crate::{
    Authority, PreparedHost, PreparedSsh, PreparedUser, PreparedX509, Purpose, TlsPublicKey,
    ssh_certificate::Fields,
    x509_leaf::{AltName, Leaf},
};

/// Certificates wanted for a user. Raw: nothing in it was checked.
#[derive(Clone, Debug)]
pub struct UserProfile {
    /// Who; from the stored user and roles, never from the request (I9).
    pub identity: UserIdentity,
    /// Key for SSH.
    pub ssh_key: PublicKey,
    /// Key for TLS.
    pub tls_key: TlsPublicKey,
    /// Abilities in the SSH certificate.
    pub permits: SshPermits,
    /// When both certificates end; rounded down to seconds.
    pub not_after: Timestamp,
}

/// Certificates wanted for a host. They have no end; the rotation of the authority ends them.
#[derive(Clone, Debug)]
pub struct HostProfile {
    /// Which host; from the join or the stored host, never from the request (I9).
    pub identity: HostIdentity,
    /// Key for SSH.
    pub ssh_key: PublicKey,
    /// Key for TLS.
    pub tls_key: TlsPublicKey,
}

impl UserProfile {
    /// Checks everything, draws the serials, builds both certificates and lints them; nothing is signed yet.
    ///
    /// # Errors
    /// [`ProfileError`] with the first rule that is broken: a user authority of the same cluster, key algorithms and sizes, an end after
    /// `now` and at most [`crate::MAX_USER_TTL`] away, 1 to 256 different logins, an identity that verifiers can read.
    pub fn prepare(
        self,
        authority: &Authority,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<PreparedUser, ProfileError> {
        let Self { identity, ssh_key, tls_key, permits, not_after } = self;
        let (purpose, subject) = (Purpose::User, identity.user.to_string());
        authority.check(purpose, Some(&identity.cluster))?;
        check_key(&subject, &ssh_key)?;
        let window = Window::new(&subject, purpose, now, not_after)?;
        check_principals(&subject, &identity.logins)?;
        let principals = identity.logins.iter().map(ToString::to_string).collect();
        let whole = Identity::User(identity.clone());
        check_readable(&subject, &whole)?;
        let drafts = Drafts { purpose, whole, principals, names: Vec::new(), permits, window };
        let (ssh, x509) = drafts.prepare(authority, ssh_key, &tls_key, entropy)?;
        let not_after = Timestamp::from_unix_seconds(not_after.unix_seconds());
        Ok(PreparedUser { identity, not_after, ssh, x509 })
    }
}

impl HostProfile {
    /// Checks everything, draws the serials, builds both certificates and lints them; nothing is signed yet.
    ///
    /// # Errors
    /// [`ProfileError`] with the first rule that is broken: a host authority of the same cluster, key algorithms and sizes, at least one
    /// role, names that fit into principals and DNS, an identity that verifiers can read.
    pub fn prepare(
        self,
        authority: &Authority,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<PreparedHost, ProfileError> {
        let Self { identity, ssh_key, tls_key } = self;
        let (purpose, subject) = (Purpose::Host, identity.id.to_string());
        authority.check(purpose, Some(&identity.cluster))?;
        check_key(&subject, &ssh_key)?;
        if identity.roles.is_empty() {
            return Err(ProfileError::NoRole { subject });
        }
        let names = identity.dns_names();
        if let Some(name) = names.iter().find(|name| name.len() > MAX_DNS_NAME) {
            return Err(ProfileError::DnsName { name: name.clone() });
        }
        let principals = identity.principals();
        check_principals(&subject, &principals)?;
        let whole = Identity::Host(identity.clone());
        check_readable(&subject, &whole)?;
        let window = Window::new(&subject, purpose, now, None)?;
        let names = names.into_iter().map(AltName::Dns).collect();
        let drafts = Drafts { purpose, whole, principals, names, permits: SshPermits::default(), window };
        let (ssh, x509) = drafts.prepare(authority, ssh_key, &tls_key, entropy)?;
        Ok(PreparedHost { identity, ssh, x509 })
    }
}

/// What is checked of a user or a host and goes into its certificates.
struct Drafts {
    purpose: Purpose,
    whole: Identity,
    principals: Vec<String>,
    names: Vec<AltName>,
    permits: SshPermits,
    window: Window,
}

impl Drafts {
    fn prepare(
        self,
        authority: &Authority,
        ssh_key: PublicKey,
        tls_key: &TlsPublicKey,
        entropy: &dyn Entropy,
    ) -> Result<(PreparedSsh, PreparedX509), ProfileError> {
        let Self { purpose, whole, principals, names, permits, window } = self;
        let subject = whole.subject();
        let mut extensions: Vec<_> = permits.extensions().collect();
        extensions.push((SSH_IDENTITY_EXTENSION, ssh_identity_value(&whole)));
        let cert_type = if purpose == Purpose::Host { CertType::Host } else { CertType::User };
        let fields = Fields {
            cert_type,
            key_id: subject.clone(),
            principals,
            key: ssh_key,
            serial: ssh_serial(entropy),
            nonce: fill_random(entropy),
            window,
            extensions,
        };
        let comment = format!("{subject}@{}", whole.cluster());
        let ssh = PreparedSsh::new(authority, purpose, &subject, comment, fields)?;
        let naming = x509_naming(&whole);
        let leaf = Leaf {
            purpose,
            organizations: naming.organizations,
            common_name: naming.common_name,
            names,
            key: tls_key,
            serial: x509_serial(entropy),
            window,
            identity: Some(naming.extension),
            crl: None,
            sid: None,
        };
        let x509 = PreparedX509::new(authority, &subject, &leaf)?;
        Ok((ssh, x509))
    }
}
