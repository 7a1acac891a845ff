//! The authorities believed now. Owns the public halves only; which key stands under which purpose is all that decides
//! what a peer is.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use ssh_key::PublicKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    ClusterName, Jwk, RevocationTarget, Revocations, RotationPhase, RotationView, ShownCertificate, VerifyError,
};

/// What an authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaKind {
    /// Certificates of users.
    User,
    /// Certificates of hosts.
    Host,
}

impl CaKind {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Host => "host",
        }
    }
}

/// The public keys of one authority: the active ones first, then those still or already trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaSet {
    /// SSH keys in OpenSSH's one-line form.
    #[serde(with = "openssh_keys")]
    pub ssh: Vec<PublicKey>,
    /// X.509 authority certificates, DER in base64.
    #[serde(with = "base64_list")]
    pub x509: Vec<Vec<u8>>,
}

/// Everything needed to verify certificates of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustBundle {
    /// Whose authorities these are.
    pub cluster: ClusterName,
    /// Signs users.
    pub user: CaSet,
    /// Signs hosts.
    pub host: CaSet,
    /// Where the rotations stand.
    #[serde(default)]
    pub rotation: RotationView,
    /// Public keys of identity tokens, the one that signs first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<Jwk>,
    /// What is refused although one of the two signed it and its end has not come.
    #[serde(default, skip_serializing_if = "Revocations::is_empty")]
    pub revoked: Revocations,
}

/// Why an authority certificate cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Not DER of a certificate.
    #[error("an authority's certificate does not parse: {0}")]
    Malformed(String),
}

impl CaSet {
    /// The key that signs now, alone.
    #[must_use]
    pub fn active(&self) -> Self {
        Self { ssh: self.ssh.iter().take(1).cloned().collect(), x509: self.x509.iter().take(1).cloned().collect() }
    }

    /// All but the key that signs now.
    #[must_use]
    pub fn others(&self) -> Self {
        Self { ssh: self.ssh.iter().skip(1).cloned().collect(), x509: self.x509.iter().skip(1).cloned().collect() }
    }

    /// Whether one of its keys is `key`, named as if it were to be revoked.
    #[must_use]
    pub fn holds(&self, key: RevocationTarget) -> bool {
        let ssh = || self.ssh.iter().any(|each| RevocationTarget::ssh_key(each.key_data()) == key);
        let x509 = || self.x509.iter().any(|each| authority_key(each).is_ok_and(|each| each == key));
        match key {
            RevocationTarget::SshKey(_) => ssh(),
            RevocationTarget::TlsKey(_) => x509(),
            RevocationTarget::SshSerial { .. } | RevocationTarget::TlsSerial { .. } => false,
        }
    }
}

impl TrustBundle {
    /// With no rotation going on, and nothing revoked.
    #[must_use]
    pub fn new(cluster: ClusterName, user: CaSet, host: CaSet) -> Self {
        Self {
            cluster,
            user,
            host,
            rotation: RotationView::default(),
            tokens: Vec::new(),
            revoked: Revocations::default(),
        }
    }

    /// The bundle in which the only authority of hosts is the one whose certificates servers show now: in
    /// [`RotationPhase::UpdateClients`] the one that goes, else the one that signs.
    #[must_use]
    pub fn serving_only(&self) -> Self {
        let host = match self.rotation.host {
            RotationPhase::UpdateClients if !self.host.others().x509.is_empty() => self.host.others(),
            RotationPhase::UpdateClients
            | RotationPhase::Standby
            | RotationPhase::Init
            | RotationPhase::UpdateServers
            | RotationPhase::Rollback => self.host.active(),
        };
        Self { host, ..self.clone() }
    }

    /// The bundle in which the only authority of hosts is the one that signs now.
    #[must_use]
    pub fn active_only(&self) -> Self {
        Self { host: self.host.active(), ..self.clone() }
    }

    /// Looks again at a certificate that was verified before: its authority still stands here for the same purpose, and neither its
    /// serial nor its key is revoked. Its end is not looked at.
    ///
    /// # Errors
    /// [`VerifyError::UnknownAuthority`] or [`VerifyError::Revoked`]. The proof counts for nothing then.
    pub fn still_believes(&self, shown: &ShownCertificate) -> Result<(), VerifyError> {
        if !self.authority(shown.authority).holds(shown.authority_key) {
            return Err(VerifyError::UnknownAuthority {
                purpose: shown.authority.as_str(),
                cluster: self.cluster.clone(),
            });
        }
        self.revoked.of(shown).map_or(Ok(()), |revoked| Err(VerifyError::Revoked(revoked)))
    }

    /// The set of one kind.
    #[must_use]
    pub const fn authority(&self, kind: CaKind) -> &CaSet {
        match kind {
            CaKind::User => &self.user,
            CaKind::Host => &self.host,
        }
    }

    /// Pins of the host authority's X.509 certificates, active first: `sha256:<64 hex>` of each SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`TrustError`] when a certificate in the bundle does not parse.
    pub fn host_pins(&self) -> Result<Vec<String>, TrustError> {
        self.host.x509.iter().map(|certificate| spki_pin(certificate)).collect()
    }
}

/// `sha256:` and the hex SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 section 2.4 takes the same octets).
///
/// # Errors
/// [`TrustError`] when `certificate` is not DER of an X.509 certificate.
pub fn spki_pin(certificate: &[u8]) -> Result<String, TrustError> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|cause| TrustError::Malformed(cause.to_string()))?;
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate.public_key().raw);
    let hex: String = digest.as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

/// The key of an authority's certificate.
pub(crate) fn authority_key(certificate: &[u8]) -> Result<RevocationTarget, TrustError> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|cause| TrustError::Malformed(cause.to_string()))?;
    Ok(RevocationTarget::tls_key(certificate.public_key().raw))
}

mod openssh_keys {
    use super::{Deserialize, Deserializer, PublicKey, Serializer, de};

    pub(super) fn serialize<S: Serializer>(keys: &[PublicKey], serializer: S) -> Result<S::Ok, S::Error> {
        let lines = keys.iter().map(PublicKey::to_openssh).collect::<Result<Vec<_>, _>>();
        serializer.collect_seq(lines.map_err(serde::ser::Error::custom)?)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PublicKey>, D::Error> {
        let lines = Vec::<String>::deserialize(deserializer)?;
        lines.iter().map(|line| PublicKey::from_openssh(line).map_err(de::Error::custom)).collect()
    }
}

pub(crate) mod base64_list {
    use super::{Deserialize, Deserializer, Engine, STANDARD, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(list: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|octets| STANDARD.encode(octets)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let list = Vec::<String>::deserialize(deserializer)?;
        list.iter().map(|text| STANDARD.decode(text).map_err(de::Error::custom)).collect()
    }
}
