//! The daemon's parts: command line, config, the composition of services, drain, and the demo.
//! Policy lives in the crates below; here they are put together.

pub mod cli;
pub mod config;
pub mod configure;
#[cfg(feature = "server")]
pub mod demo;
pub mod start;
pub mod status;

mod daemon;
mod heartbeat;
mod host;
mod logging;
mod notify;
mod paths;
mod services;
mod status_board;
mod version;

pub use daemon::Daemon;
pub use version::{VERSION, version_line};

use std::process::ExitCode;

/// An error and its causes as one line, for the person at the terminal.
#[must_use]
pub fn one_line(cause: &anyhow::Error) -> String {
    let mut line = String::new();
    for part in cause.chain().map(ToString::to_string) {
        // Some libraries repeat their source in their own message.
        if line.contains(&part) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&part);
    }
    line.replace(['\n', '\r'], " ")
}

/// Body of `remoteler sftp-server`.
#[must_use]
pub fn sftp_server() -> ExitCode {
    match remoteler_ssh::sftp_serve_stdio() {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("remoteler sftp-server: {cause}");
            ExitCode::FAILURE
        }
    }
}
