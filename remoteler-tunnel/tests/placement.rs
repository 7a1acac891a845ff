//! Agents keep a link to each proxy of the cluster, whom they learn from the one they know. Under paused time, in memory.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use remoteler_tunnel::testkit::{Echo, TestCluster, TestProxy};
use remoteler_tunnel::{Agent, AgentState, BoxedStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

async fn says_back(stream: &mut BoxedStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(back, text.as_bytes());
}

async fn linked(agent: &Agent, proxies: &[&TestProxy]) {
    let wanted: Vec<_> = proxies.iter().map(|proxy| proxy.host().id).collect();
    let all = |links: &Vec<remoteler_tunnel::ProxyLink>| {
        let up = links.iter().filter(|link| matches!(link.state, AgentState::Connected { .. }));
        let up: Vec<_> = up.filter_map(|link| link.proxy).collect();
        up.len() == wanted.len() && wanted.iter().all(|id| up.contains(id))
    };
    let mut links = agent.links();
    let settled = timeout(Duration::from_secs(120), links.wait_for(all)).await.map(drop);
    assert!(settled.is_ok(), "{:?}", agent.links().borrow());
}

#[tokio::test(start_paused = true)]
async fn an_agent_told_of_two_more_proxies_is_reached_through_each() {
    let cluster = TestCluster::new(1);
    let (one, two, three) = (cluster.start_proxy("p1"), cluster.start_proxy("p2"), cluster.start_proxy("p3"));
    let agent = cluster.start_agent("edge", one.address(), &cluster.net().machine("192.0.2.7"), Arc::new(Echo));
    linked(&agent, &[&one]).await;

    cluster.tell_proxies(&[&one, &two, &three]);

    linked(&agent, &[&one, &two, &three]).await;
    for proxy in [&one, &two, &three] {
        says_back(&mut proxy.dial("edge").await.unwrap(), "hello").await;
    }
    assert_eq!(cluster.heard().len(), 3, "one link to each: {:?}", cluster.heard());
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_drains_says_so_and_its_streams_finish_while_others_serve() {
    let cluster = TestCluster::new(2);
    let (one, two) = (cluster.start_proxy("p1"), cluster.start_proxy("p2"));
    cluster.tell_proxies(&[&one, &two]);
    let agent = cluster.start_agent("edge", one.address(), &cluster.net().machine("192.0.2.7"), Arc::new(Echo));
    linked(&agent, &[&one, &two]).await;
    let mut live = one.dial("edge").await.unwrap();
    says_back(&mut live, "before").await;

    one.drain();
    sleep(Duration::from_secs(1)).await;

    assert!(one.dial("edge").await.is_err(), "a new stream came from a proxy that drains");
    says_back(&mut two.dial("edge").await.unwrap(), "through the other").await;
    sleep(Duration::from_secs(30)).await;
    says_back(&mut live, "the old one goes on").await;
    live.shutdown().await.unwrap();
    let mut rest = Vec::new();
    live.read_to_end(&mut rest).await.unwrap();
    drop(live);
    sleep(Duration::from_secs(1)).await;
    assert!(one.router().agents().is_empty(), "with its last stream the link ends");

    cluster.tell_proxies(&[&two]);
    linked(&agent, &[&two]).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_with_one_link_moves_to_another_proxy_when_its_own_drains_or_dies() {
    let cluster = TestCluster::new(3);
    let (one, two) = (cluster.start_proxy("p1"), cluster.start_proxy("p2"));
    cluster.tell_proxies(&[&one, &two]);
    let mut config = cluster.agent_config("edge", one.address(), &cluster.net().machine("192.0.2.7"), Arc::new(Echo));
    config.connections = NonZeroUsize::new(1);
    let agent = Agent::start(config);
    linked(&agent, &[&one]).await;

    one.drain();
    linked(&agent, &[&two]).await;
    drop(one);
    let one = cluster.start_proxy("p1");
    drop(two);
    linked(&agent, &[&one]).await;
    says_back(&mut one.dial("edge").await.unwrap(), "here again").await;
}

#[tokio::test(start_paused = true)]
async fn the_death_of_a_proxy_ends_its_streams_with_a_reason_and_the_restarted_one_is_linked_again() {
    let cluster = TestCluster::new(4);
    let (one, two) = (cluster.start_proxy("p1"), cluster.start_proxy("p2"));
    cluster.tell_proxies(&[&one, &two]);
    let agent = cluster.start_agent("edge", one.address(), &cluster.net().machine("192.0.2.7"), Arc::new(Echo));
    linked(&agent, &[&one, &two]).await;

    drop(two);
    says_back(&mut one.dial("edge").await.unwrap(), "unmoved").await;
    let two = cluster.start_proxy("p2");
    linked(&agent, &[&one, &two]).await;
    says_back(&mut two.dial("edge").await.unwrap(), "back").await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_says_its_network_changed_is_connected_anew_at_once_and_streams_go_on() {
    let cluster = TestCluster::new(5);
    let one = cluster.start_proxy("p1");
    let machine = cluster.net().machine("192.0.2.7");
    let agent = cluster.start_agent("edge", one.address(), &machine, Arc::new(Echo));
    linked(&agent, &[&one]).await;
    let mut live = one.dial("edge").await.unwrap();
    says_back(&mut live, "before").await;

    machine.readdress("198.51.100.9");
    agent.network_changed();

    let started = tokio::time::Instant::now();
    says_back(&mut live, "after").await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_first_connection_that_hangs_is_begun_anew_when_the_network_changes_however_often_that_is_said() {
    let cluster = TestCluster::new(6);
    let one = cluster.start_proxy("p1");
    let machine = cluster.net().machine("192.0.2.7");
    machine.silence(true);
    let agent = cluster.start_agent("edge", one.address(), &machine, Arc::new(Echo));
    tokio::time::sleep(Duration::from_secs(2)).await;
    machine.silence(false);
    let started = tokio::time::Instant::now();
    let saying = async {
        loop {
            agent.network_changed();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };

    let proxies = [&one];
    tokio::select! {
        () = linked(&agent, &proxies) => {}
        () = saying => {}
    }

    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}
