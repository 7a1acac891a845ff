//! A proxy dies under many agents and starts again: all come back, and people log in meanwhile. `REMOTELER_AGENTS` says how many agents; 10,000 want
//! release binaries, and 20,000 file descriptors for a process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use remoteler_tests::{Cluster, ClusterOptions, Process, Proxy, User, binary, eventually_within};

/// For all to join or to come back; more than is promised, for machines that do much else besides.
const PATIENCE: Duration = Duration::from_secs(300);
/// Agents of one process.
const OF_ONE_PROCESS: usize = 2500;

/// Processes that hold agents, each with its log.
struct Agents(Vec<(Process, PathBuf)>);

impl Agents {
    /// Joins `count` agents, each from an address of its own, one process after the other.
    fn join(cluster: &Cluster, proxy: &str, count: usize) -> Self {
        let mut agents = Self(Vec::new());
        while agents.0.len() * OF_ONE_PROCESS < count {
            let number = agents.0.len();
            let (token, pin) = cluster.token("node");
            let [token_file, log] = ["token", "log"].map(|kind| cluster.dir().join(format!("agents-{number}.{kind}")));
            std::fs::write(&token_file, token).unwrap();
            let first = number * OF_ONE_PROCESS;
            let some = OF_ONE_PROCESS.min(count - first).to_string();
            // Standard input is the token: it is in no argument.
            let script = "exec \"$0\" join --proxy \"$1\" --ca-pin \"$2\" --first \"$3\" --count \"$4\" < \"$5\"";
            let mut command = Command::new("sh");
            command
                .args(["-c", script])
                .arg(binary("bench-link"))
                .args([proxy, &pin, &first.to_string(), &some])
                .arg(&token_file);
            agents.0.push((Process::start(&mut command, &log), log));
            eventually_within(PATIENCE, "all agents have joined", || {
                let (process, _) = agents.0.last_mut().unwrap();
                assert!(process.runs(), "{}", process.log());
                if process.log().contains("READY") { Ok(()) } else { Err(process.log()) }
            });
        }
        agents
    }

    /// How many have their tunnels now, by their own account.
    fn up(&self) -> usize {
        let last = |log: &Path| {
            let text = std::fs::read_to_string(log).unwrap();
            text.lines().rev().find_map(|line| line.strip_prefix("UP ")?.parse::<usize>().ok()).unwrap_or_default()
        };
        self.0.iter().map(|(_, log)| last(log)).sum()
    }
}

#[test]
fn all_agents_come_back_to_a_proxy_that_died_and_no_login_is_refused_meanwhile() {
    let count = std::env::var("REMOTELER_AGENTS").map_or(100, |count| count.parse().unwrap());
    let cluster = Cluster::start_with(ClusterOptions { roles: "auth".into(), ..ClusterOptions::default() });
    let mut proxy = Proxy::join(&cluster, "proxy-1");
    let address = proxy.address().to_owned();
    let agents = Agents::join(&cluster, &address, count);
    eventually_within(PATIENCE, "all have tunnels", || same(agents.up(), count));
    let ann = User::create_at(&cluster, "ann", "access", &address);

    proxy.process().kill_hard();
    eventually_within(PATIENCE, "all notice", || same(agents.up(), 0));
    proxy.start_again();
    eventually_within(PATIENCE, "the proxy listens again", || {
        TcpStream::connect(&address).map(drop).map_err(|cause| cause.to_string())
    });
    let since = Instant::now();
    let done = AtomicBool::new(false);
    let (back, logins) = std::thread::scope(|scope| {
        let logging_in = scope.spawn(|| {
            let mut took = Vec::new();
            while !done.load(Ordering::SeqCst) || took.is_empty() {
                let begun = Instant::now();
                ann.login(&[]).ok();
                took.push(begun.elapsed());
            }
            took
        });
        let back = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually_within(PATIENCE, "all are back", || same(agents.up(), count));
            since.elapsed()
        }));
        done.store(true, Ordering::SeqCst);
        (back, logging_in.join())
    });

    let (back, mut logins) = (back.unwrap(), logins.unwrap());
    logins.sort_unstable();
    let (median, slowest) = (logins[logins.len() / 2], logins[logins.len() - 1]);
    println!(
        "{count} agents are back {back:?} after the proxy; {} logins meanwhile, {median:?} at the median, {slowest:?} at the most",
        logins.len()
    );
    if std::env::var_os("REMOTELER_STRICT").is_some() {
        assert!(back < Duration::from_secs(60), "{back:?}");
    }
    assert!(proxy.process().runs(), "{}", proxy.process().log());
}

fn same(found: usize, wanted: usize) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{found} of {wanted}")) }
}
