//! The keys of identity tokens as an administrator and an application see them: published by the proxy, exported, and replaced by a
//! rotation that every service follows.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::process::Command;

use remoteler_tests::{Cluster, eventually, need, run};
use serde_json::Value;

/// What the proxy publishes, and the answer's headers.
fn published(cluster: &Cluster) -> (Vec<String>, String) {
    let url = format!("https://{}/.well-known/jwks.json", cluster.proxy());
    let out =
        run(Command::new("curl").args(["--silent", "--show-error", "--fail", "--insecure", "--include", &url])).ok();
    let text = out.text().replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").unwrap();
    (names(&serde_json::from_str(body).unwrap()), head.to_ascii_lowercase())
}

fn names(set: &Value) -> Vec<String> {
    let keys = set["keys"].as_array().unwrap();
    assert!(keys.iter().all(|key| key["kty"] == "EC" && key["alg"] == "ES256" && key["d"].is_null()), "{set}");
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn exported(cluster: &Cluster) -> Vec<String> {
    let out = cluster.tctl(&["auth", "export", "--type", "token"]).ok();
    names(&serde_json::from_slice(&out.stdout).unwrap())
}

/// What the proxy publishes once it has asked the auth service anew, which it does each 5 s at most.
fn published_as_exported(cluster: &Cluster) -> Vec<String> {
    let wanted = exported(cluster);
    eventually("the proxy publishes the keys of now", || {
        let (names, _) = published(cluster);
        if names == wanted { Ok(()) } else { Err(format!("{names:?}")) }
    });
    wanted
}

#[test]
fn the_key_of_identity_tokens_is_replaced_and_applications_see_each_step() {
    if !need(&["curl"]) {
        return;
    }
    let cluster = Cluster::start();
    let edge = cluster.edge("edge-1");
    let (first, head) = published(&cluster);
    assert_eq!((first.len(), &first), (1, &exported(&cluster)));
    assert!(head.contains("content-type: application/jwk-set+json") && head.contains("max-age=60"), "{head}");

    cluster.rotate("token", "init");
    let both = published_as_exported(&cluster);
    assert_eq!((both.len(), &both[0]), (2, &first[0]), "the new one is published before it signs");
    // The next step waits for the edge node too, which tells nobody by tokens: one bundle, one acknowledgement.
    cluster.rotate("token", "update_clients");
    let swapped = published_as_exported(&cluster);
    assert_eq!(swapped, [both[1].clone(), both[0].clone()]);
    let status = cluster.tctl_json(&["auth", "status"]);
    assert_eq!(status["token_keys"], serde_json::json!(swapped));
    let shown = cluster.tctl(&["auth", "status"]).ok().text();
    assert!(shown.contains("Keys of identity tokens: phase update_clients"), "{shown}");
    cluster.rotate("token", "update_servers");
    cluster.rotate("token", "standby");
    assert_eq!(published_as_exported(&cluster), [both[1].clone()]);
    let events = cluster.events("ca.rotate");
    assert_eq!(events.iter().filter(|event| event["ca_type"] == "token").count(), 4, "{events:?}");
    edge.wait_connected();
}

#[test]
fn all_means_both_authorities_and_the_key_of_identity_tokens() {
    let cluster = Cluster::start();
    let steps = cluster.tctl_json(&["auth", "rotate", "--type", "all", "--manual", "--phase", "init"]);
    let kinds: Vec<_> = steps.as_array().unwrap().iter().map(|step| step["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["user", "host", "token"]);
    let view = cluster.tctl_json(&["auth", "status"])["rotations"].clone();
    assert!(view.as_array().unwrap().iter().all(|rotation| rotation["phase"] == "init"), "{view}");
}
