//! `cargo xtask bench`: criterion's benches and a comparison of whole processes with OpenSSH, printed as one table. Owns the order;
//! what is measured stands in the modules. Nothing here passes or fails by a figure.

mod cluster;
mod criterion;
mod figures;
mod measure;
mod memory;
mod process;
mod shell;
mod sshd;
mod tunnel;
mod ways;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use self::measure::Plan;
use crate::{project::Project, size, step::Steps};

pub(crate) use self::{
    figures::{Table, number},
    memory::AgentMemory,
};

/// Flags of `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// One part alone
    part: Option<Part>,
    /// Directory with tunnel.py and idle.py, which start other tunnels and measure ours beside them
    #[arg(long, env = "REMOTELER_PEERS")]
    peers: Option<PathBuf>,
    /// Fewer rounds and smaller transfers; shows that everything runs, its figures are rough
    #[arg(long)]
    quick: bool,
    /// Only the comparison of whole processes
    #[arg(long, conflicts_with = "only_criterion")]
    only_processes: bool,
    /// Only criterion's benches
    #[arg(long)]
    only_criterion: bool,
    /// Take the release binaries as they are
    #[arg(long)]
    no_build: bool,
}

/// What may be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Reverse tunnels: memory of thousands, the return of all at once, and other tunnels beside ours
    Tunnel,
}

/// Runs the benches and prints the table on standard output; everything else goes to standard error.
pub(crate) fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    let project = Project::load()?;
    let mut steps = Steps::default();
    let mut table = Table::default();
    if args.part == Some(Part::Tunnel) {
        if !args.no_build {
            let build = ["build", "--workspace", "--release", "--bins"];
            steps.command("release build", &mut project.cargo(&build))?;
        }
        steps.run("tunnels", || tunnel::measure(&project.bin_dir(), args.quick, &mut table))?;
        if let Some(peers) = &args.peers {
            steps.run("beside others", || tunnel::beside(&project.bin_dir(), peers, args.quick))?;
        }
        steps.report();
        println!("{}", table.to_markdown());
        return Ok(());
    }
    if !args.only_criterion {
        if !args.no_build {
            let build = ["build", "--workspace", "--release", "--bins"];
            steps.command("release build", &mut project.cargo(&build))?;
        }
        steps.run("whole processes", || compare(&project, args, &mut table))?;
        if !args.quick && !args.no_build {
            steps.run("agent alone", || size::measure(&project, false, None, &mut table))?;
        }
    }
    if !args.only_processes {
        steps.run("criterion", || criterion::measure(&project, args.quick, &mut table))?;
    }
    steps.report();
    println!("{}", table.to_markdown());
    Ok(())
}

fn compare(project: &Project, args: &BenchArgs, table: &mut Table) -> anyhow::Result<()> {
    let plan = if args.quick { Plan::QUICK } else { Plan::FULL };
    for program in ["remoteler", "tsh", "tctl"] {
        let size = size::mebibytes(&project.bin_dir().join(program))?;
        table.row("binary, stripped, MiB", program, number(size), "-");
    }
    let directory = shell::ScratchDir::new()?;
    measure::all(&project.bin_dir(), directory.path(), &plan, table)
}
