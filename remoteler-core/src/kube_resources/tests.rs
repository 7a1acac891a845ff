//! Rules against requests: what is covered, what is touched, and that the two never leave a gap.

use proptest::prelude::*;

use super::*;
use crate::{Labels, Traits, label::LabelView};

fn spec(kind: &str, namespace: &str, name: &str, verbs: &[&str]) -> KubeResourceSpec {
    let verbs = verbs.iter().map(|verb| (*verb).to_owned()).collect();
    KubeResourceSpec { kind: kind.into(), namespace: namespace.into(), name: name.into(), verbs }
}

fn request(verb: KubeVerb, resource: &str, namespace: Option<&str>, name: Option<&str>) -> KubeRequest {
    let group = if resource == "deployments" { "apps" } else { "" };
    let target = KubeTarget::Resource {
        group: group.into(),
        resource: resource.into(),
        subresource: None,
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
    };
    KubeRequest { verb, target }
}

fn look(spec: &KubeResourceSpec, request: &KubeRequest) -> (bool, bool) {
    let rule = KubeResourceRule::new(spec, RoleVersion::V7).unwrap();
    let traits = Traits::from([("team".into(), vec!["apps".into()])]);
    let labels = Labels::new();
    let labels = LabelView::of(&labels, 1);
    let scope = Scope { user: "ann", traits: &traits, labels: &labels };
    (rule.covers(request, &scope).unwrap(), rule.touches(request, &scope).unwrap())
}

#[test]
fn a_rule_covers_what_is_wholly_its_own() {
    let dev = spec("pod", "dev", "*", &["get", "list", "watch", "exec"]);
    let one = spec("pod", "{{external.team}}-*", "^web-\\d+$", &["*"]);
    for (rule, verb, namespace, name, covered) in [
        (&dev, KubeVerb::Get, Some("dev"), Some("a"), true),
        (&dev, KubeVerb::List, Some("dev"), None, true),
        (&dev, KubeVerb::Exec, Some("dev"), Some("a"), true),
        (&dev, KubeVerb::Delete, Some("dev"), Some("a"), false),
        (&dev, KubeVerb::Other, Some("dev"), Some("a"), false),
        (&dev, KubeVerb::List, None, None, false), // I80: all namespaces
        (&dev, KubeVerb::Get, Some("prod"), Some("a"), false),
        (&one, KubeVerb::Get, Some("apps-1"), Some("web-1"), true),
        (&one, KubeVerb::Get, Some("apps-1"), Some("db-1"), false),
        (&one, KubeVerb::Get, Some("ops-1"), Some("web-1"), false),
        (&one, KubeVerb::List, Some("apps-1"), None, false), // I80: a list would show others
        (&one, KubeVerb::Create, Some("apps-1"), None, false), // I80: the body could name others
        (&one, KubeVerb::Other, Some("apps-1"), Some("web-1"), true),
    ] {
        let asked = request(verb, "pods", namespace, name);
        assert_eq!(look(rule, &asked).0, covered, "{rule:?} {asked}");
    }
    assert!(!look(&dev, &request(KubeVerb::Get, "secrets", Some("dev"), Some("a"))).0);
}

#[test]
fn a_namespace_stands_for_all_that_is_in_it() {
    let rule = spec("namespace", "", "dev", &["get", "list"]);
    for (resource, namespace, name, covered) in [
        ("namespaces", None, Some("dev"), true),
        ("namespaces", None, Some("prod"), false),
        ("namespaces", None, None, false),
        ("pods", Some("dev"), Some("a"), true),
        ("widgets", Some("dev"), None, true),
        ("pods", Some("prod"), Some("a"), false),
        ("pods", None, None, false),
        ("nodes", None, Some("dev"), false),
    ] {
        let verb = if name.is_some() { KubeVerb::Get } else { KubeVerb::List };
        assert_eq!(
            look(&rule, &request(verb, resource, namespace, name)).0,
            covered,
            "{resource} {namespace:?} {name:?}"
        );
    }
}

// I80
#[test]
fn a_denial_is_met_by_all_that_could_reach_what_it_names() {
    let rule = spec("secret", "prod", "ca-*", &["get"]);
    for (verb, namespace, name, met) in [
        (KubeVerb::Get, Some("prod"), Some("ca-key"), true),
        (KubeVerb::Get, Some("prod"), Some("other"), false),
        (KubeVerb::List, Some("prod"), None, true),
        (KubeVerb::Watch, None, None, true),
        (KubeVerb::List, Some("dev"), None, false),
        (KubeVerb::Delete, Some("prod"), Some("ca-key"), false),
        (KubeVerb::Other, Some("prod"), Some("ca-key"), true),
    ] {
        assert_eq!(look(&rule, &request(verb, "secrets", namespace, name)).1, met, "{verb:?} {namespace:?} {name:?}");
    }
    let prod = spec("namespace", "", "prod", &["*"]);
    let all_in_prod = spec("*", "prod", "*", &["*"]);
    for (resource, namespace, name, met) in [
        ("nodes", None, Some("a"), false),
        ("nodes", None, None, false),
        ("widgets", None, None, true),
        ("widgets", None, Some("prod"), false),
        ("pods", Some("prod"), Some("a"), true),
        ("pods", None, None, true),
    ] {
        let asked = request(KubeVerb::Get, resource, namespace, name);
        assert_eq!((look(&prod, &asked).1, look(&all_in_prod, &asked).1), (met, met), "{asked}");
    }
    let delete = spec("pod", "*", "*", &["delete"]);
    assert!(look(&delete, &request(KubeVerb::DeleteCollection, "pods", Some("dev"), None)).1);
    let old_group = KubeRequest {
        target: KubeTarget::Resource {
            group: "extensions".into(),
            resource: "deployments".into(),
            subresource: None,
            namespace: Some("dev".into()),
            name: Some("a".into()),
        },
        verb: KubeVerb::Get,
    };
    assert!(look(&spec("deployment", "dev", "a", &["*"]), &old_group).1);
}

#[test]
fn what_is_no_object_needs_the_rule_of_everything() {
    let path = KubeRequest { verb: KubeVerb::Get, target: KubeTarget::Path("/metrics".into()) };
    let discovery = KubeRequest { verb: KubeVerb::Get, target: KubeTarget::Discovery };
    assert_eq!(look(&spec("*", "*", "*", &["*"]), &path), (true, true));
    assert_eq!(look(&spec("*", "*", "*", &["get"]), &path), (false, false));
    assert_eq!(look(&spec("pod", "dev", "a", &["get"]), &discovery), (true, false));
}

// I80
#[test]
fn an_entry_that_says_too_little_or_what_is_unknown_is_refused() {
    for (spec, said) in [
        (spec("pods", "dev", "*", &["*"]), "\"pods\" is unknown"),
        (spec("pod", "", "*", &["*"]), "namespace is missing"),
        (spec("pod", "dev", "", &["*"]), "name is missing"),
        (spec("pod", "dev", "*", &[]), "verbs is missing"),
        (spec("pod", "dev", "*", &["impersonate"]), "\"impersonate\" is unknown"),
        (spec("pod", "^(a$", "*", &["*"]), "regular expression"),
        (spec("pod", "{{x}}", "*", &["*"]), "no template"),
    ] {
        let cause = KubeResourceRule::new(&spec, RoleVersion::V7).unwrap_err().to_string();
        assert!(cause.contains(said), "{cause}");
    }
    assert!(KubeResourceRule::new(&spec("kube_node", "", "a", &["get"]), RoleVersion::V7).is_ok());
    assert!(KubeResourceRule::new(&spec("secret", "dev", "a", &["get"]), RoleVersion::V6).is_err());
    assert!(KubeResourceRule::new(&spec("pod", "dev", "a", &[]), RoleVersion::V6).is_ok());
    assert!(KubeResourceRule::written(&[spec("pod", "dev", "a", &[])], RoleVersion::V5).is_err());
}

#[test]
fn what_a_role_means_that_names_no_resources_depends_on_its_version() {
    let traits = Traits::new();
    let labels = Labels::new();
    let labels = LabelView::of(&labels, 1);
    let scope = Scope { user: "ann", traits: &traits, labels: &labels };
    let covered = |version, resource: &str| {
        let rules = KubeResourceRule::allowed(&[], version).unwrap();
        let asked = request(KubeVerb::Get, resource, Some("dev"), Some("a"));
        rules.iter().any(|rule| rule.covers(&asked, &scope).unwrap())
    };
    assert!(covered(RoleVersion::V5, "pods") && covered(RoleVersion::V5, "secrets"));
    assert!(!covered(RoleVersion::V6, "pods") && covered(RoleVersion::V6, "secrets"));
    assert!(covered(RoleVersion::V7, "pods") && covered(RoleVersion::V7, "secrets"));
}

fn word(words: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(words)
}

fn maybe(words: &'static [&'static str]) -> impl Strategy<Value = Option<&'static str>> {
    prop::option::of(word(words))
}

fn rules() -> impl Strategy<Value = KubeResourceSpec> {
    let kinds = word(&["pod", "secret", "deployment", "kube_node", "namespace", "*"]);
    let patterns = || word(&["*", "dev", "d*", "^dev|prod$"]);
    (kinds, patterns(), patterns(), prop::collection::vec(word(&["*", "get", "list", "delete", "exec"]), 1..3))
        .prop_map(|(kind, namespace, name, verbs)| spec(kind, namespace, name, &verbs))
}

fn requests() -> impl Strategy<Value = KubeRequest> {
    let verbs = [
        KubeVerb::Get,
        KubeVerb::List,
        KubeVerb::Watch,
        KubeVerb::Delete,
        KubeVerb::DeleteCollection,
        KubeVerb::Exec,
        KubeVerb::Other,
    ];
    let resources = word(&["pods", "secrets", "deployments", "nodes", "namespaces", "widgets"]);
    let verbs = prop::sample::select(verbs.to_vec());
    (verbs, resources, maybe(&["dev", "prod", "test"]), maybe(&["dev", "prod", "test"]))
        .prop_map(|(verb, resource, namespace, name)| request(verb, resource, namespace, name))
}

proptest! {
    // I80
    #[test]
    fn what_a_rule_covers_the_same_rule_as_a_denial_meets(rule in rules(), asked in requests()) {
        let (covers, touches) = look(&rule, &asked);
        prop_assert!(!covers || touches, "{:?} {}", rule, asked);
    }

    // I80
    #[test]
    fn a_request_for_all_is_covered_only_if_each_one_is(rule in rules(), asked in requests(), namespace in word(&["dev", "prod", "x"]), name in word(&["dev", "prod", "x"])) {
        let KubeTarget::Resource { group, resource, .. } = &asked.target else { unreachable!("requests are of objects") };
        let KubeTarget::Resource { namespace: asked_namespace, name: asked_name, .. } = &asked.target else { unreachable!("as before") };
        let narrower = KubeRequest {
            verb: asked.verb,
            target: KubeTarget::Resource {
                group: group.clone(),
                resource: resource.clone(),
                subresource: None,
                namespace: asked_namespace.clone().or_else(|| {
                    // A named object without a namespace is of a kind that has none.
                    let has_one = asked_name.is_none() && resource != "nodes" && resource != "namespaces";
                    has_one.then(|| namespace.to_owned())
                }),
                name: asked_name.clone().or_else(|| Some(name.to_owned())),
            },
        };
        prop_assert!(!look(&rule, &asked).0 || look(&rule, &narrower).0, "{:?}: {} but not {}", rule, asked, narrower);
        prop_assert!(!look(&rule, &narrower).1 || look(&rule, &asked).1, "{:?}: {} but not {}", rule, narrower, asked);
    }
}
