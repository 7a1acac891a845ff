//! The identity file: everything that a program needs to act as one user of a cluster, in one file that can be handed to it. Owns the
//! form of the file and what is checked when it is read; believes no more than the file says, and writes nothing.
//!
//! The form is text in UTF-8, at most 256 KiB, of these parts, each on lines of its own, in any order but for the certificates:
//!
//! | part | how often | what |
//! | --- | --- | --- |
//! | `-----BEGIN OPENSSH PRIVATE KEY-----` | once | key for SSH, not encrypted |
//! | `-----BEGIN PRIVATE KEY-----` | once | key for TLS, PKCS #8 |
//! | `<algorithm>-cert-v01@openssh.com …` | once | SSH certificate of the user |
//! | `-----BEGIN CERTIFICATE-----` | 2 to 9 times | X.509 certificate of the user, then those of the authority of hosts |
//! | `@cert-authority *.<cluster> …` | 1 to 8 times | SSH keys of the authority of hosts, as in a known_hosts file |
//! | `@proxy HOST:PORT` | at most once | where the cluster is reached |
//! | `# …` and empty lines | | nothing |

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use remoteler_core::{
    CaSet, ClusterName, Identity, Secret, Timestamp, TrustBundle, UserCerts, UserIdentity, ssh_identity,
};
use remoteler_tunnel::{SharedTlsIdentity, TlsIdentity};
use ssh_key::{Certificate, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::{
    connector::{AuthTrust, ConnectError},
    keys::{KeyPairs, same_ssh_key},
    known_hosts::HostScope,
    parser_stack::on_parser_stack,
    profile::{Profile, ProxyAddr},
    remote::RemoteAuth,
    store::{StoredLogin, expiry, host_trust, pem_certificates},
};

/// Why an identity file was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityFileError {
    /// The operating system refused.
    #[error("the identity file {} cannot be read", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read or change it.
    #[error("the identity file {} is open to others than its owner; run chmod 600 on it", .path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
    },
    /// It is none.
    #[error("{} is no identity file: {mistake}", .path.display())]
    Mistake {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        mistake: IdentityMistake,
    },
}

/// What is wrong in the text of an identity file. Never says what stands in a private key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityMistake {
    /// More than any honest one has.
    #[error("it has more than {MAX_LEN} octets")]
    TooLarge,
    /// This machine starts no thread to read it on.
    #[error("there is no thread to read it on; try again when this machine has less to do")]
    NoThread,
    /// Not UTF-8.
    #[error("it is not text in UTF-8")]
    NotText,
    /// A line that belongs to no part.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A part is missing.
    #[error("{0} is missing; make the file anew with tctl auth sign")]
    Missing(&'static str),
    /// Parts that do not belong together.
    #[error("{0}; make the file anew with tctl auth sign")]
    NotOne(&'static str),
}

/// One user's keys and certificates, whom to believe, and where the cluster is: what `tctl auth sign` writes and `tsh -i`, `tctl -i` and
/// programs of others read.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use remoteler_client::IdentityFile;
/// use remoteler_core::AuthApi;
///
/// let identity = IdentityFile::read("/etc/jenkins/identity".as_ref())?;
/// let auth = identity.auth(None)?;
/// for node in auth.nodes().await? {
///     println!("{}", node.name);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct IdentityFile {
    identity: UserIdentity,
    expires: Timestamp,
    ssh_key: PrivateKey,
    ssh_certificate: Certificate,
    tls: TlsIdentity,
    tls_certificate: String,
    tls_private_key: Secret,
    trust: TrustBundle,
    proxy: Option<ProxyAddr>,
}

impl IdentityFile {
    /// Reads the file at `path`, which nobody but its owner may be able to read when that is the one who asks.
    ///
    /// # Errors
    /// [`IdentityFileError`] says what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, IdentityFileError> {
        let unreadable = |source| IdentityFileError::Io { path: path.into(), source };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        // As ssh has it with its keys: whose file it is not cannot change its mode, and is not told to.
        let mine = metadata.uid() == rustix::process::geteuid().as_raw();
        if metadata.is_file() && mine && metadata.mode() & 0o077 != 0 {
            return Err(IdentityFileError::Exposed { path: path.into() });
        }
        let mut content = Zeroizing::new(Vec::with_capacity(MAX_LEN + 1));
        let limit = u64::try_from(MAX_LEN + 1).unwrap_or(u64::MAX);
        file.take(limit).read_to_end(&mut content).map_err(unreadable)?;
        let wrong = |mistake| IdentityFileError::Mistake { path: path.into(), mistake };
        let text = std::str::from_utf8(&content).map_err(|_| wrong(IdentityMistake::NotText))?;
        Self::parse(text).map_err(wrong)
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// [`IdentityMistake`] with the first one.
    pub fn parse(text: &str) -> Result<Self, IdentityMistake> {
        if text.len() > MAX_LEN {
            return Err(IdentityMistake::TooLarge);
        }
        // The parser of keys and certificates follows those that stand within others (I2): on a stack that holds the deepest.
        on_parser_stack(|| Parts::read(text)?.assemble()).map_err(|_| IdentityMistake::NoThread)?
    }

    /// What was issued for `keys`, to be written into a file.
    ///
    /// # Errors
    /// [`IdentityMistake::NotOne`] when certificates and keys do not belong together.
    pub fn new(keys: &KeyPairs, certs: &UserCerts, proxy: Option<ProxyAddr>) -> Result<Self, IdentityMistake> {
        let parts = Parts {
            ssh_private: Some(keys.ssh_private.clone()),
            tls_private: Some(keys.tls_private.clone()),
            ssh_certificate: Some(certs.ssh_certificate.trim_end().to_owned()),
            certificates: std::iter::once(certs.tls_certificate.clone())
                .chain(certs.trust.host.x509.iter().map(|der| pem_certificates(std::slice::from_ref(der))))
                .collect(),
            authorities: certs.trust.host.ssh.iter().map(|key| (certs.trust.cluster.clone(), key.clone())).collect(),
            proxy,
        };
        parts.assemble()
    }

    /// The text of the file.
    ///
    /// # Errors
    /// [`IdentityMistake::NotOne`] for a key that has no text form.
    pub fn to_text(&self) -> Result<Secret, IdentityMistake> {
        let formless = |_| IdentityMistake::NotOne("a key or certificate has no text form");
        let ssh_private = self.ssh_key.to_openssh(ssh_key::LineEnding::LF).map_err(formless)?;
        let ssh_certificate = self.ssh_certificate.to_openssh().map_err(formless)?;
        let mut text = Zeroizing::new(String::with_capacity(16 * 1024));
        text.push_str(&format!("# identity of {} at {}\n", self.identity.user, self.identity.cluster));
        for part in [ssh_private.as_str(), self.tls_private_key.reveal(), &ssh_certificate, &self.tls_certificate] {
            text.push_str(part.trim_end());
            text.push('\n');
        }
        text.push_str(&pem_certificates(&self.trust.host.x509));
        let pattern = HostScope::cluster(self.trust.cluster.clone()).pattern();
        for key in &self.trust.host.ssh {
            let bare = PublicKey::new(key.key_data().clone(), "").to_openssh().map_err(formless)?;
            text.push_str(&format!("{CERT_AUTHORITY} {pattern} {}\n", bare.trim_end()));
        }
        if let Some(proxy) = &self.proxy {
            text.push_str(&format!("{PROXY} {proxy}\n"));
        }
        Ok(Secret::new(text.as_str()))
    }

    /// Who its holder is; not verified, because only the other side has reason to.
    #[must_use]
    pub const fn identity(&self) -> &UserIdentity {
        &self.identity
    }

    /// When the certificates end.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Where the cluster is reached, if the file says.
    #[must_use]
    pub const fn proxy(&self) -> Option<&ProxyAddr> {
        self.proxy.as_ref()
    }

    /// The SSH key.
    #[must_use]
    pub const fn ssh_key(&self) -> &PrivateKey {
        &self.ssh_key
    }

    /// The SSH certificate.
    #[must_use]
    pub const fn ssh_certificate(&self) -> &Certificate {
        &self.ssh_certificate
    }

    /// X.509 certificate and key, for TLS.
    #[must_use]
    pub const fn tls(&self) -> &TlsIdentity {
        &self.tls
    }

    /// The host authority of the cluster; the user authority is left empty, no client asks it.
    #[must_use]
    pub const fn trust(&self) -> &TrustBundle {
        &self.trust
    }

    /// The auth service as this user: at `addr` (`host:port` of an auth service or a proxy), or by way of the file's proxy.
    ///
    /// # Errors
    /// [`IdentityAuthError`] when no address is known, or the identity cannot be used. Nothing is connected yet.
    pub fn auth(&self, addr: Option<&str>) -> Result<RemoteAuth, IdentityAuthError> {
        let addr = match (addr, &self.proxy) {
            (Some(addr), _) => addr.to_owned(),
            (None, Some(proxy)) => proxy.to_string(),
            (None, None) => return Err(IdentityAuthError::NoAddress),
        };
        let identity = SharedTlsIdentity::new(self.tls.clone());
        Ok(RemoteAuth::tls(&addr, Some(identity), AuthTrust::Bundle(self.trust.clone()))?)
    }

    /// The same as a login at `proxy`, as the files of a login would give it.
    #[must_use]
    pub fn into_login(self, proxy: ProxyAddr) -> StoredLogin {
        let profile = Profile {
            proxy,
            user: self.identity.user.clone(),
            cluster: self.identity.cluster.clone(),
            insecure: false,
            logout_connector: None,
        };
        StoredLogin {
            profile,
            identity: self.identity,
            expires: self.expires,
            ssh_key: self.ssh_key,
            ssh_certificate: self.ssh_certificate,
            tls: self.tls,
            tls_certificate: self.tls_certificate,
            tls_private_key: self.tls_private_key,
            trust: self.trust,
        }
    }
}

/// Why an identity file does not lead to an auth service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityAuthError {
    /// Neither the file nor the caller says where it is.
    #[error("the identity file names no proxy; give the address of one, or of an auth service")]
    NoAddress,
    /// The identity cannot be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// What was found so far.
#[derive(Default)]
struct Parts {
    ssh_private: Option<Secret>,
    tls_private: Option<Secret>,
    ssh_certificate: Option<String>,
    /// PEM, the user's first.
    certificates: Vec<String>,
    authorities: Vec<(ClusterName, PublicKey)>,
    proxy: Option<ProxyAddr>,
}

impl Parts {
    fn read(text: &str) -> Result<Self, IdentityMistake> {
        let mut parts = Self::default();
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        while let Some((number, line)) = lines.next() {
            let at = |reason: String| IdentityMistake::Line { line: number, reason };
            if line.len() > MAX_LINE {
                return Err(at(format!("it has more than {MAX_LINE} octets")));
            }
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) {
                let mut block = Zeroizing::new(format!("{line}\n"));
                let end = format!("-----END {label}-----");
                loop {
                    let Some((_, line)) = lines.next() else {
                        return Err(at(format!("the block that begins here has no {end}")));
                    };
                    block.push_str(line.trim_end());
                    block.push('\n');
                    if line.trim_end() == end {
                        break;
                    }
                }
                parts.block(label, block).map_err(at)?;
                continue;
            }
            parts.line(line).map_err(at)?;
        }
        Ok(parts)
    }

    fn block(&mut self, label: &str, block: Zeroizing<String>) -> Result<(), String> {
        match label {
            "OPENSSH PRIVATE KEY" => once(&mut self.ssh_private, Secret::new(block.as_str()), "SSH key"),
            "PRIVATE KEY" => once(&mut self.tls_private, Secret::new(block.as_str()), "TLS key"),
            "CERTIFICATE" => {
                if self.certificates.len() > MAX_AUTHORITIES {
                    return Err(format!("more than {MAX_AUTHORITIES} authorities"));
                }
                self.certificates.push(block.as_str().to_owned());
                Ok(())
            }
            _ => Err("a block of this kind does not belong here".into()),
        }
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split(' ');
        match words.next() {
            Some(CERT_AUTHORITY) => {
                let (Some(pattern), Some(algorithm), Some(key)) = (words.next(), words.next(), words.next()) else {
                    return Err(format!("{CERT_AUTHORITY}, a pattern and a key are expected"));
                };
                let cluster = pattern.strip_prefix("*.").and_then(|name| ClusterName::new(name).ok());
                let cluster = cluster.ok_or("the pattern is *. and a cluster's name, and no other")?;
                let key = PublicKey::from_openssh(&format!("{algorithm} {key}"))
                    .map_err(|_| "the authority's SSH key does not parse")?;
                if self.authorities.len() >= MAX_AUTHORITIES {
                    return Err(format!("more than {MAX_AUTHORITIES} authorities"));
                }
                self.authorities.push((cluster, key));
                Ok(())
            }
            Some(PROXY) => {
                let address = words.next().unwrap_or_default();
                let proxy = address.parse::<ProxyAddr>().map_err(|cause| cause.to_string())?;
                match words.next() {
                    None => once(&mut self.proxy, proxy, "proxy"),
                    Some(_) => Err("one address is expected".into()),
                }
            }
            Some(algorithm) if algorithm.ends_with("-cert-v01@openssh.com") => {
                once(&mut self.ssh_certificate, line.to_owned(), "SSH certificate")
            }
            _ => Err("neither a key, a certificate, an authority nor a proxy begins here".into()),
        }
    }

    fn assemble(self) -> Result<IdentityFile, IdentityMistake> {
        use IdentityMistake::{Missing, NotOne};
        let Self { ssh_private, tls_private, ssh_certificate, certificates, authorities, proxy } = self;
        let ssh_private = ssh_private.ok_or(Missing("the SSH key"))?;
        let tls_private_key = tls_private.ok_or(Missing("the TLS key"))?;
        let ssh_certificate = ssh_certificate.ok_or(Missing("the SSH certificate"))?;
        let (tls_certificate, x509) = certificates.split_first().ok_or(Missing("the TLS certificate"))?;
        if x509.is_empty() {
            return Err(Missing("the X.509 certificate of the authority of hosts"));
        }
        if authorities.is_empty() {
            return Err(Missing("the SSH key of the authority of hosts"));
        }
        // What a parser says of a key could repeat a part of it.
        let ssh_key =
            PrivateKey::from_openssh(ssh_private.reveal()).map_err(|_| NotOne("the SSH key does not parse"))?;
        if ssh_key.is_encrypted() {
            return Err(NotOne("the SSH key is encrypted"));
        }
        let ssh_certificate =
            Certificate::from_openssh(&ssh_certificate).map_err(|_| NotOne("the SSH certificate does not parse"))?;
        if !same_ssh_key(ssh_key.public_key(), ssh_certificate.public_key()) {
            return Err(NotOne("the SSH certificate is for another key"));
        }
        let Ok(Identity::User(identity)) = ssh_identity(&ssh_certificate) else {
            return Err(NotOne("the SSH certificate is not one of a user of a cluster"));
        };
        let tls = TlsIdentity::from_pem(tls_certificate.as_bytes(), tls_private_key.reveal().as_bytes())
            .map_err(|_| NotOne("the TLS key and certificate do not parse or do not belong together"))?;
        if authorities.iter().any(|(cluster, _)| *cluster != identity.cluster) {
            return Err(NotOne("an authority is another cluster's than the user"));
        }
        let x509 = x509
            .iter()
            .map(|block| pem::parse(block).map(pem::Pem::into_contents))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| NotOne("a certificate of the authority of hosts does not parse"))?;
        let host = CaSet { ssh: authorities.into_iter().map(|(_, key)| key).collect(), x509 };
        let trust = host_trust(identity.cluster.clone(), host);
        trust.host_pins().map_err(|_| NotOne("a certificate of the authority of hosts does not parse"))?;
        Ok(IdentityFile {
            expires: expiry(&ssh_certificate),
            identity,
            ssh_key,
            ssh_certificate,
            tls,
            tls_certificate: tls_certificate.clone(),
            tls_private_key,
            trust,
            proxy,
        })
    }
}

fn once<T>(place: &mut Option<T>, value: T, what: &str) -> Result<(), String> {
    if place.replace(value).is_some() {
        return Err(format!("a second {what}"));
    }
    Ok(())
}

const CERT_AUTHORITY: &str = "@cert-authority";
const PROXY: &str = "@proxy";
/// Octets of a file.
const MAX_LEN: usize = 256 * 1024;
/// Octets of a line: an SSH certificate with the largest identity takes 60,000.
const MAX_LINE: usize = 64 * 1024;
/// Keys of the authority of hosts: during a rotation there are two.
const MAX_AUTHORITIES: usize = 8;
