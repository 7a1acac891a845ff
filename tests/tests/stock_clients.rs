//! Stock OpenSSH clients, rsync and git reach the local node and the edge node over the block that `tsh config` prints.

use std::{fs, process::Command};

use remoteler_tests::{Cluster, User, need, run, run_with_input};

/// One cluster with an edge node, a user, and the two host names.
fn setup() -> (Cluster, remoteler_tests::Edge, User, [String; 2]) {
    let cluster = Cluster::start();
    let edge = cluster.edge("edge-1");
    let ann = cluster.user("ann", "access");
    let hosts = [format!("{}.{}", Cluster::NODE, Cluster::NAME), format!("edge-1.{}", Cluster::NAME)];
    (cluster, edge, ann, hosts)
}

#[test]
fn stock_ssh_runs_commands_on_both_nodes_without_a_question() {
    if !need(&["ssh"]) {
        return;
    }
    let (cluster, _edge, ann, hosts) = setup();
    for host in &hosts {
        // BatchMode fails where ssh would ask about the host key.
        let out = run(ann.openssh("ssh").args(["-o", "BatchMode=yes", host, "echo out; echo err >&2; exit 7"]));
        assert_eq!((out.code, out.text().as_str()), (Some(7), "out\n"), "{host}: {}", out.stderr);
        assert!(out.stderr.contains("err"), "{}", out.stderr);
        let echoed =
            run_with_input(ann.openssh("ssh").args(["-o", "BatchMode=yes", host, "cat"]), b"\x00\xffbinary\r\n").ok();
        assert_eq!(echoed.stdout, b"\x00\xffbinary\r\n");
    }
    cluster.event("exec", |event| {
        event["command"].as_str().is_some_and(|c| c.contains("exit 7")) && event["exitCode"] == "7"
    });
    cluster.event("exec", |event| event["server_hostname"] == "edge-1");
}

#[test]
fn the_short_host_name_works_too_with_the_bare_block() {
    if !need(&["ssh"]) {
        return;
    }
    let (_cluster, _edge, ann, _) = setup();
    for host in [Cluster::NODE, "edge-1"] {
        let out = run(ann.openssh("ssh").args(["-o", "BatchMode=yes", host, "echo hello"])).ok();
        assert_eq!(out.text(), "hello\n");
    }
}

#[test]
fn scp_and_sftp_carry_files_both_ways() {
    if !need(&["scp", "sftp"]) {
        return;
    }
    let (cluster, _edge, ann, hosts) = setup();
    let here = cluster.dir().join("file");
    let body: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&here, &body).unwrap();
    for (number, host) in hosts.iter().enumerate() {
        for legacy in [&[][..], &["-O"][..]] {
            let there = cluster.dir().join(format!("there-{number}-{}", legacy.len()));
            let back = cluster.dir().join(format!("back-{number}-{}", legacy.len()));
            run(ann.openssh("scp").args(legacy).arg(&here).arg(format!("{host}:{}", there.display()))).ok();
            assert!(fs::read(&there).unwrap() == body);
            run(ann.openssh("scp").args(legacy).arg(format!("{host}:{}", there.display())).arg(&back)).ok();
            assert!(fs::read(&back).unwrap() == body);
        }
        let dir = cluster.dir().join(format!("sftp-{number}"));
        let batch = format!(
            "mkdir {dir}\nput {here} {dir}/a\nrename {dir}/a {dir}/b\nchmod 600 {dir}/b\nls -l {dir}\nget {dir}/b {dir}/c\nrm {dir}/b\n",
            dir = dir.display(),
            here = here.display()
        );
        run_with_input(ann.openssh("sftp").args(["-b", "-", host]), batch.as_bytes()).ok();
        assert!(fs::read(dir.join("c")).unwrap() == body);
        assert!(!dir.join("b").exists());
    }
    cluster.event("sftp", |_| true);
}

#[test]
fn rsync_and_git_work_over_the_same_block() {
    if !need(&["rsync", "git", "ssh"]) {
        return;
    }
    let (cluster, _edge, ann, hosts) = setup();
    let ssh = format!("ssh -F {}", ann.ssh_config().display());
    let source = cluster.dir().join("tree");
    fs::create_dir_all(source.join("a/b")).unwrap();
    for number in 0..50 {
        fs::write(source.join(format!("a/b/{number}")), vec![number; 10_000]).unwrap();
    }
    for (number, host) in hosts.iter().enumerate() {
        let target = cluster.dir().join(format!("rsync-{number}"));
        let mut rsync = Command::new("rsync");
        ann.environment(&mut rsync);
        run(rsync
            .args(["-a", "-e", &ssh])
            .arg(format!("{}/", source.display()))
            .arg(format!("{host}:{}/", target.display())))
        .ok();
        run(Command::new("diff").arg("-r").arg(&source).arg(&target)).ok();

        let bare = cluster.dir().join(format!("repo-{number}.git"));
        let clone = cluster.dir().join(format!("clone-{number}"));
        let git = |dir: &std::path::Path, args: &[&str]| {
            let mut git = Command::new("git");
            ann.environment(&mut git);
            git.env("GIT_SSH_COMMAND", &ssh).env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir(dir);
            run(git
                .args(["-c", "user.name=ann", "-c", "user.email=ann@example.com", "-c", "safe.directory=*"])
                .args(args))
            .ok()
        };
        git(cluster.dir(), &["init", "-q", "--bare", &bare.display().to_string()]);
        git(cluster.dir(), &["clone", "-q", &format!("{host}:{}", bare.display()), &clone.display().to_string()]);
        fs::write(clone.join("file"), "content").unwrap();
        git(&clone, &["add", "file"]);
        git(&clone, &["commit", "-q", "-m", "one"]);
        git(&clone, &["push", "-q", "origin", "HEAD:main"]);
        let log = git(&bare, &["log", "--oneline", "main"]);
        assert!(log.text().contains("one"));
    }
}

#[test]
fn a_local_port_forward_reaches_a_service_at_the_node() {
    if !need(&["ssh"]) {
        return;
    }
    let (cluster, _edge, ann, hosts) = setup();
    let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = service.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            use std::io::Write;
            service.accept().unwrap().0.write_all(b"from the service").unwrap();
        }
    });
    for host in &hosts {
        // -W is ssh's own way of using one direct-tcpip channel.
        let out = run(ann.openssh("ssh").args(["-o", "BatchMode=yes", "-W", &target.to_string(), host])).ok();
        assert_eq!(out.text(), "from the service");
    }
    server.join().unwrap();
    cluster.event("port", |event| event["addr"] == target.to_string() && event["success"] == true);
}

#[test]
fn a_user_without_the_role_is_refused_with_a_sentence_and_an_event() {
    if !need(&["ssh"]) {
        return;
    }
    let cluster = Cluster::start();
    let eve = cluster.user("eve", "auditor");
    let host = format!("{}.{}", Cluster::NODE, Cluster::NAME);
    let out = run(eve.openssh("ssh").args(["-o", "BatchMode=yes", &host, "id"]));
    assert_eq!(out.code, Some(255), "{}", out.stderr);
    assert_eq!(out.text(), "");
    cluster.event("auth", |event| event["user"] == "eve");
}

#[test]
fn two_hundred_sessions_at_once_all_come_out_right() {
    if !need(&["ssh"]) {
        return;
    }
    let (_cluster, _edge, ann, hosts) = setup();
    let sessions: Vec<_> = (0..200)
        .map(|number| {
            let mut ssh = ann.openssh("ssh");
            ssh.args(["-o", "BatchMode=yes", &hosts[number % 2], &format!("read x; echo {number} $x")]);
            ssh.stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            (number, ssh.spawn().unwrap())
        })
        .collect();
    // All are started before any may end.
    for (number, mut child) in sessions {
        use std::io::Write;
        child.stdin.take().unwrap().write_all(format!("go{number}\n").as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&out.stdout),
            format!("{number} go{number}\n"),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
}
