//! The node as the stock OpenSSH client sees it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::process::Stdio;

use remoteler_core::{ClusterSettings, Policy, PolicySource, RecordingMode};
use support::{Cluster, Wish, finish, own_login, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_and_its_streams_and_exit_status_come_back() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());

    let done = cluster.run(&key, "echo out; echo err >&2; id -un; exit 7").await;

    assert_eq!(text(&done.stderr), "err\n");
    assert_eq!(text(&done.stdout), format!("out\n{}\n", own_login()));
    assert_eq!(done.status.code(), Some(7));
    let end = &cluster.audit.wait_for("session.end", 1).await[0];
    let events = cluster.audit.named("exec");
    assert_eq!(events.len(), 1, "a command has one event: {events:?}");
    assert_eq!(events[0]["command"], "echo out; echo err >&2; id -un; exit 7");
    assert_eq!(events[0]["exitCode"], "7");
    assert_eq!(events[0]["exitError"], "exit status: 7");
    // I75: what is about to run is on record before it does.
    let start = &cluster.audit.named("session.start")[0];
    assert_eq!(start["initial_command"], serde_json::json!(["echo out; echo err >&2; id -un; exit 7"]));
    assert_eq!((&start["user"], &start["server_hostname"]), (&"ann".into(), &support::NODE.into()));
    assert!(Wish::default().roles.iter().any(|role| start["role"] == *role), "the role that allows it: {start}");
    assert_eq!((&end["interactive"], &end["recorded"]), (&false.into(), &false.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_killed_by_a_signal_is_reported_as_such() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());

    let done = finish(cluster.ssh(&key, &["-v"]).arg("kill -TERM $$")).await;

    assert_eq!(done.status.code(), Some(255));
    assert!(text(&done.stderr).contains("exit-signal"), "{}", text(&done.stderr));
    assert_eq!(cluster.audit.wait_for("exec", 1).await[0]["exitCode"], "signal 15");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_input_reaches_the_program_and_its_output_still_comes_back() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let mut client =
        cluster.ssh(&key, &[]).arg("wc -c; echo after").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();

    let mut input = client.stdin.take().unwrap();
    input.write_all(&vec![b'x'; 100_000]).await.unwrap();
    drop(input);
    let done = client.wait_with_output().await.unwrap();

    assert_eq!(text(&done.stdout), "100000\nafter\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_our_own_and_only_harmless_wishes_come_through() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let mut command = cluster.ssh(&key, &["-o", "SendEnv=LANG LD_PRELOAD BASH_ENV PATH"]);
    command.env("LANG", "C.UTF-8").env("LD_PRELOAD", "").env("BASH_ENV", "/tmp/x").arg("env");

    let done = finish(&mut command).await;

    let environment = text(&done.stdout);
    let names: std::collections::BTreeSet<&str> =
        environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    for wanted in ["HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "SSH_CONNECTION", "REMOTELER_SESSION_ID"] {
        assert!(names.contains(wanted), "{wanted} is missing in {environment}");
    }
    let connection = environment.lines().find_map(|line| line.strip_prefix("SSH_CONNECTION=")).unwrap();
    let [client, client_port, node, node_port] = connection.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{connection}")
    };
    assert_eq!(
        (client, node, node_port),
        ("127.0.0.1", "127.0.0.1", cluster.port.to_string().as_str()),
        "{connection}"
    );
    assert!(environment.contains(&format!("SSH_CLIENT={client} {client_port} {node_port}\n")), "{environment}");
    for refused in ["LD_PRELOAD", "BASH_ENV", "CARGO", "CARGO_PKG_NAME", "RUSTUP_HOME"] {
        assert!(!names.contains(refused), "{refused} came through"); // I68
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_their_agent_is_told_that_it_is_not_forwarded() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let socket = cluster.path("agent.sock");
    let mut agent = tokio::process::Command::new("ssh-agent");
    let _agent = agent.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let listens = async {
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), listens).await.expect("the agent starts");

    let identity_agent = format!("IdentityAgent={}", socket.display());
    let with = |flag| {
        let mut command = cluster.ssh(&key, &[flag, "-o", &identity_agent]);
        command.arg("echo \"[$SSH_AUTH_SOCK]\"");
        command
    };
    let asked = finish(&mut with("-A")).await;
    let silent = finish(&mut with("-a")).await;

    assert_eq!(text(&asked.stdout), "[]\n");
    assert!(
        text(&asked.stderr).contains("remoteler: no role of ann allows agent forwarding on this node"),
        "{}",
        text(&asked.stderr)
    );
    assert_eq!(text(&silent.stderr), "", "nobody is told who did not ask");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_on_a_terminal_has_its_size_and_is_recorded() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let mut client =
        cluster.ssh(&key, &["-tt"]).stdin(Stdio::piped()).stdout(Stdio::piped()).env("TERM", "xterm").spawn().unwrap();

    let mut input = client.stdin.take().unwrap();
    input.write_all(b"stty -echo; tty; echo \"[$TERM]\"; exit 5\n").await.unwrap();
    let mut output = String::new();
    client.stdout.take().unwrap().read_to_string(&mut output).await.unwrap();
    let status = client.wait().await.unwrap();

    assert_eq!(status.code(), Some(5), "{output}");
    assert!(output.contains("/dev/pts/") && output.contains("[xterm]"), "{output}");
    let end = &cluster.audit.wait_for("session.end", 1).await[0];
    assert_eq!((&end["interactive"], &end["recorded"]), (&true.into(), &true.into()));
    let recording = cluster.path("recordings").join(format!("{}.cast", end["sid"].as_str().unwrap()));
    let recorded = std::fs::read_to_string(recording).unwrap();
    assert!(recorded.starts_with("{\"version\":2,"), "{recorded}");
    assert!(recorded.contains("[xterm]"), "{recorded}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_session_is_not_recorded_where_the_cluster_says_so_and_the_next_one_is_where_it_does_not() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    for (number, session_recording) in [RecordingMode::Off, RecordingMode::Node].into_iter().enumerate() {
        let settings = ClusterSettings { session_recording, ..ClusterSettings::default() };
        cluster.policy.replace(Policy { settings, ..Policy::clone(&cluster.policy.policy()) });
        let done = finish(cluster.ssh(&key, &["-tt"]).arg("echo out")).await;
        assert_eq!(done.status.code(), Some(0));
        let end = &cluster.audit.wait_for("session.end", number + 1).await[number];
        let wanted = session_recording == RecordingMode::Node;
        assert_eq!((&end["interactive"], &end["recorded"]), (&true.into(), &wanted.into()));
        let recording = cluster.path("recordings").join(format!("{}.cast", end["sid"].as_str().unwrap()));
        assert_eq!(recording.exists(), wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_without_terminal_reads_commands_from_its_input() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let mut client = cluster.ssh(&key, &["-T"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();

    client.stdin.take().unwrap().write_all(b"echo hello; exit 3\n").await.unwrap();
    let done = client.wait_with_output().await.unwrap();

    assert!(text(&done.stdout).ends_with("hello\n"));
    assert_eq!(done.status.code(), Some(3));
}
