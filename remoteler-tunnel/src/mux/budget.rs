//! How much nuisance a peer may make: a token bucket for each kind of frame that costs us more than its sender.
//! Owns the counts. Never decides what happens when one is spent.

use std::time::Instant;

/// A bucket of `burst` tokens that fills up again by `per_second`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    burst: u32,
    per_second: u32,
    left: u32,
    since: Instant,
}

impl Budget {
    pub(crate) fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self { burst, per_second, left: burst, since: now }
    }

    /// Takes a token; false if there is none.
    pub(crate) fn spend(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.since).as_millis() * u128::from(self.per_second) / 1000;
        if earned > 0 {
            self.left = u32::try_from(u128::from(self.left) + earned).unwrap_or(u32::MAX).min(self.burst);
            self.since = now;
        }
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        true
    }

    /// Puts a token back; no more than the burst.
    pub(crate) fn give_back(&mut self) {
        self.left = self.left.saturating_add(1).min(self.burst);
    }
}

/// One bucket for each nuisance (I26).
#[derive(Debug)]
pub(crate) struct Budgets {
    /// RESET frames of the peer.
    pub(crate) resets: Budget,
    /// PING frames, and PONGs that were not asked for.
    pub(crate) pings: Budget,
    /// OPEN frames that were refused.
    pub(crate) rejected: Budget,
    /// Frames without effect: for streams that are over, acknowledgements of nothing.
    pub(crate) idle: Budget,
}

impl Budgets {
    pub(crate) fn new(now: Instant) -> Self {
        let [resets, pings, rejected, idle] = TABLE.map(|(_, burst, per_second)| Budget::new(burst, per_second, now));
        Self { resets, pings, rejected, idle }
    }
}

/// Name, burst and refill per second of the four buckets; the protocol document shows the same table.
pub const TABLE: [(&str, u32, u32); 4] = [
    ("RESET frames", 20_000, 10_000),
    ("PING frames and unasked PONG frames", 64, 4),
    ("refused OPEN frames", 12_000, 1_000),
    ("frames without effect", 50_000, 10_000),
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_spent_budget_fills_up_with_time_and_not_past_its_burst() {
        let start = Instant::now();
        let mut budget = Budget::new(2, 10, start);

        assert!(budget.spend(start) && budget.spend(start));
        assert!(!budget.spend(start));
        assert!(budget.spend(start + Duration::from_millis(100)));
        assert!(!budget.spend(start + Duration::from_millis(100)));
        let later = start + Duration::from_secs(60);
        assert!(budget.spend(later) && budget.spend(later) && !budget.spend(later));
        budget.give_back();
        assert!(budget.spend(later) && !budget.spend(later));
        (0..5).for_each(|_| budget.give_back());
        assert!(budget.spend(later) && budget.spend(later) && !budget.spend(later));
    }
}
