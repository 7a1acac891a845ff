//! One program at the server: starting it, and carrying its input, output, window size, signals and end. Never touches a
//! terminal: sizes and signals come in through a channel.

use std::{collections::VecDeque, future::poll_fn, io, pin::pin, task::Poll};

use bytes::Bytes;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty, Sig, client::Msg};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter},
    sync::mpsc,
};

use super::{EscapeAction, EscapeFilter};
use crate::player::printable;

/// Why a session did not start, or broke.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The server does not open the channel.
    #[error("{host} refuses the channel: {reason}")]
    Channel {
        /// Server.
        host: String,
        /// What it said, made printable.
        reason: String,
    },
    /// The server refuses what is to run in it.
    #[error("{host} refuses {what}")]
    Refused {
        /// Server.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The connection ended while something was asked.
    #[error("{host} closed the channel before it answered")]
    Closed {
        /// Server.
        host: String,
    },
    /// The server ended the connection.
    #[error("{host} closed the connection: {reason}")]
    Disconnected {
        /// Server.
        host: String,
        /// What it said, made printable.
        reason: String,
    },
    /// Output of the server could not be passed on, or input not be read, on this side.
    #[error("local {what}: {source}")]
    Local {
        /// Which of them.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The protocol failed.
    #[error("the SSH connection failed: {0}")]
    Protocol(#[from] russh::Error),
}

/// Size of a terminal in characters and, if known, pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub cols: u32,
    /// Rows.
    pub rows: u32,
    /// Width in pixels, 0 when not known.
    pub width_px: u32,
    /// Height in pixels, 0 when not known.
    pub height_px: u32,
}

/// A terminal for the program.
#[derive(Clone, Debug)]
pub struct PtyRequest {
    /// Value of `TERM`.
    pub term: String,
    /// Its size at the beginning.
    pub size: TerminalSize,
    /// Terminal modes (RFC 4254 section 8).
    pub modes: Vec<(Pty, u32)>,
}

/// What runs in the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// The user's shell.
    Shell,
    /// A command line for the user's shell.
    Command(Vec<u8>),
    /// A subsystem such as `sftp`.
    Subsystem(String),
}

/// What is asked of the server.
#[derive(Clone, Debug)]
pub struct SessionRequest {
    /// What to run.
    pub program: Program,
    /// With a terminal or without.
    pub pty: Option<PtyRequest>,
    /// Environment; the server takes what it likes.
    pub env: Vec<(String, String)>,
}

/// What happens on the user's side while the program runs.
#[derive(Clone, Debug)]
pub enum Control {
    /// The terminal has a new size.
    Resize(TerminalSize),
    /// Send a signal to the program.
    Signal(Sig),
}

/// How the program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this exit status.
    Status(u32),
    /// By a signal.
    Signal {
        /// Name without `SIG`, made printable.
        name: String,
        /// What the server said of it, made printable.
        message: String,
    },
    /// The channel closed and the server said nothing.
    Unknown,
    /// The user typed the escape for it.
    Disconnected,
}

/// The three local streams.
#[derive(Debug)]
pub struct SessionIo<I, O, E> {
    /// Goes to the program.
    pub stdin: I,
    /// Takes the program's output.
    pub stdout: O,
    /// Takes the program's error output.
    pub stderr: E,
}

/// A program that was started.
pub struct Session {
    read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    early: VecDeque<ChannelMsg>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("channel", &self.write.id()).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) async fn start(
        mut channel: Channel<Msg>,
        request: SessionRequest,
        agent: bool,
        host: String,
    ) -> Result<Self, SessionError> {
        let mut asked = Vec::new();
        if agent {
            // Without an answer, as OpenSSH asks: a server that refuses says so on standard error, and the program runs without.
            channel.agent_forward(false).await?;
        }
        for (name, value) in request.env {
            channel.set_env(false, name, value).await?;
        }
        if let Some(PtyRequest { term, size, modes }) = request.pty {
            channel.request_pty(true, &term, size.cols, size.rows, size.width_px, size.height_px, &modes).await?;
            asked.push("a terminal");
        }
        match request.program {
            Program::Shell => {
                channel.request_shell(true).await?;
                asked.push("a shell");
            }
            Program::Command(command) => {
                channel.exec(true, command).await?;
                asked.push("the command");
            }
            Program::Subsystem(name) => {
                channel.request_subsystem(true, name).await?;
                asked.push("the subsystem");
            }
        }
        let mut replies = asked.len();
        let early = await_replies(&mut channel, &mut replies, &host, &asked).await?;
        let (read, write) = channel.split();
        Ok(Self { read, write, early })
    }

    /// Carries everything until the program has ended and all its output is written.
    ///
    /// # Errors
    /// [`SessionError::Local`] when output cannot be written, [`SessionError::Protocol`] when the connection breaks.
    ///
    /// # Cancel safety
    /// Not cancel safe: octets under way are lost.
    pub async fn run<I, O, E>(
        self,
        io: SessionIo<I, O, E>,
        controls: mpsc::Receiver<Control>,
        escape: Option<EscapeFilter>,
    ) -> Result<Exit, SessionError>
    where
        I: AsyncRead + Unpin,
        O: AsyncWrite + Unpin,
        E: AsyncWrite + Unpin,
    {
        let Self { read, write, early } = self;
        let down = receive(read, early, io.stdout, io.stderr);
        let up = send_input(&write, io.stdin, escape);
        let control = pass_controls(&write, controls);
        tokio::pin!(down, up, control);
        let (mut input_done, mut controls_done) = (false, false);
        loop {
            tokio::select! {
                biased; // A new size that was there before a key goes before it.
                () = &mut control, if !controls_done => controls_done = true,
                exit = &mut down => {
                    if exit.is_err() {
                        let _ = write.close().await;
                    }
                    return exit;
                }
                ended = &mut up, if !input_done => match ended {
                    Ok(Input::Ended) => input_done = true,
                    Ok(Input::Disconnect) => {
                        let _ = write.close().await;
                        return Ok(Exit::Disconnected);
                    }
                    // The other half says how it ended; what is typed after that has nowhere to go.
                    Err(SessionError::Protocol(_)) => input_done = true,
                    Err(cause) => return Err(cause),
                },
            }
        }
    }
}

enum Input {
    Ended,
    Disconnect,
}

async fn send_input<I: AsyncRead + Unpin>(
    write: &ChannelWriteHalf<Msg>,
    mut stdin: I,
    mut escape: Option<EscapeFilter>,
) -> Result<Input, SessionError> {
    let mut buffer = vec![0; INPUT];
    loop {
        let count =
            stdin.read(&mut buffer).await.map_err(|source| SessionError::Local { what: "standard input", source })?;
        let Some(octets) = buffer.get(..count).filter(|octets| !octets.is_empty()) else {
            write.eof().await?;
            return Ok(Input::Ended);
        };
        match escape.as_mut() {
            None => write.data_bytes(Bytes::copy_from_slice(octets)).await?,
            Some(filter) => {
                let mut sent = Vec::with_capacity(count + 1);
                let action = filter.filter(octets, &mut sent);
                match action {
                    Some(EscapeAction::Disconnect) => return Ok(Input::Disconnect),
                    Some(EscapeAction::Help) => filter.help(),
                    None => {}
                }
                write.data_bytes(sent).await?;
            }
        }
    }
}

async fn pass_controls(write: &ChannelWriteHalf<Msg>, mut controls: mpsc::Receiver<Control>) {
    while let Some(control) = controls.recv().await {
        let sent = match control {
            Control::Resize(size) => write.window_change(size.cols, size.rows, size.width_px, size.height_px).await,
            Control::Signal(signal) => write.signal(signal).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn receive<O, E>(
    mut read: ChannelReadHalf,
    mut early: VecDeque<ChannelMsg>,
    stdout: O,
    stderr: E,
) -> Result<Exit, SessionError>
where
    O: AsyncWrite + Unpin,
    E: AsyncWrite + Unpin,
{
    let (mut stdout, mut stderr) = (Local::new(stdout, "standard output"), Local::new(stderr, "standard error"));
    let mut exit = Exit::Unknown;
    loop {
        let here = match early.pop_front() {
            Some(message) => Poll::Ready(Some(message)),
            None => poll_fn(|cx| Poll::Ready(pin!(read.wait()).poll(cx))).await,
        };
        let message = match here {
            Poll::Ready(message) => message,
            Poll::Pending => {
                stdout.flush().await?;
                stderr.flush().await?;
                read.wait().await
            }
        };
        match message {
            Some(ChannelMsg::Data { data }) => {
                stderr.flush().await?; // what was said first is shown first
                stdout.put(&data).await?;
            }
            Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => {
                stdout.flush().await?;
                stderr.put(&data).await?;
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => exit = Exit::Status(exit_status),
            Some(ChannelMsg::ExitSignal { signal_name, error_message, .. }) => {
                exit = Exit::Signal { name: signal_text(&signal_name), message: printable(&error_message) };
            }
            Some(ChannelMsg::Close) | None => {
                stdout.flush().await?;
                stderr.flush().await?;
                return Ok(exit);
            }
            Some(_) => {}
        }
    }
}

/// A local stream for output. What comes in a row is written at once; the owner flushes when nothing more is there.
struct Local<W> {
    stream: BufWriter<W>,
    flushed: bool,
    what: &'static str,
}

impl<W: AsyncWrite + Unpin> Local<W> {
    fn new(stream: W, what: &'static str) -> Self {
        Self { stream: BufWriter::with_capacity(OUTPUT, stream), flushed: true, what }
    }

    async fn put(&mut self, octets: &[u8]) -> Result<(), SessionError> {
        self.flushed = false;
        self.stream.write_all(octets).await.map_err(|source| SessionError::Local { what: self.what, source })
    }

    async fn flush(&mut self) -> Result<(), SessionError> {
        if self.flushed {
            return Ok(());
        }
        self.flushed = true;
        self.stream.flush().await.map_err(|source| SessionError::Local { what: self.what, source })
    }
}

fn signal_text(signal: &Sig) -> String {
    match signal {
        Sig::ABRT => "ABRT".into(),
        Sig::ALRM => "ALRM".into(),
        Sig::FPE => "FPE".into(),
        Sig::HUP => "HUP".into(),
        Sig::ILL => "ILL".into(),
        Sig::INT => "INT".into(),
        Sig::KILL => "KILL".into(),
        Sig::PIPE => "PIPE".into(),
        Sig::QUIT => "QUIT".into(),
        Sig::SEGV => "SEGV".into(),
        Sig::TERM => "TERM".into(),
        Sig::USR1 => "USR1".into(),
        Sig::Custom(name) => printable(name),
    }
}

/// Waits for `replies` answers, in the order of `asked`. Gives back what else arrived meanwhile.
pub(super) async fn await_replies(
    channel: &mut Channel<Msg>,
    replies: &mut usize,
    host: &str,
    asked: &[&str],
) -> Result<VecDeque<ChannelMsg>, SessionError> {
    let mut early = VecDeque::new();
    while *replies > 0 {
        match channel.wait().await {
            Some(ChannelMsg::Success) => *replies -= 1,
            Some(ChannelMsg::Failure) => {
                let what = asked.get(asked.len().saturating_sub(*replies)).copied().unwrap_or("the request");
                let said = server_text(early);
                let what = if said.is_empty() { what.to_owned() } else { format!("{what}: {said}") };
                return Err(SessionError::Refused { host: host.to_owned(), what });
            }
            Some(ChannelMsg::Close) | None => return Err(SessionError::Closed { host: host.to_owned() }),
            Some(ChannelMsg::WindowAdjusted { .. }) => {}
            Some(other) if early.len() < MAX_EARLY => early.push_back(other),
            Some(_) => return Err(SessionError::Protocol(russh::Error::Pending)),
        }
    }
    Ok(early)
}

/// What the server wrote to standard error before it refused, in one line.
fn server_text(messages: VecDeque<ChannelMsg>) -> String {
    let mut text = Vec::new();
    for message in messages {
        if let ChannelMsg::ExtendedData { data, ext: STDERR } = message {
            text.extend_from_slice(&data);
        }
    }
    text.truncate(1000);
    printable(String::from_utf8_lossy(&text).trim())
}

/// `SSH_EXTENDED_DATA_STDERR` (RFC 4254 section 5.2).
const STDERR: u32 = 1;
const INPUT: usize = 64 * 1024;
/// Octets that are joined into one write of output.
const OUTPUT: usize = 256 * 1024;
const MAX_EARLY: usize = 256;
