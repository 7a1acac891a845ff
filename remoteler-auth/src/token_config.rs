//! A token as the operator names it (feature `pkcs11`). Owns the rules about the file with its PIN. Keeps the PIN no longer than the token
//! is used, and never shows it.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use remoteler_ca::{Pkcs11Config, Pkcs11Token, TokenChoice, TokenError};
use remoteler_core::Secret;
use zeroize::Zeroizing;

use crate::{AuthConfig, NewKeys};

/// Which token, and what becomes of it.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// The PKCS#11 module: the shared library that speaks to the token.
    pub module: PathBuf,
    /// Which of its tokens.
    pub token: TokenChoice,
    /// File with the user's PIN; what follows its last character that is no white space is left out.
    pub pin_file: PathBuf,
    /// Whether new keys are made in it.
    pub new_keys: NewKeys,
}

/// Why a token is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenConfigError {
    /// The file with the PIN cannot be read.
    #[error("the token's PIN in {path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Everybody on this machine may read or change it.
    #[error(
        "the token's PIN in {path} is open to every user of this machine; allow it to the daemon's user only: chmod 0600 {path}"
    )]
    Open {
        /// Which file.
        path: PathBuf,
    },
    /// It lies in the data directory: in the same backup as the database.
    #[error("the token's PIN in {path} lies in the data directory; keep it elsewhere, so that no backup holds it")]
    BesideTheDatabase {
        /// Which file.
        path: PathBuf,
    },
    /// It holds no PIN.
    #[error("{path} holds no PIN: 1 to {MAX_PIN} characters in one line are expected")]
    NoPin {
        /// Which file.
        path: PathBuf,
    },
    /// The token itself.
    #[error("the token for the authority's keys cannot be used")]
    Token(#[from] TokenError),
}

impl AuthConfig {
    /// Opens a token, for authority keys that are in it and, if that is wished, for new ones. Waits for it.
    ///
    /// # Errors
    /// [`TokenConfigError`]
    pub fn with_token(mut self, token: TokenConfig) -> Result<Self, TokenConfigError> {
        let TokenConfig { module, token, pin_file, new_keys } = token;
        let pin = read_pin(&pin_file, &self.data_dir)?;
        self.keys.token = Some(Arc::new(Pkcs11Token::open(Pkcs11Config { module, token, pin })?));
        self.keys.new_keys = new_keys;
        Ok(self)
    }
}

fn read_pin(file: &Path, data_dir: &Path) -> Result<Secret, TokenConfigError> {
    let path = || file.to_owned();
    let failed = |source| TokenConfigError::Read { path: path(), source };
    let place = file.canonicalize().map_err(failed)?;
    // Before the first start there is no directory, and nothing can lie in it.
    if data_dir.canonicalize().is_ok_and(|data_dir| place.starts_with(data_dir)) {
        return Err(TokenConfigError::BesideTheDatabase { path: path() });
    }
    let opened = File::open(&place).map_err(failed)?;
    // The file that was opened is the one that is asked about.
    if opened.metadata().map_err(failed)?.mode() & OTHERS != 0 {
        return Err(TokenConfigError::Open { path: path() });
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_PIN + 2));
    opened.take(MAX_PIN as u64 + 2).read_to_string(&mut text).map_err(failed)?;
    let pin = text.trim_end();
    if pin.is_empty() || pin.len() > MAX_PIN || pin.contains(char::is_control) {
        return Err(TokenConfigError::NoPin { path: path() });
    }
    Ok(Secret::new(pin))
}

/// Longer than the PIN of any token.
const MAX_PIN: usize = 255;
/// Permission bits of everybody.
const OTHERS: u32 = 0o007;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_pin_is_taken_from_a_file_of_ones_own_outside_the_data_directory_only() {
        let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |dir: &Path, text: &str, mode: u32| {
            let path = dir.join("pin");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let read = |path: PathBuf| read_pin(&path, data.path());
        for (text, mode) in [("31 41", 0o600), ("31 41\n", 0o400), ("31 41 \r\n\n", 0o440)] {
            assert_eq!(read(write(elsewhere.path(), text, mode)).unwrap().reveal(), "31 41");
        }
        for mode in [0o604, 0o602, 0o777] {
            assert!(
                matches!(read(write(elsewhere.path(), "3141", mode)), Err(TokenConfigError::Open { .. })),
                "{mode:o}"
            ); // I67
        }
        assert!(matches!(read(write(data.path(), "3141", 0o600)), Err(TokenConfigError::BesideTheDatabase { .. })));
        for bad in ["", "\n", "31\n41", &"1".repeat(MAX_PIN + 1)] {
            let refused = read(write(elsewhere.path(), bad, 0o600)).unwrap_err();
            assert!(matches!(refused, TokenConfigError::NoPin { .. }), "{refused}");
        }
        assert!(matches!(read(elsewhere.path().join("none")), Err(TokenConfigError::Read { .. })));
    }
}
