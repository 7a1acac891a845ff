//! How many connections each user has over the whole cluster: services ask before one begins and say now and then which they hold. Owns the table, its
//! bounds and its end by time. What is counted lies on disk as well, so that a restart forgets nothing; the table decides, so that a disk that
//! is full shuts nobody out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use remoteler_core::{
    ConnectionKind, ConnectionLease, HostId, LEASE_LIFE, LeaseAnswer, LeaseReport, LeaseRequest, MAX_LEASES_IN_REPORT,
    SystemRole, Timestamp, UserName, with_causes,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Caller, RecordError,
    failure::{ApiResult, bad_request, rate_limited},
    records::{Records, key},
    service::Inner,
};

/// Connections counted of one host. One that has more does not have them counted: it is its limits of connections that are wrong then.
const MAX_OF_HOST: usize = 10_000;
/// Connections counted in all.
const MAX_IN_ALL: usize = 200_000;
/// How often the whole table is looked over for what has ended by time.
const SWEEP: Duration = Duration::from_secs(60);

/// What is counted.
pub(crate) struct LeaseLedger(Mutex<Table>);

/// Pure: the time comes in, and what has to be written or removed on disk goes out.
#[derive(Default)]
struct Table {
    users: BTreeMap<(UserName, ConnectionKind), BTreeMap<(HostId, Uuid), Timestamp>>,
    of_host: BTreeMap<HostId, usize>,
    swept: Timestamp,
}

/// A connection as it is kept; its key is its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaseRecord {
    host: HostId,
    lease: ConnectionLease,
}

/// Why a connection cannot be counted. It may begin all the same if its host thinks so.
#[derive(Debug, PartialEq, Eq)]
enum Full {
    Host,
    All,
}

impl Table {
    /// Whether `lease` counts from now on, and how many others the user has.
    fn take(
        &mut self,
        host: HostId,
        LeaseRequest { lease, limit }: &LeaseRequest,
        now: Timestamp,
    ) -> Result<LeaseAnswer, Full> {
        self.forget_ended(&(lease.user.clone(), lease.kind), now);
        let mut others = self.users.get(&(lease.user.clone(), lease.kind)).map_or(0, BTreeMap::len);
        if self.has(host, lease) {
            others -= 1;
        }
        let open = u64::try_from(others).unwrap_or(u64::MAX);
        if open >= u64::from(*limit) {
            return Ok(LeaseAnswer { granted: false, open });
        }
        self.keep(host, lease, now)?;
        Ok(LeaseAnswer { granted: true, open })
    }

    fn has(&self, host: HostId, lease: &ConnectionLease) -> bool {
        let of_user = self.users.get(&(lease.user.clone(), lease.kind));
        of_user.is_some_and(|of_user| of_user.contains_key(&(host, lease.id)))
    }

    /// Counts it for as long as nobody need speak of it; whether it was not counted before.
    fn keep(&mut self, host: HostId, lease: &ConnectionLease, now: Timestamp) -> Result<bool, Full> {
        let is_new = !self.has(host, lease);
        if is_new {
            if self.of_host.get(&host).is_some_and(|count| *count >= MAX_OF_HOST) {
                return Err(Full::Host);
            }
            if self.of_host.values().sum::<usize>() >= MAX_IN_ALL {
                return Err(Full::All);
            }
            *self.of_host.entry(host).or_default() += 1;
        }
        let of_user = self.users.entry((lease.user.clone(), lease.kind)).or_default();
        of_user.insert((host, lease.id), now.plus(LEASE_LIFE));
        Ok(is_new)
    }

    /// Whether it was counted.
    fn release(&mut self, host: HostId, lease: &ConnectionLease) -> bool {
        let of = (lease.user.clone(), lease.kind);
        let Some(of_user) = self.users.get_mut(&of) else { return false };
        let was = of_user.remove(&(host, lease.id)).is_some();
        if of_user.is_empty() {
            self.users.remove(&of);
        }
        if was {
            self.one_less(host);
        }
        was
    }

    fn one_less(&mut self, host: HostId) {
        if let Some(count) = self.of_host.get_mut(&host) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_host.remove(&host);
            }
        }
    }

    /// Ids of those of one user that nobody spoke of for too long.
    fn forget_ended(&mut self, of: &(UserName, ConnectionKind), now: Timestamp) -> Vec<Uuid> {
        let Some(of_user) = self.users.get_mut(of) else { return Vec::new() };
        let ended: Vec<_> = of_user.iter().filter(|(_, end)| **end <= now).map(|(at, _)| *at).collect();
        for at in &ended {
            of_user.remove(at);
        }
        if of_user.is_empty() {
            self.users.remove(of);
        }
        ended.iter().for_each(|(host, _)| self.one_less(*host));
        ended.into_iter().map(|(_, id)| id).collect()
    }

    /// Now and then everything that has ended by time, for those of whom nobody asks any more.
    fn sweep(&mut self, now: Timestamp) -> bool {
        if now.since(self.swept) < SWEEP && self.swept <= now {
            return false;
        }
        self.swept = now;
        let users: Vec<_> = self.users.keys().cloned().collect();
        for of in users {
            self.forget_ended(&of, now);
        }
        true
    }
}

impl LeaseLedger {
    /// As it was when the service ended. Who holds what says so within a minute; the rest has ended meanwhile.
    pub(crate) async fn open(records: &Records, now: Timestamp) -> Result<Self, RecordError> {
        let mut table = Table { swept: now, ..Table::default() };
        for (_, LeaseRecord { host, lease }, _) in records.list::<LeaseRecord>(key::LEASES).await? {
            if table.keep(host, &lease, now).is_err() {
                tracing::warn!(%host, "more connections were counted than can be; some are not");
            }
        }
        Ok(Self(Mutex::new(table)))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    pub(crate) async fn take_lease(&self, caller: &Caller, request: LeaseRequest) -> ApiResult<LeaseAnswer> {
        let host = self.counting_host(caller, [request.lease.kind].into()).await?;
        let answer = self.leases.lock().take(host, &request, self.clock.now());
        let answer = answer.map_err(|full| refused(host, &full))?;
        if answer.granted {
            self.write_lease(host, &request.lease).await;
        }
        Ok(answer)
    }

    pub(crate) async fn report_leases(&self, caller: &Caller, report: LeaseReport) -> ApiResult<()> {
        let LeaseReport { held, released } = report;
        if held.len() + released.len() > MAX_LEASES_IN_REPORT {
            return Err(bad_request(format!(
                "{} connections in one report, at most {MAX_LEASES_IN_REPORT} are possible; send several",
                held.len() + released.len()
            )));
        }
        let kinds: BTreeSet<_> = held.iter().chain(&released).map(|lease| lease.kind).collect();
        let host = self.counting_host(caller, kinds).await?;
        let now = self.clock.now();
        let (mut new, mut gone, mut full) = (Vec::new(), Vec::new(), None);
        let swept = {
            let mut table = self.leases.lock();
            gone.extend(released.into_iter().filter(|lease| table.release(host, lease)).map(|lease| lease.id));
            for lease in held {
                match table.keep(host, &lease, now) {
                    // Forgotten, or begun while nobody could be asked. It runs, so it counts, whatever the limit.
                    Ok(true) => new.push(lease),
                    Ok(false) => {}
                    Err(cause) => full = Some(cause),
                }
            }
            table.sweep(now)
        };
        for lease in &new {
            self.write_lease(host, lease).await;
        }
        for id in gone {
            self.remove_lease(id).await;
        }
        if swept {
            self.remove_ended_leases().await;
        }
        full.map_or(Ok(()), |full| Err(refused(host, &full)))
    }

    /// The host that calls, if it may count connections of these kinds.
    async fn counting_host(&self, caller: &Caller, kinds: BTreeSet<ConnectionKind>) -> ApiResult<HostId> {
        let Caller::Host { host, .. } = caller else {
            return Err(self.refuse(caller, "count connections").await); // I66
        };
        for kind in kinds {
            let role = match kind {
                ConnectionKind::Ssh => SystemRole::Node,
                ConnectionKind::Kube => SystemRole::Kube,
            };
            self.admit_host(caller, role, "count connections").await?;
        }
        Ok(host.identity().id)
    }

    /// That it is not on disk is no reason to keep anybody out: a restart forgets it then until its host speaks of it.
    async fn write_lease(&self, host: HostId, lease: &ConnectionLease) {
        let record = LeaseRecord { host, lease: lease.clone() };
        if let Err(cause) = self.records.write(&key::of(key::LEASES, lease.id), &record, None).await {
            tracing::warn!(cause = with_causes(&cause), "a counted connection is not on disk");
        }
    }

    async fn remove_lease(&self, id: Uuid) {
        if let Err(cause) = self.records.delete(&key::of(key::LEASES, id)).await {
            tracing::debug!(
                cause = with_causes(&cause),
                "a connection that has ended stays on disk until it is looked for"
            );
        }
    }

    /// Removes from disk what the table does not have any more.
    async fn remove_ended_leases(&self) {
        let kept = match self.records.list::<LeaseRecord>(key::LEASES).await {
            Ok(kept) => kept,
            Err(cause) => return tracing::warn!(cause = with_causes(&cause), "counted connections are not read"),
        };
        for (_, LeaseRecord { host, lease }, _) in kept {
            let counts = self.leases.lock().has(host, &lease);
            if !counts {
                self.remove_lease(lease.id).await;
            }
        }
    }
}

fn refused(host: HostId, full: &Full) -> remoteler_core::ApiError {
    let (most, of) = match full {
        Full::Host => (MAX_OF_HOST, "of one host"),
        Full::All => (MAX_IN_ALL, "in all"),
    };
    tracing::warn!(%host, most, "connections {of} are more than can be counted");
    rate_limited(format!(
        "more than {most} connections {of} are not counted; raise the limits in roles, or remove them"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 2;

    fn host(number: u128) -> HostId {
        HostId::from_uuid(Uuid::from_u128(number))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn lease(user: &str, number: u128) -> ConnectionLease {
        ConnectionLease { id: Uuid::from_u128(number), user: user.parse().unwrap(), kind: ConnectionKind::Ssh }
    }

    fn asks(user: &str, number: u128) -> LeaseRequest {
        LeaseRequest { lease: lease(user, number), limit: LIMIT }
    }

    #[test]
    fn a_user_has_as_many_as_the_limit_says_over_all_hosts_and_kinds_count_apart() {
        let mut table = Table::default();
        let granted =
            |table: &mut Table, host, request: &LeaseRequest| table.take(host, request, at(0)).unwrap().granted;
        assert!(granted(&mut table, host(1), &asks("ann", 1)));
        assert!(granted(&mut table, host(2), &asks("ann", 2)));
        assert_eq!(table.take(host(2), &asks("ann", 3), at(0)), Ok(LeaseAnswer { granted: false, open: 2 }));
        assert!(granted(&mut table, host(1), &asks("bob", 4)), "another user");
        let mut kube = asks("ann", 5);
        kube.lease.kind = ConnectionKind::Kube;
        assert!(granted(&mut table, host(1), &kube), "another kind");
        assert!(granted(&mut table, host(2), &asks("ann", 2)), "asked again, it counts once");

        assert!(table.release(host(1), &lease("ann", 1)));
        assert!(!table.release(host(1), &lease("ann", 1)));
        assert!(!table.release(host(1), &lease("ann", 2)), "that is another host's");
        assert!(granted(&mut table, host(2), &asks("ann", 3)));
    }

    #[test]
    fn what_nobody_speaks_of_ends_after_its_life_and_not_before() {
        let mut table = Table::default();
        let life = i64::try_from(LEASE_LIFE.as_secs()).unwrap();
        for number in [1, 2] {
            table.take(host(1), &asks("ann", number), at(0)).unwrap();
        }
        assert!(!table.take(host(2), &asks("ann", 3), at(life - 1)).unwrap().granted);
        assert_eq!(table.keep(host(1), &lease("ann", 1), at(life - 1)), Ok(false), "its host speaks of one of the two");
        assert!(table.take(host(2), &asks("ann", 3), at(life)).unwrap().granted);
        assert!(!table.take(host(2), &asks("ann", 4), at(life)).unwrap().granted);
        assert_eq!(table.of_host, [(host(1), 1), (host(2), 1)].into());

        // Also of users of whom nobody asks again.
        assert!(table.sweep(at(10 * life)));
        assert!(table.users.is_empty() && table.of_host.is_empty());
    }

    #[test]
    fn what_runs_counts_even_beyond_the_limit_when_its_host_says_so() {
        let mut table = Table::default();
        for number in 1..=3 {
            assert_eq!(table.keep(host(1), &lease("ann", number), at(0)), Ok(true));
        }
        assert_eq!(table.take(host(2), &asks("ann", 9), at(0)), Ok(LeaseAnswer { granted: false, open: 3 }));
    }

    #[test]
    fn one_host_does_not_fill_the_table() {
        let mut table = Table::default();
        for number in 0..MAX_OF_HOST {
            let user = format!("user-{number}");
            table.keep(host(1), &lease(&user, u128::try_from(number).unwrap()), at(0)).unwrap();
        }
        assert_eq!(table.keep(host(1), &lease("one-more", 0), at(0)), Err(Full::Host));
        assert_eq!(table.keep(host(1), &lease("user-7", 7), at(1)), Ok(false), "what counts goes on counting");
        assert_eq!(table.keep(host(2), &lease("one-more", 0), at(0)), Ok(true));
    }
}
