//! The reference: what each stream carries, octet for octet, and how it may end. Owns the plans of all streams and what became of them.

use std::collections::BTreeMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::sleep;

use super::dice::Dice;
use crate::connection::MuxStream;
use crate::mux::Side;
use crate::mux::error::Code;
use crate::mux::stream::StreamError;

/// What one side of a stream does.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Octets it sends before its end.
    sends: u64,
    /// Octets it writes at a time.
    writes: usize,
    /// And how long it waits after each.
    rests: Duration,
    /// Octets it reads at a time, and how long it waits after each.
    reads: (usize, Duration),
    /// After how many octets received it drops the stream.
    leaves_after: Option<u64>,
}

/// A stream: its two sides, the client's first, and where its octets come from.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    number: u64,
    parts: [Part; 2],
}

impl Plan {
    pub(super) fn new(number: u64, dice: &mut Dice) -> Self {
        let mut parts = [Part::new(dice), Part::new(dice)];
        for side in 0..2 {
            // A slow side rests about fifty times, so that every stream has its end within hours.
            let sent = [parts[side].sends, parts[1 - side].sends].map(|octets| octets as usize / 50);
            parts[side].writes = parts[side].writes.max(sent[0]);
            parts[side].reads.0 = parts[side].reads.0.max(sent[1]);
        }
        Self { number, parts }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The octet that `side` sends at this place.
    fn octet(&self, side: usize, at: u64) -> u8 {
        let mixed = (self.number << 1 | side as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(at);
        (mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 56) as u8
    }

    fn octets(&self, side: usize, from: u64, count: usize) -> Vec<u8> {
        (from..).take(count).map(|at| self.octet(side, at)).collect()
    }
}

impl Part {
    fn new(dice: &mut Dice) -> Self {
        let much = dice.one_in(100);
        let sends = if much { dice.size(100_000, 3_000_000) } else { dice.size(1, 20_000) };
        let slow = !much && dice.one_in(5);
        let pause = |dice: &mut Dice, many| {
            if dice.one_in(many) {
                dice.between(Duration::from_millis(1), Duration::from_secs(60))
            } else {
                Duration::ZERO
            }
        };
        Self {
            sends,
            writes: if much { 60_000 } else { dice.size(10, 20_000) as usize },
            rests: if much { Duration::ZERO } else { pause(dice, 3) },
            reads: if slow { (1000, pause(dice, 1)) } else { (60_000, Duration::ZERO) },
            leaves_after: dice.one_in(20).then(|| dice.size(1, 10_000)),
        }
    }
}

/// How streams ended, and those that are open.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    plans: BTreeMap<u64, Plan>,
    open: BTreeMap<(u64, usize), u64>,
    tally: Tally,
    failures: Vec<String>,
}

/// Counts of a whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Sides of streams that sent and received everything.
    pub whole: u64,
    /// That were ended early by the plan of one side.
    pub left: u64,
    /// That ended with their link, and said so.
    pub lost: u64,
    /// Octets that arrived, each of them compared.
    pub octets: u64,
}

impl Streams {
    pub(super) fn plan(&self, plan: Plan) {
        self.0.lock().unwrap().plans.insert(plan.number, plan);
    }

    pub(super) fn tally(&self) -> Tally {
        self.0.lock().unwrap().tally.clone()
    }

    /// Sides that have not ended yet.
    pub(super) fn open(&self) -> Vec<(u64, usize)> {
        self.0.lock().unwrap().open.keys().copied().collect()
    }

    /// Carries a stream of this number to its end, as `side`, in a task of its own.
    pub(super) fn spawn(&self, number: u64, side: Side, stream: MuxStream) {
        let streams = self.clone();
        tokio::spawn(async move {
            let carried = AssertUnwindSafe(streams.carry(number, side, stream)).catch_unwind().await;
            if let Err(panic) = carried {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a failed check".into());
                streams.0.lock().unwrap_or_else(PoisonError::into_inner).failures.push(text);
            }
        });
    }

    /// What went wrong.
    pub(super) fn failures(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failures.clone()
    }

    /// What arrives must be what was sent, and a stream must end as the plan or its link says.
    async fn carry(&self, number: u64, side: Side, stream: MuxStream) {
        let side = usize::from(side == Side::Server);
        let plan = {
            let mut inner = self.0.lock().unwrap();
            inner.open.insert((number, side), 0);
            inner.plans[&number].clone()
        };
        let (reader, writer) = tokio::io::split(stream);
        let (read, written) = {
            let leaves = plan.parts[side].leaves_after.is_some();
            let reading = self.read(&plan, side, reader);
            let writing = write(&plan, side, writer);
            if leaves {
                // Dropped with whatever it was about to write.
                let mut writing = Box::pin(writing);
                let mut written = Ok(());
                let mut reading = Box::pin(reading);
                let read = tokio::select! {
                    biased;
                    read = &mut reading => read,
                    done = &mut writing => {
                        written = done;
                        reading.await
                    }
                };
                (read, written)
            } else {
                tokio::join!(biased; reading, writing)
            }
        };
        let end = read.and_then(|whole| written.map(|()| whole));
        let mut inner = self.0.lock().unwrap();
        inner.open.remove(&(number, side));
        let planned = plan.parts.iter().any(|part| part.leaves_after.is_some());
        match end {
            Ok(true) => inner.tally.whole += 1,
            Ok(false) => inner.tally.left += 1,
            Err(error) => match cause(&error) {
                Some(StreamError::LinkClosed { reason }) => {
                    assert!(!reason.is_empty(), "stream {number} ended without a reason");
                    inner.tally.lost += 1;
                }
                Some(StreamError::Reset { code }) if planned && *code == Code::Cancelled.number() => {
                    inner.tally.left += 1;
                }
                _ => panic!("stream {number} ended for side {side} with {error:?}, planned {planned}"),
            },
        }
    }

    /// Reads to the end; false when the plan says to leave before.
    async fn read(&self, plan: &Plan, side: usize, mut reader: ReadHalf<MuxStream>) -> io::Result<bool> {
        let Part { reads: (most, rest), leaves_after, .. } = plan.parts[side];
        let sends = plan.parts[1 - side].sends;
        let (mut heard, mut piece) = (0u64, vec![0; most]);
        loop {
            let count = reader.read(&mut piece).await?;
            if count == 0 {
                assert_eq!(heard, sends, "stream {} ended early or late for side {side}", plan.number);
                return Ok(true);
            }
            assert!(
                piece[..count] == plan.octets(1 - side, heard, count),
                "stream {}: wrong after {heard}",
                plan.number
            );
            heard += count as u64;
            self.0.lock().unwrap().tally.octets += count as u64;
            if leaves_after.is_some_and(|after| heard >= after) {
                return Ok(false);
            }
            if !rest.is_zero() {
                sleep(rest).await;
            }
        }
    }
}

async fn write(plan: &Plan, side: usize, mut writer: WriteHalf<MuxStream>) -> io::Result<()> {
    let Part { sends, writes, rests, .. } = plan.parts[side];
    let mut sent = 0;
    while sent < sends {
        let count = (sends - sent).min(writes as u64) as usize;
        writer.write_all(&plan.octets(side, sent, count)).await?;
        sent += count as u64;
        if !rests.is_zero() {
            sleep(rests).await;
        }
    }
    writer.shutdown().await
}

fn cause(error: &io::Error) -> Option<&StreamError> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}
