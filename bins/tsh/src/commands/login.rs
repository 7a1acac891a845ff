//! `tsh login`: makes keys here, proves the password to the proxy, keeps what it issues, and tells ssh-agent and kubeconfig.

use std::{env, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use remoteler_client::{KeyPairs, Profile, ProxyAddr, SshAgent, Store, StoreError, StoredLogin, WebClient, WebTrust};
use remoteler_core::{
    ApiError, ApiErrorKind, AuthApi, Clock, ClusterName, LoginMethods, LoginRequest, SystemClock, UserCerts, UserName,
};
use remoteler_ssh::printable;

use super::{browser_login, kube, login_files, status};
use crate::{
    cli,
    context::{Context, NoLogin, block_on, known_cluster, remote_auth},
    output::{one_line, say},
    password, terminal, trust,
};

pub(crate) fn run(context: &Context, options: &cli::Login) -> anyhow::Result<()> {
    if let Some(out) = &options.out {
        return login_files::run(context, options, out);
    }
    block_on(async {
        let select = selected(context, options);
        let valid = match valid_login(context)? {
            Some(login) => still_believed(context, login).await?,
            None => None,
        };
        let login = match valid {
            Some(login) => {
                if let Some(flags) = without_effect(options) {
                    say(&format!(
                        "tsh: already logged in, so {flags} changes nothing; run tsh logout first to log in anew"
                    ));
                }
                tell_agent(&login);
                select_cluster(context, login, select)?
            }
            None => perform(context, options, select).await?,
        };
        tell_kubeconfig(context, &login).await;
        status::print_login(&login)
    })?
}

/// The cluster that is to be selected.
pub(super) fn selected<'a>(context: &'a Context, options: &'a cli::Login) -> Option<&'a ClusterName> {
    options.select.as_ref().or(context.common.cluster.as_ref())
}

/// The flags that say how to log in. What stands in the environment for every login is not worth a word each time.
fn without_effect(options: &cli::Login) -> Option<String> {
    let cli::Login { ttl, auth, browser, bind_addr, device, .. } = options;
    let given = [
        ("--ttl", "TSH_TTL", ttl.is_some()),
        ("--auth", "TSH_AUTH", auth.is_some()),
        ("--browser", "TSH_BROWSER", browser.is_some()),
        ("--bind-addr", "TSH_BIND_ADDR", bind_addr.is_some()),
        ("--device", "TSH_DEVICE", *device),
    ];
    let flags: Vec<_> = given
        .into_iter()
        .filter(|(_, variable, given)| *given && env::var_os(variable).is_none())
        .map(|(flag, ..)| flag)
        .collect();
    (!flags.is_empty()).then(|| flags.join(", "))
}

/// The login in the store, if no new one is needed.
fn valid_login(context: &Context) -> anyhow::Result<Option<StoredLogin>> {
    let Some(profile) = context.profile()? else { return Ok(None) };
    match context.store.login(&profile) {
        Ok(login) if login.is_valid(SystemClock.now()) => Ok(Some(login)),
        // A login that is not whole is replaced by a new one.
        Ok(_) | Err(StoreError::NoLogin { .. } | StoreError::Broken { .. }) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

/// The login, with the authorities of the moment; `None` when the cluster and it do not believe each other any more, because its
/// authorities were rotated meanwhile. A cluster that does not answer is no reason to log in anew.
async fn still_believed(context: &Context, login: StoredLogin) -> anyhow::Result<Option<StoredLogin>> {
    let Some(answer) = trust::refresh_in_time(context, &login).await else { return Ok(Some(login)) };
    let Err(cause) = answer else {
        return Ok(Some(context.store.login(&login.profile)?));
    };
    let web_trust = if login.profile.insecure { WebTrust::Insecure } else { WebTrust::SystemRoots };
    if WebClient::new(&login.profile.proxy, web_trust)?.ping().await.is_err() {
        return Ok(Some(login));
    }
    say(&format!("tsh: the certificates at hand are of no use any more ({}); logging in anew", one_line(&cause)));
    Ok(None)
}

fn select_cluster(
    context: &Context,
    mut login: StoredLogin,
    select: Option<&ClusterName>,
) -> anyhow::Result<StoredLogin> {
    if let Some(wanted) = select {
        login.profile.cluster = known_cluster(&login, wanted)?;
    }
    context.store.select(&login.profile)?;
    Ok(login)
}

/// A valid login; asks for the password first when there is none and somebody can be asked.
pub(crate) async fn ensure(context: &Context, batch: bool) -> anyhow::Result<StoredLogin> {
    match context.login() {
        Err(error) if error.is::<NoLogin>() && !batch && terminal::can_ask() => {
            if let Some(NoLogin::Nobody(None)) = error.downcast_ref::<NoLogin>() {
                return Err(error); // no proxy to ask
            }
            say(&format!("tsh: {error}"));
            let login = perform(context, &cli::Login::default(), context.common.cluster.as_ref()).await?;
            tell_kubeconfig(context, &login).await;
            Ok(login)
        }
        other => other,
    }
}

/// Logs in through the browser once more, as the same user at the same proxy: the login at hand is valid, and too long ago for what is to be done.
pub(super) async fn anew(context: &Context, known: &StoredLogin) -> anyhow::Result<StoredLogin> {
    let Profile { proxy, user, .. } = &known.profile;
    let trust = if context.common.insecure { WebTrust::Insecure } else { WebTrust::SystemRoots };
    let web = WebClient::new(proxy, trust)?;
    let connector = known.profile.logout_connector.as_deref();
    let issued = ask_browser(&web, proxy, &cli::Login::default(), connector).await?;
    if issued.user != *user {
        bail!("the browser's login is {}'s, not {user}'s; log in there as {user} and try again", issued.user);
    }
    let login = keep(context, &issued)?;
    tell_agent(&login);
    Ok(login)
}

/// What a login gave. Nothing of it is kept yet.
pub(super) struct Issued {
    pub(super) proxy: ProxyAddr,
    pub(super) user: UserName,
    pub(super) keys: KeyPairs,
    pub(super) certificates: UserCerts,
}

/// Puts it into the store, as the login in use.
fn keep(context: &Context, issued: &Issued) -> anyhow::Result<StoredLogin> {
    let Issued { proxy, user, keys, certificates } = issued;
    let mut login = context.store.save_login(proxy, user, keys, certificates)?;
    if context.common.insecure {
        login.profile.insecure = true;
        context.store.select(&login.profile)?;
    }
    Ok(login)
}

/// Logs in anew, and keeps that.
async fn perform(context: &Context, options: &cli::Login, select: Option<&ClusterName>) -> anyhow::Result<StoredLogin> {
    let login = keep(context, &ask(context, options, select).await?)?;
    tell_agent(&login);
    Ok(login)
}

/// Logs in anew.
pub(super) async fn ask(
    context: &Context,
    options: &cli::Login,
    select: Option<&ClusterName>,
) -> anyhow::Result<Issued> {
    let known = context.profile()?;
    let proxy = context.common.proxy.clone().or_else(|| known.as_ref().map(|known| known.proxy.clone()));
    let proxy = proxy.context("no proxy is known; give --proxy HOST[:PORT]")?;
    let trust = if context.common.insecure {
        say(&format!(
            "tsh: --insecure: the certificate of {proxy} is not checked; who is in the path sees the password, or gets certificates in your name"
        ));
        WebTrust::Insecure
    } else {
        WebTrust::SystemRoots
    };
    let web = WebClient::new(&proxy, trust)?;
    tracing::debug!(%proxy, checked = !context.common.insecure, "asking the proxy who it is");
    // Before the password is typed: a wrong address, or a proxy that is not believed.
    let ping = web.ping().await?;
    if let Some(wanted) = select.filter(|wanted| **wanted != ping.cluster_name) {
        bail!("cluster {wanted} is not known at {proxy}; known is {}", ping.cluster_name);
    }
    tracing::debug!(%proxy, cluster = %ping.cluster_name, version = ping.server_version, "the proxy answers");
    let issued = match way(&web, options).await? {
        Way::Password => {
            let user = match known {
                Some(known) => known.user,
                None => context.user_or_own()?,
            };
            match exchange(&web, &proxy, &user, options.ttl).await? {
                Some(issued) => issued,
                None => {
                    say(&format!(
                        "tsh: the second factor of {user} is a security key, so the login goes on in a browser"
                    ));
                    in_browser(context, &web, &proxy, options, Some(LOCAL)).await?
                }
            }
        }
        Way::Browser(connector) => in_browser(context, &web, &proxy, options, connector.as_deref()).await?,
    };
    let expires = issued.certificates.expires;
    tracing::debug!(user = %issued.user, valid_until = %expires, "certificates issued");
    if expires.since(SystemClock.now()) <= LAST_MINUTE {
        say(&format!(
            "tsh: the roles of {} allow certificates until {expires} only, which is too short to be used; an administrator can raise max_session_ttl",
            issued.user
        ));
    }
    Ok(issued)
}

/// In their last minute certificates are not used ([`StoredLogin::is_valid`]).
const LAST_MINUTE: Duration = Duration::from_secs(60);
/// The way that asks for a password of the cluster's own.
const LOCAL: &str = "local";

async fn in_browser(
    context: &Context,
    web: &WebClient,
    proxy: &ProxyAddr,
    options: &cli::Login,
    connector: Option<&str>,
) -> anyhow::Result<Issued> {
    let issued = ask_browser(web, proxy, options, connector).await?;
    let user = &issued.user;
    if let Some(wanted) = context.common.user.as_ref().filter(|wanted| *wanted != user) {
        say(&format!("tsh: the browser's login is {user}'s, not {wanted}'s; the certificates are {user}'s"));
    }
    Ok(issued)
}

async fn ask_browser(
    web: &WebClient,
    proxy: &ProxyAddr,
    options: &cli::Login,
    connector: Option<&str>,
) -> anyhow::Result<Issued> {
    let keys = KeyPairs::generate(&format!("remoteler:{}", proxy.host()))?;
    let certificates = browser_login::log_in(web, proxy, &keys, options, connector).await?;
    let user = Store::user_of(proxy, &certificates)?;
    Ok(Issued { proxy: proxy.clone(), user, keys, certificates })
}

/// How to log in.
enum Way {
    Password,
    Browser(Option<String>),
}

/// What was said, or what the cluster says. A proxy that does not know the question knows passwords only.
async fn way(web: &WebClient, options: &cli::Login) -> anyhow::Result<Way> {
    match options.auth.as_deref() {
        Some(LOCAL) if options.device || options.browser.is_some() || options.bind_addr.is_some() => {
            return Ok(Way::Browser(Some(LOCAL.to_owned())));
        }
        Some(LOCAL) => return Ok(Way::Password),
        Some(connector) => return Ok(Way::Browser(Some(connector.to_owned()))),
        None => {}
    }
    if options.device || options.browser.is_some() || options.bind_addr.is_some() {
        return Ok(Way::Browser(None));
    }
    Ok(way_of(web.login_methods().await)?)
}

/// What the cluster's answer means. One that failed asks nobody for a password that may not be wanted here.
fn way_of(answer: Result<LoginMethods, ApiError>) -> Result<Way, ApiError> {
    match answer {
        Ok(methods) if methods.kind != LOCAL => Ok(Way::Browser(None)),
        Ok(_) => Ok(Way::Password),
        Err(cause) if cause.kind == ApiErrorKind::NotFound => Ok(Way::Password),
        Err(cause) => Err(cause),
    }
}

/// The login by password and code; `None` when only a browser can ask for the second factor.
async fn exchange(
    web: &WebClient,
    proxy: &ProxyAddr,
    user: &UserName,
    ttl: Option<Duration>,
) -> anyhow::Result<Option<Issued>> {
    let password = password::read(&format!("Password of {user} at {proxy}: "))?;
    let keys = KeyPairs::generate(&format!("remoteler:{}:{user}", proxy.host()))?;
    let mut request = LoginRequest {
        user: user.to_string(),
        password,
        code: None,
        ssh_public_key: keys.ssh_public.clone(),
        tls_public_key: keys.tls_public.clone(),
        ttl_seconds: ttl.map(|ttl| ttl.as_secs()),
        client_addr: None,
    };
    let mut answer = web.login(&request).await;
    if answer.as_ref().is_err_and(|refusal| refusal.kind == ApiErrorKind::SecondFactorNeeded) {
        request.code = Some(password::read_code()?);
        answer = web.login(&request).await;
    }
    if answer.as_ref().is_err_and(|refusal| refusal.kind == ApiErrorKind::SecurityKeyNeeded) {
        return Ok(None);
    }
    let certificates = answer.map_err(|refusal| match refusal.kind {
        ApiErrorKind::Unauthenticated | ApiErrorKind::SecondFactorNeeded | ApiErrorKind::Denied => {
            anyhow::anyhow!("{proxy} refuses the login of {user}: {}", printable(&refusal.message))
        }
        ApiErrorKind::BadRequest
        | ApiErrorKind::NotFound
        | ApiErrorKind::Conflict
        | ApiErrorKind::RateLimited
        | ApiErrorKind::Internal
        | ApiErrorKind::Unavailable
        | _ => refusal.into(),
    })?;
    Ok(Some(Issued { proxy: proxy.clone(), user: user.clone(), keys, certificates }))
}

/// Gives key and certificate to a running ssh-agent. Without one nothing is lost: the files serve as well.
fn tell_agent(login: &StoredLogin) {
    let Some(socket) = env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()) else { return };
    let left = login.expires.since(SystemClock.now());
    let Profile { proxy, user, .. } = &login.profile;
    // A socket that nobody answers at is an agent that is gone.
    let Ok(mut agent) = SshAgent::connect(Path::new(&socket)) else { return };
    if let Err(cause) = agent.add(proxy, user, &login.ssh_key, &login.ssh_certificate, left) {
        say(&format!("tsh: the ssh-agent did not take the certificate: {cause}"));
    }
}

/// Writes the contexts of the cluster's Kubernetes clusters, if there are any. The choice of a context stays the user's.
pub(crate) async fn tell_kubeconfig(context: &Context, login: &StoredLogin) {
    let written = async {
        let clusters = remote_auth(login)?.kube_clusters().await?;
        if clusters.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = clusters.into_iter().map(|record| record.name).collect();
        kube::write_kubeconfig(context.store.home(), login, &names, None)
    };
    let written = tokio::time::timeout(trust::LIMIT, written).await;
    if let Err(cause) = written.unwrap_or_else(|_| bail!("the auth service did not answer in time")) {
        say(&format!("tsh: the kubeconfig was not written: {}", one_line(&cause)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_asked_for_where_the_cluster_says_so_or_does_not_know_the_question() {
        let methods = |kind: &str| LoginMethods { kind: kind.into(), default_connector: None, connectors: Vec::new() };
        let failed = |kind| way_of(Err(ApiError::new(kind, "no")));
        assert!(matches!(way_of(Ok(methods("local"))), Ok(Way::Password)));
        assert!(matches!(way_of(Ok(methods("oidc"))), Ok(Way::Browser(None))));
        assert!(matches!(failed(ApiErrorKind::NotFound), Ok(Way::Password)));
        for kind in [ApiErrorKind::Internal, ApiErrorKind::Unavailable, ApiErrorKind::RateLimited] {
            assert!(failed(kind).is_err(), "{kind:?}");
        }
    }
}
