//! Which login a command works with: what the flags say, completed by the profile, or the identity file alone. Owns the runtime of one
//! command.

use std::{env, future::Future, path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use remoteler_client::{AuthTrust, IdentityFile, Profile, ProxyAddr, RemoteAuth, Store, StoreError, StoredLogin};
use remoteler_core::{Clock, ClusterName, SystemClock, Timestamp, UserName};
use remoteler_tunnel::SharedTlsIdentity;

use crate::cli::{Command, Common, Kube};

/// Flags and store of one command.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) common: Common,
    pub(crate) store: Store,
    /// The identity that was named; the store is not touched then.
    pub(crate) identity: Option<IdentityFile>,
}

/// Why there is no usable login.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLogin {
    #[error("nobody is logged in{}; run: tsh login --proxy {}", at(.0), .0.as_ref().map_or_else(|| "HOST".to_owned(), ToString::to_string))]
    Nobody(Option<ProxyAddr>),
    #[error("{} is not logged in at {}; run: {}", .0.user, .0.proxy, .0.login_command())]
    NoCertificates(Box<Profile>),
    #[error("the certificates of {} at {} {}; run: {}", .0.user, .0.proxy, ending(*.1), .0.login_command())]
    Expired(Box<Profile>, Timestamp),
}

fn at(proxy: &Option<ProxyAddr>) -> String {
    proxy.as_ref().map(|proxy| format!(" at {proxy}")).unwrap_or_default()
}

/// Certificates are not used in their last minute: a connection made with them could be cut at once.
fn ending(at: Timestamp) -> String {
    if at > SystemClock.now() { format!("expire within a minute, at {at}") } else { format!("expired at {at}") }
}

impl Context {
    pub(crate) fn new(common: Common) -> anyhow::Result<Self> {
        let identity = common.identity.as_deref().map(IdentityFile::read).transpose()?;
        let home = match &common.home {
            Some(home) => std::path::absolute(home).with_context(|| format!("{} is no path", home.display()))?,
            // Services have no home, and need none.
            None if identity.is_some() => PathBuf::from("/nonexistent"),
            None => {
                let home = env::var_os("HOME").filter(|home| !home.is_empty());
                PathBuf::from(home.context("HOME is not set; set it, or TSH_HOME")?).join(".tsh")
            }
        };
        Ok(Self { common, store: Store::new(home), identity })
    }

    /// Whether the command makes sense with what was named: an identity file takes the place of a login, so there is nothing to log in or out,
    /// and what would be written into other programs' files would not name it.
    pub(crate) fn may_run(&self, command: &Command) -> anyhow::Result<()> {
        if self.identity.is_none() {
            return Ok(());
        }
        let advice = match command {
            Command::Login(_) | Command::Signup { .. } | Command::Logout => "leave out -i and TSH_IDENTITY",
            Command::Config(_) => "give stock ssh its own files: tsh login -o FILE --format openssh, or tctl auth sign",
            Command::Kube { command: Kube::Login { .. } } => {
                "make a kubeconfig that stands alone: tsh login -o FILE --format kubernetes, or tctl auth sign"
            }
            Command::Status(_)
            | Command::Clusters(_)
            | Command::Ls(_)
            | Command::Ssh(_)
            | Command::Scp(_)
            | Command::Proxy { .. }
            | Command::Kube { command: Kube::Ls(_) | Kube::Credentials { .. } }
            | Command::Apps { .. }
            | Command::Explain(_)
            | Command::Mfa { .. }
            | Command::Recordings { .. }
            | Command::Play(_)
            | Command::Version(_) => return Ok(()),
        };
        bail!("this command writes files of a login, and an identity file is none; {advice}")
    }

    /// The login that the identity file stands for, valid or not.
    pub(crate) fn identity_login(&self) -> anyhow::Result<StoredLogin> {
        let identity = self.identity.clone().context("no identity file was named")?;
        let user = &identity.identity().user;
        if let Some(wanted) = self.common.user.as_ref().filter(|wanted| *wanted != user) {
            bail!("the identity file is {user}'s, not {wanted}'s; leave out --user");
        }
        let proxy = self.common.proxy.as_ref().or(identity.proxy()).cloned();
        let proxy = proxy.context("the identity file names no proxy; give --proxy HOST[:PORT]")?;
        Ok(identity.into_login(proxy))
    }

    /// The profile that flags and the profile file select; `None` when there is no login for them.
    pub(crate) fn profile(&self) -> anyhow::Result<Option<Profile>> {
        let known = match &self.common.proxy {
            Some(proxy) => {
                let known = self.store.profile(proxy.host())?;
                known.map(|known| Profile { proxy: proxy.clone(), ..known })
            }
            None => self.store.current()?,
        };
        Ok(known.map(|known| Profile { user: self.common.user.clone().unwrap_or(known.user), ..known }))
    }

    /// The login to use, if it is valid now.
    pub(crate) fn login(&self) -> anyhow::Result<StoredLogin> {
        if self.identity.is_some() {
            let login = self.identity_login()?;
            if !login.is_valid(SystemClock.now()) {
                let (user, end) = (&login.profile.user, ending(login.expires));
                bail!(
                    "the identity file's certificates of {user} {end}; make another with tsh login -o or tctl auth sign"
                );
            }
            self.cluster(&login)?;
            return Ok(login);
        }
        let nobody = || NoLogin::Nobody(self.common.proxy.clone());
        let profile = self.profile()?.ok_or_else(nobody)?;
        let login = match self.store.login(&profile) {
            Ok(login) => login,
            Err(StoreError::NoLogin { .. }) => return Err(NoLogin::NoCertificates(Box::new(profile)).into()),
            Err(other) => return Err(other.into()),
        };
        tracing::debug!(
            user = %profile.user, proxy = %profile.proxy, cluster = %profile.cluster, serial = login.ssh_certificate.serial(),
            logins = login.ssh_certificate.valid_principals().join(","), valid_until = %login.expires, home = %self.store.home().display(),
            "certificates found"
        );
        if !login.is_valid(SystemClock.now()) {
            return Err(NoLogin::Expired(Box::new(profile), login.expires).into());
        }
        self.cluster(&login)?;
        Ok(login)
    }

    /// The cluster to go to. One that the login does not know is an error.
    pub(crate) fn cluster(&self, login: &StoredLogin) -> anyhow::Result<ClusterName> {
        match &self.common.cluster {
            Some(wanted) => known_cluster(login, wanted),
            None => Ok(login.profile.cluster.clone()),
        }
    }

    /// Who to log in as, where nothing else is known: the name on this machine.
    pub(crate) fn user_or_own(&self) -> anyhow::Result<UserName> {
        if let Some(user) = &self.common.user {
            return Ok(user.clone());
        }
        let name = os_user().context("your name on this machine is not known; give --user")?;
        UserName::new(&name).context("your name on this machine is no user name here; give --user")
    }
}

/// `wanted`, if it is a cluster of this login.
pub(crate) fn known_cluster(login: &StoredLogin, wanted: &ClusterName) -> anyhow::Result<ClusterName> {
    if *wanted != login.identity.cluster {
        bail!("cluster {wanted} is not known here; known is {}", login.identity.cluster);
    }
    Ok(wanted.clone())
}

/// The name of the user who runs this.
pub(crate) fn os_user() -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::Uid::current()).ok().flatten().map(|user| user.name)
}

/// The auth service, as the user of `login`, through their proxy.
pub(crate) fn remote_auth(login: &StoredLogin) -> anyhow::Result<RemoteAuth> {
    let identity = SharedTlsIdentity::new(login.tls.clone());
    let trust = AuthTrust::Bundle(login.trust.clone());
    tracing::debug!(proxy = %login.profile.proxy, "asking the auth service through the proxy");
    Ok(RemoteAuth::tls(&login.profile.proxy.to_string(), Some(identity), trust)?)
}

/// The machine's clock.
pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// Runs `work` on one thread: a command waits for one peer at a time. What still waits for a key afterwards is left behind.
pub(crate) fn block_on<F: Future>(work: F) -> std::io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(result)
}
