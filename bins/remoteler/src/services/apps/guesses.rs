//! How often one source may bring what the auth service does not know: cookies and codes (I30). Owns the counts, and no more of them than a bound; where that is
//! reached nobody is kept out, for the counts are there to spare the auth service and not to tell who is let in.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Counts begin anew after so long.
const WINDOW: Duration = Duration::from_secs(60);
/// A whole house behind one address that comes back in the morning brings some old cookies.
const MAX_WRONG: u32 = 200;
/// Sources that are counted.
const MAX_SOURCES: usize = 10_000;

/// Wrong ones of the last minute.
#[derive(Default)]
pub(super) struct Guesses(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl Guesses {
    pub(super) fn allow(&self, source: IpAddr, now: Instant) -> bool {
        let counted = self.lock().get(&network(source)).copied();
        counted.is_none_or(|(since, count)| now.duration_since(since) >= WINDOW || count < MAX_WRONG)
    }

    pub(super) fn count(&self, source: IpAddr, now: Instant) {
        let mut sources = self.lock();
        if sources.len() >= MAX_SOURCES {
            sources.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        }
        let source = network(source);
        if sources.len() >= MAX_SOURCES && !sources.contains_key(&source) {
            return;
        }
        let (since, count) = sources.entry(source).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, (Instant, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One house has all of a /64 (RFC 6177).
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // I30
    #[test]
    fn one_source_brings_so_many_wrong_ones_in_a_minute_and_keeps_no_other_out() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let of = |text: &str| text.parse::<IpAddr>().unwrap();
        for _ in 0..MAX_WRONG {
            assert!(guesses.allow(of("2001:db8::1"), now));
            guesses.count(of("2001:db8::1"), now);
        }
        assert!(!guesses.allow(of("2001:db8::2"), now), "the same network");
        assert!(guesses.allow(of("2001:db8:0:1::1"), now) && guesses.allow(of("192.0.2.1"), now));
        let later = now + WINDOW;
        assert!(guesses.allow(of("2001:db8::1"), later));
        guesses.count(of("2001:db8::1"), later);
        assert!(guesses.allow(of("2001:db8::1"), later), "counted anew");
    }

    // I62
    #[test]
    fn so_many_sources_are_counted_and_no_more() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for bits in 0..u32::try_from(MAX_SOURCES).unwrap() + 10 {
            guesses.count(std::net::Ipv4Addr::from_bits(bits).into(), now);
        }
        assert_eq!(guesses.lock().len(), MAX_SOURCES);
    }
}
