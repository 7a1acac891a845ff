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
    remoteler_core::with_causes(AsRef::<dyn std::error::Error>::as_ref(cause))
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
