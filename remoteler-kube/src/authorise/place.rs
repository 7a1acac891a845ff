//! The place that a connection has among those of its user: taken by the first request that needs one, and again by a later one when there was no room, or when
//! the rules have ended it since.

use std::sync::{Mutex, MutexGuard, PoisonError};

use remoteler_core::{EndReason, LiveGuard};

#[derive(Default)]
pub(super) struct Place {
    held: Mutex<Option<LiveGuard>>,
    /// One request asks at a time; those beside it wait for its answer.
    asking: tokio::sync::Mutex<()>,
}

impl Place {
    /// Whether there is one that the rules have not ended.
    pub(super) fn is_held(&self) -> bool {
        self.lock().as_ref().is_some_and(|place| place.reason().is_none())
    }

    /// Holds a place, by entering unless there is one.
    pub(super) async fn hold<F>(&self, enter: impl FnOnce() -> F) -> Result<(), EndReason>
    where
        F: Future<Output = Result<LiveGuard, EndReason>>,
    {
        let _asking = self.asking.lock().await;
        if !self.is_held() {
            let ended = self.lock().take();
            drop(ended); // before another one is counted
            let place = enter().await?;
            *self.lock() = Some(place);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<LiveGuard>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
