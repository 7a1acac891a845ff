//! An agent behind a proxy, over real TLS on loopback: reached, lost, found again, and held to what it may offer.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use remoteler_core::{Lock, LockTarget, Policy, PolicySource, SystemRole};
use remoteler_tunnel::{
    AdmissionLimits, AgentState, DialCode, DialError, DialHeader, DialReply, Offer, Place, TargetKind, read_dial_reply,
    write_dial,
};
use support::{Echo, Proxy, connected};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

async fn proxy() -> Proxy {
    Proxy::start(AdmissionLimits::default()).await
}

/// Says something and hears it back, both at once.
async fn say(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), text: &[u8]) {
    let mut heard = vec![0; text.len()];
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (written, read) = tokio::join!(writer.write_all(text), reader.read_exact(&mut heard));
    written.unwrap();
    read.unwrap();
    assert!(heard == text, "something else came back");
}

#[tokio::test]
async fn a_user_reaches_a_node_behind_a_tunnel_through_the_one_port() {
    let proxy = proxy().await;
    let agent = proxy.agent("edge", proxy.address, Arc::new(Echo));
    connected(&agent).await;
    let mut stream = proxy.user_stream("remoteler-ssh").await.unwrap();
    let target = proxy.authorities.target(TargetKind::Ssh, "edge");
    write_dial(&mut stream, &DialHeader::new(target, None)).await.unwrap();
    assert_eq!(read_dial_reply(&mut stream).await.unwrap(), DialReply::Connected);

    say(&mut stream, b"SSH-2.0-test\r\n").await;
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();

    assert!(rest.is_empty());
    assert_eq!(*proxy.heard.0.lock().unwrap(), ["connected edge"]);
}

#[tokio::test]
async fn who_dials_what_is_not_there_is_told_why() {
    let proxy = proxy().await;
    for (name, place, code, text) in [
        ("nowhere", None, DialCode::NotFound, "no node nowhere of cluster root is known"),
        (
            "gone",
            Some(Place::Agent(proxy.authorities.host_identity("gone", &[], &[]).id)),
            DialCode::Unreachable,
            "its tunnel is down",
        ),
        ("dead", Some(Place::Address("127.0.0.1:1".to_owned())), DialCode::Unreachable, "does not answer"),
        ("here", Some(Place::Local), DialCode::Internal, "no such service runs"),
    ] {
        proxy.inventory.0.lock().unwrap().extend(place.map(|place| (name.to_owned(), place)));
        let mut stream = proxy.user_stream("remoteler-ssh").await.unwrap();
        let target = proxy.authorities.target(TargetKind::Ssh, name);
        write_dial(&mut stream, &DialHeader::new(target, None)).await.unwrap();

        let DialReply::Refused { code: told, message } = read_dial_reply(&mut stream).await.unwrap() else {
            panic!("{name} was reached");
        };

        assert_eq!(told, code, "{message}");
        assert!(message.contains(text), "{message}");
    }
}

#[tokio::test]
async fn a_lost_agent_is_known_to_be_down_and_since_when() {
    let proxy = proxy().await;
    let agent = proxy.agent("edge", proxy.address, Arc::new(Echo));
    connected(&agent).await;
    agent.shutdown(Duration::from_secs(5)).await;
    while proxy.router.agents().iter().len() > 0 {
        tokio::task::yield_now().await;
    }

    let error = proxy.dial("edge").await.err().unwrap();

    assert_eq!(
        error.to_string(),
        "node edge of cluster root is known but its tunnel is down since 2026-06-01T00:00:00.000Z"
    );
    assert_eq!(*agent.state().borrow(), AgentState::Stopped);
}

// I28
#[tokio::test]
async fn an_agent_that_offers_what_its_certificate_does_not_cover_is_refused_and_that_is_told() {
    let proxy = proxy().await;
    let host = proxy.authorities.host_identity("edge", &[SystemRole::Node], &[]);
    let offer = Offer { ssh: Some("database".parse().unwrap()), ..Offer::default() };
    let agent = proxy.agent_offering(host, offer, proxy.address, Arc::new(Echo));
    let mut state = agent.state();
    let waiting = state.wait_for(|state| matches!(state, AgentState::Waiting { .. })).await.unwrap().clone();

    let AgentState::Waiting { reason, .. } = waiting else { unreachable!("waited for it") };
    assert!(reason.contains("offers node database"), "{reason}");
    assert!(proxy.router.agents().is_empty());
    let heard = proxy.heard.0.lock().unwrap();
    assert!(heard[0].starts_with("refused edge") && heard[0].contains("database"), "{heard:?}");
}

// I28
#[tokio::test]
async fn a_user_cannot_register_as_an_agent() {
    let proxy = proxy().await;
    let mut stream = proxy.user_stream("remoteler-tunnel").await.unwrap();

    let mut octets = Vec::new();
    let _ = stream.read_to_end(&mut octets).await;

    assert!(octets.is_empty());
    assert_eq!(proxy.heard.0.lock().unwrap().len(), 1);
}

// I29
#[tokio::test]
async fn an_agent_refuses_streams_to_what_it_does_not_offer() {
    let proxy = proxy().await;
    let agent = proxy.agent("edge", proxy.address, Arc::new(Echo));
    connected(&agent).await;
    let place = proxy.inventory.0.lock().unwrap()["edge"].clone();
    for name in ["127.0.0.1", "other"] {
        proxy.inventory.0.lock().unwrap().insert(name.to_owned(), place.clone());

        let error = proxy.dial(name).await.err().unwrap();

        assert!(matches!(error, DialError::Refused { .. }), "{error}");
    }
    let kube = DialHeader::new(proxy.authorities.target(TargetKind::Kube, "edge"), None);
    assert!(proxy.router.dial(&kube).await.is_err());
}

#[tokio::test]
async fn a_newer_link_of_the_same_agent_takes_the_place_of_the_older_at_once() {
    let proxy = proxy().await;
    let first = proxy.agent("edge", proxy.address, Arc::new(Echo));
    connected(&first).await;
    let mut old = proxy.dial("edge").await.unwrap();
    say(&mut old, b"old").await;

    let mut displaced = first.state();
    let second = proxy.agent("edge", proxy.address, Arc::new(Echo));
    connected(&second).await;
    displaced.wait_for(|state| !matches!(state, AgentState::Connected { .. })).await.unwrap();
    drop(first);

    assert!(old.read_u8().await.is_err());
    assert_eq!(proxy.router.agents().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_streams_at_once_arrive_whole() {
    let proxy = Arc::new(proxy().await);
    let agent = proxy.agent("edge", proxy.address, Arc::new(Echo));
    connected(&agent).await;
    let streams: Vec<_> = (0..1000u32)
        .map(|number| {
            let proxy = proxy.clone();
            tokio::spawn(async move {
                let mut stream = proxy.dial("edge").await.unwrap();
                for round in 0..5u32 {
                    say(&mut stream, &[(number % 251) as u8; 1000].map(|octet| octet ^ round as u8)).await;
                }
                stream.shutdown().await.unwrap();
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            })
        })
        .collect();

    for stream in streams {
        stream.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_in_both_directions_arrives_whole() {
    let proxy = proxy().await;
    let agent = proxy.agent("edge", proxy.address, Arc::new(Echo));
    connected(&agent).await;
    let (mut reader, mut writer) = tokio::io::split(proxy.dial("edge").await.unwrap());
    let octets: Arc<Vec<u8>> =
        Arc::new((0..32_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect());
    let sent = octets.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });

    let mut heard = Vec::new();
    reader.read_to_end(&mut heard).await.unwrap();

    writing.await.unwrap();
    assert!(heard == *octets, "{} octets came back", heard.len());
}

#[tokio::test]
async fn a_proxy_that_drains_lets_streams_end_and_its_agents_look_for_a_new_link_at_once() {
    let proxy = Arc::new(proxy().await);
    let agent = proxy.agent("edge", proxy.address, Arc::new(Echo));
    connected(&agent).await;
    let mut open = proxy.dial("edge").await.unwrap();
    let draining = proxy.clone();
    let mut state = agent.state();
    state.borrow_and_update();
    let drained =
        tokio::spawn(async move { draining.router.shutdown("the proxy restarts", Duration::from_secs(30)).await });

    state.wait_for(|state| !matches!(state, AgentState::Connected { .. })).await.unwrap();
    connected(&agent).await;
    say(&mut open, b"still here").await;
    let mut new = proxy.dial("edge").await.unwrap();
    say(&mut new, b"new").await;
    drop(open);

    drained.await.unwrap();
}

// I79
#[tokio::test]
async fn the_link_of_a_locked_host_is_cut_and_refused_with_the_reason_and_is_back_when_it_is_unlocked() {
    let proxy = proxy().await;
    let agent = proxy.agent("edge", proxy.address, Arc::new(Echo));
    connected(&agent).await;
    let mut stream = proxy.dial("edge").await.unwrap();
    say(&mut stream, b"before").await;
    let rules = Policy::clone(&proxy.policy.policy());
    let target = LockTarget { node: Some("edge".parse().unwrap()), ..LockTarget::default() };
    let lock = Lock { name: "x".into(), target, message: "stolen".into(), expires: None };
    proxy.policy.replace(Policy { locks: [lock].into_iter().collect(), ..rules.clone() });
    // The host's own services have a second for telling their users.
    tokio::task::yield_now().await;
    say(&mut stream, b"still there").await;
    proxy.clock.advance(Duration::from_secs(1));

    let mut state = agent.state();
    let shut_out = async {
        loop {
            if let AgentState::Waiting { reason, .. } = &*state.borrow_and_update()
                && reason.contains("locked by an administrator (node edge): stolen")
            {
                return;
            }
            state.changed().await.unwrap();
        }
    };
    timeout(Duration::from_secs(60), shut_out).await.expect("the agent learns why");
    assert!(stream.read_u8().await.is_err());
    let refused = async {
        while !proxy
            .heard
            .0
            .lock()
            .unwrap()
            .iter()
            .any(|heard| heard.starts_with("refused edge: this host is shut out"))
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), refused).await.expect("it is not taken back");
    assert!(proxy.dial("edge").await.is_err());

    proxy.policy.replace(rules);
    agent.retry()();
    connected(&agent).await;
    say(&mut proxy.dial("edge").await.unwrap(), b"after").await;
}
