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
        &["login", "--bind-addr", "0.0.0.0:4711"],
        &["login", "--bind-addr", "192.0.2.1:4711"],
        &["login", "--bind-addr", "localhost:4711"],
        &["login", "--bind-addr", "127.0.0.1"],
        &["login", "--bind-addr", "127.0.0.1:4711", "--device"],
        &["ls", "novalue"],
        &["scp", "one"],
        &["--proxy", "a b", "ls"],
        &[],
    ] {
        let output = run(home.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{args:?}");
        if !args.is_empty() {
            let said = err(&output);
            assert!(said.starts_with("tsh: ") && said.lines().count() == 2, "{args:?}: {said}");
        }
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
    for (format, printed) in [("text", ""), ("json", "[]\n"), ("yaml", "[]\n")] {
        let status = run(home.path(), &["status", "--format", format]);
        assert_eq!((status.status.code(), out(&status).as_str()), (Some(1), printed), "{}", err(&status));
        assert_eq!(err(&status), "tsh: nobody is logged in; run: tsh login --proxy HOST\n");
    }
}

#[test]
fn a_profile_without_certificates_is_no_login_and_the_advice_repeats_how_it_was_made() {
    let home = tempfile::tempdir().unwrap();
    let profile = "current_proxy: p\nproxies:\n  p:\n    user: ann\n    cluster: root\n    insecure: true\n";
    std::fs::write(home.path().join("profile"), profile).unwrap();
    for args in [&["status"][..], &["ls"]] {
        let output = run(home.path(), args);
        assert_eq!(output.status.code(), Some(1));
        let line = "tsh: ann is not logged in at p:3080; run: tsh login --proxy p:3080 --user ann --insecure\n";
        assert_eq!(err(&output), line);
    }
}

#[test]
fn switches_in_the_environment_are_written_in_the_usual_ways() {
    let home = tempfile::tempdir().unwrap();
    for value in ["1", "0", "yes", "no", "true", "false", "on", "off"] {
        let output =
            tsh(home.path()).env("TSH_INSECURE", value).env("TSH_DEBUG", value).arg("status").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{value}: {}", err(&output));
    }
    let output = tsh(home.path()).env("TSH_INSECURE", "maybe").arg("status").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("'maybe' for '--insecure'"), "{}", err(&output));
}

#[test]
fn a_life_of_certificates_too_short_to_be_used_is_wrong_usage() {
    let home = tempfile::tempdir().unwrap();
    let output = run(home.path(), &["login", "--proxy", "127.0.0.1:1", "--ttl", "5s"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("5s is too short") && err(&output).contains("2m"), "{}", err(&output));
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

    std::fs::create_dir(home.path().join(".ssh")).unwrap();
    let config = home.path().join(".ssh/config");
    std::fs::write(&config, "Host far\n  ProxyJump bastion\nHost near\n  User -x\n").unwrap();
    for (host, said) in [("far", "line 2: option ProxyJump is not supported"), ("near", "line 4: option User cannot")] {
        let refused = ssh(&[host]);
        assert_eq!(refused.status.code(), Some(255));
        let line = err(&refused);
        assert!(line.contains(&format!("{} {said}", config.display())) && line.lines().count() == 1, "{line}");
        assert!(err(&ssh(&["-F", "none", host])).contains("nobody is logged in"));
        assert!(
            err(&run(home.path(), &["ssh", host])).contains("nobody is logged in"),
            "tsh ssh reads no files unasked"
        );
    }
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
