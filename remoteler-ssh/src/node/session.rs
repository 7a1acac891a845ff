//! One session channel: a shell, a command or the file subsystem. Owns the process from its start to its end, and everything that
//! has to be true before it starts: the account exists, the recording is open, the audit log has it.

mod life;

use std::{ffi::OsString, io, net::SocketAddr, os::unix::ffi::OsStringExt, sync::Arc, time::Duration};

use life::{Life, Wires, describe, farewell, say};
use remoteler_core::{AuditError, LiveSignal, RecordingMode, SessionId, Timestamp, random_uuid, with_causes};
use russh::{
    Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig,
    server::{Handle, Msg},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    node::{
        Node,
        agent::ForwardedAgent,
        authorize::Permit,
        environment::{self, Origin},
        forward::Ends,
        outflow::{self, Progress, Stream},
        report::SessionReport,
        reverse::{Reverse, Way},
        sftp_watch::Watched,
    },
    process::{Account, Launch, Process},
    pty::{self, PtyRequest, Size, Terminal},
    recorder::{self, Recorder, RecordingOwner},
};

/// What is to be started.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Shell,
    Exec(Vec<u8>),
    Sftp,
}

/// A start that was allowed.
pub(super) struct Start {
    pub(super) permit: Permit,
    pub(super) kind: Kind,
    pub(super) pty: Option<PtyRequest>,
    pub(super) env: Vec<(String, String)>,
    /// To reach the user's ssh-agent, where that was asked for.
    pub(super) agent: Option<Permit>,
    /// What the user asked for and does not get.
    pub(super) refused: Vec<String>,
}

/// What comes to a running program beside data.
pub(super) enum Control {
    Signal(Sig),
}

/// The connection a session belongs to.
pub(super) struct Place {
    pub(super) node: Arc<Node>,
    pub(super) client: Option<String>,
    /// Where the client reached this node.
    pub(super) own_addr: Option<SocketAddr>,
    pub(super) handle: Handle,
    /// Channels that the node may open.
    pub(super) reverse: Reverse,
    /// Cancelled when the connection has ended.
    pub(super) gone: CancellationToken,
    /// Says when the rules end it, and is told that something happens.
    pub(super) live: LiveSignal,
}

/// What the connection's handler sends.
pub(super) struct Inputs {
    pub(super) started: oneshot::Receiver<Start>,
    pub(super) controls: mpsc::Receiver<Control>,
    pub(super) sizes: watch::Receiver<Option<Size>>,
}

/// Serves a session channel until it is closed. `_opened` is the permission to have one.
pub(super) async fn run(place: Place, _opened: Permit, channel: Channel<Msg>, inputs: Inputs) {
    let Inputs { started, controls, sizes } = inputs;
    let (mut source, sink) = channel.split();
    let Some(start) = wait_for_start(&mut source, started, &place.gone).await else {
        let _sent = sink.close().await;
        return;
    };
    let _count = place.node.session_began();
    let id = SessionId::from_uuid(random_uuid(&*place.node.entropy));
    let report = place.node.reporter.session(id, start.permit.access());
    let session = Opening { place: &place, start: &start, id, report: &report };
    match session.begin().await {
        Ok(running) => {
            let _answered = place.handle.channel_success(sink.id()).await;
            if !matches!(start.kind, Kind::Sftp) {
                for refused in start.refused.iter().chain(&running.unmet) {
                    let _said = timeout(FAREWELL, say(&sink, refused)).await;
                }
            }
            running.run(source, sink, controls, sizes).await;
        }
        Err(refused) => {
            tracing::info!(session = %id, reason = refused, "session not started");
            say_and_close(&place, &sink, &refused).await;
        }
    }
}

/// Answers what a session channel is asked for with the reason why it cannot be, and closes it.
pub(super) async fn turn_away(place: Place, reason: &str, channel: Channel<Msg>, inputs: Inputs) {
    let (mut source, sink) = channel.split();
    match wait_for_start(&mut source, inputs.started, &place.gone).await {
        Some(_) => say_and_close(&place, &sink, reason).await,
        None => drop(sink.close().await),
    }
}

async fn say_and_close(place: &Place, sink: &ChannelWriteHalf<Msg>, reason: &str) {
    let _answered = place.handle.channel_success(sink.id()).await;
    let _said = timeout(FAREWELL, say(sink, reason)).await;
    let _sent = place.handle.exit_status_request(sink.id(), NOT_STARTED).await;
    let _sent = sink.eof().await;
    let _sent = sink.close().await;
}

/// Waits for the one request that starts something. Data before it belongs to nothing, so the channel is given up.
async fn wait_for_start(
    source: &mut ChannelReadHalf,
    mut started: oneshot::Receiver<Start>,
    gone: &CancellationToken,
) -> Option<Start> {
    loop {
        tokio::select! {
            biased;
            start = &mut started => return start.ok(),
            () = gone.cancelled() => return None,
            message = source.wait() => match message {
                None | Some(ChannelMsg::Data { .. } | ChannelMsg::Close) => return None,
                Some(_) => {}
            },
        }
    }
}

/// A session that is about to begin.
struct Opening<'a> {
    place: &'a Place,
    start: &'a Start,
    id: SessionId,
    report: &'a SessionReport,
}

/// A session whose program runs.
struct Running<'a> {
    place: &'a Place,
    kind: &'a Kind,
    report: &'a SessionReport,
    started: Timestamp,
    process: Process,
    streams: Streams,
    recorder: Option<Recorder>,
    /// Its socket is there as long as the session is.
    agent: Option<ForwardedAgent>,
    /// What was allowed and could not be done.
    unmet: Option<String>,
}

enum Streams {
    Terminal(Terminal),
    Pipes(crate::process::Pipes),
}

impl<'a> Opening<'a> {
    /// Account, recording, audit, program: in this order, and each only after the one before.
    ///
    /// # Errors
    /// What to tell the user.
    async fn begin(self) -> Result<Running<'a>, String> {
        let node = &self.place.node;
        let access = self.start.permit.access();
        // I20: the account is looked up when it is used, and the one that was found is the one that is used.
        let account = Account::find(access.login()).await.map_err(|error| error.to_string())?;
        let started = node.clock.now();
        let recorder = self.record(&account, started).await?;
        if let Err(error) = self.announce(started).await {
            tracing::warn!(error = with_causes(&error), session = %self.id, "session refused");
            self.discard(recorder).await;
            return Err("the audit log does not take events, so no session can begin; try again later".into());
        }
        let (agent, unmet) = match self.forward_agent(&account).await {
            Ok(agent) => (agent, None),
            Err(unmet) => (None, Some(unmet)),
        };
        match self.launch(&account, agent.as_ref()) {
            Ok((process, streams)) => {
                let Self { place, start, report, .. } = self;
                Ok(Running { place, kind: &start.kind, report, started, process, streams, recorder, agent, unmet })
            }
            Err(error) => {
                let text = format!("{} cannot be started as {}: {error}", self.what(&account), account.name());
                let recorded = match recorder {
                    Some(recorder) => recorder.finish().await,
                    None => false,
                };
                if let Kind::Exec(command) = &self.start.kind {
                    self.report.exec_ended(command, None, Some(text.clone())).await;
                }
                self.report.end(self.start.pty.is_some(), recorded, (started, node.clock.now())).await;
                Err(text)
            }
        }
    }

    async fn record(&self, account: &Account, started: Timestamp) -> Result<Option<Recorder>, String> {
        let config = &self.place.node.config;
        let mode = self.place.node.live.policy().policy().settings.session_recording;
        let wanted = mode == RecordingMode::Node;
        let Some(pty) = self.start.pty.as_ref().filter(|_| wanted) else { return Ok(None) };
        let access = self.start.permit.access();
        let owner = RecordingOwner {
            session_id: self.id.to_string(),
            user: access.user().identity().user.to_string(),
            login: access.login().to_string(),
            node: access.node().to_string(),
            cluster: config.cluster.to_string(),
            command: match &self.start.kind {
                Kind::Exec(command) => Some(String::from_utf8_lossy(command).chars().take(MAX_COMMAND).collect()),
                Kind::Shell | Kind::Sftp => None,
            },
        };
        let env = [("TERM", pty.term.clone()), ("SHELL", account.shell().display().to_string())];
        let header = recorder::header(owner, (pty.size.columns, pty.size.rows), started, env);
        match Recorder::begin(&config.recordings_dir, self.id, header).await {
            Ok(recorder) => Ok(Some(recorder)),
            Err(failed) => {
                tracing::warn!(session = %self.id, %failed, "session refused");
                Err(failed.to_string()) // I77
            }
        }
    }

    /// Nothing starts before this is on record (I75).
    async fn announce(&self, started: Timestamp) -> Result<(), AuditError> {
        let pty = self.start.pty.as_ref();
        let size = pty.map(|pty| format!("{}:{}", pty.size.columns, pty.size.rows));
        let command = match &self.start.kind {
            Kind::Exec(command) => Some(command.as_slice()),
            Kind::Shell | Kind::Sftp => None,
        };
        let start = self.report.start(self.place.client.clone(), pty.is_some(), size, command);
        match &self.start.kind {
            Kind::Shell | Kind::Exec(_) => start.await,
            Kind::Sftp => self.announce_both(start, self.report.sftp_start(), started).await,
        }
    }

    /// Both events at once. When only the first is on record, the session is ended there again: it will not begin.
    async fn announce_both(
        &self,
        start: impl Future<Output = Result<(), AuditError>>,
        program: impl Future<Output = Result<(), AuditError>>,
        started: Timestamp,
    ) -> Result<(), AuditError> {
        let (start, program) = tokio::join!(start, program);
        if start.is_ok() && program.is_err() {
            self.report.end(self.start.pty.is_some(), false, (started, self.place.node.clock.now())).await;
        }
        start.and(program)
    }

    /// The recording of a session that did not begin holds nothing, and the auth service knows no session that it belongs to: uploads
    /// of it would be refused for ever.
    async fn discard(&self, recorder: Option<Recorder>) {
        let Some(recorder) = recorder else { return };
        let _closed = recorder.finish().await;
        let open = recorder::part_path(&self.place.node.config.recordings_dir, self.id);
        let removed = tokio::task::spawn_blocking(move || {
            let removed = [open.with_extension(""), open].map(std::fs::remove_file);
            removed.into_iter().filter_map(Result::err).find(|error| error.kind() != io::ErrorKind::NotFound)
        });
        if let Ok(Some(error)) = removed.await {
            tracing::warn!(session = %self.id, %error, "the empty recording of a session that did not begin stays");
        }
    }

    /// The user's agent, where programs of the session find it. The session goes on without, and the user is told.
    async fn forward_agent(&self, account: &Account) -> Result<Option<ForwardedAgent>, String> {
        let permit = match (&self.start.agent, &self.start.kind) {
            (Some(permit), Kind::Shell | Kind::Exec(_)) => permit.clone(),
            (Some(_), Kind::Sftp) | (None, _) => return Ok(None),
        };
        let ends = Ends { gone: self.place.gone.clone(), live: self.place.live.clone() };
        let way = Way { shared: self.place.reverse.clone(), permit, report: self.report.clone(), ends };
        ForwardedAgent::begin(way, account).await.map(Some)
    }

    fn what(&self, account: &Account) -> String {
        match &self.start.kind {
            Kind::Shell | Kind::Exec(_) => account.shell().display().to_string(),
            Kind::Sftp => "the file subsystem".into(),
        }
    }

    fn launch(&self, account: &Account, agent: Option<&ForwardedAgent>) -> io::Result<(Process, Streams)> {
        let agent = agent.map(ForwardedAgent::path);
        let (program, arg0, args) = self.command_line(account)?;
        let (client, node) = (self.place.client.as_deref(), self.place.own_addr);
        let Some(request) = &self.start.pty else {
            let origin = Origin { session: self.id, client, node, terminal: None, agent };
            let env = environment::build(account, origin, &self.start.env);
            let (process, pipes) = Launch { account, program, arg0, args, env }.with_pipes()?;
            return Ok((process, Streams::Pipes(pipes)));
        };
        let opened = pty::open(request, account)?;
        let origin = Origin { session: self.id, client, node, terminal: Some((&request.term, opened.path)), agent };
        let env = environment::build(account, origin, &self.start.env);
        let process = Launch { account, program, arg0, args, env }.with_terminal(opened.peer)?;
        Ok((process, Streams::Terminal(opened.terminal)))
    }

    fn command_line(&self, account: &Account) -> io::Result<(OsString, Option<OsString>, Vec<OsString>)> {
        let shell = account.shell().as_os_str().to_owned();
        Ok(match &self.start.kind {
            Kind::Shell => {
                // A leading hyphen makes it a login shell.
                let mut arg0 = OsString::from("-");
                arg0.push(account.shell().file_name().unwrap_or(&shell));
                (shell, Some(arg0), Vec::new())
            }
            Kind::Exec(command) => (shell, None, vec!["-c".into(), OsString::from_vec(command.clone())]),
            Kind::Sftp => {
                let mut words = self.place.node.config.sftp_command.iter().cloned();
                let program = words.next();
                let program = program.ok_or_else(|| io::Error::other("this node serves no files"))?;
                (program, None, words.collect())
            }
        })
    }
}

impl Running<'_> {
    async fn run(
        self,
        source: ChannelReadHalf,
        sink: ChannelWriteHalf<Msg>,
        mut controls: mpsc::Receiver<Control>,
        mut sizes: watch::Receiver<Option<Size>>,
    ) {
        let Self { place, kind, report, started, mut process, streams, recorder, agent, unmet: _ } = self;
        let stall_limit = place.node.config.limits.stall_limit;
        let progress = Progress::default();
        let mut recording_files = None;
        let with_terminal = matches!(streams, Streams::Terminal(_));
        let outcome = match streams {
            Streams::Terminal(terminal) => {
                let output =
                    outflow::copy(terminal.clone(), &sink, Stream::Output, recorder.as_ref(), (TTY_PIECE, &progress));
                let mut wires = Wires { controls: &mut controls, sizes: &mut sizes, terminal: Some(terminal.clone()) };
                let life =
                    Life { process: &mut process, recorder: recorder.as_ref(), progress: Some(&progress), place };
                life.live(source, terminal, output, &mut wires, stall_limit).await
            }
            Streams::Pipes(pipes) => {
                let input = match kind {
                    Kind::Sftp => {
                        let (input, found) = Watched::sftp(pipes.input);
                        recording_files = Some(tokio::spawn(report.clone().sftp_operations(found)));
                        input
                    }
                    Kind::Shell | Kind::Exec(_) => Watched::unwatched(pipes.input),
                };
                // A program without a terminal may send for hours and be sent nothing.
                let [out, err] = [(); 2].map(|()| Progress::of(place.live.clone()));
                let output = async {
                    let (output, errors) = tokio::join!(
                        outflow::copy(pipes.output, &sink, Stream::Output, None, (PIPE_PIECE, &out)),
                        outflow::copy(pipes.errors, &sink, Stream::Errors, None, (PIPE_PIECE, &err)),
                    );
                    output.and(errors)
                };
                let mut wires = Wires { controls: &mut controls, sizes: &mut sizes, terminal: None };
                let life = Life { process: &mut process, recorder: None, progress: None, place };
                life.live(source, input, output, &mut wires, stall_limit).await
            }
        };
        // What the program left running has no agent any more.
        drop(agent);
        let status = farewell(&outcome, &mut process, &place.handle, &sink).await;
        if let Kind::Exec(command) = kind {
            let (code, error) = describe(status, &outcome);
            report.exec_ended(command, code, error).await;
        }
        if let Some(recording) = recording_files {
            // They are the session's, so they stand before its end; an audit log that takes nothing is not waited for.
            let _recorded = timeout(REAP, recording).await;
        }
        let recorded = match recorder {
            Some(recorder) => recorder.finish().await,
            None => false,
        };
        report.end(with_terminal, recorded, (started, place.node.clock.now())).await;
        if recorded {
            place.node.recording_finished.notify_one();
        }
    }
}

/// Exit status of a session that could not begin or had to end.
const NOT_STARTED: u32 = 254;
const MAX_COMMAND: usize = 8 * 1024;
/// Octets of a terminal in one message; Linux gives no more than 4 KiB at once.
const TTY_PIECE: usize = 16 * 1024;
/// Two packets of the size that OpenSSH takes.
const PIPE_PIECE: usize = 64 * 1024;
/// How long a program has for ending after SIGHUP before its end is not waited for any more.
const REAP: Duration = Duration::from_secs(5);
const FAREWELL: Duration = Duration::from_secs(3);
