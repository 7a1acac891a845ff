//! What a first user meets: what a bare start says, listings that scripts can read, readers that go away, and where a failed start
//! leaves nothing.

use std::{
    io::pipe,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use remoteler_tests::{Cluster, Process, binary, eventually, run};
use serde_json::Value;

/// Names that hold what people chose, or names of Teleport's event reference.
const FREE: &[&str] = &[
    "labels",
    "node_labels",
    "kubernetes_labels",
    "app_labels",
    "traits",
    "listeners",
    "tunnels",
    "exitCode",
    "exitError",
    "addr.remote",
];

fn check_names(value: &Value, path: &str) {
    match value {
        Value::Object(fields) => {
            for (name, below) in fields {
                if FREE.contains(&name.as_str()) {
                    continue;
                }
                let snake = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
                assert!(snake && !name.starts_with('_'), "{path}.{name} is no snake_case");
                check_names(below, &format!("{path}.{name}"));
            }
        }
        Value::Array(entries) => entries.iter().for_each(|entry| check_names(entry, path)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn listings_have_stable_names_in_json_and_the_same_in_yaml() {
    let cluster = Cluster::start();
    let ann = cluster.user("ann", "access,editor,auditor");
    ann.tsh(&["ssh", Cluster::NODE, "true"]).ok();
    cluster.token("node");
    let tsh: &[&[&str]] = &[&["status"], &["ls"], &["clusters"], &["kube", "ls"], &["recordings", "ls"], &["version"]];
    let tctl: &[&[&str]] = &[
        &["status"],
        &["users", "ls"],
        &["tokens", "ls"],
        &["nodes", "ls"],
        &["kube", "ls"],
        &["get", "roles"],
        &["auth", "status"],
        &["audit", "ls"],
    ];
    let asked = |program: &str, args: &[&str], format: &str| {
        let args = [args, &["--format", format]].concat();
        let out = if program == "tsh" { ann.tsh(&args) } else { cluster.tctl(&args) };
        out.ok().text()
    };
    for (program, args) in tsh.iter().map(|args| ("tsh", args)).chain(tctl.iter().map(|args| ("tctl", args))) {
        let json = asked(program, args, "json");
        let value: Value =
            serde_json::from_str(&json).unwrap_or_else(|cause| panic!("{program} {args:?}: {cause}: {json}"));
        let is_list = matches!(args.last(), Some(&("ls" | "clusters" | "roles")));
        assert!(!is_list || value.is_array(), "{program} {args:?}: {json}");
        check_names(&value, &format!("{program} {}", args.join(" ")));
        assert!(!asked(program, args, "yaml").is_empty(), "{program} {args:?}");
    }
    let status: Value = serde_json::from_str(&asked("tsh", &["status"], "json")).unwrap();
    let names: Vec<_> = status[0].as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = ["active", "cluster", "logins", "profile_url", "proxy", "roles", "username", "valid", "valid_until"];
    assert_eq!(names, wanted, "scripts count on these");
    let nodes: Value = serde_json::from_str(&asked("tsh", &["ls"], "json")).unwrap();
    let names: Vec<_> = nodes[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["addr", "host_id", "labels", "last_seen", "name", "version"], "scripts count on these");
}

#[test]
fn listings_of_both_tools_look_alike_and_show_when_a_node_was_heard_of() {
    let cluster = Cluster::start();
    let ann = cluster.user("ann", "access");
    let text = ann.tsh(&["ls"]).ok().text();
    let mut lines = text.lines();
    let titles: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(titles, ["NODE", "ADDRESS", "SEEN", "LABELS"]);
    assert!(lines.next().unwrap().contains("s ago"), "{text}");
    let tables = [
        ann.tsh(&["kube", "ls"]),
        cluster.tctl(&["nodes", "ls"]),
        cluster.tctl(&["users", "ls"]),
        cluster.tctl(&["get", "roles", "--format", "text"]),
    ];
    for table in tables.map(|out| out.ok().text()) {
        let titles = table.lines().next().unwrap();
        assert_eq!(titles, titles.to_uppercase());
        let columns = |line: &str| line.split("  ").filter(|cell| !cell.trim().is_empty()).count();
        assert!(table.lines().all(|line| columns(line) == columns(titles)), "each row has all its columns: {table}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_no_command_with_a_panic() {
    let cluster = Cluster::start();
    let ann = cluster.user("ann", "access");
    let with = |program: &str, args: &[&str]| {
        let mut command = Command::new(binary(program));
        ann.environment(&mut command);
        command.args(args);
        command
    };
    let data_dir = cluster.data_dir();
    let data_dir = data_dir.to_str().unwrap();
    for (program, args) in [
        ("remoteler", &["status", "--data-dir", data_dir][..]),
        ("remoteler", &["version"]),
        ("remoteler", &["configure"]),
        ("remoteler", &["start", "--help"]),
        ("tsh", &["ls"]),
        ("tsh", &["status"]),
        ("tsh", &["ssh", "--help"]),
        ("tctl", &["--data-dir", data_dir, "users", "ls"]),
    ] {
        // What `| head -0` does, without its race: the reader is gone before the first octet.
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let child = with(program, args).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let out = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!((out.status.code(), said.as_ref()), (Some(0), ""), "{program} {args:?}");
    }
}

#[test]
fn a_start_without_a_word_about_services_says_what_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("empty.yaml");
    std::fs::write(&config, "").unwrap();
    let data_dir = dir.path().join("data");
    let mut command = Command::new(binary("remoteler"));
    command.args(["start", "--listen-ip", "127.0.0.9", "-c"]).arg(&config).arg("--data-dir").arg(&data_dir);
    let mut daemon = Process::start(&mut command, &dir.path().join("log"));
    eventually("it says what it is", || {
        // The usual ports may be taken on this machine; then it ends, and has said so before.
        let log = daemon.log();
        let said = log.contains("this process is a whole cluster: it runs auth, proxy, node and listens on 127.0.0.9");
        if said { Ok(()) } else { Err(log) }
    });
    daemon.signal(Signal::SIGTERM);
    daemon.wait(Duration::from_secs(70));
}

#[test]
fn however_the_demo_is_ended_its_edge_node_ends_too_and_its_directory_goes() {
    for how in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let dir = tempfile::tempdir().unwrap();
        let (temporary, log) = (dir.path().join("t"), dir.path().join("log"));
        std::fs::create_dir(&temporary).unwrap();
        let mut demo = Process::start(Command::new(binary("remoteler")).arg("demo").env("TMPDIR", &temporary), &log);
        let edge = eventually("the demo tells its story to the end", || {
            let said = demo.log();
            let edge = said.lines().find_map(|line| line.trim().strip_prefix("kill -9 ")?.split(' ').next());
            edge.map(|id| format!("/proc/{id}/cmdline")).ok_or(said)
        });
        let lives = || std::fs::read(&edge).is_ok_and(|words| !words.is_empty());
        assert!(lives(), "the story names the edge node's process");
        demo.signal(how);
        assert_eq!(demo.wait(Duration::from_secs(20)), Some(0), "{how}");
        eventually("the edge node is gone", || if lives() { Err(format!("{how}: {edge} is there")) } else { Ok(()) });
        assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "{how}");
    }
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (token, data_dir) = (dir.path().join("token"), dir.path().join("data"));
    std::fs::write(&token, "\n").unwrap();
    let start = || {
        let mut command = Command::new(binary("remoteler"));
        command.args(["start", "--auth-server", "127.0.0.1:1", "--insecure", "--token"]).arg(&token);
        run(command.arg("--data-dir").arg(&data_dir)).one_line_failure()
    };
    let line = start();
    assert!(line.contains(&format!("file {} is empty", token.display())) && line.contains("tctl tokens add"), "{line}");
    assert!(!data_dir.exists(), "the directory was made for nothing");
    std::fs::create_dir(&data_dir).unwrap();
    start();
    assert_eq!(std::fs::read_dir(&data_dir).unwrap().count(), 0, "neither lock nor socket stays");
}

#[test]
fn debug_output_says_which_proxy_certificate_and_step_and_has_no_colours_in_a_pipe() {
    let cluster = Cluster::start();
    let ann = cluster.user("ann", "access");
    let said = ann.tsh(&["ssh", "-v", Cluster::NODE, "true"]).ok().stderr;
    for named in [
        "certificates found",
        "serial=",
        "valid_until=",
        cluster.proxy(),
        "connecting to the proxy",
        "TLSv1_3",
        "logged in",
    ] {
        assert!(said.contains(named), "{named} in {said}");
    }
    assert!(!said.contains('\u{1b}'), "{said:?}");
    assert!(said.lines().count() < 20, "{said}");
    let said = ann.tsh(&["-d", "ls"]).ok().stderr;
    assert!(said.contains("asking the auth service") && said.contains(cluster.proxy()), "{said}");
}
