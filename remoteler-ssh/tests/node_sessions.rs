//! What sessions may do, how many there can be, and how they end: by signals, by the client leaving, by the disk, by the node.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::{process::Stdio, time::Duration};

use support::{Cluster, Wish, finish, is_root, text};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::{Instant, timeout},
};

/// A client on a pseudo terminal of its own, made by script(1)'s library cousin: `ssh -tt` with pipes.
fn on_terminal(cluster: &Cluster, key: &std::path::Path) -> Child {
    let mut command = cluster.ssh(key, &["-tt"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("TERM", "xterm");
    command.arg("stty -echo; echo ready; exec sh").spawn().unwrap()
}

async fn read_until(reader: &mut (impl AsyncReadExt + Unpin), wanted: &str) -> String {
    let mut seen = String::new();
    let reading = async {
        let mut buffer = [0; 4096];
        while !seen.contains(wanted) {
            let count = reader.read(&mut buffer).await.unwrap();
            assert!(count > 0, "{wanted:?} did not come: {seen:?}");
            seen.push_str(&text(&buffer[..count]));
        }
    };
    timeout(Duration::from_secs(60), reading).await.expect("no answer");
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn control_c_interrupts_the_program_on_the_terminal() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let mut client = on_terminal(&cluster, &key);
    let (mut input, mut output) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    read_until(&mut output, "ready").await;

    input.write_all(b"trap 'echo caught; exit 9' INT; echo set; while :; do sleep 1; done\n").await.unwrap();
    read_until(&mut output, "set").await;
    input.write_all(b"\x03").await.unwrap();
    read_until(&mut output, "caught").await;

    assert_eq!(client.wait().await.unwrap().code(), Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_program_with_it() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let mut client = cluster.ssh(&key, &[]).arg("echo $$; exec sleep 1000").stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(client.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).await.unwrap();
    let process = format!("/proc/{}", line.trim());
    assert!(std::path::Path::new(&process).exists());

    client.kill().await.unwrap();

    cluster.audit.wait_for("session.end", 1).await;
    assert!(!std::path::Path::new(&process).exists(), "the program is still there");
    let none = async {
        while cluster.node.sessions() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), none).await.expect("the session is still counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mebibyte_comes_back_exactly_both_ways() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let mut client = cluster.ssh(&key, &[]).arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let sent: Vec<u8> = (0..5_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut input = client.stdin.take().unwrap();
    let copy = sent.clone();
    let writing = tokio::spawn(async move { input.write_all(&copy).await.unwrap() });
    let done = client.wait_with_output().await.unwrap();
    writing.await.unwrap();
    assert!(done.stdout == sent, "{} octets came back", done.stdout.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_nobody_reads_is_closed_and_the_shell_still_answers() {
    let cluster = Cluster::start_with(|config| config.limits.stall_limit = Duration::from_millis(700)).await;
    let key = cluster.user("ann", &Wish::default());
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let forward = format!("{local}:127.0.0.1:{}", deaf.local_addr().unwrap().port());
    let mut client = cluster
        .ssh(&key, &["-L", &forward, "-o", "ExitOnForwardFailure=yes"])
        .arg("echo ready; exec cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    read_until(&mut output, "ready").await;

    let mut bulk = tokio::net::TcpStream::connect(("127.0.0.1", local)).await.unwrap();
    let (_held, _) = deaf.accept().await.unwrap();
    let flood = async {
        let piece = vec![0_u8; 256 * 1024];
        while bulk.write_all(&piece).await.is_ok() {}
    };
    timeout(Duration::from_secs(30), flood).await.expect("the forward was not closed");

    input.write_all(b"are you there\n").await.unwrap();
    read_until(&mut output, "are you there").await;
    drop(input);
    assert!(client.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_forwarded_with_an_event_before_and_only_with_a_role() {
    let cluster = Cluster::start().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = target.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = target.accept().await {
            let _sent = stream.write_all(b"hello from the target").await;
        }
    });
    let key = cluster.user("ann", &Wish::default());
    let done = finish(&mut cluster.ssh(&key, &["-W", &addr])).await;
    assert_eq!(text(&done.stdout), "hello from the target");
    assert_eq!(cluster.audit.named("port")[0]["addr"], addr);

    let key = cluster.user("bob", &Wish { user: "bob".into(), roles: vec!["no-forwarding".into()], ..Wish::default() });
    let done = finish(&mut cluster.ssh(&key, &["-W", &addr])).await;
    assert_eq!(text(&done.stdout), "");
    let refused = &cluster.audit.wait_for("port", 2).await[1]; // I19
    assert_eq!((&refused["success"], &refused["user"]), (&false.into(), &"bob".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_offered_is_refused_with_an_event() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let socket = format!("{}:127.0.0.1:1", cluster.path("socket").display());
    let remote = ["-o", "ExitOnForwardFailure=yes", "-R", &socket, "-N"];
    let done = finish(&mut cluster.ssh(&key, &remote)).await;
    assert_eq!(done.status.code(), Some(255));
    let subsystem = finish(cluster.ssh(&key, &["-s"]).arg("netconf")).await;
    assert_ne!(subsystem.status.code(), Some(0));
    let errors: Vec<String> =
        cluster.audit.wait_for("auth", 2).await.iter().map(|event| event["error"].to_string()).collect();
    assert!(errors[0].contains("forwarding of Unix sockets"), "{errors:?}"); // I19
    assert!(errors[1].contains("netconf"), "{errors:?}");
    assert!(cluster.audit.named("session.start").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_when_the_audit_log_takes_no_events() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    cluster.audit.broken.store(true, std::sync::atomic::Ordering::SeqCst);
    let mark = cluster.path("mark");
    let done = cluster.run(&key, &format!("touch {}", mark.display())).await;
    assert_eq!(done.status.code(), Some(254));
    assert!(text(&done.stderr).contains("the audit log does not take events"), "{}", text(&done.stderr));
    assert!(!mark.exists()); // I75
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_session_that_is_not_audited_is_ended_in_the_log() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    *cluster.audit.broken_for.lock().unwrap() = Some("sftp");
    let done = finish(cluster.ssh(&key, &["-s"]).arg("sftp")).await;
    assert_eq!(done.status.code(), Some(254));
    let (start, end) =
        (cluster.audit.wait_for("session.start", 1).await, cluster.audit.wait_for("session.end", 1).await);
    assert_eq!(start[0]["sid"], end[0]["sid"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_session_that_cannot_be_recorded_does_not_start() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    std::fs::remove_dir_all(cluster.path("recordings")).unwrap();
    let done = finish(cluster.ssh(&key, &["-tt"]).arg("echo ran")).await;
    let said = text(&done.stdout) + &text(&done.stderr);
    assert_eq!(done.status.code(), Some(254), "{said}");
    assert!(said.contains("this session must be recorded") && !said.contains("ran\r"), "{said}"); // I77
    assert!(cluster.run(&key, "true").await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_a_recorded_session_within_five_seconds() {
    let cluster = Cluster::start().await;
    let recordings = cluster.path("recordings");
    let mounted = is_root() && {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&recordings).stderr(Stdio::null());
        mount.status().await.is_ok_and(|status| status.success())
    };
    if !mounted {
        eprintln!("SKIPPED: a small file system cannot be mounted here");
        return;
    }
    let key = cluster.user("ann", &Wish::default());
    let began = Instant::now();
    let done =
        finish(cluster.ssh(&key, &["-tt"]).arg("while :; do echo 0123456789012345678901234567890123456789; done"))
            .await;
    let took = began.elapsed();
    let _unmounted = Command::new("umount").arg("-l").arg(&recordings).status().await;
    let said = text(&done.stdout) + &text(&done.stderr);
    assert_eq!(done.status.code(), Some(254));
    assert!(said.contains("the recording cannot be written"), "{}", &said[said.len().saturating_sub(300)..]);
    assert!(took < Duration::from_secs(10), "{took:?}"); // I77
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_has_a_bounded_number_of_channels() {
    let cluster = Cluster::start_with(|config| config.limits.max_channels_per_connection = 2).await;
    let key = cluster.user("ann", &Wish::default());
    let socket = cluster.path("mux");
    let control = format!("ControlPath={}", socket.display());
    let mut master = cluster.ssh(&key, &["-M", "-o", &control]);
    let mut master = master.arg("echo ready; exec cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    read_until(master.stdout.as_mut().unwrap(), "ready").await;
    let mut second = cluster.ssh(&key, &["-o", &control]);
    let mut second = second.arg("echo ready; exec cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    read_until(second.stdout.as_mut().unwrap(), "ready").await;

    let third = finish(cluster.ssh(&key, &["-o", &control]).arg("true")).await;
    assert!(text(&third.stderr).contains("Session open refused by peer"), "{}", text(&third.stderr));

    drop(second.stdin.take());
    second.wait().await.unwrap();
    cluster.audit.wait_for("session.end", 1).await;
    assert!(finish(cluster.ssh(&key, &["-o", &control]).arg("true")).await.status.success()); // I23
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_log_in_in_time_is_cut_off() {
    let cluster = Cluster::start_with(|config| config.limits.login_grace = Duration::from_millis(300)).await;
    let mut silent = tokio::net::TcpStream::connect(("127.0.0.1", cluster.port)).await.unwrap();
    let mut half = tokio::net::TcpStream::connect(("127.0.0.1", cluster.port)).await.unwrap();
    half.write_all(b"SSH-2.0-half\r\n").await.unwrap();
    for stream in [&mut silent, &mut half] {
        let mut rest = Vec::new();
        timeout(Duration::from_secs(60), stream.read_to_end(&mut rest)).await.expect("still open").unwrap_or(0); // I30
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_ignore_no_signal_though_the_node_was_started_by_nohup() {
    for signal in [nix::sys::signal::SIGHUP, nix::sys::signal::SIGQUIT] {
        #[expect(unsafe_code, reason = "signal has no safe form")]
        // SAFETY: to ignore a signal calls no code of ours.
        unsafe {
            nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn).unwrap();
        }
    }
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let done = cluster.run(&key, "sed -n 's/^SigIgn:\t//p' /proc/self/status").await;
    let ignored = u64::from_str_radix(text(&done.stdout).trim(), 16).unwrap();
    // Signals 32 and 33 are the C library's own and cannot be set.
    assert_eq!(ignored & !(0b11 << 31), 0, "{ignored:x}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_sessions_run_at_once() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let running = async |count| {
        let reached = async {
            while cluster.node.sessions() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let sessions = || panic!("{} sessions, not {count}", cluster.node.sessions());
        timeout(Duration::from_secs(60), reached).await.unwrap_or_else(|_| sessions());
    };
    let mut clients: Vec<Child> = Vec::new();
    for number in 0..200_usize {
        // Their key exchanges take turns, lest the slowest of them all be cut off for its time to log in.
        running(number.saturating_sub(16)).await;
        let mut command = cluster.ssh(&key, &["-o", "ConnectTimeout=60"]);
        command.arg(format!("read word; echo {number} $word")).stdin(Stdio::piped()).stdout(Stdio::piped());
        clients.push(command.spawn().unwrap());
    }
    running(200).await;
    for (number, mut client) in clients.into_iter().enumerate() {
        client.stdin.take().unwrap().write_all(b"word\n").await.unwrap();
        let done = client.wait_with_output().await.unwrap();
        assert_eq!(text(&done.stdout), format!("{number} word\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_lets_sessions_end_and_takes_no_new_ones() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let mut client = cluster.ssh(&key, &[]);
    let mut client =
        client.arg("echo ready; read x; echo done").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    read_until(client.stdout.as_mut().unwrap(), "ready").await;
    let node = cluster.node.clone();
    let draining = tokio::spawn(async move { node.drain(Instant::now() + Duration::from_secs(30)).await });

    let refused = async { while cluster.run(&key, "true").await.status.success() {} };
    timeout(Duration::from_secs(60), refused).await.unwrap();
    assert!(!draining.is_finished());
    client.stdin.take().unwrap().write_all(b"x\n").await.unwrap();
    assert_eq!(text(&client.wait_with_output().await.unwrap().stdout), "done\n");
    timeout(Duration::from_secs(60), draining).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_node_runs_programs_with_the_ids_of_the_account_and_no_way_back() {
    if !is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return;
    }
    // The account's shell is nologin, as it should be; what is run as the user is put in place of the file subsystem.
    let script = "id -un; id -gn; id -G; grep -E '^(Uid|Gid)' /proc/self/status; umask; \
                  chroot / true 2>&1 | grep -o 'Operation not permitted'";
    let cluster = Cluster::start_with(|config| {
        config.sftp_command = vec!["/bin/sh".into(), "-c".into(), format!("PATH=$PATH:/usr/sbin; {script}").into()];
    })
    .await;
    let key = cluster.user("ann", &Wish { logins: vec!["daemon".into()], ..Wish::default() });
    let done = finish(cluster.ssh(&key, &["-o", "User=daemon", "-s"]).arg("sftp")).await;
    let output = text(&done.stdout);
    assert!(output.starts_with("daemon\ndaemon\n1\n"), "{output}{}", text(&done.stderr)); // I68
    assert!(output.contains("Uid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\n"), "{output}");
    assert!(output.ends_with("0022\nOperation not permitted\n"), "{output}");
}
