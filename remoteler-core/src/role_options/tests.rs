//! Properties of merging over generated pairs of roles, and what is read and refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{Role, RoleError, RoleName, RoleSpec};

fn read(options: Value) -> Result<RoleOptions, RoleError> {
    let spec: RoleSpec = serde_json::from_value(json!({ "options": options })).unwrap();
    Role::new(RoleName::new("r").unwrap(), &spec).map(|role| *role.options())
}

prop_compose! {
    fn options()(
        ttl in 1_u64..100,
        flags in any::<(bool, bool)>(),
        ways in (forwarding(), forwarding()),
        limits in (limits(), limits(), limits(), limits()),
        disconnect in any::<bool>(),
        lock in prop::option::of(prop_oneof![Just(LockMode::BestEffort), Just(LockMode::Strict)]),
        session_mfa in any::<bool>(),
    ) -> RoleOptions {
        RoleOptions {
            max_session_ttl: Duration::from_secs(ttl),
            forward_agent: flags.0,
            port_forwarding: PortForwarding { local: ways.0, remote: ways.1 },
            ssh_file_copy: flags.1,
            client_idle_timeout: limits.0.map(|seconds| Duration::from_secs(seconds.into())),
            disconnect_expired_cert: disconnect,
            max_sessions: limits.1,
            max_connections: limits.2,
            max_kubernetes_connections: limits.3,
            lock,
            session_mfa,
        }
    }
}

fn limits() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(1_u32..9)
}

fn forwarding() -> impl Strategy<Value = Forwarding> {
    prop_oneof![Just(Forwarding::Off), Just(Forwarding::On), Just(Forwarding::Refused)]
}

/// The least of the limits that are there.
fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    [one, other].into_iter().flatten().min()
}

/// A way of forwarding under two roles: refused by one is refused, and otherwise one that allows it is enough.
fn way(one: Forwarding, other: Forwarding) -> Forwarding {
    match [one, other] {
        both if both.contains(&Forwarding::Refused) => Forwarding::Refused,
        both if both.contains(&Forwarding::On) => Forwarding::On,
        _ => Forwarding::Off,
    }
}

/// Whether `tight` is `loose` or less in everything that a role limits.
fn within(tight: &RoleOptions, loose: &RoleOptions) -> bool {
    let limit = |tight: Option<u32>, loose: Option<u32>| loose.is_none_or(|loose| tight.is_some_and(|t| t <= loose));
    let refused = |way: Forwarding| way == Forwarding::Refused;
    tight.max_session_ttl <= loose.max_session_ttl
        && tight.ssh_file_copy <= loose.ssh_file_copy
        && loose.client_idle_timeout.is_none_or(|loose| tight.client_idle_timeout.is_some_and(|t| t <= loose))
        && tight.disconnect_expired_cert >= loose.disconnect_expired_cert
        && limit(tight.max_sessions, loose.max_sessions)
        && limit(tight.max_connections, loose.max_connections)
        && limit(tight.max_kubernetes_connections, loose.max_kubernetes_connections)
        && tight.lock >= loose.lock
        && refused(tight.port_forwarding.local) >= refused(loose.port_forwarding.local)
        && refused(tight.port_forwarding.remote) >= refused(loose.port_forwarding.remote)
}

proptest! {
    // I80
    #[test]
    fn neither_order_nor_grouping_nor_repetition_of_roles_matters(a in options(), b in options(), c in options()) {
        prop_assert_eq!(a.merge(b), b.merge(a));
        prop_assert_eq!(a.merge(b).merge(c), a.merge(b.merge(c)));
        prop_assert_eq!(a.merge(a), a);
        prop_assert_eq!(a.merge(b).merge(b), a.merge(b));
        prop_assert_eq!(a.limited_by(b).limited_by(c), a.limited_by(c).limited_by(b));
        prop_assert_eq!(a.limited_by(b).limited_by(b), a.limited_by(b));
    }

    // I80
    #[test]
    fn two_roles_together_are_never_wider_than_the_limits_of_each(a in options(), b in options()) {
        let merged = a.merge(b);
        prop_assert!(within(&merged, &a) && within(&merged, &b), "{:?}", merged);
        prop_assert_eq!(merged.forward_agent, a.forward_agent || b.forward_agent);
        // I49: one that demands it is enough.
        prop_assert_eq!(merged.session_mfa, a.session_mfa || b.session_mfa);
        for (merged, a, b) in [
            (merged.port_forwarding.local, a.port_forwarding.local, b.port_forwarding.local),
            (merged.port_forwarding.remote, a.port_forwarding.remote, b.port_forwarding.remote),
        ] {
            let refused = a == Forwarding::Refused || b == Forwarding::Refused;
            prop_assert_eq!(merged.allowed(), !refused && (a.allowed() || b.allowed()));
        }
    }

    // I80
    #[test]
    fn each_option_of_two_roles_is_merged_by_the_rule_of_its_own(a in options(), b in options()) {
        let merged = a.merge(b);
        prop_assert_eq!(merged.max_session_ttl, a.max_session_ttl.min(b.max_session_ttl));
        prop_assert_eq!(merged.forward_agent, a.forward_agent || b.forward_agent);
        prop_assert_eq!(merged.port_forwarding.local, way(a.port_forwarding.local, b.port_forwarding.local));
        prop_assert_eq!(merged.port_forwarding.remote, way(a.port_forwarding.remote, b.port_forwarding.remote));
        prop_assert_eq!(merged.ssh_file_copy, a.ssh_file_copy && b.ssh_file_copy);
        prop_assert_eq!(merged.client_idle_timeout, least(a.client_idle_timeout, b.client_idle_timeout));
        prop_assert_eq!(merged.disconnect_expired_cert, a.disconnect_expired_cert || b.disconnect_expired_cert);
        prop_assert_eq!(merged.max_sessions, least(a.max_sessions, b.max_sessions));
        prop_assert_eq!(merged.max_connections, least(a.max_connections, b.max_connections));
        prop_assert_eq!(
            merged.max_kubernetes_connections,
            least(a.max_kubernetes_connections, b.max_kubernetes_connections)
        );
        let strict = [a.lock, b.lock].contains(&Some(LockMode::Strict));
        let said = a.lock.is_some() || b.lock.is_some();
        prop_assert_eq!(merged.lock, said.then_some(if strict { LockMode::Strict } else { LockMode::BestEffort }));
    }

    // I80
    #[test]
    fn a_role_that_does_not_allow_an_action_gives_it_nothing(a in options(), b in options()) {
        let limited = a.limited_by(b);
        prop_assert!(within(&limited, &a) && within(&limited, &b));
        prop_assert_eq!(limited.forward_agent, a.forward_agent);
        prop_assert_eq!(limited.session_mfa, a.session_mfa);
        prop_assert!(!limited.port_forwarding.local.allowed() || a.port_forwarding.local.allowed());
        prop_assert!(!limited.port_forwarding.remote.allowed() || a.port_forwarding.remote.allowed());
        prop_assert!(within(&a.merge(b), &limited) && within(&limited, &a.merge(b)), "the limits are the same ones");
    }
}

#[test]
fn every_option_is_read_in_each_spelling() {
    let read = |options| read(options).unwrap();
    let all = read(json!({
        "max_session_ttl": "30h0m0s", "forward_agent": "yes", "port_forwarding": false, "ssh_file_copy": "no",
        "client_idle_timeout": "15m", "disconnect_expired_cert": true, "max_sessions": 3, "max_connections": 2,
        "max_kubernetes_connections": 1, "lock": "strict", "require_session_mfa": "yes",
    }));
    let off = PortForwarding { local: Forwarding::Off, remote: Forwarding::Off };
    let expected = RoleOptions {
        max_session_ttl: Duration::from_secs(30 * 3600),
        forward_agent: true,
        port_forwarding: off,
        ssh_file_copy: false,
        client_idle_timeout: Some(Duration::from_secs(900)),
        disconnect_expired_cert: true,
        max_sessions: Some(3),
        max_connections: Some(2),
        max_kubernetes_connections: Some(1),
        lock: Some(LockMode::Strict),
        session_mfa: true,
    };
    assert_eq!(all, expected);
    let none = json!({ "client_idle_timeout": "never", "max_sessions": 0, "max_connections": 0, "max_kubernetes_connections": 0 });
    assert_eq!(read(none), RoleOptions::default());
    assert_eq!(read(json!({})), RoleOptions::default());

    let half = PortForwarding { local: Forwarding::Refused, remote: Forwarding::On };
    for name in ["port_forwarding", "ssh_port_forwarding"] {
        assert_eq!(read(json!({ name: { "local": { "enabled": false } } })).port_forwarding, half, "{name}");
    }
    let rest_off = PortForwarding { local: Forwarding::On, remote: Forwarding::Off };
    let both = json!({ "port_forwarding": false, "ssh_port_forwarding": { "local": { "enabled": true } } });
    assert_eq!(read(both).port_forwarding, rest_off);
}

// I80
#[test]
fn an_option_that_nobody_enforces_is_refused_by_name_unless_it_says_what_happens_anyway() {
    let harmless = json!({
        "permit_x11_forwarding": false, "pin_source_ip": "no", "create_host_user": false, "create_host_user_mode": "off",
        "require_session_mfa": false, "device_trust_mode": "optional", "request_access": "optional", "cert_format": "standard",
    });
    assert_eq!(read(harmless).unwrap(), RoleOptions::default());
    for (name, value) in [
        ("permit_x11_forwarding", json!(true)),
        ("pin_source_ip", json!("yes")),
        ("create_host_user", json!(true)),
        ("create_host_user_mode", json!("keep")),
        ("require_session_mfa", json!("hardware_key")),
        ("device_trust_mode", json!("required")),
        ("request_access", json!("reason")),
        ("cert_format", json!("oldssh")),
        ("max_session_ttl", json!("soon")),
        ("client_idle_timeout", json!("15")),
    ] {
        let refused = read(json!({ name: value })).unwrap_err();
        assert!(refused.to_string().contains(name), "{refused}");
        assert_eq!(refused.path(), ["options", name]);
    }
    let twice = json!({ "port_forwarding": { "local": { "enabled": true } }, "ssh_port_forwarding": {} });
    assert!(read(twice).is_err());
    for unread in [
        json!({ "options": { "record_session": {} } }),
        json!({ "options": { "lock": "sometimes" } }),
        json!({ "options": { "forward_agent": "maybe" } }),
        json!({ "options": { "max_sessions": -1 } }),
    ] {
        assert!(serde_json::from_value::<RoleSpec>(unread.clone()).is_err(), "{unread}");
    }
}
