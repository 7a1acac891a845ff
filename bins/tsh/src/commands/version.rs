//! `tsh version`: version, commit and target of this program.

use serde::Serialize;

use crate::output::{self, Format};

#[derive(Serialize)]
struct Version {
    version: &'static str,
    commit: &'static str,
    target: String,
}

pub(crate) fn run(format: Format) -> anyhow::Result<()> {
    output::print(format, &version(), text)
}

fn version() -> Version {
    Version {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("REMOTELER_COMMIT").unwrap_or("unknown"),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
    }
}

fn text(version: &Version) -> String {
    format!("tsh {} (commit {}, {})\n", version.version, version.commit, version.target)
}
