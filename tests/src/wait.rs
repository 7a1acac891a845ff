//! Waiting for something to become true, with a deadline instead of a guess.

use std::time::{Duration, Instant};

/// Asks `condition` until it gives a value; at most 20 s.
///
/// # Panics
/// When it never does; `what` is in the message, and the last reason.
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
    eventually_within(Duration::from_secs(60), what, condition)
}

/// Asks `condition` until it gives a value; at most `limit`.
///
/// # Panics
/// When it never does; `what` is in the message, and the last reason.
pub fn eventually_within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + limit;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(reason) if Instant::now() >= end => panic!("{what}: not within {limit:?}: {reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
