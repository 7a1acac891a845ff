//! `tsh login -o`: what a login writes into files, in the hands of `tsh -i`, stock ssh, kubectl and openssl; and that nothing else is kept.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use remoteler_tests::{Cluster, KubeCluster, Outcome, User, binary, client, eventually, need, os_login, run};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `tsh login -o <directory of the cluster>/NAME …`; the path.
#[track_caller]
fn write(cluster: &Cluster, user: &User, name: &str, words: &[&str]) -> PathBuf {
    let out = cluster.dir().join(name);
    user.login(&[&["-o", text(&out)], words].concat()).ok();
    out
}

/// I67: nobody but its owner reads it.
#[track_caller]
fn private(path: &Path) {
    assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o600, "{}", path.display());
}

/// Names and contents of all files below `dir`.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut left) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.is_file() {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// The last line of a failure; what `--insecure` gives up is said before.
#[track_caller]
fn refused(outcome: &Outcome) -> &str {
    assert_eq!((outcome.code, outcome.text().as_str()), (Some(1), ""), "{}", outcome.stderr);
    outcome.stderr.lines().last().unwrap()
}

#[test]
fn an_identity_file_of_a_login_is_enough_elsewhere_and_the_login_at_hand_stays_as_it_is() {
    let cluster = Cluster::start();
    let ann = cluster.user("ann", "access");
    let before = files(ann.home());
    let file = write(&cluster, &ann, "ann.identity", &["--ttl", "1h"]);
    private(&file);
    assert_eq!(files(ann.home()), before);

    let elsewhere = |words: &[&str]| -> Outcome {
        let mut tsh = Command::new(binary("tsh"));
        run(tsh.env_clear().arg("-i").arg(&file).args(words))
    };
    assert!(elsewhere(&["ls"]).ok().text().contains(Cluster::NODE));
    let node = format!("{}@{}", os_login(), Cluster::NODE);
    assert_eq!(elsewhere(&["ssh", &node, "echo in"]).ok().text(), "in\n");
    let status: serde_json::Value =
        serde_json::from_str(&elsewhere(&["status", "--format", "json"]).ok().text()).unwrap();
    assert!(status.to_string().contains("ann"), "{status}");

    // Nobody needs to be logged in for it, and nobody is afterwards.
    ann.tsh(&["logout"]).ok();
    let before = files(ann.home());
    let said = ann.login(&["-o", text(&file), "--overwrite"]).ok().text();
    assert!(said.contains(text(&file)) && said.contains("valid until") && said.contains("tsh -i"), "{said}");
    assert_eq!(files(ann.home()), before);
    assert_ne!(ann.tsh(&["ls"]).code, Some(0));
}

#[test]
fn a_file_that_is_there_is_refused_before_anybody_is_asked_for_a_password() {
    let cluster = Cluster::start();
    let ann = cluster.user("ann", "access");
    for (format, last) in [("file", ""), ("openssh", "-cert.pub"), ("tls", ".cas"), ("kubernetes", "")] {
        let out = cluster.dir().join(format!("ann-{format}"));
        let there = PathBuf::from(format!("{}{last}", out.display()));
        fs::write(&there, "old").unwrap();
        let logins = cluster.events("user.login").len();
        let line = ann.login(&["-o", text(&out), "--format", format]).one_line_failure();
        assert!(line.contains(text(&there)) && line.contains("--overwrite"), "{line}");
        assert_eq!(fs::read_to_string(&there).unwrap(), "old");
        assert_eq!(cluster.events("user.login").len(), logins);
    }
    let line = ann.login(&["-o", text(&cluster.dir().join("none/x"))]).one_line_failure();
    assert!(line.contains("none"), "{line}");
    let elsewhere = cluster.dir().join("x");
    let outcome = ann.login(&["-o", text(&elsewhere), "nowhere.example.com"]);
    assert!(refused(&outcome).contains("nowhere.example.com"), "{}", outcome.stderr);
    assert!(!elsewhere.exists());
}

#[test]
fn stock_ssh_uses_key_and_certificate_alone() {
    if !need(&["ssh"]) {
        return;
    }
    let cluster = Cluster::start();
    let ann = cluster.user("ann", "access");
    let key = write(&cluster, &ann, "id", &["--format", "openssh"]);
    private(&key);
    let known = cluster.dir().join("known_hosts");
    fs::write(&known, cluster.tctl(&["auth", "export", "--type", "host"]).ok().stdout).unwrap();
    let (host, port) = cluster.node().rsplit_once(':').unwrap();
    let ssh = run(Command::new("ssh")
        .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
        .args(["-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=none"])
        .args(["-o", &format!("UserKnownHostsFile={}", known.display())])
        .args(["-o", &format!("HostKeyAlias={}.{}", Cluster::NODE, Cluster::NAME)])
        .args(["-i", text(&key), "-l", &os_login(), "-p", port, host, "echo in"]));
    assert_eq!(ssh.ok().text(), "in\n");
    cluster.event("session.start", |event| event["user"] == "ann");
}

#[test]
fn openssl_finds_a_key_its_certificate_and_the_authority_of_hosts() {
    if !need(&["openssl"]) {
        return;
    }
    let cluster = Cluster::start();
    let ann = cluster.user("ann", "access");
    let out = write(&cluster, &ann, "ann", &["--format", "tls"]);
    let [key, certificate, authority] = ["key", "crt", "cas"].map(|ending| out.with_extension(ending));
    for file in [&key, &certificate, &authority] {
        private(file);
    }
    let openssl = |words: &[&str], file: &Path| run(Command::new("openssl").args(words).arg(file)).ok().text();
    assert_eq!(
        openssl(&["pkey", "-pubout", "-in"], &key),
        openssl(&["x509", "-noout", "-pubkey", "-in"], &certificate)
    );
    let exported = cluster.tctl(&["auth", "export", "--type", "tls-host"]).ok().text();
    assert_eq!(fs::read_to_string(&authority).unwrap(), exported);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_uses_the_kubeconfig_alone() {
    if !need(&["kubectl"]) {
        return;
    }
    let kube = KubeCluster::start("staging").await.unwrap();
    let (cluster, ann) = (&kube.cluster, kube.ann());
    let before = files(ann.home());
    for (name, words) in [("all", &[][..]), ("one", &["--kube-cluster", "staging"])] {
        let file = write(cluster, &ann, name, &[&["--format", "kubernetes"], words].concat());
        private(&file);
        eventually("the Kubernetes cluster answers", || {
            let mut kubectl = Command::new(client("kubectl").unwrap().path());
            kubectl.env_clear().env("HOME", cluster.dir().join("no-home")).arg("--kubeconfig").arg(&file);
            let pods = run(kubectl.args(["get", "pods", "--namespace", "dev"]));
            if pods.code == Some(0) && pods.text().contains("web") { Ok(()) } else { Err(pods.stderr) }
        });
    }
    assert_eq!(files(ann.home()), before);
    assert_eq!(kube.api_server.violations(), Vec::<String>::new()); // I56

    let none = cluster.dir().join("none");
    let words = ["-o", text(&none), "--format", "kubernetes", "--kube-cluster", "other"];
    let outcome = ann.login(&words);
    assert!(
        refused(&outcome).contains("cluster other") && outcome.stderr.contains("tsh kube ls"),
        "{}",
        outcome.stderr
    );
    let bob = User::create(cluster, "bob", "auditor");
    let outcome = bob.login(&words[..4]);
    assert!(refused(&outcome).contains("no Kubernetes cluster"), "{}", outcome.stderr);
    assert!(!none.exists());
}
