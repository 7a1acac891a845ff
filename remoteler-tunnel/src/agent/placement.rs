//! Which proxies an agent keeps links to: all of which it was told, or so many. A pure machine: owns who is linked to whom and what
//! failed, draws no random numbers, dials nothing.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use remoteler_core::HostId;

use crate::notice::{MAX_PROXIES, ProxyAddress};

/// One of the tasks that keep a link each.
pub(super) type Slot = u32;

/// The plan.
#[derive(Debug)]
pub(super) struct Placement {
    /// What the agent was configured with: the way in, as long as nothing else is known.
    seed: String,
    most: Option<NonZeroUsize>,
    known: BTreeMap<HostId, String>,
    slots: BTreeMap<Slot, Phase>,
    next_slot: Slot,
    /// Attempts in a row that failed, by address.
    failures: BTreeMap<String, u32>,
    /// Whom an address led to last.
    proven: BTreeMap<String, HostId>,
    /// Proxies that take no new streams: asked again when there is no other.
    leaving: Vec<HostId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Dialling(String),
    Linked { proxy: HostId },
}

impl Placement {
    pub(super) fn new(seed: String, most: Option<NonZeroUsize>) -> Self {
        let (known, slots) = (BTreeMap::new(), BTreeMap::new());
        let (failures, proven) = (BTreeMap::new(), BTreeMap::new());
        Self { seed, most, known, slots, next_slot: 0, failures, proven, leaving: Vec::new() }
    }

    /// All proxies of the cluster, as one of them says. Nobody is no news: an agent that knows of a proxy does not forget it for that.
    pub(super) fn learn(&mut self, proxies: Vec<ProxyAddress>) {
        if proxies.is_empty() {
            return;
        }
        self.known = proxies.into_iter().take(MAX_PROXIES).map(|proxy| (proxy.id, proxy.addr)).collect();
        let Self { known, seed, failures, proven, leaving, .. } = self;
        let is_of_use = |address: &String| address == seed || known.values().any(|addr| addr == address);
        failures.retain(|address, _| is_of_use(address));
        proven.retain(|address, _| is_of_use(address));
        leaving.retain(|id| known.contains_key(id));
    }

    /// How many links there should be.
    fn wanted(&self) -> usize {
        let all = self.known.len().max(1);
        self.most.map_or(all, |most| all.min(most.get()))
    }

    /// A new task, if one is missing.
    pub(super) fn missing(&mut self) -> Option<Slot> {
        if self.slots.len() >= self.wanted() {
            return None;
        }
        let slot = self.next_slot;
        self.next_slot = self.next_slot.wrapping_add(1);
        self.slots.insert(slot, Phase::Idle);
        Some(slot)
    }

    /// What this task should dial next; `None`: it is one too many and ends.
    pub(super) fn choose(&mut self, slot: Slot, random: u64) -> Option<String> {
        self.slots.insert(slot, Phase::Idle);
        if self.slots.len() > self.wanted() {
            self.slots.remove(&slot);
            return None;
        }
        let alone = !self.slots.values().any(|phase| matches!(phase, Phase::Linked { .. }));
        let dialled = |address: &str| self.slots.values().any(|phase| *phase == Phase::Dialling(address.to_owned()));
        let linked = |id: &HostId| self.slots.values().any(|phase| *phase == Phase::Linked { proxy: *id });
        let free = self.known.iter().filter(|(id, address)| !linked(id) && !dialled(address));
        let mut candidates: Vec<(bool, u32, &str)> = free
            .map(|(id, address)| (self.leaving.contains(id), self.doubt(address), address.as_str()))
            .chain((alone && !dialled(&self.seed)).then(|| {
                let leaving = self.proven.get(&self.seed).is_some_and(|id| self.leaving.contains(id));
                (leaving, self.doubt(&self.seed), self.seed.as_str())
            }))
            .collect();
        candidates.sort_unstable();
        let Some(best) = candidates.first().map(|(leaving, failed, _)| (*leaving, *failed)) else {
            self.slots.remove(&slot);
            return None;
        };
        // Of those that are equally good each agent takes another one.
        let equal: Vec<&str> = candidates.iter().filter(|c| (c.0, c.1) == best).map(|c| c.2).collect();
        let index = usize::try_from((u128::from(random) * equal.len() as u128) >> 64).unwrap_or_default();
        let address = equal.get(index).copied().unwrap_or(&self.seed).to_owned();
        self.slots.insert(slot, Phase::Dialling(address.clone()));
        Some(address)
    }

    /// How little is expected of an address. One that led to a proxy before fails twice before another is tried that never did: what a proxy
    /// says of itself may be a name that is known in its own network only.
    fn doubt(&self, address: &str) -> u32 {
        let failed = self.failures.get(address).copied().unwrap_or_default();
        failed.saturating_add(if self.proven.contains_key(address) { 0 } else { 2 })
    }

    /// This task has reached `proxy`. False when another one has a link to it: two of one host would displace each other.
    pub(super) fn claim(&mut self, slot: Slot, proxy: HostId) -> bool {
        let taken = |(other, phase): (&Slot, &Phase)| *other != slot && *phase == Phase::Linked { proxy };
        if self.slots.iter().any(taken) {
            return false;
        }
        if let Some(Phase::Dialling(address)) = self.slots.insert(slot, Phase::Linked { proxy }) {
            self.failures.remove(&address);
            self.proven.insert(address, proxy);
        }
        self.leaving.retain(|id| *id != proxy);
        true
    }

    /// What this task dialled, did not come to anything.
    pub(super) fn fail(&mut self, slot: Slot, address: &str) {
        self.slots.insert(slot, Phase::Idle);
        let failures = self.failures.entry(address.to_owned()).or_default();
        *failures = failures.saturating_add(1);
    }

    /// Whether there are more proxies than tasks, so that one whose proxy cannot be reached may go to another. Where each has its own, it waits:
    /// a second link to the same one would end what the first may still go on with.
    pub(super) fn has_another(&self) -> bool {
        let linked = |id: &HostId| self.slots.values().any(|phase| *phase == Phase::Linked { proxy: *id });
        self.slots.len() < self.known.len() && self.known.keys().any(|id| !linked(id))
    }

    /// The link of this task is over; `leaving` when its proxy said that it takes no new streams. Says whether another proxy waits.
    pub(super) fn release(&mut self, slot: Slot, leaving: bool) -> bool {
        let before = self.slots.insert(slot, Phase::Idle);
        let Some(Phase::Linked { proxy }) = before else { return false };
        if leaving && !self.leaving.contains(&proxy) {
            self.leaving.push(proxy);
        }
        let linked = |id: &HostId| self.slots.values().any(|phase| *phase == Phase::Linked { proxy: *id });
        leaving && self.known.keys().any(|id| !linked(id) && !self.leaving.contains(id))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u128) -> HostId {
        HostId::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn proxies(numbers: &[u128]) -> Vec<ProxyAddress> {
        numbers.iter().map(|n| ProxyAddress { id: id(*n), addr: format!("p{n}:1") }).collect()
    }

    fn linked(placement: &mut Placement, number: u128) -> Slot {
        let slot = placement.missing().unwrap();
        placement.choose(slot, 0).unwrap();
        assert!(placement.claim(slot, id(number)));
        slot
    }

    #[test]
    fn an_agent_that_knows_only_its_configuration_keeps_one_link_there() {
        let mut placement = Placement::new("seed:1".into(), None);
        let slot = placement.missing().unwrap();
        assert_eq!(placement.choose(slot, 0).as_deref(), Some("seed:1"));
        assert!(placement.missing().is_none());
        placement.fail(slot, "seed:1");
        assert_eq!(placement.choose(slot, u64::MAX).as_deref(), Some("seed:1"));
    }

    #[test]
    fn told_of_others_it_wants_a_link_to_each_and_none_twice() {
        let mut placement = Placement::new("seed:1".into(), None);
        let first = linked(&mut placement, 1);
        placement.learn(proxies(&[1, 2, 3]));
        let (second, third) = (placement.missing().unwrap(), placement.missing().unwrap());
        assert!(placement.missing().is_none());
        let mut dialled = [placement.choose(second, 7).unwrap(), placement.choose(third, 7).unwrap()];
        dialled.sort();
        assert_eq!(dialled, ["p2:1", "p3:1"]);
        assert!(!placement.claim(second, id(1)), "a balancer led to the one that is linked already");
        placement.fail(second, "p2:1");
        assert!(placement.claim(third, id(3)));
        placement.learn(proxies(&[1]));
        assert_eq!(placement.choose(second, 0), None, "one too many");
        assert!(placement.missing().is_none());
        let _ = first;
    }

    #[test]
    fn with_a_limit_a_draining_proxy_is_left_for_another_at_once() {
        let mut placement = Placement::new("seed:1".into(), NonZeroUsize::new(1));
        let slot = linked(&mut placement, 1);
        placement.learn(proxies(&[1, 2]));
        assert!(placement.missing().is_none());
        assert!(placement.release(slot, true), "another one waits");
        // The seed led to the one that is leaving.
        assert_eq!(placement.choose(slot, u64::MAX).as_deref(), Some("p2:1"));
        assert!(placement.claim(slot, id(2)));
    }

    #[test]
    fn the_only_proxy_is_asked_again_after_it_said_that_it_leaves() {
        let mut placement = Placement::new("p1:1".into(), None);
        let slot = linked(&mut placement, 1);
        placement.learn(proxies(&[1]));
        assert!(!placement.release(slot, true));
        assert_eq!(placement.choose(slot, 0).as_deref(), Some("p1:1"));
    }

    #[test]
    fn an_address_that_has_worked_goes_before_one_that_only_the_proxy_knows() {
        let mut placement = Placement::new("10.0.0.1:3080".into(), None);
        let slot = linked(&mut placement, 1);
        placement.learn(vec![ProxyAddress { id: id(1), addr: "local:3080".into() }]);
        for random in [0, u64::MAX] {
            placement.release(slot, false);
            assert_eq!(placement.choose(slot, random).as_deref(), Some("10.0.0.1:3080"));
        }
        let mut others = 0;
        for _ in 0..6 {
            let address = placement.choose(slot, 0).unwrap();
            others += u32::from(address == "local:3080");
            placement.fail(slot, &address);
        }
        assert_eq!(others, 2, "and the other one has its turn when that fails again and again");
    }

    #[test]
    fn what_failed_less_often_goes_first() {
        let mut placement = Placement::new("seed:1".into(), None);
        placement.learn(proxies(&[1, 2]));
        let slot = placement.missing().unwrap();
        let mut seen = Vec::new();
        for _ in 0..6 {
            let address = placement.choose(slot, 0).unwrap();
            placement.fail(slot, &address);
            seen.push(address);
        }
        for address in ["seed:1", "p1:1", "p2:1"] {
            assert_eq!(seen.iter().filter(|one| *one == address).count(), 2, "{seen:?}");
        }
    }

    proptest! {
        #[test]
        fn no_two_tasks_are_ever_linked_to_one_proxy_and_there_are_never_too_many(
            steps in proptest::collection::vec((0u8..6, 0u32..6, 0u128..5, any::<u64>()), 0..200),
        ) {
            let mut placement = Placement::new("seed:1".into(), None);
            for (what, slot, number, random) in steps {
                let runs = placement.slots.contains_key(&slot);
                match what {
                    0 => placement.learn(proxies(&(0..number).collect::<Vec<_>>())),
                    1 => drop(placement.missing()),
                    2 if runs && !matches!(placement.slots[&slot], Phase::Linked { .. }) => drop(placement.choose(slot, random)),
                    3 if runs => { placement.claim(slot, id(number)); }
                    4 if runs => { placement.release(slot, random % 2 == 0); }
                    5 if runs => placement.fail(slot, "p1:1"),
                    _ => {}
                }
                let mut links: Vec<_> = placement.slots.values().filter(|p| matches!(p, Phase::Linked { .. })).map(|p| format!("{p:?}")).collect();
                let all = links.len();
                links.sort();
                links.dedup();
                prop_assert_eq!(links.len(), all);
                prop_assert!(placement.slots.len() <= MAX_PROXIES);
            }
        }
    }
}
