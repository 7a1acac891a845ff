//! How long a link without a connection is kept stands in the config of each side, and the side that keeps it for less decides.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use remoteler_tests::{Cluster, ClusterOptions, Edge, Path, User, eventually, need, run};

/// A session that says it lives, and then waits for a line.
fn session(user: &User) -> Child {
    let mut ssh = user.openssh("ssh");
    ssh.args(["-o", "BatchMode=yes", "edge-1", "echo live; read line; echo got $line"]);
    let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "live\n");
    child
}

/// An edge node behind a path, with a session open at it.
fn behind_a_path(proxies: &str, agents: &str) -> (Cluster, Path, Edge, User, Child) {
    let options = ClusterOptions { common_config: proxies.to_owned(), ..ClusterOptions::default() };
    let cluster = Cluster::start_with(options);
    let path = Path::to(cluster.proxy());
    let config = cluster.dir().join("edge.yaml");
    std::fs::write(&config, format!("remoteler:\n  data_dir: unused\n{agents}ssh_service: {{ enabled: yes }}\n"))
        .unwrap();
    let edge = Edge::launch(&cluster, "edge-1", &path.address().to_string(), &["-c", config.to_str().unwrap()], &[]);
    edge.wait_connected();
    let ann = cluster.user("ann", "access");
    eventually("the edge node is reached", || {
        let out = run(ann.openssh("ssh").args(["-o", "BatchMode=yes", "edge-1", "true"]));
        if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
    });
    let session = session(&ann);
    (cluster, path, edge, ann, session)
}

#[test]
fn a_proxy_that_keeps_links_for_seconds_ends_their_sessions_while_the_device_is_still_away() {
    if !need(&["ssh"]) {
        return;
    }
    let (_cluster, path, edge, _ann, mut session) = behind_a_path("  tunnel_resume_window: 3s\n", "");
    let since = Instant::now();
    assert!(path.close() > 0);

    let input = session.stdin.take();
    let mut said = String::new();
    session.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = session.wait().unwrap();
    drop(input);

    // By default it would wait for ten minutes.
    let ended = since.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(60)).contains(&ended), "{ended:?}");
    assert!(!status.success(), "{status}: {said}");
    path.open();
    edge.wait_connected();
}

#[test]
fn an_agent_that_keeps_links_for_seconds_gives_them_up_and_registers_anew() {
    if !need(&["ssh"]) {
        return;
    }
    let (cluster, path, mut edge, _ann, mut session) = behind_a_path("", "  tunnel_resume_window: 2s\n");
    assert!(path.close() > 0);
    // Also for the proxy the link is one that may come back; the agent alone says otherwise.
    eventually("the agent gives the link up", || {
        let log = edge.process().log();
        if log.contains("no other connection within 2 s") { Ok(()) } else { Err(log) }
    });
    path.open();

    let input = session.stdin.take();
    let status = session.wait().unwrap();
    drop(input);

    assert!(!status.success(), "{status}");
    edge.wait_connected();
    drop(cluster);
}

#[test]
fn a_window_that_cannot_be_stops_the_start_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("remoteler.yaml");
    std::fs::write(&config, "remoteler: { tunnel_resume_window: 2d }\n").unwrap();
    let mut start = std::process::Command::new(remoteler_tests::binary("remoteler"));
    let said = run(start.args(["start", "-c"]).arg(&config).arg("--data-dir").arg(dir.path())).one_line_failure();
    assert!(said.contains("tunnel_resume_window: \"2d\" is no duration between 1s and 24h, such as 10m"), "{said}");
}
