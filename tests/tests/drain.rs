//! SIGTERM: nothing new is taken, live sessions come to their end, their events and recordings arrive, exit code 0.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use remoteler_tests::{Cluster, User, eventually, need};

/// A session that says it lives and then waits for a line.
fn session(user: &User, host: &str) -> Child {
    let mut ssh = user.openssh("ssh");
    ssh.args(["-o", "BatchMode=yes", host, "echo live; read line; echo got $line"]);
    let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut first = String::new();
    // One byte at a time, so that nothing of what follows is taken away.
    let out = child.stdout.as_mut().unwrap();
    BufReader::with_capacity(1, out).read_line(&mut first).unwrap();
    assert_eq!(first, "live\n");
    child
}

fn finish(mut child: Child) -> String {
    child.stdin.take().unwrap().write_all(b"the end\n").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{:?}", out.status);
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn a_draining_cluster_takes_nothing_new_and_lets_a_live_session_end_by_itself() {
    if !need(&["ssh"]) {
        return;
    }
    let mut cluster = Cluster::start();
    let ann = cluster.user("ann", "access");
    let live = session(&ann, Cluster::NODE);

    cluster.daemon().signal(Signal::SIGTERM);
    eventually("the port takes nothing new", || match std::net::TcpStream::connect(cluster.proxy()) {
        Ok(_) => Err("it still listens".into()),
        Err(_) => Ok(()),
    });

    assert_eq!(finish(live), "got the end\n");
    assert_eq!(cluster.daemon().wait(Duration::from_secs(10)), Some(0));
}

#[test]
fn a_draining_edge_node_lets_a_live_session_end_and_its_events_arrive() {
    if !need(&["ssh"]) {
        return;
    }
    let cluster = Cluster::start();
    let mut edge = cluster.edge("edge-1");
    let ann = cluster.user("ann", "access");
    let live = session(&ann, "edge-1");

    edge.process().signal(Signal::SIGTERM);
    eventually("the edge takes nothing new", || {
        let out = remoteler_tests::run(ann.openssh("ssh").args(["-o", "BatchMode=yes", "edge-1", "true"]));
        if out.code == Some(0) { Err("a new session began".into()) } else { Ok(()) }
    });

    assert_eq!(finish(live), "got the end\n");
    assert_eq!(edge.process().wait(Duration::from_secs(70)), Some(0));
    cluster.event("session.end", |event| event["server_hostname"] == "edge-1");
}
