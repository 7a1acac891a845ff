//! Locks: who asks may, the event is recorded, the record is written, and from then on it stands in every service's view of the rules. Owns the
//! records and when they end; what a lock concerns is core's to say.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use remoteler_ca::MAX_USER_TTL;
use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, CaKind, EventQuery, Labels, Lock, LockContext, LockSpec, LockTarget, Locks,
    Metadata, Policy, PolicySource, Resource, ResourceKind, Revocation, RevocationReason, RevocationTarget, Timestamp,
    UserName, parse_duration, steers_terminal, wire,
};
use serde::{Deserialize, Serialize};

use crate::{
    AuthService, Caller, RecordError,
    failure::{ApiResult, bad_request, conflict, not_found},
    records::{Records, key},
    service::Inner,
};

/// Most locks at once: every service keeps all of them.
const MAX_LOCKS: usize = 2000;
const MAX_NAME: usize = 64;
const MAX_TEXT: usize = 400;
/// So far back may the issue of a user's certificate be that has not ended, with something for clocks that differ.
const LOOK_BACK: Duration = MAX_USER_TTL.saturating_add(Duration::from_secs(3600));
/// Events asked for at once.
const PAGE: usize = 10_000;

/// What is locked, as the process knows it. Changed under [`Inner::changes`] alone.
#[derive(Default)]
pub(crate) struct LockLedger(Mutex<Held>);

#[derive(Default)]
struct Held {
    records: BTreeMap<String, LockRecord>,
    /// Grows with each change.
    generation: u64,
}

/// A lock as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockRecord {
    lock: Lock,
    /// Why, for administrators.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    created_by: String,
    created_at: Timestamp,
}

/// A certificate of a user that has not ended.
pub(crate) struct LiveCertificate {
    pub(crate) target: RevocationTarget,
    pub(crate) expires: Timestamp,
}

impl LockLedger {
    /// As it was when the service ended; what has ended meanwhile is gone.
    pub(crate) async fn open(records: &Records) -> Result<Self, RecordError> {
        let stored = records.list::<LockRecord>(key::LOCKS).await?;
        let records = stored.into_iter().map(|(name, record, _)| (name, record)).collect();
        Ok(Self(Mutex::new(Held { records, generation: 0 })))
    }

    /// For the view of the rules.
    pub(crate) fn locks(&self, now: Timestamp) -> Locks {
        let in_force = |lock: &&LockRecord| lock.lock.expires.is_none_or(|end| end > now);
        self.lock().records.values().filter(in_force).map(|record| record.lock.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, LockRecord>)) {
        let mut held = self.lock();
        change(&mut held.records);
        held.generation += 1;
    }

    pub(crate) fn generation(&self) -> u64 {
        self.lock().generation
    }
}

impl Inner {
    /// Writes a lock; [`Inner::changes`] is held by the caller.
    pub(crate) async fn write_lock(&self, actor: String, document: Resource, replace: bool) -> ApiResult<()> {
        let now = self.clock.now();
        let LockRecord { lock, reason, .. } = check(document, actor.clone(), now)?;
        let (known, count) = {
            let held = self.locks.lock();
            (held.records.get(&lock.name).cloned(), held.records.len())
        };
        if known.is_some() && !replace {
            return Err(conflict(format!("lock {} exists already; use tctl create -f to replace it", lock.name)));
        }
        if known.is_none() && count >= MAX_LOCKS {
            return Err(conflict(format!(
                "there are {MAX_LOCKS} locks, more is not possible; remove some with tctl rm lock/NAME, or lock a role instead of its users"
            )));
        }
        self.record(AuditKind::LockCreated {
            user: actor.clone(),
            name: lock.name.clone(),
            target: lock.target.clone(),
            message: lock.message.clone(),
            reason: reason.clone(),
            expires: lock.expires,
        })
        .await?;
        let record = LockRecord { lock, reason, created_by: actor, created_at: now };
        let (name, expires) = (record.lock.name.clone(), record.lock.expires);
        self.records.write(&key::of(key::LOCKS, &name), &record, expires).await?;
        self.locks.change(|records| drop(records.insert(name, record)));
        self.believe_locks();
        Ok(())
    }

    /// Removes a lock; [`Inner::changes`] is held by the caller.
    pub(crate) async fn delete_lock(&self, actor: String, name: &str) -> ApiResult<()> {
        if !self.locks.lock().records.contains_key(name) {
            let name: String = name.chars().take(80).collect();
            return Err(not_found(format!("there is no lock {name}; tctl locks ls lists them")));
        }
        self.record(AuditKind::LockDeleted { user: actor, name: name.to_owned() }).await?;
        self.records.delete(&key::of(key::LOCKS, name)).await?;
        self.locks.change(|records| drop(records.remove(name)));
        self.believe_locks();
        Ok(())
    }

    pub(crate) fn lock_documents(&self) -> Vec<Resource> {
        let now = self.clock.now();
        let held = self.locks.lock();
        let in_force = |record: &&LockRecord| record.lock.expires.is_none_or(|end| end > now);
        held.records.values().filter(in_force).map(document).collect()
    }

    /// Lets go of what has ended, which the store does by itself.
    async fn drop_ended_locks(&self) {
        let now = self.clock.now();
        let ended = |record: &LockRecord| record.lock.expires.is_some_and(|end| end <= now);
        if !self.locks.lock().records.values().any(ended) {
            return;
        }
        let _turn = self.changes.write().await;
        self.locks.change(|records| records.retain(|_, record| !ended(record)));
        self.believe_locks();
    }

    /// Puts the ledger in force; [`Inner::changes`] is held by the caller.
    fn believe_locks(&self) {
        let locks = self.locks.locks(self.clock.now());
        self.policy.replace(Policy { locks, ..Policy::clone(&self.policy.policy()) });
    }

    /// Refuses what is locked.
    pub(crate) fn check_locks(&self, context: &LockContext<'_>) -> ApiResult<()> {
        let refused = |locked| ApiError::new(ApiErrorKind::Denied, format!("access denied: {locked}"));
        self.policy.policy().check_locks(context).map_err(refused)
    }

    /// Whether a caller from outside may ask for anything; refusals are audited. A host that is locked may ask for the rules, which tell it so
    /// and little else, and hand in what it has to report: what happened there is worth most when it is locked. The services of this process
    /// are not shut out by it, their users are.
    pub(crate) async fn lets_in(&self, caller: &Caller, path: &str) -> ApiResult<()> {
        let context = match caller {
            Caller::User { user, .. } => LockContext::of_user(user),
            Caller::Host { host, addr: Some(_) } if !is_for_the_locked(path) => LockContext::of_host(host),
            Caller::Host { .. } | Caller::Anonymous { .. } | Caller::LocalAdmin => return Ok(()),
        };
        let Err(answer) = self.check_locks(&context) else { return Ok(()) };
        let remote = caller.address().map(|addr| addr.to_string());
        self.record_attempt(caller.name(), answer.message.clone(), remote).await?;
        Err(answer)
    }

    /// The certificates that were issued to a user and have not ended, by the audit log: each is there before it is signed (I75).
    pub(crate) async fn live_certificates(&self, user: &UserName) -> ApiResult<Vec<LiveCertificate>> {
        let issued = self.issued(Some(user)).await?;
        Ok(issued.into_iter().flat_map(|(_, certificates)| certificates).collect())
    }

    /// What locks shut out that programs not ours know by serial or key: what locks name, and the certificates of those who are locked.
    pub(crate) async fn locked_certificates(&self, now: Timestamp) -> ApiResult<Vec<Revocation>> {
        let (mut found, mut holders) = (Vec::new(), Vec::new());
        for record in self.locks.lock().records.values().filter(|each| each.lock.expires.is_none_or(|end| end > now)) {
            let target = &record.lock.target;
            if let Some(serial) = target.serial.filter(|serial| *target == LockTarget::of_serial(*serial)) {
                found.push(revocation(serial, record.created_at, record.lock.expires));
            } else if target.is_of_holders() {
                holders.push(record.clone());
            }
        }
        // One search for each user who is locked; one for all of them when a role or the cluster is.
        let by_user: Option<Vec<UserName>> = holders.iter().map(|record| record.lock.target.user.clone()).collect();
        let mut issued = Vec::new();
        match by_user {
            Some(users) => {
                let users: std::collections::BTreeSet<_> = users.into_iter().collect();
                for user in users {
                    issued.extend(self.issued(Some(&user)).await?);
                }
            }
            None => issued = self.issued(None).await?,
        }
        for (identity, certificates) in issued {
            let context = LockContext::of_identity(&identity);
            let Some(record) = holders.iter().find(|record| record.lock.target.concerns(&context)) else { continue };
            found.extend(certificates.iter().map(|certificate| {
                let until = record.lock.expires.map_or(certificate.expires, |end| end.min(certificate.expires));
                revocation(certificate.target, record.created_at, Some(until))
            }));
        }
        Ok(found)
    }

    /// To whom certificates were issued that have not ended, and their serials.
    async fn issued(
        &self,
        user: Option<&UserName>,
    ) -> ApiResult<Vec<(remoteler_core::UserIdentity, Vec<LiveCertificate>)>> {
        let now = self.clock.now();
        let mut query = EventQuery {
            from: Some(now.minus(LOOK_BACK)),
            event: Some(CERT_CREATE.into()),
            user: user.map(ToString::to_string),
            limit: Some(PAGE),
            ..EventQuery::default()
        };
        let mut issued = Vec::new();
        loop {
            let page = self.events.query(query.clone()).await?;
            let (full, first) = (page.len() >= PAGE, page.first().map(|event| event.time));
            issued.extend(page.into_iter().filter_map(|event| certificates(event.kind, &self.cluster, now)));
            // The newest come first; what is as old as the oldest of them may be cut off by the page, so it is asked for again. A whole page of
            // one millisecond does not happen.
            let next = first.map(|first| first.plus(Duration::from_millis(1)));
            match next.filter(|next| full && query.to != Some(*next)) {
                Some(next) => query.to = Some(next),
                None => return Ok(issued),
            }
        }
    }
}

const CERT_CREATE: &str = "cert.create";

#[expect(clippy::wildcard_enum_match_arm, reason = "the query asks for this kind alone")]
fn certificates(
    kind: AuditKind,
    cluster: &remoteler_core::ClusterName,
    now: Timestamp,
) -> Option<(remoteler_core::UserIdentity, Vec<LiveCertificate>)> {
    match kind {
        AuditKind::CertCreate { cert_type, user, ssh_serial, tls_serial, roles, expires: Some(expires), .. }
            if cert_type == CaKind::User.as_str() && expires > now =>
        {
            let authority = CaKind::User;
            let ssh = ssh_serial.parse().ok().filter(|serial| *serial != 0);
            let ssh = ssh.map(|serial| RevocationTarget::SshSerial { authority, serial });
            let tls = tls_serial.parse().ok().map(|serial| RevocationTarget::TlsSerial { authority, serial });
            let identity = remoteler_core::UserIdentity {
                user: UserName::new(user).ok()?,
                cluster: cluster.clone(),
                roles: roles.into_iter().filter_map(|role| remoteler_core::RoleName::new(role).ok()).collect(),
                traits: Default::default(),
                logins: Vec::new(),
            };
            let certificates = [ssh, tls].into_iter().flatten().map(|target| LiveCertificate { target, expires });
            Some((identity, certificates.collect()))
        }
        _ => None,
    }
}

fn revocation(target: RevocationTarget, since: Timestamp, until: Option<Timestamp>) -> Revocation {
    let (reason, comment, revoked_by) = (RevocationReason::PrivilegeWithdrawn, String::new(), String::new());
    Revocation { target, reason, comment, revoked_by, since, until }
}

impl AuthService {
    /// Lets go of locks that have ended; to be called every second or so by whoever runs the service.
    pub async fn drop_ended_locks(&self) {
        self.inner().drop_ended_locks().await;
    }
}

/// The lock that a document describes.
fn check(document: Resource, actor: String, now: Timestamp) -> ApiResult<LockRecord> {
    let Resource { version, metadata, spec, .. } = document;
    let Metadata { name, description, labels, expires: metadata_expires } = metadata;
    let wrong = |reason: String| bad_request(format!("lock {} is refused: {reason}", name.escape_debug()));
    if !ResourceKind::Lock.versions().contains(&version.as_str()) {
        let version: String = version.chars().take(40).collect();
        return Err(bad_request(format!("version {version:?} of kind lock is not read; v2 is")));
    }
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
        return Err(bad_request(format!("a lock's name has 1 to {MAX_NAME} of A-Z a-z 0-9 . _ -")));
    }
    if !labels.is_empty() {
        return Err(wrong("locks have no labels".into()));
    }
    let LockSpec { target, message, reason, expires, ttl, created_by: _, created_at: _ } =
        serde_json::from_value(spec).map_err(|cause| wrong(format!("its spec: {cause}")))?;
    if target.is_empty() {
        return Err(wrong(
            "it names nothing; give spec.target a user, role, login, node, serial, cluster or kube_cluster".into(),
        ));
    }
    let reason = if reason.is_empty() { description.unwrap_or_default() } else { reason };
    for (field, text) in [("message", &message), ("reason", &reason)] {
        if text.chars().count() > MAX_TEXT || text.chars().any(steers_terminal) {
            return Err(wrong(format!("its {field} has at most {MAX_TEXT} characters on one line")));
        }
    }
    let ttl = match ttl {
        None => None,
        Some(text) => {
            let text: String = text.chars().take(40).collect();
            let ttl = parse_duration(&text);
            Some(ttl.ok_or_else(|| wrong(format!("ttl {text:?} is no duration such as 30s, 12h or 7d")))?)
        }
    };
    let ends: Vec<Timestamp> =
        [expires, metadata_expires, ttl.map(|ttl| now.plus(ttl))].into_iter().flatten().collect();
    let expires = ends.first().copied();
    if ends.iter().any(|end| Some(*end) != expires) {
        return Err(wrong("it says two ends; give spec.expires, metadata.expires or spec.ttl".into()));
    }
    if expires.is_some_and(|end| end <= now) {
        return Err(wrong("its end has passed".into()));
    }
    let lock = Lock { name: name.clone(), target, message, expires };
    Ok(LockRecord { lock, reason, created_by: actor, created_at: now })
}

fn document(record: &LockRecord) -> Resource {
    let LockRecord { lock, reason, created_by, created_at } = record.clone();
    let Lock { name, target, message, expires } = lock;
    let spec = LockSpec {
        target,
        message,
        reason,
        expires,
        ttl: None,
        created_by: Some(created_by),
        created_at: Some(created_at),
    };
    Resource {
        kind: ResourceKind::Lock.as_str().into(),
        version: "v2".into(),
        metadata: Metadata { name, description: None, labels: Labels::new(), expires },
        // Strings, times and maps with string keys always encode.
        spec: serde_json::to_value(spec).unwrap_or_default(),
    }
}
/// What a locked host may still do: hear of the rules, report events, send recordings.
fn is_for_the_locked(path: &str) -> bool {
    path == wire::POLICY || path == wire::EVENTS || path.starts_with("/v1/recordings/")
}
