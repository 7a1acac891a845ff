//! `cargo xtask test`: every check there is, cheapest first. Owns their order; each is a command that can be typed by hand.

use std::{env, process::Command};

use clap::Args;

use crate::{
    clients::{self, Clients},
    examples,
    project::{self, Project},
    step::Steps,
};

/// What proptest draws its cases by.
const CASES: &str = "PROPTEST_RNG_SEED";

/// Flags of `test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Only format, lints and unit tests; installs nothing
    #[arg(long, conflicts_with = "strict")]
    fast: bool,
    /// Fail when a client that tests need is missing, as in CI
    #[arg(long)]
    strict: bool,
}

/// Runs the checks.
pub(crate) fn test(args: &TestArgs) -> anyhow::Result<()> {
    let project = Project::load()?;
    let mut steps = Steps::default();
    if args.fast {
        format_and_lint(&project, &mut steps)?;
        steps.command("unit tests", &mut project.cargo(&["test", "--workspace", "--lib", "--bins"]))?;
    } else {
        everything(&project, args.strict || project::is_ci(), &mut steps)?;
    }
    steps.report();
    Ok(())
}

fn everything(project: &Project, strict: bool, steps: &mut Steps) -> anyhow::Result<()> {
    let mut clients = Clients::default();
    steps.run("real clients", || {
        clients = clients::provide(project, strict)?;
        Ok(())
    })?;
    format_and_lint(project, steps)?;
    // What stands for SAML where it is left out is in no build of the workspace: there the daemon's default features count.
    let without_saml = ["-p", "remoteler", "--no-default-features", "--features", "server"];
    let lints = ["--lib", "--bins", "--tests", "--", "-D", "warnings"];
    steps.command("lints without SAML", project.cargo(&["clippy"]).args(without_saml).args(lints))?;
    // The library's alone: no daemon of another build is left behind.
    let test = ["--lib", "without_saml"];
    steps.command("tests without SAML", project.cargo(&["test"]).args(without_saml).args(test))?;
    // The whole workspace each time: with one package chosen, features and so builds of shared crates would differ.
    steps.command("release build", &mut project.cargo(&["build", "--workspace", "--release", "--bins"]))?;
    // All of what fails is seen in one go.
    let mut tests = project.cargo(&["test", "--workspace", "--no-fail-fast"]);
    tests.env("REMOTELER_BIN_DIR", project.bin_dir());
    // A change is judged by the same cases as the one before it; new ones are for who looks for them.
    if env::var_os(CASES).is_none() {
        tests.env(CASES, "12");
    }
    steps.command("tests", clients.describe(&mut tests))?;
    let mut doc = project.cargo(&["doc", "--workspace", "--no-deps"]);
    steps.command("documentation", doc.env("RUSTDOCFLAGS", "-D warnings"))?;
    steps.run("examples", || examples::run_all(project))?;
    steps.run("demo", || examples::run_demo(project))?;
    dependencies(project, steps)
}

fn format_and_lint(project: &Project, steps: &mut Steps) -> anyhow::Result<()> {
    steps.command("format", &mut project.cargo(&["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    steps.command("lints", &mut project.cargo(&clippy))
}

/// Licences and versions were checked by `tests/tests/workspace_map.rs` already; cargo-deny also sees other platforms and where
/// crates come from. Advisories are not asked for: their database changes while this tree does not (see CONTRIBUTING.md).
fn dependencies(project: &Project, steps: &mut Steps) -> anyhow::Result<()> {
    let installed = Command::new("cargo-deny").arg("--version").output().is_ok_and(|output| output.status.success());
    if !installed {
        steps.skip(
            "dependencies",
            "cargo-deny is not installed; the tests have checked licences and versions for this platform",
        );
        return Ok(());
    }
    steps.command("dependencies", &mut project.cargo(&["deny", "check", "bans", "licenses", "sources"]))
}
