//! `tctl auth sign` and `tctl auth export` on a running cluster, and what they write in the hands of programs that are not ours: ssh and sshd,
//! openssl, PostgreSQL, kubectl. Besides, `tsh -i` and `tctl -i` with the identity file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod identity;
mod kubernetes;
mod openssh;
mod postgres;
mod tls;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use remoteler_tests::{Cluster, Outcome, os_login};

/// Makes a user who can log in as the user who runs this, and has further traits.
#[track_caller]
fn add_user(cluster: &Cluster, name: &str, roles: &str, traits: &[&str]) {
    let (login, traits) = (os_login(), traits.join(","));
    let mut words = vec!["users", "add", name, "--roles", roles, "--logins", &login];
    if !traits.is_empty() {
        words.extend(["--traits", &traits]);
    }
    cluster.tctl(&words).ok();
}

/// `tctl auth sign … -o <directory of the cluster>/NAME`; the path.
#[track_caller]
fn sign(cluster: &Cluster, name: &str, words: &[&str]) -> PathBuf {
    let out = cluster.dir().join(name);
    try_sign(cluster, name, words).ok();
    out
}

#[track_caller]
fn try_sign(cluster: &Cluster, name: &str, words: &[&str]) -> Outcome {
    let out = cluster.dir().join(name);
    let mut all = vec!["auth", "sign", "-o", text(&out)];
    all.extend(words);
    cluster.tctl(&all)
}

/// `tctl auth export --type KIND` into a file; its path.
#[track_caller]
fn export(cluster: &Cluster, kind: &str) -> PathBuf {
    let path = cluster.dir().join(format!("exported-{kind}"));
    fs::write(&path, cluster.tctl(&["auth", "export", "--type", kind]).ok().stdout).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The path with more behind its name.
fn with(path: &Path, ending: &str) -> PathBuf {
    PathBuf::from(format!("{}{ending}", path.display()))
}

/// I67: nobody but its owner reads it.
#[track_caller]
fn private(path: &Path) {
    assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o600, "{}", path.display());
}

#[test]
fn a_file_that_is_there_is_refused_before_anything_is_made() {
    let cluster = Cluster::start();
    add_user(&cluster, "ann", "access", &[]);
    for (format, last) in [("file", ""), ("openssh", "-cert.pub"), ("tls", ".cas"), ("db", ".crt")] {
        let name = format!("ann-{format}");
        let there = cluster.dir().join(format!("{name}{last}"));
        fs::write(&there, "old").unwrap();
        let issued = cluster.events("cert.create").len();
        let line = try_sign(&cluster, &name, &["--user", "ann", "--format", format]).one_line_failure();
        assert!(line.contains(text(&there)) && line.contains("--overwrite"), "{line}");
        assert_eq!(fs::read_to_string(&there).unwrap(), "old");
        assert_eq!(cluster.events("cert.create").len(), issued);

        sign(&cluster, &name, &["--user", "ann", "--format", format, "--overwrite"]);
        assert_ne!(fs::read_to_string(&there).unwrap(), "old");
        private(&there);
    }
}

#[test]
fn what_was_made_is_told_to_people_and_to_programs_and_stands_in_the_audit_log() {
    let cluster = Cluster::start();
    add_user(&cluster, "ann", "access", &["db_users=reader", "db_users=writer"]);
    let said = try_sign(&cluster, "ann", &["--user", "ann", "--format", "db", "--db-user", "writer"]).ok().text();
    assert!(said.contains("ann.key") && said.contains("\"writer\"") && said.contains("sslrootcert="), "{said}");
    let out = cluster.dir().join("ann.id");
    let json = cluster.tctl_json(&["auth", "sign", "-o", text(&out), "--user", "ann", "--ttl", "1h"]);
    assert_eq!(json["files"][0], text(&out));
    assert_eq!(
        (&json["subject"], &json["roles"][0], &json["format"]),
        (&"ann".into(), &"access".into(), &"file".into())
    );
    let long = try_sign(&cluster, "long", &["--user", "ann", "--ttl", "20h"]).ok().text();
    assert!(long.contains("roles allow"), "{long}"); // I6: 12 h
    cluster.event("cert.create", |event| {
        event["purpose"] == "database client"
            && event["user"] == "ann"
            && event["subject"] == "writer"
            && event["by"] == "local:administrator"
    });
    cluster.event("cert.create", |event| event["purpose"] == "user" && event["expires"] == json["expires"]);
    for refused in [&["--user", "bob"][..], &["--user", "ann", "--format", "db", "--db-user", "postgres"]] {
        let line = try_sign(&cluster, "refused", refused).one_line_failure();
        assert!(line.contains(refused[1]), "{line}"); // I9
    }
    assert!(!cluster.dir().join("refused").exists() && !cluster.dir().join("refused.key").exists());
    let usage = try_sign(&cluster, "x", &["--user", "ann", "--host", "h", "--format", "tls"]);
    assert_eq!(usage.code, Some(2), "{}", usage.stderr);
}

#[test]
fn the_private_keys_stay_in_their_files() {
    let cluster = Cluster::start();
    add_user(&cluster, "ann", "access", &[]);
    let out = sign(&cluster, "ann.id", &["--user", "ann"]);
    let content = fs::read_to_string(&out).unwrap();
    let secrets: Vec<_> = content
        .split("-----BEGIN ")
        .filter(|block| block.lines().next().is_some_and(|label| label.contains("PRIVATE KEY")))
        .filter_map(|block| block.lines().nth(2))
        .collect();
    assert_eq!(secrets.len(), 2, "two private keys were made");
    let mut left = vec![cluster.data_dir()];
    let mut seen = 0;
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        if !fs::symlink_metadata(&path).unwrap().is_file() {
            continue;
        }
        let octets = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&octets);
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{}", path.display());
        seen += 1;
    }
    assert!(seen > 1, "{seen}");
    let log = fs::read_to_string(cluster.dir().join("daemon.log")).unwrap();
    assert!(secrets.iter().all(|secret| !log.contains(secret))); // I76
}
