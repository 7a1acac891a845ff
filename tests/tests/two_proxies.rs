//! A cluster with two proxies: an agent that knows one of them keeps a link to each, so that one may drain or die and stock `ssh` goes on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use remoteler_tests::{Cluster, ClusterOptions, Edge, Process, User, binary, eventually, eventually_within, need, run};

const SECONDS: Duration = Duration::from_secs(60);

/// A proxy in a process of its own.
struct Proxy {
    address: String,
    process: Process,
    config: std::path::PathBuf,
    log: std::path::PathBuf,
}

impl Proxy {
    fn join(cluster: &Cluster, name: &str) -> Self {
        let (token, pin) = cluster.token("proxy");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let config = cluster.dir().join(format!("{name}.yaml"));
        let text = format!(
            "remoteler: {{ nodename: {name}, data_dir: {}, auth_server: \"{}\", ca_pin: \"{pin}\", join_params: {{ token_name: \"{token}\" }} }}\n\
             proxy_service: {{ listen_addr: \"{address}\" }}\n",
            cluster.dir().join(name).display(),
            cluster.auth()
        );
        std::fs::write(&config, text).unwrap();
        let log = cluster.dir().join(format!("{name}.log"));
        let process = Self::launch(&config, &log);
        let proxy = Self { address, process, config, log };
        eventually("the proxy listens", || {
            std::net::TcpStream::connect(&proxy.address).map(drop).map_err(|e| format!("{e}: {}", proxy.process.log()))
        });
        proxy
    }

    fn launch(config: &std::path::Path, log: &std::path::Path) -> Process {
        Process::start(Command::new(binary("remoteler")).args(["start", "-c"]).arg(config), log)
    }

    fn start_again(&mut self) {
        self.process = Self::launch(&self.config, &self.log);
    }
}

fn linked(edge: &Edge, proxies: &[&Proxy]) {
    eventually_within(SECONDS, "the edge node has a tunnel to each proxy", || {
        let status = edge.status()?;
        let up = |proxy: &&Proxy| status["tunnels"][&proxy.address]["state"] == "connected";
        if proxies.iter().all(up) { Ok(()) } else { Err(status["tunnels"].to_string()) }
    });
}

fn reaches(user: &User, host: &str) -> Result<(), String> {
    let out = run(user.openssh("ssh").args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", host, "echo up"]));
    if out.text() == "up\n" { Ok(()) } else { Err(out.stderr) }
}

/// A session that says it lives and then waits for a line.
fn session(user: &User, host: &str) -> Child {
    let mut ssh = user.openssh("ssh");
    ssh.args(["-o", "BatchMode=yes", host, "echo live; read line; echo got $line"]);
    let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut first = String::new();
    // One byte at a time, so that nothing of what follows is taken away.
    BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "live\n");
    child
}

#[test]
fn one_of_two_proxies_may_drain_or_die_and_the_edge_node_is_reached_through_the_other() {
    if !need(&["ssh"]) {
        return;
    }
    let cluster = Cluster::start_with(ClusterOptions { roles: "auth,node".into(), ..ClusterOptions::default() });
    let (mut one, mut two) = (Proxy::join(&cluster, "proxy-1"), Proxy::join(&cluster, "proxy-2"));
    let edge = Edge::launch(&cluster, "edge-1", &one.address, &[], &[]);
    linked(&edge, &[&one, &two]);
    let ann = User::create_at(&cluster, "ann", "access", &one.address);
    let bob = User::create_at(&cluster, "bob", "access", &two.address);
    for user in [&ann, &bob] {
        eventually_within(SECONDS, "the edge node is reached", || reaches(user, "edge-1"));
    }

    // Drained: what lives goes on, what is new goes through the other one.
    let mut live = session(&ann, "edge-1");
    one.process.signal(Signal::SIGTERM);
    eventually_within(SECONDS, "the first proxy takes nothing new", || {
        match std::net::TcpStream::connect(&one.address) {
            Ok(_) => Err("it still listens".into()),
            Err(_) => Ok(()),
        }
    });
    reaches(&bob, "edge-1").unwrap();
    live.stdin.take().unwrap().write_all(b"the end\n").unwrap();
    let out = live.wait_with_output().unwrap();
    assert!(out.status.success(), "{:?}", out.status);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "got the end\n");
    assert_eq!(one.process.wait(Duration::from_secs(30)), Some(0));

    // Started again it is linked again, and then the other one may die.
    one.start_again();
    linked(&edge, &[&one, &two]);
    two.process.kill_hard();
    reaches(&ann, "edge-1").unwrap();
    two.start_again();
    eventually_within(SECONDS, "the edge node is reached through the restarted proxy", || reaches(&bob, "edge-1"));
    linked(&edge, &[&one, &two]);
}
