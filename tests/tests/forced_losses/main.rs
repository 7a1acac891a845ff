//! The connections under tunnels are lost again and again while stock clients use them: shells, port forwards and copies by OpenSSH, downloads
//! over HTTP through a named service. Every line is numbered and compared; a stream that ends early, or an octet that is another, fails.
//!
//! `REMOTELER_LOSSES`, `REMOTELER_STREAMS` and `REMOTELER_COPY_MIB` say how many losses, streams and MiB a copy.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod course;
mod namespace;
mod relay;
mod streams;

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use remoteler_client::sdk::{Agent, Join};
use remoteler_tests::{Cluster, ClusterOptions, Edge, need, run};
use tokio::{sync::mpsc, time::timeout};

use course::{Course, Waits};
use namespace::Namespace;
use relay::{Loss, Relay};
use streams::Streams;

/// For everything that has to happen some time.
const SOON: Duration = Duration::from_secs(120);

fn count(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stream_of_stock_clients_is_lost_and_no_octet_wrong_however_often_the_connection_is() {
    if !need(&["ssh", "scp", "ss"]) {
        return;
    }
    let (losses, wanted) = (count("REMOTELER_LOSSES", 40), count("REMOTELER_STREAMS", 20));
    let cluster = Cluster::start();
    let relay = Relay::start(cluster.proxy()).await;
    let edge = Edge::launch(&cluster, "edge-1", &relay.address(), &[], &[]);
    edge.wait_connected();
    let (token, pin) = cluster.token("node");
    let join = Join::token(&token).pin(&pin);
    let state = cluster.dir().join("device");
    let device = Agent::builder(&relay.address()).join(join).name("device").state(state).build().await.unwrap();
    timeout(SOON, device.connected()).await.unwrap();
    let ann = cluster.user("ann", "access");

    let (course, mut back) = Course::new();
    let mut streams = Streams::new(&course, cluster.dir());
    let (shells, forwards) = (wanted * 2 / 5, wanted / 5);
    streams.shells(&ann, shells).await;
    streams.forwards(&ann, forwards).await;
    streams.downloads(&ann, &device, wanted.saturating_sub(shells + 1 + forwards)).await;
    streams.copies(&ann, count("REMOTELER_COPY_MIB", 32));

    let killing = relay::can_kill().await;
    let mut waits = [Loss::Reset, Loss::Killed, Loss::BlackHole].map(|loss| (loss, Waits::default()));
    for round in 0..losses {
        let loss = match round % 25 {
            24 => Loss::BlackHole,
            at if at % 5 == 4 && killing => Loss::Killed,
            _ => Loss::Reset,
        };
        course.lose();
        relay.lose(loss).await;
        let (_, of_kind) = waits.iter_mut().find(|(kind, _)| *kind == loss).unwrap();
        course.all_back(&mut back, streams.count(), of_kind).await;
    }
    let ended = streams.finish().await;

    println!(
        "{losses} losses over {} streams and {} copies: {} octets compared",
        ended.streams, ended.copies, ended.octets
    );
    println!("from the loss to the first line that was sent after it and came back:");
    for (loss, of_kind) in &waits {
        println!("{loss:?}: {of_kind}");
    }
    println!("all: {}", waits.into_iter().map(|(_, of_kind)| of_kind).collect::<Waits>());
    let links = cluster.events("tunnel.connect");
    assert_eq!(links.len(), 2, "the links are those of the beginning: {links:?}");
    assert!(relay.lost() >= losses, "only {} connections were lost", relay.lost());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_live_through_lost_packets_another_address_and_a_proxy_that_stands_still() {
    if !need(&["ssh", "scp", "ip", "iptables"]) {
        return;
    }
    let Some(namespace) = Namespace::new() else {
        eprintln!("SKIPPED: network namespaces cannot be made here");
        return;
    };
    let stopped = Duration::from_secs(count("REMOTELER_STOPPED", 12) as u64);
    let options = ClusterOptions { listen_ip: namespace.outside().to_owned(), ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with(options);
    let wrapper = ["ip", "netns", "exec", namespace.name()];
    let edge = Edge::launch(&cluster, "edge-1", cluster.proxy(), &[], &wrapper);
    edge.wait_connected();
    let ann = cluster.user("ann", "access");
    let (course, mut back) = Course::new();
    let mut streams = Streams::new(&course, cluster.dir());
    streams.shells(&ann, 8).await;
    let total = streams.count();

    // One packet of twenty is lost, each way, while a copy passes.
    namespace.lose_packets("0.05");
    streams.copies(&ann, 2);
    let mut lossy = Waits::default();
    for _ in 0..5 {
        course.lose();
        course.all_back(&mut back, total, &mut lossy).await;
    }
    namespace.lose_none();
    println!("one packet of twenty lost: a line and its echo, {lossy}");

    // Another address: what was under way to the old one is gone.
    let mut moved = Waits::default();
    for round in 0..3 {
        course.lose();
        namespace.move_to(round);
        course.all_back(&mut back, total, &mut moved).await;
    }
    println!("another address: {moved}");

    // The proxy stands still, and so long that the agent gives its connection up, and a node whoever has not logged in.
    let logins = streams.nobody_logs_in().await;
    cluster.daemon().signal(Signal::SIGSTOP);
    tokio::time::sleep(stopped).await; // this is the time that it stands still
    let since = Instant::now();
    course.lose();
    cluster.daemon().signal(Signal::SIGCONT);
    let mut stood = Waits::default();
    course.all_back(&mut back, total, &mut stood).await;
    drop(logins);
    println!("the proxy stood still for {stopped:?}; {:?} after it goes on all streams do: {stood}", since.elapsed());

    let ended = streams.finish().await;
    println!("{} octets compared of {} streams and {} copies", ended.octets, ended.streams, ended.copies);
    let links = cluster.events("tunnel.connect");
    assert_eq!(links.len(), 1, "the link is that of the beginning: {links:?}");
}

/// Reports of streams that an echo came back.
type Back = mpsc::UnboundedReceiver<(u64, usize, Duration)>;

/// A shell command that must work.
fn sh(step: &str) -> bool {
    let out = run(Command::new("sh").args(["-c", step]));
    if out.code != Some(0) {
        eprintln!("{step}: {}", out.stderr);
    }
    out.code == Some(0)
}

/// What all streams of a test share.
type Shared = Arc<Course>;
