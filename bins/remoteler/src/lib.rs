//! The daemon's parts: command line, config, the composition of services, drain, and the demo.
//! Policy lives in the crates below; here they are put together.

pub mod cli;
pub mod config;
pub mod configure;
#[cfg(feature = "server")]
pub mod demo;
pub mod rejoin;
pub mod start;
pub mod status;
pub mod usage;

mod daemon;
mod handover;
mod heartbeat;
mod host;
mod logging;
mod memory;
mod notify;
mod paths;
mod services;
mod status_board;
mod version;

pub use daemon::Daemon;
pub use handover::Predecessor;
pub use version::{VERSION, version_line};

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;

/// An error and its causes as one line, for the person at the terminal.
#[must_use]
pub fn one_line(cause: &anyhow::Error) -> String {
    remoteler_core::with_causes(AsRef::<dyn std::error::Error>::as_ref(cause))
}

/// Prints a result. A reader who has seen enough, such as `head`, is no failure.
///
/// # Errors
/// Standard output cannot be written for another reason.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output cannot be written"),
    }
}

/// A line on standard error. That nobody reads it is no failure.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Body of `remoteler sftp-server`.
#[must_use]
pub fn sftp_server() -> ExitCode {
    match remoteler_ssh::sftp_serve_stdio() {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            say(&format!("remoteler sftp-server: {cause}"));
            ExitCode::FAILURE
        }
    }
}
