//! Rotating an authority: who asks may, the services are asked who has followed, the event is recorded, the keys change places. The
//! order of phases is the machine's of `remoteler-ca`.

use std::{sync::Arc, time::Duration};

use remoteler_ca::{Authority, KeyMove, RotationError, Step};
use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, CaKind, Policy, PolicySource, RotateRequest, RotationStatus, ServiceContact,
    Timestamp, TrustAck, Verb,
};

use crate::{
    AuthService, Caller,
    authorities::{AuthoritySet, discard},
    failure::{self, ApiResult, bad_request, conflict},
    records::key,
    service::Inner,
};

/// What roles call the authorities.
const RESOURCE: &str = "cert_authority";
/// How steps that follow by themselves are called in the audit log; no user name, since those have no `:`.
const AUTOMATIC: &str = "local:rotation";
/// A service that was not heard of for so long is forgotten: nobody waits for it any more.
const FORGOTTEN: Duration = Duration::from_secs(30 * 86_400);

impl Inner {
    /// Remembers which generation of the trust bundle a host acts by.
    pub(crate) async fn acknowledge_trust(&self, caller: &Caller, ack: TrustAck) -> ApiResult<()> {
        let Caller::Host { host, .. } = caller else {
            return Err(self.refuse(caller, "acknowledge a trust bundle").await);
        };
        let present = self.issuer.trust().rotation.generation;
        if ack.generation > present {
            return Err(bad_request(format!(
                "generation {} of the trust bundle does not exist, {present} is the newest",
                ack.generation
            )));
        }
        let host = host.identity();
        let now = self.clock.now();
        let contact = ServiceContact {
            host_id: host.id,
            name: host.name.clone(),
            roles: host.roles.clone(),
            generation: ack.generation,
            last_contact: now,
        };
        Ok(self.records.write(&key::of(key::SERVICES, host.id), &contact, Some(now.plus(FORGOTTEN))).await?)
    }

    pub(crate) async fn rotations(&self, caller: &Caller) -> ApiResult<Vec<RotationStatus>> {
        self.admit(caller, RESOURCE, Verb::Read).await?;
        let services = self.services().await?;
        let (authorities, now) = (self.issuer.authorities(), self.clock.now());
        Ok([CaKind::User, CaKind::Host].map(|kind| status(authorities.set(kind), &services, now)).into())
    }

    pub(crate) async fn rotate(&self, caller: &Caller, request: RotateRequest) -> ApiResult<RotationStatus> {
        let actor = self.admit(caller, RESOURCE, Verb::Update).await?;
        let RotateRequest { kind, phase, plan, force } = request;
        // One step at a time: of two administrators who ask for the same, the second is told what the first has done.
        let _turn = self.changes.lock().await;
        let services = self.services().await?;
        let (authorities, now) = (self.issuer.authorities(), self.clock.now());
        let generation = authorities.trust().rotation.generation + 1;
        let step = authorities.set(kind).rotation.step(phase, plan, &services, force, generation, now);
        self.take(actor, kind, step.map_err(|cause| refusal(&cause))?, force).await?;
        Ok(status(self.issuer.authorities().set(kind), &services, now))
    }

    /// Takes the steps that are due in automatic rotations.
    async fn rotate_when_due(&self) -> ApiResult<()> {
        for kind in [CaKind::User, CaKind::Host] {
            let authorities = self.issuer.authorities();
            let now = self.clock.now();
            let generation = authorities.trust().rotation.generation + 1;
            let due = |services: &[ServiceContact]| authorities.set(kind).rotation.due(services, generation, now);
            if due(&[]).is_none() {
                continue; // whoever the services are
            }
            let _turn = self.changes.lock().await;
            if self.issuer.trust().rotation.generation + 1 != generation {
                continue; // somebody took a step meanwhile; the next look decides anew
            }
            if let Some(step) = due(&self.services().await?) {
                tracing::info!(authority = kind.as_str(), phase = %step.next().phase(), "the rotation goes on by itself");
                let forced = !step.passed_over().is_empty();
                self.take(AUTOMATIC.to_owned(), kind, step, forced).await?;
            }
        }
        Ok(())
    }

    /// Records the step, writes it, and puts it in force; [`Inner::changes`] is held by the caller.
    async fn take(&self, actor: String, kind: CaKind, step: Step, forced: bool) -> ApiResult<()> {
        let authorities = self.issuer.authorities();
        let set = authorities.set(kind);
        let fresh = match step.keys() {
            KeyMove::Generate => {
                let made = set.generate(self.clock.now(), self.issuer.keys()).await;
                Some(made.map_err(|cause| failure::authority(&cause))?)
            }
            KeyMove::Swap | KeyMove::Keep | KeyMove::Retire => None,
        };
        let moved = match self.write(actor, set, &step, forced, fresh.clone()).await {
            Ok(moved) => moved,
            Err(cause) => {
                if let Some(fresh) = fresh {
                    discard(&fresh, self.issuer.keys()).await;
                }
                return Err(cause);
            }
        };
        let authorities = authorities.with(moved.clone());
        let trust = authorities.trust().clone();
        self.issuer.replace(authorities);
        let roles = self.policy.policy().roles.clone();
        self.policy.replace(Policy { trust, roles });
        // Only now that nobody is to believe them any more, and the record says so.
        let cleaned = moved.destroy_retired(&self.records, self.issuer.keys()).await;
        self.issuer.replace(self.issuer.authorities().with(cleaned));
        Ok(())
    }

    /// Records the step and writes it.
    async fn write(
        &self,
        actor: String,
        set: &AuthoritySet,
        step: &Step,
        forced: bool,
        fresh: Option<Arc<Authority>>,
    ) -> ApiResult<AuthoritySet> {
        self.record(AuditKind::CaRotate {
            user: actor,
            ca_type: step.next().kind().as_str().into(),
            phase: step.next().phase().to_string(),
            generation: step.next().generation(),
            forced: forced && !step.passed_over().is_empty(),
            passed_over: step.passed_over().iter().take(MAX_NAMED).map(|service| service.name.to_string()).collect(),
        })
        .await?;
        Ok(set.moved(step.next().clone(), step.keys(), fresh).save(&self.records).await?)
    }

    async fn services(&self) -> ApiResult<Vec<ServiceContact>> {
        let services = self.records.list::<ServiceContact>(key::SERVICES).await?;
        Ok(services.into_iter().map(|(_, service, _)| service).collect())
    }
}

impl AuthService {
    /// Takes the steps that are due in automatic rotations; to be called every second or so by whoever runs the service.
    ///
    /// # Errors
    /// A step that could not be recorded or written. Nothing of it is in force then; the next call tries again.
    pub async fn rotate_when_due(&self) -> Result<(), ApiError> {
        let inner = self.inner();
        crate::api::detached(async move { inner.rotate_when_due().await }).await
    }
}

/// Services that one event names.
const MAX_NAMED: usize = 100;

/// What an administrator is shown of one authority.
fn status(set: &AuthoritySet, services: &[ServiceContact], now: Timestamp) -> RotationStatus {
    RotationStatus { keys: set.key_places(), ..set.rotation.status(services, now) }
}

fn refusal(cause: &RotationError) -> ApiError {
    match cause {
        RotationError::Grace { .. } => bad_request(cause.to_string()),
        RotationError::Order { .. } | RotationError::Unacknowledged { .. } | RotationError::Automatic { .. } => {
            conflict(cause.to_string())
        }
        other => ApiError::new(ApiErrorKind::Conflict, other.to_string()),
    }
}
