//! The browser's driver and the accessibility checker that tests of the pages use, from npm into the build's own directory and nowhere else. Owns where
//! they lie; which versions, stands in `tests/pages`.

use std::{fs, process::Command};

use anyhow::Context;

use crate::{project::Project, step};

/// Installs what `tests/pages` names, unless it is there already.
pub(crate) fn install(project: &Project) -> anyhow::Result<()> {
    let sources = project.root().join("tests/pages");
    let target = project.target().join("clients/pages");
    let names = ["package.json", "package-lock.json"];
    let mut wanted = String::new();
    for name in names {
        let path = sources.join(name);
        wanted += &fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    }
    let stamp = target.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    if target.exists() {
        fs::remove_dir_all(&target).with_context(|| format!("{} cannot be removed", target.display()))?;
    }
    fs::create_dir_all(&target).with_context(|| format!("{} cannot be made", target.display()))?;
    for name in names {
        fs::copy(sources.join(name), target.join(name)).with_context(|| format!("{name} cannot be copied"))?;
    }
    let mut npm = Command::new("npm");
    step::run(npm.args(["ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&target))?;
    fs::write(&stamp, wanted).with_context(|| format!("{} cannot be written", stamp.display()))
}
