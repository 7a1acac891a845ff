//! Logins take turns where many come at once: from one address, as one user. Owns who waits, for how long and how many; what counts as too many failures
//! is the limiters'. Says the same of users that exist and users that do not.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{
    failure::{ApiResult, rate_limited},
    limiter::Turn,
    service::Inner,
};

/// So long a login waits for its turn: less than an anonymous connection has.
const PATIENCE: Duration = Duration::from_secs(8);
/// Logins that wait at once, from one address and from all.
const MAX_WAITING_HERE: usize = 64;
const MAX_WAITING: usize = 512;

/// Those who wait.
#[derive(Default)]
pub(crate) struct LoginTurns {
    waiting: Mutex<HashMap<String, usize>>,
    left: Notify,
}

/// A place among those who wait.
struct Waiting<'a>(&'a LoginTurns, String);

/// A login under way. Dropped without a word, it has failed.
pub(crate) struct LoginTurn<'a> {
    inner: &'a Inner,
    user: String,
    address: Option<String>,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Failed,
    /// Neither: more was asked for.
    Neither,
    Succeeded,
}

impl LoginTurns {
    fn wait(&self, whose: &str) -> Option<Waiting<'_>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let here = waiting.get(whose).copied().unwrap_or_default();
        if here >= MAX_WAITING_HERE || waiting.values().sum::<usize>() >= MAX_WAITING {
            return None;
        }
        waiting.insert(whose.to_owned(), here + 1);
        Some(Waiting(self, whose.to_owned()))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.1);
            }
        }
    }
}

impl Inner {
    /// The turn of a login. It waits while as many are under way as may still fail.
    ///
    /// # Errors
    /// Too many have failed, or too many come at once.
    pub(crate) async fn login_turn(&self, user: &str, address: Option<&str>) -> ApiResult<LoginTurn<'_>> {
        let turns = &self.limits.login_turns;
        let deadline = Instant::now() + PATIENCE;
        let mut place = None;
        loop {
            let left = turns.left.notified();
            tokio::pin!(left);
            // In the list before the look, so that nobody leaves between the two.
            left.as_mut().enable();
            match self.try_login_turn(user, address) {
                Turn::Never => return Err(rate_limited("too many failed logins; wait five minutes")),
                Turn::Now => {
                    let (user, address) = (user.to_owned(), address.map(str::to_owned));
                    return Ok(LoginTurn { inner: self, user, address, outcome: Outcome::Failed });
                }
                Turn::Later => {}
            }
            let crowded = || rate_limited("too many logins at once; try again in a moment");
            if place.is_none() {
                place = Some(turns.wait(address.unwrap_or(user)).ok_or_else(crowded)?);
            }
            timeout_at(deadline, left).await.map_err(|_| crowded())?;
        }
    }

    fn try_login_turn(&self, user: &str, address: Option<&str>) -> Turn {
        let (limits, now) = (&self.limits, self.clock.now());
        if let Some(address) = address {
            let turn = limits.login_address.enter(address, now);
            if turn != Turn::Now {
                return turn;
            }
        }
        let turn = limits.login_user.enter(user, now);
        if let Some(address) = address.filter(|_| turn != Turn::Now) {
            limits.login_address.leave(address, false, now);
        }
        turn
    }
}

impl LoginTurn<'_> {
    /// Everything was right: nothing of this attempt counts as a failure, and failures before it are forgotten.
    pub(crate) fn succeeded(mut self) {
        self.outcome = Outcome::Succeeded;
    }

    /// No failure yet, and no success: failures before it go on counting.
    pub(crate) fn took_back(mut self) {
        self.outcome = Outcome::Neither;
    }
}

impl Drop for LoginTurn<'_> {
    fn drop(&mut self) {
        let (limits, now) = (&self.inner.limits, self.inner.clock.now());
        let failed = self.outcome == Outcome::Failed;
        limits.login_user.leave(&self.user, failed, now);
        if self.outcome == Outcome::Succeeded {
            limits.login_user.clear(&self.user);
        }
        if let Some(address) = &self.address {
            limits.login_address.leave(address, failed, now);
        }
        limits.login_turns.left.notify_waiters();
    }
}
