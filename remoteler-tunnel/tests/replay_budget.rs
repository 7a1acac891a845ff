//! What a process keeps for all its links together, when one of them has used it up: the others' writers wait, and go on as before when there is
//! room again. Under paused time, over connections that take none: what passes is what a link waits for.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use remoteler_tunnel::{Limits, Link, MuxStream, ReplayBudget, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const BUDGET: usize = 1 << 20;
/// What a link may keep besides.
const ALWAYS: usize = 64 * 1024;
const MUCH: usize = 3 << 20;
const MOMENT: Duration = Duration::from_millis(100);

/// A link of this process to another one, a stream in it, and where that ends there.
struct Way {
    _links: [Link; 2],
    here: MuxStream,
    there: MuxStream,
    wires: Carried,
}

/// Carries what is between, until it is stopped.
struct Carried {
    stop: Arc<Notify>,
    task: JoinHandle<[DuplexStream; 2]>,
}

impl Carried {
    fn start(mut wires: [DuplexStream; 2]) -> Self {
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let [near, far] = &mut wires;
            tokio::select! {
                _ = copy_bidirectional(near, far) => {}
                () = stopped.notified() => {}
            }
            wires
        });
        Self { stop, task }
    }

    /// Nothing gets through any more. Must be at rest, for it loses what it holds.
    async fn stop(self) -> [DuplexStream; 2] {
        self.stop.notify_one();
        self.task.await.unwrap()
    }
}

impl Way {
    async fn new(budget: &ReplayBudget) -> Self {
        let [(near, near_wire), (far, far_wire)] = [duplex(4 << 20), duplex(64 * 1024)];
        let wires = Carried::start([near_wire, far_wire]);
        let start = |io, side, budget| Link::start_resumable(Box::new(io), side, Limits::client(), budget);
        let near = start(near, Side::Server, budget.clone()); // asks nobody early
        let far = start(far, Side::Client, ReplayBudget::default());
        let here = near.open("m").unwrap();
        let there = far.accept().await.unwrap().accept().unwrap();
        let mut way = Self { _links: [near, far], here, there, wires };
        let took = way.carry().await; // and its windows have grown
        assert!(took < MOMENT, "{took:?}");
        at_rest(budget).await;
        way
    }

    /// How long much takes there.
    async fn carry(&mut self) -> Duration {
        let (since, much) = (Instant::now(), vec![5; MUCH]);
        let mut heard = vec![0; MUCH];
        let (written, read) = tokio::join!(self.here.write_all(&much), self.there.read_exact(&mut heard));
        written.unwrap();
        read.unwrap();
        since.elapsed()
    }
}

/// All is acknowledged.
async fn at_rest(budget: &ReplayBudget) {
    sleep(Duration::from_secs(2)).await;
    assert_eq!(budget.kept(), 0);
}

// I27
#[tokio::test(start_paused = true)]
async fn writers_of_one_link_wait_for_what_another_has_not_acknowledged_and_go_on_then() {
    let budget = ReplayBudget::new(BUDGET);
    let mut waiting = Way::new(&budget).await;
    let Way { _links, mut here, mut there, wires } = Way::new(&budget).await;

    let wires = wires.stop().await;
    let holding = tokio::spawn(async move {
        here.write_all(&vec![5; MUCH]).await.unwrap();
        here
    });
    sleep(MOMENT).await;
    let kept = budget.kept();
    assert!(kept <= BUDGET && kept > BUDGET - ALWAYS, "{kept} octets are kept");

    let waits = tokio::spawn(async move {
        waiting.carry().await;
        waiting
    });
    for _ in 0..2_000 {
        sleep(Duration::from_millis(1)).await;
        assert!(budget.kept() <= BUDGET + ALWAYS, "{} octets are kept", budget.kept());
    }
    assert!(!holding.is_finished() && !waits.is_finished(), "both wait");

    let _carried = Carried::start(wires);
    let since = Instant::now();
    there.read_exact(&mut vec![0; MUCH]).await.unwrap();
    let _here = holding.await.unwrap();
    let mut waiting = waits.await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    at_rest(&budget).await;
    let again = waiting.carry().await;
    assert!(again < MOMENT, "{again:?}: as before");
}
