//! A stock sshd and a stock ssh use what is issued for them: `TrustedUserCAKeys`, `HostCertificate`, `RevokedKeys`, `@cert-authority`.
//! The server runs in inetd's manner as the client's `ProxyCommand`, so there is no port.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use remoteler_ca::{Krl, OpensshUserProfile, Suite};
use remoteler_core::{Clock, OsEntropy, SystemClock, Timestamp};
use ssh_key::{Certificate, LineEnding};

use crate::{
    clients::run,
    kinds::{openssh_host, openssh_user},
    suites,
    support::{Cluster, private_ssh_key},
};

const SSHD: &str = "/usr/sbin/sshd";
const HOST: &str = "db.example.com";

#[test]
fn a_stock_sshd_admits_users_of_the_authority_and_refuses_the_revoked_ones() {
    for suite in [Suite::Balanced, Suite::Token, Suite::Legacy] {
        let Some(stage) = Stage::new(suites::cluster(suite)) else { return };
        let account = stage.account.clone();
        let ann = stage.issue(&[&account], SystemClock.now());
        assert_eq!(stage.login(&ann), Ok(()), "{suite}");

        // Not as somebody whom the certificate does not name, and not signed by the authority of hosts or of another cluster.
        let other = stage.issue(&["somebody-else"], SystemClock.now());
        assert!(stage.login(&other).is_err()); // I4
        let long_ago = SystemClock.now().minus(Duration::from_secs(7200));
        assert!(stage.login(&stage.issue(&[&account], long_ago)).is_err()); // I6
        let foreign = suites::cluster(Suite::Balanced);
        let profile = openssh_user(&[&account]);
        let now = SystemClock.now();
        let profile = OpensshUserProfile { not_after: now.plus(Duration::from_secs(3600)), ..profile };
        let foreign = foreign.user.issue_ssh(profile.prepare(&foreign.user, now, &OsEntropy).unwrap()).unwrap();
        assert!(stage.login(&foreign).is_err()); // I1

        let authority = stage.root.user.public().ssh.remove(0);
        let mut krl = Krl::new(1, SystemClock.now(), "root");
        krl.revoke_serial(authority.key_data(), Certificate::from_openssh(&ann).unwrap().serial()).unwrap();
        fs::write(stage.path("revoked"), krl.to_bytes()).unwrap();
        let refused = stage.login(&ann).unwrap_err();
        assert!(refused.contains("Permission denied"), "{refused}");
        assert_eq!(stage.login(&stage.issue(&[&account], SystemClock.now())), Ok(()));
        krl.revoke_key_id(authority.key_data(), "ann").unwrap();
        fs::write(stage.path("revoked"), krl.to_bytes()).unwrap();
        assert!(stage.login(&stage.issue(&[&account], SystemClock.now())).is_err());
    }
}

#[test]
fn a_stock_ssh_believes_a_host_of_the_authority_for_its_names_only() {
    let Some(stage) = Stage::new(suites::cluster(Suite::Balanced)) else { return };
    let ann = stage.issue(&[&stage.account], SystemClock.now());
    assert_eq!(stage.login(&ann), Ok(()));
    stage.certify_host(&["other.example.com"]);
    assert!(stage.login(&ann).unwrap_err().contains("host")); // I73
    stage.certify_host(&["other.example.com", HOST]);
    assert_eq!(stage.login(&ann), Ok(()));
    // The authority of users does not vouch for hosts.
    fs::write(stage.path("known_hosts"), format!("@cert-authority *.example.com {}\n", stage.line(false))).unwrap();
    assert!(stage.login(&ann).is_err()); // I1
}

/// A stock server's configuration, and a client's.
struct Stage {
    root: Cluster,
    folder: tempfile::TempDir,
    account: String,
}

impl Stage {
    /// `None`, loudly, where there is no sshd at the desk.
    fn new(root: Cluster) -> Option<Self> {
        let account = run("id", &["-un"])?.trim().to_owned();
        // sshd demands this directory of its own when it is started by root; distributions make it when the service starts.
        if account == "root" && Path::new(SSHD).exists() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        run(SSHD, &["-V"])?;
        let stage = Self { root, folder: tempfile::tempdir().unwrap(), account };
        for (name, seed) in [("user", 7), ("host", 8)] {
            fs::write(stage.path(name), private_ssh_key(seed).to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
            fs::set_permissions(stage.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::write(stage.path("user-ca"), stage.line(false)).unwrap();
        fs::write(stage.path("known_hosts"), format!("@cert-authority *.example.com {}\n", stage.line(true))).unwrap();
        fs::write(stage.path("revoked"), Krl::new(0, SystemClock.now(), "").to_bytes()).unwrap();
        stage.certify_host(&[HOST]);
        let config = format!(
            "HostKey {}\nHostCertificate {}\nTrustedUserCAKeys {}\nRevokedKeys {}\nAuthorizedKeysFile none\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nPidFile none\n",
            stage.path("host"),
            stage.path("host-cert.pub"),
            stage.path("user-ca"),
            stage.path("revoked"),
        );
        fs::write(stage.path("sshd_config"), config).unwrap();
        Some(stage)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// An authority's public key as OpenSSH's line.
    fn line(&self, host: bool) -> String {
        let authority = if host { &self.root.host } else { &self.root.user };
        authority.public().ssh.remove(0).to_openssh().unwrap()
    }

    fn certify_host(&self, names: &[&str]) {
        let prepared = openssh_host(names).prepare(&self.root.host, SystemClock.now(), &OsEntropy).unwrap();
        fs::write(self.path("host-cert.pub"), self.root.host.issue_ssh(prepared).unwrap()).unwrap();
    }

    /// A certificate of an hour for `principals`, made at `at`.
    fn issue(&self, principals: &[&str], at: Timestamp) -> String {
        let not_after = at.plus(Duration::from_secs(3600));
        let profile = OpensshUserProfile { not_after, ..openssh_user(principals) };
        self.root.user.issue_ssh(profile.prepare(&self.root.user, at, &OsEntropy).unwrap()).unwrap()
    }

    /// Runs `true` there; the error is what ssh said.
    fn login(&self, certificate: &str) -> Result<(), String> {
        fs::write(self.path("user-cert.pub"), certificate).unwrap();
        let output = Command::new("ssh")
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
            .args(["-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=none"])
            .args(["-o", &format!("UserKnownHostsFile={}", self.path("known_hosts"))])
            .args(["-o", &format!("CertificateFile={}", self.path("user-cert.pub"))])
            .args(["-o", &format!("ProxyCommand={SSHD} -i -f {}", self.path("sshd_config"))])
            .args(["-i", &self.path("user"), "-l", &self.account, HOST, "true"])
            .output()
            .unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }
}
