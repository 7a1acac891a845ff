//! Devices that were away while both authorities were replaced: they say so, and `remoteler rejoin` makes them the hosts again that they
//! were. A token alone gives nobody their names.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use remoteler_tests::{Cluster, Edge, Outcome, Process, User, binary, eventually, eventually_within, need, run};
use serde_json::Value;

/// Time for a link to come back: an agent that fails again and again waits up to 30 s between two attempts.
const BACK: Duration = Duration::from_secs(90);

/// Takes a step as soon as everybody but the devices that are away has followed, and passes over those.
#[track_caller]
fn step_without(cluster: &Cluster, kind: &str, phase: &str, away: &[&str]) {
    eventually(&format!("{kind} goes to {phase}"), || {
        let mut args = vec!["auth", "rotate", "--type", kind, "--manual", "--phase", phase];
        let out = cluster.tctl(&args);
        if out.code == Some(0) {
            return Ok(());
        }
        let missing = out.stderr.matches("(last heard of at").count();
        let known = away.iter().filter(|name| out.stderr.contains(&format!("{name} (last heard of at"))).count();
        if missing == 0 || missing != known {
            return Err(out.stderr);
        }
        args.push("--force");
        cluster.tctl(&args).ok();
        Ok(())
    });
}

/// A fresh token in a file, and the pin as it is now.
fn token(cluster: &Cluster, name: &str) -> (PathBuf, String) {
    let (token, pin) = cluster.token("node");
    let file = cluster.dir().join(format!("{name}.again"));
    fs::write(&file, token).unwrap();
    (file, pin)
}

fn rejoin(data_dir: &Path, token: &Path, pin: &str, more: &[&str]) -> Outcome {
    let mut command = Command::new(binary("remoteler"));
    command.arg("rejoin").arg("--data-dir").arg(data_dir).arg("--token").arg(token).args(["--ca-pin", pin]).args(more);
    run(&mut command)
}

#[track_caller]
fn rejoined(data_dir: &Path, token: &Path, pin: &str) -> Value {
    let out = rejoin(data_dir, token, pin, &["--format", "json"]).ok();
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Until the daemon says that it is shut out; its words.
#[track_caller]
fn shut_out(edge: &Edge) -> String {
    eventually("the device says that it is shut out", || {
        let status = edge.status()?;
        status["shut_out"].as_str().map(str::to_owned).ok_or_else(|| status.to_string())
    })
}

#[track_caller]
fn reached(user: &User, host: &str) {
    eventually_within(BACK, &format!("{host} is reached"), || {
        let mut ssh = user.openssh("ssh");
        let out = run(ssh.args([host, "echo", "there"]));
        if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
    });
}

/// Both authorities go through all phases. `edge-1` is away from the beginning, `edge-2` since it knows the new authorities.
fn everything_is_rotated(cluster: &Cluster, ann: &User, [one, two]: [&mut Edge; 2]) {
    one.process().kill_hard();
    for kind in ["user", "host"] {
        step_without(cluster, kind, "init", &["edge-1"]);
    }
    eventually("edge-2 knows of the new authorities", || {
        let policy = fs::read_to_string(two.data_dir().join("host.json")).unwrap();
        let policy: Value = serde_json::from_str(&policy).unwrap();
        let known = policy["trust"]["host"]["x509"].as_array().unwrap().len();
        if known == 2 { Ok(()) } else { Err(policy["trust"]["rotation"].to_string()) }
    });
    two.process().kill_hard();
    let away = ["edge-1", "edge-2"];
    for kind in ["user", "host"] {
        for phase in ["update_clients", "update_servers", "standby"] {
            step_without(cluster, kind, phase, &away);
            ann.asks_a_minute_later();
            if kind == "user" && phase == "update_clients" {
                ann.tsh(&["logout"]).ok();
                ann.login(&[]).ok();
            }
        }
    }
}

// I1, I28
#[test]
fn a_device_that_was_away_through_a_rotation_comes_back_under_its_name() {
    if !need(&["ssh", "ssh-keygen"]) {
        return;
    }
    let cluster = Cluster::start();
    let mut one = cluster.edge("edge-1");
    let mut two = cluster.edge("edge-2");
    let (old_token, old_pin) = token(&cluster, "early");
    let ids = [&one, &two].map(|edge| edge.status().unwrap()["host_id"].clone());
    let ann = cluster.user("ann", "access");
    for host in ["edge-1", "edge-2"] {
        reached(&ann, host);
    }
    everything_is_rotated(&cluster, &ann, [&mut one, &mut two]);

    // Both say what is wrong and what to do, in one line, and neither is let in.
    one.restart();
    two.restart();
    assert!(shut_out(&one).contains("host authority that this host does not know"));
    assert!(shut_out(&two).contains("does not believe this host's certificates"));
    let status = run(Command::new(binary("remoteler")).args(["status", "--data-dir"]).arg(one.data_dir())).ok().text();
    let line = status.lines().find(|line| line.starts_with("Shut out:")).unwrap();
    assert!(line.contains("remoteler rejoin"), "{status}");
    let tunnels = |edge: &Edge| edge.status().unwrap()["tunnels"].clone();
    for edge in [&one, &two] {
        assert!(!tunnels(edge).to_string().contains("connected"), "{}", tunnels(edge));
    }
    let mut ssh = ann.openssh("ssh");
    assert_ne!(run(ssh.args(["edge-1", "true"])).code, Some(0));

    // A thief who has a token, but not the device, gets neither its name nor its id.
    let (fresh, pin) = token(&cluster, "fresh");
    let thief = cluster.dir().join("thief");
    let mut start = Command::new(binary("remoteler"));
    start.args(["start", "--auth-server", cluster.proxy(), "--nodename", "edge-1", "--ca-pin", &pin, "--token"]);
    let refused = run(start.arg(&fresh).arg("--data-dir").arg(&thief)).one_line_failure();
    assert!(refused.contains("belongs to host") && refused.contains("remoteler rejoin"), "{refused}");
    let key = cluster.dir().join("thief-key");
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)).ok();
    let mut state: Value =
        serde_json::from_str(&fs::read_to_string(one.data_dir().join("host.json")).unwrap()).unwrap();
    state["ssh_private_key"] = fs::read_to_string(&key).unwrap().into();
    fs::create_dir_all(&thief).unwrap();
    fs::write(thief.join("host.json"), state.to_string()).unwrap();
    let refused = rejoin(&thief, &fresh, &pin, &["--auth-server", cluster.proxy()]).one_line_failure();
    assert!(refused.contains("is not taken back"), "{refused}");
    cluster.event("instance.join", |event| event["rejoined"] == true && event["success"] == false);

    // With the pin of the authority that is gone nobody is believed, the auth service included (I15).
    let refused = rejoin(one.data_dir(), &old_token, &old_pin, &[]).one_line_failure();
    assert!(refused.contains("was not taken back") && refused.contains("tctl tokens add"), "{refused}");

    // One while its daemon runs, the other before it is started.
    assert_eq!(rejoined(one.data_dir(), &fresh, &pin)["host_id"], ids[0]);
    two.process().kill_hard();
    assert_eq!(rejoined(two.data_dir(), &fresh, &pin)["daemon_runs"], false);
    two.restart();
    for (edge, id) in [(&one, &ids[0]), (&two, &ids[1])] {
        reached(&ann, edge.name());
        let status = edge.status().unwrap();
        assert_eq!((&status["host_id"], &status["shut_out"]), (id, &Value::Null), "{status}");
        eventually_within(BACK, "the device is listed with its labels", || {
            let out = ann.tsh(&["ls", "--format", "json", "env=edge"]).ok();
            let nodes: Value = serde_json::from_slice(&out.stdout).unwrap();
            let listed = nodes.as_array().unwrap().iter().any(|node| node.to_string().contains(edge.name()));
            if listed { Ok(()) } else { Err(nodes.to_string()) }
        });
        cluster.event("instance.join", |event| event["rejoined"] == true && event["host_id"] == *id);
    }
    // It said so once; a daemon that was started twice, twice at the most.
    let log = one.process().log();
    assert_eq!(log.matches("is shut out of cluster").count(), 1, "{log}");
    assert_eq!(log.matches("has joined again").count(), 1, "{log}");

    // And the next rotation goes on with both.
    step_without(&cluster, "host", "init", &[]);
    step_without(&cluster, "host", "rollback", &[]);
    step_without(&cluster, "host", "standby", &[]);
    one.restart();
    reached(&ann, "edge-1");
}

// I10
#[test]
fn a_device_that_is_well_joins_again_beside_its_daemon_and_is_not_taken_for_its_copy() {
    let cluster = Cluster::start();
    let mut edge = cluster.edge("edge-1");
    let (token, pin) = token(&cluster, "edge-1");
    rejoined(edge.data_dir(), &token, &pin);
    eventually_within(BACK, "the daemon takes over what the rejoin wrote", || {
        let log = edge.process().log();
        if log.contains("this host has joined again") { Ok(()) } else { Err(log) }
    });
    edge.wait_connected();
    assert!(cluster.events("instance.copy").is_empty(), "{:?}", cluster.events("instance.copy"));
}

#[test]
fn a_machine_that_never_joined_is_told_to_join() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "token-token-token").unwrap();
    let pin = format!("sha256:{}", "ab".repeat(32));
    let refused = rejoin(&dir.path().join("data"), &token, &pin, &["--auth-server", "127.0.0.1:1"]).one_line_failure();
    assert!(refused.contains("holds no host"), "{refused}");
    let refused = rejoin(&dir.path().join("data"), &token, &pin, &[]).one_line_failure();
    assert!(refused.contains("--auth-server"), "{refused}");
}

/// A shut-out device asks seldom: what it does in a time is bounded by what it did at first.
#[test]
fn a_device_that_is_shut_out_does_not_besiege_its_cluster() {
    if !need(&["ssh"]) {
        return;
    }
    let cluster = Cluster::start();
    let mut edge = cluster.edge("edge-1");
    edge.process().kill_hard();
    for phase in ["init", "update_clients", "update_servers", "standby"] {
        step_without(&cluster, "host", phase, &["edge-1"]);
    }
    // A door that counts: the device reaches its cluster through it.
    let door = Door::open(cluster.proxy());
    let mut command = Command::new(binary("remoteler"));
    command.args(["start", "--nodename", "edge-1", "--auth-server", &door.addr, "--data-dir"]).arg(edge.data_dir());
    fs::write(edge.data_dir().join("peer"), format!("proxy {}\n", door.addr)).unwrap();
    let daemon = Process::start(&mut command, &cluster.dir().join("besieger.log"));
    shut_out(&edge);
    let before = door.passed();
    std::thread::sleep(Duration::from_secs(20)); // what happens in a time is what is measured
    let knocks = door.passed() - before;
    eprintln!("{knocks} connections in 20 s");
    // Tunnel, heartbeats, rules and events, each backing off by jitter: 7 to 18 were seen, and 39 without backing off.
    assert!(knocks <= 28, "{knocks} connections in 20 s:\n{}", daemon.log());
}

/// Passes connections on and counts them.
struct Door {
    addr: String,
    passed: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Door {
    fn open(to: &str) -> Self {
        use std::{
            io::copy,
            net::{TcpListener, TcpStream},
            sync::atomic::{AtomicUsize, Ordering},
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, to) = (listener.local_addr().unwrap().to_string(), to.to_owned());
        let passed = std::sync::Arc::new(AtomicUsize::new(0));
        let count = passed.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let Ok(there) = TcpStream::connect(&to) else { continue };
                let (mut from, mut into) = (stream.try_clone().unwrap(), there.try_clone().unwrap());
                std::thread::spawn(move || {
                    copy(&mut from, &mut into).map(|_| into.shutdown(std::net::Shutdown::Write))
                });
                let (mut from, mut into) = (there, stream);
                std::thread::spawn(move || {
                    copy(&mut from, &mut into).map(|_| into.shutdown(std::net::Shutdown::Write))
                });
            }
        });
        Self { addr, passed }
    }

    fn passed(&self) -> usize {
        self.passed.load(std::sync::atomic::Ordering::SeqCst)
    }
}
