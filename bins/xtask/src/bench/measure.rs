//! The measurements of whole processes. All paths are up at once and each round measures each of them, so that what the machine does
//! meanwhile hits all alike. CPU is user and system time of all processes of a path, the client included.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use super::{
    cluster::Cluster,
    figures::{Samples, Table, number, ratio},
    process::{cpu, cpu_of_ended_children, memory, tree_pss},
    sshd::Sshd,
};

/// How much is measured.
#[derive(Debug)]
pub(super) struct Plan {
    rounds: usize,
    runs_per_round: usize,
    bulk_rounds: usize,
    bulk_mebibytes: u64,
    idle_agents: usize,
    idle_sessions: usize,
    new_sessions: usize,
}

impl Plan {
    pub(super) const FULL: Self = Self {
        rounds: 9,
        runs_per_round: 6,
        bulk_rounds: 5,
        bulk_mebibytes: 512,
        idle_agents: 50,
        idle_sessions: 100,
        new_sessions: 120,
    };
    pub(super) const QUICK: Self = Self {
        rounds: 2,
        runs_per_round: 3,
        bulk_rounds: 1,
        bulk_mebibytes: 64,
        idle_agents: 4,
        idle_sessions: 10,
        new_sessions: 16,
    };
}

/// A way to a shell.
struct Way<'a> {
    name: &'static str,
    /// The client with its options, up to the host.
    client: Box<dyn Fn() -> Command + 'a>,
    /// Processes that serve it.
    servers: Vec<u32>,
}

/// Measures everything.
pub(super) fn all(cluster: &mut Cluster, sshd: &Sshd, plan: &Plan, table: &mut Table) -> anyhow::Result<()> {
    idle_daemons(cluster, "just started", table)?;
    {
        let paths = paths(cluster, sshd);
        let base = exec_true(&paths, plan, table)?;
        new_sessions(&paths, plan, table)?;
        bulk(cluster, sshd, &base, plan, table)?;
        idle_sessions(cluster, sshd, plan, table)?;
    }
    idle_daemons(cluster, "after all of the above", table)?;
    idle_agents(cluster, plan, table)?;
    for daemon in [&mut cluster.hub, &mut cluster.proxy, &mut cluster.edge] {
        daemon.check()?;
    }
    Ok(())
}

fn paths<'a>(cluster: &'a Cluster, sshd: &'a Sshd) -> Vec<Way<'a>> {
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
    let stock = || {
        let mut command = sshd.ssh();
        command.arg(Sshd::HOST);
        command
    };
    vec![
        Way { name: STOCK, client: Box::new(stock), servers: vec![sshd.daemon.id()] },
        Way { name: "ssh, proxy", client: Box::new(ssh(Cluster::DIRECT)), servers: vec![hub, proxy] },
        Way { name: "ssh, proxy + tunnel", client: Box::new(ssh(Cluster::EDGE)), servers: vec![hub, proxy, edge] },
        Way { name: "tsh ssh, proxy", client: Box::new(tsh(Cluster::DIRECT)), servers: vec![hub, proxy] },
        Way { name: "tsh ssh, proxy + tunnel", client: Box::new(tsh(Cluster::EDGE)), servers: vec![hub, proxy, edge] },
    ]
}

const STOCK: &str = "ssh, stock sshd direct";

/// `ssh host true`: time to finish and CPU. Gives the median seconds of each path.
fn exec_true(paths: &[Way<'_>], plan: &Plan, table: &mut Table) -> anyhow::Result<Vec<f64>> {
    let mut times = vec![Samples::default(); paths.len()];
    let mut servers = vec![Duration::ZERO; paths.len()];
    let mut clients = vec![Duration::ZERO; paths.len()];
    for path in paths {
        run((path.client)().arg("true"), path.name)?;
    }
    for _ in 0..plan.rounds {
        for (index, path) in paths.iter().enumerate() {
            let (server, client) = (cpu_of(&path.servers)?, cpu_of_ended_children()?);
            for _ in 0..plan.runs_per_round {
                let start = Instant::now();
                run((path.client)().arg("true"), path.name)?;
                slot(&mut times, index)?.push(start.elapsed().as_secs_f64() * 1e3);
            }
            settle();
            *slot(&mut servers, index)? += cpu_of(&path.servers)?.saturating_sub(server);
            *slot(&mut clients, index)? += cpu_of_ended_children()?.saturating_sub(client);
        }
    }
    let count = (plan.rounds * plan.runs_per_round) as f64;
    let each = |total: &Duration| total.as_secs_f64() * 1e3 / count;
    let stock = times.first().map(Samples::median).unwrap_or_default();
    for (path, times) in paths.iter().zip(&times) {
        let beside = format!("{} of stock sshd", ratio(times.median(), stock));
        table.row("`HOST true`, ms to finish, median (quarters)", path.name, times.shown(), beside);
    }
    let all: Vec<f64> = servers.iter().zip(&clients).map(|(server, client)| each(server) + each(client)).collect();
    let stock = all.first().copied().unwrap_or_default();
    for (((path, server), client), sum) in paths.iter().zip(&servers).zip(&clients).zip(&all) {
        let figure = format!("{} ({} + {})", number(*sum), number(each(client)), number(each(server)));
        table.row(
            "`HOST true`, CPU ms (client + servers)",
            path.name,
            figure,
            format!("{} of stock sshd", ratio(*sum, stock)),
        );
    }
    Ok(times.iter().map(|times| times.median() / 1e3).collect())
}

/// Sessions opened by four clients at once.
fn new_sessions(paths: &[Way<'_>], plan: &Plan, table: &mut Table) -> anyhow::Result<()> {
    const AT_ONCE: usize = 4;
    let mut stock = None;
    for path in paths {
        let server = cpu_of(&path.servers)?;
        let commands: Vec<Vec<Command>> =
            (0..AT_ONCE).map(|_| (0..plan.new_sessions / AT_ONCE).map(|_| (path.client)()).collect()).collect();
        let count = commands.iter().map(Vec::len).sum::<usize>() as f64;
        let start = Instant::now();
        thread::scope(|scope| {
            let worker = |commands: Vec<Command>| {
                scope
                    .spawn(move || commands.into_iter().try_for_each(|mut command| run(command.arg("true"), path.name)))
            };
            let workers: Vec<_> = commands.into_iter().map(worker).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
        })?;
        let rate = count / start.elapsed().as_secs_f64();
        settle();
        let each = cpu_of(&path.servers)?.saturating_sub(server).as_secs_f64() * 1e3 / count;
        let stock = *stock.get_or_insert(rate);
        let figure = format!("{} ({} ms of server CPU each)", number(rate), number(each));
        table.row(
            "new sessions a second, 4 clients at once",
            path.name,
            figure,
            format!("{} of stock sshd", ratio(rate, stock)),
        );
    }
    Ok(())
}

/// Bulk transfer without the time to connect.
fn bulk(cluster: &Cluster, sshd: &Sshd, base: &[f64], plan: &Plan, table: &mut Table) -> anyhow::Result<()> {
    let gcm = |path: &mut Way<'_>| path.name = "ssh -c aes128-gcm, stock sshd direct";
    let mut all = paths(cluster, sshd);
    let mut stock = paths(cluster, sshd).into_iter().take(1).collect::<Vec<_>>();
    stock.iter_mut().for_each(gcm);
    if let Some(path) = stock.first_mut() {
        path.client = Box::new(|| {
            let mut command = sshd.ssh();
            command.args(["-c", "aes128-gcm@openssh.com", Sshd::HOST]);
            command
        });
    }
    all.append(&mut stock);
    let source = std::env::temp_dir().join(format!("rt-bench-{}", std::process::id())).join("zeros");
    let octets = plan.bulk_mebibytes << 20;
    std::fs::File::create(&source)?.set_len(octets)?;
    for (direction, up) in [("up", true), ("down", false)] {
        let mut rates = vec![Samples::default(); all.len()];
        let mut used = vec![Duration::ZERO; all.len()];
        for _ in 0..plan.bulk_rounds {
            for (index, path) in all.iter().enumerate() {
                let before = cpu_of(&path.servers)? + cpu_of_ended_children()?;
                let start = Instant::now();
                transfer((path.client)(), up, &source, octets, path.name)?;
                let connect = base.get(index).or(base.first()).copied().unwrap_or_default();
                let seconds = (start.elapsed().as_secs_f64() - connect).max(1e-3);
                slot(&mut rates, index)?.push(plan.bulk_mebibytes as f64 / seconds);
                settle();
                *slot(&mut used, index)? += (cpu_of(&path.servers)? + cpu_of_ended_children()?).saturating_sub(before);
            }
        }
        let gibibytes = (plan.bulk_rounds as u64 * plan.bulk_mebibytes) as f64 / 1024.0;
        let stock = rates.first().map(Samples::median).unwrap_or_default();
        for ((path, rates), used) in all.iter().zip(&rates).zip(&used) {
            let figure = format!("{}, {} CPU s/GiB", rates.shown(), number(used.as_secs_f64() / gibibytes));
            let beside = format!("{} of stock sshd", ratio(rates.median(), stock));
            table.row(&format!("bulk {direction}, MiB/s, median (quarters)"), path.name, figure, beside);
        }
    }
    Ok(())
}

fn transfer(mut client: Command, up: bool, source: &Path, octets: u64, name: &str) -> anyhow::Result<()> {
    if up {
        let mut child = client
            .arg("cat > /dev/null")
            .stdin(std::fs::File::open(source)?)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        let status = child.wait()?;
        ensure!(status.success(), "bulk by {name} ended with {status}");
        return Ok(());
    }
    run(client.arg(format!("head -c {octets} /dev/zero")), name)
}

/// What a session with a terminal, in which nothing happens, holds at the servers.
fn idle_sessions(cluster: &Cluster, sshd: &Sshd, plan: &Plan, table: &mut Table) -> anyhow::Result<()> {
    let mut stock = None;
    for path in paths(cluster, sshd).iter().take(3) {
        let held = |id: u32| tree_pss(id, &["sleep", "sh", "bash", "dash"]);
        let before = path.servers.iter().map(|id| held(*id)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut sessions = Sessions(Vec::new());
        for _ in 0..plan.idle_sessions {
            let mut client = (path.client)();
            // Options may stand after the host.
            client.args(["-tt", "echo up; exec sleep 1000"]);
            sessions.0.push(open(&mut client, path.name)?);
        }
        thread::sleep(Duration::from_secs(1));
        let after = path.servers.iter().map(|id| held(*id)).collect::<anyhow::Result<Vec<_>>>()?;
        let count = plan.idle_sessions as f64;
        let each: Vec<f64> =
            before.iter().zip(&after).map(|(before, after)| (*after as f64 - *before as f64) / count).collect();
        drop(sessions);
        let sum: f64 = each.iter().sum();
        let stock = *stock.get_or_insert(sum);
        let parts: Vec<String> = each.iter().map(|part| number(*part)).collect();
        table.row(
            "servers' memory per idle terminal session, KiB of PSS (each server)",
            path.name,
            format!("{} ({})", number(sum), parts.join(" + ")),
            format!("{} of stock sshd", ratio(sum, stock)),
        );
        // The next path begins when this one's sessions are gone.
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
fn idle_daemons(cluster: &Cluster, when: &str, table: &mut Table) -> anyhow::Result<()> {
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
fn idle_agents(cluster: &Cluster, plan: &Plan, table: &mut Table) -> anyhow::Result<()> {
    let before = (memory(cluster.proxy.id())?, memory(cluster.hub.id())?);
    let agents = cluster.agents(plan.idle_agents)?;
    thread::sleep(Duration::from_secs(3));
    let after = (memory(cluster.proxy.id())?, memory(cluster.hub.id())?);
    let mut sizes = Samples::default();
    for agent in &agents {
        sizes.push(memory(agent.id())?.rss as f64 / 1024.0);
    }
    let each = |before: u64, after: u64| (after as f64 - before as f64) / plan.idle_agents as f64;
    let what = format!("memory per idle tunnel, KiB of RSS, of {} agents", plan.idle_agents);
    table.row(&what, "proxy", number(each(before.0.rss, after.0.rss)), "-");
    table.row(&what, "auth", number(each(before.1.rss, after.1.rss)), "-");
    table.row("memory idle, of those agents, MiB, median (quarters)", "agent", sizes.shown(), "target < 15");
    Ok(())
}

fn run(command: &mut Command, name: &str) -> anyhow::Result<()> {
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

fn cpu_of(servers: &[u32]) -> anyhow::Result<Duration> {
    servers.iter().map(|id| cpu(*id)).sum()
}

/// A session's end is worked off a moment after its client has gone.
fn settle() {
    thread::sleep(Duration::from_millis(60));
}

fn slot<T>(list: &mut [T], index: usize) -> anyhow::Result<&mut T> {
    list.get_mut(index).context("there is a place for each path")
}
