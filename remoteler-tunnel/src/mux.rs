//! The stream multiplexer as a pure machine: many byte streams with credit windows over one sequenced link. Owns every
//! stream's state and all memory that a peer can make this side hold. Never touches a socket, a clock or a task: octets
//! and `now` come in, octets, events and the next deadline go out.
//!
//! After any call, drain [`Mux::poll_event`] and [`Mux::poll_transmit`], then come back at [`Mux::poll_timeout`].

pub(crate) mod budget;
pub(crate) mod error;
pub(crate) mod limits;
pub(crate) mod outbox;
mod receive;
mod resume;
mod schedule;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
mod transmit;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::frame::{DATA_LEN, Payload};
use crate::handshake::Hello;
use crate::link::{STOOD_STILL, Sequence};
use crate::pool::Pool;
use crate::replay::Replay;

use budget::Budgets;
use error::{Code, OpenError, ProtocolError};
use limits::Limits;
use schedule::Schedule;
use stream::{Opening, SendEnd, Stream, StreamError};

/// Which end of the connection this is. The client's streams have odd numbers, the server's even ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Made the connection.
    Client,
    /// Accepted it.
    Server,
}

/// What happened, for the one who drives the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MuxEvent {
    /// The peer's hello was accepted; streams can move.
    Up,
    /// [`Mux::next_incoming`] has a stream.
    Incoming,
    /// The peer accepted or refused this stream of ours.
    Answered(u32),
    /// A reader that found nothing may look again.
    Readable(u32),
    /// A writer that found no room may try again.
    Writable(u32),
    /// The peer takes no new streams.
    GoingAway,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many octets were handed out.
    Read(usize),
    /// None now; a [`MuxEvent::Readable`] follows.
    Blocked,
    /// The peer has finished.
    End,
}

/// One side of a multiplexed link.
#[derive(Debug)]
pub struct Mux {
    side: Side,
    /// A server's links share theirs.
    limits: Arc<Limits>,
    phase: Phase,
    hello_sent: bool,
    link: Sequence,
    /// What goes out again after a connection was lost; absent when the link ends with its connection.
    replay: Option<Box<Replay>>,
    streams: Streams,
    inbound: Inbound,
    outbound: Outbound,
    incoming: VecDeque<(u32, Bytes)>,
    away: Away,
    budgets: Budgets,
    events: VecDeque<MuxEvent>,
    /// What written octets were kept in.
    pool: Pool,
}

#[derive(Debug)]
enum Phase {
    /// The peer's hello has not come.
    Handshaking { deadline: Instant },
    /// Streams move.
    Up { peer: Hello },
    /// Nothing moves any more.
    Closed { reason: Arc<str> },
}

/// The streams and their numbers.
#[derive(Debug)]
struct Streams {
    /// Boxed: a node of the map has room for eleven, and an idle link has one or none.
    map: BTreeMap<u32, Box<Stream>>,
    /// How many of them we opened.
    ours: u32,
    /// How many of them the peer opened.
    theirs: u32,
    /// The number of our next stream; `None` when all are used.
    next: Option<u32>,
    /// The highest number the peer used.
    last_theirs: u32,
}

/// What the link holds and allows of received octets.
#[derive(Debug)]
struct Inbound {
    /// Octets the peer may still send on all streams together.
    credit: u32,
    /// Received, not yet read.
    buffered: usize,
    /// By how much windows of streams have grown beyond their first size.
    grown: u64,
    /// When to look for streams that nobody reads, while the link is nearly full.
    check_at: Option<Instant>,
}

/// What waits to be sent.
#[derive(Debug, Default)]
struct Outbound {
    /// Octets the peer takes on all streams together.
    credit: u64,
    /// Written, not yet sent.
    buffered: usize,
    control: VecDeque<(u32, Payload)>,
    /// Streams that get a WINDOW frame.
    windows: VecDeque<u32>,
    schedule: Schedule,
    /// Streams whose writers wait for room in the link's send buffer.
    crowd: VecDeque<u32>,
    /// The stream on which somebody last typed, as it seems.
    typist: Option<u32>,
}

/// Who takes no new streams, and why.
#[derive(Debug, Default)]
struct Away {
    ours: Option<Arc<str>>,
    theirs: Option<Arc<str>>,
}

impl Mux {
    /// A machine over which nothing went yet.
    #[must_use]
    pub fn new(side: Side, limits: impl Into<Arc<Limits>>, now: Instant) -> Self {
        let limits = limits.into();
        Self {
            side,
            phase: Phase::Handshaking { deadline: now + limits.handshake },
            hello_sent: false,
            link: Sequence::new(limits.keepalive, limits.max_unacked, now),
            replay: None,
            streams: Streams {
                map: BTreeMap::new(),
                ours: 0,
                theirs: 0,
                next: Some(if side == Side::Client { 1 } else { 2 }),
                last_theirs: 0,
            },
            inbound: Inbound { credit: limits.link_window, buffered: 0, grown: 0, check_at: None },
            outbound: Outbound::default(),
            incoming: VecDeque::new(),
            away: Away::default(),
            budgets: Budgets::new(now),
            events: VecDeque::new(),
            pool: Pool::new(MOST_POOLED, 2 * DATA_LEN),
            limits,
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Opens a stream; its metadata goes out at once and octets may be written right away, within the peer's first
    /// credit. Whether it is taken is told by [`MuxEvent::Answered`] and [`answer`](Self::answer).
    ///
    /// # Errors
    /// The link or the peer's limits do not allow it.
    pub fn open(&mut self, metadata: Bytes, now: Instant) -> Result<u32, OpenError> {
        let (most_streams, most_metadata, credit) = match &self.phase {
            Phase::Handshaking { .. } => (u32::MAX, LEAST_METADATA, 0),
            Phase::Up { peer } => (peer.max_streams, peer.max_metadata, peer.stream_window),
            Phase::Closed { reason } => return Err(OpenError::Closed { reason: reason.clone() }),
        };
        if let Some(reason) = self.away.ours.as_ref().or(self.away.theirs.as_ref()) {
            return Err(OpenError::GoingAway { reason: reason.clone() });
        }
        if metadata.is_empty() || metadata.len() > most_metadata as usize {
            return Err(OpenError::Metadata { length: metadata.len(), most: most_metadata });
        }
        if self.streams.ours >= most_streams || self.outbound.control.len() > self.limits.max_control() {
            return Err(OpenError::TooMany { most: most_streams });
        }
        let id = self.streams.next.ok_or(OpenError::Exhausted)?;
        self.streams.next = id.checked_add(2);
        self.streams.ours += 1;
        let stream = Stream::new(Opening::Asked, self.limits.stream_window, credit, now);
        self.streams.map.insert(id, Box::new(stream));
        self.outbound.control.push_back((id, Payload::Open(metadata)));
        Ok(id)
    }

    /// Whether our stream was taken: `None` while the peer has not answered.
    pub fn answer(&self, id: u32) -> Option<Result<(), StreamError>> {
        let Some(stream) = self.streams.map.get(&id) else { return Some(Err(StreamError::Unknown)) };
        match (stream.opening, &stream.failure) {
            // What was taken and then ended was taken: what it said before it ended can be read.
            (Opening::Done | Opening::Offered, _) => Some(Ok(())),
            (Opening::Asked, Some(failure)) => Some(Err(failure.clone())),
            (Opening::Asked, None) => None,
        }
    }

    /// The next stream the peer opened, with its metadata. It has to be accepted, refused or released.
    pub fn next_incoming(&mut self) -> Option<(u32, Bytes)> {
        loop {
            let (id, metadata) = self.incoming.pop_front()?;
            match self.streams.map.get(&id) {
                Some(stream) if stream.failure.is_none() => return Some((id, metadata)),
                Some(_) | None => self.remove(id), // reset by the peer before anybody took it
            }
        }
    }

    /// Takes a stream the peer opened.
    ///
    /// # Errors
    /// It is over already.
    pub fn accept(&mut self, id: u32) -> Result<(), StreamError> {
        let stream = self.streams.map.get_mut(&id).ok_or(StreamError::Unknown)?;
        if let Some(failure) = &stream.failure {
            return Err(failure.clone());
        }
        if stream.opening == Opening::Offered {
            stream.opening = Opening::Done;
            self.outbound.control.push_back((id, Payload::Accept));
        }
        Ok(())
    }

    /// Refuses a stream the peer opened. The reason is shown to people at the other end.
    pub fn reject(&mut self, id: u32, code: u16, reason: &str) {
        if let Some(stream) = self.streams.map.get(&id) {
            if stream.failure.is_none() && stream.opening == Opening::Offered {
                self.outbound.control.push_back((id, Payload::Reject(code, reason.to_owned())));
            }
            self.remove(id);
        }
    }

    /// Takes octets to send; returns how many. 0 means no room: a [`MuxEvent::Writable`] follows.
    ///
    /// # Errors
    /// The stream is over or its writing half was finished.
    pub fn write(&mut self, id: u32, octets: &[u8]) -> Result<usize, StreamError> {
        let Self { limits, streams, outbound, .. } = self;
        let send = match streams.map.get_mut(&id).map(Box::as_mut) {
            None => return Err(StreamError::Unknown),
            Some(Stream { failure: Some(failure), .. }) => return Err(failure.clone()),
            Some(Stream { send, .. }) if send.end != SendEnd::Open => return Err(StreamError::Finished),
            Some(Stream { send, .. }) => send,
        };
        let held = send.buffer.len();
        let credit = usize::try_from(send.credit).unwrap_or(usize::MAX);
        let own = credit.saturating_sub(held).min(limits.send_buffer.saturating_sub(held));
        // The last quarter of the link's buffer is for those that write little.
        let little = held == 0 && octets.len() <= LITTLE;
        let usable = if little { limits.link_send_buffer } else { limits.link_send_buffer / 4 * 3 };
        let shared = usable.saturating_sub(outbound.buffered);
        let taken = octets.len().min(own).min(shared);
        if taken == 0 {
            send.awaited = true;
            if own > 0 && !send.crowded {
                send.crowded = true;
                outbound.crowd.push_back(id);
            }
            return Ok(0);
        }
        send.buffer.push(octets.get(..taken).unwrap_or_default(), &mut self.pool);
        outbound.buffered += taken;
        outbound.schedule.activate(id, send);
        Ok(taken)
    }

    /// Ends the writing half; what was written before still goes out. More than once is as good as once.
    pub fn finish(&mut self, id: u32) {
        if let Some(stream) = self.streams.map.get_mut(&id)
            && stream.send.end == SendEnd::Open
            && stream.failure.is_none()
        {
            stream.send.end = SendEnd::FinDue;
            self.outbound.schedule.activate(id, &mut stream.send);
        }
    }

    /// Hands out received octets, at most `most`.
    ///
    /// # Errors
    /// The stream ended before its time; what came before that was handed out first.
    pub fn read(
        &mut self,
        id: u32,
        most: usize,
        now: Instant,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<ReadOutcome, StreamError> {
        let stream = self.streams.map.get_mut(&id).ok_or(StreamError::Unknown)?;
        let receive = &mut stream.receive;
        if receive.queue.len() > 0 {
            let read = receive.queue.read(most, sink);
            self.inbound.buffered -= read;
            receive.moved = now;
            if !receive.window_due && stream.failure.is_none() && receive.missing_credit().is_some() {
                receive.window_due = true;
                self.outbound.windows.push_back(id);
            }
            return Ok(ReadOutcome::Read(read));
        }
        // Octets of a stalled stream are gone: the end behind them is none in order, whenever it came.
        let torn = matches!(stream.failure, Some(StreamError::Stalled { .. }));
        if receive.fin && !torn {
            return Ok(ReadOutcome::End);
        }
        if let Some(failure) = &stream.failure {
            return Err(failure.clone());
        }
        receive.awaited = true;
        Ok(ReadOutcome::Blocked)
    }

    /// Ends a stream in both directions at once; nothing written and not yet sent goes out.
    pub fn reset(&mut self, id: u32, code: u16) {
        if let Some(stream) = self.streams.map.get(&id) {
            if stream.failure.is_none() {
                self.outbound.control.push_back((id, Payload::Reset(code)));
            }
            self.remove(id);
        }
    }

    /// Says that nobody here will use the stream any more. What was written still goes out, and the end that
    /// [`finish`](Self::finish) promised; a stream that was not finished by both sides is then reset.
    pub fn release(&mut self, id: u32) {
        let Some(stream) = self.streams.map.get_mut(&id) else { return };
        stream.released = true;
        self.inbound.buffered -= stream.receive.queue.len();
        stream.receive.queue.clear();
        if stream.is_over() {
            self.remove(id);
        } else if !(stream.receive.fin && stream.send.end == SendEnd::FinDue) {
            stream.send.cut = Some(Code::Cancelled.number());
            self.outbound.schedule.activate(id, &mut stream.send);
        }
    }

    /// Takes no new streams from now on, and opens none; those that are open go on.
    pub fn go_away(&mut self, code: Code, reason: &str) {
        if self.away.ours.is_none() && !matches!(self.phase, Phase::Closed { .. }) {
            self.away.ours = Some(reason.into());
            self.outbound.control.push_back((0, Payload::GoAway(code.number(), reason.to_owned())));
        }
    }

    /// Ends everything: every stream fails with `reason`, after what it received so far was read.
    pub fn close(&mut self, reason: &Arc<str>) {
        if matches!(self.phase, Phase::Closed { .. }) {
            return;
        }
        self.phase = Phase::Closed { reason: reason.clone() };
        let ids: Vec<u32> = self.streams.map.keys().copied().collect();
        for id in ids {
            self.fail(id, StreamError::LinkClosed { reason: reason.clone() });
        }
        self.outbound = Outbound::default();
    }

    /// Whether no stream is left and nothing but data-less frames waits to be sent.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.streams.map.is_empty()
    }

    /// How many streams there are, of both sides.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.streams.map.len()
    }

    /// Whether the peer's hello was accepted and the link not closed.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    /// Why the peer takes no new streams, if it said so.
    #[must_use]
    pub fn peer_going_away(&self) -> Option<&Arc<str>> {
        self.away.theirs.as_ref()
    }

    /// Lowest round-trip time of late, once one was measured.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.link.round_trip()
    }

    /// Octets received and not yet read, on all streams.
    #[must_use]
    pub fn received_unread(&self) -> usize {
        self.inbound.buffered
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<MuxEvent> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called; may move later with every call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Handshaking { deadline, .. } => Some(*deadline),
            Phase::Up { .. } => {
                let keepalive = self.link.poll_timeout();
                Some(self.inbound.check_at.map_or(keepalive, |check_at| check_at.min(keepalive)))
            }
            Phase::Closed { .. } => None,
        }
    }

    /// Acts on deadlines that have passed.
    ///
    /// # Errors
    /// The peer was silent for too long.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ProtocolError> {
        match &self.phase {
            Phase::Handshaking { deadline, .. } if now >= *deadline => {
                Err(crate::handshake::HandshakeError::Timeout.into())
            }
            Phase::Up { .. } => {
                self.link.handle_timeout(now)?;
                if let Some(check_at) = self.inbound.check_at
                    && now >= check_at
                {
                    if now.saturating_duration_since(check_at) > STOOD_STILL {
                        // Nobody could read while this process stood still: all have their time anew.
                        self.inbound.check_at = Some(now + self.limits.stalled_after);
                    } else {
                        self.reset_stalled(now);
                    }
                }
                Ok(())
            }
            Phase::Handshaking { .. } | Phase::Closed { .. } => Ok(()),
        }
    }

    /// Gives back buffers when nothing is under way, and the room of queues that are empty where nothing but the registration is open.
    pub(crate) fn give_back(&mut self) {
        if self.outbound.buffered == 0 && self.replay.as_ref().is_none_or(|replay| replay.is_empty()) {
            self.pool.give_up();
        }
        if self.streams.map.len() > 1 || self.wants_transmit() {
            return;
        }
        if self.incoming.is_empty() {
            self.incoming = VecDeque::new();
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        let Outbound { control, windows, crowd, .. } = &mut self.outbound;
        if control.is_empty() && windows.is_empty() && crowd.is_empty() {
            (*control, *windows, *crowd) = Default::default();
        }
    }

    /// With the link nearly full, ends the streams that nobody reads, largest first, until half of it is free: so that
    /// those never stop the others (I27).
    fn reset_stalled(&mut self, now: Instant) {
        self.inbound.check_at = self.is_nearly_full().then_some(now + CHECK_EVERY);
        if !self.is_nearly_full() {
            return;
        }
        let after = self.limits.stalled_after;
        let stalled = self.streams.map.iter().filter(|(_, stream)| stream.is_stalled(after, now));
        let mut stalled: Vec<(usize, u32)> = stalled.map(|(id, stream)| (stream.receive.queue.len(), *id)).collect();
        stalled.sort_unstable();
        while let Some((held, id)) = stalled.pop() {
            if self.inbound.buffered <= self.limits.link_window as usize / 2 {
                return;
            }
            if let Some(stream) = self.streams.map.get_mut(&id) {
                stream.receive.queue.clear();
                self.inbound.buffered -= held;
                // Also where the peer has ended it meanwhile: what it said before is gone now.
                if stream.failure.replace(StreamError::Stalled { after }).is_none() {
                    self.outbound.control.push_back((id, Payload::Reset(Code::Stalled.number())));
                }
                self.fail(id, StreamError::Stalled { after });
            }
        }
    }

    fn is_nearly_full(&self) -> bool {
        self.inbound.buffered >= self.limits.link_window as usize / 4 * 3
    }

    /// Ends a stream for a reason that its holder learns; frees what it would have sent.
    fn fail(&mut self, id: u32, failure: StreamError) {
        let Some(stream) = self.streams.map.get_mut(&id) else { return };
        if stream.failure.is_none() {
            stream.failure = Some(failure);
        }
        self.outbound.buffered -= stream.send.buffer.len();
        stream.send.buffer.clear();
        stream.send.cut = None;
        if stream.send.end == SendEnd::FinDue {
            stream.send.end = SendEnd::FinSent; // it must not go out without what was before it
        }
        let over = stream.is_over();
        if stream.opening == Opening::Asked {
            self.events.push_back(MuxEvent::Answered(id));
        }
        for event in [MuxEvent::Readable(id), MuxEvent::Writable(id)] {
            self.events.push_back(event);
        }
        if over {
            self.remove(id);
        }
        self.uncrowd();
    }

    /// Forgets a stream and everything it held.
    fn remove(&mut self, id: u32) {
        let Some(stream) = self.streams.map.remove(&id) else { return };
        self.inbound.buffered -= stream.receive.queue.len();
        self.inbound.grown -= u64::from(stream.receive.window.saturating_sub(self.limits.stream_window));
        self.outbound.buffered -= stream.send.buffer.len();
        if self.is_ours(id) {
            self.streams.ours -= 1;
        } else {
            self.streams.theirs -= 1;
        }
        self.uncrowd();
    }

    fn is_ours(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.side == Side::Client)
    }
}

/// Metadata every peer takes.
const LEAST_METADATA: u32 = 4096;
/// A write up to this size on a stream with nothing unsent is little.
const LITTLE: usize = 4096;
/// Written octets that are kept for a resumption while the peer acknowledges what went before: as much as it may take before it does.
const MOST_POOLED: usize = 32;
const CHECK_EVERY: Duration = Duration::from_secs(1);
