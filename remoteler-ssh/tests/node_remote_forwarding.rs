//! `ssh -R` as stock OpenSSH does it: where the node listens, who may have it, how long it lasts, and what is recorded of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::{path::Path, process::Stdio, time::Duration};

use remoteler_core::{ClusterSettings, Policy, PolicySource};
use support::{
    Cluster, Wish, finish,
    live::{Echo, at_once, lock, user},
    logged_in, text,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Child,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A service beside the client that sends back what it gets, and a number of its port.
async fn echo_service() -> u16 {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = target.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = target.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _copied = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    port
}

/// `ssh -N -R 0:…`, and the port it was given.
async fn forwarding(cluster: &Cluster, key: &Path, flags: &[&str], spec: &str) -> (Child, u16) {
    let mut ssh = cluster.ssh(key, &[flags, &["-N", "-R", spec]].concat());
    let mut client = ssh.stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(client.stderr.take().unwrap());
    let mut line = String::new();
    let port = timeout(PATIENCE, async {
        loop {
            line.clear();
            assert!(errors.read_line(&mut line).await.unwrap() > 0, "ssh ended");
            if let Some(rest) = line.strip_prefix("Allocated port ") {
                break rest.split(' ').next().unwrap().parse().unwrap();
            }
        }
    });
    let port = port.await.unwrap();
    client.stderr = Some(errors.into_inner());
    (client, port)
}

/// Sends a line there and has it back.
async fn echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0; 6];
    stream.write_all(b"hello\n").await.is_ok()
        && timeout(PATIENCE, stream.read_exact(&mut back)).await.unwrap().is_ok()
        && back == *b"hello\n"
}

async fn until_nobody_listens(port: u16) {
    let going = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, going).await.unwrap_or_else(|_| panic!("somebody listens on port {port}"));
}

// I19
#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_port_of_the_node_reach_what_the_client_reaches_whole_and_on_record() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let target = echo_service().await;
    for address in ["", "localhost:", "*:", "0.0.0.0:"] {
        let (mut client, port) = forwarding(&cluster, &key, &[], &format!("{address}0:127.0.0.1:{target}")).await;
        let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let (mut from, mut to) = TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_split();
        let sending = async {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        let (_, read) = timeout(PATIENCE, async { tokio::join!(sending, from.read_to_end(&mut back)) }).await.unwrap();
        read.unwrap();
        assert!(back == sent, "{address:?}: {} of {} octets came back", back.len(), sent.len());
        let event = cluster.audit.named("port").pop().unwrap();
        assert_eq!((&event["direction"], &event["success"]), (&"remote".into(), &true.into()));
        assert_eq!(event["addr"], format!("localhost:{port}"));
        client.start_kill().unwrap();
        client.wait().await.unwrap();
        until_nobody_listens(port).await;
    }
    assert_eq!(cluster.audit.named("port").len(), 4, "one event for each forward, however many connect");
}

// I19
#[tokio::test(flavor = "multi_thread")]
async fn without_a_role_for_it_no_port_is_listened_on_and_the_reason_is_said_and_recorded() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish { roles: vec!["no-remote".into()], ..Wish::default() });
    let flags = ["-o", "ExitOnForwardFailure=yes", "-N", "-R", "0:127.0.0.1:1"];
    assert_eq!(finish(&mut cluster.ssh(&key, &flags)).await.status.code(), Some(255));
    let event = &cluster.audit.wait_for("port", 1).await[0];
    assert_eq!((&event["direction"], &event["success"]), (&"remote".into(), &false.into()));
    assert_eq!(event["error"], "no role of ann allows remote port forwarding on this node");
    let told = finish(cluster.ssh(&key, &["-R", "0:127.0.0.1:1"]).arg("echo on")).await;
    assert_eq!(text(&told.stdout), "on\n");
    assert!(text(&told.stderr).contains("is not forwarded: no role of ann allows"), "{told:?}");
    // The other way is another matter.
    let target = echo_service().await;
    let mut local = cluster.ssh(&key, &["-W", &format!("127.0.0.1:{target}")]);
    let mut local = local.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    local.stdin.take().unwrap().write_all(b"x").await.unwrap();
    assert_eq!(text(&timeout(PATIENCE, local.wait_with_output()).await.unwrap().unwrap().stdout), "x");
}

// I79
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_ends_a_remote_forward_with_all_its_connections() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let target = echo_service().await;
    let (mut client, port) = forwarding(&cluster, &key, &[], &format!("0:127.0.0.1:{target}")).await;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert!(echoes(&mut stream).await);
    let began = std::time::Instant::now();
    lock(&cluster, user("ann"));
    assert_eq!(cluster.live.look().ended.len(), 1);
    assert_eq!(timeout(at_once(), stream.read(&mut [0])).await.expect("it ends in time").unwrap_or(0), 0);
    until_nobody_listens(port).await;
    timeout(at_once(), client.wait()).await.expect("the client is told").unwrap();
    assert!(began.elapsed() < at_once(), "{:?}", began.elapsed());
}

// I78
#[tokio::test(flavor = "multi_thread")]
async fn after_the_certificates_end_nothing_new_comes_through_a_port_that_is_still_there() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let target = echo_service().await;
    let (_client, port) = forwarding(&cluster, &key, &[], &format!("0:127.0.0.1:{target}")).await;
    let mut before = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert!(echoes(&mut before).await);
    cluster.clock.advance(Duration::from_secs(3600));
    let mut after = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert!(!echoes(&mut after).await);
    assert!(echoes(&mut before).await, "what runs goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_through_a_remote_forward_is_a_sign_of_life() {
    let cluster = Cluster::start().await;
    let settings = ClusterSettings { client_idle_timeout_seconds: Some(30), ..ClusterSettings::default() };
    cluster.policy.replace(Policy { settings, ..Policy::clone(&cluster.policy.policy()) });
    let key = cluster.user("ann", &Wish::default());
    let target = echo_service().await;
    let (mut client, port) = forwarding(&cluster, &key, &[], &format!("0:127.0.0.1:{target}")).await;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert!(echoes(&mut stream).await);
    cluster.live.look();
    for _ in 0..3 {
        cluster.clock.advance(Duration::from_secs(29));
        assert!(echoes(&mut stream).await);
        assert!(cluster.live.look().ended.is_empty());
    }
    cluster.clock.advance(Duration::from_secs(31));
    assert_eq!(cluster.live.look().ended.len(), 1);
    timeout(PATIENCE, client.wait()).await.expect("silence ends it").unwrap();
    until_nobody_listens(port).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_that_is_cancelled_listens_no_more_and_what_came_through_it_goes_on() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let spec = format!("0:127.0.0.1:{}", echo_service().await);
    let control = format!("ControlPath={}", cluster.path("master").display());
    let (_master, port) = forwarding(&cluster, &key, &["-M", "-o", &control], &spec).await;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert!(echoes(&mut stream).await);
    let cancelled = finish(&mut cluster.ssh(&key, &["-o", &control, "-O", "cancel", "-R", &spec])).await;
    assert!(cancelled.status.success(), "{cancelled:?}");
    until_nobody_listens(port).await;
    assert!(echoes(&mut stream).await);
    let again = finish(&mut cluster.ssh(&key, &["-o", &control, "-O", "forward", "-R", &spec])).await;
    let port: u16 = text(&again.stdout).trim().parse().unwrap_or_else(|_| panic!("{again:?}"));
    assert!(echoes(&mut TcpStream::connect(("127.0.0.1", port)).await.unwrap()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_refused_and_the_session_says_so_and_goes_on() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let done = finish(cluster.ssh(&key, &["-R", &format!("{port}:127.0.0.1:1")]).arg("echo on")).await;
    assert_eq!(text(&done.stdout), "on\n");
    assert!(text(&done.stderr).contains(&format!("cannot listen on port {port}")), "{done:?}");
    let event = &cluster.audit.wait_for("port", 1).await[0];
    assert_eq!((&event["direction"], &event["success"]), (&"remote".into(), &false.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_has_so_many_forwards_and_no_more_and_none_twice() {
    let cluster = Cluster::start().await;
    let client = logged_in(&cluster, &Wish::default()).await;
    let mut ports = Vec::new();
    for _ in 0..32 {
        ports.push(client.tcpip_forward("localhost", 0).await.unwrap());
    }
    assert!(client.tcpip_forward("localhost", 0).await.is_err());
    assert!(client.cancel_tcpip_forward("elsewhere", ports[0]).await.is_err());
    client.cancel_tcpip_forward("localhost", ports[0]).await.unwrap();
    assert!(client.cancel_tcpip_forward("localhost", ports[0]).await.is_err());
    assert!(client.tcpip_forward("127.0.0.1", ports[1]).await.is_err(), "it is forwarded already");
    assert!(client.tcpip_forward("localhost", 70_000).await.is_err());
    let another = client.tcpip_forward("localhost", 0).await.unwrap();
    assert_ne!(another, 0);
    let errors: Vec<_> =
        cluster.audit.named("port").iter().filter_map(|event| event["error"].as_str().map(str::to_owned)).collect();
    let wanted = ["may be no more", "forwarded in this connection already", "there is no port 70000"];
    assert_eq!(errors.len(), wanted.len(), "{errors:?}");
    for (error, wanted) in errors.iter().zip(wanted) {
        assert!(error.contains(wanted), "{error:?} instead of {wanted:?}");
    }
    drop(client);
    for port in ports {
        until_nobody_listens(u16::try_from(port).unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_cannot_be_recorded_is_not_listened_on() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    *cluster.audit.broken_for.lock().unwrap() = Some("port");
    let flags = ["-o", "ExitOnForwardFailure=yes", "-N", "-R", "0:127.0.0.1:1"];
    assert_eq!(finish(&mut cluster.ssh(&key, &flags)).await.status.code(), Some(255));
    let told = finish(cluster.ssh(&key, &["-R", "0:127.0.0.1:1"]).arg("true")).await;
    assert!(text(&told.stderr).contains("the audit log does not take events"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_the_client_refuses_ends_that_connection_alone() {
    let cluster = Cluster::start_with(|config| config.limits.max_channels_per_connection = 1).await;
    let key = cluster.user("ann", &Wish::default());
    // Nobody listens at the far end: the client refuses each channel, and the place is free for the next.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let flags = ["-R", &format!("0:127.0.0.1:{closed}")];
    let mut session = Echo::start(&cluster, &key, &flags, "cat").await;
    let port = cluster.audit.named("port")[0]["addr"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        assert_eq!(timeout(PATIENCE, stream.read(&mut [0])).await.unwrap().unwrap_or(0), 0);
        session.says("still here").await;
    }
}
