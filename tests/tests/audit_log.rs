//! The audit log of a running cluster: exported with `tctl`, checked with the public key alone, seen by a witness, shipped to a file and to standard output,
//! listed from a moment on.

use std::fs;

use nix::sys::signal::Signal;
use remoteler_tests::{Cluster, eventually};
use serde_json::Value;

fn restart(cluster: &mut Cluster) {
    cluster.daemon().signal(Signal::SIGTERM);
    let ended = cluster.daemon().wait(std::time::Duration::from_secs(30));
    assert_eq!(ended, Some(0), "{}", cluster.daemon().log());
    cluster.start_daemon();
    let _ = cluster.wait_ready();
}

/// The events among the lines of a text.
fn printed(text: &str) -> Vec<Value> {
    let json = |line: &str| serde_json::from_str::<Value>(line).ok().filter(|event| event["uid"].is_string());
    text.lines().filter_map(json).collect()
}

// I75
#[test]
fn an_export_of_a_lived_in_cluster_verifies_and_one_that_was_changed_is_named() {
    let mut cluster = Cluster::start();
    let path = |name: &str| cluster.dir().join(name).to_str().expect("a path of text").to_owned();
    let (witness, shipped, export, key) =
        (path("witness.jsonl"), path("shipped.jsonl"), path("export.jsonl"), path("key"));
    let changed = path("changed.jsonl");
    cluster.configure_auth(&format!(
        "  audit:\n    retention: 365d\n    witness: {witness}\n    ship: [{{ type: file, path: {shipped} }}, {{ type: stdout }}]\n"
    ));
    restart(&mut cluster);
    let edge = cluster.edge("edge");
    let ann = cluster.user("ann", "access");
    ann.tsh(&["ssh", "edge", "true"]).ok();
    cluster.event("session.end", |event| event["server_hostname"] == "edge");
    // The last checkpoint is signed and witnessed when the daemon ends.
    restart(&mut cluster);

    fs::write(&key, cluster.tctl(&["auth", "export", "--type", "audit"]).ok().text()).expect("the key can be written");
    cluster.tctl(&["audit", "export", "-o", &export]).ok();
    let verify = |file: &str| cluster.tctl(&["audit", "verify", file, "--key", &key, "--witness", &witness]);
    let verdict = cluster.tctl_json(&["audit", "verify", &export, "--key", &key, "--witness", &witness]);
    assert_eq!((&verdict["proven"], &verdict["own_key"]), (&verdict["size"], &Value::Bool(false)), "{verdict}");
    assert!(verdict["witnessed"].as_u64() >= Some(2) && verdict["chain_breaks"] == serde_json::json!([]), "{verdict}");

    let text = fs::read_to_string(&export).expect("the export can be read");
    let line = text.lines().position(|line| line.contains("\"event\":\"session.end\"")).expect("the session's end");
    for (tampered, named) in [
        (
            text.replace("\"event\":\"session.end\"", "\"event\":\"session.and\""),
            format!("on line {}: the event was changed", line + 1),
        ),
        (
            text.lines().enumerate().filter(|(at, _)| *at != line).map(|(_, line)| format!("{line}\n")).collect(),
            "the event was removed".to_owned(),
        ),
        (text.lines().take(line).map(|line| format!("{line}\n")).collect(), "the event was removed".to_owned()),
    ] {
        fs::write(&changed, tampered).expect("the file can be written");
        let said = verify(&changed).one_line_failure();
        assert!(said.contains(&named), "{said}");
    }

    let all = cluster.tctl_json(&["audit", "ls", "--limit", "10000"]);
    let uids: Vec<&str> = all.as_array().expect("a list").iter().filter_map(|event| event["uid"].as_str()).collect();
    eventually("every event is shipped", || {
        let lines = fs::read_to_string(&shipped).unwrap_or_default();
        let missing = uids.iter().find(|uid| !lines.contains(**uid));
        missing.map_or(Ok(()), |uid| Err(format!("{uid} is missing")))
    });
    // On standard output they are lines of their own among those of the daemon's log, whole and the same as in the file.
    eventually("every event is on standard output", || {
        let lines = printed(&cluster.daemon().log());
        let missing = uids.iter().find(|uid| !lines.iter().any(|event| event["uid"] == **uid));
        missing.map_or(Ok(()), |uid| Err(format!("{uid} is missing")))
    });
    let written = printed(&fs::read_to_string(&shipped).expect("what was shipped can be read"));
    let said = printed(&cluster.daemon().log());
    for uid in &uids {
        let of_uid = |events: &[Value]| events.iter().find(|event| event["uid"] == **uid).cloned();
        assert_eq!(of_uid(&said), of_uid(&written));
    }

    let events = all.as_array().expect("a list");
    let time = |event: &Value| event["time"].as_str().expect("a time").to_owned();
    let middle = time(&events[events.len() / 2]);
    assert!(time(&events[0]) < middle, "the log is of more than one moment");
    let later = cluster.tctl_json(&["audit", "ls", "--from", &middle, "--limit", "10000"]);
    let later = later.as_array().expect("a list");
    assert!(later.iter().all(|event| time(event) >= middle), "{later:?}");
    for event in events.iter().filter(|event| time(event) >= middle) {
        assert!(later.contains(event), "{event} is missing from {middle} on");
    }
    let ages = cluster.tctl_json(&["audit", "ls", "--from", "12h", "--limit", "10000"]);
    assert!(ages.as_array().expect("a list").len() >= events.len(), "half a day ago there was no cluster");
    let page = cluster.tctl_json(&["audit", "ls", "--target", "edge", "--outcome", "success", "--limit", "2"]);
    let [older, _] = page.as_array().expect("a list").as_slice() else { panic!("{page}") };
    let uid = older["uid"].as_str().expect("a uid");
    let before = cluster.tctl_json(&["audit", "ls", "--target", "edge", "--limit", "1", "--before", uid]);
    assert!(before[0]["time"].as_str() <= older["time"].as_str() && before[0]["uid"] != older["uid"], "{before}");
    drop(edge);
}
