//! Version, commit and target of this program.

/// Version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `remoteler 0.1.0 (commit abcdef0, x86_64-linux)`.
#[must_use]
pub fn version_line() -> String {
    let commit = option_env!("REMOTELER_COMMIT").unwrap_or("unknown");
    format!("remoteler {VERSION} (commit {commit}, {}-{})", std::env::consts::ARCH, std::env::consts::OS)
}
