//! Certificates that are right in everything but were revoked, at every listener: refused within one refresh of the rules, let in before and after.

use remoteler_tests::User;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    Scene,
    bearer::Bearer,
    door::{Door, knock},
    not_the_tunnel, with_room,
};

/// Flags of `tctl auth revoke`, and the name of what they revoke.
struct Revoked {
    what: &'static str,
    flags: Vec<String>,
    shown: Bearer,
    at: Vec<Door>,
}

/// Where SSH certificates of users are looked at, and where X.509 ones.
const BY_SSH: [Door; 2] = [Door::Node, Door::NodeBehindTunnel];

fn by_tls() -> Vec<Door> {
    not_the_tunnel().into_iter().filter(|door| !BY_SSH.contains(door)).collect()
}

fn tls_serial(bearer: &Bearer) -> String {
    let (_, certificate) = X509Certificate::from_der(&bearer.tls.chain()[0]).unwrap();
    certificate.raw_serial_as_string()
}

fn tls_pin(bearer: &Bearer) -> String {
    remoteler_core::spki_pin(&bearer.tls.chain()[0]).unwrap()
}

fn flags(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

// I3, I14
#[test]
fn what_is_revoked_is_refused_at_every_listener_until_it_is_taken_back() {
    with_room(async {
        let scene = Scene::new().await;
        let cluster = &scene.cluster;
        let adam = Bearer::of_login(&User::create_with_traits(
            cluster,
            "adam",
            "access,editor",
            &["kubernetes_groups=developers"],
        ));
        let ssh_fingerprint = adam.ssh_certificate.public_key().fingerprint(Default::default()).to_string();
        let edge = Bearer::of_host(scene.edge.data_dir());
        let revoked =
            |what, words: &[&str], shown: &Bearer, at| Revoked { what, flags: flags(words), shown: shown.clone(), at };
        let serial = adam.ssh_certificate.serial().to_string();
        let rows = [
            revoked("an SSH serial", &["--ssh-serial", &serial], &adam, BY_SSH.to_vec()),
            revoked("an SSH key", &["--key", &ssh_fingerprint], &adam, BY_SSH.to_vec()),
            revoked("an X.509 serial", &["--tls-serial", &tls_serial(&adam)], &adam, by_tls()),
            revoked("an X.509 key", &["--key", &tls_pin(&adam)], &adam, by_tls()),
            revoked(
                "a host's X.509 serial",
                &["--tls-serial", &tls_serial(&edge), "--type", "host"],
                &edge,
                vec![Door::ProxyTunnel],
            ),
        ];
        for Revoked { what, flags, shown, at } in rows {
            let all: Vec<Door> = if at == [Door::ProxyTunnel] { at.clone() } else { not_the_tunnel() };
            everybody(&scene, what, "adam", &shown, &all, &[]).await;
            let mut words = vec!["auth", "revoke"];
            words.extend(flags.iter().map(String::as_str));
            let done = cluster.tctl_json(&words);
            let name = done["target"].as_str().unwrap();
            cluster.event("cert_revocation.create", |event| event["name"] == name); // I75
            everybody(&scene, what, "adam", &shown, &all, &at).await;
            // Nobody else is.
            everybody(&scene, what, "eve", &scene.right, &not_the_tunnel(), &[]).await;
            cluster.tctl(&["auth", "unrevoke", name]).ok();
        }
        let refused = cluster.events("auth");
        let said = |service: &str| {
            refused.iter().any(|event| {
                event["service"] == service && event["error"].as_str().unwrap_or_default().contains("revoked")
            })
        };
        for service in ["node", "proxy", "auth", "kube"] {
            assert!(said(service), "no refusal by {service} says why");
        }
    });
}

/// Waits until those of `all` that are in `closed` refuse, and the others admit.
async fn everybody(scene: &Scene, what: &str, user: &str, shown: &Bearer, all: &[Door], closed: &[Door]) {
    // The double knows one user at a time.
    scene.api_server.expect(user, &["developers"]);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let mut wrong = Vec::new();
        for door in all {
            let knocked = knock(&scene.cluster, &scene.right, *door, Some(shown)).await;
            if knocked.admitted == closed.contains(door) {
                wrong.push(format!("{door:?}: {}", knocked.said));
            }
        }
        if wrong.is_empty() {
            return;
        }
        assert!(std::time::Instant::now() < end, "{what}: {}", wrong.join("\n"));
    }
}
