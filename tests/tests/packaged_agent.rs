//! The agent for arm64 that `cargo xtask dist` builds takes part in a cluster of this machine's programs, under qemu-user. Asked for by
//! `REMOTELER_AARCH64_AGENT`, which names that program: building it takes minutes, so `cargo xtask dist --test` does both.

use std::{env, path::PathBuf, time::Duration};

use remoteler_tests::{Cluster, Edge, client, eventually_within, run};

/// qemu translates every instruction, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn the_agent_for_arm64_joins_is_reached_and_comes_back() {
    let Some(agent) = env::var_os("REMOTELER_AARCH64_AGENT").map(PathBuf::from) else {
        eprintln!(
            "SKIPPED: needs REMOTELER_AARCH64_AGENT; cargo xtask dist --arch aarch64 --test builds the agent and sets it"
        );
        return;
    };
    assert!(agent.is_file(), "{} is not there", agent.display());
    let found = ["qemu-aarch64-static", "qemu-aarch64"].into_iter().find_map(client);
    let qemu = found.expect("qemu-aarch64-static is installed; on Debian: apt-get install qemu-user-static");
    let cluster = Cluster::start();
    // The shell puts the other program in place of this machine's, whose path is its first argument.
    let foreign = format!("shift; exec '{}' '{}' \"$@\"", qemu.path().display(), agent.display());
    let mut edge = Edge::launch(&cluster, "arm", cluster.proxy(), &[], &["sh", "-c", &foreign, "sh"]);
    connected(&edge);
    let ann = cluster.user("ann", "access");
    let says = |word: &str| {
        let command = format!("echo {word}");
        let out = run(ann.openssh("ssh").args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=30", "arm", &command]));
        if out.text() == format!("{word}\n") { Ok(()) } else { Err(format!("{}\n{}", out.text(), out.stderr)) }
    };

    eventually_within(PATIENCE, "a shell is had on the agent", || says("first"));
    edge.restart();
    connected(&edge);
    eventually_within(PATIENCE, "a shell is had on it again", || says("second"));

    let joins = cluster.events("instance.join").iter().filter(|event| event["node_name"] == "arm").count();
    assert_eq!(joins, 1, "it came back as the host it was");
    let log = edge.process().log();
    assert!(!log.contains("panicked"), "{log}");
}

fn connected(edge: &Edge) {
    eventually_within(PATIENCE, "the agent has a tunnel", || {
        let status = edge.status()?;
        let tunnels = status["tunnels"].as_object().cloned().unwrap_or_default();
        let up = tunnels.values().any(|tunnel| tunnel["state"] == "connected");
        if up && status["ready"] == true { Ok(()) } else { Err(status.to_string()) }
    });
}
