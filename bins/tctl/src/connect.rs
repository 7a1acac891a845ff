//! Finds the auth service that is meant: on this machine by its socket, or far away as the user who is logged in with tsh.
//! Reads flags, the daemon's config file and tsh's directory; writes nothing.

use std::{
    env, io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use remoteler_client::{AuthTrust, IdentityFile, ProxyAddr, RemoteAuth, Store};
use remoteler_core::{AuthApi, Clock, SystemClock};
use remoteler_tunnel::SharedTlsIdentity;

use crate::{cli::ConnectionArgs, yaml};

/// Connects as the flags say.
pub(crate) fn connect(args: &ConnectionArgs) -> anyhow::Result<Arc<dyn AuthApi>> {
    let usual = Usual::default();
    match place(args, &usual)? {
        Place::Local(data_dir) => local(&data_dir),
        Place::Remote(addr) => remote(addr, usual.tsh_home.as_deref()),
        Place::Identity(file, addr) => with_identity(&file, addr),
    }
}

/// Which auth service.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// The one on this machine with this data directory.
    Local(PathBuf),
    /// The one at this address; without one, that behind the proxy that tsh is logged in to.
    Remote(Option<String>),
    /// The same, as the holder of this identity file; without an address that behind the proxy which the file names.
    Identity(PathBuf, Option<String>),
}

/// Where things are if nothing says otherwise.
#[derive(Debug)]
struct Usual {
    config: PathBuf,
    data_dir: PathBuf,
    tsh_home: Option<PathBuf>,
}

impl Default for Usual {
    fn default() -> Self {
        let home = || env::var_os("HOME").filter(|home| !home.is_empty()).map(|home| PathBuf::from(home).join(".tsh"));
        Self {
            config: "/etc/remoteler.yaml".into(),
            data_dir: "/var/lib/remoteler".into(),
            tsh_home: env::var_os("TSH_HOME").map(PathBuf::from).or_else(home),
        }
    }
}

/// What is named goes first; then the auth service that this machine runs; then the cluster that tsh is logged in to.
fn place(args: &ConnectionArgs, usual: &Usual) -> anyhow::Result<Place> {
    if let Some(file) = &args.identity {
        return Ok(Place::Identity(file.clone(), args.auth_server.clone()));
    }
    if let Some(addr) = &args.auth_server {
        return Ok(Place::Remote(Some(addr.clone())));
    }
    if let Some(data_dir) = &args.data_dir {
        return Ok(Place::Local(data_dir.clone()));
    }
    if let Some(config) = &args.config {
        return Ok(Place::Local(configured(config, usual)?));
    }
    let runs_here = if usual.config.exists() { configured(&usual.config, usual) } else { Ok(usual.data_dir.clone()) };
    let logged_in = usual.tsh_home.as_ref().is_some_and(|home| home.join("profile").exists());
    match runs_here {
        Ok(data_dir) if socket(&data_dir).exists() || !logged_in => Ok(Place::Local(data_dir)),
        Err(cause) if !logged_in => Err(cause),
        Ok(_) | Err(_) => Ok(Place::Remote(None)),
    }
}

fn configured(config: &Path, usual: &Usual) -> anyhow::Result<PathBuf> {
    let text = std::fs::read_to_string(config).with_context(|| format!("{} cannot be read", config.display()))?;
    let configured = yaml::configured_data_dir(&text).with_context(|| config.display().to_string())?;
    Ok(configured.unwrap_or_else(|| usual.data_dir.clone()))
}

fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("auth.sock")
}

fn local(data_dir: &Path) -> anyhow::Result<Arc<dyn AuthApi>> {
    let socket = socket(data_dir);
    // Tried once, to say in words what is wrong; the connection itself is of no use.
    UnixStream::connect(&socket).map_err(|cause| unreachable(data_dir, &cause))?;
    Ok(Arc::new(RemoteAuth::unix(&socket)))
}

fn unreachable(data_dir: &Path, cause: &io::Error) -> anyhow::Error {
    let dir = data_dir.display();
    if cause.kind() == io::ErrorKind::PermissionDenied {
        return anyhow!("the auth service with data directory {dir} is open to root and to its own user only");
    }
    if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
        return anyhow!(
            "no auth service runs with data directory {dir}; start it, or name another with --data-dir or -c, or one on another machine with --auth-server"
        );
    }
    anyhow!("the auth service with data directory {dir} cannot be reached: {cause}")
}

fn remote(addr: Option<String>, tsh_home: Option<&Path>) -> anyhow::Result<Arc<dyn AuthApi>> {
    let home = tsh_home.context("neither TSH_HOME nor HOME is set, so what tsh got cannot be found")?;
    let store = Store::new(home);
    let profile = store.current()?.context("nobody is logged in here; run: tsh login --proxy HOST:PORT")?;
    let login = store.login(&profile)?;
    let proxy = &profile.proxy;
    if !login.is_valid(SystemClock.now()) {
        bail!(
            "the certificates of {} for {proxy} ended at {}; log in again: {}",
            profile.user,
            login.expires,
            profile.login_command()
        );
    }
    // Without a port it is a proxy's usual one.
    let addr: ProxyAddr = addr.map_or_else(|| Ok(proxy.clone()), |addr| addr.parse())?;
    let identity = SharedTlsIdentity::new(login.tls);
    Ok(Arc::new(RemoteAuth::tls(&addr.to_string(), Some(identity), AuthTrust::Bundle(login.trust))?))
}

fn with_identity(file: &Path, addr: Option<String>) -> anyhow::Result<Arc<dyn AuthApi>> {
    let identity = IdentityFile::read(file)?;
    if identity.expires() <= SystemClock.now() {
        bail!("the identity in {} ended at {}; make another with tctl auth sign", file.display(), identity.expires());
    }
    // Without a port it is a proxy's usual one.
    let addr = addr.map(|addr| addr.parse::<ProxyAddr>()).transpose()?.map(|addr| addr.to_string());
    if addr.is_none() && identity.proxy().is_none() {
        bail!("{} names no proxy; give --auth-server HOST:PORT", file.display());
    }
    Ok(Arc::new(identity.auth(addr.as_deref())?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn usual(dir: &TempDir) -> Usual {
        Usual {
            config: dir.path().join("remoteler.yaml"),
            data_dir: dir.path().join("data"),
            tsh_home: Some(dir.path().join("tsh")),
        }
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn found(args: ConnectionArgs, usual: &Usual) -> Place {
        place(&args, usual).unwrap()
    }

    #[test]
    fn what_is_named_goes_before_what_is_usual() {
        let dir = TempDir::new().unwrap();
        let usual = usual(&dir);
        let named = dir.path().join("named.yaml");
        write(&named, "remoteler: { data_dir: /srv/named }\n");
        let mut args = ConnectionArgs { config: Some(named), ..ConnectionArgs::default() };
        assert_eq!(found(args.clone(), &usual), Place::Local("/srv/named".into()));
        args.data_dir = Some("/srv/dir".into());
        assert_eq!(found(args.clone(), &usual), Place::Local("/srv/dir".into()));
        args.auth_server = Some("p:3080".into());
        assert_eq!(found(args.clone(), &usual), Place::Remote(Some("p:3080".into())));
        args.identity = Some("id".into());
        assert_eq!(found(args, &usual), Place::Identity("id".into(), Some("p:3080".into())));
    }

    #[test]
    fn with_nothing_named_this_machines_auth_service_goes_before_the_login_of_tsh() {
        let dir = TempDir::new().unwrap();
        let usual = usual(&dir);
        let ask = || found(ConnectionArgs::default(), &usual);
        assert_eq!(ask(), Place::Local(usual.data_dir.clone()));
        write(&dir.path().join("tsh/profile"), "");
        assert_eq!(ask(), Place::Remote(None));
        let configured = dir.path().join("configured");
        write(&usual.config, &format!("remoteler: {{ data_dir: {} }}\n", configured.display()));
        assert_eq!(ask(), Place::Remote(None));
        write(&socket(&configured), "");
        assert_eq!(ask(), Place::Local(configured));
    }

    #[test]
    fn a_config_that_is_named_must_be_there() {
        let dir = TempDir::new().unwrap();
        let args = ConnectionArgs { config: Some("/nowhere/x.yaml".into()), ..ConnectionArgs::default() };
        assert_eq!(place(&args, &usual(&dir)).unwrap_err().to_string(), "/nowhere/x.yaml cannot be read");
    }

    #[test]
    fn an_auth_service_that_does_not_run_is_named_with_what_to_do() {
        let dir = TempDir::new().unwrap();
        let Err(cause) = local(dir.path()) else { panic!("nobody is there") };
        assert!(cause.to_string().starts_with("no auth service runs with data directory /"), "{cause}");
    }

    #[test]
    fn without_a_login_of_tsh_there_is_no_way_to_a_far_cluster() {
        let dir = TempDir::new().unwrap();
        let Err(cause) = remote(Some("127.0.0.1:1".into()), Some(&dir.path().join("tsh"))) else {
            panic!("no login is there")
        };
        assert!(!cause.to_string().contains('\n'), "{cause}");
    }
}
