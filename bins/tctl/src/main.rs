//! `tctl`, the administrator's tool. Parses, connects, asks, prints. Exit codes: 0 success, 1 failure, 2 wrong usage.

mod cli;
mod commands;
mod connect;
mod output;
mod secret_input;
mod usage;
mod yaml;

use std::{
    io::{ErrorKind, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;

use crate::cli::Cli;

fn main() -> ExitCode {
    let cli = match Cli::try_parse().and_then(Cli::checked) {
        Ok(cli) => cli,
        Err(refusal) => return usage::show("tctl", &refusal).into(),
    };
    // What answers is not trusted to be harmless to parse.
    let done = remoteler_client::on_parser_stack(|| run(cli)).context("no thread can be started");
    match done.flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            // That nobody reads it is no further failure.
            let _ = writeln!(std::io::stderr(), "tctl: {}", remoteler_core::printable(&format!("{cause:#}")));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let report = runtime.block_on(commands::run(&cli))?;
    print(&report.render(cli.printed())?)?;
    match report.failure() {
        None => Ok(()),
        Some(reason) => anyhow::bail!("{reason}"),
    }
}

/// A reader who has seen enough, such as `head`, is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(cause) if cause.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output cannot be written"),
    }
}
