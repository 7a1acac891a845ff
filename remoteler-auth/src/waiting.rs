//! Requests that wait for something to change: how many of one host there are at once. Owns the bound, not what they wait for.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use remoteler_core::HostId;

use crate::failure::{ApiResult, rate_limited};

/// Requests of one host that wait at once: one, and those of a connection that it has given up.
const MAX_WAITING: usize = 4;

/// Who waits for one thing; administrators on the auth service's own machine are together counted as one.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<HashMap<Option<HostId>, usize>>);

/// One who waits, until it is dropped.
pub(crate) struct Place<'a>(&'a Waiting, Option<HostId>);

impl Waiting {
    /// A place to wait in, if there is one left. `what` is waited for, for the error.
    pub(crate) fn enter(&self, host: Option<HostId>, what: &str) -> ApiResult<Place<'_>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.entry(host).or_default();
        if *count >= MAX_WAITING {
            return Err(rate_limited(format!("{MAX_WAITING} requests of this host wait for {what} already")));
        }
        *count += 1;
        Ok(Place(self, host))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.1);
            }
        }
    }
}
