//! What a real node behind a tunnel says while nobody asks for it: all octets of its process, its calls to the auth service included; and that it is
//! told at once who is locked, and forgotten soon when it stops.

use std::time::{Duration, Instant};

use remoteler_tests::{Cluster, Edge, Path, eventually};

/// What a megabyte a day leaves for so long a time.
fn share_of_a_megabyte(time: Duration) -> u64 {
    1_000_000 * time.as_secs() / 86_400
}

#[test]
fn a_node_that_nobody_asks_for_says_less_than_a_megabyte_a_day_and_is_told_of_a_lock_at_once() {
    let cluster = Cluster::start();
    let path = Path::to(cluster.proxy());
    let edge = Edge::launch(&cluster, "edge-1", &path.address().to_string(), &[], &[]);
    edge.wait_connected();

    // An agent that says something every 25 s is never so quiet; this one is, once it has said twice that it is there.
    let (window, end) = (Duration::from_secs(40), Instant::now() + Duration::from_secs(240));
    let (mut since, mut before) = (Instant::now(), path.carried());
    loop {
        std::thread::sleep(Duration::from_millis(500)); // the time itself is what is measured
        let said = path.carried() - before;
        if said > share_of_a_megabyte(window) {
            assert!(Instant::now() < end, "{said} octets in {:?}", since.elapsed());
            (since, before) = (Instant::now(), path.carried());
        } else if since.elapsed() >= window {
            break;
        }
    }
    assert!(edge.status().is_ok_and(|status| status["tunnels"].to_string().contains("connected")));

    cluster.tctl(&["lock", "--node", "edge-1", "--message", "under repair"]).ok();
    let locked = Instant::now();
    eventually("the node knows that it is locked", || {
        let status = edge.status()?;
        if status["locked"].to_string().contains("under repair") { Ok(()) } else { Err(status.to_string()) }
    });
    assert!(locked.elapsed() < Duration::from_secs(5), "{:?}", locked.elapsed());
}
