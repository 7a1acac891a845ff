//! A proxy makes way for its next process (SIGUSR2): sessions of stock `ssh` live on in the old one, and nobody who comes is turned away meanwhile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};
use remoteler_tests::{Cluster, ClusterOptions, EchoSession, Edge, Proxy, User, eventually_within, need, run};

const SECONDS: Duration = Duration::from_secs(60);

/// Does something again and again, and remembers what failed.
struct Visitor {
    stop: Arc<AtomicBool>,
    visits: Arc<AtomicUsize>,
    running: JoinHandle<Vec<String>>,
}

impl Visitor {
    fn start(mut visit: impl FnMut() -> Result<(), String> + Send + 'static) -> Self {
        let (stop, visits) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, counted) = (stop.clone(), visits.clone());
        let running = std::thread::spawn(move || {
            let mut failures = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                failures.extend(visit().err());
                counted.fetch_add(1, Ordering::SeqCst);
            }
            failures
        });
        Self { stop, visits, running }
    }

    /// Waits until something was done that began after now.
    fn once_more(&self) {
        let wanted = self.visits.load(Ordering::SeqCst) + 2;
        eventually_within(SECONDS, "another visit", || {
            let visits = self.visits.load(Ordering::SeqCst);
            if visits >= wanted { Ok(()) } else { Err(format!("{visits} of {wanted}")) }
        });
    }

    #[track_caller]
    fn none_failed(self, what: &str) {
        self.stop.store(true, Ordering::SeqCst);
        let failures = self.running.join().unwrap();
        let visits = self.visits.load(Ordering::SeqCst);
        println!("{visits} {what}, {} failed", failures.len());
        assert!(failures.is_empty(), "{what}: {failures:#?}");
    }
}

fn reaches(user: &User, host: &str) -> Result<(), String> {
    let out = run(user.openssh("ssh").args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=30", host, "echo up"]));
    if out.text() == "up\n" { Ok(()) } else { Err(format!("{host}: {}", out.stderr)) }
}

fn linked(edge: &Edge) {
    eventually_within(SECONDS, "the edge node has a tunnel", || {
        let tunnels = edge.status()?["tunnels"].clone();
        let up = tunnels.as_object().is_some_and(|all| all.values().any(|tunnel| tunnel["state"] == "connected"));
        if up { Ok(()) } else { Err(tunnels.to_string()) }
    });
}

/// Waits until a process that may be nobody's child any more is gone, or is only waited for.
fn gone(pid: Pid) {
    eventually_within(2 * SECONDS, "the process before has ended", || {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z')) => {
                Err(format!("{pid} still runs: {stat}"))
            }
            _ => Ok(()),
        }
    });
}

#[test]
fn sessions_live_through_the_restart_of_the_proxy_and_nobody_is_turned_away() {
    if !need(&["ssh"]) {
        return;
    }
    let cluster = Cluster::start_with(ClusterOptions { roles: "auth,node".into(), ..ClusterOptions::default() });
    let mut proxy = Proxy::join(&cluster, "proxy-1");
    let edge = Edge::launch(&cluster, "edge-1", proxy.address(), &[], &[]);
    linked(&edge);
    let people = ["ann", "bob", "carol"].map(|name| User::create_at(&cluster, name, "access", proxy.address()));
    let [ann, bob, carol] = people;
    for host in ["edge-1", Cluster::NODE] {
        eventually_within(SECONDS, "the hosts are reached", || reaches(&ann, host));
    }
    let mut sessions = ["edge-1", Cluster::NODE, "edge-1"].map(|host| EchoSession::open(&ann, host));
    let address: std::net::SocketAddr = proxy.address().parse().unwrap();
    let connections = Visitor::start(move || {
        std::thread::sleep(Duration::from_millis(1)); // a thousand a second are enough
        std::net::TcpStream::connect_timeout(&address, SECONDS).map(drop).map_err(|cause| cause.to_string())
    });
    let logins = Visitor::start(move || {
        let out = bob.login(&[]);
        if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
    });
    let commands = Visitor::start(move || reaches(&carol, "edge-1").and_then(|()| reaches(&carol, Cluster::NODE)));

    let (first, second) = proxy.make_way();
    for session in &mut sessions {
        session.says_again("after the first time");
    }
    linked(&edge);
    let through_the_second = EchoSession::open(&ann, "edge-1");
    for visitor in [&logins, &commands] {
        visitor.once_more();
    }
    sessions.into_iter().for_each(EchoSession::end);
    assert_eq!(proxy.process().wait(2 * SECONDS), Some(0), "the process before has ended in order");
    assert_ne!(first, second);

    // What took over makes way as well.
    let mut sessions = [through_the_second, EchoSession::open(&ann, Cluster::NODE)];
    let (second, third) = proxy.make_way();
    for session in &mut sessions {
        session.says_again("after the second time");
    }
    for visitor in [&logins, &commands] {
        visitor.once_more();
    }
    sessions.into_iter().for_each(EchoSession::end);
    gone(second);
    assert_eq!(proxy.serving(), Some(third));

    connections.none_failed("connections");
    logins.none_failed("logins");
    commands.none_failed("commands");
    let broken = cluster.events("audit.chain_broken");
    assert!(broken.is_empty(), "the host's events are one chain: {broken:?}");
    assert!(cluster.events("instance.copy").is_empty(), "the next process is no copy of the host");
}

#[test]
fn a_proxy_whose_next_process_does_not_start_goes_on_and_one_with_a_node_says_that_it_cannot() {
    if !need(&["ssh"]) {
        return;
    }
    let mut cluster = Cluster::start_with(ClusterOptions { roles: "auth,node".into(), ..ClusterOptions::default() });
    let mut proxy = Proxy::join(&cluster, "proxy-1");
    let edge = Edge::launch(&cluster, "edge-1", proxy.address(), &[], &[]);
    linked(&edge);
    let ann = User::create_at(&cluster, "ann", "access", proxy.address());
    eventually_within(SECONDS, "the edge node is reached", || reaches(&ann, "edge-1"));
    let mut session = EchoSession::open(&ann, "edge-1");
    let (pid, good) = (proxy.serving().unwrap(), std::fs::read_to_string(proxy.config()).unwrap());
    let missing = "https_keypairs: [{ cert_file: /nowhere/web.crt, key_file: /nowhere/web.key }]";

    // Once before it has taken anything over, once after.
    for (times, bad) in [(1, "no config: [".to_owned()), (2, good.replace(" }\n", &format!(", {missing} }}\n")))] {
        std::fs::write(proxy.config(), bad).unwrap();
        proxy.process().signal(Signal::SIGUSR2);
        eventually_within(SECONDS, "the proxy says that it goes on", || {
            let log = proxy.process().log();
            if log.matches("no other process took over").count() == times { Ok(()) } else { Err(log) }
        });
        session.says_again("still here");
        assert_eq!(proxy.serving(), Some(pid));
        reaches(&ann, "edge-1").unwrap();
    }

    // With a config that is right again the next process takes over after all.
    std::fs::write(proxy.config(), good).unwrap();
    proxy.make_way();
    session.says_again("and now");
    session.end();
    assert_eq!(proxy.process().wait(2 * SECONDS), Some(0));

    cluster.daemon().signal(Signal::SIGUSR2);
    eventually_within(SECONDS, "the daemon with more than a proxy says why not", || {
        let log = cluster.daemon().log();
        if log.contains("only a process that runs the proxy alone makes way") { Ok(()) } else { Err(log) }
    });
}
