//! Fifty `tsh` at once on one profile and one kubeconfig: files always parse, no entry is lost, and nothing foreign is changed.
#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{
    fs,
    process::Stdio,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
};

use remoteler_client::Kubeconfig;
use remoteler_tests::{ApiServer, Cluster, ClusterOptions, Edge, User, eventually, run};
use serde_json::Value;

const COUNT: usize = 50;
/// Kubernetes clusters that are entered into the kubeconfig.
const KUBE: [&str; 2] = ["here", "there"];
const USERS: [&str; 5] = ["ann", "bob", "cid", "dan", "eve"];
const FOREIGN: &str = "\
apiVersion: v1
kind: Config
current-context: mine
clusters:
- name: mine
  cluster: { server: 'https://192.0.2.1:6443' }
users:
- name: mine
  user: { token: not-ours }
contexts:
- name: mine
  context: { cluster: mine, user: mine }
";

/// What `tsh` says of the profile in JSON, or why it cannot.
fn status(user: &User) -> Result<Value, String> {
    let out = run(user.tsh_command().args(["status", "--format", "json"]));
    serde_json::from_slice(&out.stdout).map_err(|cause| format!("{cause}: {}{}", out.text(), out.stderr))
}

fn kubernetes(kubeconfig: &std::path::Path, name: &str) -> String {
    let file = kubeconfig.display();
    format!("kubernetes_service:\n  enabled: yes\n  kubeconfig_file: {file}\n  kube_cluster_name: {name}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_on_one_profile_and_kubeconfig_leave_every_file_whole_and_lose_no_entry() {
    let api_server = ApiServer::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = api_server.write_kubeconfig(dir.path()).unwrap();
    let extra_config = kubernetes(&kubeconfig, KUBE[0]);
    let cluster = Cluster::start_with(ClusterOptions { extra_config, ..ClusterOptions::default() });
    let config = cluster.dir().join("edge.yaml");
    fs::write(&config, kubernetes(&kubeconfig, KUBE[1])).unwrap();
    let _edge = Edge::join(&cluster, "edge-1", &["-c", config.to_str().unwrap()]);
    // One machine: all in the home of the first.
    let ann = cluster.user("ann", "access");
    for name in &USERS[1..] {
        cluster.tctl(&["users", "add", name, "--roles", "access", "--logins", "root"]).ok();
        let password = format!("correct horse battery {name}\n");
        cluster.tctl_with_input(&["users", "passwd", name], &password).ok();
    }
    eventually("both Kubernetes clusters are listed", || {
        let listed = ann.tsh(&["kube", "ls"]).text();
        if KUBE.iter().all(|name| listed.contains(name)) { Ok(()) } else { Err(listed) }
    });
    fs::write(ann.kubeconfig(), FOREIGN).unwrap();
    let known_hosts = ann.tsh_home().join("known_hosts");
    let foreign = "example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti\n";
    let ours = fs::read_to_string(&known_hosts).unwrap();
    fs::write(&known_hosts, format!("{foreign}{ours}")).unwrap();

    let proxy = cluster.proxy().to_owned();
    let (done, barrier) = (AtomicBool::new(false), Barrier::new(COUNT));
    let run_number = |number: usize| {
        let name = USERS[number / 10];
        let mut command = ann.tsh_command();
        match number % 10 {
            // Some write the profile and the keys: 25 at once, for the proxy lets 30 of one address in at once, and 10 of one name.
            0..5 => command.args(["login", "--insecure", "--proxy", &proxy, "--user", name, "--ttl", "1h"]),
            // Some the kubeconfig, and choose its current context.
            5..8 => command.args(["kube", "login", KUBE[number % 2]]),
            // Some only read.
            8 => command.args(["status"]),
            _ => command.args(["config"]),
        };
        barrier.wait();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // One that only reads may be gone already.
        let _ = std::io::Write::write_all(&mut stdin, format!("correct horse battery {name}\n").as_bytes());
        drop(stdin);
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "number {number}: {}", String::from_utf8_lossy(&out.stderr));
    };
    std::thread::scope(|scope| {
        // One looks all the time: whatever moment it meets, the profile parses.
        let watcher = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(Ordering::SeqCst) {
                let profile = fs::read_to_string(ann.tsh_home().join("profile")).unwrap();
                assert!(profile.contains("proxies") || profile.contains("current"), "half a profile: {profile:?}");
                status(&ann).unwrap();
                let _chosen = Kubeconfig::new(ann.kubeconfig()).current_context().unwrap();
                let text = fs::read_to_string(ann.kubeconfig()).unwrap();
                assert!(text.contains("not-ours"), "half a kubeconfig: {text:?}");
                looks += 1;
            }
            looks
        });
        let run_number = &run_number;
        let runners: Vec<_> = (0..COUNT).map(|number| scope.spawn(move || run_number(number))).collect();
        // The watcher ends also when one of them has failed.
        let ran: Vec<_> = runners.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::SeqCst);
        assert!(watcher.join().unwrap() > 0);
        assert!(ran.iter().all(Result::is_ok), "one of them failed");
    });

    // Each user's login is whole: as the current one it is shown, and works.
    for name in USERS {
        let keys: Vec<String> = fs::read_dir(ann.tsh_home().join("keys"))
            .unwrap()
            .flat_map(|proxy| fs::read_dir(proxy.unwrap().path()).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|file| !file.starts_with('.'))
            .collect();
        for ending in ["", ".pub", "-cert.pub", ".key", ".crt"] {
            assert!(keys.contains(&format!("{name}{ending}")), "{name}{ending} in {keys:?}"); // I67
        }
    }
    let current = status(&ann).unwrap();
    assert!(USERS.iter().any(|name| current.to_string().contains(name)), "{current}");
    ann.tsh(&["ls"]).ok();
    assert!(fs::read_to_string(&known_hosts).unwrap().contains(foreign), "a line that is not ours stays"); // I67
    let text = fs::read_to_string(ann.kubeconfig()).unwrap();
    let chosen = Kubeconfig::new(ann.kubeconfig()).current_context().unwrap().unwrap();
    assert!(KUBE.iter().any(|name| chosen.ends_with(name)), "the last one to enter a cluster chose it: {chosen}");
    assert!(text.contains("not-ours") && text.contains("name: mine"), "what is not ours stays: {text}");
    for name in KUBE {
        let entry = format!("{}-{name}", Cluster::NAME);
        let names = text.lines().filter(|line| line.trim_start_matches(['-', ' ']) == format!("name: {entry}")).count();
        assert_eq!(names, 3, "cluster, user and context of {name}: {text}"); // I67
    }
}
