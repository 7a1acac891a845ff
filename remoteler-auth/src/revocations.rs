//! Revoking certificates and keys: who asks may, the event is recorded, the record is written, and from then on it stands in the trust bundle
//! that every door verifies by. Owns the records and when they end; the lists for programs that are not ours are made next door.

mod lists;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use remoteler_ca::{MAX_USER_TTL, TlsPublicKey};
use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, CaKind, NewRevocation, Policy, PolicySource, Revocation, RevocationReason,
    RevocationTarget, Revocations, ShownCertificate, Timestamp, TrustBundle, UserName, Verb, steers_terminal,
};
use ssh_key::PublicKey;

use self::lists::PublishedLists;
use crate::{
    AuthService, Caller, RecordError,
    authorities::Authorities,
    failure::{ApiResult, bad_request, conflict, not_found, unauthenticated},
    host_standing::superseded,
    records::{Records, key},
    service::Inner,
};

/// What roles call the authorities.
const RESOURCE: &str = "cert_authority";
/// Most that is revoked at once: every service keeps all of it, and every list holds it.
const MAX_REVOKED: usize = 10_000;
/// Most records that are deleted while nothing else changes.
const FORGOTTEN_AT_ONCE: usize = 100;
const MAX_COMMENT: usize = 200;
const MAX_TTL: u64 = 10 * 366 * 86_400;
/// A user's certificate ends so long after its issue at the latest; the clocks of those who look may be behind by the rest.
const USERS_END: Duration = MAX_USER_TTL.saturating_add(Duration::from_secs(120));

/// What is revoked, as the process knows it. Changed under [`Inner::changes`] alone.
#[derive(Default)]
pub(crate) struct Ledger {
    revoked: Mutex<Revoked>,
    lists: PublishedLists,
}

#[derive(Clone, Default)]
struct Revoked {
    records: BTreeMap<RevocationTarget, Revocation>,
    /// Grows with each change.
    generation: u64,
}

impl Ledger {
    /// As it was when the service ended; what has ended meanwhile is gone.
    pub(crate) async fn open(records: &Records) -> Result<Self, RecordError> {
        let stored = records.list::<Revocation>(key::REVOCATIONS).await?;
        let records = stored.into_iter().map(|(_, revocation, _)| (revocation.target, revocation)).collect();
        Ok(Self { revoked: Mutex::new(Revoked { records, generation: 0 }), lists: PublishedLists::default() })
    }

    /// For the trust bundle.
    pub(crate) fn targets(&self) -> Revocations {
        self.lock().records.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Revoked> {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<RevocationTarget, Revocation>)) {
        let mut revoked = self.lock();
        change(&mut revoked.records);
        revoked.generation += 1;
    }
}

impl Inner {
    pub(crate) async fn revoke(&self, caller: &Caller, wanted: NewRevocation) -> ApiResult<Revocation> {
        let actor = self.admit(caller, RESOURCE, Verb::Update).await?;
        let NewRevocation { target, reason, comment, ttl_seconds } = wanted;
        if comment.chars().count() > MAX_COMMENT || comment.chars().any(steers_terminal) {
            return Err(bad_request(format!("a comment has at most {MAX_COMMENT} characters on one line")));
        }
        if let Some(ttl) = ttl_seconds.filter(|ttl| !(1..=MAX_TTL).contains(ttl)) {
            return Err(bad_request(format!("a revocation lasts 1 second to ten years, {ttl} seconds were asked for")));
        }
        // One change at a time, so that what is counted is what is there.
        let _turn = self.changes.write().await;
        if is_authority(&self.issuer.trust(), target) {
            return Err(bad_request("this is the key of an authority of the cluster; replace it: tctl auth rotate"));
        }
        let now = self.clock.now();
        let (known, count) = {
            let revoked = self.ledger.lock();
            (revoked.records.get(&target).cloned(), revoked.records.len())
        };
        if known.is_none() && count >= MAX_REVOKED {
            return Err(conflict(format!(
                "{MAX_REVOKED} certificates and keys are revoked, more is not possible; take some back with tctl auth unrevoke, or replace the authority: those of serials that were made before go with it"
            )));
        }
        let until = match (ttl_seconds, target) {
            (Some(ttl), _) => Some(now.plus(Duration::from_secs(ttl))),
            (None, RevocationTarget::SshSerial { authority, .. } | RevocationTarget::TlsSerial { authority, .. }) => {
                (authority == CaKind::User).then(|| now.plus(USERS_END))
            }
            (None, RevocationTarget::SshKey(_) | RevocationTarget::TlsKey(_)) => None,
        };
        // Not before the begin of a rotation that goes on, also with a clock that was set back: see `is_of_retired`.
        let begun =
            authority_of(target).and_then(|authority| self.issuer.authorities().set(authority).rotation.begun());
        let since = known.map_or(now.max(begun.unwrap_or(now)), |known| known.since);
        self.record(AuditKind::CertRevocationCreate {
            user: actor.clone(),
            name: target.to_string(),
            reason: reason.as_str().into(),
            comment: comment.clone(),
            expires: until,
        })
        .await?;
        let revocation = Revocation { target, reason, comment, revoked_by: actor, since, until };
        self.records.write(&key::of(key::REVOCATIONS, target), &revocation, until).await?;
        self.ledger.change(|records| drop(records.insert(target, revocation.clone())));
        self.believe_ledger();
        Ok(revocation)
    }

    /// Revokes what something newer took the place of, on nobody's order. [`Inner::changes`] is held by the caller, who then puts the ledger
    /// into force.
    pub(crate) async fn revoke_superseded(&self, target: RevocationTarget, by: &str, comment: &str) -> ApiResult<()> {
        {
            let revoked = self.ledger.lock();
            if revoked.records.contains_key(&target) {
                return Ok(());
            }
            if revoked.records.len() >= MAX_REVOKED {
                return Err(conflict(format!("{MAX_REVOKED} certificates and keys are revoked, more is not possible")));
            }
        }
        let now = self.clock.now();
        let begun =
            authority_of(target).and_then(|authority| self.issuer.authorities().set(authority).rotation.begun());
        let revocation = superseded(target, by, comment, now.max(begun.unwrap_or(now)));
        self.record(AuditKind::CertRevocationCreate {
            user: by.to_owned(),
            name: target.to_string(),
            reason: revocation.reason.as_str().into(),
            comment: comment.to_owned(),
            expires: None,
        })
        .await?;
        self.records.write(&key::of(key::REVOCATIONS, target), &revocation, None).await?;
        self.ledger.change(|records| drop(records.insert(target, revocation)));
        Ok(())
    }

    pub(crate) async fn revocations(&self, caller: &Caller) -> ApiResult<Vec<Revocation>> {
        self.admit(caller, RESOURCE, Verb::Read).await?;
        Ok(self.ledger.lock().records.values().cloned().collect())
    }

    pub(crate) async fn unrevoke(&self, caller: &Caller, target: RevocationTarget) -> ApiResult<()> {
        let actor = self.admit(caller, RESOURCE, Verb::Update).await?;
        let _turn = self.changes.write().await;
        if !self.ledger.lock().records.contains_key(&target) {
            return Err(not_found(format!("{target} is not revoked; tctl auth revoked lists what is")));
        }
        self.record(AuditKind::CertRevocationDelete { user: actor, name: target.to_string() }).await?;
        self.records.delete(&key::of(key::REVOCATIONS, target)).await?;
        self.ledger.change(|records| drop(records.remove(&target)));
        self.believe_ledger();
        Ok(())
    }

    /// Whether the service may revoke by itself: the last quarter of the room is for administrators.
    pub(crate) fn has_room_for_copies(&self) -> bool {
        self.ledger.lock().records.len() < MAX_REVOKED / 4 * 3
    }

    /// Revokes what a user holds who is removed; [`Inner::changes`] is held by the caller. What was revoked before a failure stays revoked.
    pub(crate) async fn revoke_all_of(&self, actor: &str, user: &UserName) -> ApiResult<()> {
        self.revoke_certificates_of(actor, user, format!("user {user} was removed")).await
    }

    /// The same, for another reason. [`Inner::changes`] is held by the caller.
    pub(crate) async fn revoke_certificates_of(&self, actor: &str, user: &UserName, why: String) -> ApiResult<()> {
        let outcome = self.revoke_each_of(actor, user, why).await;
        self.believe_ledger();
        outcome
    }

    /// Whether this is revoked.
    pub(crate) fn is_revoked(&self, target: RevocationTarget) -> bool {
        self.ledger.lock().records.contains_key(&target)
    }

    async fn revoke_each_of(&self, actor: &str, user: &UserName, comment: String) -> ApiResult<()> {
        let held = self.live_certificates(user).await?;
        let fresh: BTreeMap<_, _> = {
            let revoked = self.ledger.lock();
            let fresh = held.into_iter().filter(|held| !revoked.records.contains_key(&held.target));
            let fresh: BTreeMap<_, _> = fresh.map(|held| (held.target, held.expires)).collect();
            if revoked.records.len() + fresh.len() > MAX_REVOKED {
                return Err(conflict(format!(
                    "user {user} holds {} certificates, and no more than {MAX_REVOKED} can be revoked; lock the user and remove them when the certificates have ended",
                    fresh.len()
                )));
            }
            fresh
        };
        let reason = RevocationReason::PrivilegeWithdrawn;
        for (target, expires) in fresh {
            let (now, until) = (self.clock.now(), Some(expires));
            self.record(AuditKind::CertRevocationCreate {
                user: actor.to_owned(),
                name: target.to_string(),
                reason: reason.as_str().into(),
                comment: comment.clone(),
                expires: until,
            })
            .await?;
            let (comment, revoked_by) = (comment.clone(), actor.to_owned());
            let revocation = Revocation { target, reason, comment, revoked_by, since: now, until };
            self.records.write(&key::of(key::REVOCATIONS, target), &revocation, until).await?;
            self.ledger.change(|records| drop(records.insert(target, revocation)));
        }
        Ok(())
    }

    /// Lets go of what has ended, which the store does by itself, and of some serials of authorities that are believed no longer.
    async fn drop_ended_revocations(&self) -> ApiResult<()> {
        let now = self.clock.now();
        let ended = |revocation: &Revocation| revocation.until.is_some_and(|until| until <= now);
        {
            let (revoked, authorities) = (self.ledger.lock(), self.issuer.authorities());
            if !revoked.records.values().any(|each| ended(each) || is_of_retired(&authorities, each)) {
                return Ok(());
            }
        }
        let _turn = self.changes.write().await;
        let authorities = self.issuer.authorities();
        let retired: Vec<_> = {
            let revoked = self.ledger.lock();
            let retired = revoked.records.values().filter(|each| !ended(each) && is_of_retired(&authorities, each));
            retired.map(|each| each.target).take(FORGOTTEN_AT_ONCE).collect()
        };
        let mut gone = BTreeSet::new();
        let mut outcome = Ok(());
        for target in retired {
            // No event of its own: that the rotation was completed is one, and says it of all.
            match self.records.delete(&key::of(key::REVOCATIONS, target)).await {
                Ok(_) => gone.insert(target),
                Err(cause) => {
                    outcome = Err(cause.into());
                    break;
                }
            };
        }
        self.ledger.change(|records| records.retain(|target, each| !ended(each) && !gone.contains(target)));
        self.believe_ledger();
        outcome
    }

    /// Puts the ledger into the trust bundle; [`Inner::changes`] is held by the caller.
    pub(crate) fn believe_ledger(&self) {
        let authorities = self.issuer.authorities().revoking(self.ledger.targets());
        let trust = authorities.trust().clone();
        self.issuer.replace(authorities);
        self.policy.replace(Policy { trust, ..Policy::clone(&self.policy.policy()) });
    }

    /// Whether the certificate that a connection was made with is still good: it is not revoked, and its authority was not replaced.
    /// Otherwise the connection ends with this answer.
    pub(crate) async fn still_stands(&self, caller: &Caller) -> ApiResult<()> {
        let shown: &ShownCertificate = match caller {
            Caller::User { user, .. } => user.shown(),
            Caller::Host { host, .. } => host.shown(),
            Caller::Anonymous { .. } | Caller::LocalAdmin => return Ok(()),
        };
        let Err(cause) = self.policy.policy().trust.still_believes(shown) else { return Ok(()) };
        let answer = cause.to_string();
        let remote = caller.address().map(|addr| addr.to_string());
        self.record_attempt(caller.name(), answer.clone(), remote).await?;
        Err(unauthenticated(answer))
    }
}

impl AuthService {
    /// Lets go of revocations that have ended; to be called every second or so by whoever runs the service.
    pub async fn drop_ended_revocations(&self) {
        let inner = self.inner();
        if let Err(cause) = crate::api::detached(async move { inner.drop_ended_revocations().await }).await {
            tracing::warn!(%cause, "revocations of a former authority are kept for now");
        }
    }
}

/// Refuses a key that is revoked: a new certificate for it would be refused everywhere.
pub(crate) fn check_keys(trust: &TrustBundle, ssh: &PublicKey, tls: &TlsPublicKey) -> ApiResult<()> {
    check_ssh_key(trust, ssh)?;
    check_tls_key(trust, tls)
}

/// The same for one key.
pub(crate) fn check_ssh_key(trust: &TrustBundle, key: &PublicKey) -> ApiResult<()> {
    check_key(trust, RevocationTarget::ssh_key(key.key_data()))
}

/// The same for one key.
pub(crate) fn check_tls_key(trust: &TrustBundle, key: &TlsPublicKey) -> ApiResult<()> {
    check_key(trust, RevocationTarget::tls_key(key.as_der()))
}

fn check_key(trust: &TrustBundle, key: RevocationTarget) -> ApiResult<()> {
    if !trust.revoked.contains(&key) {
        return Ok(());
    }
    Err(ApiError::new(
        ApiErrorKind::Denied,
        format!("no certificate was issued: the key is revoked ({key}); make a new key, or take that back"),
    ))
}

fn is_authority(trust: &TrustBundle, target: RevocationTarget) -> bool {
    trust.user.holds(target) || trust.host.holds(target)
}

const fn authority_of(target: RevocationTarget) -> Option<CaKind> {
    match target {
        RevocationTarget::SshSerial { authority, .. } | RevocationTarget::TlsSerial { authority, .. } => {
            Some(authority)
        }
        RevocationTarget::SshKey(_) | RevocationTarget::TlsKey(_) => None,
    }
}

/// Whether the certificate is believed no longer, revoked or not: its serial was revoked before the rotation began that let go of the
/// authority which alone had signed until then.
fn is_of_retired(authorities: &Authorities, revocation: &Revocation) -> bool {
    let before = authority_of(revocation.target).and_then(|kind| authorities.set(kind).rotation.retired_before());
    before.is_some_and(|before| revocation.since < before)
}

/// What of one authority is revoked now.
fn of_authority(records: &BTreeMap<RevocationTarget, Revocation>, now: Timestamp) -> impl Iterator<Item = &Revocation> {
    records.values().filter(move |revocation| revocation.until.is_none_or(|until| until > now))
}
