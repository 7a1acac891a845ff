//! Paths whose round trips grow, and writers that are slower than their path, in simulated time: neither is silence, and neither hides one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use remoteler_tunnel::testkit::{Echo, Machine, TestCluster, TestProxy};
use remoteler_tunnel::{Agent, BoxedStream, DialHeader, StreamService};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

/// Says a piece, rests, and so on.
struct Writer {
    piece: usize,
    rest: Duration,
}

#[async_trait]
impl StreamService for Writer {
    async fn serve(&self, mut stream: BoxedStream, _header: DialHeader) {
        let piece = vec![0x2e; self.piece];
        while stream.write_all(&piece).await.is_ok() && stream.flush().await.is_ok() {
            sleep(self.rest).await;
        }
    }
}

async fn device(seed: u64, service: Arc<dyn StreamService>, one_way: Duration) -> (Machine, TestProxy, Agent) {
    let cluster = TestCluster::new(seed);
    let proxy = cluster.start_proxy("p1");
    let device = cluster.net().machine("192.0.2.7");
    device.delay(one_way, one_way / 10);
    let agent = cluster.start_agent("edge", proxy.address(), &device, service);
    cluster.connected(&agent).await;
    (device, proxy, agent)
}

/// Reads all that comes, for so long.
async fn read_for(stream: &mut BoxedStream, time: Duration) {
    let (end, mut piece) = (Instant::now() + time, vec![0; 64 * 1024]);
    while let Ok(count) = tokio::time::timeout_at(end, stream.read(&mut piece)).await {
        count.unwrap();
    }
}

/// The round trip goes from 50 ms to 4 s.
async fn grows(device: &Machine, within: Duration) {
    for step in 0..=100_u32 {
        let one_way = Duration::from_millis(25) + Duration::from_millis(1975) * step / 100;
        device.delay(one_way, one_way / 20);
        sleep(within / 100).await;
    }
}

#[tokio::test(start_paused = true)]
async fn round_trips_that_grow_are_no_reason_to_make_other_connections_one_after_another() {
    let services: [fn() -> Arc<dyn StreamService>; 3] = [
        || Arc::new(Echo),
        || Arc::new(Writer { piece: 1, rest: Duration::from_millis(50) }),
        || Arc::new(Writer { piece: 200, rest: Duration::from_millis(1700) }),
    ];
    for (seed, within) in [(1, 15), (2, 40), (3, 200)] {
        for service in services {
            let (device, proxy, agent) = device(seed, service(), Duration::from_millis(25)).await;
            let (mut reader, mut writer) = tokio::io::split(proxy.dial("edge").await.unwrap());
            // Whatever comes is read, and something is said every now and then.
            let reading = tokio::spawn(async move { while reader.read_u8().await.is_ok() {} });
            let saying = tokio::spawn(async move {
                while writer.write_all(b"keystroke").await.is_ok() {
                    sleep(Duration::from_millis(900)).await;
                }
            });
            sleep(Duration::from_secs(20)).await;
            grows(&device, Duration::from_secs(within)).await;
            sleep(Duration::from_secs(30)).await;
            let (made, moved) = (device.traffic().connections - 1, agent.counters().resumptions);
            assert!(moved == 0 && made <= 1, "within {within} s: {made} other connections, {moved} taken");
            reading.abort();
            saying.abort();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn that_a_writer_is_slower_than_its_path_hides_no_silence() {
    for (seed, a_second, rest) in
        [(1, 20_000, 100), (2, 60_000, 20), (3, 100_000, 50), (4, 100_000, 200), (5, 1_000_000, 10)]
    {
        let mut waits = Vec::new();
        let writer = Writer { piece: a_second * rest / 1000, rest: Duration::from_millis(rest as u64) };
        let (device, proxy, agent) = device(seed, Arc::new(writer), Duration::from_millis(5)).await;
        let mut stream = proxy.dial("edge").await.unwrap();
        for round in 0..10 {
            read_for(&mut stream, Duration::from_millis(4_000 + 137 * round)).await;
            assert_eq!(agent.counters().resumptions, round, "nothing was wrong with it");
            device.readdress(&format!("198.51.100.{round}"));
            let since = Instant::now();
            let goes_on = async {
                while agent.counters().resumptions == round {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(Duration::from_mins(1), goes_on).await.unwrap();
            waits.push(since.elapsed());
            timeout(Duration::from_secs(10), stream.read_u8()).await.unwrap().unwrap();
        }
        waits.sort_unstable();
        println!("{a_second} octets a second: {:?} at the median, {:?} at the most", waits[5], waits[9]);
        assert_eq!(device.traffic().connections, 11, "no connection was made in vain");
        assert!(waits[9] < Duration::from_millis(800), "{a_second} octets a second: {waits:?}");
    }
}
