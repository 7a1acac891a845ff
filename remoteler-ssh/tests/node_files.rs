//! Files through the stock `sftp` and `scp`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::{os::unix::fs::PermissionsExt, process::Stdio};

use support::{Cluster, Wish, finish, sftp_server, text};
use tokio::{io::AsyncWriteExt, process::Command};

fn client(cluster: &Cluster, program: &str, key: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    command.args(cluster.options(key)).kill_on_drop(true).stdin(Stdio::null());
    command
}

async fn sftp(cluster: &Cluster, key: &std::path::Path, batch: &str) -> std::process::Output {
    let mut command = client(cluster, "sftp", key);
    command.args(["-b", "-"]).arg("127.0.0.1").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    running.stdin.take().unwrap().write_all(batch.as_bytes()).await.unwrap();
    running.wait_with_output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_does_everything_a_user_types() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let (here, there) = (cluster.path("here"), cluster.path("there"));
    std::fs::create_dir_all(&there).unwrap();
    std::fs::write(&here, "content\n").unwrap();
    std::fs::set_permissions(&here, std::fs::Permissions::from_mode(0o640)).unwrap();
    let batch = format!(
        "cd {there}\nput -p {here} one\nmkdir dir\nrename one dir/two\nln -s dir/two link\nln dir/two hard\nls -la dir\n\
         chmod 600 dir/two\nget link {here}.back\nstat\ndf\nrm hard\nls\npwd\n",
        there = there.display(),
        here = here.display()
    )
    .replace("stat\n", "");

    let done = sftp(&cluster, &key, &batch).await;

    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    assert_eq!(std::fs::read_to_string(there.join("dir/two")).unwrap(), "content\n");
    assert_eq!(std::fs::metadata(there.join("dir/two")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_link(there.join("link")).unwrap(), std::path::Path::new("dir/two"));
    assert_eq!(std::fs::read_to_string(format!("{}.back", here.display())).unwrap(), "content\n");
    assert!(!there.join("hard").exists());
    let output = text(&done.stdout);
    assert!(output.contains("-rw-r-----") && output.contains("Remote working directory"), "{output}");
    cluster.audit.wait_for("session.end", 1).await;
    let events = cluster.audit.named("sftp");
    assert_eq!(events[0]["action"], "start");
    let done: Vec<String> = events
        .iter()
        .skip(1)
        .map(|event| {
            let name = |field: &str| event[field].as_str().unwrap_or_default().replace(there.to_str().unwrap(), "");
            let flags = event["flags"].as_u64().map(|flags| if flags & 2 == 0 { "r" } else { "w" }).unwrap_or_default();
            [name("action").as_str(), &name("path"), &name("target_path"), flags].join(" ").trim().replace("  ", " ")
        })
        .collect();
    let wanted = [
        "open /one w",
        "mkdir /dir",
        "rename /one /dir/two",
        "symlink dir/two /link",
        "link /dir/two /hard",
        "setstat /dir/two",
        "open /link r",
        "remove /hard",
    ];
    let missing: Vec<_> = wanted.iter().filter(|line| !done.iter().any(|found| found == *line)).collect();
    assert!(missing.is_empty(), "{missing:?} in {done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_said_in_words() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let done = sftp(&cluster, &key, "get /no/such/file\n").await;
    assert!(!done.status.success());
    assert!(text(&done.stderr).contains("not found"), "{}", text(&done.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn scp_copies_trees_both_ways_by_both_of_its_protocols() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let tree = cluster.path("tree");
    std::fs::create_dir_all(tree.join("sub")).unwrap();
    let big: Vec<u8> = (0..3_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(tree.join("sub/big"), &big).unwrap();
    std::fs::write(tree.join("empty"), "").unwrap();
    for protocol in ["-s", "-O"] {
        let (up, down) = (cluster.path(&format!("up{protocol}")), cluster.path(&format!("down{protocol}")));
        let mut command = client(&cluster, "scp", &key);
        command.args([protocol, "-r"]).arg(&tree).arg(format!("127.0.0.1:{}", up.display()));
        let done = finish(&mut command).await;
        assert!(done.status.success(), "{}", text(&done.stderr));
        let mut command = client(&cluster, "scp", &key);
        command.args([protocol, "-r"]).arg(format!("127.0.0.1:{}", up.display())).arg(&down);
        let done = finish(&mut command).await;
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert!(std::fs::read(down.join("sub/big")).unwrap() == big);
        assert_eq!(std::fs::read(down.join("empty")).unwrap(), b"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_file_copies_has_none_by_either_protocol_and_still_runs_commands() {
    let cluster = Cluster::start().await;
    let wish = Wish { user: "bob".into(), roles: vec!["dev".into(), "no-copies".into()], ..Wish::default() };
    let key = cluster.user("bob", &wish);
    let (here, there) = (cluster.path("here"), cluster.path("there"));
    std::fs::write(&here, "content").unwrap();
    for protocol in ["-s", "-O"] {
        let mut command = client(&cluster, "scp", &key);
        command.arg(protocol).arg(&here).arg(format!("127.0.0.1:{}", there.display()));
        let done = finish(&mut command).await;
        assert!(!done.status.success(), "{protocol}");
        assert!(!there.exists(), "{protocol}");
    }
    let refused = cluster.audit.wait_for("auth", 2).await;
    assert!(refused.iter().all(|event| event["error"].to_string().contains("file copies")), "{refused:?}"); // I80
    let done = finish(cluster.ssh(&key, &[]).args(["echo", "works"])).await;
    assert_eq!(text(&done.stdout), "works\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_program_is_there() {
    assert!(std::path::Path::new(&sftp_server()).exists(), "cargo builds examples with the tests");
}
