//! Fifty `tsh`, eight at a time, on one profile: files always parse, nothing is lost, and nothing foreign is changed.

use std::{
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use remoteler_tests::{Cluster, User, run};
use serde_json::Value;

const COUNT: usize = 50;
/// The proxy has 30 logins of one address in flight, and 10 of one name, and refuses more.
const AT_A_TIME: usize = 8;
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

#[test]
fn fifty_at_once_on_one_profile_leave_every_file_whole() {
    let cluster = Cluster::start();
    // One machine: all in the home of the first.
    let ann = cluster.user("ann", "access");
    for name in &USERS[1..] {
        cluster.tctl(&["users", "add", name, "--roles", "access", "--logins", "root"]).ok();
        let password = format!("correct horse battery {name}\n");
        cluster.tctl_with_input(&["users", "passwd", name], &password).ok();
    }
    std::fs::write(ann.kubeconfig(), FOREIGN).unwrap();
    let known_hosts = ann.tsh_home().join("known_hosts");
    let foreign = "example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti\n";
    let ours = std::fs::read_to_string(&known_hosts).unwrap();
    std::fs::write(&known_hosts, format!("{foreign}{ours}")).unwrap();

    let proxy = cluster.proxy().to_owned();
    let run_number = |number: usize| {
        let name = USERS[number % USERS.len()];
        let mut command = ann.tsh_command();
        match number % 10 {
            // Some only read.
            9 => command.args(["status"]),
            8 => command.args(["config"]),
            _ => command.args(["login", "--insecure", "--proxy", &proxy, "--user", name, "--ttl", "1h"]),
        };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // One that only reads may be gone already.
        let _ = std::io::Write::write_all(&mut stdin, format!("correct horse battery {name}\n").as_bytes());
        drop(stdin);
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "number {number}: {}", String::from_utf8_lossy(&out.stderr));
    };
    let (done, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // One looks all the time: whatever moment it meets, the profile parses.
        let watcher = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(Ordering::SeqCst) {
                let profile = std::fs::read_to_string(ann.tsh_home().join("profile")).unwrap();
                assert!(profile.contains("proxies") || profile.contains("current"), "half a profile: {profile:?}");
                status(&ann).unwrap();
                looks += 1;
            }
            looks
        });
        let runners: Vec<_> = (0..AT_A_TIME)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        if number >= COUNT {
                            break;
                        }
                        run_number(number);
                    }
                })
            })
            .collect();
        // The watcher ends also when one of them has failed.
        let ran: Vec<_> = runners.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::SeqCst);
        assert!(watcher.join().unwrap() > 0);
        assert!(ran.iter().all(Result::is_ok), "one of them failed");
    });

    // Each user's login is whole: as the current one it is shown, and works.
    for name in USERS {
        let keys: Vec<String> = std::fs::read_dir(ann.tsh_home().join("keys"))
            .unwrap()
            .flat_map(|proxy| std::fs::read_dir(proxy.unwrap().path()).unwrap())
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
    assert!(std::fs::read_to_string(&known_hosts).unwrap().contains(foreign), "a line that is not ours stays"); // I67
    let kubeconfig = std::fs::read_to_string(ann.kubeconfig()).unwrap();
    assert!(kubeconfig.contains("not-ours") && kubeconfig.contains("current-context: mine"), "{kubeconfig}");
}
