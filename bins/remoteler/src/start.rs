//! `remoteler start`: settings, runtime, signals.

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use remoteler_core::SSH_PARSER_STACK;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::StartArgs,
    config::{ConfigFile, Settings},
    daemon::Daemon,
    logging,
    notify::notify,
};

/// Read when no other is named.
const DEFAULT_CONFIG: &str = "/etc/remoteler.yaml";

/// Runs the command until a signal ends it.
///
/// # Errors
/// The settings are wrong or a service does not start.
pub fn start(args: Box<StartArgs>) -> anyhow::Result<ExitCode> {
    let settings = settings(&args)?;
    logging::init(settings.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(SSH_PARSER_STACK)
        .build()
        .context("no threads can be started")?;
    runtime.block_on(run(settings, args))
}

fn settings(args: &StartArgs) -> anyhow::Result<Settings> {
    let file = match &args.config {
        Some(path) => ConfigFile::read(path)?,
        None if Path::new(DEFAULT_CONFIG).exists() => ConfigFile::read(Path::new(DEFAULT_CONFIG))?,
        None => ConfigFile::default(),
    };
    Ok(Settings::new(file, args.flags())?)
}

async fn run(started_with: Settings, args: Box<StartArgs>) -> anyhow::Result<ExitCode> {
    let drain_timeout = started_with.drain_timeout;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut stopping = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let daemon = tokio::select! {
        daemon = Daemon::start(started_with) => daemon?,
        () = stopping() => return Ok(ExitCode::SUCCESS),
    };
    notify("READY=1");
    loop {
        tokio::select! {
            () = stopping() => break,
            _ = hangup.recv() => {
                notify("RELOADING=1");
                match settings(&args) {
                    Ok(settings) => daemon.reload(settings),
                    Err(cause) => tracing::error!(cause = crate::one_line(&cause), "the new config is refused, the old one stays"),
                }
                notify("READY=1");
            }
        }
    }
    notify("STOPPING=1");
    tracing::info!("draining for at most {} s; a second signal ends at once", drain_timeout.as_secs());
    tokio::select! {
        () = daemon.shutdown(drain_timeout) => {}
        () = stopping() => tracing::warn!("ended at once"),
    }
    Ok(ExitCode::SUCCESS)
}
