//! How long a link is kept that has lost its connection, in simulated time: each side keeps it as long as it was told, so the one that keeps it
//! for less decides.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use remoteler_tunnel::testkit::{Echo, TestCluster};
use remoteler_tunnel::{AgentState, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

const MINUTE: Duration = Duration::from_secs(60);

/// A stream that is open while nothing gets through for as long as `away` says: whether it goes on then, or why not.
async fn stream_after(away: Duration, agents: Duration, proxies: Duration) -> Result<(), String> {
    let within = |resume_within, limits: Limits| Limits { resume_within, ..limits };
    let cluster = TestCluster::new(5).with_limits(within(agents, Limits::client()), within(proxies, Limits::server()));
    let proxy = cluster.start_proxy("p1");
    let device = cluster.net().machine("192.0.2.7");
    let agent = cluster.start_agent("edge", proxy.address(), &device, Arc::new(Echo));
    cluster.connected(&agent).await;
    let mut stream = proxy.dial("edge").await.unwrap();
    device.silence(true);
    sleep(away).await;
    device.silence(false);
    let goes_on = async {
        stream.write_all(b"x").await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    let heard = timeout(2 * MINUTE, goes_on).await.unwrap().map_err(|cause| cause.to_string());
    // Either way the device is back.
    let connected = |state: &AgentState| matches!(state, AgentState::Connected { .. });
    timeout(2 * MINUTE, agent.state().wait_for(connected)).await.unwrap().unwrap();
    assert!(heard.as_ref().is_ok_and(|octet| *octet == b'x') || heard.is_err());
    heard.map(drop)
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_a_silence_that_is_shorter_than_the_window_and_none_that_is_longer() {
    let default = Limits::client().resume_within;
    stream_after(9 * MINUTE, default, default).await.unwrap();
    let lost = stream_after(12 * MINUTE, default, default).await.unwrap_err();
    assert!(lost.contains("no other connection within 600 s"), "{lost}");
}

#[tokio::test(start_paused = true)]
async fn a_longer_window_outlives_more_and_a_shorter_one_less_than_the_default() {
    stream_after(25 * MINUTE, 30 * MINUTE, 30 * MINUTE).await.unwrap();
    let lost = stream_after(3 * MINUTE, MINUTE, MINUTE).await.unwrap_err();
    assert!(lost.contains("no other connection within 60 s"), "{lost}");
}

#[tokio::test(start_paused = true)]
async fn the_side_that_keeps_a_link_for_less_decides_whichever_it_is() {
    let at_the_proxy = stream_after(5 * MINUTE, 30 * MINUTE, MINUTE).await.unwrap_err();
    assert!(at_the_proxy.contains("no other connection within 60 s"), "{at_the_proxy}");
    let at_the_agent = stream_after(5 * MINUTE, MINUTE, 30 * MINUTE).await.unwrap_err();
    assert!(at_the_agent.contains("the link was closed"), "{at_the_agent}");
}
