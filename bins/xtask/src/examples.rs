//! Runs every example. They are those that `cargo test` has just built: nothing is compiled again, with other features.

use std::process::Command;

use anyhow::ensure;

use crate::{project::Project, step};

/// Runs all examples, each in an empty directory of its own.
pub(crate) fn run_all(project: &Project) -> anyhow::Result<()> {
    if project.examples().is_empty() {
        eprintln!("there are no examples");
    }
    for example in project.examples() {
        let program = project.target().join("debug/examples").join(example);
        ensure!(program.is_file(), "{} was not built", program.display());
        let directory = ScratchDir::new(&format!("example-{example}"))?;
        step::run(Command::new(&program).current_dir(directory.path()))?;
    }
    Ok(())
}

/// Runs the demo that the README opens with, to its end, in a directory of its own.
pub(crate) fn run_demo(project: &Project) -> anyhow::Result<()> {
    let directory = ScratchDir::new("demo")?;
    let mut demo = Command::new(project.bin_dir().join("remoteler"));
    step::run(demo.args(["demo", "--once", "--data-dir"]).arg(directory.path().join("data")))
}

/// A new directory, removed at the end. Directly under the system's one for temporary files: paths of sockets in it
/// must stay below 108 octets.
struct ScratchDir(std::path::PathBuf);

impl ScratchDir {
    fn new(name: &str) -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("remoteler-{name}-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
