//! Where our own binaries are. They are the release build: what users run, and fast enough to move gigabytes.

use std::{path::PathBuf, process::Command, sync::OnceLock};

/// Path of one of our binaries: from `REMOTELER_BIN_DIR`, or built once into `target/release`.
///
/// # Panics
/// When the build fails.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| match std::env::var_os("REMOTELER_BIN_DIR") {
        Some(dir) => std::path::absolute(workspace().join(dir)).expect("the current directory exists"),
        None => {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let built = Command::new(cargo)
                .args(["build", "--release", "--quiet", "--workspace", "--bins"])
                .current_dir(workspace())
                .status()
                .expect("cargo runs");
            assert!(built.success(), "the binaries do not build");
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
            target.join("release")
        }
    })
    .join(name)
}

fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("tests stand in the workspace").to_owned()
}
