//! Rotating an authority: who asks may, the services are asked who has followed, the event is recorded, the keys change places. The
//! order of phases is the machine's of `remoteler-ca`.

use std::time::Duration;

use remoteler_ca::{KeyMove, RotationError, Step};
use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, Policy, PolicySource, RotateRequest, RotationKind, RotationStatus,
    ServiceContact, Timestamp, TrustAck, Verb,
};

use crate::{
    AuthService, Caller,
    authorities::{Authorities, AuthoritySet, discard},
    failure::{self, ApiResult, bad_request, conflict},
    identity_token_keys::IdentityTokenKeys,
    records::key,
    service::Inner,
};

/// What roles call the authorities.
const RESOURCE: &str = "cert_authority";
/// How steps that follow by themselves are called in the audit log; no user name, since those have no `:`.
const AUTOMATIC: &str = "local:rotation";
/// A service that was not heard of for so long is forgotten: nobody waits for it any more.
const FORGOTTEN: Duration = Duration::from_secs(30 * 86_400);

/// What a step has changed.
enum Moved {
    Authority(AuthoritySet),
    Tokens(IdentityTokenKeys),
}

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
        Ok(RotationKind::ALL.map(|kind| status(&authorities, kind, &services, now)).into())
    }

    pub(crate) async fn rotate(&self, caller: &Caller, request: RotateRequest) -> ApiResult<RotationStatus> {
        let actor = self.admit(caller, RESOURCE, Verb::Update).await?;
        let RotateRequest { kind, phase, plan, force } = request;
        // One step at a time: of two administrators who ask for the same, the second is told what the first has done.
        let _turn = self.changes.write().await;
        let services = self.services().await?;
        let (authorities, now) = (self.issuer.authorities(), self.clock.now());
        let generation = authorities.trust().rotation.generation + 1;
        let step = authorities.rotation(kind).step(phase, plan, &services, force, generation, now);
        self.take(actor, kind, step.map_err(|cause| refusal(&cause))?, force).await?;
        Ok(status(&self.issuer.authorities(), kind, &services, now))
    }

    /// Takes the steps that are due in automatic rotations.
    async fn rotate_when_due(&self) -> ApiResult<()> {
        for kind in RotationKind::ALL {
            let authorities = self.issuer.authorities();
            let now = self.clock.now();
            let generation = authorities.trust().rotation.generation + 1;
            let due = |services: &[ServiceContact]| authorities.rotation(kind).due(services, generation, now);
            if due(&[]).is_none() {
                continue; // whoever the services are
            }
            let _turn = self.changes.write().await;
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
    async fn take(&self, actor: String, kind: RotationKind, step: Step, forced: bool) -> ApiResult<()> {
        let authorities = self.issuer.authorities();
        let generates = step.keys() == KeyMove::Generate;
        let failed = |cause| failure::authority(&cause);
        let (next, keys, issuer) = (step.next().clone(), step.keys(), &self.issuer);
        // The keys that a step needs are there before the event says that it is taken.
        let (moved, fresh) = match kind.authority() {
            Some(kind) => {
                let set = authorities.set(kind);
                let fresh = if generates {
                    Some(set.generate(self.clock.now(), issuer.keys()).await.map_err(failed)?)
                } else {
                    None
                };
                (Moved::Authority(set.moved(next, keys, fresh.clone())), fresh)
            }
            None => {
                let fresh = generates.then(|| IdentityTokenKeys::generate(&self.cluster, issuer.keys().ring()));
                (Moved::Tokens(authorities.tokens.moved(next, keys, fresh.transpose().map_err(failed)?)), None)
            }
        };
        let moved = match self.write(actor, &step, forced, moved).await {
            Ok(moved) => moved,
            Err(cause) => {
                if let Some(fresh) = fresh {
                    discard(&fresh, issuer.keys()).await;
                }
                return Err(cause);
            }
        };
        let authorities = match &moved {
            Moved::Authority(set) => authorities.with(set.clone()),
            Moved::Tokens(keys) => authorities.with_tokens(keys.clone()),
        };
        let trust = authorities.trust().clone();
        issuer.replace(authorities);
        let roles = self.policy.policy().roles.clone();
        self.policy.replace(Policy { trust, roles });
        if let Moved::Authority(set) = moved {
            // Only now that nobody is to believe them any more, and the record says so.
            let cleaned = set.destroy_retired(&self.records, issuer.keys()).await;
            issuer.replace(issuer.authorities().with(cleaned));
        }
        Ok(())
    }

    /// Records the step and writes it.
    async fn write(&self, actor: String, step: &Step, forced: bool, moved: Moved) -> ApiResult<Moved> {
        self.record(AuditKind::CaRotate {
            user: actor,
            ca_type: step.next().kind().as_str().into(),
            phase: step.next().phase().to_string(),
            generation: step.next().generation(),
            forced: forced && !step.passed_over().is_empty(),
            passed_over: step.passed_over().iter().take(MAX_NAMED).map(|service| service.name.to_string()).collect(),
        })
        .await?;
        Ok(match moved {
            Moved::Authority(set) => Moved::Authority(set.save(&self.records).await?),
            Moved::Tokens(keys) => Moved::Tokens(keys.save(&self.records).await?),
        })
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

/// What an administrator is shown of one rotation.
fn status(
    authorities: &Authorities,
    kind: RotationKind,
    services: &[ServiceContact],
    now: Timestamp,
) -> RotationStatus {
    let keys = kind.authority().map(|kind| authorities.set(kind).key_places()).unwrap_or_default();
    RotationStatus { keys, ..authorities.rotation(kind).status(services, now) }
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
