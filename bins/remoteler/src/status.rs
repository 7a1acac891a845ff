//! `remoteler status`: reads the status of the daemon that uses a data directory.

use std::{io::Read, os::unix::net::UnixStream, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;

pub use crate::status_board::{DaemonStatus, TunnelStatus};
use crate::{
    cli::StatusArgs,
    config::{ConfigFile, Flags, Settings},
};

/// Runs the command.
///
/// # Errors
/// No daemon uses the data directory, or it does not answer.
pub fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let data_dir = match (&args.data_dir, &args.config) {
        (Some(dir), _) => dir.clone(),
        (None, Some(config)) => Settings::new(ConfigFile::read(config)?, Flags::default())?.data_dir,
        (None, None) => PathBuf::from("/var/lib/remoteler"),
    };
    let status = read_status(&data_dir)?;
    if args.format == "json" {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("Cluster:   {}", status.cluster);
    println!("Host:      {} ({})", status.nodename, status.host_id);
    println!("Version:   {}, process {}", status.version, status.pid);
    let roles: Vec<_> = status.roles.iter().map(ToString::to_string).collect();
    println!("Services:  {}{}", roles.join(", "), if status.ready { "" } else { " (starting)" });
    for (service, address) in &status.listeners {
        println!("Listening: {service} on {address}");
    }
    for (proxy, tunnel) in &status.tunnels {
        let reason = tunnel.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        println!("Tunnel:    {proxy} {} since {}{reason}", tunnel.state, tunnel.since);
    }
    Ok(ExitCode::SUCCESS)
}

/// The status of the daemon that uses `data_dir`.
///
/// # Errors
/// No daemon uses it, or it does not answer.
pub fn read_status(data_dir: &std::path::Path) -> anyhow::Result<DaemonStatus> {
    let socket = data_dir.join("status.sock");
    let mut stream = UnixStream::connect(&socket).with_context(|| {
        format!("no daemon runs with data directory {}; start one or name another with --data-dir", data_dir.display())
    })?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("the daemon did not answer")?;
    serde_json::from_str(&text).context("the daemon's answer was not understood; is it of another version?")
}
