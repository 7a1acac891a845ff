//! Second factors for single sessions: asks for the code on the terminal, whatever standard input is, and gets kubectl a certificate with the proof. Owns
//! when nobody is asked, because a proof is still good or none is wanted; codes are judged by the auth service.

use std::{
    fmt,
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use remoteler_client::{KeyPairs, KubeCredential, KubeSession, StoredLogin};
use remoteler_core::{
    ApiErrorKind, AppName, AuthApi, Clock as _, ExplainRequest, HostApi, KubeClusterName, OsEntropy, Secret, SessionId,
    SessionProofRequest, SessionProven, SessionPurpose, SystemClock, Timestamp, random_uuid, wire,
};
use remoteler_ssh::{Answerer, Question};

use crate::{
    context::{Context, remote_auth},
    output::{one_line, safe},
};

/// So long it counts that no second factor is wanted.
const AGE: Duration = Duration::from_secs(60);
/// How long kubectl waits to hear that.
const LIMIT: Duration = Duration::from_secs(5);
/// A certificate is not given in its last moments.
const MARGIN: Duration = Duration::from_secs(2);
/// Codes that may be typed.
const TRIES: usize = 3;
const MAX_LINE: u64 = 4096;

/// For servers that want a second factor.
pub(crate) fn answerer() -> Answerer {
    Arc::new(move |question| {
        Box::pin(async move {
            let Question { host, instructions, prompt, echo } = question;
            let said = if instructions.is_empty() { String::new() } else { format!("{host}: {instructions}\n") };
            ask(format!("{said}({host}) {prompt}"), echo).await
        })
    })
}

/// Whether a refusal names the page on which a key may be touched. The page is not opened from here: what a server says may name the page of another session, and
/// who types or clicks the address reads where that one goes.
fn names_page(said: &str) -> bool {
    said.contains(&wire::path(wire::WEB_SESSION, ""))
}

/// Asks on the terminal; `None` when there is none.
async fn ask(prompt: String, echo: bool) -> Option<Secret> {
    let typed =
        tokio::task::spawn_blocking(
            move || if echo { ask_openly(&prompt) } else { rpassword::prompt_password(prompt) },
        );
    let typed = typed.await.ok()?.ok()?;
    Some(Secret::new(typed.trim()))
}

fn ask_openly(prompt: &str) -> std::io::Result<String> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    terminal.write_all(prompt.as_bytes())?;
    terminal.flush()?;
    let mut line = String::new();
    BufReader::new(terminal).take(MAX_LINE).read_line(&mut line)?;
    Ok(line)
}

/// The certificate for kubectl where a session in `name` needs a second factor; `None` where that of the login is enough, or nobody can say.
pub(crate) async fn kube(
    context: &Context,
    login: &StoredLogin,
    name: &KubeClusterName,
) -> anyhow::Result<Option<KubeCredential>> {
    // An identity file is for programs, which have no second factor.
    if context.identity.is_some() {
        return Ok(None);
    }
    let now = SystemClock.now();
    match context.store.kube_session(login, name, now.plus(MARGIN))? {
        Some(KubeSession::Proven(credential)) => return Ok(Some(credential)),
        Some(KubeSession::Plain { asked }) if asked <= now && now < asked.plus(AGE) => return Ok(None),
        Some(KubeSession::Plain { .. }) | None => {}
    }
    let wanted = match tokio::time::timeout(LIMIT, is_wanted(login, name)).await {
        Ok(Ok(wanted)) => wanted,
        Ok(Err(cause)) => {
            tracing::debug!(cause = one_line(&cause), "whether a second factor is wanted is not known");
            return Ok(None);
        }
        Err(_) => {
            tracing::debug!("whether a second factor is wanted was not answered in time");
            return Ok(None);
        }
    };
    let keep = |session| context.store.keep_kube_session(login, name, session, SystemClock.now());
    if !wanted {
        keep(KubeSession::Plain { asked: now })?;
        return Ok(None);
    }
    let credential = prove(login, &Place::KubeCluster(name)).await?;
    keep(KubeSession::Proven(credential.clone()))?;
    Ok(Some(credential))
}

/// The same for a web app, for as long as the login or as the auth service says; nothing is kept.
pub(crate) async fn app(
    context: &Context,
    login: &StoredLogin,
    name: &AppName,
) -> anyhow::Result<Option<KubeCredential>> {
    // An identity file is for programs, which have no second factor.
    if context.identity.is_some() {
        return Ok(None);
    }
    let request = ExplainRequest { app: Some(name.clone()), ..ExplainRequest::default() };
    match tokio::time::timeout(LIMIT, wants_factor(login, request)).await {
        Ok(Ok(true)) => prove(login, &Place::App(name)).await.map(Some),
        Ok(Ok(false)) => Ok(None),
        Ok(Err(cause)) => Err(cause.context(format!("whether app {name} wants a second factor is not known"))),
        Err(_) => anyhow::bail!("whether app {name} wants a second factor was not answered in time; try again"),
    }
}

async fn is_wanted(login: &StoredLogin, name: &KubeClusterName) -> anyhow::Result<bool> {
    wants_factor(login, ExplainRequest { kube_cluster: Some(name.clone()), ..ExplainRequest::default() }).await
}

async fn wants_factor(login: &StoredLogin, request: ExplainRequest) -> anyhow::Result<bool> {
    let explained = remote_auth(login)?.explain(request).await?;
    Ok(explained.iter().any(|one| one.options.as_ref().is_some_and(|options| options.require_session_mfa)))
}

/// Where a second factor is shown for.
enum Place<'a> {
    KubeCluster(&'a KubeClusterName),
    App(&'a AppName),
}

impl Place<'_> {
    /// With the key to be certified.
    fn purpose(&self, tls_public_key: String) -> SessionPurpose {
        match *self {
            Self::KubeCluster(name) => SessionPurpose::Kubernetes { kube_cluster: name.clone(), tls_public_key },
            Self::App(name) => SessionPurpose::App { app: name.clone(), tls_public_key },
        }
    }

    /// What would ask on a terminal.
    const fn command(&self) -> &'static str {
        match self {
            Self::KubeCluster(_) => "kubectl",
            Self::App(_) => "tsh proxy app",
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KubeCluster(name) => write!(f, "Kubernetes cluster {name}"),
            Self::App(name) => write!(f, "app {name}"),
        }
    }
}

async fn prove(login: &StoredLogin, place: &Place<'_>) -> anyhow::Result<KubeCredential> {
    let keys = KeyPairs::generate("")?;
    let auth = remote_auth(login)?;
    let session = SessionId::from_uuid(random_uuid(&OsEntropy));
    let request = |code| SessionProofRequest { session, purpose: place.purpose(keys.tls_public.clone()), code };
    // Without a code it says which factor is wanted, or that there is none.
    let mut answer = auth.prove_session(request(None)).await;
    let by_touch = matches!(&answer, Err(refusal) if names_page(&refusal.message));
    for _ in 0..TRIES {
        let said = match &answer {
            Err(refusal)
                if matches!(refusal.kind, ApiErrorKind::SecondFactorNeeded | ApiErrorKind::Unauthenticated) =>
            {
                safe(&refusal.message)
            }
            Err(_) | Ok(_) => break,
        };
        let code = ask(format!("{place}: {said}\nOne-time code: "), true).await;
        let Some(code) = code.filter(|code| by_touch || !code.reveal().is_empty()) else {
            bail!(
                "a session in {place} needs a second factor, and no code was typed; run {} on a terminal",
                place.command()
            );
        };
        answer = auth.prove_session(request(Some(code))).await;
    }
    let SessionProven { proof, tls_certificate } = answer?;
    let certificate =
        tls_certificate.context("the auth service sent no certificate with the proof; compare the versions")?;
    let expires: Timestamp = proof.expires();
    Ok(KubeCredential { certificate, private_key: keys.tls_private, expires })
}
