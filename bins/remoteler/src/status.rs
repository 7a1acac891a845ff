//! `remoteler status`: reads the status of the daemon that uses a data directory.

use std::{
    io::Read,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;

pub use crate::status_board::{DaemonStatus, TunnelStatus};
use crate::{
    cli::{Format, StatusArgs},
    config::{ConfigFile, Flags, Settings, to_yaml},
    start::DEFAULT_CONFIG,
};

/// Runs the command.
///
/// # Errors
/// No daemon uses the data directory, or it does not answer.
pub fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let data_dir = match (&args.data_dir, &args.config) {
        (Some(dir), _) => dir.clone(),
        (None, Some(config)) => configured(config)?,
        (None, None) if Path::new(DEFAULT_CONFIG).exists() => configured(Path::new(DEFAULT_CONFIG))?,
        (None, None) => PathBuf::from("/var/lib/remoteler"),
    };
    let status = read_status(&data_dir)?;
    crate::print(&match args.format {
        Format::Json => serde_json::to_string_pretty(&status)? + "\n",
        Format::Yaml => to_yaml(&status)?,
        Format::Text => text(&status),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn configured(config: &Path) -> anyhow::Result<PathBuf> {
    Ok(Settings::new(ConfigFile::read(config)?, Flags::default())?.data_dir)
}

fn text(status: &DaemonStatus) -> String {
    let roles: Vec<_> = status.roles.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        format!("Cluster:   {}", status.cluster),
        format!("Host:      {} ({})", status.nodename, status.host_id),
        format!("Version:   {}, process {}", status.version, status.pid),
        format!("Services:  {}{}", roles.join(", "), if status.ready { "" } else { " (starting)" }),
    ];
    lines.extend(status.listeners.iter().map(|(service, address)| format!("Listening: {service} on {address}")));
    lines.extend(status.tunnels.iter().map(|(proxy, tunnel)| {
        let reason = tunnel.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("Tunnel:    {proxy} {} since {}{reason}", tunnel.state, tunnel.since)
    }));
    lines.extend(status.locked.iter().map(|reason| format!("Locked:    {reason}")));
    lines.extend(status.shut_out.iter().map(|reason| format!("Shut out:  {reason}")));
    lines.iter().map(|line| remoteler_core::printable(line) + "\n").collect()
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
