//! The one task of a link: moves octets between the connection and the machine and keeps its deadlines. Owns the
//! connection and the timer. Asks the machine for a batch only when the last one is written, so that what is urgent never
//! waits behind more than one batch.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;

use super::{CloseReason, LinkState, Replacement, Shared, now};
use crate::link::LinkError;
use crate::mux::error::{Code, ProtocolError};
use crate::mux::outbox::Outbox;
use crate::pool::Pool;
use crate::stream::BoxedStream;

pub(super) struct Driver {
    /// `None` while another connection is awaited.
    io: Option<BoxedStream>,
    shared: Arc<Shared>,
    resume_within: Duration,
    /// When a link without a connection is given up.
    given_up_at: Option<Instant>,
    input: BytesMut,
    /// What was `input` before.
    pool: Pool,
    read_size: usize,
    /// Whether some of the input came while the connection was held.
    unheard: bool,
    out: Outbox,
    unflushed: bool,
    /// Since when the socket takes nothing.
    full_since: Option<Instant>,
    /// How many batches it has taken since it was last full for longer than a moment. Before these are many, they are small.
    quick: u8,
    timer: Pin<Box<Sleep>>,
    woken: Vec<Waker>,
}

impl Driver {
    pub(super) fn new(io: BoxedStream, shared: Arc<Shared>, resume_within: Duration, now: Instant) -> Self {
        Self {
            io: Some(io),
            shared,
            resume_within,
            given_up_at: None,
            input: BytesMut::new(),
            pool: Pool::new(MOST_SPENT, 2 * LARGE_READ),
            read_size: SMALL_READ,
            unheard: false,
            out: Outbox::default(),
            unflushed: false,
            full_since: None,
            quick: 0,
            timer: Box::pin(tokio::time::sleep_until(now.into())),
            woken: Vec::new(),
        }
    }

    /// Boxed: a future keeps room for its arguments twice.
    pub(super) async fn run(mut self: Box<Self>) {
        let reason = poll_fn(|cx| self.poll(cx)).await;
        self.say_goodbye(&reason);
        // The peer may be gone or may not listen: it gets a moment.
        let _ = tokio::time::timeout(GOODBYE, async {
            poll_fn(|cx| self.poll_write(cx)).await?;
            match &mut self.io {
                Some(io) => io.shutdown().await,
                None => Ok(()),
            }
        })
        .await;
    }

    /// Runs until there is a reason to end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.shared.driver.register(cx.waker());
        if let Err(reason) = self.take_orders() {
            return Poll::Ready(reason);
        }
        for _ in 0..ROUNDS {
            let round = if self.io.is_some() {
                if self.shared.lock().held {
                    return Poll::Pending; // who lets go of it calls
                }
                self.poll_deadline(cx).and_then(|_| self.poll_round(cx))
            } else {
                self.poll_suspended(cx)
            };
            match round {
                Ok(Progress::Moved) => {}
                Ok(Progress::Waiting) => return Poll::Pending,
                Err(reason) if self.outlives(&reason) => self.suspend(&reason),
                Err(reason) => return Poll::Ready(reason),
            }
        }
        cx.waker().wake_by_ref(); // others' turn
        Poll::Pending
    }

    /// What handles of the link want: its end, or that it goes on over another connection.
    fn take_orders(&mut self) -> Result<(), CloseReason> {
        let shared = Arc::clone(&self.shared);
        let mut core = shared.lock();
        if let Some((_, reason)) = &core.closing {
            return Err(CloseReason::Here { reason: reason.clone() });
        }
        if std::mem::take(&mut core.suspend_wanted) && self.io.is_some() && core.mux.is_resumable() {
            drop(core);
            self.suspend(&CloseReason::Here { reason: "another connection takes its place".into() });
            core = shared.lock();
        }
        if let Some(Replacement { io, peer_received, took }) = core.replacement.take() {
            // Nothing of the connection before counts: not half a frame received, not half a batch written.
            self.io = Some(io);
            self.input = BytesMut::new();
            self.unheard = false;
            self.out = Outbox::default();
            self.unflushed = false;
            self.full_since = None;
            self.given_up_at = None;
            core.held = false;
            core.lost = None;
            core.resumptions += 1;
            if let LinkState::Suspended { since } = &*self.shared.state.lock() {
                core.waited += since.elapsed();
            }
            core.mux.resume(peer_received, now())?;
            core.mux.made_within(took);
            let away = core.mux.peer_going_away().cloned();
            if let state @ LinkState::Suspended { .. } = &mut *self.shared.state.lock() {
                *state = away.map_or(LinkState::Up, |reason| LinkState::GoingAway { reason });
            }
            // Also who waits for that, where nothing was suspended.
            self.shared.state.call();
        }
        if self.io.is_none()
            && let Some(reason) = core.lost.take()
        {
            return Err(CloseReason::Lost { reason });
        }
        Ok(())
    }

    /// Whether the link goes on after its connection ended like this: it was lost, nobody closed it and nobody broke a rule.
    fn outlives(&self, reason: &CloseReason) -> bool {
        let lost = matches!(
            reason,
            CloseReason::Broken { .. } | CloseReason::Protocol(ProtocolError::Link(LinkError::Silent { .. }))
        );
        lost && !self.resume_within.is_zero() && self.shared.lock().mux.is_resumable()
    }

    fn suspend(&mut self, reason: &CloseReason) {
        tracing::debug!(%reason, "the connection of a link is lost, another one is awaited");
        self.io = None;
        self.input = BytesMut::new();
        self.unheard = false;
        self.out = Outbox::default();
        self.unflushed = false;
        self.read_size = SMALL_READ;
        self.pool.give_up();
        let since = now();
        self.given_up_at = Some(since + self.resume_within);
        self.shared.lock().mux.suspend();
        self.shared.state.change(|state| {
            let open = !matches!(state, LinkState::Closed(_));
            if open {
                *state = LinkState::Suspended { since };
            }
            open
        });
    }

    /// Waits for another connection, for so long.
    fn poll_suspended(&mut self, cx: &mut Context<'_>) -> Result<Progress, CloseReason> {
        self.take_orders()?;
        if self.io.is_some() {
            return Ok(Progress::Moved);
        }
        let Some(until) = self.given_up_at else { return Ok(Progress::Waiting) };
        self.timer.as_mut().reset(until.into());
        if Future::poll(self.timer.as_mut(), cx).is_pending() {
            return Ok(Progress::Waiting);
        }
        let reason = format!("no other connection within {} s", self.resume_within.as_secs());
        Err(CloseReason::Lost { reason: reason.into() })
    }

    fn poll_round(&mut self, cx: &mut Context<'_>) -> Result<Progress, CloseReason> {
        let mut progress = Progress::Waiting;
        match self.poll_write(cx) {
            Poll::Ready(Ok(written)) => {
                self.transmit(now())?;
                if written || !self.out.is_empty() {
                    progress = Progress::Moved;
                }
            }
            Poll::Ready(Err(error)) => {
                // The peer may have said why before it left.
                while let Poll::Ready(Ok(1..)) = self.poll_read(cx) {
                    self.received()?;
                }
                return Err(self.broken(&error));
            }
            Poll::Pending => {}
        }
        if self.poll_input(cx)? {
            progress = Progress::Moved;
        }
        if matches!(progress, Progress::Waiting) && self.poll_deadline(cx)? {
            progress = Progress::Moved;
        }
        Ok(progress)
    }

    /// Takes what there is to be read; says whether there was anything.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        if self.unheard {
            self.received()?;
            return Ok(!self.unheard);
        }
        match self.poll_read(cx) {
            Poll::Ready(Ok(1..)) => {
                self.received()?;
                Ok(true)
            }
            Poll::Ready(Ok(0)) => {
                // An end in order after it was announced is what was announced.
                if let Some(reason) = self.shared.lock().mux.peer_going_away() {
                    return Err(CloseReason::Peer { reason: reason.clone() });
                }
                let message = "the peer closed the connection without a word";
                Err(self.broken(&io::Error::new(io::ErrorKind::UnexpectedEof, message)))
            }
            Poll::Ready(Err(error)) => Err(self.broken(&error)),
            Poll::Pending => Ok(false),
        }
    }

    /// Writes and flushes the batch; says whether there was anything.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let written = self.poll_write_all(cx);
        if written.is_pending() {
            self.full_since.get_or_insert_with(now);
        } else if let Some(since) = self.full_since.take()
            && now().saturating_duration_since(since) > QUICK
        {
            self.quick = 0;
        }
        written
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut any = false;
        let Some(io) = &mut self.io else { return Poll::Pending };
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = self.out.fill(&mut slices);
            let slices = slices.get(..used).unwrap_or_default();
            let written = std::task::ready!(Pin::new(&mut *io).poll_write_vectored(cx, slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
            self.unflushed = true;
            any = true;
        }
        if self.unflushed {
            std::task::ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(any))
    }

    /// Takes the next batch; ends when the last stream of a link that drains is gone.
    fn transmit(&mut self, now: Instant) -> Result<(), CloseReason> {
        let mut core = self.shared.lock();
        core.mux.poll_transmit(&mut self.out, if self.quick < MANY { SMALL_BATCH } else { BATCH }, now);
        if self.out.len() >= SMALL_BATCH {
            self.quick = self.quick.saturating_add(1);
        }
        core.dispatch(&self.shared, &mut self.woken);
        let drained = core.draining && core.mux.is_idle() && self.out.is_empty() && !core.mux.wants_transmit();
        drop(core);
        self.wake();
        if drained { Err(CloseReason::Here { reason: "no stream is left".into() }) } else { Ok(()) }
    }

    /// Reads what there is, as far as the buffer goes: whoever waits for it is then called once. Ready with 0 at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else { return Poll::Pending };
        if self.input.capacity() - self.input.len() < self.read_size / 4 && !self.input.try_reclaim(self.read_size) {
            // Of the last one streams hold parts.
            let mut next = self.pool.take(self.input.len() + self.read_size);
            next.extend_from_slice(&self.input);
            let last = std::mem::replace(&mut self.input, next);
            if self.read_size == LARGE_READ {
                self.pool.give(last);
            }
        }
        let mut total = 0;
        loop {
            let spare = self.input.capacity() - self.input.len();
            if total > 0 && spare < self.read_size / 4 {
                return Poll::Ready(Ok(total));
            }
            match poll_read_buf(Pin::new(&mut *io), cx, &mut self.input) {
                // An end or an error after some octets is found again by the next call.
                Poll::Ready(Ok(0) | Err(_)) | Poll::Pending if total > 0 => return Poll::Ready(Ok(total)),
                Poll::Ready(Ok(count)) if count > 0 => {
                    total += count;
                    if count == spare || count >= SMALL_READ {
                        self.read_size = LARGE_READ;
                    } else if count < SMALL_READ / 2 {
                        self.read_size = SMALL_READ;
                    }
                }
                Poll::Pending => {
                    if self.input.is_empty() && self.read_size == SMALL_READ {
                        self.input = BytesMut::new(); // an idle link holds no buffer
                        self.pool.give_up();
                        self.shared.lock().mux.give_back();
                    }
                    return Poll::Pending;
                }
                done => return done,
            }
        }
    }

    fn received(&mut self) -> Result<(), CloseReason> {
        let mut core = self.shared.lock();
        self.unheard = core.held;
        if self.unheard {
            return Ok(());
        }
        let result = core.mux.handle_input(&mut self.input, now());
        core.dispatch(&self.shared, &mut self.woken);
        drop(core);
        self.wake();
        Ok(result?)
    }

    /// Why the connection is no more: what the peer has announced, if it did and nothing is left to be carried.
    fn broken(&self, error: &io::Error) -> CloseReason {
        let core = self.shared.lock();
        match core.mux.peer_going_away() {
            Some(reason) if core.mux.is_idle() || !core.mux.is_resumable() => {
                CloseReason::Peer { reason: reason.clone() }
            }
            Some(_) | None => CloseReason::Broken { kind: error.kind(), message: error.to_string().into() },
        }
    }

    /// Acts on the machine's deadline if it has passed; says whether it had. The timer moves only when it has to: deadlines
    /// get later with every frame, so it mostly finds at its own time that there is a new one.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        loop {
            let deadline = self.shared.lock().mux.poll_timeout();
            let Some(deadline) = deadline else { return Ok(false) };
            if self.timer.deadline().into_std() > deadline {
                self.timer.as_mut().reset(deadline.into());
            }
            if Future::poll(self.timer.as_mut(), cx).is_pending() {
                return Ok(false);
            }
            let now = now();
            if now >= deadline {
                // While this process stood still its peer may have spoken: what was not read yet is no silence.
                self.poll_input(cx)?;
                let mut core = self.shared.lock();
                core.mux.handle_timeout(now)?;
                core.dispatch(&self.shared, &mut self.woken);
                let doubted = core.mux.doubted_since().is_some();
                drop(core);
                if doubted {
                    self.shared.doubt.notify_one();
                }
                self.wake();
                return Ok(true);
            }
            self.timer.as_mut().reset(deadline.into());
        }
    }

    /// Ends the machine, and leaves in the batch what the peer should know.
    fn say_goodbye(&mut self, reason: &CloseReason) {
        let mut core = self.shared.lock();
        let (code, text): (Code, Arc<str>) = match (&core.closing, reason) {
            (Some((code, reason)), _) => (*code, reason.clone()),
            (None, CloseReason::Protocol(error)) => (Code::Protocol, error.to_string().into()),
            (None, CloseReason::Here { reason } | CloseReason::Peer { reason }) => (Code::GoingAway, reason.clone()),
            (None, CloseReason::Broken { message, .. } | CloseReason::Lost { reason: message }) => {
                (Code::GoingAway, message.clone())
            }
        };
        core.mux.go_away(code, &text);
        if self.out.len() < BATCH {
            core.mux.poll_transmit(&mut self.out, BATCH, now());
        }
        drop(core);
        self.end(reason);
    }

    fn wake(&mut self) {
        self.woken.drain(..).for_each(Waker::wake);
    }
}

impl Driver {
    /// Tells everybody that the link is over.
    fn end(&mut self, reason: &CloseReason) {
        let mut core = self.shared.lock();
        core.mux.close(&reason.to_string().into());
        core.dispatch(&self.shared, &mut self.woken);
        for (_, wakers) in std::mem::take(&mut core.wakers) {
            self.woken.extend([wakers.read, wakers.write, wakers.answer].into_iter().flatten());
        }
        drop(core);
        self.shared.state.change(|state| {
            let first = !matches!(state, LinkState::Closed(_));
            if first {
                *state = LinkState::Closed(reason.clone());
            }
            first
        });
        self.shared.incoming.notify_one();
        self.woken.drain(..).for_each(Waker::wake);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Only when the runtime stops before the link does; otherwise this was told already.
        self.end(&CloseReason::Here { reason: "the program ends".into() });
    }
}

#[derive(Clone, Copy)]
enum Progress {
    Moved,
    Waiting,
}

/// Octets taken from the machine at a time: four TLS records.
const BATCH: usize = 64 * 1024;
/// The same where the socket takes its time: what is urgent waits behind this much, and what the system keeps unsent.
const SMALL_BATCH: usize = 4 * 1024;
/// A socket that is full for no longer than this while it takes so many batches is not slow.
const QUICK: Duration = Duration::from_millis(2);
const MANY: u8 = 16;
const SLICES: usize = 16;
const SMALL_READ: usize = 4 * 1024;
const LARGE_READ: usize = 64 * 1024;
/// Buffers of which readers of streams hold parts for a moment.
const MOST_SPENT: usize = 4;
/// Rounds before it is another task's turn.
const ROUNDS: usize = 4;
/// Time for the last frame to leave.
const GOODBYE: Duration = Duration::from_secs(1);
