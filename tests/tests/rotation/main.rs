//! An authority is replaced while everything works: logins, live SSH sessions, reverse tunnels and a `kubectl --watch` go through each
//! phase and through a rollback from each. Afterwards what the old authority issued is refused everywhere.
//!
//! `REMOTELER_ROTATION_SESSIONS`, `REMOTELER_ROTATION_EDGES` and `REMOTELER_ROTATION_LOGINS` set the load; without them it is 8 sessions,
//! 2 edge nodes and 4 logins a second.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod load;

use std::{env, fs, path::Path, process::Command};

use remoteler_tests::{ApiServer, Cluster, ClusterOptions, Process, User, binary, eventually, need, run};
use serde_json::json;

use load::{Logins, Session, Visitors};

/// Every way through the phases: a rollback from each, then to the end.
const PATHS: [&[&str]; 4] = [
    &["init", "rollback", "standby"],
    &["init", "update_clients", "rollback", "standby"],
    &["init", "update_clients", "update_servers", "rollback", "standby"],
    &["init", "update_clients", "update_servers", "standby"],
];

/// What is rotated, one after the other.
const KINDS: [&str; 3] = ["user", "host", "token"];
/// How many nodes somebody logs in to anew in each phase; all have their turn.
const VISITED: usize = 8;

fn load(name: &str, usual: usize) -> usize {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[track_caller]
fn runs(user: &User, host: &str) {
    let mut ssh = user.openssh("ssh");
    run(ssh.args([host, "echo", "there"])).ok();
}

fn copy_home(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to)).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_are_replaced_and_rolled_back_while_everything_works() {
    if !need(&["ssh", "kubectl"]) {
        return;
    }
    let api_server = ApiServer::start().await.unwrap();
    api_server.expect("ann", &["developers", "viewers"]);
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = api_server.write_kubeconfig(dir.path()).unwrap();
    let kube = format!(
        "kubernetes_service:\n  enabled: yes\n  kubeconfig_file: {}\n  kube_cluster_name: here\n",
        kubeconfig.display()
    );
    let cluster = Cluster::start_with(ClusterOptions { extra_config: kube, ..ClusterOptions::default() });
    let edges: Vec<_> =
        (0..load("REMOTELER_ROTATION_EDGES", 2)).map(|number| cluster.edge(&format!("edge-{number}"))).collect();
    let traits = ["kubernetes_groups=developers", "kubernetes_groups=viewers"];
    let ann = User::create_with_traits(&cluster, "ann", "access", &traits);
    let hosts: Vec<String> =
        edges.iter().map(|edge| edge.name().to_owned()).chain([Cluster::NODE.to_owned()]).collect();
    for host in &hosts {
        eventually("the node is reached", || {
            let out = run(ann.openssh("ssh").args([host.as_str(), "true"]));
            if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
        });
    }
    ann.tsh(&["kube", "login", "here"]).ok();

    let mut sessions: Vec<_> = (0..load("REMOTELER_ROTATION_SESSIONS", 8))
        .map(|number| Session::open(&ann, &hosts[number % hosts.len()]))
        .collect();
    let mut watch = Command::new("kubectl");
    ann.environment(&mut watch);
    watch.args(["get", "configmaps", "--watch", "-o", "name", "--namespace", "dev"]);
    let mut watch = Process::start(&mut watch, &cluster.dir().join("watch.log"));
    eventually("kubectl watches", || {
        let begun = api_server.seen().iter().any(|seen| seen.target.contains("watch=true"));
        if begun { Ok(()) } else { Err(watch.log()) }
    });
    let visitors = Visitors::start((0..2).map(|number| cluster.user(&format!("visitor-{number}"), "access")).collect());

    let regulars: Vec<_> = (0..4).map(|number| cluster.user(&format!("regular-{number}"), "access")).collect();
    let a_second = u32::try_from(load("REMOTELER_ROTATION_LOGINS", 4)).unwrap();
    let logins = Logins::start(cluster.proxy(), &regulars, a_second);

    let mut round = hosts.iter().cycle();
    for kind in KINDS {
        for path in PATHS {
            for phase in path {
                cluster.rotate(kind, phase);
                ann.asks_a_minute_later();
                for host in round.by_ref().take(VISITED.min(hosts.len())) {
                    runs(&ann, host);
                }
                for session in &mut sessions {
                    session.echoes(phase);
                }
                visitors.pass_by();
                // Who logged in before a rotation of users logs in anew before it ends: that is what the grace period is for.
                if kind == "user" && matches!(*phase, "update_servers" | "rollback") {
                    ann.tsh(&["logout"]).ok();
                    ann.login(&[]).ok();
                }
            }
        }
    }
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {}});
    api_server.put("configmaps", "dev", "afterwards", object);
    eventually("the watch is alive", || {
        assert!(watch.runs(), "{}", watch.log());
        if watch.log().contains("configmap/afterwards") { Ok(()) } else { Err(watch.log()) }
    });
    for session in &mut sessions {
        session.echoes("last");
    }
    for edge in &edges {
        edge.wait_connected();
    }
    let visits = visitors.end();
    let (told, count) = logins.end().await;
    assert!(count > 0);
    eprintln!(
        "{told}; {visits} visits by tsh, {} sessions, {} tunnels and a watch went through {} rotations",
        sessions.len(),
        edges.len(),
        KINDS.len() * PATHS.len()
    );
    // What the tunnels went through is in the audit log: each connected once, and never again.
    let connected = cluster.events("tunnel.connect");
    assert_eq!(connected.len(), edges.len(), "{connected:?}");
    assert_eq!(cluster.events("ca.rotate").len(), KINDS.len() * PATHS.iter().map(|path| path.len()).sum::<usize>());
}

// I1, I14
#[test]
fn what_a_retired_authority_issued_is_refused_at_every_door() {
    if !need(&["ssh", "curl"]) {
        return;
    }
    let cluster = Cluster::start();
    let mut edge = cluster.edge("edge-1");
    let ann = cluster.user("ann", "access");
    eventually("the node is reached", || {
        let out = run(ann.openssh("ssh").args(["edge-1", "true"]));
        if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
    });
    // A thief's copies: of a user's certificates and of a host's.
    let stolen = cluster.dir().join("stolen");
    fs::create_dir(&stolen).unwrap();
    copy_home(&ann.tsh_home(), &stolen.join("tsh"));
    copy_home(edge.data_dir(), &stolen.join("edge"));

    for kind in ["user", "host"] {
        for phase in ["init", "update_clients", "update_servers", "standby"] {
            cluster.rotate(kind, phase);
            ann.asks_a_minute_later();
            if kind == "user" && phase == "update_clients" {
                ann.tsh(&["logout"]).ok();
                ann.login(&[]).ok();
            }
        }
    }
    runs(&ann, "edge-1");
    runs(&ann, Cluster::NODE);

    // The thief knows the authorities of the moment; the certificates are all that is old.
    let host = cluster.proxy().rsplit_once(':').unwrap().0;
    let cas = Path::new("keys").join(host).join("cas.pem");
    fs::copy(ann.tsh_home().join(&cas), stolen.join("tsh").join(&cas)).unwrap();
    fs::copy(ann.tsh_home().join("known_hosts"), stolen.join("tsh/known_hosts")).unwrap();
    let refused = |args: &[&str]| {
        let mut tsh = ann.tsh_command();
        let out = run(tsh.env("TSH_HOME", stolen.join("tsh")).args(args));
        assert_ne!(out.code, Some(0), "{args:?}");
    };
    refused(&["ls"]);
    refused(&["ssh", Cluster::NODE, "true"]);
    refused(&["ssh", "edge-1", "true"]);
    eventually("the proxy has refused and said so", || {
        let seen = refusals(&cluster);
        if seen.iter().any(|event| event["service"] == "proxy") { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    // At the node itself, past the proxy.
    let keys = stolen.join("tsh/keys").join(host);
    let (address, port) = cluster.node().rsplit_once(':').unwrap();
    let mut ssh = Command::new("ssh");
    ssh.args([
        "-F",
        "none",
        "-p",
        port,
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "IdentitiesOnly=yes",
    ])
    .args(["-o", "UserKnownHostsFile=/dev/null", "-i"])
    .arg(keys.join("ann"))
    .arg("-o")
    .arg(format!("CertificateFile={}", keys.join("ann-cert.pub").display()))
    .args([&format!("{}@{address}", remoteler_tests::os_login()), "true"]);
    assert_eq!(run(&mut ssh).code, Some(255));
    cluster.event("auth", |event| event["service"] == "node");

    // The host's old certificates, with the knowledge of today: no link and no call.
    edge.process().kill_hard();
    fs::copy(edge.data_dir().join("policy.json"), stolen.join("edge/policy.json")).unwrap();
    let before = refusals(&cluster);
    let mut old = Command::new(binary("remoteler"));
    old.args(["start", "--auth-server", cluster.proxy(), "--nodename", "edge-1", "--data-dir"])
        .arg(stolen.join("edge"));
    let old = Process::start(&mut old, &cluster.dir().join("old.log"));
    eventually("the old host is refused", || {
        let new: Vec<_> = refusals(&cluster).split_off(before.len());
        let of = |service: &str| new.iter().any(|event| event["service"] == service);
        if of("proxy") && of("auth") { Ok(()) } else { Err(format!("{new:?}\n{}", old.log())) }
    });
    assert_eq!(cluster.events("tunnel.connect").len(), 1);
}

/// Refusals for the sake of the authority.
fn refusals(cluster: &Cluster) -> Vec<serde_json::Value> {
    let mut events = cluster.events("auth");
    events.retain(|event| {
        let error = event["error"].as_str().unwrap_or_default();
        error.contains("UnknownIssuer") || error.contains("was not signed by")
    });
    events
}
