//! Where a simulation's chances come from: one number, from which everything follows. Not for secrets.

use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Other dice, thrown independently of these.
    pub(super) fn split(&mut self) -> Self {
        Self(self.next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }

    pub(super) fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// Spread evenly over the orders of magnitude between the two: short ones are as likely as long ones.
    pub(super) fn between(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let (low, high) = (shortest.as_secs_f64().ln(), longest.as_secs_f64().ln());
        let at = self.next() as f64 / u64::MAX as f64;
        Duration::from_secs_f64((low + (high - low) * at).exp())
    }

    /// A size, spread in the same way.
    pub(super) fn size(&mut self, least: u64, most: u64) -> u64 {
        self.between(Duration::from_secs(least), Duration::from_secs(most)).as_secs()
    }
}
