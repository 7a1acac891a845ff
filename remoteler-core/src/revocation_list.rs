//! Revocations as they are asked for, kept and published. Owns their form; what they mean for a certificate stands in `revocation`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{CaKind, RevocationTarget, Timestamp};

/// Why something is revoked (RFC 5280 section 5.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    /// Not said.
    #[default]
    Unspecified,
    /// The key is in other hands.
    KeyCompromise,
    /// The holder has another place.
    AffiliationChanged,
    /// Another certificate took its place.
    Superseded,
    /// It is not needed any more.
    CessationOfOperation,
    /// Its holder may no longer do what it was for.
    PrivilegeWithdrawn,
}

impl RevocationReason {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key_compromise",
            Self::AffiliationChanged => "affiliation_changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation_of_operation",
            Self::PrivilegeWithdrawn => "privilege_withdrawn",
        }
    }
}

/// Asks that something be refused from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRevocation {
    /// What.
    pub target: RevocationTarget,
    /// Why, for programs.
    #[serde(default)]
    pub reason: RevocationReason,
    /// Why, for people; at most 200 characters on one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// How long it matters, in seconds. Absent: a user's certificate as long as any may last, everything else until it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// Something that is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// What.
    pub target: RevocationTarget,
    /// Why, for programs.
    pub reason: RevocationReason,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Who did it.
    pub revoked_by: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; absent: until it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// In which form a list is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RevocationListFormat {
    /// OpenSSH's (PROTOCOL.krl).
    Krl,
    /// X.509 (RFC 5280 section 5).
    Crl,
}

/// Which list: `user.krl`, `host.krl`, `user.crl` or `host.crl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RevocationListName {
    /// Whose certificates.
    pub authority: CaKind,
    /// In which form.
    pub format: RevocationListFormat,
}

impl RevocationListName {
    /// All there are.
    pub const ALL: [Self; 4] = [
        Self { authority: CaKind::User, format: RevocationListFormat::Krl },
        Self { authority: CaKind::Host, format: RevocationListFormat::Krl },
        Self { authority: CaKind::User, format: RevocationListFormat::Crl },
        Self { authority: CaKind::Host, format: RevocationListFormat::Crl },
    ];
}

impl fmt::Display for RevocationListName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = match self.format {
            RevocationListFormat::Krl => "krl",
            RevocationListFormat::Crl => "crl",
        };
        write!(f, "{}.{format}", self.authority.as_str())
    }
}

/// A list that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no revocation list {0:?}; there are user.krl, host.krl, user.crl and host.crl")]
pub struct UnknownRevocationList(String);

impl FromStr for RevocationListName {
    type Err = UnknownRevocationList;

    fn from_str(text: &str) -> Result<Self, UnknownRevocationList> {
        let found = Self::ALL.into_iter().find(|name| name.to_string() == text);
        found.ok_or_else(|| UnknownRevocationList(text.chars().take(40).collect()))
    }
}

impl Serialize for RevocationListName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RevocationListName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A list as it is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationList {
    /// Which.
    pub name: RevocationListName,
    /// Grows with each list of that name.
    pub number: u64,
    /// When it was made.
    pub made: Timestamp,
    /// When the next is there at the latest: what X.509 calls `nextUpdate`.
    pub next_update: Timestamp,
    /// One for OpenSSH. For X.509 one of each authority that is believed, that of the one that signs now first: DER.
    #[serde(with = "crate::trust::base64_list")]
    pub files: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_list_is_found_by_its_name_and_no_other_is() {
        for name in RevocationListName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        for wrong in ["", "user", "user.KRL", "../user.krl", "robot.crl", "user.crl.pem"] {
            assert!(wrong.parse::<RevocationListName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_reason_is_written_as_in_json() {
        for reason in [RevocationReason::Unspecified, RevocationReason::KeyCompromise, RevocationReason::Superseded] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
