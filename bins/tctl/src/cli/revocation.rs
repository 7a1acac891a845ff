//! The flags of `tctl auth revoke` and of what belongs to it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use remoteler_core::{CaKind, RevocationReason, RevocationTarget, TlsSerial};

use crate::commands::Ttl;

/// What is revoked, and why: exactly one of the first three.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    pub(crate) what: RevokedWhat,
    /// Whose certificate, for a serial: user or host; user when nothing is said
    #[arg(
        long = "type",
        env = "REMOTELER_REVOKE_TYPE",
        value_enum,
        hide_possible_values = true,
        value_name = "TYPE",
        conflicts_with = "key"
    )]
    pub(crate) kind: Option<Holder>,
    /// unspecified, key-compromise, affiliation-changed, superseded, cessation-of-operation or privilege-withdrawn
    #[arg(
        long,
        env = "REMOTELER_REVOKE_REASON",
        value_enum,
        default_value = "unspecified",
        hide_possible_values = true,
        value_name = "REASON"
    )]
    pub(crate) reason: Reason,
    /// One line for the people who find it in the list
    #[arg(long, env = "REMOTELER_REVOKE_COMMENT", default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub(crate) comment: String,
    /// How long it matters; without it, a user's certificate until any has ended, everything else until it is taken back
    #[arg(long, env = "REMOTELER_REVOKE_TTL", value_name = "DURATION")]
    pub(crate) ttl: Option<Ttl>,
}

/// What is revoked.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct RevokedWhat {
    /// The SSH certificate with this serial, as `ssh-keygen -L` and the audit log show it
    #[arg(long, env = "REMOTELER_REVOKE_SSH_SERIAL", value_parser = clap::value_parser!(u64).range(1..), value_name = "NUMBER")]
    pub(crate) ssh_serial: Option<u64>,
    /// The X.509 certificate with this serial, as `openssl x509 -serial` and the audit log show it
    #[arg(long, env = "REMOTELER_REVOKE_TLS_SERIAL", value_name = "HEX")]
    pub(crate) tls_serial: Option<TlsSerial>,
    /// Every certificate of this key: a file with a public key or certificate (OpenSSH or PEM), or a fingerprint (SHA256:… or sha256:…)
    #[arg(long, env = "REMOTELER_REVOKE_KEY", value_name = "FILE|FINGERPRINT")]
    pub(crate) key: Option<String>,
}

/// Names of what is revoked.
#[derive(Debug, Args)]
pub(crate) struct UnrevokeArgs {
    /// As `tctl auth revoked` shows it
    pub(crate) name: RevocationTarget,
}

/// Where a list goes.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Whose certificates: user or host
    #[arg(
        long = "type",
        env = "REMOTELER_REVOCATION_LIST_TYPE",
        value_enum,
        default_value = "user",
        hide_possible_values = true,
        value_name = "TYPE"
    )]
    pub(crate) kind: Holder,
    /// File that is replaced as a whole, so that nobody reads half of it
    #[arg(short = 'o', long = "out", env = "REMOTELER_REVOCATION_LIST_OUT", value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// Whose certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Holder {
    /// Users'.
    User,
    /// Hosts'.
    Host,
}

impl From<Holder> for CaKind {
    fn from(holder: Holder) -> Self {
        match holder {
            Holder::User => Self::User,
            Holder::Host => Self::Host,
        }
    }
}

/// Why, as RFC 5280 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reason {
    /// Not said.
    Unspecified,
    /// The key is in other hands.
    KeyCompromise,
    /// The holder has another place.
    AffiliationChanged,
    /// There is another certificate.
    Superseded,
    /// Not needed any more.
    CessationOfOperation,
    /// The holder may no longer do what it was for.
    PrivilegeWithdrawn,
}

impl From<Reason> for RevocationReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unspecified => Self::Unspecified,
            Reason::KeyCompromise => Self::KeyCompromise,
            Reason::AffiliationChanged => Self::AffiliationChanged,
            Reason::Superseded => Self::Superseded,
            Reason::CessationOfOperation => Self::CessationOfOperation,
            Reason::PrivilegeWithdrawn => Self::PrivilegeWithdrawn,
        }
    }
}
