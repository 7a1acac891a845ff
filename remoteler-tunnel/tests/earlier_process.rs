//! A proxy that makes way for its next process: links that the earlier process still carries go on over connections that reach the later one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use remoteler_core::SystemRole;
use remoteler_tunnel::{
    Agent, BoxedStream, DOUBT_AFTER, DialHeader, LinkState, Offer, ResumeKeys, StreamService, TlsIdentity,
};
use support::earlier::{Passed, Reached, SOON, Trouble, first_process, says_again, until};
use support::{Authorities, FaultRelay, Proxy, answer, connected, leaf, only_its_own_agent_takes_it_up, own_link};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::oneshot;
use tokio::time::timeout;

#[tokio::test]
async fn a_link_of_the_process_before_goes_on_through_the_next_one_however_often_its_connection_is_lost() {
    for told_to_leave in [false, true] {
        let (first, relay, _agent) = first_process().await;
        let mut stream = first.dial("edge").await.unwrap();
        says_again(&mut stream, b"before").await;
        let before = Reached::new(&first);
        let second = first.next(vec![before.clone()]).await;
        relay.lead_to(second.address);
        if told_to_leave {
            first.router.drain("the proxy is stopping");
            timeout(SOON, async {
                while second.heard.0.lock().unwrap().is_empty() {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .unwrap();
        }
        for count in 1..=3 {
            assert!(relay.cut() > 0, "a connection was there");
            says_again(&mut stream, format!("cut {count} times").as_bytes()).await;
            assert!(before.asked() >= count);
        }
        let registered = second.heard.0.lock().unwrap().len();
        assert_eq!(registered, usize::from(told_to_leave), "the link stays the first process's");
    }
}

#[tokio::test]
async fn of_several_processes_before_the_one_that_has_the_link_takes_it() {
    let (first, relay, _agent) = first_process().await;
    let mut stream = first.dial("edge").await.unwrap();
    let oldest = Reached::new(&first);
    let second = Arc::new(first.next(vec![oldest.clone()]).await);
    let middle = Reached::new(&second);
    let third = first.next(vec![middle.clone(), oldest.clone()]).await;
    relay.lead_to(third.address);
    relay.cut();
    says_again(&mut stream, b"still here").await;
    assert_eq!((middle.asked(), oldest.asked()), (1, 1));

    // The one between may end.
    middle.has(Trouble::Ended);
    relay.cut();
    says_again(&mut stream, b"and now").await;
}

#[tokio::test]
async fn when_the_process_before_has_ended_its_links_are_over_and_say_so() {
    let (first, relay, agent) = first_process().await;
    let (told, ends) = oneshot::channel();
    let told = Arc::new(EndOfStream(Mutex::new(Some(told))));
    let host = first.authorities.host_identity("device", &[SystemRole::Node], &[]);
    let offer = Offer { ssh: Some(host.name.clone()), ..Offer::default() };
    let device = Agent::start(first.agent_config(host, offer, relay.address, told));
    connected(&device).await;
    let mut stream = first.dial("device").await.unwrap();
    stream.write_all(b"half a word").await.unwrap();
    stream.flush().await.unwrap();
    let before = Reached::new(&first);
    before.has(Trouble::Ended);
    let second = first.next(vec![before.clone()]).await;
    relay.lead_to(second.address);
    relay.cut();
    // The agents give their links up and register anew; what was open ends in their services with the reason.
    let registered = || second.heard.0.lock().unwrap().len();
    until(|| registered() == 2).await;
    connected(&agent).await;
    connected(&device).await;
    let ended = timeout(SOON, ends).await.unwrap().unwrap().unwrap_err().to_string();
    assert!(ended.contains("this proxy does not know it, or not any more; it may have been restarted"), "{ended}");

    // Who asks later does not ask it again.
    let asked = before.asked();
    let host = first.authorities.host_identity("other", &[SystemRole::Node], &[]);
    assert_eq!(answer(&second, &host, &ResumeKeys::new(&[7; 48]), 1, None).await.1, 1);
    assert_eq!((asked, before.asked()), (1, 1));
}

/// Reads to the end of one stream, and says how that was.
struct EndOfStream(Mutex<Option<oneshot::Sender<io::Result<Vec<u8>>>>>);

#[async_trait]
impl StreamService for EndOfStream {
    async fn serve(&self, mut stream: BoxedStream, _header: DialHeader) {
        let mut octets = Vec::new();
        let end = stream.read_to_end(&mut octets).await.map(|_| octets);
        if let Some(told) = self.0.lock().unwrap().take() {
            let _ = told.send(end);
        }
    }
}

#[tokio::test]
async fn a_process_before_that_cannot_be_asked_just_now_is_asked_again_until_it_says_something() {
    for trouble in [Trouble::Busy, Trouble::Speechless] {
        let (first, relay, _agent) = first_process().await;
        let mut stream = first.dial("edge").await.unwrap();
        let (before, ended) = (Reached::new(&first), Reached::new(&first));
        before.has(trouble);
        ended.has(Trouble::Ended);
        let second = first.next(vec![before.clone(), ended]).await;
        relay.lead_to(second.address);
        relay.cut();
        until(|| before.asked() >= 2).await;
        before.has(None);
        says_again(&mut stream, b"here after all").await;
        assert!(
            second.heard.0.lock().unwrap().is_empty(),
            "{trouble:?}: the agent never was told that the link is no more"
        );
    }
}

#[tokio::test]
async fn a_connection_that_a_link_has_left_is_passed_no_longer_and_who_was_told_to_leave_leaves_it_as_soon() {
    for told_to_leave in [false, true] {
        let mut passed = Passed::by_the_second().await;
        if told_to_leave {
            passed.tell_to_leave().await;
            says_again(&mut passed.stream, b"by the first still").await;
        }
        let Passed { before, relay, stream, .. } = &mut passed;
        // It is silent, not broken, and another one takes its place.
        let (asked, frozen) = (before.asked(), relay.freeze());
        let since = Instant::now();
        says_again(stream, b"by another connection").await;
        assert!(before.asked() > asked && since.elapsed() < DOUBT_AFTER / 2, "after {:?}", since.elapsed());
        before.passes(1).await;
        until(|| Arc::strong_count(&before.far) == 2).await;
        drop(frozen);
    }
}

#[tokio::test]
async fn a_link_that_was_told_to_leave_keeps_a_slow_connection_when_the_next_process_does_not_reach_the_one_before() {
    let (first, relay, _agent) = first_process().await;
    let mut stream = first.dial("edge").await.unwrap();
    let second = first.next(vec![]).await;
    relay.lead_to(second.address);
    first.router.drain("the proxy is stopping");
    until(|| !second.heard.0.lock().unwrap().is_empty()).await;
    says_again(&mut stream, b"before").await;
    let frozen = relay.freeze();
    // Longer than it takes to doubt it and to connect elsewhere, shorter than what it is given.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    frozen.send_replace(true);
    says_again(&mut stream, b"merely slow").await;
}

#[tokio::test]
async fn a_slow_connection_is_not_left_for_a_process_that_no_longer_reaches_the_links_home() {
    let (first, relay, _agent) = first_process().await;
    let mut stream = first.dial("edge").await.unwrap();
    let before = Reached::new(&first);
    let second = first.next(vec![before.clone()]).await;
    relay.lead_to(second.address);
    first.router.drain("the proxy is stopping");
    until(|| !second.heard.0.lock().unwrap().is_empty()).await;
    relay.cut();
    says_again(&mut stream, b"by the second").await;
    let third = first.next(vec![]).await;
    relay.lead_to(third.address);
    let frozen = relay.freeze();
    // Longer than it takes to doubt it and to ask elsewhere, shorter than what it is given.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    frozen.send_replace(true);
    says_again(&mut stream, b"merely slow").await;
}

#[tokio::test]
async fn a_link_that_was_told_to_leave_goes_on_after_its_passed_connection_was_silent() {
    for agent_leaves in [false, true] {
        let passed = Passed::by_the_second().await;
        if !agent_leaves {
            passed.tell_to_leave().await;
        }
        let Passed { before, relay, mut stream, agent, .. } = passed;
        let scenario = silent_then_back(&relay, &before, &mut stream);
        if !agent_leaves {
            scenario.await;
            continue;
        }
        let agent = agent.shutdown(SOON);
        tokio::pin!(agent);
        tokio::select! {
            () = &mut agent => panic!("the agent ended before its stream"),
            () = scenario => {}
        }
        drop(stream);
        timeout(SOON, agent).await.unwrap();
        until(|| Arc::strong_count(&before.far) == 1).await;
        before.passes(0).await;
    }
}

/// The path is lost without a word until the process that has the link gives the connection up; then it is back, with all that was on it. Then it
/// breaks.
async fn silent_then_back(relay: &FaultRelay, before: &Reached, stream: &mut BoxedStream) {
    relay.let_through(false);
    stream.write_all(b"octets that are whole").await.unwrap();
    until(|| Arc::strong_count(&before.far) == 1).await;
    before.passes(0).await;
    relay.let_through(true);
    let mut heard = [0; 21];
    timeout(SOON, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"octets that are whole");
    says_again(stream, b"and later ones").await;
    relay.cut();
    says_again(stream, b"and after a break").await;
}

// I28
#[tokio::test]
async fn nobody_takes_up_a_link_of_the_process_before_without_its_hosts_certificate_and_its_secret() {
    let first = Arc::new(Proxy::start(Default::default()).await);
    let before = Reached::new(&first);
    let second = first.next(vec![before.clone()]).await;
    let host = first.authorities.host_identity("edge", &[SystemRole::Node], &[]);
    let other = first.authorities.host_identity("other", &[SystemRole::Node], &[]);
    let link = own_link(&first, &host).await;
    // Whoever is refused may stay: nothing stays with him.
    only_its_own_agent_takes_it_up(&second, &link, [&host, &other], async || before.passes(0).await).await;
}

// I28
#[tokio::test]
async fn the_process_that_has_the_link_verifies_the_certificates_itself() {
    let first = Arc::new(Proxy::start(Default::default()).await);
    let host = first.authorities.host_identity("edge", &[SystemRole::Node], &[]);
    let (link, keys) = own_link(&first, &host).await;
    let channel = [7; 32];
    let answered = async |attempt, certificates: &TlsIdentity| {
        let (mut near, far) = duplex(64 * 1024);
        let mut message = vec![1];
        message.extend(channel);
        message.extend(&keys.request(attempt, 0, &channel)[8..]);
        for certificate in certificates.chain() {
            message.extend(u16::try_from(certificate.len()).unwrap().to_be_bytes());
            message.extend(certificate.as_ref());
        }
        near.write_all(&u16::try_from(message.len()).unwrap().to_be_bytes()).await.unwrap();
        near.write_all(&message).await.unwrap();
        let (_, first_octet) = tokio::join!(first.tunnels.take_passed(Box::new(far), &first.tls), near.read_u8());
        first_octet.ok()
    };
    let of_another_cluster = Authorities::new("root").host(&host);
    assert_eq!(answered(1, &of_another_cluster).await, None);
    assert_eq!(answered(2, &first.authorities.user("ann")).await, None);
    // Good for a user, whom the authority of hosts does not speak for.
    let forged = leaf(&first.authorities.host, &remoteler_core::Identity::User(user(&first)));
    assert_eq!(answered(3, &forged).await, None);
    assert!(matches!(link.state(), LinkState::Up));
    assert_eq!(answered(4, &first.authorities.host(&host)).await, Some(1));
}

fn user(first: &Proxy) -> remoteler_core::UserIdentity {
    let remoteler_core::Identity::User(user) = first.authorities.user_identity("ann") else { panic!("a user") };
    user
}
