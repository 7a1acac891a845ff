//! Programs of other projects that tests drive. A missing one is a loud skip at the desk and a failure in the full check.

use std::{env, path::PathBuf};

/// A program that was found.
#[derive(Clone, Debug)]
pub struct Client(PathBuf);

impl Client {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

/// Finds a program in `PATH` and in the system directories.
#[must_use]
pub fn client(name: &str) -> Option<Client> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into(), "/usr/lib/openssh".into()]);
    // Debian keeps the server's programs of each version of PostgreSQL apart.
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let dirs = dirs.chain(versions.map(|version| version.path().join("bin")));
    dirs.map(|dir| dir.join(name)).find(|candidate| candidate.is_file()).map(Client)
}

/// Whether all of `names` are there. When not: prints which are missing, and fails in the full check
/// (`REMOTELER_FULL_CHECK` set).
///
/// # Panics
/// In the full check, when one is missing.
#[must_use]
pub fn need(names: &[&str]) -> bool {
    let missing: Vec<_> = names.iter().copied().filter(|name| client(name).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    let said = format!("needs {}, which this machine does not have", missing.join(", "));
    assert!(env::var_os("REMOTELER_FULL_CHECK").is_none(), "{said}");
    eprintln!("SKIPPED: {said}");
    false
}
