//! A SoftHSM token for the authority's keys: a token in files, spoken to as hardware is.

use std::{path::PathBuf, process::Command};

use tempfile::TempDir;

use crate::{Outcome, need, run};

/// A token, its PIN, and the settings of its module.
#[derive(Debug)]
pub struct SoftHsm {
    dir: TempDir,
}

impl SoftHsm {
    /// Label of the token.
    pub const LABEL: &'static str = "ca of tests";
    /// Its user's PIN.
    pub const PIN: &'static str = "31415926";
    /// Where Debian's package puts the module.
    pub const MODULE: &'static str = "/usr/lib/softhsm/libsofthsm2.so";

    /// A fresh token; `None` when this machine has no SoftHSM, which is a failure in the full check.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn make() -> Option<Self> {
        if !need(&["softhsm2-util", "pkcs11-tool"]) {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("rt-hsm-").tempdir_in("/tmp").expect("a directory can be made");
        let hsm = Self { dir };
        let tokens = hsm.dir.path().join("tokens");
        std::fs::create_dir(&tokens).expect("a directory can be made");
        let settings = format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display());
        std::fs::write(hsm.settings(), settings).expect("the settings can be written");
        let mut init = Command::new("softhsm2-util");
        init.args(["--init-token", "--free", "--label", Self::LABEL, "--so-pin", "27182818", "--pin", Self::PIN]);
        run(init.env("SOFTHSM2_CONF", hsm.settings())).ok();
        hsm.write_pin(Self::PIN);
        Some(hsm)
    }

    fn settings(&self) -> PathBuf {
        self.dir.path().join("softhsm2.conf")
    }

    /// The file with the PIN.
    #[must_use]
    pub fn pin_file(&self) -> PathBuf {
        self.dir.path().join("pin")
    }

    /// Writes another PIN into the file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_pin(&self, pin: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.pin_file(), format!("{pin}\n")).expect("the PIN can be written");
        std::fs::set_permissions(self.pin_file(), std::fs::Permissions::from_mode(0o600)).expect("the file is ours");
    }

    /// What the daemon's environment needs for the module to find the token.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![("SOFTHSM2_CONF".into(), self.settings().display().to_string())]
    }

    /// Lines of `auth_service` that name the token; new keys are made in `new_keys`, `token` or `database`.
    #[must_use]
    pub fn config(&self, new_keys: &str) -> String {
        format!(
            "  ca_key_params:\n    new_keys: {new_keys}\n    pkcs11:\n      module_path: {}\n      token_label: {}\n      pin_path: {}\n",
            Self::MODULE,
            Self::LABEL,
            self.pin_file().display(),
        )
    }

    /// Runs OpenSC's tool on the token, logged in.
    #[track_caller]
    pub fn tool(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new("pkcs11-tool");
        command.args(["--module", Self::MODULE, "--token-label", Self::LABEL, "--login", "--pin", Self::PIN]);
        run(command.args(args).env("SOFTHSM2_CONF", self.settings()))
    }

    /// Labels of the private keys in the token, in order.
    ///
    /// # Panics
    /// When one of them is not kept in it.
    #[must_use]
    #[track_caller]
    pub fn private_keys(&self) -> Vec<String> {
        let listed = self.tool(&["--list-objects", "--type", "privkey"]).ok().text();
        let mut labels: Vec<_> =
            listed.lines().filter_map(|line| line.trim().strip_prefix("label:")).map(str::trim).collect();
        labels.sort_unstable();
        let kept = listed.matches("sensitive, always sensitive, never extractable, local").count();
        assert_eq!(kept, labels.len(), "{listed}");
        labels.into_iter().map(str::to_owned).collect()
    }
}
