//! A cluster whose disks are full, each in its turn: auth service, proxy and two nodes have a small file system of their own each. Nobody is locked out of the cluster, sessions
//! begin and end as the policy of the spool says, nothing is lost that was acknowledged, and all is as before when there is room.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

use remoteler_tests::{Cluster, ClusterOptions, Edge, Process, Proxy, SmallDisk, User, eventually_within, need, run};
use rusqlite::Connection;

const PATIENCE: Duration = Duration::from_secs(60);

/// A shell with a terminal, which is recorded.
struct Shell {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn open(user: &User, node: &str) -> Self {
        let mut command = user.openssh("ssh");
        command.args(["-tt", "-o", "BatchMode=yes", node, "stty -echo; exec cat"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut shell = Self { child, output };
        assert!(shell.echoes("hello"), "it begins");
        shell
    }

    /// Whether it still answers.
    fn echoes(&mut self, word: &str) -> bool {
        if writeln!(self.child.stdin.as_mut().unwrap(), "{word}").is_err() {
            return false;
        }
        let mut line = String::new();
        while !line.contains(word) {
            let before = line.len();
            if self.output.read_line(&mut line).is_err() || line.len() == before {
                return false;
            }
        }
        true
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reaches(user: &User, node: &str) -> Result<(), String> {
    let out = run(user.openssh("ssh").args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=30", node, "true"]));
    if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
}

fn logs_in(user: &User) {
    user.tsh(&["logout"]).ok();
    user.login(&[]).ok();
}

/// A node with a small disk of its own.
fn node(cluster: &Cluster, name: &str, proxy: &str, when_full: &str) -> (Edge, SmallDisk) {
    let disk = SmallDisk::mount(&cluster.dir().join(name), 8).unwrap();
    let config = cluster.dir().join(format!("{name}.yaml"));
    let text = format!("remoteler:\n  audit_spool: {{ when_full: {when_full} }}\nssh_service:\n  enabled: yes\n");
    std::fs::write(&config, text).unwrap();
    let edge = Edge::launch(cluster, name, proxy, &["-c", config.to_str().unwrap()], &[]);
    edge.wait_connected();
    (edge, disk)
}

#[test]
fn full_disks_lock_nobody_out_and_lose_nothing_that_was_acknowledged() {
    if !need(&["ssh"]) || !SmallDisk::is_possible() {
        return;
    }
    let options = ClusterOptions { roles: "auth".into(), disk: Some(32), ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with(options);
    let proxy_disk = SmallDisk::mount(&cluster.dir().join("proxy"), 8).unwrap();
    let mut proxy = Proxy::join(&cluster, "proxy");
    let address = proxy.address().to_owned();
    let (mut denies, deny_disk) = node(&cluster, "denies", &address, "deny");
    let (mut drops, drop_disk) = node(&cluster, "drops", &address, "drop-and-say-so");
    let ann = User::create_at(&cluster, "ann", "access", &address);
    for name in ["denies", "drops"] {
        eventually_within(PATIENCE, "the node is reached", || reaches(&ann, name));
    }

    // The nodes. With `deny` nothing begins that cannot be written down, and a session that cannot be recorded any more ends.
    let mut shells = ["denies", "drops"].map(|name| Shell::open(&ann, name));
    deny_disk.fill();
    drop_disk.fill();
    eventually_within(PATIENCE, "a session on a node that denies does not begin", || {
        reaches(&ann, "denies").map_or_else(|_| Ok(()), |()| Err("it began".into()))
    });
    eventually_within(PATIENCE, "a session on a node that drops begins", || reaches(&ann, "drops"));
    for (shell, name) in shells.iter_mut().zip(["denies", "drops"]) {
        // What was typed is recorded a moment later, so it ends at one of the next lines.
        eventually_within(PATIENCE, &format!("the recorded session on {name} ends"), || {
            if shell.echoes("still here") { Err("it goes on".into()) } else { Ok(()) }
        });
    }
    logs_in(&ann);
    deny_disk.free();
    drop_disk.free();
    for name in ["denies", "drops"] {
        eventually_within(PATIENCE, "with room sessions begin again", || reaches(&ann, name));
        assert!(Shell::open(&ann, name).echoes("and go on"));
    }
    cluster.event("audit.dropped", |event| event["count"].as_u64().is_some_and(|count| count > 0));
    cluster.event("session.end", |event| event["server_hostname"] == "denies");

    // The proxy: it keeps nothing that people need to get in.
    proxy_disk.fill();
    logs_in(&ann);
    for name in ["denies", "drops"] {
        eventually_within(PATIENCE, "the proxy's full disk keeps nobody out", || reaches(&ann, name));
    }
    ann.tsh(&["ls"]).ok();
    proxy_disk.free();

    // The auth service: people and administrators are served, services keep their events.
    let before = cluster.events("session.start").len();
    cluster.disk().fill();
    logs_in(&ann);
    cluster.tctl(&["users", "ls"]).ok();
    cluster.tctl(&["users", "add", "bob", "--roles", "access", "--logins", "bob"]).ok();
    cluster.tctl(&["lock", "--user", "bob", "--message", "not yet"]).ok();
    for _ in 0..3 {
        reaches(&ann, "denies").unwrap();
        reaches(&ann, "drops").unwrap();
    }
    // Nobody is locked out by a restart, either.
    cluster.kill_daemon();
    cluster.start_daemon();
    let _ready = cluster.wait_ready();
    logs_in(&ann);
    cluster.disk().free();
    eventually_within(2 * PATIENCE, "what the services kept arrives", || {
        let count = cluster.events("session.start").len();
        if count >= before + 6 { Ok(()) } else { Err(format!("{count} of {}", before + 6)) }
    });
    for name in ["denies", "drops"] {
        eventually_within(PATIENCE, "all is as before", || reaches(&ann, name));
    }
    cluster.tctl(&["get", "user/bob"]).ok();

    // Nothing is corrupt: every event proves itself, the database is whole, and a backup of it is.
    cluster.assert_log_verifies(); // I75
    let backup = cluster.dir().join("backup.sqlite");
    cluster.tctl(&["backup", backup.to_str().unwrap()]).ok();
    let ends = [proxy.process(), denies.process(), drops.process()];
    ends.into_iter().for_each(Process::kill_hard);
    cluster.kill_daemon();
    for file in [backup, cluster.data_dir().join("auth.sqlite")] {
        let database = Connection::open(&file).unwrap();
        let said: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(said, "ok", "{}", file.display());
    }
}
