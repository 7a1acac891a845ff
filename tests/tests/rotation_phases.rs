//! Whatever happens to a process in the middle of a rotation, it comes up right: a node that joins, restarts or is killed in any phase is
//! reached, and believes the one who reaches it; an auth service that is killed is in the phase that it was in. Of administrators who
//! rotate at once one wins.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use remoteler_tests::{Cluster, Edge, Process, User, binary, eventually, eventually_within, need, run};
use serde_json::Value;

const KINDS: [&str; 3] = ["user", "host", "token"];
const BACK: Duration = Duration::from_secs(60);

/// Takes a step of all three, each as soon as every service has followed the one before.
#[track_caller]
fn step(cluster: &Cluster, phase: &str) {
    for kind in KINDS {
        cluster.rotate(kind, phase);
    }
}

/// A stock `ssh` gets through: it believes the node by its certificate, and the node believes it by its own.
#[track_caller]
fn reached(user: &User, node: &str) {
    let host = format!("{node}.{}", Cluster::NAME);
    eventually_within(BACK, &format!("{host} is reached"), || {
        let mut ssh = user.openssh("ssh");
        let out = run(ssh.args(["-o", "StrictHostKeyChecking=yes", &host, "echo", "there"]));
        if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
    });
}

fn phases(cluster: &Cluster) -> Vec<String> {
    let status = cluster.tctl_json(&["auth", "status"]);
    let rotations = status["rotations"].as_array().unwrap();
    let of = |kind: &str| rotations.iter().find(|rotation| rotation["kind"] == kind).unwrap()["phase"].clone();
    KINDS.iter().map(|kind| of(kind).as_str().unwrap().to_owned()).collect()
}

fn host_state(data_dir: &Path) -> Vec<u8> {
    fs::read(data_dir.join("host.json")).unwrap()
}

/// Nodes that go through everything, and those that joined on the way.
struct Edges {
    restarted: Edge,
    killed: Edge,
    torn: Edge,
    joined: Vec<Edge>,
}

impl Edges {
    fn start(cluster: &Cluster) -> Self {
        let [restarted, killed, torn] = ["restarted", "killed", "torn"].map(|name| cluster.edge(name));
        Self { restarted, killed, torn, joined: Vec::new() }
    }

    fn all(&self) -> impl Iterator<Item = &Edge> {
        [&self.restarted, &self.killed, &self.torn].into_iter().chain(&self.joined)
    }
}

/// Takes the step to `phase`, and lets everything happen to processes in it that can.
fn in_the_middle_of(phase: &str, cluster: &mut Cluster, ann: &User, edges: &mut Edges) {
    let before = host_state(edges.torn.data_dir());
    step(cluster, phase);
    // Killed at once, before it can have followed.
    edges.killed.restart();
    // Killed as soon as it has written its new state, mostly before it has said so.
    eventually_within(BACK, "the node has written its new state", || {
        if host_state(edges.torn.data_dir()) == before { Err("not yet".into()) } else { Ok(()) }
    });
    edges.torn.restart();
    edges.restarted.process().signal(Signal::SIGTERM);
    assert_eq!(edges.restarted.process().wait(BACK), Some(0));
    edges.restarted.restart();
    edges.joined.push(cluster.edge(&format!("joined-in-{}", phase.replace('_', "-"))));
    ann.asks_a_minute_later();
    for edge in edges.all() {
        edge.wait_connected();
        reached(ann, edge.name());
    }
    // The auth service, the proxy and a node in one, without any warning.
    cluster.kill_daemon();
    cluster.start_daemon();
    cluster.wait_ready();
    assert_eq!(phases(cluster), [phase; KINDS.len()]);
    for host in edges.all().map(Edge::name).chain([Cluster::NODE]) {
        reached(ann, host);
    }
}

/// A copy of a host's data from before a rotation, with the knowledge of today, is let in nowhere.
#[track_caller]
fn is_refused(cluster: &Cluster, of: &Edge, copy: &Path) {
    fs::copy(of.data_dir().join("policy.json"), copy.join("policy.json")).unwrap();
    let mut command = Command::new(binary("remoteler"));
    command.args(["start", "--auth-server", cluster.proxy(), "--nodename", of.name(), "--data-dir"]).arg(copy);
    let old = Process::start(&mut command, &cluster.dir().join("old.log"));
    eventually_within(BACK, "what is shown is refused", || {
        let mut status = Command::new(binary("remoteler"));
        let out = run(status.args(["status", "--format", "json", "--data-dir"]).arg(copy));
        let status: Value = serde_json::from_slice(&out.stdout).map_err(|_| format!("{}{}", out.stderr, old.log()))?;
        assert!(!status["tunnels"].to_string().contains("connected"), "{status}");
        let reason = status["shut_out"].as_str().unwrap_or_default();
        if reason.contains("does not believe this host's certificates") { Ok(()) } else { Err(status.to_string()) }
    });
}

fn logs_in_anew(user: &User) {
    user.tsh(&["logout"]).ok();
    user.login(&[]).ok();
}

// I1
#[test]
fn a_node_that_joins_restarts_or_is_killed_in_any_phase_is_reached_and_so_is_one_whose_auth_service_is() {
    if !need(&["ssh"]) {
        return;
    }
    let mut cluster = Cluster::start();
    let mut edges = Edges::start(&cluster);
    let ann = cluster.user("ann", "access");
    let copy = cluster.dir().join("copy");
    run(Command::new("cp").arg("-a").arg(edges.restarted.data_dir()).arg(&copy)).ok();
    fs::remove_file(copy.join("daemon.lock")).unwrap();

    for phase in ["init", "update_clients"] {
        in_the_middle_of(phase, &mut cluster, &ann, &mut edges);
    }
    logs_in_anew(&ann);
    in_the_middle_of("update_servers", &mut cluster, &ann, &mut edges);
    step(&cluster, "standby");
    ann.asks_a_minute_later();
    for host in edges.all().map(Edge::name).chain([Cluster::NODE]) {
        reached(&ann, host);
    }
    is_refused(&cluster, &edges.restarted, &copy);

    for phase in ["init", "update_clients"] {
        step(&cluster, phase);
    }
    in_the_middle_of("rollback", &mut cluster, &ann, &mut edges);
    logs_in_anew(&ann);
    step(&cluster, "standby");
    ann.asks_a_minute_later();
    for edge in edges.all() {
        edge.wait_connected();
        reached(&ann, edge.name());
    }
    assert_eq!(phases(&cluster), ["standby"; KINDS.len()]);
}

#[test]
fn of_administrators_who_rotate_at_once_one_wins_in_each_phase() {
    let cluster = Cluster::start();
    let phases =
        ["init", "update_clients", "rollback", "standby", "init", "update_clients", "update_servers", "standby"];
    for (taken, phase) in phases.iter().enumerate() {
        eventually("nobody is waited for", || {
            let status = cluster.tctl_json(&["auth", "status"]);
            let host =
                status["rotations"].as_array().unwrap().iter().find(|each| each["kind"] == "host").unwrap().clone();
            let waits = ["waiting", "offline"].iter().any(|who| !host[*who].as_array().unwrap().is_empty());
            if waits { Err(host.to_string()) } else { Ok(()) }
        });
        let children: Vec<_> = (0..4)
            .map(|_| {
                let mut tctl = Command::new(binary("tctl"));
                tctl.arg("--data-dir").arg(cluster.data_dir());
                tctl.args(["auth", "rotate", "--type", "host", "--manual", "--phase", phase]);
                tctl.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let outcomes: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.iter().partition(|outcome| outcome.status.success());
        assert_eq!((won.len(), lost.len()), (1, 3), "{phase}: {outcomes:?}");
        for outcome in lost {
            let said = String::from_utf8_lossy(&outcome.stderr);
            assert_eq!((outcome.status.code(), said.lines().count()), (Some(1), 1), "{said}");
            assert!(said.contains(&format!("the host authority is in phase {phase}")), "{said}");
        }
        let events = cluster.events("ca.rotate");
        assert_eq!(events.len(), taken + 1, "{events:?}");
    }
}
