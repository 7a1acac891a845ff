//! Joining with tokens that say how often, under which names and with which labels; a disk that was copied; a device that wakes up in 1970.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use remoteler_tests::{Cluster, Edge, Outcome, Process, binary, eventually, eventually_within, faketime_library, run};
use serde_json::Value;

/// The daemon that is the host speaks every 30 s, and a restart is told from a copy only by what is said 10 s later.
const TWO_WORDS: Duration = Duration::from_secs(120);

/// A second machine: the state of an edge node, copied while that runs.
fn copy_of(edge: &Edge, to: &Path) -> PathBuf {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for name in ["host.json", "peer", "policy.json"] {
        if edge.data_dir().join(name).exists() {
            fs::copy(edge.data_dir().join(name), to.join(name)).unwrap();
        }
    }
    to.to_owned()
}

fn start(cluster: &Cluster, data_dir: &Path, name: &str) -> Process {
    let mut command = Command::new(binary("remoteler"));
    command.args(["start", "--roles", "node", "--auth-server", cluster.proxy(), "--nodename", name, "--data-dir"]);
    Process::start(command.arg(data_dir), &data_dir.with_extension("log"))
}

fn status(data_dir: &Path) -> Result<Value, String> {
    let out = run(Command::new(binary("remoteler")).args(["status", "--format", "json", "--data-dir"]).arg(data_dir));
    serde_json::from_slice(&out.stdout).map_err(|_| out.stderr)
}

/// Until the daemon says that it is shut out; its words.
#[track_caller]
fn shut_out(data_dir: &Path) -> String {
    eventually_within(TWO_WORDS, "the machine says that it is shut out", || {
        let status = status(data_dir)?;
        status["shut_out"].as_str().map(str::to_owned).ok_or_else(|| status.to_string())
    })
}

#[track_caller]
fn belongs(data_dir: &Path) {
    eventually_within(TWO_WORDS, "the machine has its tunnel and is not shut out", || {
        let status = status(data_dir)?;
        let tunnels = status["tunnels"].as_object().cloned().unwrap_or_default();
        let up = tunnels.values().any(|tunnel| tunnel["state"] == "connected");
        if up && status["shut_out"].is_null() { Ok(()) } else { Err(status.to_string()) }
    });
}

fn generation(data_dir: &Path) -> u64 {
    let state: Value = serde_json::from_slice(&fs::read(data_dir.join("host.json")).unwrap()).unwrap();
    let certificate = ssh_key::Certificate::from_openssh(state["ssh_certificate"].as_str().unwrap()).unwrap();
    let identity = remoteler_core::ssh_identity(&certificate).unwrap();
    let remoteler_core::Identity::Host(host) = identity else { panic!("{identity:?}") };
    host.generation
}

// I28
#[test]
fn of_a_device_and_a_copy_of_its_disk_the_second_is_refused_until_an_administrator_decides() {
    let cluster = Cluster::start();
    let edge = cluster.edge("edge");
    let copied = copy_of(&edge, &cluster.dir().join("copy"));
    let _copy = start(&cluster, &copied, "edge");
    // It is found out while both run, says why, and the device goes on.
    let said = shut_out(&copied);
    assert!(said.contains("copy of this disk") && said.contains("tctl nodes rejoin"), "{said}");
    let event = cluster.event("instance.copy", |_| true);
    assert_eq!(event["node_name"], "edge");
    for address in ["addr.remote", "addr.host"] {
        assert!(event[address].as_str().unwrap().starts_with("127.0.0.1:"), "{event}");
    }
    belongs(edge.data_dir());
    assert_eq!((generation(edge.data_dir()), generation(&copied)), (1, 0));

    // The copy was the right one after all, say: the administrator lets it in again, and the other is out.
    let made = cluster.tctl_json(&["nodes", "rejoin", "edge"]);
    let token = cluster.dir().join("again");
    fs::write(&token, made["token"].as_str().unwrap()).unwrap();
    let rejoin = || -> Outcome {
        let mut command = Command::new(binary("remoteler"));
        command.args(["rejoin", "--new-keys", "--ca-pin", made["ca_pin"].as_str().unwrap(), "--data-dir"]).arg(&copied);
        run(command.arg("--token").arg(&token).args(["--auth-server", cluster.proxy()]))
    };
    rejoin().ok();
    belongs(&copied);
    let said = shut_out(edge.data_dir());
    assert!(said.contains("copy of this disk"), "{said}");
    assert!(generation(&copied) > 1);
    let refused = rejoin().one_line_failure();
    assert!(refused.contains("used up"), "{refused}");
}

// I35
#[test]
fn a_token_is_for_so_many_hosts_of_such_names_and_gives_them_labels() {
    let cluster = Cluster::start();
    let args = ["tokens", "add", "--type", "node", "--single-use", "--name", "gw-*", "--labels", "site=7,env=edge"];
    let made = cluster.tctl_json(&args);
    let id = cluster.tctl_json(&["tokens", "ls"])[0]["id"].as_str().unwrap().to_owned();
    let token = cluster.dir().join("token");
    fs::write(&token, made["token"].as_str().unwrap()).unwrap();
    let pin = made["ca_pin"].as_str().unwrap();
    let command = |name: &str| {
        let mut command = Command::new(binary("remoteler"));
        command.args([
            "start",
            "--roles",
            "node",
            "--auth-server",
            cluster.proxy(),
            "--ca-pin",
            pin,
            "--nodename",
            name,
        ]);
        // It would rather be elsewhere.
        command.args(["--labels", "site=8,rack=b", "--data-dir"]).arg(cluster.dir().join(name));
        command.arg("--token").arg(&token);
        command
    };
    let refused = run(&mut command("web-1")).one_line_failure();
    assert!(refused.contains("gw-*"), "{refused}");
    let _edge = Process::start(&mut command("gw-1"), &cluster.dir().join("gw-1.log"));
    let labels = eventually("gw-1 is there", || {
        let nodes = cluster.tctl_json(&["nodes", "ls"]);
        let node = nodes.as_array().unwrap().iter().find(|node| node["name"] == "gw-1").cloned();
        node.map(|node| node["labels"].clone()).ok_or_else(|| nodes.to_string())
    });
    assert_eq!(labels, serde_json::json!({ "site": "7", "env": "edge", "rack": "b" }));
    let refused = run(&mut command("gw-2")).one_line_failure();
    assert!(refused.contains("used up"), "{refused}");
    let listed = cluster.tctl(&["tokens", "ls"]).ok().text();
    assert!(listed.contains("site=7") && listed.contains("gw-*") && !listed.contains(made["token"].as_str().unwrap()));
    // The event names the token by its fingerprint.
    let joined = cluster.event("instance.join", |event| event["node_name"] == "gw-1" && event["success"] == true);
    assert_eq!(joined["token"], id.as_str());
    cluster.tctl(&["tokens", "rm", &id]).ok();
}

// R5
#[test]
fn a_device_that_wakes_up_in_1970_joins_and_has_its_tunnel_and_so_after_a_restart() {
    let Some(library) = faketime_library() else { return };
    let cluster = Cluster::start();
    let preloaded = format!("LD_PRELOAD={}", library.display());
    let in_1970 = ["env", &preloaded, "FAKETIME=@1970-01-02 00:00:00", "FAKETIME_DONT_FAKE_MONOTONIC=1"];
    let mut edge = Edge::launch(&cluster, "edge", cluster.proxy(), &[], &in_1970);
    for start in 0..2 {
        edge.wait_connected();
        let log = edge.process().log();
        assert!(log.contains("1970-01-02T00:00:0") && log.contains("this machine's clock is wrong"), "{log}");
        // A restart wakes up when the device last wrote its state, and needs no token.
        let state: Value = serde_json::from_slice(&fs::read(edge.data_dir().join("host.json")).unwrap()).unwrap();
        assert!(state["written"].as_str().unwrap() > "2026", "{}", state["written"]);
        assert!(!edge.data_dir().join("join.json").exists());
        if start == 0 {
            fs::remove_file(cluster.dir().join("edge.token")).unwrap();
            edge.restart();
        }
    }
    let seen = cluster.tctl_json(&["nodes", "ls"]);
    assert!(seen.as_array().unwrap().iter().any(|node| node["name"] == "edge"), "{seen}");
}
