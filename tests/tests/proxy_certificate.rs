//! The proxy's web certificate (I15): one that an authority vouches for, one that is another than at the last login, and what `--insecure` gives up.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::process::Command;

use remoteler_tests::{Cluster, Outcome, ProviderFiles, binary, os_login, run_with_input};

const PASSWORD: &str = "correct horse battery staple";

/// A cluster whose proxy has a certificate of an authority, and somebody who believes that one.
struct Place {
    cluster: Cluster,
    address: String,
    /// Whom the person's machine believes.
    authority: std::path::PathBuf,
}

impl Place {
    fn start() -> Self {
        let cluster = Cluster::start();
        let login = os_login();
        cluster.tctl(&["users", "add", "ann", "--roles", "access", "--logins", &login]).ok();
        cluster.tctl_with_input(&["users", "passwd", "ann"], &format!("{PASSWORD}\n")).ok();
        let port = cluster.proxy().rsplit_once(':').unwrap().1.to_owned();
        let mut place = Self { cluster, address: format!("localhost:{port}"), authority: std::path::PathBuf::new() };
        place.authority = place.certify("first").authority;
        place
    }

    /// Gives the proxy a certificate of a new authority.
    fn certify(&mut self, name: &str) -> ProviderFiles {
        let dir = self.cluster.dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        let files = ProviderFiles::make(&dir);
        let pair = format!("{{ key_file: {}, cert_file: {} }}", files.key().display(), files.certificate().display());
        self.cluster.configure_proxy(&format!("  public_addr: {}\n  https_keypairs: [{pair}]\n", self.address));
        self.cluster.kill_daemon();
        self.cluster.start_daemon();
        self.cluster.wait_ready();
        files
    }

    fn tsh(&self, words: &[&str]) -> Outcome {
        let home = self.cluster.dir().join("home");
        let mut command = Command::new(binary("tsh"));
        command.env("HOME", &home).env("TSH_HOME", home.join(".tsh")).env_remove("SSH_AUTH_SOCK");
        command.env("KUBECONFIG", home.join("kubeconfig")).env("SSL_CERT_FILE", &self.authority).args(words);
        run_with_input(&mut command, format!("{PASSWORD}\n").as_bytes())
    }

    fn logs_in(&self, extra: &[&str]) -> Outcome {
        self.tsh(&[&["login", "--proxy", &self.address, "--user", "ann"], extra].concat())
    }
}

// I15
#[test]
fn a_proxy_whose_certificate_is_another_than_at_the_last_login_gets_no_password_and_it_is_said_what_to_do() {
    let mut place = Place::start();
    let first = place.logs_in(&[]).ok();
    assert!(!first.stderr.contains("insecure"), "{}", first.stderr);
    place.tsh(&["ls"]).ok();

    place.certify("second");
    // Certificates of the cluster are known to one another without the web's.
    place.tsh(&["ls"]).ok();
    place.logs_in(&[]).ok();
    place.tsh(&["logout"]).ok();
    let refused = place.logs_in(&[]).one_line_failure();
    assert!(refused.contains(&place.address) && refused.contains("certificate"), "{refused}");
    assert!(refused.contains("for a proxy with a certificate of its own making use --insecure"), "{refused}");
    assert!(!place.cluster.dir().join("home/.tsh/keys/localhost/ann.key").exists());

    // With it the login goes on, and it is said before what that means.
    let insecure = place.logs_in(&["--insecure"]).ok();
    let said = format!(
        "tsh: --insecure: the certificate of {} is not checked; who is in the path sees the password, or gets certificates in your name",
        place.address
    );
    assert_eq!(insecure.stderr.lines().next(), Some(said.as_str()), "{}", insecure.stderr);
    let logins = place.cluster.events("user.login");
    assert!(logins.len() == 2 && logins.iter().all(|event| event["success"] == true), "{logins:?}");
}
