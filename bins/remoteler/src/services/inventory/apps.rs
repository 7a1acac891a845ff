//! Of the copy of the inventory the web apps: by name, by the TLS server name of their service, and by the host under which browsers come to this proxy.

use std::collections::HashMap;

use remoteler_core::{AppAddress, AppName, AppRecord, ClusterName, HostId, Timestamp};

#[derive(Debug)]
struct KnownApp {
    host_id: HostId,
    /// Where browsers reach it; none where this proxy has a number only, and the app no address of its own.
    address: Option<AppAddress>,
    over: Timestamp,
}

/// All apps.
#[derive(Debug)]
pub(super) struct KnownApps {
    cluster: ClusterName,
    /// Of this proxy, `host:port`.
    public_addr: String,
    most: usize,
    by_name: HashMap<AppName, KnownApp>,
    by_server_name: HashMap<String, AppName>,
    by_host: HashMap<String, AppName>,
}

impl KnownApps {
    pub(super) fn new(cluster: ClusterName, public_addr: String, most: usize) -> Self {
        let (by_name, by_server_name, by_host) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { cluster, public_addr, most, by_name, by_server_name, by_host }
    }

    /// The same place, with nothing known.
    pub(super) fn emptied(&self) -> Self {
        Self::new(self.cluster.clone(), self.public_addr.clone(), self.most)
    }

    /// Takes an announcement; says whether there was room.
    pub(super) fn add(&mut self, record: AppRecord) -> bool {
        self.forget(&record.name);
        if self.by_name.len() >= self.most {
            return false;
        }
        let own = AppAddress::parse(&self.public_addr);
        let address = record.address(&self.public_addr);
        // The proxy's own pages stay the proxy's, whatever an app says; the auth service refuses such apps too.
        let address = address.filter(|address| own.is_none_or(|own| own.host() != address.host()));
        let AppRecord { host_id, name, last_seen, heartbeat, public_addr: _, labels: _, version: _, addr: _ } = record;
        self.by_server_name.insert(name.server_name(&self.cluster), name.clone());
        if let Some(address) = &address {
            self.by_host.entry(address.host().to_owned()).or_insert_with(|| name.clone());
        }
        self.by_name.insert(name, KnownApp { host_id, address, over: last_seen.plus(heartbeat.life()) });
        true
    }

    pub(super) fn forget(&mut self, name: &AppName) {
        let Some(gone) = self.by_name.remove(name) else { return };
        self.by_server_name.remove(&name.server_name(&self.cluster));
        if let Some(address) = gone.address
            && self.by_host.get(address.host()) == Some(name)
        {
            self.by_host.remove(address.host());
        }
    }

    pub(super) fn expire(&mut self, now: Timestamp) {
        let gone: Vec<_> =
            self.by_name.iter().filter(|(_, app)| app.over <= now).map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| self.forget(name));
    }

    /// The host of an app's service.
    pub(super) fn host_of(&self, name: &str) -> Option<HostId> {
        self.by_name.get(&name.parse().ok()?).map(|app| app.host_id)
    }

    /// The app whose service has this TLS server name.
    pub(super) fn by_server_name(&self, server_name: &str) -> Option<&AppName> {
        self.by_server_name.get(server_name)
    }

    /// The app that browsers reach under this host, in lower case.
    pub(super) fn by_host(&self, host: &str) -> Option<(AppName, AppAddress)> {
        let name = self.by_host.get(host)?;
        Some((name.clone(), self.by_name.get(name)?.address.clone()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, public_addr: Option<&str>) -> AppRecord {
        AppRecord {
            host_id: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
            name: name.parse().unwrap(),
            public_addr: public_addr.map(str::to_owned),
            labels: Default::default(),
            version: "1".into(),
            addr: None,
            last_seen: Timestamp::default(),
            heartbeat: Default::default(),
        }
    }

    #[test]
    fn an_app_is_found_under_its_host_until_it_is_gone_and_never_takes_the_proxys() {
        let cluster: ClusterName = "root".parse().unwrap();
        let mut apps = KnownApps::new(cluster.clone(), "proxy.example.com:3080".into(), 3);
        let found = |apps: &KnownApps, host: &str| {
            apps.by_host(host).map(|(name, address)| (name.to_string(), address.origin()))
        };
        assert!(apps.add(record("wiki", None)));
        assert!(apps.add(record("evil", Some("proxy.example.com"))));
        assert!(apps.add(record("thief", Some("wiki.proxy.example.com"))));
        assert!(!apps.add(record("late", None)), "it is bounded");
        let wiki = Some(("wiki".to_owned(), "https://wiki.proxy.example.com:3080".to_owned()));
        assert_eq!((found(&apps, "wiki.proxy.example.com"), found(&apps, "proxy.example.com")), (wiki, None));
        let name: AppName = "wiki".parse().unwrap();
        assert_eq!(apps.by_server_name(&name.server_name(&cluster)), Some(&name));

        assert!(apps.add(record("wiki", Some("wiki.example.com"))));
        assert_eq!(found(&apps, "wiki.example.com").map(|(name, _)| name), Some("wiki".into()));
        assert_eq!(found(&apps, "wiki.proxy.example.com"), None);
        apps.expire(Timestamp::default().plus(remoteler_core::Heartbeat::default().life()));
        assert!(apps.by_name.is_empty() && apps.by_host.is_empty() && apps.by_server_name.is_empty());
    }
}
