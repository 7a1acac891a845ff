//! A program while it runs, and its end: data both ways, signals and sizes, until it has ended or has to end; then what client and audit log are told of it.

use std::{io, os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use remoteler_core::EndReason;
use russh::{
    ChannelReadHalf, ChannelWriteHalf,
    server::{Handle, Msg},
};
use rustix::process::Signal;
use tokio::{
    io::AsyncWrite,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Control, FAREWELL, NOT_STARTED, Place, REAP};
use crate::{
    node::{
        inflow,
        outflow::{Progress, Quiet},
        signal::{ssh_signal, unix_signal},
    },
    process::Process,
    pty::{Size, Terminal},
    recorder::Recorder,
};

/// How a session came to its end.
pub(super) enum Outcome {
    /// The program ended.
    Exited(ExitStatus),
    /// The client closed the channel, or the connection is gone.
    Left,
    /// It had to end, for this reason.
    Stopped(String),
    /// The rules ended it.
    Ended(EndReason),
}

/// What else reaches a running program.
pub(super) struct Wires<'a> {
    pub(super) controls: &'a mut mpsc::Receiver<Control>,
    pub(super) sizes: &'a mut watch::Receiver<Option<Size>>,
    pub(super) terminal: Option<Terminal>,
}

/// A program while it runs.
pub(super) struct Life<'a> {
    pub(super) process: &'a mut Process,
    pub(super) recorder: Option<&'a Recorder>,
    /// Of the output, when its end may not come with the program's.
    pub(super) progress: Option<&'a Progress>,
    pub(super) place: &'a Place,
}

impl Life<'_> {
    /// Moves data both ways until the program has ended and its output is out, or the session has to end.
    pub(super) async fn live<W, O>(
        self,
        source: ChannelReadHalf,
        input: W,
        output: O,
        wires: &mut Wires<'_>,
        stall_limit: Duration,
    ) -> Outcome
    where
        W: AsyncWrite + Unpin,
        O: Future<Output = io::Result<()>>,
    {
        let input_done = CancellationToken::new();
        let feeding = inflow::feed(source, input, (stall_limit, &self.place.live), &input_done);
        tokio::pin!(feeding, output);
        let mut output_ended = false;
        let mut ended: Option<ExitStatus> = None;
        // A terminal may be held open by a process left behind; what the program itself wrote arrives at once.
        let mut quiet = Quiet::new(self.progress);
        loop {
            if let (Some(status), true) = (ended, output_ended) {
                return Outcome::Exited(status);
            }
            tokio::select! {
                how = &mut feeding => return match how {
                    inflow::Ended::Closed => Outcome::Left,
                    inflow::Ended::Stalled => Outcome::Stopped("the program does not read its input; the session is closed".into()),
                },
                () = self.place.gone.cancelled() => return Outcome::Left,
                reason = self.place.live.ended() => return Outcome::Ended(reason),
                result = &mut output, if !output_ended => {
                    if let (Err(_), Some(recorder)) = (&result, self.recorder)
                        && let Ok(failed) = timeout(Duration::ZERO, recorder.failed()).await
                    {
                        return Outcome::Stopped(failed.to_string());
                    }
                    output_ended = true;
                }
                status = self.process.wait(), if ended.is_none() => match status {
                    Ok(status) => {
                        ended = Some(status);
                        quiet.begin();
                    }
                    Err(error) => return Outcome::Stopped(format!("the program's end is unknown: {error}")),
                },
                () = quiet.wait() => {
                    output_ended = quiet.is_quiet();
                }
                Some(Control::Signal(signal)) = wires.controls.recv() => {
                    if let Some(signal) = unix_signal(&signal) {
                        self.process.signal(signal);
                    }
                }
                Ok(()) = wires.sizes.changed() => {
                    let size = *wires.sizes.borrow_and_update();
                    let (Some(size), Some(terminal)) = (size, &wires.terminal) else { continue };
                    terminal.resize(size);
                    if let Some(recorder) = self.recorder
                        && let Err(failed) = recorder.resize(size.columns, size.rows).await
                    {
                        return Outcome::Stopped(failed.to_string());
                    }
                }
                failed = recording_failed(self.recorder) => return Outcome::Stopped(failed),
            }
        }
    }
}

async fn recording_failed(recorder: Option<&Recorder>) -> String {
    match recorder {
        Some(recorder) => recorder.failed().await.to_string(),
        None => std::future::pending().await,
    }
}

/// Tells client and program that it is over. Yields the program's end, if it came in time.
pub(super) async fn farewell(
    outcome: &Outcome,
    process: &mut Process,
    handle: &Handle,
    sink: &ChannelWriteHalf<Msg>,
) -> Option<ExitStatus> {
    let id = sink.id();
    match outcome {
        Outcome::Exited(status) => {
            let _sent = sink.eof().await;
            let _sent = match (status.code(), status.signal().and_then(ssh_signal)) {
                (None, Some(signal)) => {
                    handle.exit_signal_request(id, signal, status.core_dumped(), String::new(), "en".into()).await
                }
                (code, _) => {
                    let code = code.or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
                    handle.exit_status_request(id, u32::try_from(code).unwrap_or(255)).await
                }
            };
            let _sent = sink.close().await;
            Some(*status)
        }
        Outcome::Left => {
            process.signal(Signal::HUP);
            let _sent = sink.close().await;
            timeout(REAP, process.wait()).await.ok().and_then(Result::ok)
        }
        Outcome::Stopped(reason) => {
            tracing::warn!(reason, "session ended by the node");
            process.signal(Signal::HUP);
            let _said = timeout(FAREWELL, say(sink, reason)).await;
            let _sent = handle.exit_status_request(id, NOT_STARTED).await;
            let _sent = sink.eof().await;
            let _sent = sink.close().await;
            if let Ok(Ok(status)) = timeout(REAP, process.wait()).await {
                return Some(status);
            }
            process.signal(Signal::KILL);
            timeout(REAP, process.wait()).await.ok().and_then(Result::ok)
        }
        Outcome::Ended(reason) => {
            tracing::info!(%reason, "session ended by the rules");
            process.signal(Signal::HUP);
            // Who does not read is not waited for, and neither is a program that does not hear.
            let _said = timeout(SHORT, say(sink, &reason.to_string())).await;
            let _sent = handle.exit_status_request(id, NOT_STARTED).await;
            let _sent = sink.eof().await;
            let _sent = sink.close().await;
            if let Ok(Ok(status)) = timeout(SHORT, process.wait()).await {
                return Some(status);
            }
            process.signal(Signal::KILL);
            timeout(REAP, process.wait()).await.ok().and_then(Result::ok)
        }
    }
}

/// One line on the channel's standard error.
pub(super) async fn say(sink: &ChannelWriteHalf<Msg>, text: &str) -> Result<(), russh::Error> {
    sink.extended_data_bytes(1, format!("remoteler: {text}\r\n").into_bytes()).await
}

/// A command's end for the audit log: code and error.
pub(super) fn describe(status: Option<ExitStatus>, outcome: &Outcome) -> (Option<String>, Option<String>) {
    let code = status.map(|status| match (status.code(), status.signal()) {
        (Some(code), _) => code.to_string(),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    });
    match outcome {
        Outcome::Stopped(reason) => (code, Some(reason.clone())),
        Outcome::Ended(reason) => (code, Some(reason.to_string())),
        // As in Teleport's events: a command that fails has an error, and with it the code of failures.
        Outcome::Exited(status) if !status.success() => (code, Some(status.to_string())),
        Outcome::Left if code.is_none() => (Some("left running".into()), None),
        Outcome::Exited(_) | Outcome::Left => (code, None),
    }
}

/// The same for a session that the rules end.
const SHORT: Duration = Duration::from_millis(400);
