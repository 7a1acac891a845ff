//! How many connections may be nobody at once, in all and from one source. Owns the counts. Never waits: who is too many is
//! turned away (I30).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use remoteler_core::SourceNet;
use tokio::sync::Notify;

/// Bounds for connections that have not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// From being accepted to being somebody. Default 10 s.
    pub deadline: Duration,
    /// At once, from everywhere. Default 8,192.
    pub total: usize,
    /// At once, from one IPv4 address or one IPv6 /64. Default 512.
    pub per_source: usize,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(10), total: 8192, per_source: 512 }
    }
}

/// The counts of one listener.
#[derive(Debug)]
pub struct Admissions {
    limits: AdmissionLimits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_source: HashMap<SourceNet, usize>,
}

impl Admissions {
    /// Nobody is there yet.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> &AdmissionLimits {
        &self.limits
    }

    /// Admits one more connection, unless there are too many.
    #[must_use]
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admission> {
        let source = SourceNet::of(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let from_there = counts.by_source.get(&source).copied().unwrap_or_default();
        if counts.total >= self.limits.total || from_there >= self.limits.per_source {
            return None;
        }
        counts.total += 1;
        counts.by_source.insert(source, from_there + 1);
        drop(counts);
        let place = Place { admissions: self.clone(), source };
        Some(Admission(Arc::new(State { place: Mutex::new(Some(place)), authenticated: Notify::new() })))
    }

    /// How many are nobody now.
    #[must_use]
    pub fn unauthenticated(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

/// One connection's place among the unauthenticated. Clones are the same place.
#[derive(Clone, Debug)]
pub struct Admission(Arc<State>);

#[derive(Debug)]
struct State {
    place: Mutex<Option<Place>>,
    authenticated: Notify,
}

impl Admission {
    /// The connection is somebody now: its place is free, and its deadline is off.
    pub fn authenticated(&self) {
        self.0.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.0.authenticated.notify_one();
    }

    /// Waits until [`authenticated`](Self::authenticated) was called.
    pub(crate) async fn wait(&self) {
        self.0.authenticated.notified().await;
    }
}

/// Gives the place back when dropped.
#[derive(Debug)]
struct Place {
    admissions: Arc<Admissions>,
    source: SourceNet,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admissions.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        if let Some(from_there) = counts.by_source.get_mut(&self.source) {
            *from_there = from_there.saturating_sub(1);
            if *from_there == 0 {
                counts.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admissions(total: usize, per_source: usize) -> Arc<Admissions> {
        Admissions::new(AdmissionLimits { total, per_source, ..AdmissionLimits::default() })
    }

    // I30
    #[test]
    fn one_source_cannot_take_all_places() {
        let admissions = admissions(3, 2);
        let [here, there] = ["2001:db8::1", "2001:db8:0:1::1"].map(|text| text.parse::<IpAddr>().unwrap());
        let same_network = "2001:db8::ffff".parse().unwrap();

        let first = admissions.admit(here).unwrap();
        let _second = admissions.admit(same_network).unwrap();
        assert!(admissions.admit(here).is_none(), "the third of one network");
        let _third = admissions.admit(there).unwrap();
        assert!(admissions.admit("192.0.2.1".parse().unwrap()).is_none(), "the fourth in all");

        drop(first);
        assert!(admissions.admit(here).is_some());
    }

    #[test]
    fn who_is_somebody_takes_no_place() {
        let admissions = admissions(1, 1);
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        let first = admissions.admit(here).unwrap();

        first.authenticated();

        assert_eq!(admissions.unauthenticated(), 0);
        let _second = admissions.admit("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert!(admissions.admit(here).is_none());
    }
}
