//! Which application has which public address, for good: an address is claimed in the same write as the announcement that names it, whether its application is there
//! or away, and is free again when an administrator removes that. Owns what may be an application's address at all, and what may be a proxy's name beside them
//! (I28, I51).

use std::time::Duration;

use remoteler_core::{ApiError, AppAddress, AppName, AppRecord, LockContext, PolicySource, Revision};

use crate::{
    Caller,
    failure::{ApiResult, bad_request, conflict},
    inventory::ProxyRecord,
    records::{Batch, key},
    service::Inner,
};

/// Addresses that are kept for one application: it may move, but not collect them.
const MAX_ADDRESSES: usize = 8;
/// How long a proxy's names stay its own after its last word.
const PROXY_KEEPS: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often a write is tried again when others claim names at the same moment.
const MAX_TRIES: usize = 16;

/// Why an application does not get an address.
enum Taken {
    /// It is, or is above, one of a proxy or of another application.
    By(String),
    /// The application has had too many.
    Full,
}

/// Of two who claim names at the same moment one sees the other: read before the names are looked at, and written together with the claim.
struct Turn(Option<Revision>);

impl Turn {
    /// `claim`, unless somebody else claimed a name since.
    fn take(self, claim: Batch, name: &str) -> ApiResult<Batch> {
        Ok(match self.0 {
            Some(revision) => claim.replace(key::APP_ADDR_TURN, revision, &name)?,
            None => claim.create(key::APP_ADDR_TURN, &name, None)?,
        })
    }
}

impl Inner {
    /// `heartbeat`, and with it the claim of the address that the application announces. The heartbeat fails when the address became another one's meanwhile.
    ///
    /// The address that an application has by its name needs no claim: its name has an owner, and no other application is let have that address.
    pub(crate) async fn claim_address(
        &self,
        caller: &Caller,
        record: &AppRecord,
        heartbeat: Batch,
    ) -> ApiResult<Batch> {
        let Some(own) = &record.public_addr else { return Ok(heartbeat) };
        // A name without a dot is that of a machine, `localhost` among them; below the cluster's own are those of applications without an address.
        let allowed = |address: &AppAddress| address.host().contains('.') && !address.is_within(&self.cluster);
        let Some(address) = AppAddress::parse(own).filter(allowed) else {
            let start: String = own.chars().take(80).collect();
            return Err(bad_request(format!(
                "{start:?} is no public address of an application: host or host:port, a DNS name with a domain, and none below {}",
                self.cluster.app_suffix()
            )));
        };
        let (host, name) = (address.host(), &record.name);
        let owner_key = key::of(key::APP_ADDR_OWNERS, host);
        let turn = self.turn().await?;
        let taken = match self.records.read_at::<AppName>(&owner_key).await? {
            // No proxy was let have a name since that would take it away.
            Some((owner, revision)) if owner == *name => return Ok(heartbeat.given(&owner_key, revision)),
            Some((owner, _)) => Taken::By(format!("application {owner}")),
            None => match self.taken_by_proxy(host, name).await? {
                Some(taken) => taken,
                None => match self.taken_by_app(host, name).await? {
                    Some(taken) => taken,
                    None => return turn.take(heartbeat.create(&owner_key, name, None)?, host),
                },
            },
        };
        let message = match taken {
            Taken::By(whose) => format!("the address {host} of application {name} is that of {whose}; choose another"),
            Taken::Full => format!(
                "application {name} has had {MAX_ADDRESSES} addresses; an administrator frees them: tctl rm app/{name}"
            ),
        };
        Err(self.refuse_name(caller, message).await)
    }

    /// `heartbeat` of a proxy, if its name takes no application's address. Looked at with each: one that was locked, or silent for long, may have lost its name.
    pub(crate) async fn claim_proxy_name(
        &self,
        caller: &Caller,
        proxy: &ProxyRecord,
        heartbeat: Batch,
    ) -> ApiResult<Batch> {
        // Below a number there is nothing.
        let Some(address) = AppAddress::parse(&proxy.public_addr) else { return Ok(heartbeat) };
        let turn = self.turn().await?;
        let claimed = self.records.list::<AppName>(key::APP_ADDR_OWNERS).await?;
        let Some((host, app, _)) = claimed.iter().find(|(host, app, _)| excludes(address.host(), host, app)) else {
            return turn.take(heartbeat, address.host());
        };
        let message = format!(
            "a proxy cannot be called {}: application {app} has the address {host}; choose another name, or remove the application (tctl rm app/{app})",
            address.host()
        );
        Err(self.refuse_name(caller, message).await)
    }

    /// On record, I28. Heartbeats come again and again: of those that say the same, one each hour.
    async fn refuse_name(&self, caller: &Caller, message: String) -> ApiError {
        let (who, addr) = (caller.name(), caller.address().map(|addr| addr.to_string()));
        if self.limits.refused_names.attempt(&format!("{who} {message}"), self.clock.now())
            && let Err(cause) = self.record_attempt(who, message.clone(), addr).await
        {
            return cause;
        }
        conflict(message)
    }

    /// Whether the write was done. Not, when somebody claimed a name at the same moment: then it is to be made anew.
    pub(crate) async fn took_turn(&self, batch: Batch, tries: &mut usize) -> ApiResult<bool> {
        match self.records.commit(batch).await {
            Ok(()) => Ok(true),
            Err(cause) if cause.is_conflict() && *tries < MAX_TRIES => {
                *tries += 1;
                Ok(false)
            }
            Err(cause) => Err(cause.into()),
        }
    }

    async fn turn(&self) -> ApiResult<Turn> {
        Ok(Turn(self.records.read_at::<String>(key::APP_ADDR_TURN).await?.map(|(_, revision)| revision)))
    }

    /// The proxies whose names count, by the id of their hosts: none that is locked, and none that was not heard for long.
    pub(crate) async fn standing_proxies(&self) -> ApiResult<Vec<(String, ProxyRecord)>> {
        let (policy, oldest) = (self.policy.policy(), self.clock.now().minus(PROXY_KEEPS));
        let stands = |id: &str, proxy: &ProxyRecord| {
            let host = LockContext::default().host(proxy.name.as_deref(), id.parse().ok());
            proxy.announced >= oldest && policy.locks.concerning(&host).is_none()
        };
        let proxies = self.records.list::<ProxyRecord>(key::PROXIES).await?;
        Ok(proxies.into_iter().filter(|(id, proxy, _)| stands(id, proxy)).map(|(id, proxy, _)| (id, proxy)).collect())
    }

    /// Whether an address is claimed by another application.
    pub(crate) async fn is_anothers(&self, address: &AppAddress, app: &AppName) -> ApiResult<bool> {
        let owner = self.records.read::<AppName>(&key::of(key::APP_ADDR_OWNERS, address.host())).await?;
        Ok(owner.is_some_and(|owner| owner != *app))
    }

    /// Below a proxy's name each application has the address of its own name, and no other one is given away there.
    async fn taken_by_proxy(&self, host: &str, app: &AppName) -> ApiResult<Option<Taken>> {
        let proxies = self.standing_proxies().await?;
        let names = proxies.iter().filter_map(|(_, proxy)| AppAddress::parse(&proxy.public_addr));
        if names.into_iter().any(|name| excludes(name.host(), host, app)) {
            let whose = "the proxy, or above it, or below it and not the application's own name";
            return Ok(Some(Taken::By(whose.into())));
        }
        // Of a proxy that is reached by a number this is the one name that is known.
        let machines = proxies.iter().filter_map(|(_, proxy)| proxy.name.as_deref());
        let of_machine = machines.map(str::to_ascii_lowercase).any(|name| is_or_is_above(host, &name));
        let of_cluster = host == self.cluster.as_str().to_ascii_lowercase();
        Ok((of_machine || of_cluster).then(|| Taken::By("a proxy's host or the cluster, or above it".into())))
    }

    /// Pages below a name set cookies for that name, and those of a name for all below it: two applications are never one below the other.
    async fn taken_by_app(&self, host: &str, app: &AppName) -> ApiResult<Option<Taken>> {
        let claimed = self.records.list::<AppName>(key::APP_ADDR_OWNERS).await?;
        let near = |other: &str| is_or_is_above(host, other) || is_or_is_above(other, host);
        if let Some((_, owner, _)) = claimed.iter().find(|(other, owner, _)| owner != app && near(other)) {
            return Ok(Some(Taken::By(format!("application {owner}, or next to it"))));
        }
        let own = claimed.iter().filter(|(_, owner, _)| owner == app).count();
        Ok((own >= MAX_ADDRESSES).then_some(Taken::Full))
    }

    /// `gone`, and with it all claims of an application, also one of this moment.
    pub(crate) async fn free_addresses(&self, app: &AppName, gone: Batch) -> ApiResult<Batch> {
        let turn = self.turn().await?;
        let claimed = self.records.list::<AppName>(key::APP_ADDR_OWNERS).await?;
        let own = claimed.into_iter().filter(|(_, owner, _)| owner == app);
        turn.take(own.fold(gone, |gone, (host, ..)| gone.delete(&key::of(key::APP_ADDR_OWNERS, host))), "")
    }
}

/// Whether a proxy's name and an application's address cannot both be.
fn excludes(proxy: &str, host: &str, app: &AppName) -> bool {
    match host.strip_suffix(proxy).and_then(|below| below.strip_suffix('.')) {
        Some(below) => below != app.as_str(),
        None => is_or_is_above(host, proxy),
    }
}

/// Whether a DNS name is the other one, or one of those that it is below.
fn is_or_is_above(name: &str, other: &str) -> bool {
    other.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::{excludes, is_or_is_above};

    #[test]
    fn a_name_is_above_another_by_whole_labels() {
        for (name, other, expected) in [
            ("example.com", "example.com", true),
            ("example.com", "a.example.com", true),
            ("example.com", "b.a.example.com", true),
            ("example.com", "anexample.com", false),
            ("a.example.com", "example.com", false),
        ] {
            assert_eq!(is_or_is_above(name, other), expected, "{name} {other}");
        }
    }

    // I51
    #[test]
    fn below_a_proxy_an_application_has_its_own_name_and_none_is_the_proxys_or_above_it() {
        let app = "wiki".parse().unwrap();
        for (proxy, host, expected) in [
            ("p.example.com", "wiki.p.example.com", false),
            ("p.example.com", "wiki.example.com", false),
            ("p.example.com", "money.p.example.com", true),
            ("p.example.com", "a.wiki.p.example.com", true),
            ("p.example.com", "p.example.com", true),
            ("p.example.com", "example.com", true),
            ("p.example.com", "xp.example.com", false),
        ] {
            assert_eq!(excludes(proxy, host, &app), expected, "{proxy} {host}");
        }
    }
}
