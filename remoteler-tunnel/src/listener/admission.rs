//! How many connections may be nobody at once, in all and from one source. Owns the counts. Never waits: who is too many is
//! turned away (I30).

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use remoteler_core::{CustomerNet, SourceNet};
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
    /// At once, from one IPv6 /48, which has 65,536 sources and may be one customer's; those of mobile carriers and hosters are shared by many.
    /// Default 2,048, a quarter of all.
    pub per_customer: usize,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(10), total: 8192, per_source: 512, per_customer: 2048 }
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
    by_customer: HashMap<CustomerNet, usize>,
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
        let (source, customer) = (SourceNet::of(address), CustomerNet::of(address));
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let from_there = counts.by_source.get(&source).copied().unwrap_or_default();
        let from_them = customer.and_then(|customer| counts.by_customer.get(&customer).copied()).unwrap_or_default();
        let AdmissionLimits { total, per_source, per_customer, .. } = self.limits;
        if counts.total >= total || from_there >= per_source || from_them >= per_customer {
            return None;
        }
        counts.total += 1;
        counts.by_source.insert(source, from_there + 1);
        if let Some(customer) = customer {
            counts.by_customer.insert(customer, from_them + 1);
        }
        drop(counts);
        let place = Place { admissions: self.clone(), source, customer };
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
    customer: Option<CustomerNet>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admissions.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        one_less(&mut counts.by_source, &self.source);
        if let Some(customer) = &self.customer {
            one_less(&mut counts.by_customer, customer);
        }
    }
}

/// Keeps no count of nobody.
fn one_less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, of: &K) {
    if let Some(count) = counts.get_mut(of) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(of);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

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

    // I30
    #[test]
    fn one_customer_cannot_take_all_places_by_changing_networks() {
        let limits = AdmissionLimits { total: 1000, per_source: 2, per_customer: 6, ..AdmissionLimits::default() };
        let admissions = Admissions::new(limits);
        let from = |customer: u16, network: u16| {
            admissions.admit(Ipv6Addr::new(0x2001, 0xdb8, customer, network, 0, 0, 0, 1).into())
        };

        let mut held: Vec<Admission> = (0..20).filter_map(|network| from(1, network)).collect();
        assert_eq!(held.len(), 6, "each from another of its networks");
        assert!(from(1, 0xffff).is_none());
        let other = from(2, 0).expect("another customer is let in");
        // Who has no IPv6 network is one source, and no customer's.
        let plain: Vec<_> =
            (0..20).filter_map(|host| admissions.admit(Ipv4Addr::new(192, 0, 2, host).into())).collect();
        assert_eq!(plain.len(), 20);

        held.pop();
        held.push(from(1, 0xffff).expect("the place of one that left"));
        assert!(from(1, 0xfffe).is_none());
        drop((held, plain, other));
        let counts = admissions.counts.lock().unwrap();
        assert!(counts.total == 0 && counts.by_source.is_empty() && counts.by_customer.is_empty());
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
