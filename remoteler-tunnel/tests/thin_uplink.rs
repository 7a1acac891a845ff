//! Devices behind an uplink that is slower than what they send, in simulated time: what waits in the queue is no silence, and a silence beside it is
//! still found. The queue is the device's, for all its connections.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use remoteler_tunnel::testkit::{Machine, TestCluster, TestProxy};
use remoteler_tunnel::{Agent, BoxedStream, DialHeader, Dialer, StreamService};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

/// Sends without end, as fast as it is taken.
struct Flood;

#[async_trait]
impl StreamService for Flood {
    async fn serve(&self, mut stream: BoxedStream, _header: DialHeader) {
        let piece = vec![0x2e; 16 * 1024];
        while stream.write_all(&piece).await.is_ok() {}
    }
}

/// Sends a quarter of a megabyte, and rests for as long as the test says, again and again.
struct Bursts(Duration);

#[async_trait]
impl StreamService for Bursts {
    async fn serve(&self, mut stream: BoxedStream, _header: DialHeader) {
        let piece = vec![0x2e; 256 * 1024];
        while stream.write_all(&piece).await.is_ok() && stream.flush().await.is_ok() {
            sleep(self.0).await;
        }
    }
}

/// Sends for a minute as fast as it is taken, rests until that has long left, and says a little every now and then.
struct FloodOnce;

#[async_trait]
impl StreamService for FloodOnce {
    async fn serve(&self, mut stream: BoxedStream, _header: DialHeader) {
        let (end, piece) = (Instant::now() + Duration::from_secs(60), vec![b'f'; 16 * 1024]);
        while Instant::now() < end && stream.write_all(&piece).await.is_ok() && stream.flush().await.is_ok() {}
        // 256 KiB in the socket at 16 KiB/s, and then ten seconds.
        sleep(4 * QUEUE + Duration::from_secs(10)).await;
        while stream.write_all(b".").await.is_ok() && stream.flush().await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn device(seed: u64, uplink: u32, service: Arc<dyn StreamService>) -> (Machine, TestProxy, Agent) {
    let cluster = TestCluster::new(seed);
    let proxy = cluster.start_proxy("p1");
    let device = cluster.net().machine("192.0.2.7");
    device.delay(Duration::from_millis(10), Duration::from_millis(10));
    let agent = cluster.start_agent("edge", proxy.address(), &device, service);
    cluster.connected(&agent).await;
    device.uplink(uplink);
    (device, proxy, agent)
}

/// Reads for so long; how much came.
async fn read_for(stream: &mut BoxedStream, time: Duration) -> usize {
    let (end, mut octets, mut piece) = (Instant::now() + time, 0, vec![0; 64 * 1024]);
    while let Ok(count) = tokio::time::timeout_at(end, stream.read(&mut piece)).await {
        octets += count.unwrap();
    }
    octets
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_the_queue_of_a_thin_uplink_is_not_taken_for_silence() {
    for (seed, uplink, minutes) in [(1, 16, 10), (2, 64, 10), (3, 256, 2)] {
        let (device, proxy, agent) = device(seed, uplink * 1024, Arc::new(Flood)).await;
        let mut stream = proxy.dial("edge").await.unwrap();
        let octets = read_for(&mut stream, Duration::from_mins(minutes)).await;
        assert_eq!(agent.counters().resumptions, 0, "with {uplink} KiB/s, after {octets} octets");
        assert_eq!(device.traffic().connections, 1, "with {uplink} KiB/s");
        let least = 59 * minutes as usize * uplink as usize * 1024;
        assert!(octets > least, "{octets} octets in {minutes} minutes at {uplink} KiB/s");
    }
}

#[tokio::test(start_paused = true)]
async fn nor_is_what_comes_in_bursts() {
    for (seed, rest) in [(1, 300), (2, 3_000), (3, 9_000)] {
        let (device, proxy, agent) = device(seed, 64 * 1024, Arc::new(Bursts(Duration::from_millis(rest)))).await;
        let mut stream = proxy.dial("edge").await.unwrap();
        let octets = read_for(&mut stream, Duration::from_mins(4)).await;
        assert_eq!(agent.counters().resumptions, 0, "with {rest} ms between the bursts, after {octets} octets");
        assert_eq!(device.traffic().connections, 1, "with {rest} ms between the bursts");
    }
}

#[tokio::test(start_paused = true)]
async fn all_connections_of_a_device_share_its_uplink_and_its_queue() {
    let cluster = TestCluster::new(7);
    let (machine, mut listener) = (cluster.net().machine("192.0.2.7"), cluster.net().listen("far:1"));
    let mut ends = Vec::new();
    for _ in 0..2 {
        ends.push((machine.dial("far:1").await.unwrap(), listener.accept().await.unwrap().stream));
    }
    machine.uplink(64 * 1024);
    let since = Instant::now();
    for (near, _) in &mut ends {
        near.write_all(&[0; 128 * 1024]).await.unwrap();
    }
    let third = machine.dial("far:1").await.unwrap();
    assert_eq!(since.elapsed().as_millis() / 10, 400, "a new connection begins behind what waits");
    for (_, far) in &mut ends {
        far.read_exact(&mut [0; 128 * 1024]).await.unwrap();
    }
    assert_eq!(since.elapsed().as_millis() / 10, 400, "256 KiB of both at 64 KiB a second");
    assert_eq!(machine.traffic().connections, 3);
    drop(third);

    machine.readdress("198.51.100.1");
    let since = Instant::now();
    let _ = machine.dial("far:1").await.unwrap();
    assert_eq!(since.elapsed(), Duration::ZERO, "another network has a queue of its own");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_under_a_full_queue_is_left_as_soon_as_an_answer_is_overdue() {
    let mut waits = Vec::new();
    for round in 0..20 {
        let (machine, proxy, agent) = device(round, 64 * 1024, Arc::new(Flood)).await;
        let mut stream = proxy.dial("edge").await.unwrap();
        read_for(&mut stream, Duration::from_millis(20_000 + 137 * round)).await;
        machine.readdress("198.51.100.1");
        waits.push(taken_up(&agent).await);
        assert!(timeout(Duration::from_secs(10), stream.read_u8()).await.unwrap().is_ok());
    }
    waits.sort_unstable();
    println!("{:?} at the median, {:?} at the most", waits[10], waits[19]);
    assert!(waits[19] < HALF_A_SECOND + QUEUE, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn that_a_queue_stood_for_a_minute_makes_nobody_slower_to_notice_afterwards() {
    let mut waits = Vec::new();
    for round in 0..8 {
        let (machine, proxy, agent) = device(100 + round, 16 * 1024, Arc::new(FloodOnce)).await;
        let mut stream = proxy.dial("edge").await.unwrap();
        let mut others = Vec::new();
        for _ in 0..3 {
            others.push(proxy.dial("edge").await.unwrap());
        }
        let others =
            tokio::spawn(join_all(others.into_iter().map(async |mut stream| while stream.read_u8().await.is_ok() {})));
        let little = async { while stream.read_u8().await.unwrap() != b'.' {} };
        timeout(Duration::from_mins(5), little).await.unwrap();
        // At once, and later.
        read_for(&mut stream, Duration::from_millis(341 * round)).await;
        assert_eq!((agent.counters().resumptions, machine.traffic().connections), (0, 1));
        machine.readdress("198.51.100.1");
        waits.push(taken_up(&agent).await);
        assert!(timeout(Duration::from_secs(10), stream.read_u8()).await.unwrap().is_ok());
        others.abort();
    }
    waits.sort_unstable();
    println!("{:?} at the median, {:?} at the most", waits[4], waits[7]);
    assert!(waits[7] < Duration::from_secs(2), "{waits:?}");
}

/// How long it takes until the agent's link goes on over another connection.
async fn taken_up(agent: &Agent) -> Duration {
    let since = Instant::now();
    let goes_on = async {
        while agent.counters().resumptions == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), goes_on).await.unwrap();
    since.elapsed()
}

const HALF_A_SECOND: Duration = Duration::from_millis(500);
/// What 256 KiB in a socket take at 64 KiB/s.
const QUEUE: Duration = Duration::from_secs(4);
