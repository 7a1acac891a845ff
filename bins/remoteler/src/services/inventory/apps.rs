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
    /// The hosts of those that are away, or have another address now: nothing else is found there until they are removed.
    away: HashMap<String, (AppName, AppAddress)>,
}

/// Whose a host is, as browsers say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// An app that is there.
    There(AppName, AppAddress),
    /// One that is not there now.
    Away(AppAddress),
}

impl KnownApps {
    pub(super) fn new(cluster: ClusterName, public_addr: String, most: usize) -> Self {
        let (by_name, by_server_name, by_host) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { cluster, public_addr, most, by_name, by_server_name, by_host, away: HashMap::new() }
    }

    /// The same place, with all apps away.
    pub(super) fn emptied(&mut self) -> Self {
        let gone: Vec<_> = self.by_name.keys().cloned().collect();
        gone.iter().for_each(|name| self.leave(name));
        let away = std::mem::take(&mut self.away);
        Self { away, ..Self::new(self.cluster.clone(), self.public_addr.clone(), self.most) }
    }

    /// Takes an announcement; says whether there was room.
    pub(super) fn add(&mut self, record: AppRecord) -> bool {
        self.leave(&record.name);
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
            self.away.remove(address.host());
            self.by_host.entry(address.host().to_owned()).or_insert_with(|| name.clone());
        }
        self.by_name.insert(name, KnownApp { host_id, address, over: last_seen.plus(heartbeat.life()) });
        true
    }

    /// An app was removed: what was its own is nobody's.
    pub(super) fn forget(&mut self, name: &AppName) {
        self.leave(name);
        self.away.retain(|_, (of, _)| of != name);
    }

    /// Keeps of an app under which host it was.
    fn leave(&mut self, name: &AppName) {
        let Some(gone) = self.by_name.remove(name) else { return };
        self.by_server_name.remove(&name.server_name(&self.cluster));
        if let Some(address) = gone.address
            && self.by_host.get(address.host()) == Some(name)
        {
            self.by_host.remove(address.host());
            if self.away.len() < self.most {
                self.away.insert(address.host().to_owned(), (name.clone(), address));
            }
        }
    }

    pub(super) fn expire(&mut self, now: Timestamp) {
        let gone: Vec<_> =
            self.by_name.iter().filter(|(_, app)| app.over <= now).map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| self.leave(name));
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
    pub(super) fn by_host(&self, host: &str) -> Option<Known> {
        let there = self.by_host.get(host).and_then(|name| Some((name, self.by_name.get(name)?.address.clone()?)));
        match there {
            Some((name, address)) => Some(Known::There(name.clone(), address)),
            None => self.away.get(host).map(|(_, address)| Known::Away(address.clone())),
        }
    }

    /// An app that has this host by its name, if there is one: before anything is known of them.
    pub(super) fn by_name_alone(&self, host: &str) -> Option<Known> {
        let own = AppAddress::parse(&self.public_addr)?;
        let name = host.strip_suffix(own.host())?.strip_suffix('.')?.parse::<AppName>().ok()?;
        AppAddress::parse(&format!("{name}.{}:{}", own.host(), own.port())).map(Known::Away)
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
        let found = |apps: &KnownApps, host: &str| match apps.by_host(host) {
            Some(Known::There(name, address)) => Some((name.to_string(), address.origin())),
            Some(Known::Away(address)) => Some(("away".into(), address.origin())),
            None => None,
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
        let away = |host: &str| Some(("away".to_owned(), format!("https://{host}:3080")));
        assert_eq!(found(&apps, "wiki.proxy.example.com"), away("wiki.proxy.example.com"));
        apps.expire(Timestamp::default().plus(remoteler_core::Heartbeat::default().life()));
        assert!(apps.by_name.is_empty() && apps.by_host.is_empty() && apps.by_server_name.is_empty());
    }

    // I13
    #[test]
    fn the_host_of_an_app_that_is_away_is_nobodys_until_the_app_is_removed_or_another_one_has_it() {
        let mut apps = KnownApps::new("root".parse().unwrap(), "proxy.example.com:443".into(), 3);
        let away = |host: &str| Some(Known::Away(AppAddress::parse(&format!("{host}:443")).unwrap()));
        let is_there = |apps: &KnownApps, host: &str| matches!(apps.by_host(host), Some(Known::There(..)));
        assert!(apps.add(record("wiki", None)) && apps.add(record("b", Some("b.example.com"))));
        apps.expire(Timestamp::default().plus(remoteler_core::Heartbeat::default().life()));
        let both = |apps: &KnownApps| ["wiki.proxy.example.com", "b.example.com"].map(|host| apps.by_host(host));
        let gone = ["wiki.proxy.example.com", "b.example.com"].map(away);
        assert_eq!(both(&apps), gone);
        let mut apps = apps.emptied();
        assert_eq!(both(&apps), gone, "a list of those that are there does not say who is away");
        assert!(apps.add(record("wiki", None)));
        assert!(is_there(&apps, "wiki.proxy.example.com"));
        let mut apps = apps.emptied();
        assert_eq!(both(&apps), gone);
        assert!(apps.add(record("next", Some("b.example.com"))));
        assert!(is_there(&apps, "b.example.com"));
        apps.forget(&"wiki".parse().unwrap());
        assert_eq!(apps.by_host("wiki.proxy.example.com"), None);

        assert_eq!(apps.by_name_alone("c.proxy.example.com"), away("c.proxy.example.com"));
        for other in ["proxy.example.com", "a.c.proxy.example.com", "xproxy.example.com", "c_.proxy.example.com"] {
            assert_eq!(apps.by_name_alone(other), None, "{other}");
        }
    }
}
