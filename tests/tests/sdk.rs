//! A program of somebody else's takes part in a cluster of ours: it joins, serves without listening, knows its callers, and they reach it
//! with what `tsh login` left.

use std::time::Duration;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use remoteler_client::{
    IdentityFile, MemoryStore, Store,
    sdk::{Agent, BuildError, Client, Join, TunnelState},
};
use remoteler_core::{Clock, Entropy, OsEntropy, SystemClock, Timestamp};
use remoteler_tests::Cluster;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_device_joins_serves_and_forwards_and_starts_again_without_a_token() {
    let cluster = Cluster::start();
    let (token, pin) = cluster.token("node");
    let state = cluster.dir().join("device");
    let nobody = Agent::builder(cluster.proxy()).state(&state).build().await.unwrap_err();
    assert!(matches!(nobody, BuildError::NotJoined { .. }) && !nobody.is_transient(), "{nobody}");

    let join = Join::token(&token).pin(&pin);
    let agent = Agent::builder(cluster.proxy()).join(join).name("device").state(&state).build().await.unwrap();
    let mut greeter = agent.listen("greeter").unwrap();
    let database = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let forward = agent.forward("pg", &database.local_addr().unwrap().to_string()).unwrap();
    timeout(SOON, agent.connected()).await.unwrap();
    assert_eq!(agent.counters().links_up, 1);
    assert_eq!(*agent.state().borrow(), TunnelState::Connected);

    let ann = cluster.user("ann", "access");
    let client = Client::logged_in(&Store::new(ann.home().join(".tsh"))).unwrap();
    let mut greeting = timeout(SOON, client.dial("greeter@device")).await.unwrap().unwrap();
    let mut connection = timeout(SOON, greeter.accept()).await.unwrap().unwrap();
    let caller = connection.peer().clone();
    assert_eq!((caller.user(), caller.has_role("access")), ("ann", true));
    assert_eq!(caller.identity().cluster.as_str(), Cluster::NAME);
    connection.write_all(b"hello").await.unwrap();
    connection.shutdown().await.unwrap();
    let mut heard = String::new();
    greeting.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello");

    let mut pg = timeout(SOON, client.dial("pg@device")).await.unwrap().unwrap();
    pg.write_all(b"?").await.unwrap();
    pg.flush().await.unwrap();
    let (mut socket, _) = timeout(SOON, database.accept()).await.unwrap().unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'?');
    let carried = agent.counters().carried;
    assert_eq!((carried.links, carried.resumptions, carried.suspended), (1, 0, Duration::ZERO));
    assert!(carried.sent > 0 && carried.received > 0, "{carried:?}");

    // Its network is another one: what is open goes on, over another connection of the same link.
    agent.network_changed();
    let resumed = async {
        while agent.counters().carried.resumptions == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await; // the time between two looks
        }
    };
    timeout(SOON, resumed).await.unwrap();
    pg.write_all(b"!").await.unwrap();
    pg.flush().await.unwrap();
    assert_eq!(timeout(SOON, socket.read_u8()).await.unwrap().unwrap(), b'!');
    assert_eq!(agent.counters().carried.links, 1);
    drop(forward);

    let event = cluster.event("service.connect", |event| event["service"] == "greeter@device");
    assert_eq!((&event["user"], &event["success"]), (&"ann".into(), &true.into()));

    timeout(SOON, agent.shutdown(Duration::from_secs(1))).await.unwrap();
    let agent = Agent::builder(cluster.proxy()).state(&state).build().await.unwrap();
    timeout(SOON, agent.connected()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_disk_joins_as_somebody_who_may_make_tokens_and_starts_again_by_its_store() {
    let cluster = Cluster::start();
    let (ann, _ada) = (cluster.user("ann", "access"), cluster.user("ada", "editor"));
    let identity = |user: &str| {
        let path = cluster.dir().join(format!("{user}.identity"));
        cluster.tctl(&["auth", "sign", "--user", user, "-o", path.to_str().unwrap()]).ok();
        IdentityFile::read(&path).unwrap()
    };
    let store = Arc::new(MemoryStore::new());
    let builder = || Agent::builder(cluster.proxy()).name("device").state_store(store.clone());

    let refused = builder().join(Join::identity(identity("ann"))).build().await.unwrap_err();
    assert!(matches!(refused, BuildError::Token { .. }) && !refused.is_transient(), "{refused}");
    let agent = builder().join(Join::identity(identity("ada"))).build().await.unwrap();
    let host = agent.host().id;
    let mut greeter = agent.listen("greeter").unwrap();
    timeout(SOON, agent.connected()).await.unwrap();
    let client = Client::logged_in(&Store::new(ann.home().join(".tsh"))).unwrap();
    let mut greeting = timeout(SOON, client.dial("greeter@device")).await.unwrap().unwrap();
    let mut connection = timeout(SOON, greeter.accept()).await.unwrap().unwrap();
    connection.write_all(b"hello").await.unwrap();
    connection.shutdown().await.unwrap();
    let mut heard = String::new();
    timeout(SOON, greeting.read_to_string(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, "hello");
    cluster.event("service.connect", |event| event["service"] == "greeter@device"); // without a spool of its own

    timeout(SOON, agent.shutdown(Duration::from_secs(1))).await.unwrap();
    let again = builder().build().await.unwrap();
    timeout(SOON, again.connected()).await.unwrap();
    assert_eq!(again.host().id, host);
    assert_eq!(cluster.events("instance.join").iter().filter(|event| event["node_name"] == "device").count(), 1);
    let tokens = cluster.tctl_json(&["tokens", "ls"]);
    let left: Vec<_> = tokens.as_array().unwrap().iter().map(|token| token["uses_left"].as_u64()).collect();
    assert_eq!(left, [Some(0)], "one token was made, for one use: {tokens}");
}

/// A clock that is an hour slow and chance, and how often they were asked.
#[derive(Default)]
struct Given {
    times: AtomicUsize,
    chances: AtomicUsize,
}

impl Clock for Given {
    fn now(&self) -> Timestamp {
        self.times.fetch_add(1, Ordering::Relaxed);
        Timestamp::from_unix_seconds(SystemClock.now().unix_seconds() - 3600)
    }
}

impl Entropy for Given {
    fn fill(&self, buffer: &mut [u8]) -> bool {
        self.chances.fetch_add(1, Ordering::Relaxed);
        OsEntropy.fill(buffer)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_goes_by_the_clock_and_the_chance_that_it_is_given_and_that_clock_by_the_clusters() {
    let cluster = Cluster::start();
    let (token, pin) = cluster.token("node");
    let given = Arc::new(Given::default());
    let store = Arc::new(MemoryStore::new());

    let join = Join::token(&token).pin(&pin);
    let builder = Agent::builder(cluster.proxy()).join(join).name("device").state_store(store);
    let agent = builder.clock(given.clone()).entropy(given.clone()).build().await.unwrap();
    // By that clock alone its certificate would begin in an hour.
    timeout(SOON, agent.connected()).await.unwrap();

    let asked = [&given.times, &given.chances].map(|count| count.load(Ordering::Relaxed));
    assert!(asked.iter().all(|count| *count > 0), "{asked:?}");
}
