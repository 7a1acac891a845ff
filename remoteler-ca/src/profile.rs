//! What is wanted, raw ([`UserProfile`] and its siblings), and the one way from there to something that may be signed: `prepare`, which
//! checks, draws the serials, builds and lints. Owns every rule about the content of certificates. Never signs.

mod app;
mod cluster;
mod database;
mod kube;
mod openssh;
mod server;
mod smart_card;

use std::time::Duration;

pub use app::AppProfile;
pub use cluster::{HostProfile, UserProfile};
pub use database::DatabaseProfile;
pub use kube::KubeProfile;
pub use openssh::{OpensshHostProfile, OpensshUserProfile};
use remoteler_core::{
    ClusterName, Entropy, Identity, IdentityError, NameError, Timestamp, VerifyError, check_principal, check_ssh_key,
    fill_random,
};
pub use server::ServerProfile;
pub use smart_card::SmartCardProfile;
use ssh_key::PublicKey;

use crate::{Purpose, lint::LintError};

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
    /// A login or name stands there twice.
    #[error("{login:?} stands twice in the certificate of {subject}")]
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
    #[error("host {subject} has no role; name at least one of auth, proxy, node, kube and app")]
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
    /// A user certificate was asked of a host authority, or the other way round (I1).
    #[error("the {authority} authority of {cluster} signs no {wanted} certificates")]
    WrongKind {
        /// Whose.
        cluster: ClusterName,
        /// What it is.
        authority: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The identity is of another cluster (I12).
    #[error("the authority of {authority} does not issue certificates that name cluster {named}")]
    WrongCluster {
        /// Whose.
        authority: ClusterName,
        /// In the identity.
        named: ClusterName,
    },
    /// Names that the certificate would be for: none, too many, or one that is no name of that kind.
    #[error("{value:?} is not a {what}: {rule}")]
    Name {
        /// What it should be.
        what: &'static str,
        /// What it is, cut short.
        value: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// The second factor that is to stand in it is for another place or another time.
    #[error("the second factor of {subject} was not shown for this certificate")]
    OtherProof {
        /// Whose.
        subject: String,
    },
    /// The SSH certificate could not be put together.
    #[error("the SSH certificate of {subject} cannot be put together")]
    SshCertificate {
        /// Whose.
        subject: String,
        /// Why.
        source: ssh_key::Error,
    },
    /// What was built breaks a rule for certificates: a fault of this program, so nothing is signed.
    #[error("the certificate of {subject} was built wrong and is not signed; report this")]
    Lint {
        /// Whose.
        subject: String,
        /// Which rule.
        source: LintError,
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

impl SshPermits {
    /// The certificate extensions (OpenSSH PROTOCOL.certkeys) of what is permitted.
    fn extensions(self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("permit-agent-forwarding", self.agent_forwarding),
            ("permit-port-forwarding", self.port_forwarding),
            ("permit-pty", self.pty),
        ]
        .into_iter()
        .filter(|(_, given)| *given)
        .map(|(name, _)| (name, String::new()))
    }
}

/// From when until when, in seconds since the epoch; `None`: no end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) not_before: i64,
    pub(crate) not_after: Option<i64>,
}

impl Window {
    /// Checks the end that is wanted (I6).
    fn new(
        subject: &str,
        purpose: Purpose,
        now: Timestamp,
        not_after: impl Into<Option<Timestamp>>,
    ) -> Result<Self, ProfileError> {
        let (not_before, not_after) = (now.minus(BACKDATED).unix_seconds(), not_after.into());
        // From 1970 on SSH can express it, before 9999 X.509 can.
        if not_before < 0 || now.plus(MAX_USER_TTL).unix_seconds() >= X509_NO_END {
            return Err(ProfileError::Clock(now));
        }
        let Some(end) = not_after else {
            return if purpose.may_last_for_ever() {
                Ok(Self { not_before, not_after: None })
            } else {
                Err(ProfileError::TooLong {
                    subject: subject.into(),
                    not_after: Timestamp::from_unix_seconds(X509_NO_END),
                })
            };
        };
        if end.unix_seconds() <= now.unix_seconds() {
            return Err(ProfileError::Ended { subject: subject.into(), not_after: end, now });
        }
        let too_long =
            if purpose.may_last_for_ever() { end.unix_seconds() >= X509_NO_END } else { end > now.plus(MAX_USER_TTL) };
        if too_long {
            return Err(ProfileError::TooLong { subject: subject.into(), not_after: end });
        }
        Ok(Self { not_before, not_after: Some(end.unix_seconds()) })
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

/// A serial number of an SSH certificate: any but zero, which means "none" and cannot be revoked (OpenSSH PROTOCOL.krl).
fn ssh_serial(entropy: &dyn Entropy) -> u64 {
    u64::from_be_bytes(fill_random(entropy)).max(1)
}

/// 9999-12-31T23:59:59Z, "no well-defined end" (RFC 5280 section 4.1.2.5).
pub(crate) const X509_NO_END: i64 = 253_402_300_799;
/// I4
pub(crate) const MAX_PRINCIPALS: usize = 256;
const MAX_DNS_NAME: usize = 253;

fn check_key(subject: &str, ssh_key: &PublicKey) -> Result<(), ProfileError> {
    check_ssh_key(ssh_key.key_data()).map_err(|source| ProfileError::SshKey { subject: subject.into(), source })
}

/// I4: 1 to 256, each well formed, none twice.
fn check_principals(subject: &str, principals: &[impl AsRef<str>]) -> Result<(), ProfileError> {
    let count = principals.len();
    if !(1..=MAX_PRINCIPALS).contains(&count) {
        return Err(ProfileError::PrincipalCount { subject: subject.into(), count });
    }
    for (at, principal) in principals.iter().enumerate() {
        let principal = principal.as_ref();
        check_principal(principal).map_err(|source| ProfileError::Principal { subject: subject.into(), source })?;
        if principals.iter().take(at).any(|earlier| earlier.as_ref() == principal) {
            return Err(ProfileError::Duplicate { subject: subject.into(), login: principal.into() });
        }
    }
    Ok(())
}

/// A DNS name for a certificate: lower-case labels of letters, digits and `-`, the left-most of which may be `*` (RFC 6125 section 6.4.3).
fn check_dns_name(value: &str) -> Result<(), ProfileError> {
    let below = value.strip_prefix("*.").unwrap_or(value);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    let whole = value.len() <= MAX_DNS_NAME && below.split('.').all(label_ok);
    // "*.com" would be for the whole world.
    let narrow = below.len() == value.len() || below.contains('.');
    if whole && narrow {
        return Ok(());
    }
    let rule =
        "labels of a-z, 0-9 and '-' joined by dots are expected, in lower case, the first may be '*' above two others";
    Err(bad_name("DNS name", value, rule))
}

fn bad_name(what: &'static str, value: &str, rule: &'static str) -> ProfileError {
    ProfileError::Name { what, value: value.chars().take(80).collect(), rule }
}

/// What is issued must be what verifiers read.
fn check_readable(subject: &str, identity: &Identity) -> Result<(), ProfileError> {
    Identity::decode(&identity.encode())
        .map(|_| ())
        .map_err(|source| ProfileError::Identity { subject: subject.into(), source })
}
