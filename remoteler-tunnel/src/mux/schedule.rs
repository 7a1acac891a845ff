//! Whose turn it is to send. Streams that had nothing to send until now go first, each for a quantum; those that keep
//! sending share the rest in turn (deficit round robin with two lists, as RFC 8290 section 4.2 does for flows). So a
//! keystroke never waits for bulk data, and a stream that writes without end is never a keystroke.
//! Owns the two lists. Never sees an octet.

use std::collections::VecDeque;

use super::stream::{SendHalf, Turn};

/// The two lists.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    fresh: VecDeque<u32>,
    bulk: VecDeque<u32>,
}

/// Octets a stream sends before the next one's turn.
pub(crate) const QUANTUM: usize = crate::frame::DATA_LEN;

impl Schedule {
    /// Puts a stream that has something to send in line, if it stands in none.
    pub(crate) fn activate(&mut self, id: u32, send: &mut SendHalf) {
        if send.turn == Turn::Idle {
            send.turn = Turn::Fresh;
            send.quantum = QUANTUM;
            self.fresh.push_back(id);
        }
    }

    /// The stream whose turn it is. It stays in line until one of the other methods says otherwise.
    pub(crate) fn first(&self) -> Option<u32> {
        self.fresh.front().or_else(|| self.bulk.front()).copied()
    }

    /// The first stream has used its quantum: to the end of the bulk list.
    pub(crate) fn rotate(&mut self, send: &mut SendHalf) {
        if let Some(id) = self.take_first() {
            send.turn = Turn::Bulk;
            send.quantum = QUANTUM;
            send.said_little = false;
            self.bulk.push_back(id);
        }
    }

    /// The first stream may send nothing now, and those behind it may: to the end of its list, and what it may send then stays as it is.
    pub(crate) fn pass_over(&mut self) {
        if let Some(id) = self.bulk.pop_front() {
            self.bulk.push_back(id);
        }
    }

    /// How many keep sending.
    pub(crate) fn bulk_count(&self) -> usize {
        self.bulk.len()
    }

    /// The first stream has nothing more to send. A fresh one goes through the bulk list once before it counts as
    /// fresh again; one of the bulk list leaves.
    pub(crate) fn drained(&mut self, send: &mut SendHalf) {
        let Some(id) = self.take_first() else { return };
        if send.turn == Turn::Fresh && !self.bulk.is_empty() {
            send.turn = Turn::Bulk;
            send.quantum = QUANTUM;
            self.bulk.push_back(id);
        } else {
            send.turn = Turn::Idle;
        }
    }

    /// The first stream does not exist any more.
    pub(crate) fn forget_first(&mut self) {
        self.take_first();
    }

    fn take_first(&mut self) -> Option<u32> {
        self.fresh.pop_front().or_else(|| self.bulk.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_was_quiet_goes_before_those_that_keep_sending() {
        let mut schedule = Schedule::default();
        let [mut one, mut two, mut quiet] = [SendHalf::new(0), SendHalf::new(0), SendHalf::new(0)];
        schedule.activate(1, &mut one);
        schedule.activate(2, &mut two);
        schedule.rotate(&mut one);
        schedule.rotate(&mut two);

        schedule.activate(3, &mut quiet);

        assert_eq!(schedule.first(), Some(3));
        schedule.drained(&mut quiet);
        assert_eq!(schedule.first(), Some(1));
    }

    #[test]
    fn a_stream_does_not_become_quiet_by_writing_little_at_a_time() {
        let mut schedule = Schedule::default();
        let [mut bulk, mut dribble] = [SendHalf::new(0), SendHalf::new(0)];
        schedule.activate(1, &mut bulk);
        schedule.rotate(&mut bulk);
        schedule.activate(2, &mut dribble);
        schedule.drained(&mut dribble);

        schedule.activate(2, &mut dribble);

        assert_eq!(schedule.first(), Some(1), "it waits behind the bulk stream once");
    }
}
