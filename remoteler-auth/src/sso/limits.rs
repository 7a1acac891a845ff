//! How many logins through browsers may be under way. Owns the counters and the order in which they are asked; says nothing to anybody.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use remoteler_core::Timestamp;

use super::{INTERVAL, LOGIN_TTL};
use crate::limiter::Limiter;

/// Counters, in memory.
pub(super) struct SsoLimits {
    /// Logins of one address that were begun and not finished.
    pub(super) begun: Limiter,
    /// All of them.
    pub(super) all: Limiter,
    /// Codes typed wrongly from one address.
    pub(super) codes: Limiter,
    /// Questions of one login.
    pub(super) polls: Limiter,
}

/// Why no login is begun now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crowded {
    /// Of this source there are too many.
    Source,
    /// Of all together there are too many.
    Everywhere,
}

/// The key under which all logins count.
pub(super) const ALL: &str = "all";
/// Most logins under way.
const MOST: u32 = 5_000;
/// Most of one source.
const MOST_OF_SOURCE: u32 = 100;
/// Most of one source when half the places are taken: then no few sources can take the rest.
const FEW_OF_SOURCE: u32 = 5;

impl Default for SsoLimits {
    fn default() -> Self {
        Self {
            begun: Limiter::new(MOST_OF_SOURCE, LOGIN_TTL),
            all: Limiter::new(MOST, LOGIN_TTL),
            codes: Limiter::new(10, Duration::from_secs(300)),
            polls: Limiter::new(1, INTERVAL / 2),
        }
    }
}

impl SsoLimits {
    /// Counts a login that begins. One that is refused counts nowhere.
    pub(super) fn begin(&self, source: Option<&str>, now: Timestamp) -> Result<(), Crowded> {
        let most = if self.all.is_counted(ALL, MOST / 2, now) { FEW_OF_SOURCE } else { MOST_OF_SOURCE };
        if !self.all.attempt(ALL, now) {
            return Err(Crowded::Everywhere);
        }
        if source.is_some_and(|source| !self.begun.attempt_within(source, most, now)) {
            self.all.succeeded(ALL);
            return Err(Crowded::Source);
        }
        Ok(())
    }
}

/// What a login counts for: the address without its port, and of IPv6 its /48: who has one has all its smaller ones. Where many share one, they
/// share its bound.
pub(super) fn source_of_login(addr: &str) -> String {
    let parsed = addr.parse::<SocketAddr>().map(|addr| addr.ip()).or_else(|_| addr.parse::<IpAddr>());
    match parsed.map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(v4)) => v4.to_string(),
        Ok(IpAddr::V6(v6)) => {
            let [a, b, c, ..] = v6.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
        Err(_) => addr.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_000);

    #[test]
    fn a_source_that_is_refused_takes_no_place_of_others() {
        // I26, I30
        let limits = SsoLimits::default();
        for _ in 0..MOST_OF_SOURCE {
            assert_eq!(limits.begin(Some("greedy"), NOW), Ok(()));
        }
        for _ in 0..2 * MOST {
            assert_eq!(limits.begin(Some("greedy"), NOW), Err(Crowded::Source));
        }
        assert_eq!(limits.begin(Some("other"), NOW), Ok(()));
    }

    #[test]
    fn when_half_the_places_are_taken_each_source_gets_few() {
        // I26, I30
        let limits = SsoLimits::default();
        for number in 0..MOST / 2 {
            assert_eq!(limits.begin(Some(&format!("source {}", number / 50)), NOW), Ok(()));
        }
        assert_eq!(limits.begin(Some("source 0"), NOW), Err(Crowded::Source), "it has more than a few");
        for _ in 0..FEW_OF_SOURCE {
            assert_eq!(limits.begin(Some("honest"), NOW), Ok(()));
        }
        assert_eq!(limits.begin(Some("honest"), NOW), Err(Crowded::Source));
        limits.begun.succeeded("honest");
        limits.all.succeeded(ALL);
        assert_eq!(limits.begin(Some("honest"), NOW), Ok(()), "what is finished does not count");
        let left = MOST / 2 - FEW_OF_SOURCE;
        assert!((0..left).all(|number| limits.begin(Some(&format!("one {number}")), NOW).is_ok()));
        assert_eq!(limits.begin(Some("fresh"), NOW), Err(Crowded::Everywhere));
        assert!(limits.begun.attempt_within("fresh", 1, NOW), "who was refused for others was not counted");
    }

    #[test]
    fn the_networks_of_one_customer_are_one_source() {
        // I30
        assert_eq!(source_of_login("[2001:db8:1:2::7]:443"), source_of_login("2001:db8:1:ffff::1"));
        assert_ne!(source_of_login("2001:db8:1::1"), source_of_login("2001:db8:2::1"));
        assert_eq!(source_of_login("[::ffff:192.0.2.1]:7"), "192.0.2.1");
        assert_ne!(source_of_login("192.0.2.1:1"), source_of_login("192.0.2.2:1"));
        assert_eq!(source_of_login("nowhere"), "nowhere");
    }
}
