//! Bulk through the node with stock clients: every octet arrives, and the node keeps nothing. 64 MiB unless `REMOTELER_TEST_BULK_MIB`
//! says more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::process::Stdio;

use support::{Cluster, Wish, finish, text};
use tokio::process::Command;

fn mebibytes() -> u64 {
    std::env::var("REMOTELER_TEST_BULK_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(64)
}

/// Most memory this process, and with it the node, has had: KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Fills a file by other processes: the tests of this file share one process, whose memory one of them measures.
async fn make(path: &std::path::Path) {
    let count = mebibytes() * 1024 * 1024;
    let mut head = Command::new("sh");
    head.arg("-c").arg(format!(
        "openssl enc -aes-128-ctr -K 00 -iv 00 -nosalt -in /dev/zero 2>/dev/null | head -c {count} > {}",
        path.display()
    ));
    assert!(head.status().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_arrives_whole_both_ways_and_memory_stays_bounded() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let source = cluster.path("source");
    make(&source).await;
    let sum = |path: &std::path::Path| {
        let mut command = Command::new("sha256sum");
        command.stdin(std::fs::File::open(path).unwrap());
        command
    };
    let wanted = text(&sum(&source).output().await.unwrap().stdout);
    let before = peak();

    let began = std::time::Instant::now();
    let mut up = cluster.ssh(&key, &[]);
    up.arg("sha256sum").stdin(std::fs::File::open(&source).unwrap());
    assert_eq!(text(&up.output().await.unwrap().stdout), wanted);
    let up_took = began.elapsed();

    let began = std::time::Instant::now();
    let back = cluster.path("back");
    let mut down = cluster.ssh(&key, &[]);
    down.arg(format!("cat {}", source.display())).stdout(std::fs::File::create(&back).unwrap());
    assert!(down.stderr(Stdio::inherit()).status().await.unwrap().success());
    assert_eq!(text(&sum(&back).output().await.unwrap().stdout), wanted);
    let down_took = began.elapsed();

    let grown = peak().saturating_sub(before);
    eprintln!("up {up_took:?}, down {down_took:?}, memory grew by {grown} KiB");
    assert!(grown < 64 * 1024, "memory grew by {grown} KiB"); // I27
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_over_scp_arrives_whole() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let (source, target) = (cluster.path("source"), cluster.path("target"));
    make(&source).await;
    for (from, to) in [
        (source.display().to_string(), format!("127.0.0.1:{}", target.display())),
        (format!("127.0.0.1:{}", target.display()), cluster.path("back").display().to_string()),
    ] {
        let began = std::time::Instant::now();
        let mut command = Command::new("scp");
        command.args(cluster.options(&key)).args([from, to]);
        let done = finish(&mut command).await;
        assert!(done.status.success(), "{}", text(&done.stderr));
        eprintln!("scp {:?}", began.elapsed());
    }
    let same = Command::new("cmp").arg(&source).arg(cluster.path("back")).status().await.unwrap();
    assert!(same.success());
}
