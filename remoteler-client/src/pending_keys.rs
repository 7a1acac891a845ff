//! The keys of a join that is under way: written before the auth service is asked, so that a host whose answer was lost, or whose power
//! failed, asks again as the same host and not as a second one. Owns the file `join.json` in the data directory.

use std::path::Path;

use remoteler_core::Secret;
use serde::{Deserialize, Serialize};

use crate::{
    host_state::HostStateError,
    keys::KeyPairs,
    state_store::{DirStore, StateStore},
};

/// As they lie on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    v: u32,
    ssh_private_key: Secret,
    tls_private_key: Secret,
}

/// Where the keys of a join that is under way are kept.
#[derive(Debug)]
pub struct PendingKeys;

impl PendingKeys {
    /// Those of the attempt before, or new ones that are on disk when this returns. What cannot be read is replaced: nobody has certified it,
    /// or it would stand elsewhere.
    ///
    /// # Errors
    /// [`HostStateError::File`] and [`HostStateError::Key`].
    pub fn load_or_make(data_dir: &Path, name: &str) -> Result<KeyPairs, HostStateError> {
        Self::load_or_make_in(&DirStore::new(data_dir), name)
    }

    /// The same in another store.
    ///
    /// # Errors
    /// As [`PendingKeys::load_or_make`].
    pub fn load_or_make_in(store: &dyn StateStore, name: &str) -> Result<KeyPairs, HostStateError> {
        if let Some(content) = store.read(FILE, MAX_LEN)?
            && let Ok(Stored { v: FORMAT, ssh_private_key, tls_private_key }) = serde_json::from_slice(&content)
            && let Ok(keys) = KeyPairs::from_private(ssh_private_key, tls_private_key)
        {
            return Ok(keys);
        }
        let keys = KeyPairs::generate(name)?;
        let stored =
            Stored { v: FORMAT, ssh_private_key: keys.ssh_private.clone(), tls_private_key: keys.tls_private.clone() };
        let content = serde_json::to_vec(&stored).expect("a number and two strings always encode");
        store.write(FILE, &content)?;
        Ok(keys)
    }

    /// Removes them: the host has joined.
    ///
    /// # Errors
    /// [`HostStateError::File`]
    pub fn forget(data_dir: &Path) -> Result<(), HostStateError> {
        Self::forget_in(&DirStore::new(data_dir))
    }

    /// The same in another store.
    ///
    /// # Errors
    /// As [`PendingKeys::forget`].
    pub fn forget_in(store: &dyn StateStore) -> Result<(), HostStateError> {
        Ok(store.remove(FILE)?)
    }
}

const FORMAT: u32 = 1;
const FILE: &str = "join.json";
const MAX_LEN: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_an_attempt_are_those_of_the_next_until_the_host_has_joined() {
        let dir = tempfile::tempdir().unwrap();
        let first = PendingKeys::load_or_make(dir.path(), "edge").unwrap();
        let second = PendingKeys::load_or_make(dir.path(), "edge").unwrap();
        assert_eq!((&first.ssh_public, &first.tls_public), (&second.ssh_public, &second.tls_public));
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(dir.path().join(FILE)).unwrap());
        assert_eq!(mode & 0o777, 0o600); // I67
        PendingKeys::forget(dir.path()).unwrap();
        PendingKeys::forget(dir.path()).unwrap();
        let third = PendingKeys::load_or_make(dir.path(), "edge").unwrap();
        assert_ne!(third.ssh_public, first.ssh_public);
    }

    #[test]
    fn a_file_that_power_loss_or_somebody_else_made_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["", "{", r#"{"v":1,"ssh_private_key":"x","tls_private_key":"y"}"#, r#"{"v":2}"#] {
            std::fs::write(dir.path().join(FILE), content).unwrap();
            std::fs::set_permissions(
                dir.path().join(FILE),
                <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600),
            )
            .unwrap();
            PendingKeys::load_or_make(dir.path(), "edge").unwrap();
        }
    }
}
