//! A real ssh-agent is given a login and gives it back.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use remoteler_client::{KeyPairs, ProxyAddr, SshAgent};
use remoteler_core::UserName;
use ssh_key::Certificate;

use crate::cluster::Cluster;

struct Agent {
    process: Child,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Agent {
    /// `None` when this machine has no ssh-agent.
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let started = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::piped()).spawn();
        let Ok(mut process) = started else {
            eprintln!("SKIPPED: no ssh-agent on this machine");
            return None;
        };
        // It prints the name of its socket once it listens.
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(process.stdout.as_mut().unwrap()), &mut line).unwrap();
        Some(Self { process, socket, _dir: dir })
    }

    fn list(&self) -> Vec<String> {
        let output = Command::new("ssh-add").arg("-L").env("SSH_AUTH_SOCK", &self.socket).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| line.starts_with("ssh-")).map(String::from).collect()
    }

    fn add_own_key(&self, dir: &Path) {
        let key = dir.join("id");
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f"]).arg(&key).status();
        assert!(made.unwrap().success());
        let added = Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &self.socket).status();
        assert!(added.unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn the_agent_holds_key_and_certificate_once_and_only_ours_are_taken_back() {
    let Some(running) = Agent::start() else { return };
    let home = tempfile::tempdir().unwrap();
    running.add_own_key(home.path());
    let (proxy, user): (ProxyAddr, _) = ("proxy".parse().unwrap(), UserName::new("ann").unwrap());
    let other: ProxyAddr = "other".parse().unwrap();
    let mut agent = SshAgent::connect(&running.socket).unwrap();
    for proxy in [&proxy, &proxy, &other] {
        let keys = KeyPairs::generate("ann").unwrap();
        let certs = Cluster::new("root").user_certs("ann", &keys, Duration::from_secs(3600));
        let certificate = Certificate::from_openssh(&certs.ssh_certificate).unwrap();
        agent.add(proxy, &user, &keys.ssh_key().unwrap(), &certificate, Duration::from_secs(3600)).unwrap();
    }

    let held = running.list();
    assert_eq!(held.len(), 5, "{held:?}");
    let ours = |line: &&String| line.ends_with(" remoteler:proxy:ann");
    assert_eq!(held.iter().filter(ours).count(), 2); // I74
    assert!(held.iter().any(|line| line.starts_with("ssh-ed25519-cert-v01@openssh.com ") && ours(&line)));

    assert_eq!(agent.remove(&proxy, &user).unwrap(), 2);
    let left = running.list();
    assert_eq!(left.len(), 3);
    assert!(left.iter().any(|line| line.ends_with(" mine")) && !left.iter().any(|line| ours(&line)));
    assert_eq!(agent.remove(&proxy, &user).unwrap(), 0);
}

#[test]
fn a_key_in_the_agent_signs_and_goes_by_itself() {
    let Some(running) = Agent::start() else { return };
    let keys = KeyPairs::generate("ann").unwrap();
    let certs = Cluster::new("root").user_certs("ann", &keys, Duration::from_secs(3600));
    let certificate = Certificate::from_openssh(&certs.ssh_certificate).unwrap();
    let mut agent = SshAgent::connect(&running.socket).unwrap();
    let (proxy, user) = ("proxy".parse().unwrap(), UserName::new("ann").unwrap());
    let mut add = |life| agent.add(&proxy, &user, &keys.ssh_key().unwrap(), &certificate, Duration::from_secs(life));

    assert!(add(0).is_err());
    add(600).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("id.pub"), &keys.ssh_public).unwrap();
    let tested =
        Command::new("ssh-add").arg("-T").arg(dir.path().join("id.pub")).env("SSH_AUTH_SOCK", &running.socket).status();
    assert!(tested.unwrap().success());

    add(1).unwrap();
    let started = std::time::Instant::now();
    while !running.list().is_empty() {
        assert!(started.elapsed() < Duration::from_secs(60), "the key is still there"); // I74
        std::thread::yield_now();
    }
}
