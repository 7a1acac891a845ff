//! The pace at which agents' handshakes begin: when all agents of a proxy come back at once, people who log in still get through. Owns the turns.
//! Refuses nobody for being slow, and lets nobody who is slow keep others out.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Handshakes that may be at work at once.
#[derive(Debug)]
pub(super) struct Gate {
    turns: Semaphore,
    waiting: AtomicUsize,
}

/// More wait than may.
#[derive(Debug)]
pub(super) struct Crowded;

impl Gate {
    pub(super) const fn new() -> Self {
        Self { turns: Semaphore::const_new(TURNS), waiting: AtomicUsize::new(0) }
    }

    /// Does `work` when it is its turn. A turn is over with the work, and after [`TURN`] at the latest, while the work goes on: a peer that is far
    /// away, or plays dead, holds nobody up for longer.
    pub(super) async fn pass<T>(&self, work: impl Future<Output = T>) -> Result<T, Crowded> {
        let turn = {
            // Whoever is dropped while it waits is counted off as well.
            let _waits = self.wait()?;
            self.turns.acquire().await.map_err(|_| Crowded)?
        };
        let mut work = pin!(work);
        match timeout(TURN, &mut work).await {
            Ok(done) => Ok(done),
            Err(_) => {
                drop(turn);
                Ok(work.await)
            }
        }
    }

    fn wait(&self) -> Result<Waits<'_>, Crowded> {
        let waits = Waits(self);
        // The guard is there already: it takes back what is added here, whatever comes of it.
        if self.waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING { Ok(waits) } else { Err(Crowded) }
    }
}

struct Waits<'a>(&'a Gate);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// So many milliseconds of work, more or less, are the longest that anybody else's handshake waits for processor time.
const TURNS: usize = 64;
/// Hence 640 begin each second at least, and 10,000 are back within 16 s.
const TURN: Duration = Duration::from_millis(100);
/// A quarter of the places of the unauthenticated: agents that come back never fill them all. The rest is turned away and comes again.
const MOST_WAITING: usize = 2048;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;

    async fn until_waiting(gate: &Gate, count: usize) {
        while gate.waiting.load(Ordering::Relaxed) < count {
            tokio::task::yield_now().await;
        }
    }

    // I30
    #[tokio::test(start_paused = true)]
    async fn whoever_is_slow_holds_the_others_up_for_a_turn_only() {
        let gate = Arc::new(Gate::new());
        let slow: Vec<_> = (0..10 * TURNS)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.pass(std::future::pending::<()>()).await })
            })
            .collect();
        until_waiting(&gate, 9 * TURNS).await;
        let since = Instant::now();

        gate.pass(async {}).await.unwrap();

        assert_eq!(since.elapsed().as_millis(), 10 * TURN.as_millis());
        slow.iter().for_each(tokio::task::JoinHandle::abort);
    }

    // I30
    #[tokio::test(start_paused = true)]
    async fn who_is_too_many_is_told_at_once_and_who_left_counts_no_more() {
        let gate = Arc::new(Gate::new());
        let crowd: Vec<_> = (0..TURNS + MOST_WAITING)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.pass(std::future::pending::<()>()).await })
            })
            .collect();
        until_waiting(&gate, MOST_WAITING).await;
        assert!(gate.pass(async {}).await.is_err());

        for one in crowd {
            one.abort();
            let _ = one.await;
        }

        gate.pass(async {}).await.unwrap();
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
    }
}
