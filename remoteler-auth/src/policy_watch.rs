//! The rules, told to services as they change: a service says what it has, and is answered as soon as that is not all. Owns the view that is told.
//! Decides nothing.

use std::{sync::Arc, time::Duration};

use remoteler_core::{
    LockContext, PolicyLimits, PolicySource, PolicyUpdate, PolicyVersion, PolicyView, Resource, VerifiedHost, wire,
};
use tokio::time::{Instant, timeout_at};

use crate::{
    Caller,
    failure::{ApiResult, unauthenticated},
    records::key,
    service::Inner,
    waiting::Waiting,
};

/// What is told, and who waits for it.
#[derive(Default)]
pub(crate) struct PolicyWatch {
    view: tokio::sync::Mutex<Option<Told>>,
    waiting: Waiting,
}

/// The view made after so many changes.
#[derive(Clone)]
struct Told {
    changes: u64,
    view: Arc<PolicyView>,
    version: PolicyVersion,
}

impl Inner {
    /// What differs from `known`, as soon as anything does; `None` after `wait`.
    ///
    /// # Cancel safety
    /// Who stops waiting leaves nothing behind.
    pub(crate) async fn watch_policy(
        &self,
        caller: &Caller,
        known: Option<PolicyVersion>,
        wait: Duration,
    ) -> ApiResult<Option<PolicyUpdate>> {
        let Caller::Host { host, .. } = caller else {
            return Err(self.refuse(caller, "follow the rules of services").await);
        };
        let place = self.policy_watch.waiting.enter(Some(host.identity().id));
        let deadline = Instant::now() + wait.min(wire::LONGEST_WAIT);
        let mut changes = self.policy.changes();
        loop {
            let number = *changes.borrow_and_update();
            // Who has lost the right to ask while waiting is told no more. That is said by a rotation or a revocation, and no time: the certificates
            // of hosts have no end.
            self.policy
                .policy()
                .trust
                .still_believes(host.shown())
                .map_err(|cause| unauthenticated(cause.to_string()))?;
            if let Some(update) = self.rules_for(host, number).await?.since(known) {
                return Ok(Some(update));
            }
            tokio::select! {
                changed = timeout_at(deadline, changes.changed()) => match changed {
                    Ok(Ok(())) => {}
                    // No view will be replaced any more, or it is time to say that nothing has changed.
                    Ok(Err(_)) | Err(_) => return Ok(None),
                },
                () = place.wanted() => return Ok(None),
            }
        }
    }

    /// The rules as `host` is told them: a host that is locked learns of its locks, and whom to believe.
    async fn rules_for(&self, host: &VerifiedHost, number: u64) -> ApiResult<Told> {
        let told = self.rules(number).await?;
        let context = LockContext::of_host(host);
        let limits = &told.view.limits;
        if limits.locks.concerning(&context).is_none() {
            return Ok(told);
        }
        let own = limits.locks.iter().filter(|lock| lock.target.concerns(&context)).cloned().collect();
        let limits = PolicyLimits { locks: own, settings: limits.settings };
        let view = PolicyView { roles: Vec::new(), limits, ..PolicyView::clone(&told.view) };
        Ok(Told { version: view.version(), view: Arc::new(view), ..told })
    }

    /// The rules after `number` changes or more; made once for all who wait.
    async fn rules(&self, number: u64) -> ApiResult<Told> {
        let mut kept = self.policy_watch.view.lock().await;
        if let Some(told) = kept.as_ref().filter(|told| told.changes >= number) {
            return Ok(told.clone());
        }
        let changes = *self.policy.changes().borrow();
        let roles = self.records.list::<Resource>(key::ROLES).await?;
        let roles = roles.into_iter().map(|(_, document, _)| document).collect();
        let policy = self.policy.policy();
        let limits = PolicyLimits { locks: policy.locks.clone(), settings: policy.settings };
        let view = PolicyView::new(&policy.trust, roles, limits);
        let told = Told { changes, version: view.version(), view: Arc::new(view) };
        *kept = Some(told.clone());
        Ok(told)
    }
}

impl Told {
    fn since(&self, known: Option<PolicyVersion>) -> Option<PolicyUpdate> {
        self.view.since(self.version, known)
    }
}
