//! A connection through a network that can be slow, cut and silent. Owns what is under way. Loses nothing and reorders nothing by itself,
//! as TCP does not; what it does to a connection is all that can be done to one.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What is under way in one direction before a writer waits: the two socket buffers.
const ROOM: usize = 256 * 1024;

/// What a connection suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Both ends are told at once.
    Reset,
    /// One end is told, the other hears nothing any more: the client's, if `client`.
    HalfOpen {
        /// Whether it is the client who is told.
        client: bool,
    },
    /// Nobody is told anything.
    BlackHole,
}

/// A handle on the connection, for who decides its fate.
#[derive(Clone)]
pub(super) struct Wire(Arc<Mutex<State>>);

struct State {
    delay: Duration,
    silent: bool,
    /// Of what each end sends, the client's first.
    ways: [Way; 2],
    /// How many octets of what each end sends may still arrive. With the one behind them both ends are told that it is over.
    left: [usize; 2],
    /// Which ends know that it is over.
    told: [bool; 2],
}

#[derive(Default)]
struct Way {
    queue: VecDeque<(Instant, Bytes)>,
    held: usize,
    /// When the writer's end of it arrives.
    end: Option<Instant>,
    last: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Wire {
    /// A connection whose octets take so long; the client's end and the server's.
    pub(super) fn new(delay: Duration) -> (Self, [End; 2]) {
        let state = State { delay, silent: false, ways: Default::default(), left: [usize::MAX; 2], told: [false; 2] };
        let wire = Self(Arc::new(Mutex::new(state)));
        let ends = [0, 1].map(|side| End { wire: wire.clone(), side, timer: Box::pin(sleep_until(Instant::now())) });
        (wire, ends)
    }

    pub(super) fn suffer(&self, fate: Fate) {
        let mut state = self.lock();
        match fate {
            Fate::Reset => state.told = [true; 2],
            Fate::HalfOpen { client } => {
                state.told[usize::from(!client)] = true;
                state.silent = true;
            }
            Fate::BlackHole => state.silent = true,
        }
        if state.silent {
            state.ways.iter_mut().for_each(|way| way.queue.clear());
        }
        let woken: Vec<Waker> =
            state.ways.iter_mut().flat_map(|way| [way.reader.take(), way.writer.take()]).flatten().collect();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Breaks it when so many more octets of the client's have arrived, or of the server's, and there is another one.
    pub(super) fn breaks_after(&self, octets: [usize; 2]) {
        self.lock().left = octets;
    }

    /// From now on octets take so long.
    pub(super) fn slow_down(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end.
pub(super) struct End {
    wire: Wire,
    side: usize,
    timer: Pin<Box<Sleep>>,
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the simulated connection was reset")
}

impl AsyncRead for End {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = self.wire.clone();
        let mut state = wire.lock();
        if state.told[self.side] {
            return Poll::Ready(Err(gone()));
        }
        let (silent, left) = (state.silent, state.left[1 - self.side]);
        let way = &mut state.ways[1 - self.side];
        let now = Instant::now();
        let due = match way.queue.front_mut() {
            Some((due, _)) if *due <= now && left == 0 => {
                drop(state);
                wire.suffer(Fate::Reset);
                return Poll::Ready(Err(gone()));
            }
            Some((due, octets)) if *due <= now => {
                let take = octets.len().min(buf.remaining()).min(left);
                buf.put_slice(&octets[..take]);
                octets.advance(take);
                if octets.is_empty() {
                    way.queue.pop_front();
                }
                way.held -= take;
                let writer = way.writer.take();
                state.left[1 - self.side] = left.saturating_sub(take);
                drop(state);
                writer.into_iter().for_each(Waker::wake);
                return Poll::Ready(Ok(()));
            }
            Some((due, _)) => Some(*due),
            None if silent => None,
            None => way.end,
        };
        way.reader = Some(cx.waker().clone());
        let Some(due) = due else { return Poll::Pending };
        drop(state);
        if due <= now {
            return Poll::Ready(Ok(())); // its end
        }
        self.timer.as_mut().reset(due);
        match self.timer.as_mut().poll(cx) {
            Poll::Ready(()) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.wire.lock();
        let now = Instant::now();
        let peer_left = state.ways[1 - self.side].end.is_some_and(|at| at <= now) && !state.silent;
        if state.told[self.side] || peer_left {
            return Poll::Ready(Err(gone()));
        }
        let (delay, silent) = (state.delay, state.silent);
        let way = &mut state.ways[self.side];
        let room = ROOM.saturating_sub(way.held).min(octets.len());
        if room == 0 {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        way.held += room;
        if !silent {
            let due = way.last.map_or(now + delay, |last| last.max(now + delay)); // in order, whatever the delay is now
            way.last = Some(due);
            way.queue.push_back((due, Bytes::copy_from_slice(&octets[..room])));
        }
        let reader = way.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(room))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.leave();
        Poll::Ready(Ok(()))
    }
}

impl End {
    /// Sends the end, behind what was written before.
    fn leave(&self) {
        let mut state = self.wire.lock();
        let delay = state.delay;
        let way = &mut state.ways[self.side];
        let at = Instant::now() + delay;
        way.end.get_or_insert(way.last.map_or(at, |last| last.max(at)));
        let woken = [way.reader.take(), way.writer.take()];
        drop(state);
        woken.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.leave();
    }
}
