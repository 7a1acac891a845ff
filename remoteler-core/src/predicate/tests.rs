//! The language by example, and that no text and no user brings it out of its bounds.

use proptest::prelude::*;

use super::*;
use crate::Labels;

fn labels() -> Labels {
    [("env", "dev"), ("team", "apps"), ("project-a", "red"), ("project-b", "blue"), ("owner", "ann")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn traits() -> Traits {
    Traits::from([
        ("teams".into(), vec!["apps".into(), "ops".into()]),
        ("email".into(), vec!["ann@example.com".into()]),
        ("allowed-env".into(), vec!["env-dev".into(), "env-staging".into(), "other".into()]),
        ("colours".into(), vec!["red".into(), "blue".into(), "green".into()]),
        ("broken".into(), vec!["no-address".into()]),
    ])
}

fn holds(text: &str) -> Result<bool, EvalError> {
    let (traits, labels) = (traits(), labels());
    let predicate = Predicate::new(text).unwrap_or_else(|cause| panic!("{text}: {cause}"));
    predicate.holds(&Scope { user: "ann", traits: &traits, labels: &LabelView::of(&labels, 1) })
}

#[test]
fn each_form_of_the_reference_holds_or_does_not() {
    for (text, expected) in [
        (r#"labels["env"] == "dev""#, true),
        (r#"labels["env"] != "dev""#, false),
        ("labels[`env`] == `dev`", true),
        (r#"labels.env == "dev""#, true),
        (r#"labels["none"] == "dev""#, false),
        (r#"labels["env"] == "prod" || contains(user.spec.traits["teams"], labels["team"])"#, true),
        (r#"labels["env"] == "dev" && labels["team"] == "db""#, false),
        (r#"labels["env"] == "x" || labels["env"] == "dev" && labels["team"] == "apps""#, true),
        (r#"(labels["env"] == "dev" || labels["env"] == "x") && !(labels["team"] == "db")"#, true),
        (r#"!!equals(labels["env"], "dev")"#, true),
        (r#"!regexp.match(user.spec.traits["teams"], "contractor")"#, true),
        (r#"regexp.match(labels["team"], "^a.+s$")"#, true),
        (r#"regexp.match(labels["team"], "ap*")"#, true),
        (r#"contains(labels_matching("^project-(a|b)$"), "blue")"#, true),
        (r#"contains_any(user.spec.traits["colours"], labels_matching("project-*"))"#, true),
        (r#"contains_all(user.spec.traits["colours"], labels_matching("project-*"))"#, true),
        (r#"contains_all(user.spec.traits["teams"], labels_matching("project-*"))"#, false),
        (r#"contains_all(user.spec.traits["colours"], labels_matching("nothing-*"))"#, false), // I80
        (r#"contains(email.local(user.spec.traits["email"]), labels["owner"])"#, true),
        (r#"labels["owner"] == user.metadata.name"#, true),
        (r#"contains(strings.upper(user.spec.traits["teams"]), "OPS")"#, true),
        (r#"contains(strings.lower("OPS"), "ops")"#, true),
        (r#"contains(regexp.replace(user.spec.traits["allowed-env"], "^env-(.*)$", "$1"), labels["env"])"#, true),
        (r#"contains(regexp.replace(user.spec.traits["allowed-env"], "^env-(.*)$", "$1"), "other")"#, false),
        (r#"contains(user.spec.traits["none"], labels["none"])"#, false), // I80: nothing is not in nothing
    ] {
        assert_eq!(holds(text), Ok(expected), "{text}");
    }
}

// I80
#[test]
fn what_has_no_value_is_an_error_unless_the_other_side_decides() {
    let broken = r#"contains(email.local(user.spec.traits["broken"]), "x")"#;
    assert_eq!(holds(broken), Err(EvalError::NoEmail));
    assert_eq!(holds(&format!("!{broken}")), Err(EvalError::NoEmail));
    for order in [(broken, r#"labels["env"] == "prod""#), (r#"labels["env"] == "prod""#, broken)] {
        assert_eq!(holds(&format!("{} && {}", order.0, order.1)), Ok(false));
        assert_eq!(holds(&format!("{} || {}", order.0, order.1)), Err(EvalError::NoEmail));
    }
}

#[test]
fn values_cannot_grow_without_end() {
    let mut list = r#"user.spec.traits["teams"]"#.to_owned();
    for _ in 0..30 {
        list = format!(r#"regexp.replace({list}, "^.*$", "$0$0$0$0")"#);
    }
    assert_eq!(holds(&format!(r#"contains({list}, "x")"#)), Err(EvalError::TooLong)); // I25
}

// I80
#[test]
fn what_is_not_in_the_language_is_refused_with_the_place() {
    for (text, said) in [
        ("", "character 1"),
        (r#"labels["env"] == "#, "expected at character"),
        (r#"labels["env"] = "dev""#, "character 15"),
        (r#"labels["env" == "dev""#, "']'"),
        (r#"labels["env"] == "dev"#, "closing quote"),
        (r#"(labels["env"] == "dev""#, "')'"),
        (r#"labels["env"]"#, "a comparison"),
        (r#""dev""#, "a comparison"),
        (r#"user.spec.traits["a"] == "x""#, "not the list"),
        (r#"resource.spec == "x""#, "resource.spec"),
        (r#"exists(labels["env"])"#, "exists"),
        (r#"contains(labels["env"])"#, "two arguments"),
        (r#"regexp.match(labels["env"], labels["x"])"#, "in quotes"),
        (r#"regexp.match(labels["env"], "^(a$")"#, "regular expression"),
        (r#"contains(external.email, "x")"#, "external.email"),
        (r#"labels["a"] == "x" & labels["b"] == "y""#, "an operator"),
        (r#"labels["a"] == "x" == "y""#, "an operator"),
    ] {
        let cause = Predicate::new(text).unwrap_err().to_string();
        assert!(cause.contains(said), "{text}: {cause}");
    }
    for deep in ["(".repeat(3000), "!".repeat(3000), r#"labels["a"]=="b"||"#.repeat(200), "contains(".repeat(300)] {
        assert!(Predicate::new(&deep).is_err());
    }
    let long = format!("{} == {}", "(".repeat(60), "x".repeat(5000));
    assert_eq!(Predicate::new(&long).unwrap_err(), PredicateError::TooLarge);
}

proptest! {
    // I25
    #[test]
    fn no_text_brings_the_parser_down(text in "[a-z()\\[\\]!&|=.,\"`\\\\ \u{fc}]{0,60}") {
        let _parsed = Predicate::new(&text);
        let _parsed = List::of_traits(&text);
    }

    #[test]
    fn operators_mean_what_they_mean_elsewhere(values in prop::collection::vec(any::<bool>(), 3), signs in (any::<bool>(), any::<bool>())) {
        let word = |value: &bool| if *value { r#"labels["env"] == "dev""# } else { r#"labels["env"] == "prod""# };
        let sign = |and: bool| if and { "&&" } else { "||" };
        let text = format!("{} {} {} {} {}", word(&values[0]), sign(signs.0), word(&values[1]), sign(signs.1), word(&values[2]));
        let (a, b, c) = (values[0], values[1], values[2]);
        let expected = match signs {
            (true, true) => a && b && c,
            (true, false) => a && b || c,
            (false, true) => a || b && c,
            (false, false) => a || b || c,
        };
        prop_assert_eq!(holds(&text), Ok(expected), "{}", text);
        prop_assert_eq!(holds(&format!("!({text})")), Ok(!expected));
    }
}
