//! One stream of the multiplexer: what was received and not read, what was written and not sent, and where its two
//! halves stand. Owns the stream's credit in both directions. Never decides when it is this stream's turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};

use super::error::Code;
use super::schedule::QUANTUM;
use crate::frame::DATA_LEN;
use crate::pool::Pool;

/// Received octets in the order they came. Small payloads are joined, so that many of them hold little memory.
#[derive(Debug, Default)]
pub(crate) struct Received {
    whole: VecDeque<Bytes>,
    joined: BytesMut,
    len: usize,
}

impl Received {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, octets: Bytes) {
        self.len += octets.len();
        if octets.len() < KEEP_FROM {
            self.joined.extend_from_slice(&octets);
            return;
        }
        if !self.joined.is_empty() {
            self.whole.push_back(self.joined.split().freeze());
        }
        self.whole.push_back(octets);
    }

    /// Hands out at most `most` octets in at most a few pieces; returns how many.
    pub(crate) fn read(&mut self, most: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        let mut left = most;
        while left > 0 {
            if let Some(first) = self.whole.front_mut() {
                let take = left.min(first.len());
                sink(first.get(..take).unwrap_or_default());
                first.advance(take);
                left -= take;
                if first.is_empty() {
                    self.whole.pop_front();
                }
                continue;
            }
            let take = left.min(self.joined.len());
            sink(self.joined.get(..take).unwrap_or_default());
            self.joined.advance(take);
            left -= take;
            if self.joined.is_empty() {
                self.joined = BytesMut::new();
            }
            break;
        }
        let read = most - left;
        self.len -= read;
        read
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Payloads from this size on stay slices of the read buffer (of 64 KiB, so at most eight times their size is held);
/// smaller ones are copied.
const KEEP_FROM: usize = 8 * 1024;

/// Written octets in the order they came, cut into pieces that fill a DATA frame.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    whole: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl Unsent {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn push(&mut self, mut octets: &[u8], pool: &mut Pool) {
        self.len += octets.len();
        while !octets.is_empty() {
            if self.tail.is_empty() && octets.len() >= DATA_LEN / 2 {
                self.tail = pool.take(DATA_LEN);
            }
            let (now, later) = octets.split_at(octets.len().min(DATA_LEN - self.tail.len()));
            self.tail.extend_from_slice(now);
            if self.tail.len() == DATA_LEN {
                self.whole.push_back(std::mem::take(&mut self.tail).freeze());
            }
            octets = later;
        }
    }

    /// The next piece, of at most `most` octets.
    pub(crate) fn take(&mut self, most: usize) -> Bytes {
        let piece = match self.whole.front_mut() {
            Some(first) if first.len() <= most => self.whole.pop_front().unwrap_or_default(),
            Some(first) => first.split_to(most),
            None if self.tail.len() <= most => std::mem::take(&mut self.tail).freeze(),
            None => self.tail.split_to(most).freeze(),
        };
        self.len -= piece.len();
        piece
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Who still has to say yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// We opened it; the peer has not answered.
    Asked,
    /// The peer opened it; nobody here has answered.
    Offered,
    /// Answered.
    Done,
}

/// How the receiving half stands.
#[derive(Debug)]
pub(crate) struct ReceiveHalf {
    pub(crate) queue: Received,
    /// Octets the peer may still send.
    pub(crate) credit: u32,
    /// What credit and queue together are filled up to.
    pub(crate) window: u32,
    /// When credit was last given: how fast the stream moves.
    pub(crate) credited: Instant,
    /// When the reader last took something, or when there was nothing to take.
    pub(crate) moved: Instant,
    /// The peer writes no more.
    pub(crate) fin: bool,
    /// Somebody waits for octets.
    pub(crate) awaited: bool,
    /// The stream stands in the queue of those that get a WINDOW frame.
    pub(crate) window_due: bool,
}

impl ReceiveHalf {
    pub(crate) fn new(window: u32, now: Instant) -> Self {
        Self {
            queue: Received::default(),
            credit: window,
            window,
            credited: now,
            moved: now,
            fin: false,
            awaited: false,
            window_due: false,
        }
    }

    /// Credit that is missing, if so much is missing that a WINDOW frame is worth it.
    pub(crate) fn missing_credit(&self) -> Option<u32> {
        let held = u64::from(self.credit) + self.queue.len() as u64;
        let missing = u64::from(self.window).saturating_sub(held);
        let worth = !self.fin && missing >= u64::from(self.window / 2);
        worth.then(|| u32::try_from(missing).unwrap_or(u32::MAX))
    }
}

/// How the end of the sending half stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendEnd {
    /// More may be written.
    Open,
    /// A FIN follows what was written.
    FinDue,
    /// The FIN went out.
    FinSent,
}

/// In which queue of the schedule the stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// In none.
    Idle,
    /// Among those that had nothing to send until now.
    Fresh,
    /// Among those that keep sending.
    Bulk,
}

/// How the sending half stands.
#[derive(Debug)]
pub(crate) struct SendHalf {
    pub(crate) buffer: Unsent,
    /// Octets the peer takes; never less than `buffer` holds.
    pub(crate) credit: u64,
    pub(crate) end: SendEnd,
    /// A RESET with this code follows everything else, then the stream is gone.
    pub(crate) cut: Option<u16>,
    /// Somebody waits for room.
    pub(crate) awaited: bool,
    /// The stream stands in the queue of those that wait for the link's send buffer.
    pub(crate) crowded: bool,
    pub(crate) turn: Turn,
    /// Octets the stream may send before it is another's turn.
    pub(crate) quantum: usize,
    /// Whether that was little when it last was its turn.
    pub(crate) said_little: bool,
}

impl SendHalf {
    pub(crate) fn new(credit: u32) -> Self {
        Self {
            buffer: Unsent::default(),
            credit: u64::from(credit),
            end: SendEnd::Open,
            cut: None,
            awaited: false,
            crowded: false,
            turn: Turn::Idle,
            quantum: 0,
            said_little: false,
        }
    }

    /// Whether it keeps sending much.
    pub(crate) fn is_bulk(&self) -> bool {
        self.turn == Turn::Bulk && !self.said_little
    }

    /// The stream's turn is over, for it has nothing more to send: whether it said little, as it did before. Once alone may be the end of much.
    pub(crate) fn has_typed(&mut self) -> bool {
        let said = QUANTUM.saturating_sub(self.quantum);
        if said == 0 {
            return false;
        }
        let little = said <= LITTLE_SAID;
        std::mem::replace(&mut self.said_little, little) && little
    }

    /// Whether the stream has something to send: octets or its end.
    pub(crate) fn has_output(&self) -> bool {
        !self.buffer.is_empty() || self.end == SendEnd::FinDue || self.cut.is_some()
    }
}

/// Octets that somebody may have typed, or what is shown of them.
const LITTLE_SAID: usize = 2048;

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) opening: Opening,
    pub(crate) receive: ReceiveHalf,
    pub(crate) send: SendHalf,
    /// Why it is over, if it ended otherwise than by two FINs.
    pub(crate) failure: Option<StreamError>,
    /// Nobody holds a handle any more.
    pub(crate) released: bool,
}

impl Stream {
    pub(crate) fn new(opening: Opening, receive_window: u32, send_credit: u32, now: Instant) -> Self {
        Self {
            opening,
            receive: ReceiveHalf::new(receive_window, now),
            send: SendHalf::new(send_credit),
            failure: None,
            released: false,
        }
    }

    /// Whether neither side has anything more to say and nobody here holds it.
    pub(crate) fn is_over(&self) -> bool {
        let closed = self.receive.fin && self.send.end == SendEnd::FinSent && self.send.cut.is_none();
        self.released && (closed || self.failure.is_some())
    }

    /// Whether its octets wait for a reader that does not come.
    pub(crate) fn is_stalled(&self, for_at_least: Duration, now: Instant) -> bool {
        self.receive.queue.len() > 0 && now.saturating_duration_since(self.receive.moved) >= for_at_least
    }
}

/// Why a stream ended before its time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer did not take it.
    #[error("the peer refused the stream: {reason}")]
    Rejected {
        /// Code of [`crate::Code`], or one of the application.
        code: u16,
        /// The peer's explanation.
        reason: Arc<str>,
    },
    /// The peer ended it.
    #[error("the peer reset the stream: {}", Code::describe(*code))]
    Reset {
        /// Code of [`crate::Code`], or one of the application.
        code: u16,
    },
    /// Nobody read it while the whole link was full.
    #[error("the stream was not read for {} s while its link was full", after.as_secs())]
    Stalled {
        /// How long.
        after: Duration,
    },
    /// It was written to after its end.
    #[error("the stream's writing half is closed")]
    Finished,
    /// The link is gone.
    #[error("the link was closed: {reason}")]
    LinkClosed {
        /// Why.
        reason: Arc<str>,
    },
    /// There is no such stream (any more).
    #[error("the stream is closed")]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_come_out_in_order_whatever_their_pieces_were() {
        let mut received = Received::default();
        let mut expected = Vec::new();
        for (index, length) in [3, 9000, 1, 2, 20_000, 8192, 5].into_iter().enumerate() {
            let piece = vec![index as u8; length];
            expected.extend_from_slice(&piece);
            received.push(piece.into());
        }
        assert_eq!(received.len(), expected.len());

        let mut read = Vec::new();
        while received.read(700, &mut |piece| read.extend_from_slice(piece)) > 0 {}

        assert_eq!(read, expected);
        assert_eq!(received.len(), 0);
    }

    #[test]
    fn written_octets_leave_in_order_and_in_full_frames() {
        let written: Vec<u8> = (0..100_000u32).map(|at| at as u8).collect();
        let mut unsent = Unsent::default();
        for piece in written.chunks(7001) {
            unsent.push(piece, &mut Pool::new(1, DATA_LEN));
        }

        let first = unsent.take(usize::MAX);
        let mut sent = first.to_vec();
        while !unsent.is_empty() {
            sent.extend_from_slice(&unsent.take(5000));
        }

        assert_eq!(first.len(), DATA_LEN);
        assert_eq!(sent, written);
    }

    #[test]
    fn a_reset_is_told_by_the_name_of_its_code_and_an_applications_by_its_number() {
        let said = |code| StreamError::Reset { code }.to_string();
        assert_eq!(said(Code::Displaced.number()), "the peer reset the stream: displaced");
        assert_eq!(said(300), "the peer reset the stream: code 300");
        assert!(Code::ALL.iter().all(|(code, name)| said(code.number()).ends_with(name)));
    }

    // I27
    #[test]
    fn single_octets_do_not_hold_a_buffer_each() {
        let mut received = Received::default();
        let block = Bytes::from(vec![0; 64 * 1024]);
        for at in 0..10_000 {
            received.push(block.slice(at..at + 1));
        }

        assert!(received.whole.is_empty());
        assert!(received.joined.capacity() <= 32 * 1024);
    }
}
