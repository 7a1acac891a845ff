//! What may be under way while somebody types: as much as the path needs to be busy, and no queue of bulk data in front of the next keystroke. Owns
//! when somebody last typed, and up to where acknowledgements were asked for. Never decides who sends.

use std::time::{Duration, Instant};

use super::path::FRAME;

/// Where that stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Brisk {
    /// Whether the peer acknowledges at once what asks for it.
    agreed: bool,
    until: Option<Instant>,
    /// Sequenced octets up to the last frame that asked.
    asked: u64,
}

impl Brisk {
    pub(super) fn agree(&mut self) {
        self.agreed = true;
    }

    /// Somebody typed.
    pub(super) fn typed(&mut self, now: Instant) {
        self.until = self.agreed.then_some(now + HOLDS);
    }

    pub(super) fn rest(&mut self) {
        self.until = None;
    }

    pub(super) fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Octets that bulk data may add to those between `acked` and `sent`, on a path that takes `taken` within a round trip. When that is less than
    /// a frame, and nobody was asked to acknowledge any of them, one may go that asks.
    pub(super) fn room(&self, acked: u64, sent: u64, taken: u64) -> u64 {
        let most = LEAST_UNDER_WAY.max(taken + taken / 4 + SPARE);
        let left = most.saturating_sub(sent - acked);
        match (left < FRAME, self.asked <= acked) {
            (false, _) => left,
            (true, true) => FRAME,
            (true, false) => 0,
        }
    }

    /// Whether the frame that ends with octet `sent` asks for an acknowledgement.
    pub(super) fn asks(&mut self, sent: u64, now: Instant) -> bool {
        let asks = self.holds(now) && sent - self.asked >= PROMPT_EVERY;
        if asks {
            self.asked = sent;
        }
        asks
    }
}

/// Between two keystrokes.
const HOLDS: Duration = Duration::from_secs(1);
/// Octets of bulk data that may be under way on any path while somebody types.
pub const LEAST_UNDER_WAY: u64 = 128 * 1024;
/// And besides what the path takes.
const SPARE: u64 = 64 * 1024;
/// Octets between two frames that ask to be acknowledged then.
pub const PROMPT_EVERY: u64 = 32 * 1024;
/// With fewer octets unacknowledged who is asked answers in its own time: questions cost more than answers.
pub const PROMPT_LEAST: u64 = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_data_leaves_the_path_to_keystrokes_and_never_waits_for_what_nobody_was_asked() {
        let now = Instant::now();
        let mut brisk = Brisk::default();
        brisk.typed(now);
        assert!(!brisk.holds(now), "the peer would not answer");
        brisk.agree();
        brisk.typed(now);
        assert!(brisk.holds(now) && !brisk.holds(now + HOLDS));

        // Much was under way when somebody began to type.
        let mut sent = 4 << 20;
        assert_eq!(brisk.room(0, sent, 0), FRAME);
        sent += FRAME;
        assert!(brisk.asks(sent, now));
        assert_eq!(brisk.room(0, sent, 0), 0);
        assert_eq!(brisk.room(sent, sent, 0), LEAST_UNDER_WAY);
        assert_eq!(brisk.room(sent, sent, 1 << 20), (1 << 20) / 4 * 5 + SPARE);
        assert!(!brisk.asks(sent + PROMPT_EVERY - 1, now) && brisk.asks(sent + PROMPT_EVERY, now));
        assert!(!brisk.asks(sent + 10 * PROMPT_EVERY, now + HOLDS));
    }
}
