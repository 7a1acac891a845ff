//! What is held in memory: by daemons with nothing to do, by each idle tunnel, by each idle session.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context;

use super::{
    cluster::Cluster,
    figures::{Samples, Table, number, ratio},
    process::{memory, tree_pss},
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

/// What each further tunnel holds at the proxy, by daemons of their own.
pub(super) fn idle_agents(cluster: &Cluster, count: usize, table: &mut Table) -> anyhow::Result<()> {
    let before = (memory(cluster.proxy.id())?, memory(cluster.hub.id())?);
    let agents = cluster.agents(count)?;
    thread::sleep(Duration::from_secs(3));
    let after = (memory(cluster.proxy.id())?, memory(cluster.hub.id())?);
    let mut sizes = Samples::default();
    for agent in &agents {
        sizes.push(memory(agent.id())?.rss as f64 / 1024.0);
    }
    let each = |before: u64, after: u64| (after as f64 - before as f64) / count as f64;
    let what = format!("memory per idle tunnel, KiB of RSS, of {} agents", count);
    table.row(&what, "proxy", number(each(before.0.rss, after.0.rss)), "-");
    table.row(&what, "auth", number(each(before.1.rss, after.1.rss)), "-");
    table.row("memory idle, of those agents, MiB, median (quarters)", "agent", sizes.shown(), "target < 15");
    Ok(())
}
