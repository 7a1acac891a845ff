//! The measurements of whole processes. All paths are up at once and each round measures each of them, so that what the machine does
//! meanwhile hits all alike. CPU is user and system time of all processes of a path, the client included.

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
    memory,
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

/// Measures everything. Each kind of memory is measured on daemons that have done nothing else yet: what a process has freed it takes
/// again first, so that later sessions and tunnels would seem to cost nothing.
pub(super) fn all(bin: &Path, dir: &Path, plan: &Plan, table: &mut Table) -> anyhow::Result<()> {
    shell_start(plan, table)?;
    {
        let cluster = Cluster::start(bin, &subdirectory(dir, "1")?)?;
        memory::idle_daemons(&cluster, "just started", table)?;
        memory::idle_agents(&cluster, plan.idle_agents, table)?;
    }
    let mut cluster = Cluster::start(bin, &subdirectory(dir, "2")?)?;
    let mut sshd = Sshd::start(&cluster)?;
    memory::idle_sessions(&cluster, &sshd, plan.idle_sessions, table)?;
    let ways = ways::all(&cluster, &sshd);
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
        let name = path.name;
        let server = cpu_of(&path.servers)?;
        let commands: Vec<Vec<Command>> =
            (0..AT_ONCE).map(|_| (0..plan.new_sessions / AT_ONCE).map(|_| (path.client)()).collect()).collect();
        let count = commands.iter().map(Vec::len).sum::<usize>() as f64;
        let start = Instant::now();
        thread::scope(|scope| {
            let worker = |commands: Vec<Command>| {
                scope.spawn(move || commands.into_iter().try_for_each(|mut command| run(command.arg("true"), name)))
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
    let mut all = ways::all(cluster, sshd);
    let mut stock = ways::all(cluster, sshd).into_iter().take(1).collect::<Vec<_>>();
    stock.iter_mut().for_each(gcm);
    if let Some(path) = stock.first_mut() {
        path.client = Box::new(|| {
            let mut command = sshd.ssh();
            command.args(["-c", "aes128-gcm@openssh.com", Sshd::HOST]);
            command
        });
    }
    all.append(&mut stock);
    let source = cluster.dir().join("zeros");
    let octets = plan.bulk_mebibytes << 20;
    fs::File::create(&source)?.set_len(octets)?;
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
            .stdin(fs::File::open(source)?)
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

fn slot<T>(list: &mut [T], index: usize) -> anyhow::Result<&mut T> {
    list.get_mut(index).context("there is a place for each path")
}
