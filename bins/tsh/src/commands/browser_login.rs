//! `tsh login` through a browser: begins the login, opens the page or says where it is, and waits for the answer at a listener on this machine or by
//! asking. Owns the listener and its deadlines; the keys and what is kept are [`super::login`]'s.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use remoteler_client::{KeyPairs, ProxyAddr, WebClient};
use remoteler_core::{
    AnswerKey, ApiError, ApiErrorKind, BeginLogin, LoginBegun, LoginPoll, LoginProgress, LoopbackUrl, OsEntropy,
    RedeemLogin, Secret, UserCerts, fill_random,
};
use remoteler_ssh::printable;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::{cli, output::say};

/// How long somebody has for the login in the browser. Measured, not compared with the time of day: this machine's may be another one than the auth
/// service's, which says itself when the login is over.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long a browser has to send its request to the listener.
const REQUEST: Duration = Duration::from_secs(5);
/// Longest request that is read: the sealed answer and what browsers send besides.
const MAX_REQUEST: usize = 32 * 1024;
/// Between two questions while the listener waits: only to hear of a refusal.
const LISTENING: Duration = Duration::from_secs(3);

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
        redirect: listener.as_ref().map(|listener| listener.url.clone()),
        ssh_public_key: keys.ssh_public.clone(),
        tls_public_key: keys.tls_public.clone(),
        answer_key: key.public(),
        ttl_seconds: options.ttl.map(|ttl| ttl.as_secs()),
        host: host_name(),
        client_addr: None,
    };
    let begun = web.begin_login(&request).await?;
    let left = PATIENCE;
    let answer = match listener {
        Some(listener) => {
            invite(proxy, &begun, options);
            timeout(left, listener.wait(web, proxy, &begun)).await
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

fn invite(proxy: &ProxyAddr, begun: &LoginBegun, options: &cli::Login) {
    let url = format!("https://{proxy}/web/login/{}", begun.id);
    let quiet = options.browser.as_deref() == Some("none");
    // The address has an id of letters and digits only: nothing in it is the server's to choose freely (I70).
    let plain = !begun.id.is_empty() && begun.id.bytes().all(|c| c.is_ascii_alphanumeric());
    let opened = plain && !quiet && open(&url);
    if opened {
        say(&format!("Log in in the browser that opens; if none does, open: {}", printable(&url)));
    } else {
        say(&format!("Open in a browser on this machine: {}", printable(&url)));
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

/// Where the browser brings the answer.
struct Listener {
    listener: TcpListener,
    url: LoopbackUrl,
}

impl Listener {
    async fn bind(wanted: Option<SocketAddr>) -> anyhow::Result<Self> {
        let wanted = wanted.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let listener = TcpListener::bind(wanted).await.with_context(|| format!("{wanted} cannot be listened at"))?;
        // Who does not know the path cannot make us answer.
        let octets: [u8; 16] = fill_random(&OsEntropy);
        let path: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        let url = LoopbackUrl::new(listener.local_addr()?, &path)?;
        Ok(Self { listener, url })
    }

    /// The answer that a browser brings, or the refusal that the proxy tells of.
    async fn wait(&self, web: &WebClient, proxy: &ProxyAddr, begun: &LoginBegun) -> anyhow::Result<Answer> {
        let refusals = async {
            loop {
                sleep(LISTENING).await;
                if let Some(LoginProgress::Refused { reason }) = ask(web, begun).await? {
                    return Ok::<_, ApiError>(Answer::Refused(reason));
                }
            }
        };
        let brought = async {
            loop {
                let Ok((stream, _)) = self.listener.accept().await else {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                };
                // One at a time, each with a deadline: what is no answer keeps nobody waiting long.
                if let Ok(Some(answer)) = timeout(REQUEST, self.serve(stream, proxy)).await {
                    return answer;
                }
            }
        };
        tokio::select! {
            refused = refusals => Ok(refused?),
            answer = brought => Ok(answer),
        }
    }

    async fn serve(&self, mut stream: TcpStream, proxy: &ProxyAddr) -> Option<Answer> {
        let mut request = Vec::new();
        let mut part = [0; 4096];
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            let read = stream.read(&mut part).await.ok().filter(|read| *read > 0)?;
            request.extend_from_slice(part.get(..read)?);
            if request.len() > MAX_REQUEST {
                return None;
            }
        }
        let line = request.split(|octet| *octet == b'\r').next().and_then(|line| std::str::from_utf8(line).ok());
        let answer = line.and_then(|line| answer_of(line, self.url.path()));
        let head = match &answer {
            Some(_) => format!("HTTP/1.1 303 See Other\r\nLocation: https://{proxy}/web/done\r\n"),
            None => "HTTP/1.1 404 Not Found\r\n".to_owned(),
        };
        let head = format!("{head}Cache-Control: no-store\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        // The browser may be gone; the answer is here.
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.shutdown().await;
        answer
    }
}

/// What the first line of a request brings: `GET /PATH?answer=… HTTP/1.1`.
fn answer_of(line: &str, path: &str) -> Option<Answer> {
    let target = line.strip_prefix("GET /")?.split(' ').next()?;
    let query = target.strip_prefix(path)?.strip_prefix('?')?;
    if query == "error=declined" {
        return Some(Answer::Refused("the login was declined in the browser".into()));
    }
    let sealed = query.strip_prefix("answer=")?;
    let plain = !sealed.is_empty() && sealed.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
    plain.then(|| Answer::Sealed(sealed.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listener_takes_an_answer_for_its_own_path_and_nothing_else() {
        let sealed = |line: &str| match answer_of(line, "abc")? {
            Answer::Sealed(sealed) => Some(sealed),
            Answer::Refused(reason) => Some(format!("refused: {reason}")),
        };
        assert_eq!(sealed("GET /abc?answer=AB-c_1 HTTP/1.1").as_deref(), Some("AB-c_1"));
        assert!(sealed("GET /abc?error=declined HTTP/1.1").unwrap().starts_with("refused"));
        for wrong in [
            "GET /abd?answer=AB HTTP/1.1",
            "GET /abcd?answer=AB HTTP/1.1",
            "GET /?answer=AB HTTP/1.1",
            "POST /abc?answer=AB HTTP/1.1",
            "GET /abc?answer= HTTP/1.1",
            "GET /abc?answer=%0a HTTP/1.1",
            "GET http://127.0.0.1/abc?answer=AB HTTP/1.1",
            "",
        ] {
            assert_eq!(sealed(wrong), None, "{wrong}");
        }
    }
}
