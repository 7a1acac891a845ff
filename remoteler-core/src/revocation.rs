//! What is refused before its end: certificates by serial, keys by fingerprint. Owns the names of what can be revoked, and the set that
//! stands in a trust bundle, where both verification functions look. Decides nothing about who may revoke, and keeps no record.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    str::FromStr,
    sync::Arc,
};

use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, pem::PemObject};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use ssh_key::{Certificate, Fingerprint, HashAlg, PublicKey, public::KeyData};
use x509_parser::{prelude::FromDer, x509::SubjectPublicKeyInfo};

use crate::{CaKind, spki_pin};

/// One thing that can be revoked.
///
/// As text `ssh-user-42`, `tls-host-4f01…` (serials, in decimal and in hex), `key-ssh-…`, `key-tls-…` (64 hex digits). Each has one spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RevocationTarget {
    /// The SSH certificate with this serial.
    SshSerial {
        /// Whichever key of this authority signed it.
        authority: CaKind,
        /// Not 0, which means "no serial".
        serial: u64,
    },
    /// The X.509 certificate with this serial.
    TlsSerial {
        /// Whichever key of this authority signed it.
        authority: CaKind,
        /// Its serial.
        serial: TlsSerial,
    },
    /// Every SSH certificate of a key: SHA-256 of its encoding (RFC 4253 section 6.6), as `ssh-keygen -l` prints it in base64.
    SshKey([u8; 32]),
    /// Every X.509 certificate of a key: SHA-256 of its SubjectPublicKeyInfo, as [`spki_pin`] prints it in hex.
    TlsKey([u8; 32]),
}

/// An X.509 serial: a positive number of at most 20 octets (RFC 5280 section 4.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlsSerial([u8; 20]);

/// Why something cannot be revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationTargetError {
    /// No serial of an X.509 certificate.
    #[error("{0:?} is no serial of an X.509 certificate; give it in hex, as `openssl x509 -serial` prints it")]
    TlsSerial(String),
    /// No serial of an SSH certificate.
    #[error("{0:?} is no serial of an SSH certificate; give a number from 1, as `ssh-keygen -L` prints it")]
    SshSerial(String),
    /// Not the name of a revocation.
    #[error("{0:?} names no revocation; `tctl auth revoked` lists them")]
    Name(String),
    /// Not a public key in any form.
    #[error(
        "this is no public key; give a fingerprint (SHA256:… or sha256:…), a public key or certificate in OpenSSH's form, or one in PEM"
    )]
    Key,
}

impl TlsSerial {
    /// From the octets of the number, most significant first; leading zeros do not count.
    ///
    /// # Errors
    /// [`RevocationTargetError::TlsSerial`] for zero and for more than 20 octets.
    pub fn from_octets(octets: &[u8]) -> Result<Self, RevocationTargetError> {
        let start = octets.iter().position(|octet| *octet != 0).unwrap_or(octets.len());
        let digits = octets.get(start..).unwrap_or_default();
        let mut padded = [0; 20];
        match padded.len().checked_sub(digits.len()).and_then(|at| padded.get_mut(at..)) {
            Some(end) if !digits.is_empty() => end.copy_from_slice(digits),
            _ => return Err(RevocationTargetError::TlsSerial(hex(digits.get(..24).unwrap_or(digits)))),
        }
        Ok(Self(padded))
    }

    /// The octets of the number without leading zeros.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        let start = self.0.iter().position(|octet| *octet != 0).unwrap_or(0);
        self.0.get(start..).unwrap_or_default()
    }
}

impl fmt::Display for TlsSerial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(self.octets()))
    }
}

impl FromStr for TlsSerial {
    type Err = RevocationTargetError;

    /// Hex digits of either case, with or without colons between octets.
    fn from_str(text: &str) -> Result<Self, RevocationTargetError> {
        let refuse = || RevocationTargetError::TlsSerial(text.chars().take(80).collect());
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        let padded = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
        if padded.len() > 42 {
            return Err(refuse());
        }
        Self::from_octets(&octets(&padded).ok_or_else(refuse)?).map_err(|_| refuse())
    }
}

impl RevocationTarget {
    /// The SSH certificate of `authority` with this serial.
    ///
    /// # Errors
    /// [`RevocationTargetError::SshSerial`] for 0.
    pub fn ssh_serial(authority: CaKind, serial: u64) -> Result<Self, RevocationTargetError> {
        if serial == 0 {
            Err(RevocationTargetError::SshSerial("0".into()))
        } else {
            Ok(Self::SshSerial { authority, serial })
        }
    }

    /// All SSH certificates of a key.
    #[must_use]
    pub fn ssh_key(key: &KeyData) -> Self {
        let fingerprint = key.fingerprint(HashAlg::Sha256);
        Self::SshKey(fingerprint.as_bytes().try_into().expect("a SHA-256 has 32 octets"))
    }

    /// All X.509 certificates of a key, given as the DER of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn tls_key(spki: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, spki);
        Self::TlsKey(digest.as_ref().try_into().expect("a SHA-256 has 32 octets"))
    }

    /// The key that `text` shows: a fingerprint, a public key or certificate in OpenSSH's form, or one in PEM.
    ///
    /// # Errors
    /// [`RevocationTargetError::Key`] for anything else, private keys among it.
    pub fn key(text: &str) -> Result<Self, RevocationTargetError> {
        let text = text.trim();
        if let Some(digits) = text.strip_prefix("sha256:") {
            let digest = octets(digits).and_then(|octets| octets.try_into().ok());
            return digest.map(Self::TlsKey).ok_or(RevocationTargetError::Key);
        }
        if let Ok(Fingerprint::Sha256(digest)) = text.parse() {
            return Ok(Self::SshKey(digest));
        }
        // A certificate holds the key; the parser of keys would take the certificate itself for one.
        if let Ok(certificate) = Certificate::from_openssh(text) {
            return Ok(Self::ssh_key(certificate.public_key()));
        }
        if let Ok(key) = PublicKey::from_openssh(text) {
            return Ok(Self::ssh_key(key.key_data()));
        }
        if let Ok(certificate) = CertificateDer::from_pem_slice(text.as_bytes()) {
            let pin = spki_pin(&certificate).map_err(|_| RevocationTargetError::Key)?;
            return Self::key(&pin);
        }
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).map_err(|_| RevocationTargetError::Key)?;
        match SubjectPublicKeyInfo::from_der(&spki) {
            Ok(([], _)) => Ok(Self::tls_key(&spki)),
            Ok(_) | Err(_) => Err(RevocationTargetError::Key),
        }
    }
}

impl fmt::Display for RevocationTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SshSerial { authority, serial } => write!(f, "ssh-{}-{serial}", authority.as_str()),
            Self::TlsSerial { authority, serial } => write!(f, "tls-{}-{serial}", authority.as_str()),
            Self::SshKey(digest) => write!(f, "key-ssh-{}", hex(digest)),
            Self::TlsKey(digest) => write!(f, "key-tls-{}", hex(digest)),
        }
    }
}

impl FromStr for RevocationTarget {
    type Err = RevocationTargetError;

    fn from_str(text: &str) -> Result<Self, RevocationTargetError> {
        let refuse = || RevocationTargetError::Name(text.chars().take(100).collect());
        let (head, tail) = text.rsplit_once('-').ok_or_else(refuse)?;
        let digest = || octets(tail).and_then(|octets| octets.try_into().ok()).ok_or_else(refuse);
        let ssh = |authority| tail.parse().ok().and_then(|serial| Self::ssh_serial(authority, serial).ok());
        let tls = |authority| tail.parse().ok().map(|serial| Self::TlsSerial { authority, serial });
        let target = match head {
            "ssh-user" => ssh(CaKind::User).ok_or_else(refuse)?,
            "ssh-host" => ssh(CaKind::Host).ok_or_else(refuse)?,
            "tls-user" => tls(CaKind::User).ok_or_else(refuse)?,
            "tls-host" => tls(CaKind::Host).ok_or_else(refuse)?,
            "key-ssh" => Self::SshKey(digest()?),
            "key-tls" => Self::TlsKey(digest()?),
            _ => return Err(refuse()),
        };
        // One spelling each: a record is found by it.
        if target.to_string() == text { Ok(target) } else { Err(refuse()) }
    }
}

impl Serialize for RevocationTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RevocationTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What is revoked now, as it stands in a trust bundle. Clones share the set.
///
/// In JSON a list of texts. One that this program does not know is passed over, and the rest holds: without it the whole bundle would be
/// refused, and with it every later revocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations(Arc<BTreeSet<RevocationTarget>>);

impl Revocations {
    /// Whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How much is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether `target` is.
    #[must_use]
    pub fn contains(&self, target: &RevocationTarget) -> bool {
        self.0.contains(target)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &RevocationTarget> {
        self.0.iter()
    }

    /// What of a certificate is revoked: its serial or its key.
    #[must_use]
    pub fn of(&self, shown: &ShownCertificate) -> Option<RevocationTarget> {
        let serial = shown.serial.filter(|serial| self.contains(serial));
        serial.or_else(|| Some(shown.key).filter(|key| self.contains(key)))
    }
}

impl FromIterator<RevocationTarget> for Revocations {
    fn from_iter<I: IntoIterator<Item = RevocationTarget>>(targets: I) -> Self {
        Self(Arc::new(targets.into_iter().collect()))
    }
}

impl Serialize for Revocations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Revocations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
    }
}

/// By what a verified certificate can lose its worth later: kept with the proof, so that a proof that outlives a handshake can be looked at
/// again ([`crate::TrustBundle::still_believes`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownCertificate {
    /// What the authority that signed it signs.
    pub(crate) authority: CaKind,
    /// Key of that authority.
    pub(crate) authority_key: RevocationTarget,
    /// Its serial; none is revoked by number 0.
    pub(crate) serial: Option<RevocationTarget>,
    /// Its key.
    pub(crate) key: RevocationTarget,
}

impl ShownCertificate {
    /// What revokes this certificate and no other; `None` for one without a serial that could be named.
    #[must_use]
    pub const fn serial(&self) -> Option<RevocationTarget> {
        self.serial
    }

    /// Whether `target` is its serial or its key.
    pub(crate) fn is_named_by(&self, target: RevocationTarget) -> bool {
        self.serial == Some(target) || self.key == target
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(2 * octets.len()), |mut text, octet| {
        // A String takes everything.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

fn octets(hex: &str) -> Option<Vec<u8>> {
    if hex.len() % 2 == 1 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_has_one_spelling_and_reads_back() {
        let digest: String = "ab".repeat(32);
        for text in [
            "ssh-user-1",
            "ssh-host-18446744073709551615",
            "tls-user-01",
            "tls-host-4f000000000000000000000000000007",
            &format!("key-ssh-{digest}"),
            &format!("key-tls-{digest}"),
        ] {
            assert_eq!(text.parse::<RevocationTarget>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "ssh-user-",
            "ssh-user-0",
            "ssh-user-01",
            "ssh-user-+1",
            "ssh-user--1",
            "ssh-robot-1",
            "ssh-user-18446744073709551616",
            "tls-user-1",
            "tls-user-00",
            "tls-user-0001",
            "tls-user-4F",
            "tls-user-4f:01",
            &format!("tls-user-{}", "ab".repeat(21)),
            &format!("key-ssh-{}", "ab".repeat(31)),
            &format!("key-ssh-{}", "AB".repeat(32)),
            "key-pgp-ab",
        ] {
            assert!(wrong.parse::<RevocationTarget>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_tls_serial_is_read_as_openssl_and_others_print_it() {
        let serial: TlsSerial = "4F00A1".parse().unwrap();
        for same in ["4f00a1", "4f:00:a1", "004F00A1", "4F:00:A1"] {
            assert_eq!(same.parse::<TlsSerial>().unwrap(), serial, "{same}");
        }
        assert_eq!(serial.octets(), [0x4f, 0, 0xa1]);
        assert_eq!("7".parse::<TlsSerial>().unwrap().octets(), [7]);
        for wrong in ["", "0", "00:00", "xyz", "-1", "4f 00", &"ab".repeat(30)] {
            assert!(wrong.parse::<TlsSerial>().is_err(), "{wrong:?}");
        }
    }

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn a_key_is_the_same_by_its_fingerprint_and_by_its_line() {
        let key = PublicKey::from_openssh(KEY).unwrap();
        let target = RevocationTarget::key(&format!("{KEY} ann@laptop\n")).unwrap();
        assert_eq!(RevocationTarget::key(&key.fingerprint(HashAlg::Sha256).to_string()).unwrap(), target);
        assert_eq!(RevocationTarget::ssh_key(key.key_data()), target);
        assert!(matches!(target, RevocationTarget::SshKey(_)));
        let pin = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(RevocationTarget::key(&pin).unwrap(), RevocationTarget::TlsKey([15; 32]));
        for wrong in ["", "SHA256:short", "sha256:0f", "ssh-ed25519 AAAA", "-----BEGIN OPENSSH PRIVATE KEY-----"] {
            assert_eq!(RevocationTarget::key(wrong), Err(RevocationTargetError::Key), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_known_is_passed_over_and_the_rest_holds() {
        let revoked: Revocations = serde_json::from_str(r#"["ssh-user-7","quantum-user-9","tls-host-4f"]"#).unwrap();
        assert_eq!(serde_json::to_string(&revoked).unwrap(), r#"["ssh-user-7","tls-host-4f"]"#);
        assert!(revoked.contains(&"ssh-user-7".parse().unwrap()) && !revoked.contains(&"ssh-host-7".parse().unwrap()));
    }
}
