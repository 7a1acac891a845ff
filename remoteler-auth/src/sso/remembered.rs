//! What identity providers published, by URL, as it was found last. Owns that there is little of it (I26) and what counts as a moment ago; what is
//! believed for how long, each protocol says.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use remoteler_core::Timestamp;

/// Something of each provider. There are few: they are those of connectors.
pub(super) struct Remembered<T>(Mutex<HashMap<String, T>>);

/// Most providers remembered.
const MAX_PROVIDERS: usize = 100;

impl<T: Clone> Remembered<T> {
    pub(super) fn of(&self, url: &str) -> Option<T> {
        self.lock().get(url).cloned()
    }

    /// Changes what is known, or what is `new` where nothing is. When that is one too many, all others are forgotten and asked again.
    pub(super) fn keep(&self, url: &str, new: impl FnOnce() -> T, change: impl FnOnce(&mut T)) {
        let mut all = self.lock();
        if all.len() >= MAX_PROVIDERS && !all.contains_key(url) {
            all.clear();
        }
        change(all.entry(url.to_owned()).or_insert_with(new));
    }

    /// Looks at what is known and may change it, at once with the look.
    pub(super) fn look<R>(&self, url: &str, look: impl FnOnce(Option<&mut T>) -> R) -> R {
        look(self.lock().get_mut(url))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Whether `at` is less than so long ago. What lies in the future, because a clock was set back, is not.
pub(super) fn is_within(at: Timestamp, time: Duration, now: Timestamp) -> bool {
    now >= at && now.since(at) < time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_few_and_a_known_one_drives_nobody_out() {
        // I26
        let all = Remembered::default();
        for number in 0..MAX_PROVIDERS {
            all.keep(&number.to_string(), || 0, |seen| *seen += 1);
        }
        all.keep("7", || 0, |seen| *seen += 1);
        assert_eq!((all.of("0"), all.of("7")), (Some(1), Some(2)));
        all.keep("one more", || 0, |seen| *seen += 1);
        assert_eq!((all.of("0"), all.of("7"), all.of("one more")), (None, None, Some(1)));
        assert_eq!(all.lock().len(), 1);
    }

    #[test]
    fn what_is_in_the_future_was_not_a_moment_ago() {
        let (now, minute) = (Timestamp::from_unix_seconds(1_000), Duration::from_secs(60));
        assert!(is_within(now, minute, now) && is_within(now, minute, now.plus(minute / 2)));
        assert!(!is_within(now, minute, now.plus(minute)) && !is_within(now.plus(minute), minute, now));
    }
}
