//! Sessions of a stock client that go on while a test changes the rules, and the rules it changes.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{process::Stdio, time::Duration};

use remoteler_core::{Lock, LockTarget, Policy, PolicySource};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

use super::Cluster;

/// Users are promised 2 s (R12), which `REMOTELER_STRICT=1` wants; a loaded machine that runs tests may take longer.
pub(crate) fn at_once() -> Duration {
    let strict = std::env::var_os("REMOTELER_STRICT").is_some_and(|value| value == "1");
    Duration::from_secs(if strict { 2 } else { 30 })
}

/// A command that echoes lines, under way.
pub(crate) struct Echo {
    pub(crate) client: Child,
    pub(crate) input: ChildStdin,
    pub(crate) output: BufReader<ChildStdout>,
    /// What it said before the first line that came back.
    pub(crate) first: String,
}

impl Echo {
    pub(crate) async fn start(cluster: &Cluster, key: &std::path::Path, flags: &[&str], command: &str) -> Self {
        let mut ssh = cluster.ssh(key, flags);
        ssh.arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = ssh.spawn().unwrap();
        let (input, output) = (client.stdin.take().unwrap(), BufReader::new(client.stdout.take().unwrap()));
        let mut echo = Self { client, input, output, first: String::new() };
        echo.first = echo.says("hello").await;
        echo
    }

    pub(crate) async fn says(&mut self, line: &str) -> String {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut heard = String::new();
        while !heard.contains(line) {
            let count =
                timeout(Duration::from_secs(60), self.output.read_line(&mut heard)).await.expect("an echo").unwrap();
            assert!(count > 0, "{line:?} did not come back: {heard:?}");
        }
        heard
    }

    /// Waits for its end; everything it said last.
    pub(crate) async fn end(mut self, within: Duration) -> String {
        timeout(within, self.client.wait()).await.expect("it ends in time").unwrap();
        let (mut said, mut errors) = (String::new(), String::new());
        self.output.read_to_string(&mut said).await.unwrap();
        self.client.stderr.take().unwrap().read_to_string(&mut errors).await.unwrap();
        said + &errors
    }
}

pub(crate) fn lock(cluster: &Cluster, target: LockTarget) {
    let lock = Lock { name: "x".into(), target, message: "the laptop was stolen".into(), expires: None };
    let policy = Policy::clone(&cluster.policy.policy());
    cluster.policy.replace(Policy { locks: [lock].into_iter().collect(), ..policy });
}

pub(crate) fn unlock(cluster: &Cluster) {
    let policy = Policy::clone(&cluster.policy.policy());
    cluster.policy.replace(Policy { locks: Default::default(), ..policy });
}

pub(crate) fn user(name: &str) -> LockTarget {
    LockTarget { user: Some(name.parse().unwrap()), ..LockTarget::default() }
}
