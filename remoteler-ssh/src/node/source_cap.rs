//! Counts connections that have not logged in, in all and for each source address (I30).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use remoteler_core::SourceNet;

pub(super) struct SourceCap {
    counts: Arc<Mutex<Counts>>,
    total: usize,
    each: usize,
}

#[derive(Default)]
struct Counts {
    total: usize,
    by_source: HashMap<SourceNet, usize>,
}

/// A place that is given back on drop.
pub(super) struct Place {
    counts: Arc<Mutex<Counts>>,
    source: Option<SourceNet>,
}

impl SourceCap {
    pub(super) fn new(total: usize, each: usize) -> Self {
        Self { counts: Arc::default(), total, each }
    }

    pub(super) fn enter(&self, source: Option<SourceNet>) -> Option<Place> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.total >= self.total {
            return None;
        }
        if let Some(source) = source {
            if counts.by_source.get(&source).is_some_and(|count| *count >= self.each) {
                return None;
            }
            *counts.by_source.entry(source).or_default() += 1;
        }
        counts.total += 1;
        Some(Place { counts: self.counts.clone(), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        let Some(source) = self.source else { return };
        let left = counts.by_source.get(&source).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            counts.by_source.remove(&source);
        } else {
            counts.by_source.insert(source, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_take_all_places_and_gives_them_back() {
        let cap = SourceCap::new(3, 2);
        let (near, far) = (SourceNet::parse("127.0.0.1:1"), SourceNet::parse("[2001:db8::1]:2"));
        let held = (cap.enter(near), cap.enter(near));
        assert!(held.0.is_some() && held.1.is_some());
        assert!(cap.enter(near).is_none()); // I30
        let other = cap.enter(far);
        assert!(other.is_some());
        assert!(cap.enter(None).is_none());
        drop((held, other));
        assert!(cap.enter(near).is_some());
        assert!(cap.counts.lock().unwrap().by_source.is_empty());
    }
}
