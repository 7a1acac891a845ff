//! Stock OpenSSH on both sides, with nothing but files from `auth sign` and `auth export`. The server runs in inetd's manner as the client's
//! `ProxyCommand`, so there is no port.

use std::{fs, path::Path, process::Command};

use remoteler_tests::{Cluster, Outcome, client, need, os_login, run};

use super::{add_user, export, private, sign, text, try_sign, with};

const HOST: &str = "web-1.test.example.com";

struct Stage {
    cluster: Cluster,
    sshd: String,
}

impl Stage {
    fn new() -> Option<Self> {
        if !need(&["ssh", "sshd", "ssh-keygen"]) {
            return None;
        }
        if os_login() == "root" {
            // sshd demands this directory of its own when root starts it; distributions make it with the service.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let cluster = Cluster::start();
        add_user(&cluster, "ann", "access", &[]);
        let key = sign(&cluster, "host_key", &["--host", &format!("{HOST},192.0.2.7"), "--format", "openssh"]);
        let config = format!(
            "HostKey {0}\nHostCertificate {0}-cert.pub\nTrustedUserCAKeys {1}\nAuthorizedKeysFile none\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nPidFile none\n",
            key.display(),
            export(&cluster, "user").display()
        );
        fs::write(cluster.dir().join("sshd_config"), config).unwrap();
        export(&cluster, "host");
        Some(Self { cluster, sshd: client("sshd").unwrap().path().display().to_string() })
    }

    /// Runs a command at `host`, which is always the same server.
    #[track_caller]
    fn ssh(&self, key: &Path, host: &str) -> Outcome {
        let config = self.cluster.dir().join("sshd_config");
        let known = self.cluster.dir().join("exported-host");
        // ssh finds the certificate beside the key.
        run(Command::new("ssh")
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
            .args(["-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=none"])
            .args(["-o", &format!("UserKnownHostsFile={}", known.display())])
            .args(["-o", &format!("ProxyCommand={} -i -f {}", self.sshd, config.display())])
            .args(["-i", text(key), "-l", &os_login(), host, "echo in"]))
    }
}

#[test]
fn a_stock_server_and_a_stock_client_believe_each_other_by_exported_authorities_alone() {
    let Some(stage) = Stage::new() else { return };
    let ann = sign(&stage.cluster, "ann", &["--user", "ann", "--format", "openssh"]);
    private(&ann);
    private(&with(&ann, "-cert.pub"));
    assert_eq!(stage.ssh(&ann, HOST).ok().text(), "in\n");
    // Not by another name than the host's certificate has.
    let other = stage.ssh(&ann, "web-2.test.example.com");
    assert_eq!((other.code, other.text().as_str()), (Some(255), ""), "{}", other.stderr); // I73

    // A name outside of the cluster's own counts when the administrator exports it, and then no other does.
    let outside = "db.example.org";
    let said =
        try_sign(&stage.cluster, "host_key", &["--host", outside, "--format", "openssh", "--overwrite"]).ok().text();
    assert!(said.contains("auth export --type host --hosts db.example.org"), "{said}");
    assert_eq!(stage.ssh(&ann, outside).code, Some(255)); // I71
    let lines = stage.cluster.tctl(&["auth", "export", "--type", "host", "--hosts", outside]).ok().stdout;
    fs::write(stage.cluster.dir().join("exported-host"), lines).unwrap();
    assert_eq!(stage.ssh(&ann, outside).ok().text(), "in\n");
    assert_eq!(stage.ssh(&ann, "www.example.org").code, Some(255)); // I71
    for all in ["*", "*.org", "a b"] {
        assert_eq!(stage.cluster.tctl(&["auth", "export", "--type", "host", "--hosts", all]).code, Some(2), "{all}"); // I71
    }
    sign(&stage.cluster, "host_key", &["--host", HOST, "--format", "openssh", "--overwrite"]);
    assert_eq!(stage.ssh(&ann, HOST).ok().text(), "in\n");

    // Nobody else: a user without this account, the authority of hosts, another cluster's authority.
    stage.cluster.tctl(&["users", "add", "bob", "--roles", "access", "--logins", "somebody-else"]).ok();
    let bob = sign(&stage.cluster, "bob", &["--user", "bob", "--format", "openssh"]);
    let host = sign(&stage.cluster, "posing", &["--host", HOST, "--format", "openssh"]);
    let elsewhere = Cluster::start();
    add_user(&elsewhere, "ann", "access", &[]);
    let stranger = sign(&elsewhere, "ann", &["--user", "ann", "--format", "openssh"]);
    for (key, what) in [(&bob, "bob"), (&host, "a host"), (&stranger, "a stranger")] {
        let refused = stage.ssh(key, HOST);
        assert_eq!((refused.code, refused.text().as_str()), (Some(255), ""), "{what}: {}", refused.stderr); // I1, I4
        assert!(refused.stderr.contains("Permission denied"), "{what}: {}", refused.stderr);
    }
}

#[test]
fn ssh_keygen_agrees_with_what_was_asked_for() {
    let Some(stage) = Stage::new() else { return };
    let ann = sign(&stage.cluster, "ann", &["--user", "ann", "--format", "openssh", "--ttl", "1h"]);
    let shown = |path: &Path| run(Command::new("ssh-keygen").arg("-L").arg("-f").arg(path)).ok().text();
    let authority = |kind: &str| {
        let path = stage.cluster.dir().join(format!("exported-{kind}"));
        let keys = fs::read_to_string(&path).unwrap();
        let words: Vec<_> = keys.split_whitespace().skip_while(|word| !word.starts_with("ssh-")).take(2).collect();
        let line = stage.cluster.dir().join(format!("authority-{kind}"));
        fs::write(&line, words.join(" ")).unwrap();
        run(Command::new("ssh-keygen").arg("-l").arg("-f").arg(line)).ok().text().split(' ').nth(1).unwrap().to_owned()
    };
    let user = shown(&with(&ann, "-cert.pub"));
    for part in ["user certificate", "Key ID: \"ann\"", &os_login(), "permit-pty", &authority("user")] {
        assert!(user.contains(part), "{part}: {user}");
    }
    assert!(user.contains("Critical Options: (none)") && !user.contains("forever"), "{user}"); // I6
    let event = stage.cluster.event("cert.create", |event| event["purpose"] == "openssh user");
    assert!(user.contains(&format!("Serial: {}\n", event["ssh_serial"].as_str().unwrap())), "{user}"); // I75
    let host = shown(&stage.cluster.dir().join("host_key-cert.pub"));
    for part in ["host certificate", HOST, "192.0.2.7", "Valid: after", &authority("host")] {
        assert!(host.contains(part), "{part}: {host}");
    }
    assert!(!host.contains(&authority("user")), "{host}"); // I1
}
