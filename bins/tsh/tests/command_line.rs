//! What `tsh` answers on the command line when there is no cluster: exit codes, one-line errors, and recordings played from files.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

fn tsh(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tsh"));
    command.env_clear().env("TSH_HOME", home).env("HOME", home).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

fn run(home: &Path, args: &[&str]) -> Output {
    tsh(home).args(args).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const CAST: &str = concat!(
    r#"{"version":2,"width":80,"height":24,"timestamp":1772366400,"env":{"TERM":"xterm"}}"#,
    "\n",
    r#"[0.0,"o","$ \u001b[1mid\u001b[0m\r\n"]"#,
    "\n",
    r#"[0.25,"r","100x30"]"#,
    "\n",
    r#"[0.5,"o","uid=0(root)\r\n"]"#,
    "\n"
);

#[test]
fn wrong_usage_is_2_and_help_is_0_on_every_level() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &["nonsense"][..],
        &["login", "--ttl", "soon"],
        &["ls", "novalue"],
        &["scp", "one"],
        &["--proxy", "a b", "ls"],
        &[],
    ] {
        let output = run(home.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{args:?}");
    }
    for args in
        [&["--help"][..], &["login", "--help"], &["kube", "--help"], &["kube", "login", "--help"], &["ssh", "--help"]]
    {
        let output = run(home.path(), args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(out(&output).contains("Example:"), "{args:?}");
    }
}

#[test]
fn without_a_login_each_command_says_what_to_do_in_one_line() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &["ls"][..],
        &["clusters"],
        &["config"],
        &["kube", "ls"],
        &["recordings", "ls"],
        &["proxy", "ssh", "root@n:22"],
    ] {
        let output = run(home.path(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_eq!(err(&output), "tsh: nobody is logged in; run: tsh login --proxy HOST\n", "{args:?}");
    }
    let status = run(home.path(), &["status"]);
    assert_eq!((status.status.code(), out(&status).as_str()), (Some(0), "Not logged in.\n"));
    let json = run(home.path(), &["status", "--format", "json"]);
    assert_eq!(out(&json), "[]\n");
}

#[test]
fn ssh_exits_with_255_when_it_cannot_connect_or_is_called_wrongly() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["ssh", "root@node"][..], &["ssh"], &["ssh", "-A", "node"], &["ssh", "-o", "ProxyJump=x", "node"]] {
        let output = run(home.path(), args);
        assert_eq!(output.status.code(), Some(255), "{args:?}");
        assert_eq!(err(&output).lines().count(), 1, "{args:?}: {}", err(&output));
    }
}

#[test]
fn called_as_ssh_it_takes_the_command_line_of_ssh() {
    let home = tempfile::tempdir().unwrap();
    let link = home.path().join("ssh");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tsh"), &link).unwrap();
    let ssh = |args: &[&str]| Command::new(&link).env_clear().env("HOME", home.path()).args(args).output().unwrap();

    let version = ssh(&["-V"]);
    assert!(version.status.success() && out(&version).starts_with("tsh "), "{}", err(&version));
    let refused = ssh(&["-i", "key", "host"]);
    assert_eq!(refused.status.code(), Some(255));
    assert!(err(&refused).contains("option -i is not supported"), "{}", err(&refused));
    assert_eq!(ssh(&["ls"]).status.code(), Some(255), "a host, not a command of tsh");
}

#[test]
fn a_password_for_an_address_where_nobody_listens_is_not_asked_for() {
    let home = tempfile::tempdir().unwrap();
    // Bound and not listening: nobody else gets the port, and connections are refused.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);

    let output = run(home.path(), &["login", "--proxy", &format!("127.0.0.1:{port}"), "--user", "ann", "--insecure"]);

    assert_eq!(output.status.code(), Some(1));
    let last = err(&output).lines().last().unwrap_or_default().to_owned();
    assert!(last.contains(&format!("127.0.0.1:{port}")) && last.contains("reach"), "{last}");
}

#[test]
fn a_mistake_in_the_profile_is_reported_with_its_line() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("profile"), "current_proxy: p\nproxies:\n  p:\n    usr: ann\n").unwrap();

    let output = run(home.path(), &["status"]);

    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("profile") && err(&output).contains("line 4"), "{}", err(&output));
}

#[test]
fn a_recording_is_played_and_printed_in_every_format() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("session.cast");
    std::fs::write(&file, CAST).unwrap();
    let file = file.to_str().unwrap();

    let played = run(home.path(), &["play", file, "--speed", "100x"]);
    assert_eq!(out(&played), "$ \u{1b}[1mid\u{1b}[0m\r\nuid=0(root)\r\n", "{}", err(&played));
    assert_eq!(out(&run(home.path(), &["play", file, "--format", "text"])), "$ id\nuid=0(root)\n");
    assert_eq!(out(&run(home.path(), &["play", file, "--format", "cast"])), CAST);
    let json: serde_json::Value =
        serde_json::from_str(&out(&run(home.path(), &["play", file, "--format", "json"]))).unwrap();
    assert_eq!(json["header"]["width"], 80);
    assert_eq!(json["events"][1], serde_json::json!({"time": 0.25, "type": "resize", "width": 100, "height": 30}));
    assert_eq!(json["events"].as_array().unwrap().len(), 3);
}

#[test]
fn what_is_no_recording_is_refused_in_one_line() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("notes.txt");
    std::fs::write(&file, "hello\n").unwrap();

    for (source, said) in [(file.to_str().unwrap(), "no recording"), ("nowhere", "neither a session id nor a file")] {
        let output = run(home.path(), &["play", source]);
        assert_eq!(output.status.code(), Some(1));
        assert!(err(&output).contains(said) && err(&output).lines().count() == 1, "{}", err(&output));
    }
}

#[test]
fn the_version_names_commit_and_target() {
    let home = tempfile::tempdir().unwrap();
    let line = out(&run(home.path(), &["--version"]));
    assert!(line.starts_with(&format!("tsh {} (commit ", env!("CARGO_PKG_VERSION"))), "{line}");
    let json: serde_json::Value =
        serde_json::from_str(&out(&run(home.path(), &["version", "--format", "json"]))).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
}
