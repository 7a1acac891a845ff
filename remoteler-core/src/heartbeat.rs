//! How often a host says that it is there. Owns the bounds, and what follows from a silence: when its records are forgotten, and when another
//! run may speak for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often a host says that it is there, as it says itself: whole seconds, from [`Heartbeat::SHORTEST`], which is the default, to
/// [`Heartbeat::LONGEST`]. What is said beyond counts as the nearer of the two. In JSON: a number.
///
/// ```
/// # use std::time::Duration;
/// # use remoteler_core::Heartbeat;
/// assert_eq!(Heartbeat::default().life(), Duration::from_secs(120));
/// assert_eq!(Heartbeat::every(Duration::from_secs(300)).life(), Duration::from_secs(660));
/// assert_eq!(serde_json::from_str::<Heartbeat>("1000000").unwrap(), Heartbeat::LONGEST);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub struct Heartbeat(u64);

impl Heartbeat {
    /// Each 30 s: where octets cost nothing.
    pub const SHORTEST: Self = Self(30);
    /// Each half hour: whoever claims a host, by a copy of its disk too, claims it for three quarters of an hour at the most.
    pub const LONGEST: Self = Self(1800);

    /// One each `period`.
    #[must_use]
    pub fn every(period: Duration) -> Self {
        period.as_secs().into()
    }

    /// The time between two.
    #[must_use]
    pub const fn period(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// How long a record counts after its last one: two periods, and a minute for one that is late.
    #[must_use]
    pub const fn life(self) -> Duration {
        Duration::from_secs(2 * self.0 + 60)
    }

    /// After which silence a host is missed, and another run may speak for it: one and a half periods, and half a minute.
    #[must_use]
    pub const fn silence(self) -> Duration {
        Duration::from_secs(self.0 + self.0 / 2 + 30)
    }

    /// Whether it is what counts when nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::SHORTEST
    }
}

impl From<u64> for Heartbeat {
    fn from(seconds: u64) -> Self {
        Self(seconds.clamp(Self::SHORTEST.0, Self::LONGEST.0))
    }
}

impl From<Heartbeat> for u64 {
    fn from(heartbeat: Heartbeat) -> Self {
        heartbeat.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_nothing_is_forgotten_after_two_minutes_and_may_be_spoken_for_after_seventy_five_seconds() {
        let silent: Heartbeat = serde_json::from_str("0").unwrap();
        assert_eq!(silent, Heartbeat::default());
        assert_eq!((silent.life().as_secs(), silent.silence().as_secs()), (120, 75));
    }

    #[test]
    fn no_period_is_so_long_that_a_host_which_is_gone_stays_for_ever() {
        for said in [1800, 1801, 3600, u64::MAX] {
            let heartbeat = Heartbeat::from(said);
            assert_eq!((heartbeat.life().as_secs(), heartbeat.silence().as_secs()), (3660, 2730));
        }
        for said in 0..4000 {
            let heartbeat = Heartbeat::from(said);
            assert!(heartbeat.silence() > heartbeat.period() && heartbeat.life() > heartbeat.silence(), "{said}");
        }
    }
}
