//! Buffers that were used and are used again while octets move: fresh memory costs the system a fault for each page. Owns a few of them, in each of which
//! others may still hold a part. Who owns a pool empties it when nothing moves.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// At most so many buffers, of so many octets each; an older one makes place for a newer.
#[derive(Debug)]
pub(crate) struct Pool {
    spent: VecDeque<BytesMut>,
    most: usize,
    largest: usize,
}

impl Pool {
    pub(crate) fn new(most: usize, largest: usize) -> Self {
        Self { spent: VecDeque::new(), most, largest }
    }

    /// An empty buffer with room for `size` octets: one of which nobody holds a part any more, or a new one.
    pub(crate) fn take(&mut self, size: usize) -> BytesMut {
        for _ in 0..self.spent.len() {
            let Some(mut buffer) = self.spent.pop_front() else { break };
            if buffer.try_reclaim(size) {
                return buffer;
            }
            self.spent.push_back(buffer);
        }
        BytesMut::with_capacity(size)
    }

    /// Takes back a buffer, whatever is in it, of which others may hold parts.
    pub(crate) fn give(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        if buffer.try_reclaim(self.largest + 1) {
            return; // little would be kept in it, and much held
        }
        if self.spent.len() >= self.most {
            self.spent.pop_front();
        }
        self.spent.push_back(buffer);
    }

    /// Takes back what was handed out as a whole, unless somebody holds a part.
    pub(crate) fn give_whole(&mut self, octets: Bytes) {
        if let Ok(buffer) = octets.try_into_mut() {
            self.give(buffer);
        }
    }

    /// Gives everything back to the system.
    pub(crate) fn give_up(&mut self) {
        self.spent = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_nobody_holds_a_part_of_it_and_not_before() {
        let mut pool = Pool::new(2, 2000);
        let mut buffer = pool.take(1000);
        buffer.extend_from_slice(&[7; 900]);
        let place = buffer.as_ptr();
        let part = buffer.split_to(500).freeze();
        pool.give(buffer);

        let other = pool.take(1000);
        assert_ne!(other.as_ptr(), place);
        assert_eq!(part, [7; 500].as_slice(), "what somebody holds is as it was");
        drop(part);

        let again = pool.take(1000);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn no_more_are_kept_than_was_said() {
        let mut pool = Pool::new(2, 2000);
        for _ in 0..5 {
            pool.give_whole(Bytes::from(vec![0; 100]));
        }
        assert_eq!(pool.spent.len(), 2);
        pool.give_up();
        assert_eq!(pool.spent.capacity(), 0);
    }

    #[test]
    fn what_holds_much_is_not_kept_for_little_though_only_a_part_of_it_was_handed_out() {
        let mut pool = Pool::new(2, 2000);
        let whole = Bytes::from(vec![0; 100_000]);
        let part = whole.slice(99_000..);
        drop(whole);
        pool.give_whole(part);

        assert!(pool.spent.is_empty());
    }
}
