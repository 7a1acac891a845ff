//! From claims to names, roles and traits. Pure: claims in, roles and the reasons out. What was not said is not given.

use std::collections::{BTreeMap, BTreeSet};

use remoteler_core::{CapturePattern, ClaimMapping, Login, MappingOutcome, RoleName, Traits, UserName};
use serde_json::{Map, Value};

use super::conclude::LoginFault;

/// Values of claims, by name.
pub(crate) type Claims = BTreeMap<String, Vec<String>>;

/// Claims of the protocol itself: they say nothing of the user.
const TECHNICAL: [&str; 14] = [
    "iss",
    "aud",
    "azp",
    "exp",
    "iat",
    "nbf",
    "nonce",
    "at_hash",
    "c_hash",
    "s_hash",
    "auth_time",
    "jti",
    "sid",
    "rt_hash",
];
/// Longest value that is looked at.
const MAX_VALUE: usize = 256;
/// Most values of one claim.
const MAX_VALUES: usize = 500;
/// Most roles that a login gives.
const MAX_ROLES: usize = 100;

/// Texts, numbers and booleans, alone or in lists; what is nested deeper is left out.
pub(crate) fn claims_of(object: &Map<String, Value>) -> Claims {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    let said = object.iter().filter(|(name, _)| !TECHNICAL.contains(&name.as_str()));
    bounded(said.map(|(name, value)| {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        (name.clone(), values.iter().filter_map(text))
    }))
}

/// What was said, as claims, by whichever protocol: what is too long or steers a terminal is left out, and what is too much.
pub(crate) fn bounded<V: IntoIterator<Item = String>>(said: impl IntoIterator<Item = (String, V)>) -> Claims {
    let plain = |text: &String| text.len() <= MAX_VALUE && !text.chars().any(char::is_control);
    let named = said.into_iter().filter(|(name, _)| plain(name));
    let kept =
        named.map(|(name, values)| (name, values.into_iter().filter(plain).take(MAX_VALUES).collect::<Vec<_>>()));
    kept.filter(|(_, values)| !values.is_empty()).collect()
}

/// Traits are claims; accounts of operating systems only those that can be some.
pub(crate) fn traits_of(claims: &Claims) -> Traits {
    let mut traits: Traits = claims.clone().into_iter().collect();
    if let Some(logins) = traits.get_mut("logins") {
        logins.retain(|login| Login::new(login).is_ok());
    }
    traits
}

/// The roles that the claims give, and what each mapping did.
pub(crate) fn roles_of(
    claims: &Claims,
    mappings: &[ClaimMapping],
) -> Result<(BTreeSet<RoleName>, Vec<MappingOutcome>), LoginFault> {
    let (mut roles, mut outcomes) = (BTreeSet::new(), Vec::new());
    for mapping in mappings {
        let pattern = CapturePattern::new(&mapping.value)
            .map_err(|cause| LoginFault::with("the connector's mappings cannot be used", cause))?;
        let mut outcome = MappingOutcome {
            mapping: format!("{}: {} -> {}", mapping.claim, mapping.value, mapping.roles.join(", ")),
            matched: None,
            roles: Vec::new(),
        };
        for value in claims.get(&mapping.claim).into_iter().flatten() {
            for template in &mapping.roles {
                let Some(role) = pattern.expand(value, template) else { continue };
                outcome.matched.get_or_insert_with(|| value.clone());
                let role = RoleName::new(&role)
                    .map_err(|cause| LoginFault::with("a claim would give a role whose name is none", cause))?;
                if !outcome.roles.contains(&role.to_string()) {
                    outcome.roles.push(role.to_string());
                }
                roles.insert(role);
                if roles.len() > MAX_ROLES {
                    return Err(LoginFault::said(format!("the claims give more than {MAX_ROLES} roles")));
                }
            }
        }
        outcomes.push(outcome);
    }
    Ok((roles, outcomes))
}

/// A user's name from a claim: printable ASCII in small letters, so that no two names look alike, and one `@` at the most (I39).
pub(crate) fn username(claim: &str, text: &str) -> Result<UserName, LoginFault> {
    let said = format!("claim {claim} is no name that a user can have here");
    let folded = text.to_ascii_lowercase();
    if !folded.bytes().all(|c| c.is_ascii_graphic()) || folded.matches('@').count() > 1 {
        return Err(LoginFault::said(said));
    }
    UserName::new(&folded).map_err(|cause| LoginFault::with(said, cause))
}

/// Adds claims of another source; those that are there stay. That an address is verified is said of the address beside it and of no other (I39).
pub(crate) fn add_claims(claims: &mut Map<String, Value>, mut more: Map<String, Value>) {
    if !claims.contains_key("email") {
        claims.remove("email_verified");
    } else if claims.get("email") != more.get("email") {
        more.remove("email");
        more.remove("email_verified");
    }
    for (name, value) in more {
        claims.entry(name).or_insert(value);
    }
}

/// Takes out an address that the provider does not vouch for, and what it says of it (I39).
pub(crate) fn drop_unverified_email(claims: &mut Map<String, Value>) {
    if claims.get("email_verified") != Some(&Value::Bool(true)) {
        claims.remove("email");
        claims.remove("email_verified");
    }
}

/// The address of a user; one that the provider does not vouch for is none (I39).
pub(crate) fn email(object: &Map<String, Value>, allow_unverified: bool) -> Result<String, LoginFault> {
    let Some(Value::String(email)) = object.get("email") else {
        return Err(LoginFault::said("the identity provider gives no email address, which is to name the user"));
    };
    if !allow_unverified && object.get("email_verified") != Some(&Value::Bool(true)) {
        return Err(LoginFault::said("the identity provider has not verified the user's email address"));
    }
    let parts: Vec<&str> = email.split('@').collect();
    match parts.as_slice() {
        [local, domain] if !local.is_empty() && !domain.is_empty() => Ok(email.clone()),
        _ => Err(LoginFault::said("the identity provider gives an email address that is none")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn mapping(claim: &str, value: &str, roles: &[&str]) -> ClaimMapping {
        ClaimMapping {
            claim: claim.into(),
            value: value.into(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        }
    }

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_claim_gives_the_roles_of_its_mappings_and_the_report_says_which_did_what() {
        let claims =
            claims_of(&object(json!({ "groups": ["ssh-prod", "ssh-dev", "hr"], "admin": true, "deep": { "a": 1 } })));
        assert!(!claims.contains_key("deep"));
        let mappings = [
            mapping("groups", "ssh-*", &["node-$1"]),
            mapping("admin", "true", &["editor"]),
            mapping("groups", "x", &["y"]),
        ];
        let (roles, outcomes) = roles_of(&claims, &mappings).unwrap();
        let names: Vec<_> = roles.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["editor", "node-dev", "node-prod"]);
        assert_eq!(outcomes[0].matched.as_deref(), Some("ssh-prod"));
        assert_eq!(outcomes[0].roles, ["node-prod", "node-dev"]);
        assert_eq!((outcomes[2].matched.as_deref(), outcomes[2].roles.len()), (None, 0));
    }

    #[test]
    fn claims_are_short_plain_and_few_by_whichever_protocol() {
        let long = "x".repeat(MAX_VALUE + 1);
        let many: Vec<_> = (0..=MAX_VALUES).map(|number| number.to_string()).collect();
        let said =
            object(json!({ "groups": ["a\u{1b}[2J", long, "ops"], "many": many, "none": [long, {}], "b\u{7}": "x" }));
        let claims = claims_of(&said);
        assert_eq!(claims.keys().collect::<Vec<_>>(), ["groups", "many"]);
        assert_eq!((&claims["groups"], claims["many"].len()), (&vec!["ops".to_owned()], MAX_VALUES));
        let attributes = ["groups", "many"].map(|name| (name.to_owned(), claims[name].clone()));
        assert_eq!(bounded(attributes), claims);
    }

    #[test]
    fn an_address_counts_only_when_the_provider_says_true_and_not_something_like_it() {
        // I39
        for verified in [json!("true"), json!(1), json!(false), json!(null), json!([true])] {
            let said = object(json!({ "email": "ann@example.com", "email_verified": verified }));
            assert!(email(&said, false).is_err(), "{said:?}");
            assert!(email(&said, true).is_ok());
        }
        assert!(email(&object(json!({ "email": "ann@example.com" })), false).is_err());
        assert!(email(&object(json!({ "email": "ann@example.com", "email_verified": true })), false).is_ok());
        for wrong in [json!("ann"), json!("@x"), json!("a@"), json!("a@b@c"), json!(["ann@example.com"]), json!(7)] {
            assert!(email(&object(json!({ "email": wrong, "email_verified": true })), false).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_source_vouches_for_its_own_address_and_for_no_other() {
        // I39
        let merged = |mut token: Value, userinfo: Value| {
            let token = token.as_object_mut().unwrap();
            add_claims(token, object(userinfo));
            token.clone()
        };
        let other = json!({ "email": "boss@example.com", "email_verified": true, "team": "x" });
        let claims = merged(json!({ "email": "ann@example.com" }), other.clone());
        assert_eq!((&claims["email"], &claims["team"]), (&json!("ann@example.com"), &json!("x")));
        assert!(email(&claims, false).is_err(), "{claims:?}");
        let claims = merged(json!({ "email_verified": true }), json!({ "email": "boss@example.com" }));
        assert!(email(&claims, false).is_err(), "{claims:?}");
        let claims = merged(json!({ "email": "ann@example.com" }), json!({ "email_verified": true }));
        assert!(email(&claims, false).is_err(), "{claims:?}");
        let claims = merged(
            json!({ "email": "ann@example.com", "email_verified": false }),
            json!({ "email": "ann@example.com", "email_verified": true }),
        );
        assert!(email(&claims, false).is_err(), "what was signed stays: {claims:?}");
        assert!(email(&merged(json!({}), other.clone()), false).is_ok());
        let same = json!({ "email": "boss@example.com" });
        assert!(email(&merged(same, other), false).is_ok());
    }

    #[test]
    fn an_address_that_is_not_verified_is_no_claim() {
        // I39
        for verified in [json!("true"), json!(1), json!(false), json!(null)] {
            let mut claims = object(json!({ "email": "boss@example.com", "email_verified": verified, "sub": "s" }));
            drop_unverified_email(&mut claims);
            assert_eq!(claims, object(json!({ "sub": "s" })));
        }
        let mut claims = object(json!({ "email": "ann@example.com", "email_verified": true }));
        drop_unverified_email(&mut claims);
        assert_eq!(claims.len(), 2);
    }

    #[test]
    fn names_that_look_alike_are_one_name_or_none() {
        // I39
        assert_eq!(username("email", "Ann@Example.COM").unwrap().as_str(), "ann@example.com");
        for wrong in ["änn", "аnn", "a@b@c", "ann\n", "a n", "", "-ann", "ann\u{200b}", "e\u{301}"] {
            assert!(username("sub", wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_name_claim_says_a_name_has_one_form(text in "\\PC{0,20}") {
            // I39
            if let Ok(name) = username("sub", &text) {
                prop_assert!(name.as_str().bytes().all(|c| c.is_ascii_graphic() && !c.is_ascii_uppercase()));
                prop_assert!(name.as_str().matches('@').count() <= 1);
                prop_assert_eq!(username("sub", name.as_str()).unwrap(), name);
            }
        }
    }
}
