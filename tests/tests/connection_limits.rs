//! `max_connections` and `max_kubernetes_connections` hold over the cluster: at a node here and one behind a tunnel, with stock `ssh` and `kubectl`; and a node that is killed
//! leaves no place behind for long.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use remoteler_tests::{
    ApiServer, Cluster, ClusterOptions, Edge, User, client, eventually, eventually_within, need, run,
};

/// What a place lives that nobody speaks of is a minute.
const BOUND: Duration = Duration::from_secs(150);
const ROLE: &str = "kind: role\nversion: v7\nmetadata: { name: limited }\n\
    spec: { options: { max_connections: 2, max_kubernetes_connections: 1 } }\n";
const TOLD: &str = "of your connections are open, and your roles allow no more";

/// A program that has begun, and ends when this is dropped.
struct Open(Child);

impl Open {
    /// Waits until it says something. Who has just ended another connection may be refused at first, for that is told a moment later.
    fn start(command: &mut Command, says: &str, input: &str) -> Result<Self, String> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        // It may have ended by now.
        let _ = child.stdin.as_mut().unwrap().write_all(input.as_bytes());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let found = lines.any(|line| line.unwrap().contains(says));
        let open = Self(child);
        if found { Ok(open) } else { Err(format!("{command:?} ended without {says:?}")) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ssh(user: &User, node: &str) -> Command {
    let mut ssh = user.openssh("ssh");
    ssh.args(["-o", "BatchMode=yes"]).arg(format!("{node}.{}", Cluster::NAME));
    ssh
}

fn cat(user: &User, node: &str) -> Result<Open, String> {
    Open::start(ssh(user, node).arg("cat"), "hello", "hello\n")
}

fn outcome(command: &mut Command) -> Result<(), String> {
    let out = run(command);
    if out.code == Some(0) { Ok(()) } else { Err(out.text() + &out.stderr) }
}

fn kubernetes(api_server: &ApiServer, dir: &std::path::Path, name: &str) -> String {
    let kubeconfig = api_server.write_kubeconfig(dir).unwrap();
    format!(
        "kubernetes_service:\n  enabled: yes\n  kubeconfig_file: {}\n  kube_cluster_name: {name}\n",
        kubeconfig.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_connections_are_counted_over_two_nodes_and_two_kubernetes_services() {
    if !need(&["ssh", "kubectl"]) {
        return;
    }
    let api_server = ApiServer::start().await.unwrap();
    api_server.expect("ann", &["developers"]);
    let dir = tempfile::tempdir().unwrap();
    let extra_config = kubernetes(&api_server, dir.path(), "here");
    let cluster = Cluster::start_with(ClusterOptions { extra_config, ..ClusterOptions::default() });
    let config = cluster.dir().join("edge.yaml");
    let text = format!("ssh_service:\n  enabled: yes\n{}", kubernetes(&api_server, dir.path(), "there"));
    std::fs::write(&config, text).unwrap();
    let mut edge = Edge::join(&cluster, "edge-1", &["-c", config.to_str().unwrap()]);
    cluster.tctl_with_input(&["create"], ROLE).ok();
    let ann = User::create_with_traits(&cluster, "ann", "access,limited", &["kubernetes_groups=developers"]);
    let bob = cluster.user("bob", "access");
    eventually("the edge node is reached", || outcome(ssh(&bob, "edge-1").arg("true")));

    // SSH: one at each node, and no third at either.
    let here = eventually("the first begins", || cat(&ann, Cluster::NODE));
    let there = eventually("the second begins", || cat(&ann, "edge-1"));
    for node in ["edge-1", Cluster::NODE] {
        let said = outcome(ssh(&ann, node).arg("true")).unwrap_err();
        assert!(said.contains(&format!("2 {TOLD}")), "{node}: {said}");
        let event = cluster.event("session.rejected", |event| event["server_hostname"] == node);
        assert_eq!((&event["reason"], &event["maximum"]), (&"max_connections limit reached".into(), &2.into()));
        assert_eq!((&event["user"], &event["code"]), (&"ann".into(), &"T1006W".into()));
    }
    outcome(ssh(&bob, "edge-1").arg("true")).unwrap();
    drop(here);
    eventually("what ended here makes room there", || outcome(ssh(&ann, "edge-1").arg("true")));

    // Kubernetes: a watch here leaves no room there.
    eventually("both Kubernetes clusters are listed", || {
        let listed = ann.tsh(&["kube", "ls"]).text();
        if listed.contains("here") && listed.contains("there") { Ok(()) } else { Err(listed) }
    });
    for name in ["here", "there"] {
        ann.tsh(&["kube", "login", name]).ok();
    }
    let kubectl = |name: &str, words: &[&str]| {
        let mut kubectl = Command::new(client("kubectl").unwrap().path());
        ann.environment(&mut kubectl);
        kubectl.args(["--context", &format!("{}-{name}", Cluster::NAME), "--namespace", "dev"]).args(words);
        kubectl
    };
    let watch = Open::start(&mut kubectl("here", &["get", "pods", "--watch"]), "web", "").unwrap();
    let said = outcome(&mut kubectl("there", &["get", "pods"])).unwrap_err();
    assert!(said.contains(&format!("1 {TOLD}")), "{said}");
    let event = cluster.event("session.rejected", |event| event["server_hostname"] == "there");
    assert_eq!(event["reason"], "max_kubernetes_connections limit reached");
    drop(watch);
    eventually("the watch's end makes room", || outcome(&mut kubectl("there", &["get", "pods"])));

    // A node that is killed says nothing of what it held. That ends by time.
    let here = eventually("there is room here", || cat(&ann, Cluster::NODE));
    assert!(outcome(ssh(&ann, Cluster::NODE).arg("true")).unwrap_err().contains(TOLD));
    let killed = Instant::now();
    edge.process().kill_hard();
    drop(there);
    eventually_within(BOUND, "the place at the killed node is free", || outcome(ssh(&ann, Cluster::NODE).arg("true")));
    eprintln!("the place at the killed node was free after {:?}", killed.elapsed());
    drop(here);
}
