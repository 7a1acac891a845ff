//! How much one host may store here: a bucket of events and one of recordings' octets for each host. Pure: `now` comes in. Memory grows with
//! the hosts that send and is bounded.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use remoteler_core::{HostId, Timestamp};

/// What one host may store. A host that sends more is told to wait, and keeps what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostQuotas {
    /// Audit events at once: as much as a host may have kept while the service was away. Default 100,000.
    pub events_at_once: u64,
    /// Audit events a second from then on. Default 100.
    pub events_per_second: u64,
    /// Octets of recordings at once, and from then on in a day, evenly spread. Default 16 GiB.
    pub recorded_per_day: u64,
}

impl Default for HostQuotas {
    fn default() -> Self {
        Self { events_at_once: 100_000, events_per_second: 100, recorded_per_day: 16 * 1024 * 1024 * 1024 }
    }
}

/// The buckets of all hosts for one thing.
#[derive(Debug)]
pub(crate) struct Quota {
    at_once: u64,
    /// So much is earned in that time.
    earned: (u64, Duration),
    hosts: Mutex<HashMap<HostId, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    used: u64,
    since: Timestamp,
}

/// Hosts remembered; past it those that used least are forgotten first.
const MAX_HOSTS: usize = 50_000;
const DAY: Duration = Duration::from_secs(86_400);

impl Quota {
    pub(crate) fn events(quotas: &HostQuotas) -> Self {
        Self::new(quotas.events_at_once, (quotas.events_per_second, Duration::from_secs(1)))
    }

    pub(crate) fn recorded(quotas: &HostQuotas) -> Self {
        Self::new(quotas.recorded_per_day, (quotas.recorded_per_day, DAY))
    }

    fn new(at_once: u64, earned: (u64, Duration)) -> Self {
        Self { at_once, earned, hosts: Mutex::default() }
    }

    /// Takes `amount` of a host's, all of it or nothing.
    pub(crate) fn take(&self, host: HostId, amount: u64, now: Timestamp) -> bool {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(&host) {
            hosts.retain(|_, bucket| {
                self.earn(bucket, now);
                bucket.used > 0
            });
            if hosts.len() >= MAX_HOSTS {
                let least = hosts.iter().min_by_key(|(_, bucket)| bucket.used).map(|(host, _)| *host);
                least.map(|host| hosts.remove(&host));
            }
        }
        let bucket = hosts.entry(host).or_insert(Bucket { used: 0, since: now });
        self.earn(bucket, now);
        let used = bucket.used.saturating_add(amount);
        if used > self.at_once {
            return false;
        }
        bucket.used = used;
        true
    }

    fn earn(&self, bucket: &mut Bucket, now: Timestamp) {
        let (amount, time) = self.earned;
        let passed = now.since(bucket.since).as_millis();
        let earned = passed.saturating_mul(u128::from(amount)) / time.as_millis().max(1);
        let earned = u64::try_from(earned).unwrap_or(u64::MAX);
        // Also when the clock was set back: nothing is earned twice, and earning goes on from here.
        if earned > 0 || now < bucket.since {
            bucket.used = bucket.used.saturating_sub(earned);
            bucket.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_unix_seconds(1_000_000);

    fn host(number: u128) -> HostId {
        HostId::from_uuid(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn a_host_that_used_its_quota_waits_and_no_other_does() {
        let quotas = HostQuotas { events_at_once: 1000, events_per_second: 10, ..HostQuotas::default() };
        let quota = Quota::events(&quotas);
        assert!(quota.take(host(1), 1000, START));
        assert!(!quota.take(host(1), 1, START)); // I26
        assert!(quota.take(host(2), 1000, START)); // I32
        let later = START.plus(Duration::from_secs(2));
        assert!(!quota.take(host(1), 21, later), "all or nothing");
        assert!(quota.take(host(1), 20, later));
        assert!(!quota.take(host(1), 1, START), "a clock that was set back earns nothing");
        assert!(quota.take(host(1), 1000, START.plus(DAY)));
    }

    #[test]
    fn octets_of_recordings_are_earned_over_a_day() {
        let quota = Quota::recorded(&HostQuotas { recorded_per_day: 86_400, ..HostQuotas::default() });
        assert!(quota.take(host(1), 86_400, START));
        assert!(!quota.take(host(1), 3_601, START.plus(Duration::from_secs(3_600))));
        assert!(quota.take(host(1), 3_600, START.plus(Duration::from_secs(3_600))));
    }

    #[test]
    fn memory_is_bounded_however_many_hosts_there_are() {
        let quota = Quota::events(&HostQuotas::default());
        for number in 0..(MAX_HOSTS as u128 + 50) {
            assert!(quota.take(host(number), 1, START));
        }
        assert!(quota.hosts.lock().unwrap().len() <= MAX_HOSTS);
    }
}
