//! Wrong input gets one clear line and exit code 1; nothing is lost or half written.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, process::Command, time::Duration};

use remoteler_tests::{Cluster, Edge, binary, run};

fn start(args: &[&str]) -> remoteler_tests::Outcome {
    run(Command::new(binary("remoteler")).arg("start").args(args))
}

fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("rt-").tempdir_in("/tmp").unwrap()
}

#[test]
fn an_unknown_config_key_is_named_with_line_and_nearest_key() {
    let dir = scratch();
    let config = dir.path().join("c.yaml");
    fs::write(&config, "version: v1\nssh_service:\n  enabled: yes\n  lables: { a: b }\n").unwrap();
    let line = start(&["-c", config.to_str().unwrap()]).one_line_failure();
    assert!(line.contains("line 4") && line.contains("lables") && line.contains("labels"), "{line}");
}

#[test]
fn a_wrong_token_is_refused_and_the_host_may_try_again_with_the_right_one() {
    let cluster = Cluster::start();
    let (token, pin) = cluster.token("node");
    let data = cluster.dir().join("edge");
    let args = |token: &str| {
        let words =
            ["--auth-server", cluster.proxy(), "--token", token, "--ca-pin", &pin, "--nodename", "edge", "--data-dir"];
        let mut words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        words.push(data.display().to_string());
        words
    };
    let wrong = args("0123456789abcdef0123456789abcdef");
    let line = start(&wrong.iter().map(String::as_str).collect::<Vec<_>>()).one_line_failure();
    assert!(line.contains("token"), "{line}");
    cluster.event("instance.join", |event| event["success"] == false && event["node_name"] == "edge");

    let mut command = Command::new(binary("remoteler"));
    let mut process =
        remoteler_tests::Process::start(command.arg("start").args(args(&token)), &cluster.dir().join("edge.log"));
    cluster.event("instance.join", |event| event["success"] == true && event["node_name"] == "edge");
    assert!(process.runs());
}

#[test]
fn a_wrong_ca_pin_is_refused_before_the_token_is_sent() {
    let cluster = Cluster::start();
    let (token, _) = cluster.token("node");
    let pin = format!("sha256:{}", "0".repeat(64));
    let data = cluster.dir().join("edge");
    let line = start(&[
        "--auth-server",
        cluster.proxy(),
        "--token",
        &token,
        "--ca-pin",
        &pin,
        "--data-dir",
        data.to_str().unwrap(),
    ])
    .one_line_failure();
    assert!(line.contains("pin"), "{line}"); // I15
    assert!(cluster.events("instance.join").iter().all(|event| event["node_name"] == Cluster::NODE));
    // Neither does it join without a pin, unless told to believe anybody.
    let line = start(&["--auth-server", cluster.proxy(), "--token", &token, "--data-dir", data.to_str().unwrap()])
        .one_line_failure();
    assert!(line.contains("--ca-pin"), "{line}");
}

#[test]
fn a_second_host_of_the_same_name_is_refused() {
    let cluster = Cluster::start();
    let _first = cluster.edge("gw-1");
    let mut second = {
        let (token, pin) = cluster.token("node");
        let data = cluster.dir().join("other");
        start(&[
            "--auth-server",
            cluster.proxy(),
            "--token",
            &token,
            "--ca-pin",
            &pin,
            "--nodename",
            "gw-1",
            "--data-dir",
            data.to_str().unwrap(),
        ])
    };
    second.stderr.retain(|c| c != '\r');
    let line = second.one_line_failure(); // I28
    assert!(line.contains("gw-1"), "{line}");
    cluster.event("instance.join", |event| event["success"] == false && event["node_name"] == "gw-1");
}

#[test]
fn a_port_in_use_is_named() {
    let dir = scratch();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap();
    let config = dir.path().join("c.yaml");
    let text = format!(
        "remoteler: {{ data_dir: {} }}\nauth_service: {{ listen_addr: \"127.0.0.1:0\" }}\nproxy_service: {{ listen_addr: \"{port}\" }}\n",
        dir.path().join("data").display()
    );
    fs::write(&config, text).unwrap();
    let line = start(&["-c", config.to_str().unwrap()]).one_line_failure();
    assert!(line.contains(&port.to_string()) && line.contains("in use"), "{line}");
}

#[test]
fn a_data_dir_that_is_a_file_or_cannot_be_written_is_named() {
    let dir = scratch();
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    let line = start(&["--data-dir", file.to_str().unwrap()]).one_line_failure();
    assert!(line.contains(file.to_str().unwrap()), "{line}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    let line = start(&["--data-dir", "/proc/nothing"]).one_line_failure();
    assert!(line.contains("/proc/nothing"), "{line}");
}

#[test]
fn a_data_dir_of_another_user_is_refused_and_left_alone() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can make a directory of another user");
        return;
    }
    let dir = scratch();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    nix::unistd::chown(&data, Some(12345.into()), None).unwrap();
    let line = start(&["--data-dir", data.to_str().unwrap()]).one_line_failure();
    assert!(line.contains("12345"), "{line}");
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
}

#[test]
fn a_data_dir_of_a_newer_version_is_refused_and_not_changed() {
    let mut cluster = Cluster::start();
    cluster.kill_daemon();
    let databases: Vec<_> = walk(&cluster.data_dir())
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "sqlite" || e == "db"))
        .collect();
    assert!(!databases.is_empty(), "{:?}", walk(&cluster.data_dir()));
    for database in &databases {
        run(Command::new("sqlite3").arg(database).arg("PRAGMA user_version = 9999; PRAGMA wal_checkpoint(TRUNCATE);"))
            .ok();
    }
    let before: Vec<_> = databases.iter().map(|path| fs::read(path).unwrap()).collect();
    let line = start(&["-c", cluster.config().to_str().unwrap()]).one_line_failure();
    assert!(line.contains("newer"), "{line}");
    for (path, before) in databases.iter().zip(before) {
        assert!(fs::read(path).unwrap() == before, "{} was changed", path.display());
    }
}

#[test]
fn a_second_daemon_on_the_same_data_dir_is_refused() {
    let mut cluster = Cluster::start();
    let line = start(&["-c", cluster.config().to_str().unwrap()]).one_line_failure();
    assert!(line.contains("data"), "{line}");
    assert!(cluster.daemon().runs());
}

#[test]
fn a_full_disk_gives_one_line_and_leaves_nothing_half_written() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can mount a small file system");
        return;
    }
    let dir = scratch();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&disk));
    if mounted.code != Some(0) {
        eprintln!("SKIPPED: no file system can be mounted here: {}", mounted.stderr);
        return;
    }
    let config = dir.path().join("c.yaml");
    let text = format!(
        "remoteler: {{ data_dir: {} }}\nauth_service: {{ listen_addr: \"127.0.0.1:0\" }}\n\
         proxy_service: {{ listen_addr: \"127.0.0.1:0\" }}\nssh_service: {{ listen_addr: \"127.0.0.1:0\" }}\n",
        disk.join("data").display()
    );
    fs::write(&config, text).unwrap();
    let outcome = start(&["-c", config.to_str().unwrap()]);
    run(Command::new("umount").arg("-l").arg(&disk)).ok();
    let line = outcome.one_line_failure();
    assert!(line.contains("full") || line.contains("No space"), "{line}");
}

#[test]
fn an_expired_certificate_says_so_and_what_to_do() {
    let cluster = Cluster::start();
    let ann = cluster.user("ann", "access");
    ann.log_in_for_a_second(&cluster);
    // `tsh` takes certificates for ended that are about to end, so that scripts can ask before they begin.
    let status = ann.tsh(&["status"]);
    assert_eq!(status.code, Some(1), "{}", status.stderr);
    assert!(status.text().contains("Logged in as:") && status.stderr.lines().count() == 1, "{}", status.stderr);
    assert!(status.stderr.contains("--user ann --insecure"), "the advice is how the login was made: {}", status.stderr);
    let said = remoteler_tests::eventually("the certificate ends", || {
        let out = ann.tsh(&["ssh", Cluster::NODE, "true"]);
        if out.code == Some(0) { Err("still valid".into()) } else { Ok(out) }
    });
    assert!(said.stderr.contains("log in") || said.stderr.contains("tsh login"), "{}", said.stderr);
    // What skips tsh meets the same end at the node.
    let out = run(ann.openssh("ssh").args(["-o", "BatchMode=yes", Cluster::NODE, "true"]));
    assert_eq!(out.code, Some(255));
}

#[test]
fn a_wrong_password_is_refused_without_saying_whether_the_user_exists() {
    let cluster = Cluster::start();
    let _ann = cluster.user("ann", "access");
    let attempt = |user: &str| {
        let home = cluster.dir().join(format!("try-{user}"));
        let mut tsh = Command::new(binary("tsh"));
        tsh.env("HOME", &home).env("TSH_HOME", home.join(".tsh")).env_remove("SSH_AUTH_SOCK");
        tsh.args(["login", "--insecure", "--proxy", cluster.proxy(), "--user", user]);
        remoteler_tests::run_with_input(&mut tsh, b"wrong password\n").stderr.replace(user, "USER")
    };
    assert_eq!(attempt("ann"), attempt("nobody"));
    cluster.event("user.login", |event| event["success"] == false && event["user"] == "ann");
}

#[test]
fn sigterm_ends_the_daemon_with_exit_code_zero() {
    let mut cluster = Cluster::start();
    cluster.daemon().signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(cluster.daemon().wait(Duration::from_secs(15)), Some(0));
}

#[test]
fn an_edge_daemon_listens_on_no_port_at_all() {
    let cluster = Cluster::start();
    let mut edge = Edge::join(&cluster, "edge-1", &[]);
    let pid = edge.process().id();
    let inodes: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        for line in fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default().lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let listening = table.starts_with("udp") || fields[3] == "0A";
            assert!(!(listening && inodes.iter().any(|inode| inode == fields[9])), "{table}: {line}");
        }
    }
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}
