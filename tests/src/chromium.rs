//! A real browser, driven by scripts of `tests/pages`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::client;

/// Chromium with its driver, where `cargo xtask test` puts that.
#[derive(Clone, Debug)]
pub struct Chromium {
    driver: PathBuf,
}

impl Chromium {
    /// Finds it. `None`, with a word about it, when something is missing.
    ///
    /// # Panics
    /// In the full check, when something is missing.
    #[must_use]
    pub fn find() -> Option<Self> {
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients/pages");
        let there = driver.join("node_modules/playwright-core").is_dir()
            && Path::new("/usr/bin/chromium").exists()
            && client("node").is_some();
        if there {
            return Some(Self { driver });
        }
        let said = "needs chromium, node and npm's playwright-core; cargo xtask test installs the last";
        assert!(env::var_os("REMOTELER_FULL_CHECK").is_none(), "{said}");
        eprintln!("SKIPPED: {said}");
        None
    }

    /// A script of `tests/pages`, to be run with arguments.
    ///
    /// # Panics
    /// When node has gone.
    #[must_use]
    pub fn script(&self, name: &str) -> Command {
        let mut command = Command::new(client("node").expect("it was there a moment ago").path());
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("pages").join(name));
        command.env("REMOTELER_TEST_PAGES", &self.driver);
        command
    }
}
