//! Tells the program its commit, when it is built in a checkout.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../../.git/logs/HEAD");
    println!("cargo::rerun-if-changed=build.rs");
    let commit =
        Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok().filter(|o| o.status.success());
    if let Some(commit) = commit {
        println!("cargo::rustc-env=REMOTELER_COMMIT={}", String::from_utf8_lossy(&commit.stdout).trim());
    }
}
