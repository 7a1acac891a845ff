//! `ssh -A` as stock OpenSSH does it: who may reach the user's agent on the node, how long, and what is recorded of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use support::{
    Cluster, Wish, finish,
    live::{Echo, at_once, lock, user},
    logged_in, text,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::{Child, Command},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// The user's own agent, with one key.
struct Agent {
    _process: Child,
    /// For the client's command line.
    forward: String,
    path: PathBuf,
}

impl Agent {
    async fn start(cluster: &Cluster) -> Self {
        let path = cluster.path("own-agent");
        let mut agent = Command::new("ssh-agent");
        agent.arg("-D").arg("-a").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let process = agent.spawn().unwrap();
        let listens = async {
            while UnixStream::connect(&path).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, listens).await.expect("the agent starts");
        let key = cluster.path("in-agent");
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "of ann", "-f"]).arg(&key);
        assert!(finish(&mut keygen).await.status.success());
        let added = finish(Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &path)).await;
        assert!(added.status.success(), "{added:?}");
        Self { _process: process, forward: format!("IdentityAgent={}", path.display()), path }
    }

    fn flags(&self) -> [&str; 3] {
        ["-A", "-o", &self.forward]
    }
}

fn with_agent() -> Wish {
    Wish { roles: vec!["agent".into()], ..Wish::default() }
}

/// A session that goes on, and where its programs find the agent.
async fn session(cluster: &Cluster, key: &Path, flags: &[&str]) -> (Echo, PathBuf) {
    let echo = Echo::start(cluster, key, flags, "echo \"$SSH_AUTH_SOCK\"; exec cat").await;
    let socket = PathBuf::from(echo.first.lines().next().unwrap());
    assert!(socket.is_absolute(), "{:?}", echo.first);
    (echo, socket)
}

/// Asks for the agent's keys (`SSH_AGENTC_REQUEST_IDENTITIES`); whether it answered.
async fn asks(stream: &mut UnixStream) -> bool {
    if stream.write_all(&[0, 0, 0, 1, 11]).await.is_err() {
        return false;
    }
    let mut answer = vec![0; 4];
    if stream.read_exact(&mut answer).await.is_err() {
        return false;
    }
    let length = u32::from_be_bytes(answer.try_into().unwrap());
    let mut answer = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut answer).await.is_ok() && answer[0] == 12
}

async fn until_gone(path: &Path) {
    let going = async {
        while path.exists() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, going).await.unwrap_or_else(|_| panic!("{} stays", path.display()));
}

// I19, I74
#[tokio::test(flavor = "multi_thread")]
async fn programs_of_a_session_reach_the_users_agent_on_record_and_only_while_it_lasts() {
    let cluster = Cluster::start().await;
    let (agent, key) = (Agent::start(&cluster).await, cluster.user("ann", &with_agent()));
    let mut ssh = cluster.ssh(&key, &agent.flags());
    let done =
        finish(ssh.arg("ssh-add -L; stat -c %a \"$SSH_AUTH_SOCK\" \"${SSH_AUTH_SOCK%/*}\"; echo $SSH_AUTH_SOCK")).await;
    let output = text(&done.stdout);
    let lines: Vec<_> = output.lines().collect();
    assert!(lines[0].starts_with("ssh-ed25519 ") && lines[0].ends_with(" of ann"), "{output}{}", text(&done.stderr));
    assert_eq!(lines[1..3], ["600", "700"]);
    until_gone(Path::new(lines[3]).parent().unwrap()).await;

    let events = cluster.audit.wait_for("port", 2).await;
    let start = &cluster.audit.named("session.start")[0];
    for event in &events {
        assert_eq!((&event["direction"], &event["addr"]), (&"agent".into(), &"ssh-agent".into()));
        assert_eq!((&event["sid"], &event["success"]), (&start["sid"], &true.into()));
    }
    assert!(events[0]["originator"].is_null());
    assert!(events[1]["originator"].as_str().unwrap().starts_with("process "), "{events:?}");
}

// I19, I74
#[tokio::test(flavor = "multi_thread")]
async fn without_a_role_for_it_or_unasked_no_agent_is_forwarded() {
    let cluster = Cluster::start().await;
    let (agent, ann) = (Agent::start(&cluster).await, cluster.user("ann", &with_agent()));
    let bob = cluster.user("bob", &Wish { user: "bob".into(), ..Wish::default() });
    let unasked = finish(cluster.ssh(&ann, &[]).arg("echo \"[$SSH_AUTH_SOCK]\"")).await;
    assert_eq!(text(&unasked.stdout), "[]\n");
    assert!(cluster.audit.named("port").is_empty());
    let refused = finish(cluster.ssh(&bob, &agent.flags()).arg("echo \"[$SSH_AUTH_SOCK]\"")).await;
    assert_eq!(text(&refused.stdout), "[]\n");
    let event = &cluster.audit.wait_for("port", 1).await[0];
    assert_eq!(
        (&event["direction"], &event["success"], &event["user"]),
        (&"agent".into(), &false.into(), &"bob".into())
    );
    assert_eq!(event["error"], "no role of bob allows agent forwarding on this node");
    // Who asks for an answer gets it.
    let client = logged_in(&cluster, &Wish::default()).await;
    let mut channel = client.channel_open_session().await.unwrap();
    channel.agent_forward(true).await.unwrap();
    let mut answer = None;
    while answer.is_none()
        && let Some(message) = channel.wait().await
    {
        if matches!(message, russh::ChannelMsg::Success | russh::ChannelMsg::Failure) {
            answer = Some(matches!(message, russh::ChannelMsg::Success));
        }
    }
    assert_eq!(answer, Some(false));
}

// I79
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_ends_what_is_said_to_an_agent_and_its_socket() {
    let cluster = Cluster::start().await;
    let (agent, key) = (Agent::start(&cluster).await, cluster.user("ann", &with_agent()));
    let (echo, socket) = session(&cluster, &key, &agent.flags()).await;
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    assert!(asks(&mut stream).await);
    let began = std::time::Instant::now();
    lock(&cluster, user("ann"));
    assert_eq!(cluster.live.look().ended.len(), 1);
    assert_eq!(timeout(at_once(), stream.read(&mut [0])).await.expect("it ends in time").unwrap_or(0), 0);
    assert!(echo.end(at_once()).await.contains("the laptop was stolen"));
    until_gone(socket.parent().unwrap()).await;
    assert!(began.elapsed() < at_once(), "{:?}", began.elapsed());
    assert!(agent.path.exists());
}

// I78
#[tokio::test(flavor = "multi_thread")]
async fn after_the_certificates_end_a_running_session_asks_its_agent_no_more() {
    let cluster = Cluster::start().await;
    let (agent, key) = (Agent::start(&cluster).await, cluster.user("ann", &with_agent()));
    let (mut echo, socket) = session(&cluster, &key, &agent.flags()).await;
    let mut before = UnixStream::connect(&socket).await.unwrap();
    assert!(asks(&mut before).await);
    cluster.clock.advance(Duration::from_secs(3600));
    let mut after = UnixStream::connect(&socket).await.unwrap();
    assert!(!timeout(PATIENCE, asks(&mut after)).await.unwrap());
    let events = cluster.audit.wait_for("port", 3).await;
    assert!(events[2]["error"].as_str().unwrap().starts_with("the certificate expired"), "{events:?}");
    assert!(asks(&mut before).await, "what runs goes on");
    echo.says("still here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_goes_with_its_session_though_the_connection_stays() {
    let cluster = Cluster::start().await;
    let (agent, key) = (Agent::start(&cluster).await, cluster.user("ann", &with_agent()));
    let control = format!("ControlPath={}", cluster.path("master").display());
    let (mut master, first) = session(&cluster, &key, &[&agent.flags()[..], &["-M", "-o", &control]].concat()).await;
    let (second, other) = session(&cluster, &key, &[&agent.flags()[..], &["-o", &control]].concat()).await;
    assert_ne!(first, other, "each session has its own");
    let mut stream = UnixStream::connect(&other).await.unwrap();
    assert!(asks(&mut stream).await);
    let Echo { client, input, .. } = second;
    drop(input);
    assert!(timeout(PATIENCE, client.wait_with_output()).await.unwrap().unwrap().status.success());
    until_gone(other.parent().unwrap()).await;
    assert_eq!(timeout(PATIENCE, stream.read(&mut [0])).await.unwrap().unwrap_or(0), 0);
    assert!(asks(&mut UnixStream::connect(&first).await.unwrap()).await);
    master.says("still here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_all_channels_are_in_use_waits_for_one() {
    let cluster = Cluster::start_with(|config| config.limits.max_channels_per_connection = 2).await;
    let (agent, key) = (Agent::start(&cluster).await, cluster.user("ann", &with_agent()));
    let (_echo, socket) = session(&cluster, &key, &agent.flags()).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        assert!(asks(&mut stream).await);
        streams.push(stream);
    }
    let mut third = UnixStream::connect(&socket).await.unwrap();
    third.write_all(&[0, 0, 0, 1, 11]).await.unwrap();
    for stream in &mut streams {
        assert!(asks(stream).await);
    }
    assert_eq!(third.try_read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(cluster.audit.named("port").len(), 3, "nobody has taken it yet");
    drop(streams.pop());
    let mut answer = [0; 5];
    timeout(PATIENCE, third.read_exact(&mut answer)).await.expect("its turn comes").unwrap();
    assert_eq!(answer[4], 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_cannot_be_recorded_is_not_forwarded_and_the_user_learns_it() {
    let cluster = Cluster::start().await;
    let (agent, key) = (Agent::start(&cluster).await, cluster.user("ann", &with_agent()));
    *cluster.audit.broken_for.lock().unwrap() = Some("port");
    let done = finish(cluster.ssh(&key, &agent.flags()).arg("echo \"[$SSH_AUTH_SOCK]\"")).await;
    assert_eq!(text(&done.stdout), "[]\n", "{done:?}");
    assert!(text(&done.stderr).contains("the ssh-agent is not forwarded"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sockets_owner_is_the_account_of_the_session() {
    let cluster = Cluster::start().await;
    let (agent, key) = (Agent::start(&cluster).await, cluster.user("ann", &with_agent()));
    let (_echo, socket) = session(&cluster, &key, &agent.flags()).await;
    let own = nix::unistd::Uid::effective().as_raw();
    for path in [socket.as_path(), socket.parent().unwrap()] {
        assert_eq!(std::fs::metadata(path).unwrap().uid(), own, "{}", path.display());
    }
}
