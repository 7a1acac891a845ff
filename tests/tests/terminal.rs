//! A terminal session driven through a pseudo terminal: prompt, window change, Ctrl-C, exit status, recording.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{process::Command, time::Duration};

use expectrl::{Expect, Session, process::unix::WaitStatus};
use remoteler_tests::{Cluster, User, need};

fn open(command: Command) -> expectrl::session::OsSession {
    let mut session = Session::spawn(command).expect("the command starts in a pseudo terminal");
    session.set_expect_timeout(Some(Duration::from_secs(60)));
    session.get_process_mut().set_window_size(80, 24).expect("a pseudo terminal has a size");
    session
}

/// What a person does in a shell; ends with exit status 7.
fn drive(mut session: expectrl::session::OsSession) {
    session.send_line("PS1='rt-prompt> '").unwrap();
    session.expect("rt-prompt> ").unwrap();
    session.send_line("tty; echo size $(stty size)").unwrap();
    session.expect("/dev/pts/").unwrap();
    session.expect("size 24 80").unwrap();

    session.get_process_mut().set_window_size(111, 33).unwrap();
    // The change travels beside the keys, so the question is asked until it has arrived.
    session.send_line("until [ \"$(stty size)\" = '33 111' ]; do sleep 0.05; done; echo resized-${UID:+now}").unwrap();
    session.expect("resized-now").unwrap();

    // What is printed comes from the program in the foreground: Ctrl-C before that would reach the shell alone.
    session.send_line("sh -c 'echo waiting-$((40+2)); exec cat'").unwrap();
    session.expect("waiting-42").unwrap();
    session.send("\x03").unwrap();
    session.expect("rt-prompt> ").unwrap();
    session.send_line("echo status $?").unwrap();
    session.expect("status 130").unwrap();

    session.send_line("exit 7").unwrap();
    session.expect(expectrl::Eof).unwrap();
    let ended = session.get_process().wait().unwrap();
    assert!(matches!(ended, WaitStatus::Exited(_, 7)), "{ended:?}");
}

fn recorded(cluster: &Cluster, user: &User, node: &str) {
    let end = cluster.event("session.end", |event| event["server_hostname"] == node && event["interactive"] == true);
    let id = end["sid"].as_str().expect("a session has an id").to_owned();
    cluster.event("session.upload", |event| event["sid"] == id.as_str());
    let played = user.tsh(&["play", &id, "--format", "text"]).ok().text();
    assert!(played.contains("resized-now") && played.contains("status 130"), "{played}");
    let cast = user.tsh(&["play", &id, "--format", "cast"]).ok().text();
    let header: serde_json::Value = serde_json::from_str(cast.lines().next().expect("a header")).unwrap();
    assert_eq!(header["version"], 2);
}

#[test]
fn stock_ssh_gives_a_shell_with_prompt_window_change_ctrl_c_and_exit_status() {
    if !need(&["ssh"]) {
        return;
    }
    let cluster = Cluster::start();
    let _edge = cluster.edge("edge-1");
    let ann = cluster.user("ann", "access");
    for node in [Cluster::NODE, "edge-1"] {
        let mut ssh = ann.openssh("ssh");
        ssh.args(["-tt", "-o", "BatchMode=yes", node, "bash --norc --noprofile"]);
        drive(open(ssh));
        recorded(&cluster, &ann, node);
    }
}

#[test]
fn tsh_ssh_gives_the_same_shell() {
    let cluster = Cluster::start();
    let ann = cluster.user("ann", "access");
    let mut tsh = ann.tsh_command();
    tsh.args(["ssh", "-t", Cluster::NODE, "bash --norc --noprofile"]);
    drive(open(tsh));
    recorded(&cluster, &ann, Cluster::NODE);
}

#[test]
fn tsh_lists_its_escapes_and_says_at_the_end_that_the_connection_is_closed() {
    let cluster = Cluster::start();
    let ann = cluster.user("ann", "access");
    let mut tsh = ann.tsh_command();
    tsh.args(["ssh", "-t", Cluster::NODE, "bash --norc --noprofile"]);
    let mut session = open(tsh);
    session.send_line("PS1='rt-prompt> '").unwrap();
    session.expect("rt-prompt> ").unwrap();
    session.send("~?").unwrap();
    session.expect("Supported escape sequences:").unwrap();
    session.expect("~.   - end the connection").unwrap();
    session.send_line("exit 3").unwrap();
    session.expect(format!("Connection to {} closed.", Cluster::NODE)).unwrap();
    session.expect(expectrl::Eof).unwrap();
    let ended = session.get_process().wait().unwrap();
    assert!(matches!(ended, WaitStatus::Exited(_, 3)), "{ended:?}");
    // Without a terminal nothing is said.
    let plain = ann.tsh(&["ssh", Cluster::NODE, "true"]).ok();
    assert_eq!(plain.stderr, "");
}

#[test]
fn a_login_shell_starts_when_no_command_is_given() {
    if !need(&["ssh"]) {
        return;
    }
    let cluster = Cluster::start();
    let ann = cluster.user("ann", "access");
    let mut ssh = ann.openssh("ssh");
    ssh.args(["-o", "BatchMode=yes", Cluster::NODE]);
    let mut session = open(ssh);
    session.send_line("echo I-am-$(id -un)").unwrap();
    session.expect(format!("I-am-{}", remoteler_tests::os_login())).unwrap();
    session.send_line("exit").unwrap();
    session.expect(expectrl::Eof).unwrap();
}
