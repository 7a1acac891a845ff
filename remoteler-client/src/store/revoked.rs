//! The file of a proxy's keys directory that names the hosts' certificates and the keys that are revoked, so that a command refuses them before it
//! has asked anybody. Owns its form: the JSON of a trust bundle's list. Without any there is no file.

use remoteler_core::{CaKind, RevocationTarget, Revocations};

use super::{StoreError, read_text};
use crate::files::PrivateDir;

/// Beside the certificates of the authorities.
pub(super) const REVOKED: &str = "revoked.json";

/// What a client looks at: it verifies hosts.
pub(super) fn of_hosts(revoked: &Revocations) -> Revocations {
    let matters = |target: &&RevocationTarget| match target {
        RevocationTarget::SshSerial { authority, .. } | RevocationTarget::TlsSerial { authority, .. } => {
            *authority == CaKind::Host
        }
        RevocationTarget::SshKey(_) | RevocationTarget::TlsKey(_) => true,
    };
    revoked.iter().filter(matters).copied().collect()
}

pub(super) fn write(keys: &PrivateDir, revoked: &Revocations) -> Result<(), StoreError> {
    if revoked.is_empty() {
        keys.remove(REVOKED)?;
        return Ok(());
    }
    let text = serde_json::to_vec(revoked).expect("a list of texts always encodes");
    Ok(keys.write(REVOKED, &text)?)
}

/// `None` when the file does not parse: then nothing is known of what is revoked, and no host is to be believed.
pub(super) fn read(keys: &PrivateDir) -> Result<Option<Revocations>, StoreError> {
    let Some(text) = read_text(keys, REVOKED)? else { return Ok(Some(Revocations::default())) };
    Ok(serde_json::from_str(&text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Privacy;

    #[test]
    fn what_concerns_hosts_is_kept_and_a_file_that_does_not_parse_is_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let keys = PrivateDir::create(&dir.path().join("keys"), Privacy::Keep).unwrap();
        let revoked: Revocations = ["ssh-user-1", "tls-user-4f", "ssh-host-2", "tls-host-50"]
            .into_iter()
            .map(|name| name.parse().unwrap())
            .collect();
        let hosts = of_hosts(&revoked);
        assert_eq!(hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["ssh-host-2", "tls-host-50"]);
        assert_eq!(read(&keys).unwrap(), Some(Revocations::default()));
        write(&keys, &hosts).unwrap();
        assert_eq!(read(&keys).unwrap(), Some(hosts));
        keys.write(REVOKED, b"[\"ssh-host-2\"").unwrap();
        assert_eq!(read(&keys).unwrap(), None); // I73
        write(&keys, &Revocations::default()).unwrap();
        assert!(keys.files().unwrap().is_empty());
    }
}
