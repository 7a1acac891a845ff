//! The file of a login that holds what was proven for Kubernetes clusters: short-lived certificates with a second factor, and where none is wanted. Owns its
//! form; a file that does not parse is as good as none. What stands in it opens nothing that the service does not decide on.

use std::collections::BTreeMap;

use remoteler_core::{KubeClusterName, Secret, Timestamp};
use serde::{Deserialize, Serialize};

use super::{KEYS, Names, Store, StoreError, StoredLogin, read_text};
use crate::files::{Privacy, PrivateDir};

/// What is known of one Kubernetes cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KubeSession {
    /// No second factor was wanted there then.
    Plain {
        /// When the auth service said so.
        asked: Timestamp,
    },
    /// One was shown.
    Proven(KubeCredential),
}

/// A certificate that counts in one Kubernetes cluster for a short time, and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeCredential {
    /// X.509 certificate, PEM.
    pub certificate: String,
    /// Its key, PEM of PKCS #8.
    pub private_key: Secret,
    /// When it ends.
    pub expires: Timestamp,
}

type Sessions = BTreeMap<KubeClusterName, KubeSession>;

impl Store {
    /// What is known of `name` for this login. A certificate that has ended at `now` is not given.
    ///
    /// # Errors
    /// [`StoreError::File`]
    pub fn kube_session(
        &self,
        login: &StoredLogin,
        name: &KubeClusterName,
        now: Timestamp,
    ) -> Result<Option<KubeSession>, StoreError> {
        let Some(keys) = self.keys_of(login)? else { return Ok(None) };
        Ok(read(&keys, &Names::of(&login.profile.user).kube_sessions, now)?.remove(name))
    }

    /// Keeps it, and lets go of certificates that have ended at `now`.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::NoLogin`] when the login is gone.
    pub fn keep_kube_session(
        &self,
        login: &StoredLogin,
        name: &KubeClusterName,
        session: KubeSession,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (_dir, _lock) = self.open_for_change()?;
        let no_login = || StoreError::NoLogin { proxy: login.profile.proxy.to_string() };
        let keys = self.keys_of(login)?.ok_or_else(no_login)?;
        let file = Names::of(&login.profile.user).kube_sessions;
        let mut sessions = read(&keys, &file, now)?;
        sessions.insert(name.clone(), session);
        let text = serde_json::to_vec(&sessions).expect("texts and times always encode");
        Ok(keys.write(&file, &text)?)
    }

    fn keys_of(&self, login: &StoredLogin) -> Result<Option<PrivateDir>, StoreError> {
        let Some(dir) = PrivateDir::open(self.home(), Privacy::Keep)? else { return Ok(None) };
        let Some(keys) = dir.open_dir(KEYS)? else { return Ok(None) };
        Ok(keys.open_dir(login.profile.proxy.host())?)
    }
}

fn read(keys: &PrivateDir, file: &str, now: Timestamp) -> Result<Sessions, StoreError> {
    let text = read_text(keys, file)?.unwrap_or_default();
    let mut sessions: Sessions = serde_json::from_str(&text).unwrap_or_default();
    sessions.retain(|_, session| match session {
        KubeSession::Plain { .. } => true,
        KubeSession::Proven(credential) => now < credential.expires,
    });
    Ok(sessions)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_certificate_that_has_ended_is_not_given_and_a_file_that_does_not_parse_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let keys = PrivateDir::create(&dir.path().join("keys"), Privacy::Keep).unwrap();
        let (now, name) = (Timestamp::from_unix_seconds(1_000), |name: &str| KubeClusterName::new(name).unwrap());
        let credential = KubeCredential {
            certificate: "c".into(),
            private_key: Secret::new("k"),
            expires: now.plus(Duration::from_secs(60)),
        };
        let sessions: Sessions =
            [(name("staging"), KubeSession::Proven(credential)), (name("dev"), KubeSession::Plain { asked: now })]
                .into();
        keys.write("f", &serde_json::to_vec(&sessions).unwrap()).unwrap();
        assert_eq!(read(&keys, "f", now).unwrap(), sessions);
        let later = read(&keys, "f", now.plus(Duration::from_secs(60))).unwrap();
        assert_eq!(later.keys().collect::<Vec<_>>(), [&name("dev")]);
        keys.write("f", b"{").unwrap();
        assert!(read(&keys, "f", now).unwrap().is_empty());
        assert!(!format!("{sessions:?}").contains("\"k\"")); // I76
    }
}
