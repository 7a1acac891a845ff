//! The file with the key that seals the authorities' keys. Owns the rules about where it lies. Never keeps its content.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use remoteler_ca::{KeyEncryptionKey, KeyRing, SealError};
use zeroize::Zeroizing;

use crate::AuthConfig;

/// Why a file is not used to seal with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("the key-encryption key {path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Everybody on this machine may read or change it.
    #[error(
        "the key-encryption key {path} is open to every user of this machine; allow it to the daemon's user only: chmod 0600 {path}"
    )]
    Open {
        /// Which file.
        path: PathBuf,
    },
    /// It lies in the data directory: beside the database it would be in the same backup and protect nothing.
    #[error(
        "the key-encryption key {path} lies in the data directory; keep it elsewhere, so that no backup holds both"
    )]
    BesideTheDatabase {
        /// Which file.
        path: PathBuf,
    },
    /// Its content is no key.
    #[error("{path} is no key-encryption key")]
    Content {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: SealError,
    },
}

impl AuthConfig {
    /// Seals the authorities' keys with the 32 octets in `file`: one of the operator's, or a systemd credential.
    ///
    /// # Errors
    /// [`KeyFileError`]
    pub fn sealed_with_file(mut self, file: &Path) -> Result<Self, KeyFileError> {
        let path = || file.to_owned();
        let failed = |source| KeyFileError::Read { path: path(), source };
        let place = file.canonicalize().map_err(failed)?;
        // Before the first start there is no directory, and nothing can lie in it.
        if self.data_dir.canonicalize().is_ok_and(|data_dir| place.starts_with(data_dir)) {
            return Err(KeyFileError::BesideTheDatabase { path: path() });
        }
        let mut octets = Zeroizing::new(Vec::with_capacity(MAX_OCTETS));
        let opened = File::open(&place).map_err(failed)?;
        // The file that was opened is the one that is asked about.
        if opened.metadata().map_err(failed)?.mode() & OTHERS != 0 {
            return Err(KeyFileError::Open { path: path() });
        }
        opened.take(MAX_OCTETS as u64).read_to_end(&mut octets).map_err(failed)?;
        let key = KeyEncryptionKey::new(&octets).map_err(|source| KeyFileError::Content { path: path(), source })?;
        self.key_ring = Some(Arc::new(KeyRing::new(key)));
        Ok(self)
    }
}

/// More than a key has, so that a longer file is seen to be one.
const MAX_OCTETS: usize = 64;
/// Permission bits of everybody.
const OTHERS: u32 = 0o007;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use remoteler_core::ClusterName;

    use super::*;

    #[test]
    fn a_key_is_taken_from_outside_the_data_directory_only_and_must_be_one() {
        let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = || AuthConfig::new(data.path(), ClusterName::new("root").unwrap());
        let write = |dir: &Path, octets: &[u8]| {
            let path = dir.join("key");
            std::fs::write(&path, octets).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        let key: Vec<u8> = (0..32).collect();
        assert!(config().sealed_with_file(&write(elsewhere.path(), &key)).unwrap().key_ring.is_some());
        let beside = config().sealed_with_file(&write(data.path(), &key));
        assert!(matches!(beside, Err(KeyFileError::BesideTheDatabase { .. }))); // I8
        let link = elsewhere.path().join("link");
        std::os::unix::fs::symlink(data.path().join("key"), &link).unwrap();
        assert!(matches!(config().sealed_with_file(&link), Err(KeyFileError::BesideTheDatabase { .. }))); // I8
        for bad in [&[][..], &key[..31], &[0; 32], &[&key[..], b"\n"].concat(), &[7; 100]] {
            let refused = config().sealed_with_file(&write(elsewhere.path(), bad));
            assert!(matches!(refused, Err(KeyFileError::Content { .. })), "{}", bad.len());
        }
        for (mode, allowed) in [(0o400, true), (0o440, true), (0o604, false), (0o602, false), (0o644, false)] {
            let path = write(elsewhere.path(), &key);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let outcome = config().sealed_with_file(&path);
            assert_eq!(matches!(outcome, Err(KeyFileError::Open { .. })), !allowed, "{mode:o}"); // I67
            assert_eq!(outcome.is_ok(), allowed, "{mode:o}");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let missing = config().sealed_with_file(&elsewhere.path().join("none"));
        assert!(matches!(missing, Err(KeyFileError::Read { .. })));
    }
}
