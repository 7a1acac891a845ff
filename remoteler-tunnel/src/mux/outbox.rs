//! Frames on their way to the socket, as a list of slices for a vectored write: large payloads are passed on as
//! they are, everything small is joined. Owns octets that no layer above will take back. Never decides an order.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::{Header, Payload};

/// A batch of encoded frames.
#[derive(Debug, Default)]
pub struct Outbox {
    chunks: VecDeque<Bytes>,
    joined: BytesMut,
    len: usize,
}

impl Outbox {
    /// Octets in the batch.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is left to write.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Points `slices` at the first octets; returns how many of them are used.
    pub fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let parts = self.chunks.iter().map(|chunk| &chunk[..]).chain(Some(&self.joined[..]));
        slices
            .iter_mut()
            .zip(parts.filter(|part| !part.is_empty()))
            .map(|(slot, part)| *slot = IoSlice::new(part))
            .count()
    }

    /// Forgets the first `count` octets: they were written.
    pub fn advance(&mut self, mut count: usize) {
        self.len = self.len.saturating_sub(count);
        while let Some(first) = self.chunks.front_mut() {
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.chunks.pop_front();
        }
        self.joined.advance(count.min(self.joined.len()));
        if self.joined.is_empty() {
            self.joined = BytesMut::new(); // an idle link holds no buffer
        }
    }

    pub(crate) fn push(&mut self, header: &Header, payload: Payload) {
        self.len += crate::frame::HEADER_LEN + header.length;
        header.put(&mut self.joined);
        if header.length < JOIN_BELOW {
            payload.put(&mut self.joined);
        } else if let Payload::Data(octets) = payload {
            self.chunks.push_back(self.joined.split().freeze());
            self.chunks.push_back(octets);
        } else {
            payload.put(&mut self.joined);
        }
    }

    /// Adds frames that were encoded before.
    pub(crate) fn push_octets(&mut self, octets: Bytes) {
        self.len += octets.len();
        if !self.joined.is_empty() {
            self.chunks.push_back(self.joined.split().freeze());
        }
        self.chunks.push_back(octets);
    }

    /// Adds octets that are no frame: the hello.
    pub(crate) fn push_raw(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.joined.len();
        write(&mut self.joined);
        self.len += self.joined.len() - before;
    }
}

/// Payloads below this are copied behind their header: cheaper than a slice of their own.
const JOIN_BELOW: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameType;

    #[test]
    fn what_was_put_in_comes_out_whatever_the_socket_takes_at_a_time() {
        let mut expected = BytesMut::new();
        let mut outbox = Outbox::default();
        for length in [1, 5000, 7, 2048, 3] {
            let payload = Payload::Data(vec![length as u8; length].into());
            let header = Header { kind: FrameType::Data, length, stream: 1, sequence: 0, prompt: false };
            header.put(&mut expected);
            payload.put(&mut expected);
            outbox.push(&header, payload);
        }
        assert_eq!(outbox.len(), expected.len());

        let mut written = Vec::new();
        for take in (1..).map(|round| round % 97 + 1) {
            let mut slices = [IoSlice::new(&[]); 3];
            let used = outbox.fill(&mut slices);
            let available: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
            let take = take.min(available.len());
            written.extend_from_slice(&available[..take]);
            outbox.advance(take);
            if outbox.is_empty() {
                break;
            }
        }

        assert_eq!(written, expected);
    }
}
