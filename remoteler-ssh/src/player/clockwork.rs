//! When an event of a recording is due: speed, pause and change of speed. A pure machine; the time that passes comes in.

use std::{fmt, str::FromStr, time::Duration};

/// How fast a recording is played: 0.1 to 100 times; default 1. Written `2`, `2x` or `0.5x`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed(f64);

/// Why a speed is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no speed; write a factor from 0.1 to 100, such as 2x")]
pub struct SpeedError(String);

impl Speed {
    const SLOWEST: f64 = 0.1;
    const FASTEST: f64 = 100.0;

    /// Half as fast, within limits.
    #[must_use]
    pub fn slower(self) -> Self {
        Self((self.0 / 2.0).max(Self::SLOWEST))
    }

    /// Twice as fast, within limits.
    #[must_use]
    pub fn faster(self) -> Self {
        Self((self.0 * 2.0).min(Self::FASTEST))
    }
}

impl Default for Speed {
    fn default() -> Self {
        Self(1.0)
    }
}

impl FromStr for Speed {
    type Err = SpeedError;

    fn from_str(text: &str) -> Result<Self, SpeedError> {
        let factor: Option<f64> = text.strip_suffix(['x', 'X']).unwrap_or(text).parse().ok();
        factor
            .filter(|factor| (Self::SLOWEST..=Self::FASTEST).contains(factor))
            .map(Self)
            .ok_or_else(|| SpeedError(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x", self.0)
    }
}

/// Maps the recording's time to the time that passes. All arguments named `now` count from the beginning of the replay.
#[derive(Clone, Copy, Debug)]
pub struct Clockwork {
    speed: Speed,
    /// Position in the recording at `since`.
    position: Duration,
    since: Duration,
    paused: bool,
}

impl Clockwork {
    /// Starts at the beginning, playing.
    #[must_use]
    pub const fn new(speed: Speed) -> Self {
        Self { speed, position: Duration::ZERO, since: Duration::ZERO, paused: false }
    }

    /// When the event at `at` is due; never while paused.
    #[must_use]
    pub fn due(&self, at: Duration) -> Option<Duration> {
        if self.paused {
            return None;
        }
        Some(self.since.saturating_add(scale(at.saturating_sub(self.position), 1.0 / self.speed.0)))
    }

    /// Where in the recording the replay is.
    #[must_use]
    pub fn position(&self, now: Duration) -> Duration {
        if self.paused {
            return self.position;
        }
        self.position.saturating_add(scale(now.saturating_sub(self.since), self.speed.0))
    }

    /// Pauses, or goes on.
    pub fn toggle_pause(&mut self, now: Duration) {
        self.settle(now);
        self.paused = !self.paused;
    }

    /// Whether it is paused.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    /// Present speed.
    #[must_use]
    pub const fn speed(&self) -> Speed {
        self.speed
    }

    /// Plays on at another speed.
    pub fn set_speed(&mut self, speed: Speed, now: Duration) {
        self.settle(now);
        self.speed = speed;
    }

    /// Shortens the wait for the event at `at` to `most` of the recording's time.
    pub fn skip_idle(&mut self, at: Duration, most: Duration, now: Duration) {
        self.settle(now);
        self.position = self.position.max(at.saturating_sub(most));
    }

    fn settle(&mut self, now: Duration) {
        self.position = self.position(now);
        self.since = now;
    }
}

fn scale(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn at_double_speed_everything_is_due_in_half_the_time() {
        let clockwork = Clockwork::new("2x".parse().unwrap());
        assert_eq!(clockwork.due(secs(10)), Some(secs(5)));
        assert_eq!(clockwork.position(secs(3)), secs(6));
    }

    #[test]
    fn a_pause_delays_what_comes_by_its_own_length() {
        let mut clockwork = Clockwork::new(Speed::default());
        clockwork.toggle_pause(secs(4));
        assert_eq!((clockwork.due(secs(10)), clockwork.position(secs(100))), (None, secs(4)));
        clockwork.toggle_pause(secs(24));
        assert_eq!(clockwork.due(secs(10)), Some(secs(30)));
    }

    #[test]
    fn a_change_of_speed_counts_from_where_the_replay_is() {
        let mut clockwork = Clockwork::new(Speed::default());
        clockwork.set_speed(clockwork.speed().faster(), secs(4));
        assert_eq!(clockwork.due(secs(10)), Some(secs(7)));
        assert_eq!(clockwork.due(secs(1)), Some(secs(4)), "what is past is due at once");
    }

    #[test]
    fn idle_time_can_be_skipped() {
        let mut clockwork = Clockwork::new(Speed::default());
        clockwork.skip_idle(secs(3600), secs(2), secs(1));
        assert_eq!(clockwork.due(secs(3600)), Some(secs(3)));
    }

    #[test]
    fn speeds_out_of_range_are_refused() {
        for bad in ["0", "-1", "1000x", "NaN", "inf", "fast", ""] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
        assert_eq!("0.5x".parse::<Speed>().unwrap().to_string(), "0.5x");
    }
}
