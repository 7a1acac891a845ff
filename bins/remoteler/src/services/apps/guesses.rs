//! How often one source may bring what the auth service does not know: cookies and codes (I30). A place is taken before anything is asked, so that not more are
//! asked about at once either, and given back when it was right. Owns the counts, and no more of them than a bound; where that is reached nobody is kept out, for
//! the counts are there to spare the auth service and not to tell who is let in.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use remoteler_core::SourceNet;
use tokio::time::Instant;

/// Counts begin anew after so long.
const WINDOW: Duration = Duration::from_secs(60);
/// A whole house behind one address that comes back in the morning brings some old cookies.
const MAX_WRONG: u32 = 200;
/// Sources that are counted.
const MAX_SOURCES: usize = 10_000;

/// Wrong ones of the last minute, and those of which that is not known yet.
#[derive(Default)]
pub(crate) struct Guesses(Mutex<HashMap<SourceNet, (Instant, u32)>>);

/// A place among those of its source. It stays taken unless it is given back.
#[must_use = "it is taken until it is given back"]
pub(super) struct Guess<'a> {
    of: &'a Guesses,
    source: SourceNet,
    since: Instant,
}

impl Guesses {
    /// A place; none where the source has brought too many.
    pub(super) fn take(&self, source: IpAddr, now: Instant) -> Option<Guess<'_>> {
        let source = SourceNet::of(source);
        let mut sources = self.lock();
        if sources.len() >= MAX_SOURCES {
            sources.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        }
        if sources.len() >= MAX_SOURCES && !sources.contains_key(&source) {
            return Some(Guess { of: self, source, since: now });
        }
        let (since, count) = sources.entry(source).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        let free = *count < MAX_WRONG;
        *count = count.saturating_add(u32::from(free));
        free.then_some(Guess { of: self, source, since: *since })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SourceNet, (Instant, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guess<'_> {
    /// It was no wrong one.
    pub(super) fn give_back(self) {
        if let Some((since, count)) = self.of.lock().get_mut(&self.source)
            && *since == self.since
        {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // I30
    #[test]
    fn one_source_brings_so_many_wrong_ones_in_a_minute_and_keeps_no_other_out() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let take = |text: &str, at: Instant| guesses.take(text.parse().unwrap(), at);
        for _ in 0..MAX_WRONG {
            assert!(take("2001:db8::1", now).is_some());
        }
        assert!(take("2001:db8::2", now).is_none(), "the same network");
        assert!(take("2001:db8:0:1::1", now).is_some() && take("192.0.2.1", now).is_some());
        assert!(take("2001:db8::1", now + WINDOW).is_some(), "counted anew");
        assert_eq!(guesses.lock()[&SourceNet::of("2001:db8::".parse().unwrap())].1, 1);
    }

    // I30
    #[test]
    fn what_was_right_leaves_room_and_what_is_being_asked_takes_it() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let source = "192.0.2.1".parse().unwrap();
        for _ in 0..MAX_WRONG * 3 {
            guesses.take(source, now).unwrap().give_back();
        }
        let asked: Vec<_> = (0..MAX_WRONG).map(|_| guesses.take(source, now).unwrap()).collect();
        assert!(guesses.take(source, now).is_none());
        asked.into_iter().for_each(Guess::give_back);
        let late = guesses.take(source, now).unwrap();
        let _new = guesses.take(source, now + WINDOW);
        late.give_back();
        assert_eq!(guesses.lock()[&SourceNet::of(source)].1, 1, "of another minute");
    }

    // I62
    #[test]
    fn so_many_sources_are_counted_and_no_more() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for bits in 0..u32::try_from(MAX_SOURCES).unwrap() + 10 {
            assert!(guesses.take(std::net::Ipv4Addr::from_bits(bits).into(), now).is_some());
        }
        assert_eq!(guesses.lock().len(), MAX_SOURCES);
    }
}
