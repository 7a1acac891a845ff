//! A stream that nobody reads beside one that somebody uses, in one link, under paused time: what passes is what the code waits for.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use remoteler_tunnel::testkit::{Echo, TestCluster};
use remoteler_tunnel::{BoxedStream, DialHeader, Limits, StreamService};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

/// Reads nothing of the first stream, and says everything back on the others.
#[derive(Default)]
struct FirstUnread(AtomicBool);

#[async_trait]
impl StreamService for FirstUnread {
    async fn serve(&self, stream: BoxedStream, header: DialHeader) {
        if self.0.swap(true, Ordering::SeqCst) {
            Echo.serve(stream, header).await;
        } else {
            std::future::pending::<()>().await;
        }
    }
}

/// What the rounds of a stream take: so many octets there and back.
async fn rounds(one_way: Duration, stalled: usize) -> Vec<Duration> {
    let cluster =
        TestCluster::new(3).with_limits(Limits { link_window: 1 << 20, ..Limits::client() }, Limits::server());
    let proxy = cluster.start_proxy("p1");
    let device = cluster.net().machine("192.0.2.7");
    device.delay(one_way, Duration::ZERO);
    let agent = cluster.start_agent("edge", proxy.address(), &device, Arc::new(FirstUnread::default()));
    cluster.connected(&agent).await;
    let mut unread = proxy.dial("edge").await.unwrap();
    let written = timeout(Duration::from_secs(5), unread.write_all(&vec![7; stalled])).await;
    assert_eq!(written.is_err(), stalled > 64 * 1024, "somebody reads it");

    let mut lively = proxy.dial("edge").await.unwrap();
    let (block, mut heard) = (vec![9; 200_000], vec![0; 200_000]);
    let mut took = Vec::new();
    for _ in 0..40 {
        let since = Instant::now();
        let (mut reader, mut writer) = tokio::io::split(&mut lively);
        let (written, read) = tokio::join!(writer.write_all(&block), reader.read_exact(&mut heard));
        written.unwrap();
        read.unwrap();
        assert!(heard == block);
        took.push(since.elapsed());
    }
    took
}

// I27
#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_reads_delays_no_round_of_another_by_more_than_a_tenth_of_a_second() {
    for one_way in [Duration::ZERO, Duration::from_millis(10), Duration::from_millis(80)] {
        let alone = rounds(one_way, 1).await;
        let beside = rounds(one_way, 4 << 20).await;
        for (alone, beside) in alone.into_iter().zip(beside) {
            assert!(beside <= alone + Duration::from_millis(100), "{beside:?} and not {alone:?}, {one_way:?} each way");
        }
    }
}
