//! `cargo xtask`: the checks of this workspace. Parses, runs, reports; what a check is stands in the modules.

mod bench;
mod clients;
mod dist;
mod examples;
mod pages_clients;
mod project;
mod saml_clients;
mod size;
mod step;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Checks, tests and benches of this workspace
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = "Example: cargo xtask test")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install missing clients, then format, lint, build, test, document, run the examples and the demo
    #[command(after_help = "Example: cargo xtask test --fast")]
    Test(test::TestArgs),
    /// Measure: criterion's benches, and whole processes beside OpenSSH; prints one table
    #[command(after_help = "Example: cargo xtask bench > figures.md")]
    Bench(bench::BenchArgs),
    /// Build each kind of agent as packages have it; prints their sizes
    #[command(after_help = "Example: cargo xtask size")]
    Size(size::SizeArgs),
    /// Build static agents and tools for Linux; archives and checksums are in target/dist
    #[command(after_help = "Example: cargo xtask dist --arch aarch64")]
    Dist(dist::DistArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Test(args) => test::test(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Size(args) => size::size(&args),
        Command::Dist(args) => dist::dist(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("xtask: {cause:#}");
            ExitCode::FAILURE
        }
    }
}
