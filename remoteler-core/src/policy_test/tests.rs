//! Tests of tests: each part of a given and a target counts, and what cannot be decided is said.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::{CaSet, ClusterName, Role, TrustBundle};

fn world() -> TestWorld {
    let traits = Traits::from([("logins".into(), vec!["root".into()])]);
    TestWorld {
        users: [(UserName::new("ann").unwrap(), ([RoleName::new("dev").unwrap()].into(), traits))].into(),
        nodes: [(NodeName::new("gw-17").unwrap(), [("env".to_owned(), "dev".to_owned())].into())].into(),
        kube_clusters: [(KubeClusterName::new("staging").unwrap(), Labels::new())].into(),
        apps: [(AppName::new("billing").unwrap(), [("env".to_owned(), "dev".to_owned())].into())].into(),
    }
}

fn policy() -> Policy {
    let none = CaSet { ssh: Vec::new(), x509: Vec::new() };
    let trust = TrustBundle::new(ClusterName::new("root").unwrap(), none.clone(), none);
    let role = |name: &str, spec: Value| {
        let name = RoleName::new(name).unwrap();
        (name.clone(), Arc::new(Role::new(name, &serde_json::from_value(spec).unwrap()).unwrap()))
    };
    let dev = json!({ "allow": {
        "logins": ["{{internal.logins}}"], "node_labels": { "env": "dev" },
        "kubernetes_groups": ["dev"], "kubernetes_labels": { "*": "*" }, "app_labels": { "env": "dev" },
        "kubernetes_resources": [{ "kind": "pod", "namespace": "dev", "name": "*", "verbs": ["get"] }],
    } });
    let no_root = json!({ "deny": { "logins": ["root"] } });
    Policy::new(trust, [role("dev", dev), role("no-root", no_root)].into())
}

fn test(spec: Value) -> Result<PolicyTest, PolicyTestError> {
    let document = json!({ "kind": "policy_test", "version": "v1", "metadata": { "name": "t" }, "spec": spec });
    PolicyTest::from_document(&serde_json::from_value(document).unwrap())
}

fn run(given: Value, target: Value, login: Option<&str>, expect: &str) -> TestOutcome {
    let mut spec = json!({ "given": given, "target": target, "expect": expect });
    if let Some(login) = login {
        spec["login"] = login.into();
    }
    test(spec).unwrap_or_else(|cause| panic!("{cause}")).run(&policy(), &world())
}

#[test]
fn a_test_decides_as_an_access_would_be_decided() {
    let node = || json!({ "node": "gw-17" });
    let prod = || json!({ "node_labels": { "env": "prod" } });
    let pod = |namespace: &str, verb: &str| {
        let object = json!({ "kind": "pod", "verb": verb, "namespace": namespace, "name": "a" });
        json!({ "kube_cluster": "staging", "kubernetes_resource": object })
    };
    for (given, target, login, expect) in [
        (json!({ "user": "ann" }), node(), Some("root"), "allow"),
        (json!({ "user": "ann" }), prod(), Some("root"), "deny"),
        (json!({ "user": "ann" }), node(), Some("ubuntu"), "deny"),
        (json!({ "user": "ann", "roles": ["dev", "no-root"] }), node(), Some("root"), "deny"),
        (json!({ "user": "ann", "traits": { "logins": ["ubuntu"] } }), node(), Some("ubuntu"), "allow"),
        (
            json!({ "roles": ["dev"], "traits": { "logins": ["bob"] } }),
            json!({ "node_labels": { "env": "dev" } }),
            Some("bob"),
            "allow",
        ),
        (json!({ "user": "ann" }), json!({ "kubernetes_labels": {} }), None, "allow"),
        (json!({ "user": "ann" }), json!({ "app": "billing" }), None, "allow"),
        (json!({ "user": "ann" }), json!({ "app_labels": { "env": "prod" } }), None, "deny"),
        (json!({ "user": "ann" }), pod("dev", "get"), None, "allow"),
        (json!({ "user": "ann" }), pod("dev", "delete"), None, "deny"),
        (json!({ "user": "ann" }), pod("prod", "get"), None, "deny"),
    ] {
        let other = if expect == "deny" { "allow" } else { "deny" };
        let shown = format!("{given} {target} {login:?}");
        assert!(matches!(run(given.clone(), target.clone(), login, expect), TestOutcome::Passed(_)), "{shown}");
        assert!(matches!(run(given, target, login, other), TestOutcome::Failed(_)), "{shown}");
    }
}

#[test]
fn what_is_not_there_is_said_and_not_decided() {
    // A slip in a role's name: a denial that is expected would come out whatever the roles say.
    for expect in ["deny", "allow"] {
        let found = run(json!({ "roles": ["develloper"] }), json!({ "node_labels": {} }), Some("root"), expect);
        assert!(matches!(&found, TestOutcome::NotRun(said) if said.contains("no role develloper")), "{found:?}");
    }
    for (given, target) in
        [(json!({ "user": "bob" }), json!({ "node": "gw-17" })), (json!({ "user": "ann" }), json!({ "node": "gw-18" }))]
    {
        assert!(matches!(run(given, target, Some("root"), "deny"), TestOutcome::NotRun(_)));
    }
}

// I80
#[test]
fn a_test_that_says_too_little_or_too_much_is_refused() {
    let given = json!({ "user": "ann" });
    for (spec, said) in [
        (
            json!({ "given": {}, "target": { "node": "a" }, "login": "root", "expect": "deny" }),
            "neither a user nor roles",
        ),
        (json!({ "given": given, "target": {}, "login": "root", "expect": "deny" }), "exactly one of"),
        (json!({ "given": given, "target": { "node": "a", "kube_cluster": "b" }, "expect": "deny" }), "exactly one of"),
        (json!({ "given": given, "target": { "app": "a", "app_labels": {} }, "expect": "deny" }), "exactly one of"),
        (json!({ "given": given, "target": { "app": "a" }, "login": "root", "expect": "deny" }), "with a node only"),
        (json!({ "given": given, "target": { "node": "a" }, "expect": "deny" }), "login is missing"),
        (
            json!({ "given": given, "target": { "kube_cluster": "a" }, "login": "root", "expect": "deny" }),
            "with a node only",
        ),
        (json!({ "given": given, "target": { "node": "a" }, "login": "root", "expect": "maybe" }), "maybe"),
        (json!({ "given": given, "target": { "node": "a" }, "login": "root", "expects": "deny" }), "expects"),
        (
            json!({ "given": given, "target": { "kube_cluster": "a", "kubernetes_resource": { "kind": "pods", "verb": "get" } }, "expect": "deny" }),
            "\"pods\" is unknown",
        ),
    ] {
        let cause = test(spec).unwrap_err().to_string();
        assert!(cause.contains(said), "{said}: {cause}");
    }
}
