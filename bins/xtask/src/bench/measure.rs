//! The measurements of whole processes. All ways are up at once and each round measures each of them, so that what the machine does
//! meanwhile hits all alike. CPU is user and system time of all processes of a way, the client included.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use super::{
    cluster::Cluster,
    figures::{Samples, Table, number, ratio},
    memory::{self, Kept},
    process::cpu_of_ended_children,
    shell::quiet_shell,
    sshd::Sshd,
    ways::{self, Way, cpu_of, run, settle},
};

/// How much is measured.
#[derive(Debug)]
pub(super) struct Plan {
    rounds: usize,
    runs_per_round: usize,
    bulk_rounds: usize,
    bulk_mebibytes: u64,
    idle_agents: usize,
    idle_tunnels: usize,
    idle_sessions: usize,
    new_sessions: usize,
}

impl Plan {
    pub(super) const FULL: Self = Self {
        rounds: 9,
        runs_per_round: 6,
        bulk_rounds: 5,
        bulk_mebibytes: 512,
        idle_agents: 8,
        idle_tunnels: 1000,
        idle_sessions: 100,
        new_sessions: 60,
    };
    pub(super) const QUICK: Self = Self {
        rounds: 2,
        runs_per_round: 3,
        bulk_rounds: 1,
        bulk_mebibytes: 64,
        idle_agents: 2,
        idle_tunnels: 50,
        idle_sessions: 10,
        new_sessions: 16,
    };
}

/// Measures everything. Each kind of memory is measured on daemons that have done nothing else yet: what a process has freed it takes
/// again first, so that later sessions and tunnels would seem to cost nothing.
pub(super) fn all(bin: &Path, dir: &Path, plan: &Plan, table: &mut Table) -> anyhow::Result<()> {
    shell_start(plan, table)?;
    {
        let cluster = Cluster::start(bin, &subdirectory(dir, "1")?)?;
        memory::idle_daemons(&cluster, "just started", table)?;
        memory::idle_tunnels(&cluster, plan.idle_tunnels, Kept::Link, table)?;
    }
    {
        let cluster = Cluster::start(bin, &subdirectory(dir, "calls")?)?;
        memory::idle_tunnels(&cluster, plan.idle_tunnels, Kept::LinkAndCalls, table)?;
        memory::idle_agents(&cluster, plan.idle_agents, table)?;
    }
    let mut cluster = Cluster::start(bin, &subdirectory(dir, "2")?)?;
    let mut sshd = Sshd::start(&cluster)?;
    memory::idle_sessions(&cluster, &sshd, plan.idle_sessions, table)?;
    let mut ways = ways::all(&cluster, &sshd);
    // OpenSSH's own default is a key exchange that resists quantum computers and costs the client most of its time.
    let classical = "ssh with curve25519, stock sshd direct";
    ways.push(ways::stock_with(&sshd, classical, &["-o", "KexAlgorithms=curve25519-sha256"]));
    let base = exec_true(&ways, plan, table)?;
    new_sessions(&ways, plan, table)?;
    drop(ways);
    bulk(&cluster, &sshd, &base, plan, table)?;
    memory::idle_daemons(&cluster, "after all of the above", table)?;
    for daemon in [&mut cluster.hub, &mut cluster.proxy, &mut cluster.edge, &mut sshd.daemon] {
        daemon.check()?;
    }
    Ok(())
}

fn subdirectory(dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join(name);
    fs::create_dir(&path).with_context(|| format!("{} cannot be made", path.display()))?;
    Ok(path)
}

/// How long the user's shell takes by itself, which is part of every session on every way.
fn shell_start(plan: &Plan, table: &mut Table) -> anyhow::Result<()> {
    let shell = env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let mut times = Samples::default();
    for _ in 0..plan.rounds * plan.runs_per_round {
        let mut command = Command::new(&shell);
        // By this bash knows that it runs in a session of SSH, and reads ~/.bashrc.
        command.args(["-c", "true"]).env("SSH_CLIENT", "127.0.0.1 1 1").env("SHLVL", "0");
        let start = Instant::now();
        run(&mut quiet_shell(command), "the shell")?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    table.row("the shell's own start, ms, median (quarters)", "no SSH", times.shown(), "part of each figure below");
    Ok(())
}

/// `ssh host true`: time to finish and CPU. Gives the median seconds of each way.
fn exec_true(ways: &[Way<'_>], plan: &Plan, table: &mut Table) -> anyhow::Result<Vec<f64>> {
    let mut times = vec![Samples::default(); ways.len()];
    let mut servers = vec![Duration::ZERO; ways.len()];
    let mut clients = vec![Duration::ZERO; ways.len()];
    for way in ways {
        run((way.client)().arg("true"), way.name)?;
    }
    for _ in 0..plan.rounds {
        for (index, way) in ways.iter().enumerate() {
            let (server, client) = (cpu_of(&way.servers)?, cpu_of_ended_children()?);
            for _ in 0..plan.runs_per_round {
                let start = Instant::now();
                run((way.client)().arg("true"), way.name)?;
                slot(&mut times, index)?.push(start.elapsed().as_secs_f64() * 1e3);
            }
            settle();
            *slot(&mut servers, index)? += cpu_of(&way.servers)?.saturating_sub(server);
            *slot(&mut clients, index)? += cpu_of_ended_children()?.saturating_sub(client);
        }
    }
    let count = (plan.rounds * plan.runs_per_round) as f64;
    let each = |total: &Duration| total.as_secs_f64() * 1e3 / count;
    let stock = times.first().map(Samples::median).unwrap_or_default();
    for (way, times) in ways.iter().zip(&times) {
        let beside = format!("{} of stock sshd", ratio(times.median(), stock));
        table.row("`HOST true`, ms to finish, median (quarters)", way.name, times.shown(), beside);
    }
    let all: Vec<f64> = servers.iter().zip(&clients).map(|(server, client)| each(server) + each(client)).collect();
    let stock = all.first().copied().unwrap_or_default();
    for (((way, server), client), sum) in ways.iter().zip(&servers).zip(&clients).zip(&all) {
        let figure = format!("{} ({} + {})", number(*sum), number(each(client)), number(each(server)));
        table.row(
            "`HOST true`, CPU ms (client + servers)",
            way.name,
            figure,
            format!("{} of stock sshd", ratio(*sum, stock)),
        );
    }
    Ok(times.iter().map(|times| times.median() / 1e3).collect())
}

/// Sessions opened by four clients at once.
fn new_sessions(ways: &[Way<'_>], plan: &Plan, table: &mut Table) -> anyhow::Result<()> {
    let mut rates = vec![Samples::default(); ways.len()];
    let mut used = vec![Duration::ZERO; ways.len()];
    for _ in 0..plan.bulk_rounds {
        for (index, way) in ways.iter().enumerate() {
            let before = cpu_of(&way.servers)?;
            slot(&mut rates, index)?.push(plan.new_sessions as f64 / open_at_once(way, plan.new_sessions)?);
            settle();
            *slot(&mut used, index)? += cpu_of(&way.servers)?.saturating_sub(before);
        }
    }
    let count = (plan.bulk_rounds * plan.new_sessions) as f64;
    let stock = rates.first().map(Samples::median).unwrap_or_default();
    for ((way, rates), used) in ways.iter().zip(&rates).zip(&used) {
        let figure = format!("{}, {} ms of server CPU each", rates.shown(), number(used.as_secs_f64() * 1e3 / count));
        let beside = format!("{} of stock sshd", ratio(rates.median(), stock));
        table.row("new sessions a second, 4 clients at once, median (quarters)", way.name, figure, beside);
    }
    Ok(())
}

/// Runs `count` times `true`, four at a time; the seconds it took.
fn open_at_once(way: &Way<'_>, count: usize) -> anyhow::Result<f64> {
    const AT_ONCE: usize = 4;
    let name = way.name;
    let mut queues: Vec<Vec<Command>> = (0..AT_ONCE).map(|_| Vec::new()).collect();
    for index in 0..count {
        slot(&mut queues, index % AT_ONCE)?.push((way.client)());
    }
    let start = Instant::now();
    thread::scope(|scope| {
        let worker = |queue: Vec<Command>| {
            scope.spawn(move || queue.into_iter().try_for_each(|mut command| run(command.arg("true"), name)))
        };
        let workers: Vec<_> = queues.into_iter().map(worker).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })?;
    Ok(start.elapsed().as_secs_f64())
}

/// Bulk transfer without the time to connect.
fn bulk(cluster: &Cluster, sshd: &Sshd, base: &[f64], plan: &Plan, table: &mut Table) -> anyhow::Result<()> {
    let mut all = ways::all(cluster, sshd);
    let base = base.get(..all.len()).unwrap_or(base);
    all.push(ways::stock_with(sshd, "ssh -c aes128-gcm, stock sshd direct", &["-c", "aes128-gcm@openssh.com"]));
    let source = cluster.dir().join("zeros");
    fs::File::create(&source)?.set_len(plan.bulk_mebibytes << 20)?;
    for (direction, up) in [("up", true), ("down", false)] {
        let mut rates = vec![Samples::default(); all.len()];
        let mut used = vec![Duration::ZERO; all.len()];
        for _ in 0..plan.bulk_rounds {
            for (index, way) in all.iter().enumerate() {
                let before = cpu_of(&way.servers)? + cpu_of_ended_children()?;
                let start = Instant::now();
                transfer((way.client)(), up, &source, way.name)?;
                let connect = base.get(index).or(base.first()).copied().unwrap_or_default();
                let seconds = (start.elapsed().as_secs_f64() - connect).max(1e-3);
                slot(&mut rates, index)?.push(plan.bulk_mebibytes as f64 / seconds);
                settle();
                *slot(&mut used, index)? += (cpu_of(&way.servers)? + cpu_of_ended_children()?).saturating_sub(before);
            }
        }
        let gibibytes = (plan.bulk_rounds as u64 * plan.bulk_mebibytes) as f64 / 1024.0;
        let stock = rates.first().map(Samples::median).unwrap_or_default();
        for ((way, rates), used) in all.iter().zip(&rates).zip(&used) {
            let figure = format!("{}, {} CPU s/GiB", rates.shown(), number(used.as_secs_f64() / gibibytes));
            let beside = format!("{} of stock sshd", ratio(rates.median(), stock));
            table.row(&format!("bulk {direction}, MiB/s, median (quarters)"), way.name, figure, beside);
        }
    }
    Ok(())
}

fn transfer(mut client: Command, up: bool, source: &Path, name: &str) -> anyhow::Result<()> {
    if up {
        let mut child = client
            .arg("cat > /dev/null")
            .stdin(fs::File::open(source)?)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        let status = child.wait()?;
        ensure!(status.success(), "bulk by {name} ended with {status}");
        return Ok(());
    }
    run(client.arg(format!("cat {}", source.display())), name)
}

fn slot<T>(list: &mut [T], index: usize) -> anyhow::Result<&mut T> {
    list.get_mut(index).context("there is a place for each way")
}
