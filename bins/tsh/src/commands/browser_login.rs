//! `tsh login` through a browser: begins the login, opens the page or says where it is, and waits for the answer at a listener on this machine or by
//! asking. Owns the deadlines; the keys and what is kept are [`super::login`]'s.

mod listener;
mod peer;

use std::{
    env,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use remoteler_client::{KeyPairs, ProxyAddr, WebClient};
use remoteler_core::{
    AnswerKey, ApiError, ApiErrorKind, BeginLogin, LoginBegun, LoginPoll, LoginProgress, RedeemLogin, Secret, UserCerts,
};
use remoteler_ssh::printable;
use tokio::time::{sleep, timeout};

use self::listener::Listener;
use crate::{cli, output::say};

/// How long somebody has for the login in the browser. Measured, not compared with the time of day: this machine's may be another one than the auth
/// service's, which says itself when the login is over.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two questions while the listener waits: only to hear of a refusal.
const LISTENING: Duration = Duration::from_secs(3);

/// Longest id or code of a login.
const MAX_NAME: usize = 64;

/// What came back.
enum Answer {
    Sealed(String),
    Refused(String),
}

/// Logs in through a browser; the certificates for `keys`.
pub(super) async fn log_in(
    web: &WebClient,
    proxy: &ProxyAddr,
    keys: &KeyPairs,
    options: &cli::Login,
    connector: Option<&str>,
) -> anyhow::Result<UserCerts> {
    let key = AnswerKey::generate()?;
    let listener = if uses_code(options) { None } else { Some(Listener::bind(options.bind_addr).await?) };
    let request = BeginLogin {
        connector: connector.map(str::to_owned),
        redirect: listener.as_ref().map(|listener| listener.url().clone()),
        ssh_public_key: keys.ssh_public.clone(),
        tls_public_key: keys.tls_public.clone(),
        answer_key: key.public(),
        ttl_seconds: options.ttl.map(|ttl| ttl.as_secs()),
        host: host_name(),
        client_addr: None,
    };
    let begun = web.begin_login(&request).await?;
    // The address has an id of letters and digits only, and people compare and type the code: nothing of them is the server's to choose freely (I70).
    let plain = |text: &str, more: &[u8]| {
        (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
    };
    if !(plain(&begun.id, b"") && plain(&begun.code, b"-")) {
        bail!("{proxy} names a login that cannot be one; compare the versions");
    }
    let left = PATIENCE;
    let answer = match listener {
        Some(listener) => {
            let page = format!("https://{proxy}/web/login/{}", begun.id);
            invite(&page, &listener, &begun, options);
            timeout(left, brought(web, proxy, &page, &listener, &begun)).await
        }
        None => {
            say(&format!("Open on any machine: https://{proxy}/web/device"));
            say(&format!("and type this code:  {}", printable(&begun.code)));
            timeout(left, poll(web, &begun)).await
        }
    };
    let Ok(answer) = answer else {
        bail!(
            "nobody finished the login in the browser within {} minutes; run tsh login again",
            left.as_secs().div_ceil(60)
        );
    };
    let sealed = match answer? {
        Answer::Sealed(sealed) => sealed,
        Answer::Refused(reason) => bail!("{proxy} refuses the login: {}", printable(&reason)),
    };
    let (grant, follow) = key.open(&begun.id, &sealed)?;
    let grant = String::from_utf8(grant.to_vec()).context("the answer of the login is malformed")?;
    let request = RedeemLogin { id: begun.id, secret: begun.secret, grant: Secret::new(grant), client_addr: None };
    let certs = web.redeem_login(&request).await?;
    let certs = follow.open(&certs.sealed)?;
    serde_json::from_slice(&certs).context("the certificates of the login cannot be read")
}

/// Whether the browser is on another machine: because that was said, or because this is a shell from elsewhere without a display.
fn uses_code(options: &cli::Login) -> bool {
    let remote = env::var_os("SSH_CONNECTION").is_some() && env::var_os("DISPLAY").is_none();
    options.device || (remote && options.bind_addr.is_none() && options.browser.is_none())
}

fn invite(url: &str, listener: &Listener, begun: &LoginBegun, options: &cli::Login) {
    let quiet = options.browser.as_deref() == Some("none");
    // Other users of this machine see what a program is called with: the page's address is given to our own browser by the listener.
    let opened = !quiet && open(&listener.start());
    if opened {
        say(&format!("Log in in the browser that opens; if none does, open: {}", printable(url)));
    } else {
        say(&format!("Open in a browser on this machine: {}", printable(url)));
    }
    say(&format!("It must show this code: {}", printable(&begun.code)));
}

/// Opens a page with the desktop's own program; no shell sees the address.
pub(crate) fn open(url: &str) -> bool {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    if cfg!(not(target_os = "macos")) && env::var_os("DISPLAY").is_none() && env::var_os("WAYLAND_DISPLAY").is_none() {
        return false;
    }
    let mut command = Command::new(program);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().is_ok()
}

/// The answer that a browser brings, or the refusal that the proxy tells of.
async fn brought(
    web: &WebClient,
    proxy: &ProxyAddr,
    page: &str,
    listener: &Listener,
    begun: &LoginBegun,
) -> anyhow::Result<Answer> {
    let refusals = async {
        loop {
            sleep(LISTENING).await;
            if let Some(LoginProgress::Refused { reason }) = ask(web, begun).await? {
                return Ok::<_, ApiError>(Answer::Refused(reason));
            }
        }
    };
    tokio::select! {
        refused = refusals => Ok(refused?),
        answer = listener.wait(proxy, page) => Ok(answer),
    }
}

/// Name of this machine, for the page.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Asks until the login is over.
async fn poll(web: &WebClient, begun: &LoginBegun) -> anyhow::Result<Answer> {
    let mut pause = Duration::from_secs(begun.interval_seconds.clamp(1, 60));
    loop {
        sleep(pause).await;
        match ask(web, begun).await? {
            Some(LoginProgress::Ready { answer }) => return Ok(Answer::Sealed(answer)),
            Some(LoginProgress::Refused { reason }) => return Ok(Answer::Refused(reason)),
            Some(LoginProgress::SlowDown) => pause += Duration::from_secs(1),
            Some(LoginProgress::Pending | LoginProgress::Tested { .. }) | None => {}
        }
    }
}

/// One question; a proxy that does not answer now is asked again.
async fn ask(web: &WebClient, begun: &LoginBegun) -> Result<Option<LoginProgress>, ApiError> {
    match web.poll_login(&LoginPoll { id: begun.id.clone(), secret: begun.secret.clone() }).await {
        Ok(progress) => Ok(Some(progress)),
        Err(cause) if cause.kind == ApiErrorKind::Unavailable => Ok(None),
        Err(cause) => Err(cause),
    }
}
