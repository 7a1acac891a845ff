//! What was sent and not yet acknowledged, kept to be sent again on another connection. Owns those octets and counts them, for one link
//! and for the process. Never looks into them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::{DATA_LEN, HEADER_LEN, Header, Payload};
use crate::pool::Pool;

/// How much all links of a process may keep together. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct ReplayBudget {
    kept: Arc<AtomicUsize>,
    most: usize,
}

impl ReplayBudget {
    /// At most `most` octets, besides 64 KiB that each link may keep in any case.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { kept: Arc::default(), most }
    }

    /// Octets that all links keep now.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }
}

impl Default for ReplayBudget {
    /// 256 MiB.
    fn default() -> Self {
        Self::new(256 * 1024 * 1024)
    }
}

/// Sent octets of one link, in the order of their sequence.
#[derive(Debug)]
pub(crate) struct Replay {
    chunks: VecDeque<Bytes>,
    joined: BytesMut,
    len: usize,
    /// What is to be sent again before anything new.
    again: VecDeque<Bytes>,
    budget: ReplayBudget,
}

impl Replay {
    pub(crate) fn new(budget: ReplayBudget) -> Self {
        Self { chunks: VecDeque::new(), joined: BytesMut::new(), len: 0, again: VecDeque::new(), budget }
    }

    /// Keeps a frame that is sent now. Large payloads are shared with who sends them.
    pub(crate) fn keep(&mut self, header: &Header, payload: &Payload) {
        header.put(&mut self.joined);
        if let Payload::Data(octets) = payload
            && octets.len() >= SHARE_FROM
        {
            self.chunks.push_back(self.joined.split().freeze());
            self.chunks.push_back(octets.clone());
        } else {
            payload.put(&mut self.joined);
        }
        self.count(HEADER_LEN + header.length);
    }

    /// Lets go of the first `count` octets: the peer has them.
    pub(crate) fn acknowledged(&mut self, count: u64, pool: &mut Pool) {
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.len);
        self.len -= count;
        self.budget.kept.fetch_sub(count, Ordering::Relaxed);
        let mut left = count;
        while let Some(first) = self.chunks.front_mut() {
            if left < first.len() {
                first.advance(left);
                return;
            }
            left -= first.len();
            if let Some(chunk) = self.chunks.pop_front()
                && chunk.len() >= DATA_LEN
            {
                pool.give_whole(chunk);
            }
        }
        self.joined.advance(left.min(self.joined.len()));
        if self.joined.is_empty() {
            self.joined = BytesMut::new(); // an idle link holds no buffer
        }
        if self.chunks.is_empty() {
            self.chunks = VecDeque::new();
        }
    }

    /// Everything that is kept goes out again, before anything new; how many octets that is.
    pub(crate) fn rewind(&mut self) -> usize {
        if !self.joined.is_empty() {
            self.chunks.push_back(self.joined.split().freeze());
        }
        self.again = self.chunks.iter().filter(|chunk| !chunk.is_empty()).cloned().collect();
        self.len
    }

    /// The next frames that go out again, whole ones, so that others may go behind them: of so many octets at the most, or a single one. The payload
    /// of the last one is apart where it is shared.
    pub(crate) fn next_again(&mut self, most: usize) -> Option<(Bytes, Option<Bytes>)> {
        let first = self.again.front_mut()?;
        let mut end = 0;
        while let Some(length) = first.get(end..).and_then(frame_len)
            && (end == 0 || end + length <= most)
        {
            end += length;
        }
        if end < first.len() {
            return Some((first.split_to(end), None));
        }
        let payload_follows = end > first.len();
        let frames = self.again.pop_front()?;
        let payload = if payload_follows { self.again.pop_front() } else { None };
        if self.again.is_empty() {
            self.again = VecDeque::new();
        }
        Some((frames, payload))
    }

    /// Whether the peer has everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn has_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// Octets that may be kept besides.
    pub(crate) fn room(&self) -> usize {
        let of_all = self.budget.most.saturating_sub(self.budget.kept());
        of_all.max(ALWAYS.saturating_sub(self.len))
    }

    fn count(&mut self, octets: usize) {
        self.len += octets;
        self.budget.kept.fetch_add(octets, Ordering::Relaxed);
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.budget.kept.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// Octets of the frame at the front. What begins with no header is what a peer has left that acknowledged half a frame: it gets the rest as it is.
fn frame_len(octets: &[u8]) -> Option<usize> {
    match Header::peek(octets) {
        Ok(Some(header)) => Some(HEADER_LEN + header.length),
        Ok(None) | Err(_) => (!octets.is_empty()).then_some(octets.len()),
    }
}

/// Payloads below this are copied behind their header.
const SHARE_FROM: usize = 2048;
/// What a link may keep however much the others do.
const ALWAYS: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameType;

    fn keep(replay: &mut Replay, length: usize, sequence: u32) -> BytesMut {
        let payload = Payload::Data(vec![length as u8; length].into());
        let header = Header { kind: FrameType::Data, length, stream: 1, sequence, prompt: false };
        replay.keep(&header, &payload);
        let mut wire = BytesMut::new();
        header.put(&mut wire);
        payload.put(&mut wire);
        wire
    }

    fn again(replay: &mut Replay) -> Vec<u8> {
        let all = replay.rewind();
        let mut octets = Vec::new();
        while let Some((frames, payload)) = replay.next_again(MOST) {
            let before = octets.len();
            octets.extend(frames.into_iter().chain(payload.unwrap_or_default()));
            let mut piece = &octets[before..];
            let (length, first) = (piece.len(), HEADER_LEN + Header::peek(piece).unwrap().unwrap().length);
            assert!(length <= MOST.max(first), "{length} octets at once");
            while let Some(header) = Header::peek(piece).unwrap() {
                piece = &piece[HEADER_LEN + header.length..];
            }
            assert!(piece.is_empty(), "half a frame");
        }
        assert_eq!(octets.len(), all);
        octets
    }

    const MOST: usize = 6000;

    #[test]
    fn what_is_not_acknowledged_comes_again_octet_for_octet_and_more_than_once() {
        let budget = ReplayBudget::default();
        let mut replay = Replay::new(budget.clone());
        let mut sent = BytesMut::new();
        for length in [1, 5000, 7, 2048, 16_000, 3] {
            sent.unsplit(keep(&mut replay, length, sent.len() as u32));
        }
        assert_eq!(again(&mut replay), sent);
        for cut in [13, 5012, 19, 2060] {
            replay.acknowledged(cut as u64, &mut Pool::new(1, DATA_LEN));
            sent.advance(cut);
            assert_eq!(again(&mut replay), sent);
            assert_eq!(budget.kept(), sent.len());
        }
        replay.acknowledged(sent.len() as u64, &mut Pool::new(1, DATA_LEN));
        assert_eq!((again(&mut replay).len(), budget.kept()), (0, 0));
    }

    #[test]
    fn a_peer_that_acknowledges_half_a_frame_gets_the_rest_as_it_is() {
        let mut replay = Replay::new(ReplayBudget::default());
        let mut sent = BytesMut::new();
        for length in [100, 5000, 7] {
            sent.unsplit(keep(&mut replay, length, sent.len() as u32));
        }
        for cut in [5, 60, 50 + 5, 900] {
            replay.acknowledged(cut, &mut Pool::new(1, DATA_LEN));
            sent.advance(cut as usize);
            replay.rewind();
            let pieces = std::iter::from_fn(|| replay.next_again(MOST));
            let octets: Vec<u8> =
                pieces.flat_map(|(frames, payload)| frames.into_iter().chain(payload.unwrap_or_default())).collect();
            assert_eq!(octets, sent);
        }
    }

    // I27
    #[test]
    fn a_process_keeps_no_more_than_its_budget_and_each_link_a_little() {
        let budget = ReplayBudget::new(100_000);
        let (mut first, mut second) = (Replay::new(budget.clone()), Replay::new(budget.clone()));
        while first.room() >= 10_000 {
            keep(&mut first, 9_000, 0);
        }
        assert!(budget.kept() <= 100_000 && first.room() < 10_000);
        assert_eq!(second.room(), ALWAYS, "another link is not stopped altogether");
        keep(&mut second, 60_000, 0);
        assert!(second.room() < 6_000);
        drop(first);
        assert!(second.room() > 39_000);
        drop(second);
        assert_eq!(budget.kept(), 0);
    }
}
