//! Programs run for a user: which account, with which ids, environment and file descriptors. Never runs anything as root for
//! somebody else.

mod account;
mod child;

use std::{
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    process::{ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

pub(crate) use account::Account;

/// A program to be started.
pub(crate) struct Launch<'a> {
    pub(crate) account: &'a Account,
    pub(crate) program: OsString,
    /// `argv[0]`, when it is not the program.
    pub(crate) arg0: Option<OsString>,
    pub(crate) args: Vec<OsString>,
    /// The whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
}

/// Standard streams of a program with pipes.
pub(crate) struct Pipes {
    pub(crate) input: ChildStdin,
    pub(crate) output: ChildStdout,
    pub(crate) errors: ChildStderr,
}

/// A running program: leader of a session and process group of its own.
pub(crate) struct Process {
    child: Child,
    group: Option<Pid>,
}

impl Launch<'_> {
    /// Starts it with three pipes.
    pub(crate) fn with_pipes(self) -> io::Result<(Process, Pipes)> {
        let mut command = self.command(Terminal::None)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("a pipe is missing"));
        };
        Ok((Process::new(child), Pipes { input, output, errors }))
    }

    /// Starts it with `terminal` as controlling terminal and standard streams.
    pub(crate) fn with_terminal(self, terminal: OwnedFd) -> io::Result<Process> {
        let mut command = self.command(Terminal::Standard)?;
        command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
        command.spawn().map(Process::new)
    }

    fn command(self, terminal: Terminal) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        if let Some(arg0) = &self.arg0 {
            command.arg0(arg0);
        }
        command.args(&self.args).env_clear().envs(self.env);
        child::prepare(&mut command, self.account, terminal)?;
        Ok(command)
    }
}

/// What a program's terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Terminal {
    None,
    /// Its standard input.
    Standard,
}

impl Process {
    fn new(child: Child) -> Self {
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Self { child, group }
    }

    /// Waits for the end. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        if status.is_ok() {
            // Its number may be given to another process now.
            self.group = None;
        }
        status
    }

    /// Sends `signal` to the process group, as long as its leader was not waited for.
    pub(crate) fn signal(&self, signal: Signal) {
        let Some(group) = self.group else { return };
        if let Err(error) = rustix::process::kill_process_group(group, signal) {
            tracing::debug!(%error, ?signal, "signal not delivered");
        }
    }
}
