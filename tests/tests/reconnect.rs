//! kill -9 of the proxy, the auth service and the agent in turn: everything reconnects by itself, in seconds.

use std::time::Duration;

use remoteler_tests::{Cluster, ClusterOptions, Edge, Proxy, User, eventually_within, need, run};

const SECONDS: Duration = Duration::from_secs(60);

fn reaches(user: &User, host: &str) -> Result<(), String> {
    let out = run(user.openssh("ssh").args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", host, "echo up"]));
    if out.text() == "up\n" { Ok(()) } else { Err(out.stderr) }
}

#[test]
fn after_the_death_of_auth_and_proxy_the_edge_node_comes_back_by_itself() {
    if !need(&["ssh"]) {
        return;
    }
    let mut cluster = Cluster::start();
    let _edge = cluster.edge("edge-1");
    let ann = cluster.user("ann", "access");
    reaches(&ann, "edge-1").unwrap();
    let before = cluster.events("user.login").len();

    cluster.kill_daemon();
    assert!(reaches(&ann, "edge-1").is_err());
    cluster.start_daemon();
    cluster.wait_ready();

    eventually_within(SECONDS, "the edge node is reached again", || reaches(&ann, "edge-1"));
    eventually_within(SECONDS, "the local node is reached again", || reaches(&ann, Cluster::NODE));
    assert_eq!(cluster.events("user.login").len(), before, "no acknowledged event is lost"); // I75
}

#[test]
fn after_the_death_of_the_agent_it_comes_back_without_a_token() {
    if !need(&["ssh"]) {
        return;
    }
    let cluster = Cluster::start();
    let mut edge = cluster.edge("edge-1");
    let ann = cluster.user("ann", "access");
    reaches(&ann, "edge-1").unwrap();
    std::fs::remove_file(cluster.dir().join("edge-1.token")).unwrap();

    edge.process().kill_hard();
    assert!(reaches(&ann, "edge-1").is_err());
    edge.restart();

    eventually_within(SECONDS, "the edge node is reached again", || reaches(&ann, "edge-1"));
    assert_eq!(cluster.events("instance.join").iter().filter(|e| e["node_name"] == "edge-1").count(), 1);
}

#[test]
fn a_proxy_of_its_own_may_die_and_come_back_and_so_may_auth_behind_it() {
    if !need(&["ssh"]) {
        return;
    }
    let mut cluster = Cluster::start_with(ClusterOptions { roles: "auth,node".into(), ..ClusterOptions::default() });
    let mut proxy = Proxy::join(&cluster, "proxy-1");
    let edge = Edge::launch(&cluster, "edge-1", proxy.address(), &[], &[]);
    edge.wait_connected();
    let ann = User::create_at(&cluster, "ann", "access", proxy.address());
    eventually_within(SECONDS, "the edge node is reached", || reaches(&ann, "edge-1"));
    eventually_within(SECONDS, "the node is reached", || reaches(&ann, Cluster::NODE));

    proxy.process().kill_hard();
    assert!(reaches(&ann, "edge-1").is_err());
    proxy.start_again();
    eventually_within(SECONDS, "the edge node is reached through the new proxy", || reaches(&ann, "edge-1"));

    cluster.kill_daemon();
    // Valid certificates work while auth is away.
    eventually_within(SECONDS, "the edge node is reached without auth", || reaches(&ann, "edge-1"));
    cluster.start_daemon();
    cluster.wait_ready();
    eventually_within(SECONDS, "a login works again", || {
        ann.tsh(&["logout"]);
        let out = ann.login(&[]);
        if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
    });
    // What happened meanwhile arrives.
    cluster.event("session.end", |event| event["server_hostname"] == "edge-1");
}
