//! Second factors as they travel: what is asked for, what a user has, and proofs. Values only; codes are checked in the auth service.

use serde::{Deserialize, Serialize};

use crate::{SecondFactor, Secret, Timestamp, UserName};

/// What kind of second factor it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FactorKind {
    /// One-time codes from an app (RFC 6238).
    Totp,
    /// A security key, or what a device holds instead of one (WebAuthn Level 2).
    Webauthn,
}

impl FactorKind {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Totp => "totp",
            Self::Webauthn => "webauthn",
        }
    }
}

/// What a user may see of a factor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Factor {
    /// Its name, one for each of a user's.
    pub name: String,
    /// What it is.
    pub kind: FactorKind,
    /// Since when.
    pub added: Timestamp,
    /// When it was used last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
}

/// A secret for an authenticator app, shown once; it counts when a code of it came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedTotp {
    /// Base32 (RFC 4648), for those who cannot scan.
    pub secret: Secret,
    /// `otpauth://` URI, for a QR code.
    pub uri: Secret,
}

/// That the owner is there, now: the password, and a code by those who have a factor. For who logs in by an identity provider a login of the last five minutes
/// stands for the password.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreshProof {
    /// Password. Absent: [`crate::ApiErrorKind::PasswordNeeded`] says that there is one, [`crate::ApiErrorKind::FreshLoginNeeded`] that a login stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// One-time code or recovery code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Secret>,
}

/// Takes the offered secret as a factor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewFactor {
    /// Name for it, 1 to 64 characters.
    pub name: String,
    /// A code of it.
    pub code: Secret,
}

/// Removes a factor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactorRemoval {
    /// Its name.
    pub name: String,
    /// By its owner.
    pub proof: FreshProof,
}

/// A factor was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactorAdded {
    /// Codes for the day on which the device is lost, each for one login; given with the first factor, and never again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recovery_codes: Vec<Secret>,
}

/// Whom a sign-up link is for, and what is to be set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invited {
    /// Whom.
    pub user: UserName,
    /// Whether a second factor is needed.
    pub second_factor: SecondFactor,
    /// The one that is offered; absent when none is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<OfferedTotp>,
}

/// What became of a sign-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedUp {
    /// Who has an account now.
    pub user: UserName,
    /// As in [`FactorAdded`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recovery_codes: Vec<Secret>,
}
