//! What is wanted ([`UserProfile`], [`HostProfile`]) and what was checked ([`PreparedUser`], [`PreparedHost`]). Owns every rule
//! about the content of certificates. Never signs.

use std::time::Duration;

use remoteler_core::{
    Entropy, HostIdentity, Identity, IdentityError, NameError, Timestamp, UserIdentity, VerifyError, check_principal,
    check_ssh_key, fill_random,
};
use ssh_key::PublicKey;

use crate::TlsPublicKey;

/// No user certificate lasts longer, whatever roles say: 30 hours.
pub const MAX_USER_TTL: Duration = Duration::from_secs(30 * 3600);

/// Certificates begin this much earlier than now, for holders and verifiers whose clocks are behind.
pub(crate) const BACKDATED: Duration = Duration::from_secs(60);

/// Why nothing was prepared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// An SSH key outside the list (I7).
    #[error(
        "the SSH public key of {subject} is refused; Ed25519, ECDSA P-256 or P-384, or RSA of 2048 to 8192 bits is needed"
    )]
    SshKey {
        /// Whose.
        subject: String,
        /// What was found.
        source: VerifyError,
    },
    /// The end is now or has passed.
    #[error("a certificate for {subject} would end at {not_after}, which is not after {now}")]
    Ended {
        /// Whose.
        subject: String,
        /// End asked for.
        not_after: Timestamp,
        /// Present moment.
        now: Timestamp,
    },
    /// The end is too far away (I6).
    #[error("a certificate for {subject} until {not_after} would last longer than {} hours; ask for less", MAX_USER_TTL.as_secs() / 3600)]
    TooLong {
        /// Whose.
        subject: String,
        /// End asked for.
        not_after: Timestamp,
    },
    /// The clock shows a time that certificates cannot express.
    #[error("this machine's clock shows {0}, which no certificate can express; set it right")]
    Clock(Timestamp),
    /// No logins, or too many: an empty list of principals would mean everybody (I4).
    #[error("the SSH certificate of {subject} would list {count} principals; 1 to 256 are allowed")]
    PrincipalCount {
        /// Whose.
        subject: String,
        /// How many.
        count: usize,
    },
    /// A principal that is none, or is too long together with the cluster's name.
    #[error("{subject} cannot have this principal")]
    Principal {
        /// Whose.
        subject: String,
        /// Which, and why not.
        source: NameError,
    },
    /// A login stands there twice.
    #[error("login {login:?} stands twice in the identity of {subject}")]
    Duplicate {
        /// Whose.
        subject: String,
        /// Which.
        login: String,
    },
    /// A name that DNS cannot hold.
    #[error("{name} is longer than the 253 characters of a DNS name; choose a shorter node name")]
    DnsName {
        /// The name.
        name: String,
    },
    /// A host that is no service.
    #[error("host {subject} has no role; name at least one of auth, proxy, node and kube")]
    NoRole {
        /// Which host.
        subject: String,
    },
    /// No verifier would read it, most likely because traits are too large.
    #[error("the identity of {subject} cannot be put into a certificate; remove traits or roles")]
    Identity {
        /// Whose.
        subject: String,
        /// Why.
        source: IdentityError,
    },
}

/// What an SSH session of the user may do at a plain OpenSSH server; an absent permit means no (I5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SshPermits {
    /// `permit-pty`
    pub pty: bool,
    /// `permit-port-forwarding`
    pub port_forwarding: bool,
    /// `permit-agent-forwarding`
    pub agent_forwarding: bool,
}

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

/// A user's certificates, checked and numbered, to be issued once.
#[derive(Debug)]
pub struct PreparedUser {
    pub(crate) identity: UserIdentity,
    pub(crate) permits: SshPermits,
    pub(crate) common: Common,
}

/// A host's certificates, checked and numbered, to be issued once.
#[derive(Debug)]
pub struct PreparedHost {
    pub(crate) identity: HostIdentity,
    pub(crate) common: Common,
}

/// What both kinds have. Times are seconds since the epoch; `None`: no end.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) ssh_key: PublicKey,
    pub(crate) tls_key: TlsPublicKey,
    pub(crate) not_before: i64,
    pub(crate) not_after: Option<i64>,
    pub(crate) ssh_serial: u64,
    pub(crate) ssh_nonce: [u8; 32],
    pub(crate) tls_serial: [u8; 16],
}

impl UserProfile {
    /// Checks everything and draws the serials; nothing is signed yet.
    ///
    /// # Errors
    /// [`ProfileError`] with the first rule that is broken: key algorithms and sizes, an end after `now` and at most
    /// [`MAX_USER_TTL`] away, 1 to 256 different logins, an identity that verifiers can read.
    pub fn prepare(self, now: Timestamp, entropy: &dyn Entropy) -> Result<PreparedUser, ProfileError> {
        let Self { identity, ssh_key, tls_key, permits, not_after } = self;
        let subject = identity.user.to_string();
        check_keys(&subject, &ssh_key)?;
        if not_after.unix_seconds() <= now.unix_seconds() {
            return Err(ProfileError::Ended { subject, not_after, now });
        }
        if not_after > now.plus(MAX_USER_TTL) {
            return Err(ProfileError::TooLong { subject, not_after });
        }
        check_principals(&subject, identity.logins.iter().map(AsRef::as_ref))?;
        for (at, login) in identity.logins.iter().enumerate() {
            if identity.logins.iter().take(at).any(|earlier| earlier == login) {
                return Err(ProfileError::Duplicate { subject, login: login.to_string() });
            }
        }
        check_readable(&subject, &Identity::User(identity.clone()))?;
        let common = Common::draw(ssh_key, tls_key, now, Some(not_after), entropy)?;
        Ok(PreparedUser { identity, permits, common })
    }
}

impl HostProfile {
    /// Checks everything and draws the serials; nothing is signed yet.
    ///
    /// # Errors
    /// [`ProfileError`] with the first rule that is broken: key algorithms and sizes, at least one role, names that fit into
    /// principals and DNS, an identity that verifiers can read.
    pub fn prepare(self, now: Timestamp, entropy: &dyn Entropy) -> Result<PreparedHost, ProfileError> {
        let Self { identity, ssh_key, tls_key } = self;
        let subject = identity.id.to_string();
        check_keys(&subject, &ssh_key)?;
        if identity.roles.is_empty() {
            return Err(ProfileError::NoRole { subject });
        }
        if let Some(name) = identity.dns_names().into_iter().find(|name| name.len() > MAX_DNS_NAME) {
            return Err(ProfileError::DnsName { name });
        }
        check_principals(&subject, identity.principals().iter().map(String::as_str))?;
        check_readable(&subject, &Identity::Host(identity.clone()))?;
        let common = Common::draw(ssh_key, tls_key, now, None, entropy)?;
        Ok(PreparedHost { identity, common })
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
        self.common.ssh_serial.to_string()
    }

    /// Serial the X.509 certificate will have: hex octets joined by colons, as its verifier reports it.
    #[must_use]
    pub fn tls_serial(&self) -> String {
        hex_serial(&self.common.tls_serial)
    }

    /// When both will end.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.common.not_after.unwrap_or(self.common.not_before))
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
        self.common.ssh_serial.to_string()
    }

    /// Serial the X.509 certificate will have: hex octets joined by colons.
    #[must_use]
    pub fn tls_serial(&self) -> String {
        hex_serial(&self.common.tls_serial)
    }
}

impl Common {
    fn draw(
        ssh_key: PublicKey,
        tls_key: TlsPublicKey,
        now: Timestamp,
        not_after: Option<Timestamp>,
        entropy: &dyn Entropy,
    ) -> Result<Self, ProfileError> {
        let not_before = now.minus(BACKDATED).unix_seconds();
        // From 1970 on SSH can express it, before 9999 X.509 can.
        if not_before < 0 || now.plus(MAX_USER_TTL).unix_seconds() >= X509_NO_END {
            return Err(ProfileError::Clock(now));
        }
        Ok(Self {
            ssh_key,
            tls_key,
            not_before,
            not_after: not_after.map(Timestamp::unix_seconds),
            ssh_serial: u64::from_be_bytes(fill_random(entropy)).max(1),
            ssh_nonce: fill_random(entropy),
            tls_serial: x509_serial(entropy),
        })
    }
}

/// A serial number of 16 octets: sign bit clear, never zero, 126 bits random, so issued serials are not looked up for collisions
/// (RFC 5280 section 4.1.2.2 allows up to 20 octets).
pub(crate) fn x509_serial(entropy: &dyn Entropy) -> [u8; 16] {
    let mut octets: [u8; 16] = fill_random(entropy);
    let [first, ..] = &mut octets;
    *first = (*first & 0x3f) | 0x40;
    octets
}

/// 9999-12-31T23:59:59Z, "no well-defined end" (RFC 5280 section 4.1.2.5).
pub(crate) const X509_NO_END: i64 = 253_402_300_799;
const MAX_PRINCIPALS: usize = 256;
const MAX_DNS_NAME: usize = 253;

fn check_keys(subject: &str, ssh_key: &PublicKey) -> Result<(), ProfileError> {
    check_ssh_key(ssh_key.key_data()).map_err(|source| ProfileError::SshKey { subject: subject.into(), source })
}

fn check_principals<'a>(subject: &str, principals: impl ExactSizeIterator<Item = &'a str>) -> Result<(), ProfileError> {
    let count = principals.len();
    if !(1..=MAX_PRINCIPALS).contains(&count) {
        return Err(ProfileError::PrincipalCount { subject: subject.into(), count });
    }
    for principal in principals {
        check_principal(principal).map_err(|source| ProfileError::Principal { subject: subject.into(), source })?;
    }
    Ok(())
}

/// What is issued must be what verifiers read.
fn check_readable(subject: &str, identity: &Identity) -> Result<(), ProfileError> {
    Identity::decode(&identity.encode())
        .map(|_| ())
        .map_err(|source| ProfileError::Identity { subject: subject.into(), source })
}

fn hex_serial(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}
