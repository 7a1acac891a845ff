//! Reverse tunnels by the thousand: what each holds at the proxy, how they come back after its death, and what other tunnels do beside them.
//! The ends are `bench-link`'s: the links as agents and proxies have them, without the rest of a daemon.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::{
    figures::{Table, number},
    process::{Daemon, memory, open_files},
    shell::ScratchDir,
};

/// Idle tunnels, step by step, and how many come back at once.
struct Plan {
    steps: &'static [usize],
    storm: usize,
}

/// The machine allows 20,000 file descriptors a process.
const FULL: Plan = Plan { steps: &[1000, 5000, 10_000, 15_000], storm: 10_000 };
const QUICK: Plan = Plan { steps: &[200, 600], storm: 600 };

/// Memory of idle tunnels, and their return.
pub(super) fn measure(bin_dir: &Path, quick: bool, table: &mut Table) -> anyhow::Result<()> {
    let plan = if quick { QUICK } else { FULL };
    let scratch = ScratchDir::new()?;
    let most = plan.steps.last().copied().context("a plan has steps")?;
    let ends = Ends::new(bin_dir, scratch.path(), most + 1)?;
    let proxy = ends.proxy("proxy")?;
    thread::sleep(Duration::from_secs(1));
    let base = memory(proxy.id())?;
    let mut held: Vec<(usize, Daemon)> = Vec::new();
    for upto in plan.steps {
        let first = held.last().map_or(0, |(upto, _)| *upto);
        let agents = ends.agents(first, upto - first)?;
        ends.ready(first)?;
        held.push((*upto, agents));
        thread::sleep(Duration::from_secs(15)); // what a handshake needed is given back
        let rss = memory(proxy.id())?.rss - base.rss;
        let files = open_files(proxy.id())?;
        let figure = format!("{} KiB each", number(rss as f64 / *upto as f64));
        table.row(
            &format!("{upto} idle tunnels, RSS of the proxy above {} MiB", number(base.rss as f64 / 1024.0)),
            "proxy",
            figure,
            format!("target 16; {files} file descriptors"),
        );
    }
    let agents: u64 =
        held.iter().map(|(_, agents)| memory(agents.id()).map(|size| size.rss)).sum::<Result<u64, _>>()?;
    table.row("the same, at the agents", "agents", format!("{} KiB each", number(agents as f64 / most as f64)), "-");

    held.retain(|(upto, _)| *upto <= plan.storm);
    drop(proxy);
    let started = Instant::now();
    let _proxy = ends.proxy("proxy-again")?;
    let _newcomer = ends.agents(most, 1)?;
    ends.ready(most)?;
    table.row("a new agent while all come back, s", "proxy", number(started.elapsed().as_secs_f64()), "-");
    for share in [50, 99, 100] {
        let count = plan.storm * share / 100;
        ends.counted("proxy-again", count)?;
        let what = format!("{} agents after kill -9 of the proxy, {share} % are back, s", plan.storm);
        table.row(&what, "proxy", number(started.elapsed().as_secs_f64()), "target 60 for all");
    }
    Ok(())
}

/// Other tunnels and ours, by a harness that starts all of them and measures them in turn. Prints its tables.
pub(super) fn beside(bin_dir: &Path, peers: &Path, quick: bool) -> anyhow::Result<()> {
    let scratch = ScratchDir::new()?;
    let ends = Ends::new(bin_dir, scratch.path(), 1000)?;
    let (link, dir, port, entry) = (ends.program.display(), ends.dir.display(), ends.port, ends.entry);
    let server = format!("{link} proxy --dir {dir} --listen 127.0.0.1:{port} --entry 127.0.0.1:{entry}");
    let agents = format!("{link} agents --dir {dir} --proxy 127.0.0.1:{port}");
    let rounds = if quick { "1" } else { "9" };
    let mut tunnel = Command::new("python3");
    tunnel.arg(peers.join("tunnel.py")).args(["--rounds", rounds, "--only", BESIDE, "--kinds", KINDS]);
    tunnel
        .env("OWN_SERVER", &server)
        .env("OWN_AGENT", format!("{agents} --target {{target}}"))
        .env("OWN_PORT", entry.to_string());
    let mut idle = Command::new("python3");
    idle.arg(peers.join("idle.py"))
        .env("OWN_IDLE_SERVER", &server)
        .env("OWN_IDLE_AGENTS", format!("{agents} --count {{n}}"));
    for mut script in [tunnel, idle] {
        let ended = script.status().context("python3 does not start")?;
        ensure!(ended.success(), "{script:?} failed");
    }
    Ok(())
}

/// Limits, a TLS connection for each stream, and other tunnels.
const BESIDE: &str = "raw,copy,tls-pair,yamux-rustls,rathole-tls,rathole-noise,ssh-R-aesgcm,own";
/// Throughput of one and eight streams each way, echo alone, on one core and beside bulk, and new streams.
const KINDS: &str = "up1,down1,up8,down8,rtt,rtt1,conn,conn1,conn8,rtt-busy";

/// Identities and addresses of the ends.
struct Ends {
    program: PathBuf,
    dir: PathBuf,
    logs: PathBuf,
    port: u16,
    entry: u16,
}

impl Ends {
    fn new(bin_dir: &Path, scratch: &Path, count: usize) -> anyhow::Result<Self> {
        let (program, dir) = (bin_dir.join("bench-link"), scratch.join("identities"));
        let made = Command::new(&program)
            .arg("identities")
            .arg("--dir")
            .arg(&dir)
            .args(["--count", &count.to_string()])
            .status();
        ensure!(made.context("bench-link does not start")?.success(), "no identities were made");
        Ok(Self { program, dir, logs: scratch.to_owned(), port: free_port()?, entry: free_port()? })
    }

    fn proxy(&self, name: &str) -> anyhow::Result<Daemon> {
        let mut command = Command::new(&self.program);
        command.arg("proxy").arg("--dir").arg(&self.dir);
        command.args([
            "--listen",
            &format!("127.0.0.1:{}", self.port),
            "--entry",
            &format!("127.0.0.1:{}", self.entry),
        ]);
        Daemon::start(&mut command, &self.log(name))
    }

    fn agents(&self, first: usize, count: usize) -> anyhow::Result<Daemon> {
        let mut command = Command::new(&self.program);
        command.arg("agents").arg("--dir").arg(&self.dir).args(["--proxy", &format!("127.0.0.1:{}", self.port)]);
        command.args(["--first", &first.to_string(), "--count", &count.to_string()]);
        Daemon::start(&mut command, &self.log(&format!("agents-{first}")))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// Waits until the agents from this one on have their tunnels.
    fn ready(&self, first: usize) -> anyhow::Result<()> {
        until(|| Ok(fs::read_to_string(self.log(&format!("agents-{first}")))?.contains("READY")))
    }

    /// Waits until the proxy has counted so many agents.
    fn counted(&self, name: &str, count: usize) -> anyhow::Result<()> {
        until(|| {
            let log = fs::read_to_string(self.log(name))?;
            let last = log.lines().rev().find_map(|line| line.strip_prefix("AGENTS ")?.parse::<usize>().ok());
            Ok(last.is_some_and(|last| last >= count))
        })
    }
}

/// Looks every 20 ms, for five minutes.
fn until(mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(300) {
        if done()? {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("five minutes were not enough")
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
