//! `tsh ssh`, and `ssh` when this program is called so. Exit status: that of the remote command, 255 when the connection failed.

use std::{
    env,
    ffi::OsString,
    future::pending,
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use remoteler_ssh::{Control, EscapeFilter, Exit, Program, SessionIo, SessionRequest, SshClient, serve_local_forward};
use remoteler_tunnel::relay;
use russh::Sig;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};

use super::{
    connect::{How, connect},
    login, version,
};
use crate::{
    cli::Common,
    context::{Context, block_on, os_user},
    openssh::{self, AgentForwarding, ConfigFiles, Here, Parsed, SshArgs, Tty, UsageError},
    output::{self, Format, one_line, say},
    stdio::{self, Stdin, Stdio},
    terminal::{self, RawMode},
};

/// How this program was called; `ssh` reads OpenSSH's configuration, `tsh ssh` only one that is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CalledAs {
    Ssh,
    Tsh,
}

pub(crate) fn main(args: &[OsString], common: Common, called: CalledAs) -> u8 {
    let mut parsed = match openssh::parse(args) {
        Ok(Parsed::Run(parsed)) => parsed,
        Ok(Parsed::Help) => {
            return crate::report(output::print(Format::Text, openssh::HELP, ToOwned::to_owned));
        }
        Ok(Parsed::Version) => {
            return crate::report(version::run(Format::Text));
        }
        Err(refusal) => return wrong_usage(&refusal),
    };
    if called == CalledAs::Ssh || matches!(parsed.config, ConfigFiles::Only(_)) {
        let here = Here {
            home: env::var_os("HOME").map(Into::into).unwrap_or_default(),
            user: os_user().unwrap_or_default(),
            system: "/etc/ssh".into(),
        };
        if let Err(refusal) = openssh::complete(&mut parsed, &here) {
            return wrong_usage(&refusal);
        }
    }
    crate::verbose(parsed.verbose.max(common.debug.into()));
    let result = Context::new(merged(common, &parsed)).and_then(|context| block_on(run(&context, &parsed))?);
    result.unwrap_or_else(|error| {
        say(&format!("tsh: {}", one_line(&error)));
        CONNECTION_FAILED
    })
}

fn wrong_usage(refusal: &UsageError) -> u8 {
    say(&format!("tsh: {refusal}"));
    CONNECTION_FAILED
}

/// What ssh(1) exits with when it, not the remote command, failed.
pub(crate) const CONNECTION_FAILED: u8 = 255;

/// Flags among those of ssh win over those before it and over the environment.
fn merged(common: Common, parsed: &SshArgs) -> Common {
    let scope = parsed.scope.clone();
    Common {
        proxy: scope.proxy.or(common.proxy),
        user: scope.user.or(common.user),
        cluster: scope.cluster.or(common.cluster),
        home: scope.home.or(common.home),
        identity: common.identity,
        insecure: scope.insecure || common.insecure,
        debug: common.debug,
    }
}

async fn run(context: &Context, args: &SshArgs) -> anyhow::Result<u8> {
    let login = login::ensure(context, args.batch).await?;
    let cluster = context.cluster(&login)?;
    let how = How {
        family: args.family,
        timeout: args.connect_timeout,
        keepalive: args.keepalive,
        keepalive_max: args.keepalive_max,
        quiet: args.quiet,
        batch: args.batch,
        agent: agent(args),
    };
    let client = Arc::new(connect(context, &login, &cluster, &args.host, args.login.clone(), how).await?);
    let _forwards = start_forwards(&client, args).await?;
    let status = match &args.stdio_forward {
        Some((host, port)) => forward_stdio(&client, host, *port).await,
        None if args.no_command => wait_for_end(&client).await,
        None => session(&client, args).await,
    };
    client.disconnect().await;
    status
}

async fn start_forwards(client: &Arc<SshClient>, args: &SshArgs) -> anyhow::Result<JoinSet<()>> {
    let mut forwards = JoinSet::new();
    let notice: Arc<dyn Fn(&str) + Send + Sync> = if args.quiet { Arc::new(|_| {}) } else { Arc::new(say) };
    for spec in &args.forwards {
        match spec.listen(args.gateway_ports).await {
            Ok(listeners) => {
                for listener in listeners {
                    if spec.port == 0
                        && let Ok(address) = listener.local_addr()
                    {
                        notice(&format!("forward {spec} listens on {address}"));
                    }
                    forwards.spawn(serve_local_forward(client.clone(), listener, spec.clone(), notice.clone()));
                }
            }
            Err(cause) if args.exit_on_forward_failure => {
                return Err(cause).with_context(|| format!("forward {spec} cannot listen"));
            }
            Err(cause) => notice(&format!("forward {spec} cannot listen: {cause}")),
        }
    }
    for spec in &args.remote_forwards {
        match client.remote_forward(spec).await {
            Ok(port) if spec.port == 0 => {
                notice(&format!("forward {spec} listens on port {port} of {}", client.host()))
            }
            Ok(_) => {}
            Err(cause) if args.exit_on_forward_failure => return Err(cause.into()),
            Err(cause) => notice(&cause.to_string()),
        }
    }
    Ok(forwards)
}

/// The ssh-agent to be forwarded, if one is.
fn agent(args: &SshArgs) -> Option<PathBuf> {
    let found = match &args.agent {
        AgentForwarding::No => return None,
        AgentForwarding::Own => env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from),
        AgentForwarding::Named(variable) => env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from),
        AgentForwarding::At(path) => Some(path.clone()),
    };
    if found.is_none() && !args.quiet {
        say("tsh: no ssh-agent is forwarded, because SSH_AUTH_SOCK names none; `eval $(ssh-agent)` starts one");
    }
    found
}

/// `-W`
async fn forward_stdio(client: &SshClient, host: &str, port: u16) -> anyhow::Result<u8> {
    let mut channel = client.direct_tcpip((host, port), ("127.0.0.1", 0)).await?.into_stream();
    let relayed = relay(&mut Stdio::new(), &mut channel).await;
    match relayed.error {
        Some(cause) if !matches!(cause.kind(), std::io::ErrorKind::NotConnected | std::io::ErrorKind::BrokenPipe) => {
            Err(cause).with_context(|| format!("the connection to {host}:{port} broke"))
        }
        _ => Ok(0),
    }
}

/// `-N`: until the server or the user ends it.
async fn wait_for_end(client: &SshClient) -> anyhow::Result<u8> {
    let mut quit = QuitSignals::new()?;
    let mut look = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            _ = quit.next() => return Ok(CONNECTION_FAILED),
            _ = look.tick() => if client.is_closed() {
                let reason = client.last_words().await.map(|words| format!(": {words}")).unwrap_or_default();
                anyhow::bail!("{} closed the connection{reason}", client.host());
            }
        }
    }
}

async fn session(client: &SshClient, args: &SshArgs) -> anyhow::Result<u8> {
    let stdin_is_terminal = terminal::stdin_is_terminal() && !args.stdin_null;
    let pty = match args.tty {
        Tty::Never => false,
        Tty::Auto => args.command.is_empty() && stdin_is_terminal,
        Tty::Request => stdin_is_terminal,
        Tty::Force => true,
    };
    if args.tty == Tty::Request && !pty && !args.quiet {
        say("tsh: no terminal will be allocated, because standard input is none");
    }
    let request = SessionRequest {
        program: program(args)?,
        pty: pty.then(terminal::pty_request),
        env: environment(args, env::vars_os()),
    };
    let session = client.session(request).await?;

    let (controls, controlled) = mpsc::channel(16);
    let resizing = pty.then(|| tokio::spawn(pass_window_changes(controls.clone())));
    let raw = if pty && stdin_is_terminal {
        Some(RawMode::enter().context("the terminal cannot be set to raw mode")?)
    } else {
        None
    };
    let io = SessionIo {
        stdin: if args.stdin_null { Stdin::Empty } else { stdio::stdin() },
        stdout: stdio::stdout(),
        stderr: stdio::stderr(),
    };
    let escape = args.escape.filter(|_| raw.is_some()).map(|escape| EscapeFilter::new(escape).with_help(show_help));
    let mut quit = QuitSignals::new()?;
    let running = session.run(io, controlled, escape);
    tokio::pin!(running);
    let exit = tokio::select! {
        exit = &mut running => exit,
        signal = quit.next() => {
            // The remote process learns of it, and has a moment to end; then the connection is closed.
            let _ = controls.send(Control::Signal(signal)).await;
            match tokio::time::timeout(LAST_MOMENT, running).await {
                Ok(_) | Err(_) => Ok(Exit::Disconnected),
            }
        }
    };
    drop(raw);
    if let Some(resizing) = resizing {
        resizing.abort();
    }
    // As ssh(1): at the end of every session with a terminal, however it ended.
    if pty && !args.terse && !args.quiet {
        say(&format!("Connection to {} closed.", args.host));
    }
    report(client, exit, args.quiet).await
}

/// The terminal is in raw mode, so the text brings its own line ends.
fn show_help(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

const LAST_MOMENT: Duration = Duration::from_millis(300);

async fn report(
    client: &SshClient,
    exit: Result<Exit, remoteler_ssh::SessionError>,
    quiet: bool,
) -> anyhow::Result<u8> {
    let host = client.host();
    match exit {
        Ok(Exit::Status(status)) => Ok(u8::try_from(status & 0xff).unwrap_or(CONNECTION_FAILED)),
        Ok(Exit::Signal { name, message }) => {
            if !quiet {
                let message = if message.is_empty() { message } else { format!(": {message}") };
                say(&format!("tsh: the remote process was ended by signal {name}{message}"));
            }
            Ok(CONNECTION_FAILED)
        }
        Ok(Exit::Disconnected) => Ok(CONNECTION_FAILED),
        Ok(Exit::Unknown) => {
            let reason = client.last_words().await.map(|words| format!(": {words}")).unwrap_or_default();
            anyhow::bail!("{host} closed the connection{reason}")
        }
        // Whoever read our output has seen enough.
        Err(remoteler_ssh::SessionError::Local { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            Ok(CONNECTION_FAILED)
        }
        Err(cause) => Err(cause.into()),
    }
}

fn program(args: &SshArgs) -> anyhow::Result<Program> {
    if args.subsystem {
        let name = String::from_utf8(args.command.clone()).ok().filter(|name| !name.is_empty());
        return Ok(Program::Subsystem(name.context("-s needs the name of a subsystem")?));
    }
    Ok(if args.command.is_empty() { Program::Shell } else { Program::Command(args.command.clone()) })
}

/// Variables to send: those named by `SetEnv`, and ours that fit `SendEnv` (by default the language).
fn environment(args: &SshArgs, ours: impl Iterator<Item = (OsString, OsString)>) -> Vec<(String, String)> {
    let fits = |name: &str| {
        args.send_env.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        })
    };
    let mut sent = args.set_env.clone();
    for (name, value) in ours {
        if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string())
            && fits(&name)
            && !sent.iter().any(|(known, _)| *known == name)
        {
            sent.push((name, value));
        }
    }
    sent
}

async fn pass_window_changes(controls: mpsc::Sender<Control>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while changes.recv().await.is_some() {
        if controls.send(Control::Resize(terminal::size())).await.is_err() {
            return;
        }
    }
}

/// Signals that end this program. In raw mode Ctrl-C is a key and goes to the server as one.
struct QuitSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl QuitSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Sig {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Sig::INT,
            Some(()) = self.terminate.recv() => Sig::TERM,
            Some(()) = self.hang_up.recv() => Sig::HUP,
            else => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> SshArgs {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        match openssh::parse(&words).unwrap() {
            Parsed::Run(args) => *args,
            other @ (Parsed::Help | Parsed::Version) => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_language_and_what_is_named_is_sent() {
        let ours = ["LANG=C", "LC_ALL=de", "AWS_SECRET_ACCESS_KEY=x", "FOO=1", "EDITOR=vi"]
            .map(|pair| pair.split_once('=').map(|(name, value)| (name.into(), value.into())).unwrap());
        let sent = environment(&args(&["-o", "SendEnv=FOO", "-o", "SetEnv=LANG=en A=b", "h"]), ours.into_iter());
        let named: Vec<String> = sent.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(named, ["LANG=en", "A=b", "LC_ALL=de", "FOO=1"]);
    }

    #[test]
    fn without_a_command_it_is_a_shell() {
        assert_eq!(program(&args(&["h"])).unwrap(), Program::Shell);
        assert_eq!(program(&args(&["h", "ls", "-l"])).unwrap(), Program::Command(b"ls -l".to_vec()));
        assert_eq!(program(&args(&["-s", "h", "sftp"])).unwrap(), Program::Subsystem("sftp".into()));
        assert!(program(&args(&["-s", "h"])).is_err());
    }
}
