//! Sizes of the programs, and of an agent that is built without the auth service, the proxy and their database.

use std::{fs, path::Path};

use anyhow::Context;

use super::figures::{Table, number};
use crate::{project::Project, step};

/// The release binaries as they are; the release profile strips them.
pub(super) fn sizes(project: &Project, table: &mut Table) -> anyhow::Result<()> {
    for program in ["remoteler", "tsh", "tctl"] {
        let size = mebibytes(&project.bin_dir().join(program))?;
        table.row("binary, stripped, MiB", program, number(size), "-");
    }
    Ok(())
}

/// Builds agents as packages have them, in a target directory of their own, so that no binary takes the place of another.
pub(super) fn measure(project: &Project, table: &mut Table) -> anyhow::Result<()> {
    let target = project.target().join("agent");
    for (what, features) in [("agent with SSH and Kubernetes", "kube"), ("agent with SSH", "")] {
        let mut build = project.cargo(&["build", "--profile", "dist", "-p", "remoteler", "--no-default-features"]);
        step::run(build.args(["--features", features]).arg("--target-dir").arg(&target))?;
        let size = mebibytes(&target.join("dist/remoteler"))?;
        table.row("binary, stripped, MiB, profile dist", what, number(size), "target < 10");
    }
    Ok(())
}

fn mebibytes(path: &Path) -> anyhow::Result<f64> {
    let size = fs::metadata(path).with_context(|| format!("{} is not built", path.display()))?.len();
    Ok(size as f64 / f64::from(1 << 20))
}
