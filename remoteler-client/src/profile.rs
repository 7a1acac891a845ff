//! `profile`: which proxy is current, and for each proxy its port, user and selected cluster. People may edit it, so mistakes are
//! reported with their line. Owns the file's form and the address of a proxy; holds no secret.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use remoteler_core::{ClusterName, UserName};
use serde::{Deserialize, Serialize};

use crate::yaml::{self, YamlError};

/// Why the profile cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// A mistake in the file.
    #[error("{}, {mistake}", .path.display())]
    Mistake {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        mistake: YamlError,
    },
    /// It names a current proxy that it does not describe.
    #[error("{}: current_proxy is {proxy}, which is not under proxies; known are: {known}", .path.display())]
    UnknownCurrent {
        /// Which file.
        path: PathBuf,
        /// What it names.
        proxy: String,
        /// What is there.
        known: String,
    },
}

/// Not an address of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is no address of a proxy: {rule}")]
pub struct ProxyAddrError {
    value: String,
    rule: &'static str,
}

/// `host[:port]` of a proxy; the port is 3080 by default. The host, in lower case, names the directory of its keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyAddr {
    host: String,
    port: u16,
}

impl ProxyAddr {
    /// From its parts.
    ///
    /// # Errors
    /// [`ProxyAddrError`] when `host` is neither a DNS name nor an IP address.
    pub fn new(host: &str, port: u16) -> Result<Self, ProxyAddrError> {
        let refuse = |rule| ProxyAddrError { value: host.chars().take(100).collect(), rule };
        let host = host.to_ascii_lowercase();
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            let label = |label: &str| {
                (1..=63).contains(&label.len())
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
            };
            if host.len() > 200 || !host.split('.').all(label) {
                return Err(refuse("a DNS name or an IP address is expected, with :PORT if it is not 3080"));
            }
        }
        if port == 0 {
            return Err(refuse("port 0 is none"));
        }
        Ok(Self { host, port })
    }

    /// DNS name or IP address; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for ProxyAddr {
    type Err = ProxyAddrError;

    fn from_str(text: &str) -> Result<Self, ProxyAddrError> {
        let refuse = |rule| ProxyAddrError { value: text.chars().take(100).collect(), rule };
        // As `tsh status` prints it.
        let text = text.strip_prefix("https://").map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(|| refuse("a ']' is missing"))?;
                (host, rest.strip_prefix(':').or(rest.is_empty().then_some("")))
            }
            None if text.matches(':').count() > 1 => (text, Some("")),
            None => text
                .split_once(':')
                .map_or((text, Some("")), |(host, port)| (host, Some(port).filter(|p| !p.is_empty()))),
        };
        let port = match port.ok_or_else(|| refuse("after ':' a port is expected"))? {
            "" => DEFAULT_PORT,
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| refuse("a port is a number from 1 to 65535"))?
            }
            _ => return Err(refuse("a port is a number from 1 to 65535; a path or https:// does not belong there")),
        };
        Self::new(host, port)
    }
}

impl fmt::Display for ProxyAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Where a proxy listens when nothing else is said.
const DEFAULT_PORT: u16 = 3080;

/// One login of one user at one proxy, as it is selected now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The proxy.
    pub proxy: ProxyAddr,
    /// Who logged in.
    pub user: UserName,
    /// The cluster that commands go to.
    pub cluster: ClusterName,
    /// Whether the login was made without checking the proxy's web certificate. It is only said again in advice, never done again unasked.
    pub insecure: bool,
    /// The connector at whose provider the browser may be logged in still.
    pub logout_connector: Option<String>,
}

impl Profile {
    /// The command that logs in here anew, for advice.
    #[must_use]
    pub fn login_command(&self) -> String {
        let insecure = if self.insecure { " --insecure" } else { "" };
        format!("tsh login --proxy {} --user {}{insecure}", self.proxy, self.user)
    }
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProfileFile {
    pub(crate) current: Option<String>,
    pub(crate) profiles: BTreeMap<String, Profile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current_proxy: Option<HostText>,
    #[serde(default)]
    proxies: BTreeMap<HostText, RawProxy>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProxy {
    user: UserName,
    cluster: ClusterName,
    #[serde(default = "default_port", skip_serializing_if = "is_default_port")]
    port: u16,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    insecure: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    logout_connector: Option<String>,
}

/// A host, checked while it is read, so that a mistake has its line.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct HostText(String);

impl TryFrom<String> for HostText {
    type Error = ProxyAddrError;
    fn try_from(text: String) -> Result<Self, ProxyAddrError> {
        ProxyAddr::new(&text, DEFAULT_PORT).map(|addr| Self(addr.host))
    }
}

impl From<HostText> for String {
    fn from(host: HostText) -> Self {
        host.0
    }
}

const fn default_port() -> u16 {
    DEFAULT_PORT
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_default_port(port: &u16) -> bool {
    *port == DEFAULT_PORT
}

impl ProfileFile {
    pub(crate) fn parse(text: &str, path: PathBuf) -> Result<Self, ProfileError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let mistake = |mistake| ProfileError::Mistake { path: path.clone(), mistake };
        let raw: Raw = yaml::read(text).map_err(mistake)?;
        let mut profiles = BTreeMap::new();
        for (HostText(host), RawProxy { user, cluster, port, insecure, logout_connector }) in raw.proxies {
            let proxy = ProxyAddr::new(&host, port)
                .map_err(|cause| mistake(YamlError { line: None, reason: cause.to_string() }))?;
            profiles.insert(host, Profile { proxy, user, cluster, insecure, logout_connector });
        }
        let current = raw.current_proxy.map(|HostText(host)| host);
        if let Some(proxy) = current.clone().filter(|host| !profiles.contains_key(host)) {
            let known = profiles.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(ProfileError::UnknownCurrent { path, proxy, known });
        }
        Ok(Self { current, profiles })
    }

    pub(crate) fn to_yaml(&self) -> Result<String, YamlError> {
        let proxies =
            self.profiles.iter().map(|(host, Profile { proxy, user, cluster, insecure, logout_connector })| {
                let (user, cluster, logout_connector) = (user.clone(), cluster.clone(), logout_connector.clone());
                (
                    HostText(host.clone()),
                    RawProxy { user, cluster, port: proxy.port, insecure: *insecure, logout_connector },
                )
            });
        yaml::write(&Raw { current_proxy: self.current.clone().map(HostText), proxies: proxies.collect() })
    }

    pub(crate) fn current(&self) -> Option<&Profile> {
        self.profiles.get(self.current.as_ref()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ProfileFile, ProfileError> {
        ProfileFile::parse(text, "/home/ann/.tsh/profile".into())
    }

    #[test]
    fn addresses_of_proxies_are_read_as_people_write_them() {
        for (text, shown) in [
            ("proxy.example.com", "proxy.example.com:3080"),
            ("Proxy.Example.com:443", "proxy.example.com:443"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::1]:443", "[::1]:443"),
            ("::1", "[::1]:3080"),
        ] {
            assert_eq!(text.parse::<ProxyAddr>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            ":443",
            "a:",
            "a:0",
            "a:65536",
            "http://a",
            "https://",
            "a/b",
            "../x",
            "-oProxyCommand=x",
            "a b",
            "a:+1",
            "[::1",
        ] {
            assert!(bad.parse::<ProxyAddr>().is_err(), "{bad:?}"); // I70
        }
    }

    #[test]
    fn a_profile_reads_back_as_it_was_written() {
        let text = "current_proxy: proxy.example.com\nproxies:\n  proxy.example.com:\n    user: ann\n    cluster: root\n  ::1:\n    user: bob\n    cluster: other\n    port: 443\n";
        let file = parse(text).unwrap();
        assert_eq!(file.current().unwrap().user.as_str(), "ann");
        assert_eq!(file.profiles["::1"].proxy.to_string(), "[::1]:443");
        assert_eq!(parse(&file.to_yaml().unwrap()).unwrap(), file);
        assert_eq!(parse("").unwrap(), ProfileFile::default());
    }

    #[test]
    fn advice_repeats_how_the_login_was_made() {
        let text = "proxies:\n  p:\n    user: ann\n    cluster: root\n  q:\n    user: bob\n    cluster: root\n    port: 443\n    insecure: true\n";
        let file = parse(text).unwrap();
        assert_eq!(file.profiles["p"].login_command(), "tsh login --proxy p:3080 --user ann");
        assert_eq!(file.profiles["q"].login_command(), "tsh login --proxy q:443 --user bob --insecure");
        assert_eq!(parse(&file.to_yaml().unwrap()).unwrap(), file);
    }

    #[test]
    fn a_mistake_made_by_hand_is_reported_with_its_line() {
        for (text, line, word) in [
            ("current_proxy: a\nproxies:\n  a:\n    user: ann\n    cluster: root\n    prot: 443\n", 6, "prot"),
            ("proxies:\n  a:\n    user: -ann\n    cluster: root\n", 3, "user name"),
            ("proxies:\n  a:\n    user: ann\n    cluster: root\n    port: 99999\n", 5, ""),
            ("proxies:\n  a: [\n", 2, ""),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.starts_with("/home/ann/.tsh/profile, line "), "{message}");
            assert!(message.contains(word), "{message}");
            let at: u64 = message.split("line ").nth(1).unwrap().split(':').next().unwrap().parse().unwrap();
            assert!(at.abs_diff(line) <= 1, "{message}");
            assert!(!message.contains('\n'));
        }
        let message = parse("current_proxy: b\nproxies: {a: {user: x, cluster: y}}").unwrap_err().to_string();
        assert!(message.contains("known are: a"), "{message}");
    }
}
