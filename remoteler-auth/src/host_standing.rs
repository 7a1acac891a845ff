//! Which machine a host is, when two show its certificates: the record of it, the events, the revocations. The judgement is that of
//! [`crate::copies`].

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, CaKind, Heartbeat, HostId, InstanceId, Revision, Revocation, RevocationReason,
    RevocationTarget, Timestamp, VerifiedHost,
};

use crate::{
    Caller,
    copies::{Claimant, CopyReason, IssuedSerials, Standing, Word},
    failure::{ApiResult, conflict},
    records::key,
    service::Inner,
};

/// When the run that speaks for each host was heard last. Not on record, so that a heartbeat writes nothing: after a start of the auth
/// service every run counts as heard at that moment.
#[derive(Debug)]
pub(crate) struct Heard {
    since: Timestamp,
    hosts: Mutex<HashMap<HostId, Timestamp>>,
}

/// What a host is told that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heeded {
    /// It shall renew its certificates.
    pub(crate) renew: bool,
    /// It speaks for the host: what is issued to it is of a new generation.
    pub(crate) speaks: bool,
    /// What it may say at its next word of when it speaks again.
    pub(crate) longest_heartbeat: Heartbeat,
}

/// Past it, hosts that are silent are forgotten: they count as silent anyway.
const MAX_HEARD: usize = 100_000;
/// How often a record that changes at the same moment is read again.
const ATTEMPTS: usize = 16;
/// Who revokes what a copy has; no user name, since those have no `:`.
const REVOKER: &str = "local:copies";

impl Heard {
    pub(crate) fn new(since: Timestamp) -> Self {
        Self { since, hosts: Mutex::default() }
    }

    fn last(&self, host: HostId) -> Timestamp {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(&host).copied().unwrap_or(self.since)
    }

    fn now(&self, host: HostId, now: Timestamp) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MAX_HEARD && !hosts.contains_key(&host) {
            hosts.retain(|_, heard| now.since(*heard) < Heartbeat::LONGEST.silence());
        }
        hosts.insert(host, now);
    }
}

impl Inner {
    /// Judges the word of a host, which says with it when it speaks again, or not. What is refused is audited and, once the host has other certificates, revoked.
    ///
    /// # Errors
    /// [`ApiErrorKind::Copied`] for a copy.
    pub(crate) async fn hear_host(
        &self,
        caller: &Caller,
        host: &VerifiedHost,
        instance: Option<InstanceId>,
        heartbeat: Option<Heartbeat>,
    ) -> ApiResult<Heeded> {
        let identity = host.identity();
        let (id, now) = (identity.id, self.clock.now());
        let remote = caller.address().map(|addr| addr.to_string());
        let who = instance.map(|instance| Claimant { instance, remote: remote.clone(), heartbeat });
        let heard = self.heard.last(id);
        let (word, standing, older) = self
            .change_standing(id, |standing| {
                let word = standing.hear(identity.generation, who.clone(), heard, now);
                let older = match &word {
                    Word::Host { revoke: true, .. } => standing.take_older(),
                    Word::Host { .. } | Word::Newcomer | Word::Copy(_) => Vec::new(),
                };
                (word, standing.clone(), older)
            })
            .await?;
        let event = |remote: Option<String>, reason: CopyReason, of_holder: Option<String>| AuditKind::InstanceCopy {
            host_id: id.to_string(),
            node_name: identity.name.to_string(),
            generation: identity.generation,
            newest: standing.generation(),
            error: reason.as_str().to_owned(),
            remote,
            host: of_holder,
        };
        match word {
            Word::Host { renew, found, .. } => {
                if who.is_some() {
                    self.heard.now(id, now);
                }
                if let Some(copy) = found {
                    tracing::warn!(host = %id, name = %identity.name, copy = copy.remote, "two machines run as one host; the second is refused");
                    self.record(event(copy.remote, CopyReason::Second, remote)).await?;
                }
                self.revoke_issued(older, &format!("a copy of host {} has it", identity.name)).await;
                Ok(Heeded { renew, speaks: who.is_some(), longest_heartbeat: Heartbeat::LONGEST })
            }
            Word::Newcomer => {
                // By when it says that it speaks again, so that the word after that one comes when it may speak for the host, and few before.
                let next = heartbeat.unwrap_or_default().period();
                let rest = standing.silence_left(heard, now).saturating_sub(next);
                let longest_heartbeat = Heartbeat::every(rest + Duration::from_secs(1));
                Ok(Heeded { renew: false, speaks: false, longest_heartbeat })
            }
            Word::Copy(reason) => {
                let message = format!(
                    "another machine is host {} ({id}): {}; if this is the right one, make a token with `tctl nodes rejoin {}` and run \
                     `remoteler rejoin` here",
                    identity.name,
                    reason.as_str(),
                    identity.name
                );
                // Until its certificates are revoked a copy may ask as often as it likes, but is recorded once.
                if reason == CopyReason::Older && self.revoke_shown(host).await {
                    let of_holder = standing.holder().and_then(|holder| holder.remote.clone());
                    self.record(event(remote, reason, of_holder)).await?;
                } else {
                    self.record_attempt(id.to_string(), message.clone(), remote).await?;
                }
                Err(ApiError::new(ApiErrorKind::Copied, message))
            }
        }
    }

    /// Changes the record of a host as a whole; `change` may be called more than once, on what is there then.
    pub(crate) async fn change_standing<T>(
        &self,
        id: HostId,
        change: impl Fn(&mut Standing) -> T + Send,
    ) -> ApiResult<T> {
        let key = key::of(key::STANDINGS, id);
        for _ in 0..ATTEMPTS {
            let found: Option<(Standing, Revision)> = self.records.read_at(&key).await?;
            let before = found.as_ref().map(|(standing, _)| standing.clone()).unwrap_or_default();
            let mut standing = before.clone();
            let outcome = change(&mut standing);
            if standing == before {
                return Ok(outcome);
            }
            let written = match found {
                Some((_, revision)) => self.records.replace(&key, revision, &standing).await,
                None => self.records.create(&key, &standing, None).await,
            };
            match written {
                Ok(_) => return Ok(outcome),
                Err(cause) if cause.is_conflict() => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        Err(conflict(format!("host {id} speaks from many places at this moment; try again")))
    }

    /// Revokes what a copy shows; whether that was news.
    async fn revoke_shown(&self, host: &VerifiedHost) -> bool {
        let Some(serial) = host.shown().serial() else { return true };
        if self.issuer.trust().revoked.contains(&serial) {
            return false;
        }
        // Its other certificates, of this and of earlier generations, are those of a copy too.
        let older = self.change_standing(host.identity().id, Standing::take_older).await.unwrap_or_default();
        let comment = format!("a copy of host {} has it", host.identity().name);
        let mut targets = vec![serial];
        targets.extend(older.iter().flat_map(targets_of));
        self.revoke_all(targets, &comment).await;
        true
    }

    /// Revokes certificates that were issued.
    pub(crate) async fn revoke_issued(&self, issued: Vec<IssuedSerials>, comment: &str) {
        if !issued.is_empty() {
            self.revoke_all(issued.iter().flat_map(targets_of).collect(), comment).await;
        }
    }

    /// A failure is logged and no more: the copy is refused by its generation all the same.
    async fn revoke_all(&self, targets: Vec<RevocationTarget>, comment: &str) {
        let _turn = self.changes.write().await;
        for target in targets {
            if !self.has_room_for_copies() {
                tracing::warn!(%target, "too much is revoked: what a copy of a host has is refused by its generation alone");
                break;
            }
            if let Err(cause) = self.revoke_superseded(target, REVOKER, comment).await {
                tracing::warn!(%cause, %target, "what a copy of a host has was not revoked");
            }
        }
        self.believe_ledger();
    }
}

fn targets_of(issued: &IssuedSerials) -> Vec<RevocationTarget> {
    let authority = CaKind::Host;
    let ssh = issued.ssh.parse().ok().and_then(|serial| RevocationTarget::ssh_serial(authority, serial).ok());
    let tls = issued
        .tls
        .iter()
        .filter_map(|serial| serial.parse().ok().map(|serial| RevocationTarget::TlsSerial { authority, serial }));
    tls.chain(ssh).collect()
}

/// What is revoked because something newer took its place.
pub(crate) fn superseded(target: RevocationTarget, by: &str, comment: &str, since: Timestamp) -> Revocation {
    Revocation {
        target,
        reason: RevocationReason::Superseded,
        comment: comment.to_owned(),
        revoked_by: by.to_owned(),
        since,
        until: None,
    }
}
