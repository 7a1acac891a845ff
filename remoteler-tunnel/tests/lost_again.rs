//! Connections that follow one that was lost, beside bulk, in simulated time: when they are lost too, without a word, that is found as soon, and one whose
//! path is slower is kept.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use remoteler_tunnel::testkit::{Machine, TestCluster, TestProxy};
use remoteler_tunnel::{Agent, BoxedStream, DialHeader, StreamService};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

/// Sends without end, as fast as it is taken, once it is told to; until then it hears.
struct Bulk;

#[async_trait]
impl StreamService for Bulk {
    async fn serve(&self, mut stream: BoxedStream, _header: DialHeader) {
        let mut piece = vec![0x2e; 16 * 1024];
        if stream.read_u8().await.is_ok_and(|octet| octet == b'u') {
            while stream.write_all(&piece).await.is_ok() {}
        } else {
            while stream.read(&mut piece).await.is_ok_and(|count| count > 0) {}
        }
    }
}

async fn device(seed: u64, uplink: u32, way: u8) -> (Machine, TestProxy, Agent) {
    let cluster = TestCluster::new(seed);
    let proxy = cluster.start_proxy("p1");
    let device = cluster.net().machine("192.0.2.7");
    device.delay(Duration::from_millis(10), Duration::from_millis(10));
    let agent = cluster.start_agent("edge", proxy.address(), &device, Arc::new(Bulk));
    cluster.connected(&agent).await;
    device.uplink(uplink);
    let mut stream = proxy.dial("edge").await.unwrap();
    tokio::spawn(async move {
        stream.write_u8(way).await.unwrap();
        let mut piece = vec![0x2e; 64 * 1024];
        if way == b'u' {
            while stream.read(&mut piece).await.is_ok_and(|count| count > 0) {}
        } else {
            while stream.write_all(&piece).await.is_ok() {}
        }
    });
    (device, proxy, agent)
}

async fn taken_up(agent: &Agent, before: u64) -> Duration {
    let since = Instant::now();
    let goes_on = async {
        while agent.counters().resumptions == before {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), goes_on).await.unwrap();
    since.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_soon_after_another_one_is_found_out_as_soon() {
    for way in [b'u', b'd'] {
        let mut waits = Vec::new();
        for uplink in [1 << 20, 10 << 20, 0] {
            for after in [0, 10, 20, 40, 100, 300, 900] {
                let (machine, _proxy, agent) = device(after, uplink, way).await;
                sleep(Duration::from_secs(5)).await;
                machine.readdress("198.51.100.1");
                taken_up(&agent, 0).await;
                sleep(Duration::from_millis(after)).await;
                machine.readdress("198.51.100.2");
                waits.push(taken_up(&agent, 1).await);
            }
        }
        waits.sort_unstable();
        println!("{}: {:?} at the median, {:?} at the most", char::from(way), waits[10], waits[20]);
        assert!(waits[10] < Duration::from_millis(650) && waits[20] < Duration::from_secs(1), "{waits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_ten_or_a_hundred_times_slower_than_the_one_before_is_kept() {
    for (seed, times, slow) in [(1, 10, 4), (2, 10, 16), (3, 10, 64), (4, 10, 1024), (5, 100, 16), (6, 100, 256)] {
        let (machine, _proxy, agent) = device(seed, slow * times * 1024, b'u').await;
        sleep(Duration::from_secs(5)).await;
        machine.readdress("198.51.100.1");
        machine.uplink(slow * 1024);
        taken_up(&agent, 0).await;
        sleep(Duration::from_secs(30)).await;
        let (moved, needless) = (agent.counters().resumptions - 1, machine.traffic().connections - 2);
        assert_eq!(moved, 0, "{times} times slower, at {slow} KiB a second");
        assert!(needless <= u64::from(slow < 64 || times > 10), "{times} times slower, at {slow} KiB a second");
    }
}
