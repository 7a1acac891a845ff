//! The ssh_config block that makes plain `ssh`, `scp`, `rsync`, `git` and `ansible` reach a cluster. Owns its layout; every value is
//! typed or refused, so none can become a second option (I71). Never runs or reads anything.

use std::path::{Path, PathBuf};

use remoteler_core::{ClusterName, NodeName, UserName};

use crate::profile::ProxyAddr;

/// A path that ssh_config cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} cannot stand in an ssh_config: {rule}; move it, for example by TSH_HOME")]
pub struct UnsafeValue {
    path: String,
    rule: &'static str,
}

/// What the block is made of.
#[derive(Clone, Debug)]
pub struct SshConfig {
    /// The cluster: hosts `*.<cluster>`.
    pub cluster: ClusterName,
    /// Nodes that are also reached by their bare names.
    pub bare: Vec<NodeName>,
    /// Proxy whose profile is used.
    pub proxy: ProxyAddr,
    /// Who logged in there.
    pub user: UserName,
    /// Our own program.
    pub tsh: PathBuf,
    /// `~/.tsh`
    pub home: PathBuf,
}

impl SshConfig {
    /// The block, ending in a newline.
    ///
    /// # Errors
    /// [`UnsafeValue`] when a path holds a character that OpenSSH or the shell it starts the ProxyCommand with would read as more
    /// than a character.
    pub fn to_text(&self) -> Result<String, UnsafeValue> {
        let Self { cluster, bare, proxy, user, tsh, home } = self;
        let hosts: Vec<String> =
            std::iter::once(format!("*.{cluster}")).chain(bare.iter().map(ToString::to_string)).collect();
        let (tsh, own) = (quoted(tsh)?, quoted(home)?);
        let keys = home.join("keys").join(proxy.host());
        let file = |name: String| quoted(&keys.join(name));
        let known_hosts = quoted(&home.join("known_hosts"))?;
        let key = file(user.to_string())?;
        let certificate = file(format!("{user}-cert.pub"))?;
        let proxy_command = format!("{tsh} proxy ssh --home {own} --proxy {proxy} --cluster {cluster} %r@%h:%p");
        let options = [
            ("UserKnownHostsFile", known_hosts.as_str()),
            ("GlobalKnownHostsFile", "/dev/null"),
            ("StrictHostKeyChecking", "yes"),
            ("CheckHostIP", "no"),
            ("UpdateHostKeys", "no"),
            ("HostKeyAlgorithms", HOST_KEY_ALGORITHMS),
            ("Ciphers", CIPHERS),
            ("IdentityFile", &key),
            ("CertificateFile", &certificate),
            ("IdentitiesOnly", "yes"),
            // The second: where a node asks for a second factor behind the certificate.
            ("PreferredAuthentications", "publickey,keyboard-interactive"),
            ("CanonicalizeHostname", "no"),
            ("ProxyCommand", &proxy_command),
        ];
        let mut text =
            format!("# Cluster {cluster} through {proxy}. Made by `tsh config`.\nHost {}\n", hosts.join(" "));
        for (name, value) in options {
            text.push_str(&format!("    {name} {value}\n"));
        }
        // Under its full name a node's certificate is checked and its authority is found in known_hosts.
        for node in bare {
            text.push_str(&format!("Host {node}\n    HostKeyAlias {node}.{cluster}\n"));
        }
        Ok(text)
    }
}

/// Host certificates only, of the algorithms that are believed. Never a bare key: there is none to compare with.
const HOST_KEY_ALGORITHMS: &str = "ssh-ed25519-cert-v01@openssh.com,ecdsa-sha2-nistp256-cert-v01@openssh.com,\
    ecdsa-sha2-nistp384-cert-v01@openssh.com,rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com";

/// What every node speaks. Left alone, OpenSSH takes ChaCha20 first, which costs both ends more CPU than AES in hardware; `ssh -c` still
/// overrides this.
const CIPHERS: &str = "aes256-gcm@openssh.com,aes128-gcm@openssh.com";

/// A path in double quotes. What has a meaning inside them is refused: quotes and backslash, `%` and `$` (OpenSSH's tokens and
/// variables), and what a shell expands in double quotes.
fn quoted(path: &Path) -> Result<String, UnsafeValue> {
    let refuse = |rule| UnsafeValue { path: path.to_string_lossy().chars().take(200).collect(), rule };
    let text = path.to_str().ok_or_else(|| refuse("it is not UTF-8"))?;
    if !path.is_absolute() {
        return Err(refuse("it is not absolute"));
    }
    if text
        .chars()
        .any(|c| c.is_control() || matches!(c, '"' | '\'' | '\\' | '%' | '$' | '`' | '!' | '#' | '*' | '?' | '|' | ','))
    {
        return Err(refuse("control characters and any of \" ' \\ % $ ` ! # * ? | , are not allowed"));
    }
    Ok(format!("\"{text}\""))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, process::Command};

    use proptest::prelude::*;

    use super::*;

    fn config(tsh: &str, home: &str) -> SshConfig {
        SshConfig {
            cluster: ClusterName::new("root.example.com").unwrap(),
            bare: vec![NodeName::new("gw-17").unwrap()],
            proxy: "proxy.example.com:443".parse().unwrap(),
            user: UserName::new("ann@example.com").unwrap(),
            tsh: tsh.into(),
            home: home.into(),
        }
    }

    /// What `ssh -G` makes of the block for `host`: option to value, the last one when there are several.
    fn parsed_by_openssh(text: &str, host: &str) -> Option<BTreeMap<String, String>> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, text).unwrap();
        let output = match Command::new("ssh").arg("-G").arg("-F").arg(&file).args(["-l", "root", host]).output() {
            Ok(output) => output,
            Err(_) => {
                eprintln!("SKIPPED: no ssh on this machine");
                return None;
            }
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        Some(lines.lines().filter_map(|line| line.split_once(' ')).map(|(k, v)| (k.into(), v.into())).collect())
    }

    #[test]
    fn openssh_reads_the_block_as_it_was_meant() {
        let text = config("/usr/local/bin/tsh", "/home/ann b/.tsh").to_text().unwrap();
        for host in ["x.root.example.com", "gw-17"] {
            let Some(seen) = parsed_by_openssh(&text, host) else { return };
            assert_eq!(seen["userknownhostsfile"], "/home/ann b/.tsh/known_hosts");
            assert_eq!(seen["identityfile"], "/home/ann b/.tsh/keys/proxy.example.com/ann@example.com");
            assert_eq!(seen["certificatefile"], "/home/ann b/.tsh/keys/proxy.example.com/ann@example.com-cert.pub");
            assert_eq!(seen["stricthostkeychecking"], "true");
            assert!(seen["proxycommand"].ends_with("--cluster root.example.com %r@%h:%p"), "{}", seen["proxycommand"]);
            assert_eq!(seen["ciphers"], CIPHERS);
            assert!(!seen["hostkeyalgorithms"].split(',').any(|name| !name.contains("-cert-")));
        }
        let other = parsed_by_openssh(&text, "github.com").unwrap();
        assert!(!other.contains_key("proxycommand"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn whatever_the_paths_are_no_option_is_added_or_changed(name in "\\PC{1,12}", blank in "[\\x00-\\x20\"'%#,*!|@]{1,3}") { // I71
            for part in [name.clone(), format!("a{blank}b")] {
                let home = format!("/home/{}", part.replace('/', "_"));
                let Ok(text) = config("/usr/bin/tsh", &home).to_text() else { continue };
                let plain = config("/usr/bin/tsh", "/home/ann").to_text().unwrap();
                prop_assert_eq!(text.lines().count(), plain.lines().count());
                let (Some(seen), Some(mut wanted)) = (parsed_by_openssh(&text, "gw-17"), parsed_by_openssh(&plain, "gw-17")) else { return Ok(()) };
                for value in wanted.values_mut() {
                    *value = value.replace("/home/ann/", &format!("{home}/")).replace("\"/home/ann\"", &format!("\"{home}\""));
                }
                prop_assert_eq!(seen, wanted);
            }
        }
    }
}
