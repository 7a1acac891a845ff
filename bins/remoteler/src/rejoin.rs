//! `remoteler rejoin`: makes this machine the host of its cluster again that it was, after it was shut out: it proves with its SSH host
//! key which host it is, and a fresh token lets it in. A daemon that runs meanwhile takes the new state over. Starts no service.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, bail};
use remoteler_client::{HostClock, HostState, PendingKeys, RejoinParams, rejoin as join_again};
use remoteler_core::printable;
use serde::Serialize;

use crate::{
    cli::{Format, RejoinArgs},
    config::{ConfigFile, Flags, JoinSettings, Settings, to_yaml},
    paths::PEER,
    start::DEFAULT_CONFIG,
    status::read_status,
};

/// What the machine is afterwards, as `--format json` prints it.
#[derive(Debug, Serialize)]
struct Rejoined {
    cluster: String,
    nodename: String,
    host_id: String,
    /// Whether a daemon runs that takes this over; otherwise the next start does.
    daemon_runs: bool,
}

/// Runs the command.
///
/// # Errors
/// This machine never joined, runs the auth service itself, or is not taken back; nothing has changed then.
pub fn rejoin(args: &RejoinArgs) -> anyhow::Result<ExitCode> {
    let settings = settings(args)?;
    let Some(JoinSettings { addr, token: Some(token), ca_pins, insecure, service_account: _ }) = settings.join else {
        bail!(
            "no auth service or proxy is named and this machine joined through none; give --auth-server HOST:PORT, but not where the \
             auth service itself runs: that host gets its certificates at each start"
        );
    };
    let data_dir = settings.data_dir;
    let Some(state) = HostState::load(&data_dir)? else {
        bail!("data directory {} holds no host; join with `remoteler start`", data_dir.display());
    };
    let new_keys =
        if args.new_keys { Some(PendingKeys::load_or_make(&data_dir, state.node_name().as_str())?) } else { None };
    let params = RejoinParams { addr, token: token.read()?, ca_pins, insecure, new_keys };
    if params.ca_pins.is_empty() && params.insecure {
        crate::say("remoteler: rejoining without a CA pin: whoever answers is believed");
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no threads can be started")?;
    let joined = runtime
        .block_on(join_again(&state, params, &HostClock::not_before(state.written())))
        .context("this host was not taken back; a fresh token and the pin as it is now come from `tctl tokens add`")?;
    joined.save_rejoined(&data_dir)?;
    PendingKeys::forget(&data_dir)?;
    let done = Rejoined {
        cluster: joined.cluster_name().to_string(),
        nodename: joined.node_name().to_string(),
        host_id: joined.host_id().to_string(),
        daemon_runs: read_status(&data_dir).is_ok(),
    };
    crate::print(&match args.format {
        Format::Json => serde_json::to_string_pretty(&done)? + "\n",
        Format::Yaml => to_yaml(&done)?,
        Format::Text => text(&done),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn settings(args: &RejoinArgs) -> anyhow::Result<Settings> {
    let file = match &args.config {
        Some(path) => ConfigFile::read(path)?,
        None if args.data_dir.is_none() && Path::new(DEFAULT_CONFIG).exists() => {
            ConfigFile::read(Path::new(DEFAULT_CONFIG))?
        }
        None => ConfigFile::default(),
    };
    let mut flags = Flags {
        data_dir: args.data_dir.clone(),
        auth_server: args.auth_server.clone(),
        token: Some(args.token.clone()),
        ca_pins: args.ca_pin.clone(),
        insecure: args.insecure,
        ..Flags::default()
    };
    if flags.auth_server.is_none() && file.remoteler.auth_server.is_none() {
        // Neither flag nor file: the address that it joined through, which stands beside its state.
        let probe = Flags { roles: Some(Vec::from([remoteler_core::SystemRole::Auth])), ..flags.clone() };
        let data_dir = Settings::new(file.clone(), probe)?.data_dir;
        flags.auth_server = joined_through(&data_dir);
    }
    Ok(Settings::new(file, flags)?)
}

fn joined_through(data_dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(data_dir.join(PEER)).ok()?;
    let (_, addr) = text.trim().split_once(' ')?;
    Some(addr.to_owned())
}

fn text(done: &Rejoined) -> String {
    let Rejoined { cluster, nodename, host_id, daemon_runs } = done;
    let next = if *daemon_runs {
        "The daemon that runs here takes the new certificates over within half a minute."
    } else {
        "Start the daemon as before; it needs no token."
    };
    printable(&format!("This machine is host {nodename} ({host_id}) of cluster {cluster} again. {next}")) + "\n"
}
