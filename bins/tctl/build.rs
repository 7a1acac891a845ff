//! Tells the program its version, commit and target.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The log of HEAD changes with every commit; HEAD itself only with the branch.
    for path in ["../../.git/HEAD", "../../.git/logs/HEAD"] {
        if Path::new(path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok();
    let commit = output.filter(|output| output.status.success());
    let commit = commit.map_or_else(|| "unknown".into(), |commit| String::from_utf8_lossy(&commit.stdout).into_owned());
    let variable = |name| env::var(name).unwrap_or_default();
    let (version, target) = (variable("CARGO_PKG_VERSION"), variable("TARGET"));
    println!("cargo::rustc-env=TCTL_VERSION={version} (commit {}, {target})", commit.trim());
}
