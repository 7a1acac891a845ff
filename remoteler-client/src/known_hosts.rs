//! Lines of an OpenSSH known_hosts file that make a cluster's host authority believed for that cluster's names, and for no other
//! (I71). Owns lines with its own mark; every other line is kept as it is.

use remoteler_core::{CaSet, ClusterName};
use ssh_key::PublicKey;

use crate::profile::ProxyAddr;

/// For which host names a cluster's authority is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostScope {
    cluster: ClusterName,
}

impl HostScope {
    /// For `*.<cluster>`.
    #[must_use]
    pub const fn cluster(cluster: ClusterName) -> Self {
        Self { cluster }
    }

    /// The names as an OpenSSH pattern. Never `*` alone: cluster names hold no pattern characters.
    #[must_use]
    pub fn pattern(&self) -> String {
        format!("*.{}", self.cluster)
    }
}

/// `content` with the lines of `proxy` replaced by lines for `authority`.
pub(crate) fn with_authority(content: &str, proxy: &ProxyAddr, scope: &HostScope, authority: &CaSet) -> String {
    let mut lines = without(content, proxy);
    let pattern = scope.pattern();
    for key in &authority.ssh {
        // The key's own comment came from elsewhere; only algorithm and key are taken.
        let bare = PublicKey::new(key.key_data().clone(), "");
        let Ok(text) = bare.to_openssh() else { continue };
        lines.push_str(&format!("@cert-authority {pattern} {} {}\n", text.trim_end(), mark(proxy)));
    }
    lines
}

/// `content` without the lines of `proxy`.
pub(crate) fn without(content: &str, proxy: &ProxyAddr) -> String {
    let mark = mark(proxy);
    let kept = content.lines().filter(|line| !is_ours(line, &mark));
    kept.fold(String::with_capacity(content.len()), |text, line| text + line + "\n")
}

/// The keys on the lines of `proxy` that are for `cluster`.
pub(crate) fn authorities(content: &str, proxy: &ProxyAddr, cluster: &ClusterName) -> Vec<PublicKey> {
    let mark = mark(proxy);
    let pattern = format!("*.{cluster}");
    let keys = content.lines().filter(|line| is_ours(line, &mark)).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let hosts = fields.next()?;
        let (algorithm, key) = (fields.next()?, fields.next()?);
        hosts.split(',').any(|host| host == pattern).then_some(())?;
        PublicKey::from_openssh(&format!("{algorithm} {key}")).ok()
    });
    keys.collect()
}

/// The comment by which lines are known as ours.
fn mark(proxy: &ProxyAddr) -> String {
    format!("remoteler:{}", proxy.host())
}

fn is_ours(line: &str, mark: &str) -> bool {
    line.starts_with("@cert-authority ") && line.split_ascii_whitespace().nth(4) == Some(mark)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::keys::KeyPairs;

    fn key() -> PublicKey {
        PublicKey::from_openssh(&KeyPairs::generate("*,evil !x").unwrap().ssh_public).unwrap()
    }

    fn proxy(host: &str) -> ProxyAddr {
        host.parse().unwrap()
    }

    #[test]
    fn an_authority_is_believed_for_its_cluster_and_never_for_all_hosts() {
        let scope = HostScope::cluster(ClusterName::new("root.example.com").unwrap());
        let authority = CaSet { ssh: vec![key(), key()], x509: Vec::new() };
        let text = with_authority("", &proxy("p"), &scope, &authority);
        for line in text.lines() {
            let hosts = line.split(' ').nth(1).unwrap();
            assert_eq!(hosts, "*.root.example.com"); // I71
            assert!(line.ends_with(" remoteler:p") && !line.contains("evil"), "{line}");
        }
        assert_eq!(authorities(&text, &proxy("p"), &scope.cluster).len(), 2);
    }

    #[test]
    fn foreign_lines_and_other_proxies_stay_as_they_are() {
        let foreign = "# mine\nhost ssh-ed25519 AAAA\n@cert-authority * ssh-ed25519 AAAA remoteler-not\n\n";
        let root = HostScope::cluster(ClusterName::new("root").unwrap());
        let authority = |key| CaSet { ssh: vec![key], x509: Vec::new() };
        let one = with_authority(foreign, &proxy("a"), &root, &authority(key()));
        let two = with_authority(&one, &proxy("b"), &root, &authority(key()));
        let renewed = with_authority(&two, &proxy("a"), &root, &authority(key()));
        assert_eq!(renewed.lines().count(), two.lines().count());
        assert_eq!(without(&without(&renewed, &proxy("a")), &proxy("b")), foreign); // I67
    }

    #[test]
    fn openssh_reads_the_lines_as_they_were_meant() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("known_hosts");
        let root = HostScope::cluster(ClusterName::new("root.example.com").unwrap());
        let text = with_authority("", &proxy("p"), &root, &CaSet { ssh: vec![key()], x509: Vec::new() });
        std::fs::write(&path, text).unwrap();
        let found = |host: &str| {
            let output = Command::new("ssh-keygen").args(["-F", host, "-f"]).arg(&path).output();
            output.map(|output| String::from_utf8(output.stdout).unwrap())
        };
        let Ok(inside) = found("gw.root.example.com") else {
            eprintln!("SKIPPED: no ssh-keygen on this machine");
            return;
        };
        assert!(inside.contains("@cert-authority"), "{inside}"); // I71
        assert_eq!(found("gw.root.example.com.evil.org").unwrap(), "");
        assert_eq!(found("other").unwrap(), "");
    }
}
