//! Large transfers come out with equal hashes, both ways, directly and through the reverse tunnel.

use std::process::Command;

use remoteler_tests::{Cluster, User, need, run};

const GIB: u64 = 1 << 30;

/// Runs a shell pipeline in which `$SSH` reaches a node.
fn pipeline(user: &User, script: &str) -> String {
    let mut shell = Command::new("bash");
    user.environment(&mut shell);
    shell.env("SSH", format!("ssh -F {} -o BatchMode=yes", user.ssh_config().display()));
    run(shell.args(["-o", "pipefail", "-c", script])).ok().text()
}

/// A stream of 1 GiB that compresses badly and repeats nowhere, made fast.
fn source() -> String {
    format!("openssl enc -aes-128-ctr -pass pass:x -nosalt -pbkdf2 </dev/zero 2>/dev/null | head -c {GIB}")
}

fn both_ways(host: &str, user: &User) {
    let expected = pipeline(user, &format!("set +o pipefail; {} | sha256sum", source()));
    let up = pipeline(user, &format!("set +o pipefail; {} | $SSH {host} sha256sum", source()));
    assert_eq!(up, expected, "up to {host}");
    let down = pipeline(user, &format!("set +o pipefail; $SSH {host} '{}' | sha256sum", source()));
    assert_eq!(down, expected, "down from {host}");
}

#[test]
fn one_gib_goes_both_ways_to_the_node_with_equal_hashes() {
    if !need(&["ssh", "openssl", "bash"]) {
        return;
    }
    let cluster = Cluster::start();
    let ann = cluster.user("ann", "access");
    both_ways(Cluster::NODE, &ann);
}

#[test]
fn one_gib_goes_both_ways_through_the_tunnel_with_equal_hashes() {
    if !need(&["ssh", "openssl", "bash"]) {
        return;
    }
    let cluster = Cluster::start();
    let _edge = cluster.edge("edge-1");
    let ann = cluster.user("ann", "access");
    both_ways("edge-1", &ann);
}
