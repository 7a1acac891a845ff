//! The lists of what is revoked, for programs that are not ours: OpenSSH's for `RevokedKeys`, X.509 ones for `-crl_check`. Owns when a list is made
//! anew and its number; `remoteler-ca` writes and signs.

use std::{collections::BTreeMap, time::Duration};

use remoteler_ca::{CaError, Krl, Reason, RevokeError, RevokedCertificate};
use remoteler_core::{
    CaSet, Revocation, RevocationList, RevocationListFormat, RevocationListName, RevocationReason, RevocationTarget,
    Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{Revoked, of_authority};
use crate::{
    authorities::Authorities,
    failure::{self, ApiResult},
    records::key,
    service::Inner,
};

/// A list is made anew when it is so old, also when nothing has changed.
const FRESH: Duration = Duration::from_secs(3600);
/// How long readers may go on with one: longer than it is fresh, so that a reader who cannot reach us for a day does not stop.
const VALID: Duration = Duration::from_secs(24 * 3600);

/// The newest of each.
#[derive(Default)]
pub(super) struct PublishedLists(Mutex<BTreeMap<RevocationListName, Published>>);

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

impl Inner {
    /// The newest list of that name. Anybody may ask, so one is made at most at each change and once an hour.
    pub(crate) async fn revocation_list(&self, name: RevocationListName) -> ApiResult<RevocationList> {
        let mut lists = self.ledger.lists.0.lock().await;
        let (authorities, revoked, now) = (self.issuer.authorities(), self.ledger.lock().clone(), self.clock.now());
        let authority = authorities.trust().authority(name.authority);
        if let Some(Published { list, .. }) = lists.get(&name).filter(|published| {
            published.generation == revoked.generation
                && published.authority == *authority
                && (published.list.made..published.list.made.plus(FRESH)).contains(&now)
        }) {
            return Ok(list.clone());
        }
        let record = key::of(key::REVOCATION_LISTS, name);
        let last = self.records.read::<LastList>(&record).await?.map_or(0, |last| last.number);
        // By the clock, so that a database restored from a copy does not count the same numbers again.
        let number = now.unix_seconds_unsigned().max(last.saturating_add(1));
        self.records.write(&record, &LastList { number }, None).await?;
        let (generation, authority) = (revoked.generation, authority.clone());
        let made = tokio::task::spawn_blocking(move || make(name, number, &authorities, &revoked, now)).await;
        let list = match made {
            Ok(made) => made?,
            Err(cause) => std::panic::resume_unwind(cause.into_panic()),
        };
        lists.insert(name, Published { list: list.clone(), generation, authority });
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
    for Revocation { target, reason: why, since, .. } in of_authority(&revoked.records, now) {
        if let RevocationTarget::TlsSerial { authority, serial } = target
            && *authority == name.authority
        {
            let serial = serial.octets().to_vec();
            certificates.push(RevokedCertificate { serial, since: *since, reason: reason(*why) });
        }
    }
    let list = remoteler_ca::RevocationList { number, valid_for: VALID, certificates };
    authorities.set(name.authority).believed().map(|authority| authority.sign_revocation_list(&list, now)).collect()
}

const fn reason(reason: RevocationReason) -> Reason {
    match reason {
        RevocationReason::Unspecified => Reason::Unspecified,
        RevocationReason::KeyCompromise => Reason::KeyCompromise,
        RevocationReason::AffiliationChanged => Reason::AffiliationChanged,
        RevocationReason::Superseded => Reason::Superseded,
        RevocationReason::CessationOfOperation => Reason::CessationOfOperation,
        RevocationReason::PrivilegeWithdrawn => Reason::PrivilegeWithdrawn,
    }
}
