//! The lists of what is revoked, for programs that are not ours: OpenSSH's for `RevokedKeys`, X.509 ones for `-crl_check`. Owns when a list is made
//! anew and its number; `remoteler-ca` writes and signs.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use remoteler_ca::{CaError, Krl, RevokeError, RevokedCertificate};
use remoteler_core::{
    ApiError, CaSet, Revocation, RevocationList, RevocationListFormat, RevocationListName, RevocationTarget, Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{Revoked, of_authority};
use crate::{
    authorities::Authorities,
    blocking::blocking,
    failure::{self, ApiResult},
    records::key,
    service::Inner,
};

/// A list is made anew when it is so old, also when nothing has changed.
const FRESH: Duration = Duration::from_secs(3600);
/// How long readers may go on with one: longer than it is fresh, so that a reader who cannot reach us for a day does not stop.
const VALID: Duration = Duration::from_secs(24 * 3600);

/// How long a list that could not be made is not tried again: anybody may ask, and a token that does not answer is not asked by each.
const FAILURE_LASTS: Duration = Duration::from_secs(5);

/// The newest of each. Whoever makes one holds the lock of that name; the others are not kept waiting by it.
#[derive(Default)]
pub(super) struct PublishedLists(std::sync::Mutex<BTreeMap<RevocationListName, Arc<Mutex<Newest>>>>);

impl PublishedLists {
    fn of(&self, name: RevocationListName) -> Arc<Mutex<Newest>> {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default())
    }
}

/// What is known of one name.
#[derive(Default)]
struct Newest {
    published: Option<Published>,
    /// Why there is no newer one, and since when.
    failed: Option<(Timestamp, ApiError)>,
}

/// A list, and of what it was made.
struct Published {
    list: RevocationList,
    generation: u64,
    authority: CaSet,
}

/// What is kept of a list: no number is used twice, also over a restart (RFC 5280 section 5.2.3).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LastList {
    number: u64,
}

impl Newest {
    /// What is answered without making anything.
    fn known(&self, generation: u64, authority: &CaSet, now: Timestamp) -> Option<ApiResult<RevocationList>> {
        let fresh = |published: &&Published| {
            published.generation == generation
                && published.authority == *authority
                && (published.list.made..published.list.made.plus(FRESH)).contains(&now)
        };
        if let Some(published) = self.published.as_ref().filter(fresh) {
            return Some(Ok(published.list.clone()));
        }
        let (since, cause) = self.failed.as_ref()?;
        (*since..since.plus(FAILURE_LASTS)).contains(&now).then(|| Err(cause.clone()))
    }
}

impl Inner {
    /// The newest list of that name. Anybody may ask, so one is made at most at each change and once an hour.
    ///
    /// # Cancel safety
    /// Who stops waiting leaves nothing behind but the one making of that name, which the next one waits for.
    pub(crate) async fn revocation_list(self: &Arc<Self>, name: RevocationListName) -> ApiResult<RevocationList> {
        let mut newest = self.ledger.lists.of(name).lock_owned().await;
        let (authorities, mut revoked, now) = (self.issuer.authorities(), self.ledger.lock().clone(), self.clock.now());
        // Both only grow, so their sum stands for both.
        revoked.generation += self.locks.generation();
        let authority = authorities.trust().authority(name.authority).clone();
        if let Some(known) = newest.known(revoked.generation, &authority, now) {
            return known;
        }
        // In a task that has the lock: however many stop waiting for a slow token, it is asked by one of them.
        let inner = Arc::clone(self);
        crate::api::detached(async move {
            let generation = revoked.generation;
            for locked in inner.locked_certificates(now).await? {
                revoked.records.entry(locked.target).or_insert(locked);
            }
            match inner.make_list(name, authorities, revoked, now).await {
                Ok(list) => {
                    *newest = Newest {
                        published: Some(Published { list: list.clone(), generation, authority }),
                        failed: None,
                    };
                    Ok(list)
                }
                Err(cause) => {
                    newest.failed = Some((inner.clock.now(), cause.clone()));
                    Err(cause)
                }
            }
        })
        .await
    }

    async fn make_list(
        &self,
        name: RevocationListName,
        authorities: Arc<Authorities>,
        revoked: Revoked,
        now: Timestamp,
    ) -> ApiResult<RevocationList> {
        let record = key::of(key::REVOCATION_LISTS, name);
        let last = self.records.read::<LastList>(&record).await?.map_or(0, |last| last.number);
        // By the clock, so that a database restored from a copy does not count the same numbers again.
        let number = now.unix_seconds_unsigned().max(last.saturating_add(1));
        let list = blocking(move || make(name, number, &authorities, &revoked, now)).await?;
        // Before anybody sees it, and only for one that there is.
        self.records.write(&record, &LastList { number }, None).await?;
        Ok(list)
    }
}

fn make(
    name: RevocationListName,
    number: u64,
    authorities: &Authorities,
    revoked: &Revoked,
    now: Timestamp,
) -> ApiResult<RevocationList> {
    let files = match name.format {
        RevocationListFormat::Krl => {
            let list = krl(name, number, authorities, revoked, now);
            vec![list.map_err(|cause| failure::revocation_list(&cause))?.to_bytes()]
        }
        RevocationListFormat::Crl => {
            let lists = crls(name, number, authorities, revoked, now);
            lists.map_err(|cause| failure::authority(&cause))?
        }
    };
    Ok(RevocationList { name, number, made: now, next_update: now.plus(VALID), files })
}

/// Serials count for each key that the authority has: which of them signed, a serial does not say, and no two of its serials are the same.
fn krl(
    name: RevocationListName,
    number: u64,
    authorities: &Authorities,
    revoked: &Revoked,
    now: Timestamp,
) -> Result<Krl, RevokeError> {
    let trust = authorities.trust();
    let mut krl = Krl::new(number, now, format!("{} {name}", trust.cluster));
    for Revocation { target, .. } in of_authority(&revoked.records, now) {
        match target {
            RevocationTarget::SshSerial { authority, serial } if *authority == name.authority => {
                for key in &trust.authority(*authority).ssh {
                    krl.revoke_serial(key.key_data(), *serial)?;
                }
            }
            RevocationTarget::SshKey(digest) => krl.revoke_fingerprint(*digest),
            RevocationTarget::SshSerial { .. } | RevocationTarget::TlsSerial { .. } | RevocationTarget::TlsKey(_) => {}
        }
    }
    Ok(krl)
}

/// One for each key of the authority. X.509 knows serials only: a key that is revoked is in none of them.
fn crls(
    name: RevocationListName,
    number: u64,
    authorities: &Authorities,
    revoked: &Revoked,
    now: Timestamp,
) -> Result<Vec<Vec<u8>>, CaError> {
    let mut certificates = Vec::new();
    for Revocation { target, reason, since, .. } in of_authority(&revoked.records, now) {
        if let RevocationTarget::TlsSerial { authority, serial } = target
            && *authority == name.authority
        {
            let serial = serial.octets().to_vec();
            certificates.push(RevokedCertificate { serial, since: *since, reason: *reason });
        }
    }
    let list = remoteler_ca::RevocationList { number, valid_for: VALID, certificates };
    authorities.set(name.authority).believed().map(|authority| authority.sign_revocation_list(&list, now)).collect()
}
