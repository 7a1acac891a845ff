//! openssl on what `auth sign` writes for TLS: key and certificate belong together, and each verifies under its own exported authority, for
//! its own purpose and names, and under no other.

use std::{fs, path::Path, process::Command};

use remoteler_tests::{Cluster, need, run};

use super::{add_user, export, private, sign, with};

const HOST: &str = "db.test.example.com";

fn verifies(leaf: &Path, authority: &Path, more: &[&str]) -> bool {
    let mut openssl = Command::new("openssl");
    openssl.args(["verify", "-x509_strict", "-CAfile"]).arg(authority).args(more).arg(leaf);
    run(&mut openssl).code == Some(0)
}

#[test]
fn openssl_verifies_each_certificate_under_its_own_authority_only() {
    if !need(&["openssl"]) {
        return;
    }
    let cluster = Cluster::start();
    add_user(&cluster, "ann", "access", &[]);
    let (users, hosts) = (export(&cluster, "tls-user"), export(&cluster, "tls-host"));
    let windows = ["--windows-domain", "corp.example.com", "--crl-url", "http://crl.example.com/user.crl"];
    let rdp = [&["--user", "ann", "--format", "rdp"][..], &windows].concat();
    for (name, words) in [
        ("tls", &["--user", "ann", "--format", "tls"][..]),
        ("db", &["--user", "ann", "--format", "db"]),
        ("rdp", &rdp),
        ("server", &["--host", "db.test.example.com,192.0.2.7", "--format", "tls"]),
        ("dbserver", &["--host", "db.test.example.com", "--format", "db", "--ttl", "24h"]),
    ] {
        let out = sign(&cluster, name, words);
        let (key, leaf, cas) = (with(&out, ".key"), with(&out, ".crt"), with(&out, ".cas"));
        for file in [&key, &leaf, &cas] {
            private(file);
        }
        let of_host = name.ends_with("server");
        let (own, other) = if of_host { (&hosts, &users) } else { (&users, &hosts) };
        let (purpose, wrong) = if of_host { ("sslserver", "sslclient") } else { ("sslclient", "sslserver") };
        assert!(verifies(&leaf, own, &["-purpose", purpose]), "{name}");
        assert!(!verifies(&leaf, own, &["-purpose", wrong]), "{name}"); // I11
        assert!(!verifies(&leaf, other, &[]), "{name}"); // I1
        // A client is given whom it believes as servers, a server whom it believes as clients; a smart card whom the domain believes.
        let believed = if of_host || name == "rdp" { &users } else { &hosts };
        assert_eq!(fs::read(&cas).unwrap(), fs::read(believed).unwrap(), "{name}");

        let public = run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&key)).ok().text();
        let certified = run(Command::new("openssl").args(["x509", "-noout", "-pubkey", "-in"]).arg(&leaf)).ok().text();
        assert_eq!(public, certified, "{name}");
        let shown = run(Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&leaf)).ok().text();
        let subject = if of_host { HOST } else { "ann" };
        assert!(shown.contains(&format!("CN = {subject}")), "{name}: {shown}");
        if name == "rdp" {
            assert!(
                shown.contains("Microsoft Smartcard Login") && shown.contains("http://crl.example.com/user.crl"),
                "{shown}"
            );
        }
    }
    let server = cluster.dir().join("server.crt");
    assert!(
        verifies(&server, &hosts, &["-verify_hostname", HOST])
            && verifies(&server, &hosts, &["-verify_ip", "192.0.2.7"])
    );
    assert!(!verifies(&server, &hosts, &["-verify_hostname", "www.test.example.com"]));
}
