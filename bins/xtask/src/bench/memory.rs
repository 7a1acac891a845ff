//! What is held in memory: by daemons with nothing to do, by each idle tunnel, by each idle session.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context;

use super::{
    cluster::Cluster,
    figures::{Samples, Table, number, ratio},
    process::{memory, open_files, tree_pss},
    shell::ScratchDir,
    sshd::Sshd,
    ways,
};

/// What a session with a terminal, in which nothing happens, holds at the servers.
pub(super) fn idle_sessions(cluster: &Cluster, sshd: &Sshd, count: usize, table: &mut Table) -> anyhow::Result<()> {
    let mut stock = None;
    for way in ways::all(cluster, sshd).iter().take(3) {
        let held = |id: u32| tree_pss(id, &["sleep", "sh", "bash", "dash"]);
        let before = way.servers.iter().map(|id| held(*id)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut sessions = Sessions(Vec::new());
        for _ in 0..count {
            let mut client = (way.client)();
            // Options may stand after the host.
            client.args(["-tt", "echo up; exec sleep 1000"]);
            sessions.0.push(open(&mut client, way.name)?);
        }
        thread::sleep(Duration::from_secs(1));
        let after = way.servers.iter().map(|id| held(*id)).collect::<anyhow::Result<Vec<_>>>()?;
        let opened = count as f64;
        let each: Vec<f64> =
            before.iter().zip(&after).map(|(before, after)| (*after as f64 - *before as f64) / opened).collect();
        drop(sessions);
        let sum: f64 = each.iter().sum();
        let stock = *stock.get_or_insert(sum);
        let parts: Vec<String> = each.iter().map(|part| number(*part)).collect();
        table.row(
            "servers' memory per idle terminal session, KiB of PSS (each server)",
            way.name,
            format!("{} ({})", number(sum), parts.join(" + ")),
            format!("{} of stock sshd", ratio(sum, stock)),
        );
        // The next way begins when this one's sessions are gone.
        thread::sleep(Duration::from_secs(2));
    }
    Ok(())
}

/// Clients in the background. Killed when dropped.
struct Sessions(Vec<Child>);

impl Drop for Sessions {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a client and waits for the first line from the other side.
fn open(client: &mut Command, name: &str) -> anyhow::Result<Child> {
    let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stdout = child.stdout.take().with_context(|| format!("{name} has no output"))?;
    let mut line = String::new();
    let mut reader = BufReader::new(stdout);
    reader.read_line(&mut line)?;
    if !line.starts_with("up") {
        let _ = child.kill();
        let _ = child.wait();
        anyhow::bail!("{name} opened no session: {line:?}");
    }
    child.stdout = Some(reader.into_inner());
    Ok(child)
}

/// Resident memory of the daemons with nothing to do.
pub(super) fn idle_daemons(cluster: &Cluster, when: &str, table: &mut Table) -> anyhow::Result<()> {
    thread::sleep(Duration::from_secs(2));
    let daemons = [
        ("agent: node, one tunnel", cluster.edge.id(), "target < 15"),
        ("proxy", cluster.proxy.id(), "-"),
        ("auth and node", cluster.hub.id(), "-"),
    ];
    for (name, id, target) in daemons {
        let size = memory(id)?;
        let figure = format!("{} RSS, {} PSS", number(size.rss as f64 / 1024.0), number(size.pss as f64 / 1024.0));
        table.row(&format!("memory idle, {when}, MiB"), name, figure, target);
    }
    Ok(())
}

/// What each idle tunnel holds at the proxy and at the auth service: of many agents in one process, with their links alone or with the
/// calls that the daemon makes besides.
pub(super) fn idle_tunnels(cluster: &Cluster, count: usize, kept: Kept, table: &mut Table) -> anyhow::Result<()> {
    let servers = [("proxy", cluster.proxy.id()), ("auth", cluster.hub.id())];
    let look = || servers.map(|(_, id)| Ok::<_, anyhow::Error>((memory(id)?.rss, open_files(id)?)));
    thread::sleep(Duration::from_secs(2));
    let before = look();
    let held = cluster.hold_tunnels(count, kept)?;
    thread::sleep(Duration::from_secs(10));
    let after = look();
    drop(held);
    let what = format!("memory per idle tunnel, KiB of RSS, of {count} agents, {}", kept.shown());
    for (((name, _), before), after) in servers.into_iter().zip(before).zip(after) {
        let ((rss, files), (rss_after, files_after)) = (before?, after?);
        let each = |before: f64, after: f64| (after - before) / count as f64;
        let files = number(each(files as f64, files_after as f64));
        table.row(&what, name, number(each(rss as f64, rss_after as f64)), format!("{files} file descriptors"));
    }
    Ok(())
}

/// What each agent keeps open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Its link.
    Link,
    /// Its link, and a connection to the auth service for the rules and the heartbeat.
    LinkAndCalls,
}

impl Kept {
    fn shown(self) -> &'static str {
        match self {
            Self::Link => "links alone",
            Self::LinkAndCalls => "links and calls",
        }
    }
}

/// Resident memory in MiB of an agent of its own program with one tunnel, with nothing to do.
pub(crate) struct AgentMemory {
    cluster: Cluster,
    _scratch: ScratchDir,
}

impl AgentMemory {
    /// Starts a cluster of the programs in `bin_dir`.
    pub(crate) fn new(bin_dir: &Path) -> anyhow::Result<Self> {
        let scratch = ScratchDir::new()?;
        Ok(Self { cluster: Cluster::start(bin_dir, scratch.path())?, _scratch: scratch })
    }

    /// Of `program`, started as a node called `name`.
    pub(crate) fn of(&self, program: &Path, name: &str) -> anyhow::Result<f64> {
        let agent = self.cluster.agent_of(program, name)?;
        thread::sleep(Duration::from_secs(10));
        Ok(memory(agent.id())?.rss as f64 / 1024.0)
    }

    /// Of a program that is an agent by itself.
    pub(crate) fn of_embedded(&self, program: &Path, name: &str) -> anyhow::Result<f64> {
        let agent = self.cluster.agent_embedded(program, name)?;
        thread::sleep(Duration::from_secs(10));
        Ok(memory(agent.id())?.rss as f64 / 1024.0)
    }
}

/// What whole agents, daemons of their own, hold.
pub(super) fn idle_agents(cluster: &Cluster, count: usize, table: &mut Table) -> anyhow::Result<()> {
    let agents = cluster.agents(count)?;
    thread::sleep(Duration::from_secs(3));
    let mut sizes = Samples::default();
    for agent in &agents {
        sizes.push(memory(agent.id())?.rss as f64 / 1024.0);
    }
    let what = format!("memory idle, of {count} agents, MiB, median (quarters)");
    table.row(&what, "agent", sizes.shown(), "target < 15");
    Ok(())
}
