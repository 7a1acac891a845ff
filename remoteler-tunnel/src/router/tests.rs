//! Dials into links that are silent, under paused time.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, copy_bidirectional, duplex};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until, timeout};

use remoteler_core::{ManualClock, Timestamp};

use super::dialling::{DIAL_DEADLINE, Dialled};
use super::*;
use crate::connection::IncomingStream;
use crate::dial::TargetName;
use crate::mux::Side;
use crate::mux::error::Code;
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
                // And whatever it is told.
                tokio::spawn(async move {
                    stream.write_all(b"h").await?;
                    let (mut heard, mut said) = tokio::io::split(stream);
                    tokio::io::copy(&mut heard, &mut said).await
                });
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
        let (dialled, took) = self.dial_saying(b"", speaks_after).await;
        match dialled {
            Ok(mut dialled) => (Ok(dialled.stream.read_u8().await.unwrap()), took),
            Err(error) => (Err(error), took),
        }
    }

    async fn dial_saying(self, first: &[u8], speaks_after: Duration) -> (Result<Dialled, DialError>, Duration) {
        let Self { router, wires: [mut near, mut far], _links } = self;
        tokio::spawn(async move {
            sleep(speaks_after).await;
            copy_bidirectional(&mut near, &mut far).await
        });
        let since = Instant::now();
        let dialled = router.dial_saying(&DialHeader::new(target(), None), first).await;
        (dialled, since.elapsed())
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

#[tokio::test(start_paused = true)]
async fn what_was_said_into_a_link_that_has_fallen_silent_was_not_said_to_another_proxy() {
    let (dialled, _) = Course::start(true).await.dial_saying(b"hello", NEVER).await;
    let mut dialled = dialled.unwrap();
    assert_eq!((dialled.said, dialled.stream.read_u8().await.unwrap()), (0, b'o'));
}

/// A router with one agent whose link has just come up, on a path that takes a while each way; `answer` gets each stream.
async fn young(answer: impl Fn(IncomingStream) + Send + 'static) -> (Router, [Link; 2]) {
    let host = HostId::from_uuid(uuid::Uuid::from_u128(7));
    let clock = Arc::new(ManualClock::new(Timestamp::parse("2026-06-01T00:01:00Z").unwrap()));
    let router = Router::new(Arc::new(Behind(host)), clock, HashMap::new());
    let [(near, near_wire), (far, far_wire)] = [duplex(64 * 1024), duplex(64 * 1024)];
    let (near_wire, far_wire) = (tokio::io::split(near_wire), tokio::io::split(far_wire));
    tokio::spawn(carry(near_wire.0, far_wire.1));
    tokio::spawn(carry(far_wire.0, near_wire.1));
    let start = |io, side, limits| Link::start_resumable(Box::new(io), side, limits, ReplayBudget::default());
    let (proxy, agent) = (start(near, Side::Server, Limits::server()), start(far, Side::Client, Limits::client()));
    let answering = agent.clone();
    tokio::spawn(async move {
        while let Some(incoming) = answering.accept().await {
            answer(incoming);
        }
    });
    proxy.ready().await.unwrap();
    router.attach(host, proxy.clone());
    (router, [proxy, agent])
}

async fn carry(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>) {
    let (under_way, mut arriving) = mpsc::unbounded_channel();
    let carrying = async {
        let mut octets = vec![0; 4096];
        while let Ok(count @ 1..) = from.read(&mut octets).await {
            let piece = octets.get(..count).unwrap_or_default().to_vec();
            let _ = under_way.send((Instant::now() + WAY, piece)); // fails when the test is over
        }
    };
    let delivering = async {
        while let Some((at, piece)) = arriving.recv().await {
            sleep_until(at).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(carrying, delivering);
}

const WAY: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn what_is_said_first_costs_no_round_trip_of_its_own() {
    let echo = |incoming: IncomingStream| {
        let mut stream = incoming.accept().unwrap();
        tokio::spawn(async move {
            let mut said = [0; 5];
            stream.read_exact(&mut said).await.unwrap();
            stream.write_all(&said).await.unwrap();
            stream.read_u8().await.unwrap_err(); // its end
        });
    };
    let (router, _links) = young(echo).await;
    let header = DialHeader::new(target(), None);
    for (first, round_trips) in [(&b"hello"[..], 1), (&b""[..], 2)] {
        let since = Instant::now();
        let Dialled { mut stream, said } = router.dial_saying(&header, first).await.unwrap();
        assert_eq!(said, first.len());
        stream.write_all(&b"hello"[said..]).await.unwrap();
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!((&heard, since.elapsed()), (b"hello", round_trips * 2 * WAY));
    }
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_room_with_the_question_is_left_to_who_dials_and_arrives_behind_what_did() {
    let first: Vec<u8> = (0..100_000u32).map(|at| at as u8).collect();
    let expected = first.clone();
    let (router, _links) = young(move |incoming| {
        let (mut stream, expected) = (incoming.accept().unwrap(), expected.clone());
        tokio::spawn(async move {
            let mut heard = vec![0; expected.len()];
            stream.read_exact(&mut heard).await.unwrap();
            stream.write_u8(u8::from(heard == expected)).await.unwrap();
            stream.read_u8().await.unwrap_err(); // its end
        });
    })
    .await;
    let Dialled { mut stream, said } = router.dial_saying(&DialHeader::new(target(), None), &first).await.unwrap();
    assert_eq!(said, Limits::client().stream_window as usize);
    stream.write_all(&first[said..]).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_said_again_on_the_same_link_arrives_once_in_the_stream_that_is_taken() {
    let (dialled, took) = Course::start(false).await.dial_saying(b"hello", Duration::from_secs(6)).await;
    let Dialled { mut stream, said } = dialled.unwrap();
    let mut heard = [0; 6];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!((&heard, said, took.as_secs()), (b"hhello", 5, 6));
    timeout(Duration::from_secs(1), stream.read_u8()).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn what_a_dial_said_that_was_given_up_is_not_sent_any_more() {
    let Course { router, wires: _wires, _links: links } = Course::start(false).await;
    let header = DialHeader::new(target(), None);
    // Nothing gets through, and more is said than the path takes.
    for _ in 0..10 {
        let dialling = router.dial_saying(&header, &[7; 16 * 1024]);
        timeout(Duration::from_millis(10), dialling).await.unwrap_err();
    }
    assert_eq!(links[0].stream_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_said_something_is_refused_like_any_other() {
    let (router, _links) = young(|incoming| incoming.reject(Code::NotOffered, "not here")).await;
    let refused = router.dial_saying(&DialHeader::new(target(), None), b"hello").await.unwrap_err();
    assert!(matches!(&refused, DialError::Refused { .. }), "{refused}");
}
