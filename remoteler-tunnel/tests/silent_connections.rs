//! Connections that are lost and nobody says so, in simulated time: streams go on over another one within a second, and a connection that is only
//! slow is not left.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use remoteler_tunnel::testkit::{Echo, TestCluster};
use remoteler_tunnel::{Agent, BoxedStream, DialHeader, StreamService};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

/// Says something every 50 ms, whoever listens.
struct Ticker;

#[async_trait]
impl StreamService for Ticker {
    async fn serve(&self, mut stream: BoxedStream, _header: DialHeader) {
        while stream.write_all(b".").await.is_ok() && stream.flush().await.is_ok() {
            sleep(TICK).await;
        }
    }
}

/// Hears all, and says how much only at the end.
struct Listener;

#[async_trait]
impl StreamService for Listener {
    async fn serve(&self, mut stream: BoxedStream, _header: DialHeader) {
        let mut octets = Vec::new();
        if stream.read_to_end(&mut octets).await.is_ok() {
            stream.write_all(&octets.len().to_be_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    }
}

fn resumptions(agent: &Agent) -> u64 {
    agent.counters().resumptions
}

#[tokio::test(start_paused = true)]
async fn what_a_device_says_arrives_within_a_second_after_its_address_has_changed_unnoticed() {
    let cluster = TestCluster::new(3);
    let proxy = cluster.start_proxy("p1");
    let device = cluster.net().machine("192.0.2.7");
    device.delay(Duration::from_millis(5), Duration::from_millis(5));
    let agent = cluster.start_agent("edge", proxy.address(), &device, Arc::new(Ticker));
    cluster.connected(&agent).await;
    let mut stream = proxy.dial("edge").await.unwrap();
    let mut waits = Vec::new();
    for round in 0..50 {
        for _ in 0..20 {
            stream.read_u8().await.unwrap();
        }
        device.readdress(&format!("198.51.100.{round}"));
        let since = Instant::now();
        // What was under way may still come; the first octet after a silence went over the other connection.
        loop {
            let before = Instant::now();
            timeout(Duration::from_secs(20), stream.read_u8()).await.unwrap().unwrap();
            if before.elapsed() > 3 * TICK {
                break;
            }
        }
        waits.push(since.elapsed());
    }
    waits.sort_unstable();
    println!("{:?} at the median, {:?} at the most", waits[25], waits[49]);
    assert!(waits[49] < Duration::from_secs(1), "{waits:?}");
    assert_eq!(resumptions(&agent), 50);
}

#[tokio::test(start_paused = true)]
async fn what_a_device_is_told_arrives_too_and_whole() {
    let cluster = TestCluster::new(4);
    let proxy = cluster.start_proxy("p1");
    let device = cluster.net().machine("192.0.2.7");
    device.delay(Duration::from_millis(5), Duration::from_millis(5));
    let agent = cluster.start_agent("edge", proxy.address(), &device, Arc::new(Listener));
    cluster.connected(&agent).await;
    let mut stream = proxy.dial("edge").await.unwrap();
    for round in 0..10 {
        for _ in 0..40 {
            stream.write_all(b".").await.unwrap();
            stream.flush().await.unwrap();
            sleep(TICK).await;
        }
        let before = resumptions(&agent);
        device.readdress(&format!("198.51.100.{round}"));
        let since = Instant::now();
        let goes_on = async {
            while resumptions(&agent) == before {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_mins(1), goes_on).await.unwrap();
        assert!(since.elapsed() < Duration::from_secs(1), "the device noticed after {:?}", since.elapsed());
    }
    stream.shutdown().await.unwrap();
    let mut count = [0; 8];
    stream.read_exact(&mut count).await.unwrap();
    assert_eq!(usize::from_be_bytes(count), 400);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_slow_and_uneven_keeps_its_connection() {
    for seed in 5..10 {
        let cluster = TestCluster::new(seed);
        let proxy = cluster.start_proxy("p1");
        let device = cluster.net().machine("192.0.2.7");
        device.delay(Duration::from_millis(300), Duration::from_millis(300));
        let agent = cluster.start_agent("edge", proxy.address(), &device, Arc::new(Echo));
        cluster.connected(&agent).await;
        let mut stream = proxy.dial("edge").await.unwrap();
        for pause in 0..300 {
            stream.write_all(b"keystroke").await.unwrap();
            stream.flush().await.unwrap();
            stream.read_exact(&mut [0; 9]).await.unwrap();
            sleep(Duration::from_millis(pause * 37 % 4000)).await;
        }
        assert_eq!(resumptions(&agent), 0, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_away_for_some_seconds_and_comes_back_as_it_was_loses_nothing() {
    let cluster = TestCluster::new(11);
    let proxy = cluster.start_proxy("p1");
    let device = cluster.net().machine("192.0.2.7");
    device.delay(Duration::from_millis(5), Duration::from_millis(5));
    let agent = cluster.start_agent("edge", proxy.address(), &device, Arc::new(Ticker));
    cluster.connected(&agent).await;
    let mut stream = proxy.dial("edge").await.unwrap();
    for away in [1, 3, 5, 20, 60] {
        stream.read_u8().await.unwrap();
        device.silence(true);
        sleep(Duration::from_secs(away)).await;
        device.silence(false);
        // All that the device has said meanwhile, and more.
        let heard = timeout(Duration::from_secs(10), stream.read_exact(&mut [0; 20])).await;
        assert!(heard.is_ok_and(|heard| heard.is_ok()), "after {away} s away");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_reads_what_came_meanwhile_before_it_judges_its_peers() {
    for seed in 12..17 {
        let cluster = TestCluster::new(seed);
        let proxy = cluster.start_proxy("p1");
        let device = cluster.net().machine("192.0.2.7");
        device.delay(Duration::from_millis(200), Duration::from_millis(50));
        let agent = cluster.start_agent("edge", proxy.address(), &device, Arc::new(Ticker));
        cluster.connected(&agent).await;
        let mut stream = proxy.dial("edge").await.unwrap();
        for round in 0..30 {
            // Questions and answers are under way at any time.
            for _ in 0..10 + round % 7 {
                timeout(Duration::from_secs(20), stream.read_u8()).await.unwrap().unwrap();
            }
            tokio::time::advance(Duration::from_secs([9, 40, 100][round % 3])).await;
        }
        assert_eq!((resumptions(&agent), device.traffic().connections), (0, 1), "seed {seed}");
    }
}

const TICK: Duration = Duration::from_millis(50);
