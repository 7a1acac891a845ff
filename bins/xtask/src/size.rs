//! `cargo xtask size`: how large an agent is, by what it can do. Owns the list of the feature sets; the builds are those of packages.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;

use crate::{
    bench::{AgentMemory, Table, number},
    project::Project,
    step,
};

/// Flags of `size`.
#[derive(Debug, Args)]
pub(crate) struct SizeArgs {
    /// The release profile instead of those of packages: quicker to build, larger
    #[arg(long)]
    release: bool,
    /// Also start each in a cluster and say what it holds in memory with one tunnel and nothing to do
    #[arg(long)]
    memory: bool,
}

/// An agent that can do so much.
struct FeatureSet {
    name: &'static str,
    /// Of the packages that it is made for.
    profile: &'static str,
    /// What cargo builds.
    build: &'static [&'static str],
    /// Below the directory of the profile.
    program: &'static str,
    target: &'static str,
}

/// The smallest first.
const SETS: [FeatureSet; 3] = [
    FeatureSet {
        name: "agent in a program of one's own, one forwarded port (SDK)",
        profile: "embedded",
        build: &["-p", "remoteler-examples", "--example", "smallest_agent"],
        program: "examples/smallest_agent",
        target: "target < 5",
    },
    FeatureSet {
        name: "agent with SSH",
        profile: "dist",
        build: &["-p", "remoteler", "--no-default-features"],
        program: DAEMON,
        target: "target < 10",
    },
    FeatureSet {
        name: "agent with SSH and Kubernetes",
        profile: "dist",
        build: &["-p", "remoteler", "--no-default-features", "--features", "kube"],
        program: DAEMON,
        target: "target < 10",
    },
];

/// Builds each and prints the table.
pub(crate) fn size(args: &SizeArgs) -> anyhow::Result<()> {
    let project = Project::load()?;
    let mut table = Table::default();
    let programs = env::var_os("REMOTELER_BIN_DIR").map_or_else(|| project.bin_dir(), PathBuf::from);
    if args.memory && env::var_os("REMOTELER_BIN_DIR").is_none() {
        step::run(&mut project.cargo(&["build", "--workspace", "--release", "--bins"]))?;
    }
    let cluster = if args.memory { Some(AgentMemory::new(&programs)?) } else { None };
    measure(&project, args.release, cluster.as_ref(), &mut table)?;
    println!("{}", table.to_markdown());
    Ok(())
}

/// Builds each, in a target directory of its own, so that no program takes the place of one that was built otherwise.
pub(crate) fn measure(
    project: &Project,
    release: bool,
    cluster: Option<&AgentMemory>,
    table: &mut Table,
) -> anyhow::Result<()> {
    for (index, set) in SETS.iter().enumerate() {
        let profile = if release { "release" } else { set.profile };
        let what = format!("binary, stripped, MiB, profile {profile}");
        let mut build = project.cargo(&["build", "--locked", "--profile", profile]);
        step::run(build.args(set.build).arg("--target-dir").arg(project.packages()))?;
        let program = project.packages().join(profile).join(set.program);
        table.row(&what, set.name, number(mebibytes(&program)?), set.target);
        if let Some(cluster) = cluster {
            let name = format!("sized-{index}");
            let daemon = set.program == DAEMON;
            let held = if daemon { cluster.of(&program, &name) } else { cluster.of_embedded(&program, &name) }?;
            table.row("memory idle, one tunnel, MiB of RSS", set.name, number(held), "target < 10");
        }
    }
    Ok(())
}

/// What can be started with a configuration file.
const DAEMON: &str = "remoteler";

/// Size of a file.
pub(crate) fn mebibytes(path: &Path) -> anyhow::Result<f64> {
    let size = fs::metadata(path).with_context(|| format!("{} is not built", path.display()))?.len();
    Ok(size as f64 / f64::from(1 << 20))
}
