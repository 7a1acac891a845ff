//! How long to wait before the next attempt: decorrelated jitter, so that thousands of agents that lost the same proxy do not
//! come back together. Owns the last wait. Draws no random numbers itself.

use std::time::Duration;

/// Waits between `base` and three times the last wait, at most `cap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    last: Duration,
}

impl Backoff {
    /// An agent's: 250 ms to 30 s.
    #[must_use]
    pub const fn for_agents() -> Self {
        Self::new(Duration::from_millis(250), Duration::from_secs(30))
    }

    /// Starts at `base`.
    #[must_use]
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, last: base }
    }

    /// The next wait, chosen by `random`, which is taken as evenly spread over all values.
    pub fn next(&mut self, random: u64) -> Duration {
        let highest = (self.last * 3).min(self.cap);
        let span = highest.saturating_sub(self.base).as_nanos();
        let offset = (span * u128::from(random)) >> 64;
        self.last = self.base + Duration::from_nanos(u64::try_from(offset).unwrap_or(u64::MAX));
        self.last
    }

    /// It worked for a while: the next failure starts at `base` again.
    pub fn reset(&mut self) {
        self.last = self.base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_between_base_and_cap_and_are_spread() {
        let (mut shortest, mut longest) = (Backoff::for_agents(), Backoff::for_agents());
        for _ in 0..100 {
            assert_eq!(shortest.next(0), Duration::from_millis(250));
            assert!(longest.next(u64::MAX) <= Duration::from_secs(30));
        }
        assert!(longest.next(u64::MAX) > Duration::from_secs(29));

        longest.reset();
        assert!(longest.next(u64::MAX) < Duration::from_millis(751));
    }
}
