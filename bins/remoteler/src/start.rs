//! `remoteler start`: settings, runtime, signals.

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use remoteler_core::SSH_PARSER_STACK;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::StartArgs,
    config::{ConfigFile, Settings},
    daemon::Daemon,
    handover::Predecessor,
    logging, memory,
    notify::notify,
};

/// Read when no other is named.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/remoteler.yaml";

/// Runs the command until a signal ends it.
///
/// # Errors
/// The settings are wrong or a service does not start.
pub fn start(args: Box<StartArgs>) -> anyhow::Result<ExitCode> {
    let (file, settings) = settings(&args)?;
    logging::init(settings.log);
    if let Some(said) = unasked(&file, &args, &settings) {
        tracing::info!("{said}");
    }
    memory::give_back_what_is_free();
    // As it is now: by the time of a handover another program may lie there, and that is the one to start.
    let program = std::env::current_exe().context("this program's own path is not known")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(SSH_PARSER_STACK)
        .build()
        .context("no threads can be started")?;
    runtime.block_on(run(settings, args, &program))
}

/// What runs because nothing else was asked for: nobody should learn from a port scan that they run a cluster.
fn unasked(file: &ConfigFile, args: &StartArgs, settings: &Settings) -> Option<String> {
    if args.roles.is_some() || file.names_services() {
        return None;
    }
    let services: Vec<_> = settings.roles().into_iter().map(|role| role.to_string()).collect();
    let services = services.join(", ");
    if let Some(join) = &settings.join {
        return Some(format!("no services are named, so this process runs {services} and joins through {}", join.addr));
    }
    let on = args.listen_ip.map_or_else(|| "every address of this machine".to_owned(), |ip| ip.to_string());
    let narrower = if args.listen_ip.is_none() { ", --listen-ip 127.0.0.1 keeps it to this machine" } else { "" };
    Some(format!(
        "no services are named, so this process is a whole cluster: it runs {services} and listens on {on}; \
         `remoteler configure` prints a config file to choose from{narrower}"
    ))
}

fn settings(args: &StartArgs) -> anyhow::Result<(ConfigFile, Settings)> {
    let file = match &args.config {
        Some(path) => ConfigFile::read(path)?,
        None if Path::new(DEFAULT_CONFIG).exists() => ConfigFile::read(Path::new(DEFAULT_CONFIG))?,
        None => ConfigFile::default(),
    };
    let settings = Settings::new(file.clone(), args.flags())?;
    Ok((file, settings))
}

async fn run(started_with: Settings, args: Box<StartArgs>, program: &Path) -> anyhow::Result<ExitCode> {
    let drain_timeout = started_with.drain_timeout;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut make_way = signal(SignalKind::user_defined2())?;
    let before = if args.successor { Some(Predecessor::meet()?) } else { None };
    let mut stopping = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let daemon = tokio::select! {
        daemon = Daemon::start_after(started_with, before) => daemon?,
        () = stopping() => return Ok(ExitCode::SUCCESS),
    };
    notify("READY=1");
    loop {
        tokio::select! {
            () = stopping() => {
                notify("STOPPING=1");
                break;
            }
            _ = make_way.recv() => match daemon.hand_over(program).await {
                Ok(next) => {
                    // From now on the service manager watches that one.
                    notify(&format!("MAINPID={next}"));
                    tracing::info!(next, "the next process serves; this one ends with what it still carries");
                    break;
                }
                Err(cause) => {
                    tracing::error!(cause = crate::one_line(&cause), "no other process took over, this one goes on");
                }
            },
            _ = hangup.recv() => {
                notify("RELOADING=1");
                match settings(&args) {
                    Ok((_, settings)) => daemon.reload(settings),
                    Err(cause) => tracing::error!(cause = crate::one_line(&cause), "the new config is refused, the old one stays"),
                }
                notify("READY=1");
            }
        }
    }
    tracing::info!("draining for at most {} s; a second signal ends at once", drain_timeout.as_secs());
    tokio::select! {
        () = daemon.shutdown(drain_timeout) => {}
        () = stopping() => tracing::warn!("ended at once"),
    }
    Ok(ExitCode::SUCCESS)
}
