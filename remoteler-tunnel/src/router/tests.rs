//! Dials into links that are silent, under paused time.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex};
use tokio::time::sleep;

use remoteler_core::{ManualClock, Timestamp};

use super::*;
use crate::dial::TargetName;
use crate::mux::Side;
use crate::mux::limits::Limits;
use crate::replay::ReplayBudget;

struct Behind(HostId);

#[async_trait]
impl Inventory for Behind {
    async fn locate(&self, _target: &Target) -> Result<Option<Place>, String> {
        Ok(Some(Place::Agent(self.0)))
    }
}

/// Other proxies, one of which has the agent, or none.
struct Others(bool);

#[async_trait]
impl OtherProxies for Others {
    async fn dial(&self, _header: &DialHeader) -> Result<Option<BoxedStream>, DialError> {
        let (near, mut far) = duplex(64);
        far.write_all(b"o").await.map_err(|_| DialError::NotHere { target: target() })?;
        Ok(self.0.then(|| Box::new(near) as BoxedStream))
    }
}

fn target() -> Target {
    let name = TargetName::new("edge").unwrap();
    Target { cluster: "root".parse().unwrap(), kind: TargetKind::Ssh, name, port: None }
}

/// A router with one agent, whose link carries nothing until it is told to.
struct Course {
    router: Router,
    wires: [DuplexStream; 2],
    _links: [Link; 2],
}

impl Course {
    async fn start(elsewhere: bool) -> Self {
        let host = HostId::from_uuid(uuid::Uuid::from_u128(7));
        let clock = Arc::new(ManualClock::new(Timestamp::parse("2026-06-01T00:01:00Z").unwrap()));
        let router = Router::new(Arc::new(Behind(host)), clock, HashMap::new()).beside(Arc::new(Others(elsewhere)));
        let [(near, near_wire), (far, far_wire)] = [duplex(64 * 1024), duplex(64 * 1024)];
        let start = |io, side, limits| Link::start_resumable(Box::new(io), side, limits, ReplayBudget::default());
        let proxy = start(near, Side::Server, Limits::server());
        let agent = start(far, Side::Client, Limits::client());
        let answering = agent.clone();
        tokio::spawn(async move {
            while let Some(incoming) = answering.accept().await {
                // Who gave up meanwhile needs none.
                let Ok(mut stream) = incoming.accept() else { continue };
                tokio::spawn(async move { stream.write_all(b"h").await });
            }
        });
        let mut wires = [near_wire, far_wire];
        {
            let [near, far] = &mut wires;
            let _ = timeout(Duration::from_secs(20), copy_bidirectional(near, far)).await;
        }
        router.attach(host, proxy.clone());
        Self { router, wires, _links: [proxy, agent] }
    }

    /// Who answers, after how long.
    async fn dial(self, speaks_after: Duration) -> (Result<u8, DialError>, Duration) {
        let Self { router, wires: [mut near, mut far], _links } = self;
        tokio::spawn(async move {
            sleep(speaks_after).await;
            copy_bidirectional(&mut near, &mut far).await
        });
        let since = Instant::now();
        let dialled = router.dial(&DialHeader::new(target(), None)).await;
        let took = since.elapsed();
        match dialled {
            Ok(mut stream) => (Ok(stream.read_u8().await.unwrap()), took),
            Err(error) => (Err(error), took),
        }
    }
}

const NEVER: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn a_dial_into_a_link_that_has_fallen_silent_goes_to_another_proxy_before_the_connection_is_given_up() {
    let (answered, took) = Course::start(true).await.dial(NEVER).await;
    assert_eq!(answered.unwrap(), b'o');
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_slow_to_answer_is_waited_for_though_another_proxy_has_it() {
    let (answered, took) = Course::start(true).await.dial(Duration::from_secs(2)).await;
    assert_eq!((answered.unwrap(), took.as_secs()), (b'h', 2));
}

#[tokio::test(start_paused = true)]
async fn a_silent_link_is_waited_for_where_no_other_proxy_has_the_agent() {
    let (answered, took) = Course::start(false).await.dial(Duration::from_secs(6)).await;
    assert_eq!((answered.unwrap(), took.as_secs()), (b'h', 6));
    let (failed, took) = Course::start(false).await.dial(NEVER).await;
    let failed = failed.unwrap_err();
    assert!(matches!(failed, DialError::Timeout { .. }) && took == DIAL_DEADLINE, "{failed} after {took:?}");
}
