//! Counts failures by key in a window of time, and what is under way, in bounded memory. Pure: `now` comes in. Never sleeps.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use remoteler_core::Timestamp;

/// Allows so many attempts in a window for each key.
#[derive(Debug)]
pub(crate) struct Limiter {
    attempts: u32,
    window: Duration,
    keys: Mutex<HashMap<String, Window>>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Timestamp,
    attempts: u32,
    /// Attempts whose outcome is not known yet.
    under_way: u32,
}

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is under way until [`Limiter::leave`].
    Now,
    /// As many are under way as may still fail; it may ask again when one of them has left.
    Later,
    /// Too many have failed.
    Never,
}

/// Keys remembered; past it the oldest windows go first.
const MAX_KEYS: usize = 10_000;
/// Longest key kept; what is longer counts under its beginning.
const MAX_KEY: usize = 256;

impl Limiter {
    pub(crate) fn new(attempts: u32, window: Duration) -> Self {
        Self { attempts, window, keys: Mutex::default() }
    }

    /// Counts an attempt, or refuses it. It is counted before its outcome is known, so that attempts at once cannot
    /// pass together; [`Limiter::succeeded`] takes it back.
    pub(crate) fn attempt(&self, key: &str, now: Timestamp) -> bool {
        self.attempt_within(key, self.attempts, now)
    }

    /// As [`Limiter::attempt`], with `most` attempts instead of the usual number.
    pub(crate) fn attempt_within(&self, key: &str, most: u32, now: Timestamp) -> bool {
        self.count(key, now, |window| {
            let allowed = window.attempts.saturating_add(window.under_way) < most;
            window.attempts += u32::from(allowed);
            allowed
        })
    }

    /// Whether `many` attempts of a key count now.
    pub(crate) fn is_counted(&self, key: &str, many: u32, now: Timestamp) -> bool {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(short(key)).is_some_and(|window| self.lasts(window, now) && window.attempts >= many)
    }

    /// Begins an attempt. Never are more under way than may fail, so guesses at once cannot pass together, and honest attempts need not be refused
    /// because others are under way: they wait.
    pub(crate) fn enter(&self, key: &str, now: Timestamp) -> Turn {
        self.count(key, now, |window| {
            if window.attempts >= self.attempts {
                return Turn::Never;
            }
            if window.attempts.saturating_add(window.under_way) >= self.attempts {
                return Turn::Later;
            }
            window.under_way += 1;
            Turn::Now
        })
    }

    /// Ends an attempt that [`Limiter::enter`] began.
    pub(crate) fn leave(&self, key: &str, failed: bool, now: Timestamp) {
        self.count(key, now, |window| {
            window.under_way = window.under_way.saturating_sub(1);
            window.attempts = window.attempts.saturating_add(u32::from(failed));
        });
    }

    /// Whether an attempt may go ahead; it is not counted. For attempts that many honest hosts behind one address make at once:
    /// [`Limiter::failed`] counts those that turn out to be failures. As many guesses as are under way together can pass the limit
    /// together, so what is guessed must be long.
    pub(crate) fn is_open(&self, key: &str, now: Timestamp) -> bool {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(short(key)).is_none_or(|window| !self.lasts(window, now) || window.attempts < self.attempts)
    }

    /// Counts a failure of an attempt that [`Limiter::is_open`] let go ahead.
    pub(crate) fn failed(&self, key: &str, now: Timestamp) {
        self.count(key, now, |window| window.attempts = window.attempts.saturating_add(1));
    }

    fn count<T>(&self, key: &str, now: Timestamp, change: impl FnOnce(&mut Window) -> T) -> T {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let key = short(key);
        if keys.len() >= MAX_KEYS && !keys.contains_key(key) {
            keys.retain(|_, window| window.under_way > 0 || self.lasts(window, now));
            if keys.len() >= MAX_KEYS {
                let oldest = keys.iter().min_by_key(|(_, window)| window.began).map(|(key, _)| key.clone());
                if let Some(oldest) = oldest {
                    keys.remove(&oldest);
                }
            }
        }
        let window = keys.entry(key.to_owned()).or_insert(Window { began: now, attempts: 0, under_way: 0 });
        if !self.lasts(window, now) {
            *window = Window { began: now, attempts: 0, ..*window };
        }
        change(window)
    }

    /// Takes one attempt back: it was no failure.
    pub(crate) fn succeeded(&self, key: &str) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = keys.get_mut(short(key)) {
            window.attempts = window.attempts.saturating_sub(1);
        }
    }

    /// Forgets all failures of a key.
    pub(crate) fn clear(&self, key: &str) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        match keys.get_mut(short(key)) {
            Some(window) if window.under_way > 0 => window.attempts = 0,
            Some(_) | None => drop(keys.remove(short(key))),
        }
    }

    fn lasts(&self, window: &Window, now: Timestamp) -> bool {
        // A clock that stepped back starts a new window, lest somebody be locked out for years.
        now >= window.began && now.since(window.began) < self.window
    }
}

fn short(key: &str) -> &str {
    let end = (0..=MAX_KEY.min(key.len())).rev().find(|end| key.is_char_boundary(*end)).unwrap_or(0);
    key.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_unix_seconds(1_000);

    #[test]
    fn attempts_at_once_wait_for_no_outcome_and_failures_close_the_door() {
        let limiter = Limiter::new(2, Duration::from_secs(60));
        assert!((0..1000).all(|_| limiter.is_open("nat", START)));
        limiter.failed("nat", START);
        assert!(limiter.is_open("nat", START));
        limiter.failed("nat", START);
        limiter.failed("nat", START); // one that was under way
        assert!(!limiter.is_open("nat", START) && limiter.is_open("other", START));
        assert!(!limiter.is_open("nat", START.plus(Duration::from_secs(59))));
        assert!(limiter.is_open("nat", START.plus(Duration::from_secs(60))));
        limiter.failed("nat", START.plus(Duration::from_secs(60)));
        assert!(limiter.is_open("nat", START.plus(Duration::from_secs(60))));
    }

    #[test]
    fn as_many_are_under_way_as_may_fail_and_the_others_wait_for_them() {
        let limiter = Limiter::new(2, Duration::from_secs(60));
        let enter = || limiter.enter("nat", START);
        assert_eq!([enter(), enter(), enter()], [Turn::Now, Turn::Now, Turn::Later]);
        assert!(!limiter.attempt("nat", START), "what does not wait is refused");
        limiter.leave("nat", false, START);
        assert_eq!([enter(), enter()], [Turn::Now, Turn::Later]);
        limiter.leave("nat", true, START);
        assert_eq!(enter(), Turn::Later, "one may fail, and one is under way");
        limiter.leave("nat", true, START);
        assert_eq!(enter(), Turn::Never);
        let later = START.plus(Duration::from_secs(60));
        assert_eq!(limiter.enter("nat", later), Turn::Now);
        limiter.clear("nat");
        assert_eq!([limiter.enter("nat", later), limiter.enter("nat", later)], [Turn::Now, Turn::Later]);
    }

    #[test]
    fn the_attempt_after_the_last_allowed_one_waits_for_the_next_window() {
        let limiter = Limiter::new(2, Duration::from_secs(60));
        assert!(limiter.attempt("ann", START));
        assert!(limiter.attempt("ann", START));
        assert!(!limiter.attempt("ann", START));
        assert!(limiter.attempt("bob", START));
        assert!(!limiter.attempt("ann", START.plus(Duration::from_secs(59))));
        assert!(limiter.attempt("ann", START.plus(Duration::from_secs(60))));
    }

    #[test]
    fn a_success_does_not_count_and_a_clock_set_back_locks_nobody_out() {
        let limiter = Limiter::new(1, Duration::from_secs(60));
        for _ in 0..5 {
            assert!(limiter.attempt("ann", START));
            limiter.succeeded("ann");
        }
        assert!(limiter.attempt("ann", START));
        assert!(!limiter.attempt("ann", START));
        assert!(limiter.attempt("ann", START.minus(Duration::from_secs(3600))));
    }

    #[test]
    fn memory_is_bounded_whatever_the_keys_are() {
        let limiter = Limiter::new(1, Duration::from_secs(60));
        for number in 0..MAX_KEYS + 100 {
            limiter.attempt(&format!("{number}{}", "é".repeat(1000)), START);
        }
        let keys = limiter.keys.lock().unwrap();
        assert!(keys.len() <= MAX_KEYS && keys.keys().all(|key| key.len() <= MAX_KEY));
    }
}
