//! Rotating an authority: who asks may, the services are asked who has followed, the event is recorded, the keys change places. The
//! order of phases is the machine's of `remoteler-ca`.

use std::{sync::Arc, time::Duration};

use remoteler_ca::{Authority, KeyMove, RotationError, Step, TokenSigner};
use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, CaKind, Policy, PolicySource, RotateRequest, RotationKind, RotationStatus,
    ServiceContact, Timestamp, TrustAck, TrustAcked, Verb,
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

/// Held by whoever takes a step, from the look at where the rotation stands to the end of what follows from it.
type Turn<'a> = tokio::sync::MutexGuard<'a, ()>;

/// Keys that a step needs.
enum Fresh {
    Authority(Arc<Authority>),
    Token(Box<TokenSigner>),
}

/// What a step has changed.
enum Moved {
    Authority(AuthoritySet),
    Tokens(IdentityTokenKeys),
}

impl Inner {
    /// Remembers which generation of the trust bundle a host acts by.
    pub(crate) async fn acknowledge_trust(&self, caller: &Caller, ack: TrustAck) -> ApiResult<TrustAcked> {
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
        let heartbeat = ack.heartbeat.unwrap_or_default();
        let heeded = self.hear_host(caller, host, ack.instance, Some(heartbeat)).await?;
        let host = host.identity();
        let now = self.clock.now();
        let contact = ServiceContact {
            host_id: host.id,
            name: host.name.clone(),
            roles: host.roles.clone(),
            generation: ack.generation,
            last_contact: now,
            heartbeat,
        };
        self.records.write(&key::of(key::SERVICES, host.id), &contact, Some(now.plus(FORGOTTEN))).await?;
        Ok(TrustAcked { renew: heeded.renew, longest_heartbeat: Some(heeded.longest_heartbeat) })
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
        // One rotation at a time: of two administrators who ask for the same, the second is told what the first has done.
        let turn = self.rotating.lock().await;
        let step = |services: &[ServiceContact]| {
            let (authorities, now) = (self.issuer.authorities(), self.clock.now());
            let generation = authorities.trust().rotation.generation + 1;
            let step = authorities.rotation(kind).step(phase, plan, services, force, generation, now);
            step.map_err(|cause| refusal(&cause))
        };
        let keys = step(&self.services().await?)?.keys();
        let fresh = self.generate(kind, keys, &turn).await?;
        let services = self.services().await?;
        self.take(actor, kind, || step(&services), force, fresh, turn).await?;
        Ok(status(&self.issuer.authorities(), kind, &services, self.clock.now()))
    }

    /// Takes the steps that are due in automatic rotations.
    async fn rotate_when_due(&self) -> ApiResult<()> {
        for kind in RotationKind::ALL {
            let due = |services: &[ServiceContact]| {
                let authorities = self.issuer.authorities();
                let generation = authorities.trust().rotation.generation + 1;
                authorities.rotation(kind).due(services, generation, self.clock.now())
            };
            if due(&[]).is_none() {
                continue; // whoever the services are
            }
            // While a step is taken, which may wait for a token; the next look decides anew.
            let Ok(turn) = self.rotating.try_lock() else { continue };
            let services = self.services().await?;
            let Some(step) = due(&services) else { continue };
            tracing::info!(authority = kind.as_str(), phase = %step.next().phase(), "the rotation goes on by itself");
            let forced = !step.passed_over().is_empty();
            let fresh = self.generate(kind, step.keys(), &turn).await?;
            self.take(AUTOMATIC.to_owned(), kind, || Ok(step), forced, fresh, turn).await?;
        }
        Ok(())
    }

    /// Makes the keys that a step needs, which may take minutes in a token. Nobody else waits for it: [`Inner::changes`] is not held.
    async fn generate(&self, kind: RotationKind, keys: KeyMove, _: &Turn<'_>) -> ApiResult<Option<Fresh>> {
        if keys != KeyMove::Generate {
            return Ok(None);
        }
        let (authorities, keys) = (self.issuer.authorities(), self.issuer.keys());
        let made = match kind.authority() {
            Some(kind) => authorities.set(kind).generate(self.clock.now(), keys).await.map(Fresh::Authority),
            None => IdentityTokenKeys::generate(&self.cluster, keys.ring()).map(|key| Fresh::Token(Box::new(key))),
        };
        made.map(Some).map_err(|cause| failure::authority(&cause))
    }

    /// Decides on the step with [`Inner::changes`] held, records it, writes it, and puts it in force; then destroys what nobody is to believe
    /// any more, which may wait for a token again. Keys that were made for a step which is not taken are destroyed.
    async fn take(
        &self,
        actor: String,
        kind: RotationKind,
        decide: impl FnOnce() -> ApiResult<Step>,
        forced: bool,
        fresh: Option<Fresh>,
        _: Turn<'_>,
    ) -> ApiResult<()> {
        let made = match &fresh {
            Some(Fresh::Authority(made)) => Some(Arc::clone(made)),
            Some(Fresh::Token(_)) | None => None,
        };
        let changes = self.changes.write().await;
        let taken = match decide() {
            Ok(step) => self.put_in_force(actor, kind, step, forced, fresh).await,
            Err(cause) => Err(cause),
        };
        drop(changes);
        if let Err(cause) = taken {
            if let Some(made) = made {
                discard(&made, self.issuer.keys()).await;
            }
            return Err(cause);
        }
        if let Some(kind) = kind.authority() {
            self.destroy_retired(kind).await;
        }
        Ok(())
    }

    /// Only now that nobody is to believe them any more, and the record says so.
    async fn destroy_retired(&self, kind: CaKind) {
        let Some(left) = self.issuer.authorities().set(kind).destroy_retired(self.issuer.keys()).await else { return };
        let _changes = self.changes.write().await;
        let authorities = self.issuer.authorities();
        let set = authorities.set(kind).clone().save_retired(left, &self.records).await;
        self.issuer.replace(authorities.with(set));
    }

    /// [`Inner::changes`] is held by the caller.
    async fn put_in_force(
        &self,
        actor: String,
        kind: RotationKind,
        step: Step,
        forced: bool,
        fresh: Option<Fresh>,
    ) -> ApiResult<()> {
        let authorities = self.issuer.authorities();
        let (next, keys) = (step.next().clone(), step.keys());
        let moved = match (kind.authority(), fresh) {
            (Some(kind), Some(Fresh::Authority(fresh))) => {
                Moved::Authority(authorities.set(kind).moved(next, keys, Some(fresh)))
            }
            (Some(kind), _) => Moved::Authority(authorities.set(kind).moved(next, keys, None)),
            (None, Some(Fresh::Token(fresh))) => Moved::Tokens(authorities.tokens.moved(next, keys, Some(*fresh))),
            (None, _) => Moved::Tokens(authorities.tokens.moved(next, keys, None)),
        };
        let authorities = match self.write(actor, &step, forced, moved).await? {
            Moved::Authority(set) => authorities.with(set),
            Moved::Tokens(keys) => authorities.with_tokens(keys),
        };
        let trust = authorities.trust().clone();
        self.issuer.replace(authorities);
        self.policy.replace(Policy { trust, ..Policy::clone(&self.policy.policy()) });
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
