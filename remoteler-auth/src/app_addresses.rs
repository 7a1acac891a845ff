//! Which application has which public address, for good: an address is claimed in the same write as the announcement that names it, whether its application is there
//! or away, and is free again when an administrator removes that. Owns what may be an application's address at all (I28, I51).

use remoteler_core::{AppAddress, AppName, AppRecord};

use crate::{
    Caller,
    failure::{ApiResult, bad_request, conflict},
    inventory::ProxyRecord,
    records::{Batch, key},
    service::Inner,
};

/// Addresses that are kept for one application: it may move, but not collect them.
const MAX_ADDRESSES: usize = 8;

/// Why an application does not get an address.
enum Taken {
    /// It is, or is above, one of a proxy or of another application.
    By(String),
    /// The application has had too many.
    Full,
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
        let host = address.host();
        let taken = match self.taken_by_proxy(host, &record.name).await? {
            Some(taken) => taken,
            None => {
                let owner_key = key::of(key::APP_ADDR_OWNERS, host);
                match self.records.read_at::<AppName>(&owner_key).await? {
                    Some((owner, revision)) if owner == record.name => return Ok(heartbeat.given(&owner_key, revision)),
                    Some((owner, _)) => Taken::By(format!("application {owner}")),
                    None => {
                        // Read before the claims are: who claims meanwhile writes it, and this write fails.
                        let turn = self.records.read_at::<String>(key::APP_ADDR_TURN).await?;
                        match self.taken_by_app(host, &record.name).await? {
                            Some(taken) => taken,
                            None => {
                                let claimed = heartbeat.create(&owner_key, &record.name, None)?;
                                return Ok(match turn {
                                    Some((_, revision)) => claimed.replace(key::APP_ADDR_TURN, revision, &host)?,
                                    None => claimed.create(key::APP_ADDR_TURN, &host, None)?,
                                });
                            }
                        }
                    }
                }
            }
        };
        let name = &record.name;
        let message = match taken {
            Taken::By(whose) => format!("the address {host} of application {name} is that of {whose}; choose another"),
            Taken::Full => format!(
                "application {name} has had {MAX_ADDRESSES} addresses; an administrator frees them: tctl rm app/{name}"
            ),
        };
        self.record_attempt(caller.name(), message.clone(), caller.address().map(|addr| addr.to_string())).await?;
        Err(conflict(message))
    }

    /// Below a proxy's name each application has the address of its own name, and no other one is given away there.
    async fn taken_by_proxy(&self, host: &str, app: &AppName) -> ApiResult<Option<Taken>> {
        let proxies = self.records.list::<ProxyRecord>(key::PROXIES).await?;
        let proxies = proxies.into_iter().filter_map(|(_, proxy, _)| AppAddress::parse(&proxy.public_addr));
        for proxy in proxies {
            if let Some(below) = host.strip_suffix(proxy.host()).and_then(|below| below.strip_suffix('.')) {
                if below != app.as_str() {
                    return Ok(Some(Taken::By(format!("application {below}"))));
                }
            } else if is_or_is_above(host, proxy.host()) {
                return Ok(Some(Taken::By("the proxy, or above it".into())));
            }
        }
        Ok(None)
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

    /// `gone`, and with it all claims of an application.
    pub(crate) async fn free_addresses(&self, app: &AppName, gone: Batch) -> ApiResult<Batch> {
        let claimed = self.records.list::<AppName>(key::APP_ADDR_OWNERS).await?;
        let own = claimed.into_iter().filter(|(_, owner, _)| owner == app);
        Ok(own.fold(gone, |gone, (host, ..)| gone.delete(&key::of(key::APP_ADDR_OWNERS, host))))
    }
}

/// Whether a DNS name is the other one, or one of those that it is below.
fn is_or_is_above(name: &str, other: &str) -> bool {
    other.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::is_or_is_above;

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
}
