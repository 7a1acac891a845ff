//! A proxy that makes way for its next process: links that the earlier process still carries go on over connections that reach the later one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use remoteler_core::{HostIdentity, SystemRole};
use remoteler_tunnel::{
    Agent, BoxedStream, EXPORT_CHANNEL, EXPORT_KEYS, EarlierProcess, ExportsKeys, Limits, Link, LinkState, Offer,
    ReplayBudget, ResumeKeys, Side, TlsIdentity,
};
use support::{Authorities, Echo, FaultRelay, Proxy, connected, leaf, tls_stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(60);

/// Another process as this one reaches it.
struct Reached {
    process: Arc<Proxy>,
    ended: AtomicBool,
    asked: AtomicUsize,
}

impl Reached {
    fn new(process: &Arc<Proxy>) -> Arc<Self> {
        Arc::new(Self { process: process.clone(), ended: AtomicBool::default(), asked: AtomicUsize::default() })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl EarlierProcess for Reached {
    async fn connect(&self) -> io::Result<BoxedStream> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.ended.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let (near, far) = duplex(64 * 1024);
        let process = self.process.clone();
        tokio::spawn(async move { process.tunnels.take_passed(Box::new(far), &process.tls).await });
        Ok(Box::new(near))
    }
}

/// A proxy with an agent behind a relay, and what it takes to lead that elsewhere.
async fn first_process() -> (Arc<Proxy>, FaultRelay, Agent) {
    let first = Arc::new(Proxy::start(Default::default()).await);
    let relay = FaultRelay::start(first.address).await;
    let agent = first.agent("edge", relay.address, Arc::new(Echo));
    connected(&agent).await;
    (first, relay, agent)
}

async fn says_again(stream: &mut BoxedStream, octets: &[u8]) {
    let echoed = async {
        stream.write_all(octets).await.unwrap();
        let mut heard = vec![0; octets.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, octets);
    };
    timeout(SOON, echoed).await.unwrap();
}

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
    middle.ended.store(true, Ordering::SeqCst);
    relay.cut();
    says_again(&mut stream, b"and now").await;
}

#[tokio::test]
async fn when_the_process_before_has_ended_its_links_are_over_and_say_so() {
    let (first, relay, agent) = first_process().await;
    let _stream = first.dial("edge").await.unwrap();
    let before = Reached::new(&first);
    before.ended.store(true, Ordering::SeqCst);
    let second = first.next(vec![before]).await;
    relay.lead_to(second.address);
    relay.cut();
    // The agent gives the link up and registers anew.
    timeout(SOON, async {
        while second.heard.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    connected(&agent).await;
}

/// A link to `first` that this test plays itself, so that it knows the secret.
async fn own_link(first: &Proxy, host: &HostIdentity) -> (Link, ResumeKeys) {
    let stream = tls_stream(first, host).await;
    let keys = ResumeKeys::new(&stream.export(EXPORT_KEYS).unwrap());
    let link = Link::start_resumable(Box::new(stream), Side::Client, Limits::client(), ReplayBudget::default());
    let offer = Offer { ssh: Some(host.name.clone()), ..Offer::default() };
    support::register(&link, &offer).await;
    (link, keys)
}

// I28
#[tokio::test]
async fn nobody_takes_up_a_link_of_the_process_before_without_its_hosts_certificate_and_its_secret() {
    let first = Arc::new(Proxy::start(Default::default()).await);
    let second = first.next(vec![Reached::new(&first)]).await;
    let host = first.authorities.host_identity("edge", &[SystemRole::Node], &[]);
    let other = first.authorities.host_identity("other", &[SystemRole::Node], &[]);
    let (link, keys) = own_link(&first, &host).await;

    let ask = async |host, keys: &ResumeKeys, attempt, channel: Option<[u8; 32]>| {
        let mut stream = tls_stream(&second, host).await;
        let channel = channel.unwrap_or_else(|| stream.export(EXPORT_CHANNEL).unwrap());
        stream.write_all(&keys.request(attempt, 0, &channel)).await.unwrap();
        let mut answer = vec![0; 9];
        stream.read_exact(&mut answer).await.unwrap();
        answer[8] == 0
    };
    assert!(!ask(&other, &keys, 1, None).await, "the secret without the certificate");
    assert!(!ask(&host, &ResumeKeys::new(&[7; 48]), 1, None).await, "a link that is not known");
    let mut wrong = [7; 48];
    wrong[..16].copy_from_slice(&keys.id());
    assert!(!ask(&host, &ResumeKeys::new(&wrong), 1, None).await, "the certificate without the secret");
    assert!(!ask(&host, &keys, 1, Some([0; 32])).await, "a proof made for another connection");
    assert!(matches!(link.state(), LinkState::Up), "none of them touched the link");
    assert!(ask(&host, &keys, 5, None).await);
    assert!(
        !ask(&host, &keys, 5, None).await && !ask(&host, &keys, 4, None).await,
        "an attempt counts once, and in order"
    );
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
