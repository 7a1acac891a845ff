//! Named services of agents: the connection knows who is calling, and nobody between does. Under paused time, in memory.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use remoteler_core::{Lock, LockTarget, Policy, PolicySource, SystemRole};
use remoteler_tunnel::testkit::{Echo, TestCluster};
use remoteler_tunnel::{DialCode, ListenError, ServiceDialError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

#[tokio::test(start_paused = true)]
async fn a_service_knows_its_caller_and_the_stream_survives_a_change_of_network() {
    let cluster = TestCluster::new(1);
    let proxy = cluster.start_proxy("p1");
    let device = cluster.net().machine("192.0.2.7");
    let (agent, services) = cluster.start_services("edge", proxy.address(), &device);
    let mut listener = services.listen("greeter").unwrap();
    assert_eq!(listener.address().to_string(), "greeter@edge");
    let serving = tokio::spawn(async move {
        let mut connection = listener.accept().await.unwrap();
        let caller = connection.peer().clone();
        connection.write_all(format!("hello {}", caller.user()).as_bytes()).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut said = String::new();
        connection.read_to_string(&mut said).await.unwrap();
        (caller, said)
    });
    cluster.connected(&agent).await;

    let dialer = cluster.dialer("ann", proxy.address(), &cluster.net().machine("203.0.113.5"));
    let mut stream = dialer.dial("greeter@edge").await.unwrap();
    stream.write_all(b"I am ").await.unwrap();
    device.readdress("198.51.100.9");
    stream.write_all(b"still here").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).await.unwrap();

    let (caller, said) = serving.await.unwrap();
    assert_eq!((greeting.as_str(), said.as_str()), ("hello ann", "I am still here"));
    assert_eq!(caller.identity().cluster.as_str(), "root");
    assert_eq!(caller.claimed_address().unwrap().ip().to_string(), "203.0.113.5");
    assert!(!caller.certificate().is_empty());
    assert!(!caller.has_role("admin"));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_listens_under_and_hosts_that_are_not_there_are_refused() {
    let cluster = TestCluster::new(2);
    let proxy = cluster.start_proxy("p1");
    let (agent, services) = cluster.start_services("edge", proxy.address(), &cluster.net().machine("192.0.2.7"));
    cluster.connected(&agent).await;
    let dialer = cluster.dialer("ann", proxy.address(), &cluster.net().machine("203.0.113.5"));

    let unknown = dialer.dial("greeter@nowhere").await.unwrap_err();
    assert!(matches!(unknown, ServiceDialError::Refused { code: DialCode::NotFound, .. }), "{unknown}");
    assert!(!unknown.is_transient());
    let nobody = dialer.dial("greeter@edge").await.unwrap_err();
    assert!(matches!(nobody, ServiceDialError::Connect(_)), "{nobody}");
    assert!(matches!(dialer.dial("greeter").await, Err(ServiceDialError::Address(_))));

    let first = services.listen("greeter").unwrap();
    assert!(matches!(services.listen("greeter"), Err(ListenError::Taken { .. })));
    drop(first);
    services.listen("greeter").unwrap();
}

// I28
#[tokio::test(start_paused = true)]
async fn a_host_with_the_name_of_another_does_not_serve_in_its_place() {
    let cluster = TestCluster::new(3);
    let proxy = cluster.start_proxy("p1");
    let (agent, _services) = cluster.start_services("edge", proxy.address(), &cluster.net().machine("192.0.2.7"));
    cluster.connected(&agent).await;
    let mut config = cluster.agent_config("edge", proxy.address(), &cluster.net().machine("192.0.2.8"), Arc::new(Echo));
    let other = cluster.authorities().host_identity("other", &[SystemRole::Node]);
    config.host.id = other.id;
    config.tls = cluster.client_tls(Some(cluster.authorities().host(&config.host)));
    config.offer = remoteler_tunnel::Offer { services: true, ..Default::default() };
    let second = remoteler_tunnel::Agent::start(config);

    let refused = async {
        while !cluster.heard().iter().any(|line| line.contains("another host serves under the name edge")) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(60), refused).await.expect("the second claimant is refused, and that is told");
    drop(second);
}

// I29
#[tokio::test]
async fn a_forward_leads_where_the_agents_own_configuration_says() {
    let cluster = TestCluster::new(4);
    let proxy = cluster.start_proxy("p1");
    let (agent, services) = cluster.start_services("edge", proxy.address(), &cluster.net().machine("192.0.2.7"));
    let database = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let forward = services.forward("pg", &database.local_addr().unwrap().to_string()).unwrap();
    let forward = tokio::spawn(forward);
    cluster.connected(&agent).await;
    let dialer = cluster.dialer("ann", proxy.address(), &cluster.net().machine("203.0.113.5"));

    let mut stream = dialer.dial("pg@edge").await.unwrap();
    let (mut socket, _) = database.accept().await.unwrap();
    stream.write_all(b"select 1").await.unwrap();
    let mut query = [0; 8];
    socket.read_exact(&mut query).await.unwrap();
    socket.write_all(b"1").await.unwrap();
    drop(socket);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();

    assert_eq!((&query, answer.as_slice()), (b"select 1", b"1".as_slice()));
    forward.abort();
}

// I29
#[tokio::test]
async fn a_forward_to_a_name_leads_nowhere_when_that_comes_to_lead_into_the_agents_machine() {
    let cluster = TestCluster::new(6);
    let proxy = cluster.start_proxy("p1");
    let (agent, services) = cluster.start_services("edge", proxy.address(), &cluster.net().machine("192.0.2.7"));
    let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // To a resolver, and to nobody else, that is 127.0.0.1.
    let forward = services.forward("pg", &format!("127.1:{}", inside.local_addr().unwrap().port())).unwrap();
    let forward = tokio::spawn(forward);
    cluster.connected(&agent).await;
    let dialer = cluster.dialer("ann", proxy.address(), &cluster.net().machine("203.0.113.5"));

    let mut stream = dialer.dial("pg@edge").await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::select! {
        _ = inside.accept() => panic!("the agent has connected"),
        ended = stream.read_to_end(&mut answer) => ended,
    };

    assert!(ended.map_or(true, |count| count == 0));
    forward.abort();
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_is_locked_is_turned_away() {
    let cluster = TestCluster::new(5);
    let proxy = cluster.start_proxy("p1");
    let (agent, services) = cluster.start_services("edge", proxy.address(), &cluster.net().machine("192.0.2.7"));
    let mut listener = services.listen("greeter").unwrap();
    cluster.connected(&agent).await;
    let dialer = cluster.dialer("ann", proxy.address(), &cluster.net().machine("203.0.113.5"));
    let mut live = dialer.dial("greeter@edge").await.unwrap();
    let mut connection = listener.accept().await.unwrap();

    lock(&cluster, "ann");

    let mut octet = [0];
    let ended = timeout(Duration::from_secs(60), connection.read(&mut octet)).await.expect("it ends soon");
    assert!(ended.is_err(), "{ended:?}");
    drop(connection);
    assert!(matches!(live.read(&mut octet).await, Ok(0) | Err(_)));
    let refused = dialer.dial("greeter@edge").await.unwrap_err();
    assert!(matches!(refused, ServiceDialError::Refused { code: DialCode::Denied, .. }), "{refused}");
}

fn lock(cluster: &TestCluster, user: &str) {
    let target = LockTarget { user: Some(user.parse().unwrap()), ..LockTarget::default() };
    let lock = Lock { name: "x".into(), target, message: "stolen".into(), expires: None };
    let rules = Policy::clone(&cluster.policy().policy());
    cluster.policy().replace(Policy { locks: [lock].into_iter().collect(), ..rules });
}
