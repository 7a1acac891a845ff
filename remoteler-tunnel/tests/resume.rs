//! Links that lose their connections, over real TLS on loopback: streams do not notice, and nobody else takes a link up.

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use remoteler_core::SystemRole;
use remoteler_tunnel::{AdmissionLimits, AgentState, CloseReason, Limits, Link, ReplayBudget, Side};
use support::{Echo, FaultRelay, Proxy, connected, only_its_own_agent_takes_it_up, own_link};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// Connections that are lost, at least, while streams are under way.
const CUTS: usize = 6;
/// Octets after which what a stream carries begins again. A prime, so that a piece that is lost or comes twice is noticed.
const PERIOD: usize = 1_000_003;

async fn proxy() -> Proxy {
    Proxy::start(AdmissionLimits::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_live_through_the_loss_of_their_connections_and_every_octet_arrives_once() {
    let proxy = Arc::new(proxy().await);
    let relay = FaultRelay::start(proxy.address).await;
    let agent = proxy.agent("edge", relay.address, Arc::new(Echo));
    connected(&agent).await;
    let cuts = Arc::new(AtomicUsize::new(0));
    let streams: Vec<_> = (0..8u32)
        .map(|number| {
            let (proxy, cuts) = (proxy.clone(), cuts.clone());
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(proxy.dial("edge").await.unwrap());
                let octets: Arc<Vec<u8>> = Arc::new(
                    (0..)
                        .take(PERIOD)
                        .map(|at: u32| (at.wrapping_add(number).wrapping_mul(2_654_435_761) >> 24) as u8)
                        .collect(),
                );
                let sending = octets.clone();
                let writing = tokio::spawn(async move {
                    let mut sent = 0;
                    while sent < 6 * PERIOD || cuts.load(Ordering::SeqCst) < CUTS {
                        for piece in sending.chunks(50_000) {
                            writer.write_all(piece).await.unwrap();
                            tokio::time::sleep(Duration::from_millis(5)).await; // so that it is under way for long enough to be cut
                        }
                        sent += PERIOD;
                    }
                    writer.shutdown().await.unwrap();
                    sent
                });
                let (mut heard, mut piece) = (0, vec![0; 64 * 1024]);
                loop {
                    let expected = &octets[heard % PERIOD..];
                    let room = expected.len().min(piece.len());
                    let count = reader.read(&mut piece[..room]).await.unwrap();
                    if count == 0 {
                        break;
                    }
                    assert!(piece[..count] == expected[..count], "stream {number}: wrong after {heard} octets");
                    heard += count;
                }
                assert_eq!(heard, writing.await.unwrap(), "stream {number}");
            })
        })
        .collect();
    let mut state = agent.state();
    let all = async {
        while !streams.iter().all(tokio::task::JoinHandle::is_finished) {
            state.wait_for(|state| matches!(state, AgentState::Connected { .. })).await.unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await; // so that something is under way
            state.borrow_and_update();
            if relay.cut() > 0 {
                cuts.fetch_add(1, Ordering::SeqCst);
                // Also a suspension that was over before anybody looked is good.
                let _ = tokio::time::timeout(Duration::from_millis(300), state.changed()).await;
            }
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), all).await;
    let cuts = cuts.load(Ordering::SeqCst);
    assert!(in_time.is_ok(), "streams are under way after 60 s, {cuts} connections were cut");
    for stream in streams {
        stream.await.unwrap();
    }
    assert!(cuts >= CUTS, "only {cuts} connections were cut");
    let mut heard = proxy.heard.0.lock().unwrap().clone();
    // A connection that was cut between its handshake and its question for the link was none.
    heard.retain(|said| said != "refused edge: the link ended before the agent registered");
    assert_eq!(heard, ["connected edge"], "one link all the time");
}

#[tokio::test]
async fn a_dial_waits_for_a_link_that_has_just_lost_its_connection() {
    let proxy = proxy().await;
    let relay = FaultRelay::start(proxy.address).await;
    let agent = proxy.agent("edge", relay.address, Arc::new(Echo));
    connected(&agent).await;
    let mut before = proxy.dial("edge").await.unwrap();
    relay.cut();
    let mut after = proxy.dial("edge").await.unwrap();
    for stream in [&mut before, &mut after] {
        stream.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
    }
}

// I28
#[tokio::test]
async fn nobody_takes_up_a_link_without_its_hosts_certificate_and_its_secret() {
    let proxy = proxy().await;
    let host = proxy.authorities.host_identity("edge", &[SystemRole::Node], &[]);
    let other = proxy.authorities.host_identity("other", &[SystemRole::Node], &[]);
    let link = own_link(&proxy, &host).await;
    only_its_own_agent_takes_it_up(&proxy, &link, [&host, &other], async || {}).await;
}

fn resumable_pair(limits: Limits) -> (Link, Link, [DuplexStream; 2]) {
    let (near, near_wire) = duplex(64 * 1024);
    let (far, far_wire) = duplex(64 * 1024);
    let start = |io, side| Link::start_resumable(Box::new(io), side, limits, ReplayBudget::default());
    (start(near, Side::Client), start(far, Side::Server), [near_wire, far_wire])
}

#[tokio::test(start_paused = true)]
async fn a_link_that_finds_no_other_connection_in_time_ends_and_its_streams_say_why() {
    let limits = Limits { resume_within: Duration::from_secs(60), ..Limits::client() };
    let (client, server, [mut near, mut far]) = resumable_pair(limits);
    let carrying = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
    let mut stream = client.open("m").unwrap();
    let mut taken = server.accept().await.unwrap().accept().unwrap();
    stream.accepted().await.unwrap();
    carrying.abort();
    assert!(client.suspended().await && server.suspended().await);
    let since = tokio::time::Instant::now();
    stream.write_all(b"waits").await.unwrap();

    let error = stream.read_u8().await.unwrap_err().to_string();

    assert_eq!(since.elapsed().as_secs(), 60);
    assert!(error.contains("no other connection within 60 s"), "{error}");
    assert!(taken.read_u8().await.is_err());
    assert!(matches!(client.closed().await, CloseReason::Lost { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_is_found_within_seconds_when_something_is_unacknowledged_and_within_30_otherwise() {
    for (writes, found) in [(true, 8), (false, 30)] {
        let (client, server, [mut near, mut far]) = resumable_pair(Limits::client());
        let (hole, mut closed) = tokio::sync::oneshot::channel::<()>();
        tokio::spawn(async move {
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = &mut closed => std::future::pending().await, // both sides stay open, nothing moves
            }
        });
        let mut stream = client.open("m").unwrap();
        let _taken = server.accept().await.unwrap().accept().unwrap();
        stream.accepted().await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await; // of paused time: everything is acknowledged
        hole.send(()).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let since = tokio::time::Instant::now();
        if writes {
            stream.write_all(b"x").await.unwrap();
        }
        assert!(client.suspended().await);
        assert!(since.elapsed() <= Duration::from_secs(found), "found after {:?}", since.elapsed());
    }
}

#[tokio::test]
async fn a_link_that_is_closed_in_order_is_over_for_both_at_once() {
    let (client, server, [mut near, mut far]) = resumable_pair(Limits::client());
    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
    client.ready().await.unwrap();
    server.shutdown("maintenance", Duration::from_secs(5)).await;
    let CloseReason::Peer { reason } = client.closed().await else { panic!("closed otherwise") };
    assert_eq!(&*reason, "maintenance");
}
