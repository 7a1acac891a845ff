//! Every wrong certificate, key and login at the node is refused, and the audit log says so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use ssh_key::certificate::CertType;
use support::{
    Cluster, Wish, finish, gets_in, host_certificate, host_identity, new_key, own_login, text, user_certificate,
};

async fn refused(cluster: &Cluster, key: &std::path::Path, what: &str) -> (String, serde_json::Value) {
    let before = cluster.audit.named("auth").len();
    let done = cluster.run(key, "echo got-in").await;
    assert_eq!(done.status.code(), Some(255), "{what}");
    assert!(!text(&done.stdout).contains("got-in"), "{what} got in");
    assert_eq!(cluster.audit.named("session.start").len(), 0, "{what}");
    let event = cluster.audit.wait_for("auth", before + 1).await.pop().unwrap();
    assert_eq!(event["service"], "node", "{what}");
    assert_eq!(event["login"], own_login(), "{what}");
    (text(&done.stderr), event)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_wrong_certificate_gets_in_and_each_leaves_an_event() {
    let cluster = Cluster::start().await;
    let stranger = new_key();
    let text = |value: &str| value.to_owned();
    // I1, I5, I6, I16, I19: which authority, which type, whose cluster, when, with what in it.
    let wrong = [
        ("an unknown authority", &stranger, Wish::default(), "was not signed by the user authority"),
        ("the host authority", &cluster.host_ca, Wish::default(), "was not signed by the user authority"),
        (
            "a host certificate",
            &cluster.user_ca,
            Wish { kind: CertType::Host, ..Wish::default() },
            "user certificate is needed",
        ),
        ("an expired one", &cluster.user_ca, Wish { window: (-600, -5), ..Wish::default() }, "expired"),
        ("one from the future", &cluster.user_ca, Wish { window: (600, 900), ..Wish::default() }, "not yet valid"),
        ("one for ever", &cluster.user_ca, Wish { window: (-60, i64::MAX), ..Wish::default() }, "must have an end"),
        (
            "another cluster",
            &cluster.user_ca,
            Wish { cluster: text("other.example.com"), ..Wish::default() },
            "cluster other.example.com",
        ),
        (
            "a critical option",
            &cluster.user_ca,
            Wish { critical: Some((text("force-command"), text("true"))), ..Wish::default() },
            "force-command",
        ),
        ("no principals", &cluster.user_ca, Wish { principals: Some(Vec::new()), ..Wish::default() }, "0 principals"),
        (
            "other principals than logins",
            &cluster.user_ca,
            Wish { logins: vec![text("nobody")], principals: Some(vec![own_login()]), ..Wish::default() },
            "principals are not those",
        ),
    ];
    for (index, (what, ca, wish, reason)) in wrong.into_iter().enumerate() {
        let key = new_key();
        let certificate = user_certificate(ca, &key, &wish);
        assert!(!gets_in(&cluster, &key, &certificate).await, "{what} got in");
        let event = cluster.audit.wait_for("auth", index + 1).await.pop().unwrap();
        assert_eq!(event["service"], "node", "{what}");
        assert!(event["error"].as_str().unwrap().contains(reason), "{what}: {event}");
    }
    let key = new_key();
    let certificate = user_certificate(&cluster.user_ca, &key, &Wish::default());
    assert!(gets_in(&cluster, &key, &certificate).await, "the right one did not get in");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_client_sees_nothing_but_a_refusal() {
    let cluster = Cluster::start().await;
    let key = new_key();
    let certificate = user_certificate(&new_key(), &key, &Wish::default());
    let path = cluster.write_user("wrong", &key, &certificate);
    let (said, _) = refused(&cluster, &path, "an unknown authority").await;
    assert!(said.contains("Permission denied") && !said.contains("authority"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_own_certificate_is_no_user() {
    let cluster = Cluster::start().await;
    let key = new_key();
    let certificate = host_certificate(&cluster.host_ca, &key, &host_identity());
    let path = cluster.write_user("host", &key, &certificate);
    refused(&cluster, &path, "a host").await; // I1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_key_is_refused_even_when_an_authority_holds_it() {
    let cluster = Cluster::start().await;
    let certificate = user_certificate(&cluster.user_ca, &cluster.user_ca, &Wish::default());
    let path = cluster.write_user("ca", &cluster.user_ca, &certificate);
    std::fs::remove_file(cluster.path("ca-cert.pub")).unwrap();
    let (_, event) = refused(&cluster, &path, "a plain key").await;
    assert!(event["error"].as_str().unwrap().contains("without an acceptable certificate"), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_its_key_is_worth_nothing() {
    let cluster = Cluster::start().await;
    let (owner, thief) = (new_key(), new_key());
    let certificate = user_certificate(&cluster.user_ca, &owner, &Wish::default());
    let path = cluster.write_user("thief", &thief, &certificate);
    refused(&cluster, &path, "a stolen certificate").await; // I16
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_user_whom_no_role_lets_in_is_told_so_and_gets_nothing() {
    let cluster = Cluster::start().await;
    let wish = Wish { roles: vec!["elsewhere".into()], ..Wish::default() };
    let key = cluster.user("ann", &wish);
    let (said, event) = refused(&cluster, &key, "no role").await;
    assert!(said.contains("access denied: ann may not log in as"), "{said}");
    assert!(event["error"].as_str().unwrap().contains("no role allows it"), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_not_in_the_certificate_is_refused() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish { logins: vec!["somebody-else".into()], ..Wish::default() });
    let (said, _) = refused(&cluster, &key, "another login").await;
    assert!(said.contains("access denied"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_does_not_exist_is_refused_for_every_kind_of_channel() {
    let cluster = Cluster::start().await;
    let ghost = "no-such-account";
    let key = cluster.user("ann", &Wish { logins: vec![ghost.into()], ..Wish::default() });
    for extra in [&["-l", ghost][..], &["-l", ghost, "-s"], &["-l", ghost, "-W", "127.0.0.1:1"]] {
        let mut command = cluster.ssh(&key, extra);
        if !extra.contains(&"-W") {
            command.arg("sftp");
        }
        let done = finish(&mut command).await; // I20
        assert_eq!(done.status.code(), Some(255));
        assert!(text(&done.stderr).contains("this machine has no account no-such-account"), "{}", text(&done.stderr));
    }
    assert!(cluster.audit.named("session.start").is_empty() && cluster.audit.named("port").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_any_key_leaves_an_event() {
    let cluster = Cluster::start().await;
    let mut command = cluster.ssh(&cluster.path("none"), &["-o", "PubkeyAuthentication=no"]);
    let done = finish(command.arg("true")).await;
    assert_eq!(done.status.code(), Some(255));
    let event = cluster.audit.wait_for("auth", 1).await.remove(0);
    assert!(event["error"].as_str().unwrap().contains("no acceptable certificate"), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_authority_is_not_believed_on_the_next_connection() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    assert!(cluster.run(&key, "true").await.status.success());
    cluster.policy.replace(support::policy(&new_key(), &cluster.host_ca));
    assert_eq!(cluster.run(&key, "true").await.status.code(), Some(255)); // I1
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_sees_a_host_certificate_of_our_authority_and_refuses_any_other_name() {
    let cluster = Cluster::start().await;
    let key = cluster.user("ann", &Wish::default());
    let line = format!("@cert-authority other {}\n", cluster.host_ca.public_key().to_openssh().unwrap());
    std::fs::write(cluster.path("known_hosts"), line).unwrap();
    let done = finish(cluster.ssh(&key, &["-o", "HostKeyAlias=other"]).arg("true")).await;
    assert_eq!(done.status.code(), Some(255));
    assert!(text(&done.stderr).contains("not a listed principal"), "{}", text(&done.stderr)); // I73
}
