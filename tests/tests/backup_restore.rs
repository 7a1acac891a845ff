//! A backup of a cluster under load, put back by the steps of docs/backup.md into a new data directory: the cluster is the one it was, people log in, nodes come back without a
//! token, and the audit log proves itself.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use remoteler_tests::{Cluster, User, eventually, eventually_within, need, run};

const PATIENCE: Duration = Duration::from_secs(60);

fn reaches(user: &User, node: &str) -> Result<(), String> {
    let out = run(user.openssh("ssh").args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=30", node, "true"]));
    if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
}

// I75
#[test]
fn a_backup_of_a_cluster_under_load_brings_it_back_on_an_empty_disk() {
    if !need(&["ssh"]) {
        return;
    }
    let mut cluster = Cluster::start();
    let edge = cluster.edge("edge-1");
    let [ann, bob] = ["ann", "bob"].map(|name| cluster.user(name, "access"));
    eventually("the edge node is reached", || reaches(&ann, "edge-1"));
    let first = cluster.event("session.end", |event| event["server_hostname"] == "edge-1");
    cluster.tctl(&["lock", "--user", "bob", "--message", "call the help desk"]).ok();
    let authority = cluster.tctl(&["auth", "export", "--type", "host"]).ok().text();
    let nodes = cluster.tctl_json(&["nodes", "ls"]);

    // Backups while people log in, work, and are made.
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let file = |number: usize| cluster.dir().join(format!("backup-{number}.sqlite"));
    std::thread::scope(|scope| {
        let busy: [Box<dyn Fn(usize) + Send>; 3] = [
            Box::new(|_| {
                ann.tsh(&["logout"]).ok();
                ann.login(&[]).ok();
            }),
            Box::new(|number| {
                cluster.tctl(&["users", "add", &format!("made-{number}"), "--roles", "access", "--logins", "x"]).ok();
            }),
            // Not as ann, who logs in and out all the time.
            Box::new(|_| drop(cluster.tctl(&["audit", "ls"]).ok())),
        ];
        for work in busy {
            let (stop, rounds) = (&stop, &rounds);
            scope.spawn(move || {
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    work(number);
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for number in 0..3 {
            let before = rounds.load(Ordering::SeqCst);
            cluster.tctl(&["backup", file(number).to_str().unwrap()]).ok();
            eventually_within(PATIENCE, "the cluster works on meanwhile", || {
                let now = rounds.load(Ordering::SeqCst);
                if now > before + 2 { Ok(()) } else { Err(format!("{now}")) }
            });
        }
        stop.store(true, Ordering::SeqCst);
    });
    let made = cluster.events("backup.create").len();
    assert_eq!(made, 3);

    // The machine is lost, and everything on its disk but the configuration. By docs/backup.md: stop, the backup in its place, start.
    let last = file(2);
    cluster.kill_daemon();
    std::fs::rename(cluster.data_dir(), cluster.dir().join("lost")).unwrap();
    std::fs::create_dir(cluster.data_dir()).unwrap();
    std::fs::set_permissions(cluster.data_dir(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::copy(&last, cluster.data_dir().join("auth.sqlite")).unwrap();
    cluster.start_daemon();
    let _ready = cluster.wait_ready();

    assert_eq!(cluster.tctl(&["auth", "export", "--type", "host"]).ok().text(), authority, "it is the same cluster");
    eventually_within(PATIENCE, "ann logs in", || {
        ann.tsh(&["logout"]).ok();
        let out = ann.login(&[]);
        if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
    });
    // The edge node was never touched, and its token was used up long ago.
    std::fs::remove_file(cluster.dir().join("edge-1.token")).unwrap();
    edge.wait_connected();
    eventually_within(PATIENCE, "the edge node is reached again", || reaches(&ann, "edge-1"));
    eventually_within(PATIENCE, "the node beside the auth service, too", || reaches(&ann, Cluster::NODE));
    let refused = bob.login(&[]);
    let refused = refused.text() + &refused.stderr + &reaches(&bob, "edge-1").unwrap_err();
    assert!(refused.contains("call the help desk"), "the lock is in the backup: {refused}");

    cluster.event("session.end", |event| event["sid"] == first["sid"]);
    cluster.event("session.start", |event| event["server_hostname"] == "edge-1" && event["sid"] != first["sid"]);
    cluster.assert_log_verifies();
    let names = |nodes: &serde_json::Value| -> Vec<String> {
        nodes.as_array().unwrap().iter().map(|node| node["name"].to_string()).collect()
    };
    assert_eq!(names(&cluster.tctl_json(&["nodes", "ls"])), names(&nodes));
}
