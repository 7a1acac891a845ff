//! What an identity provider answers beside its tokens' claims: each answer of it mangled, and what was asked of the proof itself.

use std::time::Duration;

use remoteler_core::{Clock, LoginProgress};
use serde_json::{Value, json};

use crate::{
    browser_login::{begin, connector, log_in, refusals, started},
    identity_provider::{Idp, Provider},
    support::Cluster,
};

/// One way to be wrong: the text of an answer, and what it becomes.
type Wrong = (&'static str, fn(&str) -> String);

/// Of every answer that is JSON.
const TEXTS: [Wrong; 9] = [
    ("nothing", |_| String::new()),
    ("a page", |_| "<html>canary</html>".into()),
    ("null", |_| "null".into()),
    ("a list", |right| format!("[{right}]")),
    ("a text", |right| Value::from(right).to_string()),
    ("broken off", |right| right[..right.len() - 1].into()),
    ("two at once", |right| format!("{right}{right}")),
    ("an empty object", |_| "{}".into()),
    ("UTF-16", |right| right.chars().flat_map(|c| ['\0', c]).collect()),
];

/// With a member of another value; `null` takes it out.
fn with(right: &str, name: &str, value: Value) -> String {
    let mut members: Value = serde_json::from_str(right).unwrap();
    let object = members.as_object_mut().unwrap();
    if value.is_null() {
        object.remove(name).unwrap();
    } else {
        object.insert(name.into(), value);
    }
    members.to_string()
}

/// With a member that stands there twice.
fn twice(right: &str, name: &str, value: &str) -> String {
    format!("{{{}:{},{}", Value::from(name), Value::from(value), &right[1..])
}

const TOKENS: [Wrong; 14] = [
    ("no id_token", |right| with(right, "id_token", json!(null))),
    ("no access_token", |right| with(right, "access_token", json!(null))),
    ("no token_type", |right| with(right, "token_type", json!(null))),
    ("id_token of another type", |right| with(right, "id_token", json!(["canary"]))),
    ("id_token empty", |right| with(right, "id_token", json!(""))),
    ("id_token no token", |right| with(right, "id_token", json!("canary"))),
    ("id_token of three empty parts", |right| with(right, "id_token", json!(".."))),
    ("id_token twice", |right| twice(right, "id_token", "canary")),
    ("access_token twice", |right| twice(right, "access_token", "canary")),
    ("access_token of another type", |right| with(right, "access_token", json!(7))),
    ("token_type of another type", |right| with(right, "token_type", json!(["Bearer"]))),
    ("token_type unknown", |right| with(right, "token_type", json!("mac"))),
    ("token_type empty", |right| with(right, "token_type", json!(""))),
    ("an error instead", |_| json!({ "error": "invalid_grant", "error_description": "canary" }).to_string()),
];

const USERINFO: [Wrong; 6] = [
    ("no sub", |right| with(right, "sub", json!(null))),
    ("sub of somebody else", |right| with(right, "sub", json!("subject-2"))),
    ("sub in another case", |right| with(right, "sub", json!("SUBJECT-1"))),
    ("sub of another type", |right| with(right, "sub", json!(["subject-1"]))),
    ("sub twice", |right| twice(right, "sub", "subject-2")),
    ("signed", |_| "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzdWJqZWN0LTEifQ.".into()),
];

const KEYS: [Wrong; 8] = [
    ("no keys", |right| with(right, "keys", json!(null))),
    ("keys of another type", |right| with(right, "keys", json!({}))),
    ("no key", |right| with(right, "keys", json!([]))),
    ("keys that are none", |right| with(right, "keys", json!([null, 7, "canary", {}, { "kty": "EC" }]))),
    ("two keys of one name", |right| with(right, "keys", Value::from(vec![key_of(right); 2]))),
    ("more keys than are looked at", |right| {
        let others = std::iter::repeat_n(json!({ "kty": "oct", "k": "AA" }), 100);
        with(right, "keys", others.chain([key_of(right)]).collect())
    }),
    ("a key for something else", |right| {
        let mut key = key_of(right);
        key["use"] = json!("enc");
        with(right, "keys", json!([key]))
    }),
    ("half a point", |right| {
        let mut key = key_of(right);
        key["x"] = json!("AA");
        with(right, "keys", json!([key]))
    }),
];

fn key_of(right: &str) -> Value {
    serde_json::from_str::<Value>(right).unwrap()["keys"][0].clone()
}

/// Later than anything that was published is believed; tokens are of now.
fn later(cluster: &Cluster, idp: &Idp) {
    cluster.clock.advance(Duration::from_secs(301));
    let now = cluster.clock.now().unix_seconds();
    idp.change(|provider| {
        provider.wrong.insert("iat".into(), json!(now));
        provider.wrong.insert("exp".into(), json!(now + 300));
    });
}

/// A login while one answer is wrong: nobody is let in, and who asks is told nothing of what was received.
async fn refused(
    cluster: &Cluster,
    idp: &Idp,
    what: &str,
    mangle: impl Fn(&str, &mut u16, &mut String) + Send + 'static,
) {
    later(cluster, idp);
    idp.change(|provider: &mut Provider| provider.mangle = Some(Box::new(mangle)));
    let mut attempt = begin(cluster).await;
    let refused = attempt.prove(idp).await.unwrap_err();
    idp.change(|provider| provider.mangle = None);
    assert!(refused.message.contains("identity provider"), "{what}: {refused}");
    assert!(!refused.message.contains("canary"), "{what}: {refused}");
    // Where it never came so far, tsh may ask again.
    let progress = attempt.poll().await.unwrap();
    assert!(matches!(progress, LoginProgress::Refused { .. } | LoginProgress::Pending), "{what}: {progress:?}");
    assert!(attempt.review().await.is_err(), "{what}");
}

#[tokio::test]
async fn an_answer_of_the_provider_that_is_wrong_in_anything_lets_nobody_in_and_is_not_repeated() {
    // I38, I43
    let (cluster, idp) = started().await;
    cluster.admin().put_resource(connector("idp", json!({ "userinfo": true })), true).await.unwrap();
    let answers: [(&str, &[Wrong]); 4] =
        [("/token", &TOKENS), ("/me", &USERINFO), ("/jwks", &KEYS), ("/.well-known/openid-configuration", &[])];
    let mut wrongs = 0;
    for (path, own) in answers {
        for (what, change) in TEXTS.iter().chain(own) {
            let mangle = move |asked: &str, _: &mut u16, text: &mut String| {
                if asked == path {
                    *text = change(text);
                }
            };
            refused(&cluster, &idp, &format!("{path}: {what}"), mangle).await;
            wrongs += 1;
        }
        for wrong in [302, 303, 307, 400, 401, 403, 404, 429, 500, 503] {
            // The right text under a wrong status is no right answer.
            let mangle = move |asked: &str, status: &mut u16, _: &mut String| {
                if asked == path {
                    *status = wrong;
                }
            };
            refused(&cluster, &idp, &format!("{path}: status {wrong}"), mangle).await;
            wrongs += 1;
        }
    }
    let said = refusals(&cluster).await;
    assert_eq!(cluster.events("user.login").await.len(), wrongs, "each is on record: {said:?}");
    assert!(!format!("{said:?}").contains("canary") && !format!("{said:?}").contains("eyJ"), "{said:?}"); // I76
    assert!(cluster.admin().users().await.unwrap().is_empty());
    later(&cluster, &idp);
    log_in(&cluster, &idp).await;
}

#[tokio::test]
async fn what_a_connector_asks_of_the_proof_stands_in_the_request_and_is_looked_for_in_the_answer() {
    // I37, I38
    let (cluster, idp) = started().await;
    let away = begin(&cluster).await.open().await.unwrap();
    for name in ["prompt=", "acr_values=", "max_age="] {
        assert!(!away.contains(name), "{name} was not asked for: {away}");
    }
    let wanted = json!({ "prompt": "login consent", "acr_values": "gold silver", "max_age": "1h" });
    cluster.admin().put_resource(connector("idp", wanted), true).await.unwrap();
    let away = begin(&cluster).await.open().await.unwrap();
    let query = away.split_once('?').unwrap().1.as_bytes();
    let query: Vec<(String, String)> = form_urlencoded::parse(query).into_owned().collect();
    for (name, value) in [("prompt", "login consent"), ("acr_values", "gold silver"), ("max_age", "3600")] {
        let said: Vec<&str> = query.iter().filter(|(said, _)| said == name).map(|(_, value)| value.as_str()).collect();
        assert_eq!(said, [value], "{away}");
    }
    let now = cluster.clock.now().unix_seconds();
    for wrong in [
        json!({}),
        json!({ "acr": "gold" }),
        json!({ "auth_time": now }),
        json!({ "acr": "bronze", "auth_time": now }),
        json!({ "acr": "gold silver", "auth_time": now }),
        json!({ "acr": ["gold"], "auth_time": now }),
        json!({ "acr": "gold", "auth_time": now - 3600 - 61 }),
        json!({ "acr": "gold", "auth_time": now + 61 }),
        json!({ "acr": "gold", "auth_time": i64::MAX }),
        json!({ "acr": "gold", "auth_time": now.to_string() }),
    ] {
        idp.change(|provider| provider.wrong = wrong.as_object().unwrap().clone());
        let refused = begin(&cluster).await.prove(&idp).await.unwrap_err();
        assert!(refused.message.contains("not to be believed"), "{wrong} {refused}");
    }
    let said = refusals(&cluster).await;
    let whys =
        ["acr is not what was asked for", "the user proved who they are too long ago", "auth_time is in the future"];
    for why in whys {
        assert!(said.iter().any(|said| said.contains(why)), "{why}: {said:?}");
    }
    for (acr, auth_time) in [("silver", now), ("gold", now - 3600), ("gold", now + 60)] {
        let right = json!({ "acr": acr, "auth_time": auth_time });
        idp.change(|provider| provider.wrong = right.as_object().unwrap().clone());
        log_in(&cluster, &idp).await;
    }
}
