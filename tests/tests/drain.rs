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
    session_with(user, host, Stdio::inherit())
}

/// The same, and what is said on its standard error is kept.
fn session_that_is_heard(user: &User, host: &str) -> Child {
    session_with(user, host, Stdio::piped())
}

fn session_with(user: &User, host: &str, errors: Stdio) -> Child {
    let mut ssh = user.openssh("ssh");
    ssh.args(["-o", "BatchMode=yes", host, "echo live; read line; echo got $line"]);
    let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
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

/// What a session says on standard error that ends before its time.
fn cut_off(mut child: Child) -> String {
    let held_open = child.stdin.take();
    let out = child.wait_with_output().unwrap();
    drop(held_open);
    assert!(!out.status.success(), "{:?}", out.status);
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn a_cluster_whose_time_to_drain_is_over_ends_the_live_session_and_all_sides_hear_why() {
    if !need(&["ssh"]) {
        return;
    }
    let mut cluster = Cluster::start();
    let mut edge = cluster.edge("edge-1");
    let ann = cluster.user("ann", "access");
    let live = session_that_is_heard(&ann, "edge-1");

    cluster.daemon().signal(Signal::SIGTERM);

    // The daemon was given 5 s; nobody ends the session.
    let said = cut_off(live);
    assert_eq!(cluster.daemon().wait(Duration::from_secs(30)), Some(0));
    assert!(said.contains("the connection to edge-1 was cut off by the proxy: it was stopped or restarted"), "{said}");
    let log = cluster.daemon().log();
    assert!(log.contains("sessions are cut off: the time to end is over"), "{log}");
    eventually("the edge node's tunnel says why it is down", || {
        let log = edge.process().log();
        if log.contains("closed by the peer: the proxy takes no new streams") { Ok(()) } else { Err(log) }
    });
}

#[test]
fn an_edge_node_whose_time_to_drain_is_over_ends_the_live_session_and_its_user_hears_why() {
    if !need(&["ssh"]) {
        return;
    }
    let cluster = Cluster::start();
    let mut edge = remoteler_tests::Edge::join(&cluster, "edge-1", &["--drain-timeout=2s"]);
    let ann = cluster.user("ann", "access");
    let live = session_that_is_heard(&ann, "edge-1");

    edge.process().signal(Signal::SIGTERM);

    let said = cut_off(live);
    assert_eq!(edge.process().wait(Duration::from_secs(30)), Some(0));
    assert!(said.contains("stop"), "{said}");
    cluster.event("session.end", |event| event["server_hostname"] == "edge-1");
}
