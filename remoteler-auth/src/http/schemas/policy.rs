//! Schemas of the rules as services follow them.

use serde_json::{Map, Value};

use super::{boolean, integer, list, object, text, time, to};

pub(super) fn add(all: &mut Map<String, Value>) {
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    add("InventoryQuery", object(&[], &[("after", integer()), ("wait_seconds", integer())]));
    add(
        "InventoryUpdate",
        object(
            &[("revision", integer()), ("whole", boolean()), ("now", time())],
            &[
                ("nodes", list(to("NodeRecord"))),
                ("gone_nodes", list(text())),
                ("kube_clusters", list(to("KubeRecord"))),
                ("gone_kube_clusters", list(text())),
                ("apps", list(to("AppRecord"))),
                ("gone_apps", list(text())),
                ("proxies", list(to("ProxyRecord"))),
                ("gone_proxies", list(text())),
            ],
        ),
    );
    add("PolicyQuery", object(&[], &[("known", text()), ("wait_seconds", integer())]));
    add(
        "PolicyUpdate",
        object(
            &[("version", text())],
            &[
                ("trust", to("TrustBundle")),
                ("revoked", list(text())),
                ("roles", list(to("Resource"))),
                ("limits", to("PolicyLimits")),
            ],
        ),
    );
    add("PolicyLimits", object(&[("locks", list(to("Lock"))), ("settings", to("ClusterSettings"))], &[]));
    add("Lock", object(&[("name", text()), ("target", to("LockTarget"))], &[("message", text()), ("expires", time())]));
    let targets = ["user", "role", "login", "node", "serial", "cluster", "kube_cluster"].map(|field| (field, text()));
    add("LockTarget", object(&[], &targets));
    add(
        "ClusterSettings",
        object(
            &[("locking_mode", text()), ("disconnect_expired_cert", boolean())],
            &[
                ("client_idle_timeout_seconds", integer()),
                ("second_factor", text()),
                ("session_recording", text()),
                ("require_session_mfa", boolean()),
                ("mfa_verification_interval", text()),
            ],
        ),
    );
}

#[cfg(test)]
pub(super) mod tests {
    use remoteler_core::{
        ClusterSettings, InventoryUpdate, Lock, LockTarget, PolicyLimits, PolicyView, Resource, Revision, Timestamp,
        TrustBundle,
        wire::{InventoryQuery, PolicyQuery},
    };

    use super::*;

    /// Values with every optional field set, by schema.
    pub(in super::super) fn samples(trust: &TrustBundle) -> Vec<(&'static str, Value)> {
        let target = LockTarget {
            user: Some("ann".parse().unwrap()),
            role: Some("r".parse().unwrap()),
            login: Some("l".parse().unwrap()),
            node: Some("n".parse().unwrap()),
            serial: Some("ssh-user-1".parse().unwrap()),
            cluster: Some("c".parse().unwrap()),
            kube_cluster: Some("k".parse().unwrap()),
        };
        let expires = Some(Timestamp::default());
        let lock = Lock { name: "x".into(), target: target.clone(), message: "m".into(), expires };
        let settings = ClusterSettings { client_idle_timeout_seconds: Some(1), ..ClusterSettings::default() };
        let limits = PolicyLimits { locks: [lock.clone()].into_iter().collect(), settings };
        let role = Resource::role(&"r".parse().unwrap(), &Default::default());
        let view = PolicyView::new(trust, vec![role], limits.clone());
        let update = view.since(view.version(), None).unwrap();
        fn value(sample: impl serde::Serialize) -> Value {
            serde_json::to_value(sample).unwrap()
        }
        let host_id = remoteler_core::HostId::from_uuid(uuid::Uuid::nil());
        let gone = InventoryUpdate {
            gone_nodes: vec!["n".parse().unwrap()],
            gone_kube_clusters: vec!["k".parse().unwrap()],
            gone_apps: vec!["a".parse().unwrap()],
            apps: vec![super::super::apps::tests::record()],
            gone_proxies: vec![host_id],
            proxies: vec![remoteler_core::ProxyRecord {
                host_id,
                public_addr: "a:1".into(),
                last_seen: Timestamp::default(),
            }],
            nodes: vec![remoteler_core::NodeRecord {
                host_id,
                name: "n".parse().unwrap(),
                labels: Default::default(),
                addr: None,
                version: "1".into(),
                last_seen: Timestamp::default(),
                heartbeat: Default::default(),
            }],
            kube_clusters: vec![remoteler_core::KubeRecord {
                host_id,
                name: "k".parse().unwrap(),
                labels: Default::default(),
                addr: None,
                version: "1".into(),
                last_seen: Timestamp::default(),
                heartbeat: Default::default(),
            }],
            ..InventoryUpdate::empty(Revision(1), Timestamp::default())
        };
        vec![
            ("InventoryQuery", value(InventoryQuery { after: Some(Revision(1)), wait_seconds: 1 })),
            ("InventoryUpdate", value(gone)),
            ("PolicyQuery", value(PolicyQuery { known: Some(view.version()), wait_seconds: 1 })),
            ("PolicyUpdate", value(update)),
            ("PolicyLimits", value(limits)),
            ("Lock", value(lock)),
            ("LockTarget", value(target)),
            ("ClusterSettings", value(settings)),
        ]
    }
}
