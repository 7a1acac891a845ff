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

/// What a peer may make too much of (I26).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Nuisance {
    /// RESET frames of the peer.
    Reset,
    /// PING frames, and PONGs that were not asked for.
    Ping,
    /// OPEN frames that were refused.
    Rejected,
    /// Frames without effect: for streams that are over, acknowledgements of nothing.
    Idle,
}

/// One bucket for each nuisance. Those for what a quiet link never sees are there once there was any.
#[derive(Debug)]
pub(crate) struct Budgets {
    pings: Budget,
    others: Option<Box<Others>>,
}

#[derive(Debug)]
struct Others {
    resets: Budget,
    rejected: Budget,
    idle: Budget,
}

impl Budgets {
    pub(crate) fn new(now: Instant) -> Self {
        Self { pings: Nuisance::Ping.budget(now), others: None }
    }

    /// Takes a token; false if there is none.
    pub(crate) fn spend(&mut self, nuisance: Nuisance, now: Instant) -> bool {
        let others = || {
            let [resets, rejected, idle] =
                [Nuisance::Reset, Nuisance::Rejected, Nuisance::Idle].map(|nuisance| nuisance.budget(now));
            Box::new(Others { resets, rejected, idle })
        };
        let budget = match nuisance {
            Nuisance::Ping => &mut self.pings,
            Nuisance::Reset => &mut self.others.get_or_insert_with(others).resets,
            Nuisance::Rejected => &mut self.others.get_or_insert_with(others).rejected,
            Nuisance::Idle => &mut self.others.get_or_insert_with(others).idle,
        };
        budget.spend(now)
    }

    /// Puts a token for a PING back; no more than the burst.
    pub(crate) fn give_back_ping(&mut self) {
        self.pings.give_back();
    }
}

impl Nuisance {
    fn budget(self, now: Instant) -> Budget {
        let [resets, pings, rejected, idle] = TABLE;
        let (_, burst, per_second) = match self {
            Self::Reset => resets,
            Self::Ping => pings,
            Self::Rejected => rejected,
            Self::Idle => idle,
        };
        Budget::new(burst, per_second, now)
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

    // I26
    #[test]
    fn of_each_nuisance_there_is_its_burst_and_none_uses_up_anothers() {
        let now = Instant::now();
        let mut budgets = Budgets::new(now);
        for (name, burst, _) in TABLE {
            let nuisance = match name {
                "RESET frames" => Nuisance::Reset,
                "PING frames and unasked PONG frames" => Nuisance::Ping,
                "refused OPEN frames" => Nuisance::Rejected,
                "frames without effect" => Nuisance::Idle,
                other => panic!("a nuisance that is not known here: {other}"),
            };
            let granted = (0..=burst).filter(|_| budgets.spend(nuisance, now)).count();
            assert_eq!(granted, burst as usize, "{name}");
        }
    }
}
