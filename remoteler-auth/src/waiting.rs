//! Requests that wait for something to change: how many of one host there are at once. Owns the bound, not what they wait for.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use remoteler_core::HostId;
use tokio::sync::Notify;

/// Requests of one host that wait at once: one, and those of connections that it has given up without the service knowing.
const MAX_WAITING: usize = 4;

/// Who waits for one thing; administrators on the auth service's own machine are together counted as one.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<HashMap<Option<HostId>, VecDeque<Arc<Notify>>>>);

/// One who waits, until it is dropped.
pub(crate) struct Place<'a> {
    waiting: &'a Waiting,
    host: Option<HostId>,
    wanted: Arc<Notify>,
}

impl Waiting {
    /// A place to wait in. Where there is none left, who has waited longest gives up its own: a wait may last for an hour, and who asks anew
    /// has most likely lost the connection of the one before.
    pub(crate) fn enter(&self, host: Option<HostId>) -> Place<'_> {
        let wanted = Arc::new(Notify::new());
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let places = waiting.entry(host).or_default();
        places.push_back(wanted.clone());
        if places.len() > MAX_WAITING
            && let Some(longest) = places.pop_front()
        {
            longest.notify_one();
        }
        Place { waiting: self, host, wanted }
    }
}

impl Place<'_> {
    /// Waits until another one needs the place.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = waiting.get_mut(&self.host) {
            places.retain(|place| !Arc::ptr_eq(place, &self.wanted));
            if places.is_empty() {
                waiting.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_waited_longest_makes_room_and_nothing_is_kept_of_who_has_left() {
        let waiting = Waiting::default();
        let mut places: VecDeque<_> = (0..MAX_WAITING).map(|_| waiting.enter(None)).collect();
        let other = waiting.enter(Some(HostId::from_uuid(uuid::Uuid::nil())));
        drop(places.remove(1));
        places.push_back(waiting.enter(None));
        places.push_back(waiting.enter(None));

        places.pop_front().unwrap().wanted().await;

        for place in places.iter().chain([&other]) {
            let asked = tokio::time::timeout(std::time::Duration::ZERO, place.wanted()).await;
            assert!(asked.is_err(), "one was enough");
        }
        drop((places, other));
        assert!(waiting.0.lock().unwrap().is_empty());
    }
}
