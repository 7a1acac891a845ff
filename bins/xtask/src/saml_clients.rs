//! Identity providers and verifiers of other projects that tests of SAML drive: pysaml2 and signxml from PyPI, samlify from npm, into the build's own
//! directory and nowhere else. Owns where they lie; which versions, stands in `tests/saml`.

use std::{fs, path::Path, process::Command};

use anyhow::Context;

use crate::{project::Project, step};

/// Installs what `tests/saml` names, unless it is there already.
pub(crate) fn install(project: &Project) -> anyhow::Result<()> {
    let sources = project.root().join("tests/saml");
    let target = project.target().join("clients/saml");
    let mut wanted = String::new();
    for name in ["requirements.txt", "package.json", "package-lock.json"] {
        let path = sources.join(name);
        wanted += &fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    }
    let stamp = target.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    clear(&target)?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]);
    pip.args(["--no-deps", "--only-binary", ":all:"]);
    step::run(pip.arg("--target").arg(target.join("python")).arg("-r").arg(sources.join("requirements.txt")))?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(sources.join(name), target.join(name)).with_context(|| format!("{name} cannot be copied"))?;
    }
    let mut npm = Command::new("npm");
    step::run(npm.args(["ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&target))?;
    fs::write(&stamp, wanted).with_context(|| format!("{} cannot be written", stamp.display()))
}

fn clear(target: &Path) -> anyhow::Result<()> {
    if target.exists() {
        fs::remove_dir_all(target).with_context(|| format!("{} cannot be removed", target.display()))?;
    }
    fs::create_dir_all(target).with_context(|| format!("{} cannot be made", target.display()))
}
