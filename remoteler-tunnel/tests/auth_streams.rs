//! Streams of an agent to the auth service inside its link: who takes them, how many there may be, and when they end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use remoteler_core::SystemRole;
use remoteler_tunnel::testkit::{Echo, Machine, TestCluster, TestProxy};
use remoteler_tunnel::{
    AUTH_METADATA, Agent, AgentState, AuthStream, AuthStreams, BoxedStream, Code, MAX_AUTH_STREAMS, MuxStream,
    StreamError,
};
use support::{Proxy, own_link};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

/// Says everything back, and who came from where.
#[derive(Default)]
struct Auth(Mutex<Vec<SocketAddr>>);

#[async_trait]
impl AuthStreams for Auth {
    async fn serve(&self, stream: BoxedStream, source: SocketAddr) {
        self.0.lock().unwrap().push(source);
        let (mut reader, mut writer) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.shutdown().await;
    }
}

struct World {
    cluster: TestCluster,
    auth: Arc<Auth>,
    proxy: TestProxy,
    device: Machine,
    agent: Agent,
}

impl World {
    async fn start() -> Self {
        let auth = Arc::new(Auth::default());
        let cluster = TestCluster::new(3).leading_to(auth.clone());
        let proxy = cluster.start_proxy("p1");
        let device = cluster.net().machine("192.0.2.7");
        let agent = cluster.start_agent("edge", proxy.address(), &device, Arc::new(Echo));
        cluster.connected(&agent).await;
        Self { cluster, auth, proxy, device, agent }
    }
}

async fn says_back(opened: &mut AuthStream, text: &[u8]) {
    opened.stream.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    opened.stream.read_exact(&mut back).await.unwrap();
    assert_eq!(back, text);
}

#[tokio::test(start_paused = true)]
async fn a_stream_leads_to_the_auth_service_from_where_the_agent_is_and_outlives_its_connection() {
    let World { cluster: _cluster, auth, proxy: _proxy, device, agent } = World::start().await;
    let links = agent.auth();
    assert!(links.is_open() && links.are_all());
    let mut opened = links.open().unwrap();
    says_back(&mut opened, b"hello").await;
    assert_eq!(auth.0.lock().unwrap()[0].ip(), "192.0.2.7".parse::<std::net::IpAddr>().unwrap());

    device.silence(true);
    device.cut();
    agent.state().wait_for(|state| matches!(state, AgentState::Suspended { .. })).await.unwrap();
    assert!(!opened.carrier.is_open() && links.open().is_none() && links.are_all());
    opened.stream.write_all(b"still there?").await.unwrap();
    device.silence(false);

    let mut back = [0; 12];
    opened.stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"still there?");
    assert!(opened.carrier.is_open() && auth.0.lock().unwrap().len() == 1);
}

// I30
#[tokio::test(start_paused = true)]
async fn one_agent_has_few_of_them_at_once_and_opens_nothing_else() {
    let World { cluster: _cluster, auth: _auth, proxy: _proxy, device: _device, agent } = World::start().await;
    let mut opened: Vec<_> = (0..=MAX_AUTH_STREAMS).map(|_| agent.auth().open().unwrap()).collect();
    let refused = opened.pop().unwrap().stream.accepted().await.unwrap_err();
    assert!(matches!(refused, StreamError::Rejected { .. }), "{refused}");
    for stream in &mut opened {
        says_back(stream, b"hello").await;
    }
    drop(opened);
    let again = async {
        // Until the proxy knows that the others have ended.
        while agent.auth().open().unwrap().stream.accepted().await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(1), again).await.expect("there is room when others have ended");
}

// I30
#[tokio::test(start_paused = true)]
async fn one_agent_opens_no_more_than_one_a_second_for_long() {
    let World { cluster: _cluster, auth, proxy: _proxy, device: _device, agent } = World::start().await;
    let (links, since) = (agent.auth(), Instant::now());
    let (mut taken, mut busy) = (0, 0);
    while since.elapsed() < Duration::from_secs(60) {
        match links.open().unwrap().stream.accepted().await {
            Ok(()) => taken += 1,
            Err(StreamError::Rejected { code, .. }) if code == Code::Busy.number() => busy += 1,
            Err(other) => panic!("{other}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert!((60..=71).contains(&taken) && busy > 1000, "{taken} were taken, {busy} were not");
    assert_eq!(auth.0.lock().unwrap().len(), taken);

    sleep(Duration::from_secs(30)).await;
    for _ in 0..8 {
        says_back(&mut links.open().unwrap(), b"a few at once").await;
    }
}

// I30
#[tokio::test(start_paused = true)]
async fn what_an_agent_keeps_open_when_it_takes_its_registration_back_ends_a_minute_later() {
    let World { cluster: _cluster, auth: _auth, proxy, device: _device, agent } = World::start().await;
    let mut opened = agent.auth().open().unwrap();
    says_back(&mut opened, b"hello").await;
    tokio::spawn(async move { agent.shutdown(Duration::from_secs(3600)).await });
    opened.carrier.ending().await;
    let since = Instant::now();

    sleep(Duration::from_secs(50)).await;
    says_back(&mut opened, b"an answer that took long").await;
    let end = timeout(Duration::from_secs(15), opened.stream.read_u8()).await.unwrap();

    assert!(end.is_err() && since.elapsed() >= Duration::from_secs(59), "{:?}", since.elapsed());
    assert!(proxy.router().agents().is_empty());
}

#[tokio::test]
async fn what_an_agent_opens_for_anything_else_is_rejected_also_where_streams_to_the_auth_service_are_taken() {
    for auth in [Some(Arc::new(Auth::default())), None] {
        let proxy = Proxy::leading_to(auth.clone().map(|auth| auth as Arc<dyn AuthStreams>)).await;
        let host = proxy.authorities.host_identity("edge", &[SystemRole::Node], &[]);
        let (link, _keys) = own_link(&proxy, &host).await;
        for metadata in [
            &br#"{"v":1,"auth":false}"#[..],
            br#"{"v":1,"auth":true} "#,
            br#"{"v":2,"auth":true}"#,
            br#"{"v":1,"register":true}"#,
            br#"{"v":1,"target":{"kind":"ssh","name":"other"}}"#,
            b"?",
        ] {
            let mut stream = link.open(metadata).unwrap();
            assert!(is_not_offered(&mut stream).await, "{:?}", String::from_utf8_lossy(metadata));
        }
        let led = auth.as_ref().map_or(0, |auth| auth.0.lock().unwrap().len());
        assert_eq!(led, 0);
        assert_eq!(is_not_offered(&mut link.open(AUTH_METADATA).unwrap()).await, auth.is_none());
    }
}

async fn is_not_offered(stream: &mut MuxStream) -> bool {
    let rejected = |error| matches!(error, StreamError::Rejected { code, .. } if code == Code::NotOffered.number());
    timeout(Duration::from_secs(10), stream.accepted()).await.unwrap().is_err_and(rejected)
}

#[tokio::test(start_paused = true)]
async fn a_link_that_leads_nowhere_is_left_alone_for_a_while_and_another_one_is_taken() {
    let auth = Arc::new(Auth::default());
    let cluster = TestCluster::new(5).leading_to(auth.clone());
    let (first, second) = (cluster.start_proxy("p1"), cluster.start_proxy("p2"));
    let device = cluster.net().machine("192.0.2.7");
    let agent = cluster.start_agent("edge", first.address(), &device, Arc::new(Echo));
    cluster.tell_proxies(&[&first, &second]);
    let both = |links: &Vec<remoteler_tunnel::ProxyLink>| {
        links.iter().filter(|link| matches!(link.state, AgentState::Connected { .. })).count() == 2
    };
    agent.links().wait_for(both).await.unwrap();
    let links = agent.auth();

    links.open().unwrap().carrier.leads_nowhere();
    let other = links.open().unwrap().carrier;
    assert!(other.is_open() && links.is_open());
    sleep(Duration::from_secs(20)).await;
    other.leads_nowhere();
    assert!(!links.is_open() && links.open().is_none());
    assert!(links.are_all(), "the proxies are of this version all the same");

    sleep(Duration::from_secs(11)).await;
    says_back(&mut links.open().unwrap(), b"the first again").await;
    assert!(links.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_leads_nowhere_is_known_by_its_reply_and_one_of_several_is_enough_to_say_so() {
    let cluster = TestCluster::new(4);
    let old = cluster.start_proxy("p1");
    let cluster = cluster.leading_to(Arc::new(Auth::default()));
    let new = cluster.start_proxy("p2");
    let device = cluster.net().machine("192.0.2.7");
    let agent = cluster.start_agent("edge", old.address(), &device, Arc::new(Echo));
    cluster.connected(&agent).await;
    assert!(!agent.auth().is_open() && !agent.auth().are_all() && agent.auth().open().is_none());

    cluster.tell_proxies(&[&old, &new]);
    let both = |links: &Vec<remoteler_tunnel::ProxyLink>| {
        links.iter().filter(|link| matches!(link.state, AgentState::Connected { .. })).count() == 2
    };
    agent.links().wait_for(both).await.unwrap();
    assert!(agent.auth().is_open() && !agent.auth().are_all());
    says_back(&mut agent.auth().open().unwrap(), b"hello").await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_drains_has_the_agent_told_and_what_is_under_way_is_answered() {
    let World { cluster: _cluster, auth: _auth, proxy, device: _device, agent } = World::start().await;
    let links = agent.auth();
    let mut opened = links.open().unwrap();
    says_back(&mut opened, b"hello").await;
    let since = Instant::now();
    proxy.drain();
    opened.carrier.ending().await;
    assert!(since.elapsed() < Duration::from_secs(1) && links.open().is_none());
    says_back(&mut opened, b"one more").await;
    drop(opened);
    timeout(Duration::from_secs(1), async {
        while !proxy.router().agents().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_gone_leads_nowhere() {
    let World { cluster: _cluster, auth: _auth, proxy: _proxy, device: _device, agent } = World::start().await;
    let links = agent.auth();
    let mut opened = links.open().unwrap();
    drop(agent);
    opened.carrier.ending().await;
    assert!(opened.stream.read_u8().await.is_err());
    let gone = async {
        while links.is_open() || links.are_all() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(1), gone).await.expect("nothing is left of it");
}

#[test]
fn the_metadata_is_that_of_the_protocol_document() {
    assert_eq!(AUTH_METADATA, br#"{"v":1,"auth":true}"#);
}
