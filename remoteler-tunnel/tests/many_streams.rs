//! As many streams as a link may have, over one connection with TLS. In memory, under paused time.

use std::sync::Arc;

use futures::{StreamExt, stream};
use remoteler_tunnel::Limits;
use remoteler_tunnel::testkit::{Echo, TestCluster};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

// I27
#[tokio::test(start_paused = true)]
async fn ten_thousand_streams_are_open_at_once_on_one_connection_and_each_has_its_own_octets() {
    let cluster = TestCluster::new(1);
    let proxy = cluster.start_proxy("p1");
    let device = cluster.net().machine("192.0.2.7");
    let agent = cluster.start_agent("edge", proxy.address(), &device, Arc::new(Echo));
    cluster.connected(&agent).await;
    let most = Limits::client().max_streams;
    assert_eq!(most, 10_000);

    let dial = |number: u32| {
        let proxy = &proxy;
        async move {
            let mut stream = proxy.dial("edge").await.unwrap();
            stream.write_u32(number).await.unwrap();
            stream
        }
    };
    let mut open: Vec<_> = stream::iter(0..most).map(dial).buffered(500).collect().await;
    let refused = proxy.dial("edge").await.expect_err("one more than may be");
    let refused = remoteler_core::with_causes(&refused);
    assert!(refused.contains("10000 streams"), "{refused}");
    for (number, stream) in (0..most).zip(&mut open) {
        assert_eq!(stream.read_u32().await.unwrap(), number);
    }

    device.readdress("198.51.100.9"); // all of them go on over another connection
    for (number, stream) in (0..most).zip(&mut open) {
        stream.write_u32(!number).await.unwrap();
    }
    for (number, stream) in (0..most).zip(&mut open) {
        assert_eq!(stream.read_u32().await.unwrap(), !number);
    }
    assert_eq!((device.traffic().connections, agent.counters().resumptions), (2, 1));
}
