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

    /// An empty buffer with room for `size` octets: of those of which nobody holds a part any more the one that was used last, for the processor has it
    /// near; or a new one.
    pub(crate) fn take(&mut self, size: usize) -> BytesMut {
        for at in (0..self.spent.len()).rev() {
            if let Some(buffer) = self.spent.get_mut(at)
                && buffer.try_reclaim(size)
            {
                return self.spent.remove(at).unwrap_or_default();
            }
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
    fn the_buffer_that_was_used_last_is_used_next_unless_somebody_holds_a_part_of_it() {
        let mut pool = Pool::new(3, 2000);
        let mut buffers = [pool.take(1000), pool.take(1000), pool.take(1000)];
        let places = buffers.each_ref().map(|buffer| buffer.as_ptr());
        buffers[2].extend_from_slice(&[7; 10]);
        let part = buffers[2].split_to(10);
        buffers.into_iter().for_each(|buffer| pool.give(buffer));

        assert_eq!(pool.take(1000).as_ptr(), places[1]);
        drop(part);
        assert_eq!(pool.take(1000).as_ptr(), places[2]);
        assert_eq!(pool.take(1000).as_ptr(), places[0]);
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
