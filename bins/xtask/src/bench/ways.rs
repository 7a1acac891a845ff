//! The ways to a shell that are compared: the client's command and the processes that serve it.

use std::{
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};

use super::{cluster::Cluster, process::cpu, sshd::Sshd};

/// A way to a shell.
pub(super) struct Way<'a> {
    pub(super) name: &'static str,
    /// The client with its options, up to the host.
    pub(super) client: Box<dyn Fn() -> Command + 'a>,
    /// Processes that serve it.
    pub(super) servers: Vec<u32>,
}

/// All of them, stock sshd first.
pub(super) fn all<'a>(cluster: &'a Cluster, sshd: &'a Sshd) -> Vec<Way<'a>> {
    let (hub, proxy, edge) = (cluster.hub.id(), cluster.proxy.id(), cluster.edge.id());
    let ssh = move |host: &'static str| {
        move || {
            let mut command = cluster.ssh();
            command.arg(host);
            command
        }
    };
    let tsh = move |host: &'static str| {
        move || {
            let mut command = cluster.tsh();
            command.args(["ssh", host]);
            command
        }
    };
    vec![
        stock_with(sshd, "ssh, stock sshd direct", &[]),
        Way { name: "ssh, proxy", client: Box::new(ssh(Cluster::DIRECT)), servers: vec![hub, proxy] },
        Way { name: "ssh, proxy + tunnel", client: Box::new(ssh(Cluster::EDGE)), servers: vec![hub, proxy, edge] },
        Way { name: "tsh ssh, proxy", client: Box::new(tsh(Cluster::DIRECT)), servers: vec![hub, proxy] },
        Way { name: "tsh ssh, proxy + tunnel", client: Box::new(tsh(Cluster::EDGE)), servers: vec![hub, proxy, edge] },
    ]
}

/// Stock sshd with options for the client.
pub(super) fn stock_with<'a>(sshd: &'a Sshd, name: &'static str, options: &'static [&'static str]) -> Way<'a> {
    let client = move || {
        let mut command = sshd.ssh();
        command.args(options).arg(Sshd::HOST);
        command
    };
    Way { name, client: Box::new(client), servers: vec![sshd.daemon.id()] }
}

/// Runs a client to its end.
pub(super) fn run(command: &mut Command, name: &str) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.with_context(|| format!("{name} does not start"))?;
    ensure!(
        output.status.success(),
        "{name} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// What the servers of a way have used so far.
pub(super) fn cpu_of(servers: &[u32]) -> anyhow::Result<Duration> {
    servers.iter().map(|id| cpu(*id)).sum()
}

/// A session's end is worked off a moment after its client has gone.
pub(super) fn settle() {
    thread::sleep(Duration::from_millis(60));
}
