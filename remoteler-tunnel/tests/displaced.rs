//! A host has one link to a proxy: a newer one takes the older one's place, and what was the older one's, within a round trip. Under paused time, in memory.

use std::sync::Arc;
use std::time::Duration;

use remoteler_tunnel::AgentState;
use remoteler_tunnel::testkit::{Echo, TestCluster};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

const TRIP: Duration = Duration::from_millis(300);

#[tokio::test(start_paused = true)]
async fn an_older_link_is_gone_within_a_round_trip_of_the_newer_and_its_streams_say_why() {
    let cluster = TestCluster::new(1);
    let proxy = cluster.start_proxy("p1");
    let machines = ["192.0.2.7", "192.0.2.8"].map(|ip| cluster.net().machine(ip));
    machines.iter().for_each(|machine| machine.delay(TRIP / 2, Duration::ZERO));
    let first = cluster.start_agent("edge", proxy.address(), &machines[0], Arc::new(Echo));
    cluster.connected(&first).await;
    let mut old = proxy.dial("edge").await.unwrap();
    old.write_all(b"old").await.unwrap();
    old.read_exact(&mut [0; 3]).await.unwrap();

    let mut displaced = first.state();
    let second = cluster.start_agent("edge", proxy.address(), &machines[1], Arc::new(Echo));
    let (taken, lost, failure) = tokio::join!(
        async {
            cluster.connected(&second).await;
            Instant::now() - TRIP / 2 // when the proxy said so
        },
        async {
            displaced.wait_for(|state| !matches!(state, AgentState::Connected { .. })).await.unwrap();
            Instant::now()
        },
        old.read_u8(),
    );

    assert!(lost - taken <= TRIP, "the older link's agent heard of it after {:?}", lost - taken);
    let failure = failure.unwrap_err().to_string();
    assert!(failure.contains("a newer link of the same agent took its place"), "{failure}");
    assert_eq!(proxy.router().agents().len(), 1);
    drop(first);
    let dialled = Instant::now();
    let mut new = proxy.dial("edge").await.unwrap();
    new.write_all(b"new").await.unwrap();
    new.read_exact(&mut [0; 3]).await.unwrap();
    assert!(dialled.elapsed() <= 2 * TRIP, "{:?}", dialled.elapsed());
}

// I28
#[tokio::test(start_paused = true)]
async fn a_host_has_its_service_name_again_while_its_older_link_still_stands() {
    for lost in [false, true] {
        let cluster = TestCluster::new(2);
        let proxy = cluster.start_proxy("p1");
        let machines = ["192.0.2.7", "192.0.2.8"].map(|ip| cluster.net().machine(ip));
        machines.iter().for_each(|machine| machine.delay(TRIP / 2, Duration::ZERO));
        let (first, services) = cluster.start_services("edge", proxy.address(), &machines[0]);
        let _old = services.listen("greeter").unwrap();
        cluster.connected(&first).await;
        // Its process is killed or its cable is out, and the proxy has not heard of that; or it is there and well.
        machines[0].silence(lost);

        let (second, services) = cluster.start_services("edge", proxy.address(), &machines[1]);
        let mut greeter = services.listen("greeter").unwrap();
        let started = Instant::now();
        cluster.connected(&second).await;
        // TCP, TLS and hello, and the registration.
        assert!(started.elapsed() <= 4 * TRIP, "{:?}", started.elapsed());
        drop(first);
        let dialer = cluster.dialer("ann", proxy.address(), &cluster.net().machine("203.0.113.5"));
        let (dialled, accepted) = tokio::join!(dialer.dial("greeter@edge"), timeout(4 * TRIP, greeter.accept()));
        let (_stream, connection) = (dialled.unwrap(), accepted.expect("the newer link is dialled").unwrap());

        assert_eq!(connection.peer().user(), "ann");
        let heard = cluster.heard();
        assert!(!heard.iter().any(|line| line.starts_with("refused")), "{heard:?}");
    }
}
