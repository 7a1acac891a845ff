//! The values that documents of the cluster and the configuration file have in common: how each is written, read and refused.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{FactorKind, parse_duration};

/// Whether a second factor is asked for beside the password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecondFactor {
    /// Never, also of users who have one.
    Off,
    /// Of users who have one.
    #[default]
    Optional,
    /// Of everybody: who has none registers one first.
    On,
    /// As [`SecondFactor::On`], and only one-time codes count.
    Otp,
    /// As [`SecondFactor::On`], and only security keys count.
    Webauthn,
}

impl SecondFactor {
    /// Whether nobody goes without.
    #[must_use]
    pub const fn is_required(self) -> bool {
        match self {
            Self::Off | Self::Optional => false,
            Self::On | Self::Otp | Self::Webauthn => true,
        }
    }

    /// Whether factors of this kind count.
    #[must_use]
    pub const fn takes(self, kind: FactorKind) -> bool {
        match (self, kind) {
            (Self::Off, _) | (Self::Otp, FactorKind::Webauthn) | (Self::Webauthn, FactorKind::Totp) => false,
            (Self::Optional | Self::On, _) => true,
            (Self::Otp, FactorKind::Totp) | (Self::Webauthn, FactorKind::Webauthn) => true,
        }
    }
}

/// Where users prove who they are when they name no connector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthType {
    /// Here, with a password.
    #[default]
    Local,
    /// At an identity provider, by OpenID Connect.
    Oidc,
    /// At an identity provider, by SAML 2.0.
    Saml,
    /// At GitHub.
    Github,
}

impl AuthType {
    /// As documents, the configuration file and the login page's API have it: a kind of connector, or `local`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Oidc => "oidc",
            Self::Saml => "saml",
            Self::Github => "github",
        }
    }
}

impl FromStr for AuthType {
    type Err = AuthTypeError;

    fn from_str(text: &str) -> Result<Self, AuthTypeError> {
        let all = [Self::Local, Self::Oidc, Self::Saml, Self::Github];
        let found = all.into_iter().find(|each| each.as_str() == text);
        found.ok_or_else(|| AuthTypeError(text.chars().take(40).collect()))
    }
}

/// No way to log in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not available; local, oidc, github and saml are")]
pub struct AuthTypeError(String);

/// Whether terminal sessions are recorded, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordingMode {
    /// At the node, which uploads them.
    #[default]
    Node,
    /// Not at all. What runs is on record as events all the same.
    Off,
}

/// A word of a document. `on` and `off` are yes and no to some who read and write YAML.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Switch(bool),
    Text(String),
}

impl Word {
    fn text(&self) -> &str {
        match self {
            Self::Switch(true) => "on",
            Self::Switch(false) => "off",
            Self::Text(text) => text,
        }
    }
}

impl<'de> Deserialize<'de> for SecondFactor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Word::deserialize(deserializer)?.text() {
            "off" => Ok(Self::Off),
            "optional" => Ok(Self::Optional),
            "on" => Ok(Self::On),
            "otp" => Ok(Self::Otp),
            "webauthn" => Ok(Self::Webauthn),
            other => Err(de::Error::unknown_variant(other, &["off", "optional", "on", "otp", "webauthn"])),
        }
    }
}

impl<'de> Deserialize<'de> for RecordingMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Word::deserialize(deserializer)?.text() {
            "node" => Ok(Self::Node),
            "off" => Ok(Self::Off),
            other => Err(de::Error::unknown_variant(other, &["node", "off"])),
        }
    }
}

/// How long nothing may happen: `never`, or a duration such as `30m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdleTimeout(Option<u64>);

impl IdleTimeout {
    /// In seconds; `None` is never.
    #[must_use]
    pub const fn seconds(self) -> Option<u64> {
        self.0
    }
}

/// No idle timeout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no duration of a second or more such as 30m, and not never")]
pub struct IdleTimeoutError(String);

impl FromStr for IdleTimeout {
    type Err = IdleTimeoutError;

    fn from_str(text: &str) -> Result<Self, IdleTimeoutError> {
        let wrong = || IdleTimeoutError(text.chars().take(40).collect());
        match text {
            "never" | "0s" => Ok(Self(None)),
            _ => {
                let seconds = parse_duration(text).map(|timeout| Duration::as_secs(&timeout)).ok_or_else(wrong)?;
                if seconds == 0 { Err(wrong()) } else { Ok(Self(Some(seconds))) }
            }
        }
    }
}

impl fmt::Display for IdleTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("never"),
            Some(seconds) if seconds % 3600 == 0 => write!(f, "{}h", seconds / 3600),
            Some(seconds) if seconds % 60 == 0 => write!(f, "{}m", seconds / 60),
            Some(seconds) => write!(f, "{seconds}s"),
        }
    }
}

impl Serialize for IdleTimeout {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IdleTimeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// How long a second factor counts that was shown for a Kubernetes cluster: a duration from 1s to 1h, by default 1m.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerificationInterval(u64);

impl VerificationInterval {
    /// As a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl Default for VerificationInterval {
    fn default() -> Self {
        Self(60)
    }
}

impl FromStr for VerificationInterval {
    type Err = VerificationIntervalError;

    fn from_str(text: &str) -> Result<Self, VerificationIntervalError> {
        let seconds = parse_duration(text).map(|interval| Duration::as_secs(&interval));
        let seconds = seconds.filter(|seconds| (1..=MAX_INTERVAL).contains(seconds));
        seconds.map(Self).ok_or_else(|| VerificationIntervalError(text.chars().take(40).collect()))
    }
}

/// Longest [`VerificationInterval`], in seconds.
const MAX_INTERVAL: u64 = 3600;

/// No interval.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no duration from 1s to 1h such as 1m")]
pub struct VerificationIntervalError(String);

impl fmt::Display for VerificationInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IdleTimeout(Some(self.0)).fmt(f)
    }
}

impl Serialize for VerificationInterval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VerificationInterval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// `require_session_mfa`: a flag or a word for one. Teleport's kinds of hardware keys are refused: they are not told apart here.
pub(super) fn session_mfa<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    match Option::<Word>::deserialize(deserializer)?.as_ref().map(Word::text) {
        None => Ok(None),
        Some("on" | "yes" | "true" | "session") => Ok(Some(true)),
        Some("off" | "no" | "false") => Ok(Some(false)),
        Some(other) => Err(de::Error::unknown_variant(other, &["yes", "no"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_reads_back_as_it_is_written_and_nonsense_is_none() {
        for text in ["never", "1s", "90s", "30m", "2h"] {
            assert_eq!(text.parse::<IdleTimeout>().unwrap().to_string(), text);
        }
        assert_eq!("0s".parse(), Ok(IdleTimeout::default()));
        for wrong in ["", "soon", "-1s", "Never"] {
            assert!(wrong.parse::<IdleTimeout>().is_err(), "{wrong}");
        }
    }
}
