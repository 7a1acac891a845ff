//! What an idle link costs in a day, counted where the octets leave: TLS included, and TCP and IPv6 headers of each segment and of the
//! acknowledgements added. A simulated day.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use remoteler_tunnel::testkit::{Echo, TestCluster};
use remoteler_tunnel::{Agent, AgentState, Limits};
use tokio::time::{Instant, sleep};

/// Octets of IPv6 (40) and TCP with time stamps (32).
const HEADERS: u64 = 72;
/// How often a test looks whether something has been found out.
const LOOKS: Duration = Duration::from_millis(100);
const DAY: Duration = Duration::from_secs(86_400);

/// Octets of a day in both directions. A PONG carries the acknowledgement of its PING, and one of its own comes back for it: one for two
/// segments.
async fn idle_day(limits: Limits, one_way: Duration) -> u64 {
    let cluster = TestCluster::new(1).with_limits(limits, Limits::server());
    let proxy = cluster.start_proxy("p1");
    let device = cluster.net().machine("192.0.2.7");
    device.delay(one_way, Duration::from_millis(20));
    let agent = cluster.start_agent("edge", proxy.address(), &device, Arc::new(Echo));
    cluster.connected(&agent).await;
    sleep(Duration::from_secs(60)).await;
    let before = device.traffic();
    sleep(DAY).await;
    let after = device.traffic();
    assert!(matches!(*agent.state().borrow(), AgentState::Connected { .. }), "{:?}", agent.state().borrow());
    proxy.dial("edge").await.unwrap();
    let payload = (after.sent - before.sent) + (after.received - before.received);
    let segments = after.segments - before.segments;
    payload + (segments + segments.div_ceil(2)) * HEADERS
}

#[tokio::test(start_paused = true)]
async fn an_idle_day_costs_less_than_a_megabyte() {
    for one_way in [40, 330] {
        let octets = idle_day(Limits::client(), Duration::from_millis(one_way)).await;
        println!("{octets} octets a day");
        assert!((100_000..1_000_000).contains(&octets), "{octets}, {one_way} ms each way");
    }
}

/// Where an answer takes long it is asked for sooner, and by one side alone.
#[tokio::test(start_paused = true)]
async fn an_idle_day_with_round_trips_of_a_second_and_two_costs_little_more_than_a_megabyte() {
    for one_way in [500, 1_000] {
        let octets = idle_day(Limits::client(), Duration::from_millis(one_way)).await;
        assert!((100_000..1_200_000).contains(&octets), "{octets}, {one_way} ms each way");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_day_on_a_metered_network_costs_less_than_a_hundred_kilobytes() {
    let octets = idle_day(Limits::metered(), Duration::from_millis(40)).await;
    println!("{octets} octets a day");
    assert!((10_000..100_000).contains(&octets), "{octets}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_gone_is_found_out_in_thirty_seconds_without_traffic_and_sooner_with_it() {
    let (fast, slow) = (Duration::ZERO, Duration::from_millis(1_200)); // and so answers take almost two and a half seconds
    for (metered, traffic, way, most) in [
        (false, false, fast, 30),
        (false, false, slow, 30),
        (false, true, fast, 8),
        (true, true, fast, 8),
        (true, false, fast, 330),
    ] {
        let limits = if metered { Limits::metered() } else { Limits::client() };
        let cluster = TestCluster::new(2).with_limits(limits, Limits::server());
        let proxy = cluster.start_proxy("p1");
        let device = cluster.net().machine("192.0.2.7");
        device.delay(way, Duration::ZERO);
        let agent: Agent = cluster.start_agent("edge", proxy.address(), &device, Arc::new(Echo));
        cluster.connected(&agent).await;
        let mut stream = proxy.dial("edge").await.unwrap();
        sleep(Duration::from_secs(60)).await;

        device.silence(true);
        let since = Instant::now();
        if traffic {
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"is anybody there?").await.unwrap();
        }
        while proxy.router().agents().iter().all(|agent| agent.suspended.is_none()) {
            sleep(LOOKS).await;
        }
        let found = since.elapsed();
        assert!(found <= Duration::from_secs(most) + LOOKS, "{found:?}: {metered} {traffic} {way:?}");
    }
}
