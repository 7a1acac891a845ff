//! `~/.tsh`: the profile, and for each proxy and user the keys and certificates of one login. Owns the files listed in the contract,
//! their modes and their consistency (I67). Never shows a key to anybody but the caller.

mod kube_sessions;
mod revoked;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

pub use kube_sessions::{KubeCredential, KubeSession};
use remoteler_core::{
    CaSet, ClusterName, Identity, IdentityError, Secret, Timestamp, TrustBundle, UserCerts, UserIdentity, UserName,
    check_connector_name, ssh_identity,
};
use remoteler_tunnel::{TlsIdentity, TlsIdentityError};
use ssh_key::{Certificate, PrivateKey};

use crate::{
    files::{DirLock, FileError, PATIENCE, Privacy, PrivateDir},
    keys::{KeyError, KeyPairs, same_ssh_key},
    known_hosts::{self, HostScope},
    profile::{Profile, ProfileError, ProfileFile, ProxyAddr},
    yaml::YamlError,
};

/// Why the store was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// The profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The profile could not be written as YAML.
    #[error("the profile could not be written: {0}")]
    Yaml(#[from] YamlError),
    /// A key or SSH certificate.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The TLS certificate.
    #[error(transparent)]
    Tls(#[from] TlsIdentityError),
    /// The certificate holds no identity of ours.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Files of one login that do not belong together, or some are missing.
    #[error("the login of {user} at {proxy} is not whole: {what}; run: tsh login --proxy {proxy} --user {user}")]
    Broken {
        /// Proxy.
        proxy: ProxyAddr,
        /// User.
        user: UserName,
        /// What is wrong.
        what: &'static str,
    },
    /// What was issued is not what was asked for.
    #[error("{proxy} issued certificates that are not the ones asked for: {what}")]
    NotOurs {
        /// Proxy.
        proxy: ProxyAddr,
        /// What is wrong.
        what: &'static str,
    },
    /// No such login.
    #[error("nobody is logged in at {proxy}; run: tsh login --proxy {proxy}")]
    NoLogin {
        /// Proxy.
        proxy: String,
    },
}

/// Keys and certificates of one login, ready for use.
#[derive(Clone, Debug)]
pub struct StoredLogin {
    /// Proxy, user and selected cluster.
    pub profile: Profile,
    /// What the certificates say; not verified, because only the other side has reason to.
    pub identity: UserIdentity,
    /// When the certificates end.
    pub expires: Timestamp,
    /// SSH key.
    pub ssh_key: PrivateKey,
    /// SSH certificate.
    pub ssh_certificate: Certificate,
    /// X.509 certificate and key, for TLS.
    pub tls: TlsIdentity,
    /// The X.509 certificate, PEM.
    pub tls_certificate: String,
    /// The TLS key, PEM.
    pub tls_private_key: Secret,
    /// The host authority of the cluster that issued the certificates; the user authority is left empty, no client asks it.
    pub trust: TrustBundle,
}

impl StoredLogin {
    /// Whether the certificates can be used at `now`, and for a minute more.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        now.plus(Duration::from_secs(60)) < self.expires
    }
}

/// The directory `~/.tsh`, wherever it is.
#[derive(Clone, Debug)]
pub struct Store {
    home: PathBuf,
}

impl Store {
    /// The store in `home`, which need not be there yet.
    #[must_use]
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self { home: home.into() }
    }

    /// Its directory.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The known_hosts file in it.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.home.join(KNOWN_HOSTS)
    }

    /// The profile of the current proxy; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError`] for a mistake in the file, among others.
    pub fn current(&self) -> Result<Option<Profile>, StoreError> {
        Ok(self.profile_file()?.current().cloned())
    }

    /// The profile of the proxy at `host`.
    ///
    /// # Errors
    /// As [`Store::current`].
    pub fn profile(&self, host: &str) -> Result<Option<Profile>, StoreError> {
        Ok(self.profile_file()?.profiles.remove(&host.to_ascii_lowercase()))
    }

    /// All profiles, in the order of their hosts.
    ///
    /// # Errors
    /// As [`Store::current`].
    pub fn profiles(&self) -> Result<Vec<Profile>, StoreError> {
        Ok(self.profile_file()?.profiles.into_values().collect())
    }

    /// Makes `profile` the current one: its user, cluster and port are used from now on.
    ///
    /// # Errors
    /// [`StoreError`]; the profile is as it was then.
    pub fn select(&self, profile: &Profile) -> Result<(), StoreError> {
        let (dir, _lock) = self.open_for_change()?;
        select_in(&dir, profile)
    }

    /// Whose certificates they are.
    ///
    /// # Errors
    /// [`StoreError`] when they are no user's, or cannot be read.
    pub fn user_of(proxy: &ProxyAddr, certs: &UserCerts) -> Result<UserName, StoreError> {
        let certificate = Certificate::from_openssh(&certs.ssh_certificate).map_err(KeyError::from)?;
        let Identity::User(identity) = ssh_identity(&certificate)? else {
            return Err(StoreError::NotOurs { proxy: proxy.clone(), what: "they are no user's" });
        };
        Ok(identity.user)
    }

    /// Keeps what a login issued for `keys`, makes it the current profile, and believes the cluster's hosts.
    ///
    /// The files are replaced one after the other under a lock; what a crash leaves in between is seen as broken when it is read,
    /// never taken for a login.
    ///
    /// # Errors
    /// [`StoreError::NotOurs`] when the certificates are for other keys or another user.
    pub fn save_login(
        &self,
        proxy: &ProxyAddr,
        user: &UserName,
        keys: &KeyPairs,
        certs: &UserCerts,
    ) -> Result<StoredLogin, StoreError> {
        let not_ours = |what| StoreError::NotOurs { proxy: proxy.clone(), what };
        let certificate = Certificate::from_openssh(&certs.ssh_certificate).map_err(KeyError::from)?;
        let Identity::User(identity) = ssh_identity(&certificate)? else {
            return Err(not_ours("they are a host's"));
        };
        if identity.user != *user {
            return Err(not_ours("they are another user's"));
        }
        if identity.cluster != certs.trust.cluster {
            return Err(not_ours("they name another cluster than the authorities that came with them"));
        }
        let ssh_key = keys.ssh_key()?;
        if !same_ssh_key(ssh_key.public_key(), certificate.public_key()) {
            return Err(not_ours("the SSH certificate is for another key"));
        }
        let tls = TlsIdentity::from_pem(certs.tls_certificate.as_bytes(), keys.tls_private.reveal().as_bytes())?;

        let cluster = identity.cluster.clone();
        // It becomes part of an address that people are shown (I70).
        let logout_connector = certs.logout_connector.clone().filter(|name| check_connector_name(name).is_ok());
        let profile = Profile { proxy: proxy.clone(), user: user.clone(), cluster, insecure: false, logout_connector };
        let mut trust = host_trust(identity.cluster.clone(), certs.trust.host.clone());
        trust.revoked = revoked::of_hosts(&certs.trust.revoked);
        let (dir, _lock) = self.open_for_change()?;
        let keys_dir = dir.create_dir(KEYS)?.create_dir(proxy.host())?;
        let name = Names::of(user);
        // The certificates go first: until the last file is there, key and certificate do not match.
        for name in [&name.ssh_certificate, &name.tls_certificate, &name.kube_sessions] {
            keys_dir.remove(name)?;
        }
        keys_dir.write(&name.ssh_private, keys.ssh_private.reveal().as_bytes())?;
        keys_dir.write(&name.ssh_public, format!("{}\n", keys.ssh_public.trim_end()).as_bytes())?;
        keys_dir.write(&name.tls_private, keys.tls_private.reveal().as_bytes())?;
        keys_dir.write(CAS, pem_certificates(&trust.host.x509).as_bytes())?;
        revoked::write(&keys_dir, &trust.revoked)?;
        let lines = read_text(&dir, KNOWN_HOSTS)?.unwrap_or_default();
        let scope = HostScope::cluster(identity.cluster.clone());
        dir.write(KNOWN_HOSTS, known_hosts::with_authority(&lines, proxy, &scope, &trust.host).as_bytes())?;
        keys_dir.write(&name.tls_certificate, certs.tls_certificate.as_bytes())?;
        keys_dir.write(&name.ssh_certificate, format!("{}\n", certs.ssh_certificate.trim_end()).as_bytes())?;
        select_in(&dir, &profile)?;
        Ok(StoredLogin {
            profile,
            identity,
            expires: expiry(&certificate),
            ssh_key,
            ssh_certificate: certificate,
            tls,
            tls_certificate: certs.tls_certificate.clone(),
            tls_private_key: keys.tls_private.clone(),
            trust,
        })
    }

    /// The login of the current profile.
    ///
    /// # Errors
    /// [`StoreError::NoLogin`] without one; otherwise as [`Store::login`].
    pub fn current_login(&self) -> Result<StoredLogin, StoreError> {
        let profile = self.current()?.ok_or_else(|| StoreError::NoLogin { proxy: "any proxy".into() })?;
        self.login(&profile)
    }

    /// The login of `profile`, valid or not: ask [`StoredLogin::is_valid`].
    ///
    /// # Errors
    /// [`StoreError::NoLogin`] when there are no files, [`StoreError::Broken`] when they do not belong together.
    pub fn login(&self, profile: &Profile) -> Result<StoredLogin, StoreError> {
        match self.try_login(profile) {
            // A login may be just being replaced by another process: once it has let go of the lock, the files are whole.
            Err(StoreError::Broken { .. }) => {
                let (_dir, _lock) = self.open_for_change()?;
                self.try_login(profile)
            }
            done => done,
        }
    }

    fn try_login(&self, profile: &Profile) -> Result<StoredLogin, StoreError> {
        let no_login = || StoreError::NoLogin { proxy: profile.proxy.to_string() };
        let broken = |what| StoreError::Broken { proxy: profile.proxy.clone(), user: profile.user.clone(), what };
        let dir = PrivateDir::open(&self.home, Privacy::Keep)?.ok_or_else(no_login)?;
        let keys = dir.open_dir(KEYS)?.ok_or_else(no_login)?.open_dir(profile.proxy.host())?.ok_or_else(no_login)?;
        let name = Names::of(&profile.user);
        let ssh_private = Secret::new(read_text(&keys, &name.ssh_private)?.ok_or_else(no_login)?);
        let text = |name: &str, what| read_text(&keys, name)?.ok_or_else(|| broken(what));
        let ssh_certificate = text(&name.ssh_certificate, "the SSH certificate is missing")?;
        let tls_certificate = text(&name.tls_certificate, "the TLS certificate is missing")?;
        let tls_private_key = Secret::new(text(&name.tls_private, "the TLS key is missing")?);
        let roots = text(CAS, "cas.pem is missing")?;

        let ssh_key = PrivateKey::from_openssh(ssh_private.reveal()).map_err(KeyError::from)?;
        let ssh_certificate = Certificate::from_openssh(ssh_certificate.trim_end()).map_err(KeyError::from)?;
        if !same_ssh_key(ssh_key.public_key(), ssh_certificate.public_key()) {
            return Err(broken("the SSH certificate is for another key"));
        }
        let tls = TlsIdentity::from_pem(tls_certificate.as_bytes(), tls_private_key.reveal().as_bytes())
            .map_err(|_| broken("the TLS certificate is for another key"))?;
        let Identity::User(identity) = ssh_identity(&ssh_certificate)? else {
            return Err(broken("the certificate is a host's"));
        };
        let x509 = pem::parse_many(roots).map_err(|_| broken("cas.pem does not parse"))?;
        let x509 = x509.into_iter().filter(|block| block.tag() == "CERTIFICATE").map(pem::Pem::into_contents).collect();
        let lines = read_text(&dir, KNOWN_HOSTS)?.unwrap_or_default();
        let ssh = known_hosts::authorities(&lines, &profile.proxy, &identity.cluster);
        let mut trust = host_trust(identity.cluster.clone(), CaSet { ssh, x509 });
        trust.revoked = revoked::read(&keys)?.ok_or_else(|| broken("revoked.json does not parse"))?;
        Ok(StoredLogin {
            profile: profile.clone(),
            expires: expiry(&ssh_certificate),
            trust,
            identity,
            ssh_key,
            ssh_certificate,
            tls,
            tls_certificate,
            tls_private_key,
        })
    }

    /// Believes the authorities of hosts in `trust` from now on for the logins at the proxy of `login`. Says whether they are others than
    /// before. [`Store::trust_age`] counts from this moment.
    ///
    /// # Errors
    /// [`StoreError::NotOurs`] for the authorities of another cluster, or none: believing that would lock the user out.
    pub fn believe(&self, login: &StoredLogin, trust: &TrustBundle) -> Result<bool, StoreError> {
        let proxy = &login.profile.proxy;
        let not_ours = |what| StoreError::NotOurs { proxy: proxy.clone(), what };
        if trust.cluster != login.identity.cluster {
            return Err(not_ours("the authorities are of another cluster"));
        }
        if trust.host.ssh.is_empty() || trust.host.x509.is_empty() {
            return Err(not_ours("there is no authority of hosts"));
        }
        let (dir, _lock) = self.open_for_change()?;
        let Some(keys) = dir.create_dir(KEYS)?.open_dir(proxy.host())? else {
            return Err(StoreError::NoLogin { proxy: proxy.to_string() });
        };
        let roots = pem_certificates(&trust.host.x509);
        let lines = read_text(&dir, KNOWN_HOSTS)?.unwrap_or_default();
        let scope = HostScope::cluster(trust.cluster.clone());
        let wanted = known_hosts::with_authority(&lines, proxy, &scope, &trust.host);
        let others = read_text(&keys, CAS)?.as_deref() != Some(&roots) || lines != wanted;
        if lines != wanted {
            dir.write(KNOWN_HOSTS, wanted.as_bytes())?;
        }
        revoked::write(&keys, &revoked::of_hosts(&trust.revoked))?;
        // Written also when it is the same: its age is that of what is known.
        keys.write(CAS, roots.as_bytes())?;
        Ok(others)
    }

    /// How long ago the authorities at this proxy were last heard of; `None` when that cannot be told.
    #[must_use]
    pub fn trust_age(&self, proxy: &ProxyAddr) -> Option<Duration> {
        let path = self.home.join(KEYS).join(proxy.host()).join(CAS);
        std::fs::symlink_metadata(path).ok()?.modified().ok()?.elapsed().ok()
    }

    /// Removes the login of `profile`: its keys and certificates, and with the proxy's last user also what is believed for it. Nothing else
    /// is touched. Says whether there was one.
    ///
    /// # Errors
    /// [`StoreError`]; some files may be gone then, and it can be run again.
    pub fn logout(&self, profile: &Profile) -> Result<bool, StoreError> {
        if PrivateDir::open(&self.home, Privacy::Tighten)?.is_none() {
            return Ok(false);
        }
        let (dir, _lock) = self.open_for_change()?;
        let host = profile.proxy.host();
        let mut found = false;
        let mut last_user = true;
        if let Some(keys) = dir.open_dir(KEYS)? {
            if let Some(of_proxy) = keys.open_dir(host)? {
                for name in Names::of(&profile.user).all() {
                    found |= of_proxy.remove(name)?;
                }
                last_user = !of_proxy.files()?.iter().any(|name| name != CAS && name != revoked::REVOKED);
                if last_user {
                    of_proxy.remove(CAS)?;
                    of_proxy.remove(revoked::REVOKED)?;
                }
            }
            keys.remove_dir_if_empty(host)?;
        }
        if last_user && let Some(lines) = read_text(&dir, KNOWN_HOSTS)? {
            let kept = known_hosts::without(&lines, &profile.proxy);
            if kept.is_empty() {
                dir.remove(KNOWN_HOSTS)?;
            } else if kept != lines {
                dir.write(KNOWN_HOSTS, kept.as_bytes())?;
            }
        }
        let mut file = read_profile(&dir)?;
        if file.profiles.get(host).is_some_and(|known| known.user == profile.user) {
            file.profiles.remove(host);
            found = true;
            if file.current.as_deref() == Some(host) {
                file.current = None;
            }
            write_profile(&dir, &file)?;
        }
        Ok(found)
    }

    /// Users with keys here, by the host of their proxy.
    ///
    /// # Errors
    /// [`StoreError::File`]
    pub fn users(&self, proxy: &ProxyAddr) -> Result<Vec<UserName>, StoreError> {
        let Some(dir) = PrivateDir::open(&self.home, Privacy::Keep)? else { return Ok(Vec::new()) };
        let Some(keys) = dir.open_dir(KEYS)? else { return Ok(Vec::new()) };
        let Some(keys) = keys.open_dir(proxy.host())? else { return Ok(Vec::new()) };
        let files = keys.files()?;
        let names: BTreeMap<&str, ()> = files.iter().map(|name| (name.as_str(), ())).collect();
        let users = files.iter().filter_map(|file| UserName::new(file).ok());
        Ok(users.filter(|user| names.contains_key(Names::of(user).ssh_public.as_str())).collect())
    }

    fn profile_file(&self) -> Result<ProfileFile, StoreError> {
        match PrivateDir::open(&self.home, Privacy::Keep)? {
            Some(dir) => read_profile(&dir),
            None => Ok(ProfileFile::default()),
        }
    }

    fn open_for_change(&self) -> Result<(PrivateDir, DirLock), StoreError> {
        let dir = PrivateDir::create(&self.home, Privacy::Tighten)?;
        let lock = dir.lock(PATIENCE)?;
        Ok((dir, lock))
    }
}

fn select_in(dir: &PrivateDir, profile: &Profile) -> Result<(), StoreError> {
    let mut file = read_profile(dir)?;
    let host = profile.proxy.host().to_owned();
    file.profiles.insert(host.clone(), profile.clone());
    file.current = Some(host);
    write_profile(dir, &file)
}

fn read_profile(dir: &PrivateDir) -> Result<ProfileFile, StoreError> {
    let text = read_text(dir, PROFILE)?.unwrap_or_default();
    Ok(ProfileFile::parse(&text, dir.path().join(PROFILE))?)
}

fn write_profile(dir: &PrivateDir, file: &ProfileFile) -> Result<(), StoreError> {
    let text = file.to_yaml()?;
    Ok(dir.write(PROFILE, text.as_bytes())?)
}

fn read_text(dir: &PrivateDir, name: &str) -> Result<Option<String>, StoreError> {
    let Some(octets) = dir.read(name, MAX_LEN)? else { return Ok(None) };
    let path = dir.path().join(name);
    let text = String::from_utf8(octets).map_err(|_| FileError::Kind { path, expected: "text file in UTF-8" })?;
    Ok(Some(text))
}

pub(crate) fn expiry(certificate: &Certificate) -> Timestamp {
    Timestamp::from_unix_seconds(i64::try_from(certificate.valid_before()).unwrap_or(i64::MAX))
}

pub(crate) fn host_trust(cluster: ClusterName, host: CaSet) -> TrustBundle {
    TrustBundle::new(cluster, CaSet { ssh: Vec::new(), x509: Vec::new() }, host)
}

/// X.509 certificates, DER, as PEM one after the other, lines ended by LF.
///
/// ```
/// let pem = remoteler_client::pem_certificates(&[vec![0x30, 0], vec![0x30, 0]]);
/// assert_eq!(pem, "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".repeat(2));
/// ```
#[must_use]
pub fn pem_certificates(certificates: &[Vec<u8>]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    certificates.iter().map(|der| pem::encode_config(&pem::Pem::new("CERTIFICATE", der.clone()), config)).collect()
}

/// Names of the files of one user.
struct Names {
    ssh_private: String,
    ssh_public: String,
    ssh_certificate: String,
    tls_private: String,
    tls_certificate: String,
    kube_sessions: String,
}

impl Names {
    fn of(user: &UserName) -> Self {
        Self {
            ssh_private: user.to_string(),
            ssh_public: format!("{user}.pub"),
            ssh_certificate: format!("{user}-cert.pub"),
            tls_private: format!("{user}.key"),
            tls_certificate: format!("{user}.crt"),
            kube_sessions: format!("{user}.kube-sessions"),
        }
    }

    fn all(&self) -> [&str; 6] {
        let Self { ssh_private, ssh_public, ssh_certificate, tls_private, tls_certificate, kube_sessions } = self;
        [ssh_certificate, tls_certificate, ssh_private, ssh_public, tls_private, kube_sessions]
    }
}

const PROFILE: &str = "profile";
const KEYS: &str = "keys";
const CAS: &str = "cas.pem";
const KNOWN_HOSTS: &str = "known_hosts";
const MAX_LEN: u64 = 4 * 1024 * 1024;
