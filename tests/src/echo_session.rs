//! A session of stock `ssh` that says again what it is told: whether it lives is asked by a word.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use crate::User;

/// A session that runs until [`EchoSession::end`].
#[derive(Debug)]
pub struct EchoSession {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    host: String,
}

impl EchoSession {
    /// Opens one at `host` and hears its first word.
    ///
    /// # Panics
    /// When `ssh` does not start or the session says nothing.
    #[must_use]
    #[track_caller]
    pub fn open(user: &User, host: &str) -> Self {
        let mut ssh = user.openssh("ssh");
        ssh.args(["-o", "BatchMode=yes", host, "while read -r line; do echo got $line; done"]);
        let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh starts");
        let (to, from) = (child.stdin.take().expect("it is piped"), child.stdout.take().expect("it is piped"));
        let mut session = Self { child, to, from: BufReader::new(from), host: host.to_owned() };
        session.says_again("begin");
        session
    }

    /// Tells it a word and hears that again.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn says_again(&mut self, word: &str) {
        writeln!(self.to, "{word}").expect("the session takes a line");
        let mut heard = String::new();
        self.from.read_line(&mut heard).expect("the session says a line");
        assert_eq!(heard, format!("got {word}\n"), "of a session at {}", self.host);
    }

    /// Ends its input and waits for its end.
    ///
    /// # Panics
    /// When it does not end well.
    #[track_caller]
    pub fn end(self) {
        let Self { mut child, to, from, host } = self;
        drop((to, from));
        let status = child.wait().expect("it can be waited for");
        assert!(status.success(), "a session at {host} ended with {status}");
    }
}
