//! How a link stands, for those who wait for that. Owns the present state; smaller than a channel of the runtime, for there is one in each idle link.
//! Whoever locks it and the machine locks the machine first.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::LinkState;

#[derive(Debug)]
pub(super) struct State {
    now: Mutex<LinkState>,
    changed: Notify,
}

impl State {
    pub(super) fn new(state: LinkState) -> Self {
        Self { now: Mutex::new(state), changed: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it if `change` says that it did, and calls those who wait then.
    pub(super) fn change(&self, change: impl FnOnce(&mut LinkState) -> bool) {
        if change(&mut self.lock()) {
            self.call();
        }
    }

    /// Calls those who wait: something besides changed.
    pub(super) fn call(&self) {
        self.changed.notify_waiters();
    }

    /// Waits until `look` has found something; it looks now and after each call, and nothing is locked while it does.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified(); // before the look: what changes after it is not missed
            if let Some(found) = look() {
                return found;
            }
            changed.await;
        }
    }

    /// Waits for a state that `seen` makes something of. The state is locked meanwhile: the machine must not be.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn wait_for<T>(&self, mut seen: impl FnMut(&LinkState) -> Option<T>) -> T {
        self.until(|| seen(&self.lock())).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn up(state: &LinkState) -> Option<()> {
        matches!(state, LinkState::Up).then_some(())
    }

    fn becomes_up(state: &mut LinkState) -> bool {
        *state = LinkState::Up;
        true
    }

    #[tokio::test]
    async fn everybody_who_waits_sees_what_comes_and_who_comes_later_what_is() {
        let state = Arc::new(State::new(LinkState::Handshaking));
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let state = Arc::clone(&state);
                tokio::spawn(async move { state.wait_for(up).await })
            })
            .collect();
        tokio::task::yield_now().await;
        state.change(becomes_up);
        for waiter in waiting {
            timeout(SOON, waiter).await.unwrap().unwrap();
        }
        timeout(SOON, state.wait_for(up)).await.unwrap();
    }

    #[tokio::test]
    async fn what_changes_just_after_somebody_looked_is_not_missed() {
        let state = State::new(LinkState::Handshaking);
        let looks = |seen: bool| {
            if !seen {
                state.change(becomes_up);
            }
            seen.then_some(())
        };
        let mut seen = false;
        let looking = state.until(|| looks(std::mem::replace(&mut seen, true)));
        timeout(SOON, looking).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_called_when_nothing_has_changed() {
        let state = State::new(LinkState::Handshaking);
        let mut looks = 0;
        let looking = state.until(|| {
            looks += 1;
            None::<()>
        });
        let idle = async {
            tokio::task::yield_now().await;
            state.change(|_| false);
        };
        let (looked, ()) = tokio::join!(timeout(SOON, looking), idle);
        assert!(looked.is_err() && looks == 1, "{looks}");
    }

    const SOON: Duration = Duration::from_secs(10);
}
