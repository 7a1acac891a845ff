//! The one function that says yes or no to everything a client asks for after its login (I19). What is not named here is refused.

use std::sync::Arc;

use remoteler_core::{EndReason, LiveSignal, SshAccess, Timestamp};

use crate::node::environment;

/// What a client asks for: a channel, or a request in one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action<'a> {
    OpenSession,
    DirectTcpip,
    Pty,
    Env {
        name: &'a str,
        value: &'a str,
    },
    Shell,
    Exec,
    /// A command that copies files as the old scp does.
    CopyFiles,
    Subsystem {
        name: &'a str,
    },
    Signal,
    Resize,
    ForwardAgent,
    X11,
    RemoteForward,
    /// A channel that only servers open.
    ForwardedTcpip,
    Streamlocal,
}

/// Proof that an action was allowed to somebody; starting and dialling take it.
#[derive(Clone, Debug)]
pub(super) struct Permit {
    access: Arc<SshAccess>,
}

impl Permit {
    pub(super) fn access(&self) -> &SshAccess {
        &self.access
    }

    /// The same question again, for what begins later on the strength of this permit: `live` is the connection's, which may have had to end since.
    pub(super) fn renew(&self, action: Action<'_>, live: &LiveSignal, now: Timestamp) -> Result<Self, Refusal> {
        match live.reason() {
            Some(reason) => Err(Refusal::Ended(reason.clone())),
            None => authorize(Some(&self.access), action, now),
        }
    }
}

/// Why an action was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("nobody is logged in")]
    NotLoggedIn,
    #[error("the certificate expired at {0}; log in again")]
    Expired(Timestamp),
    #[error(transparent)]
    Ended(EndReason),
    #[error("{0} sessions are open in this connection, and the user's roles allow no more")]
    TooManySessions(u32),
    #[error("no role of {user} allows port forwarding on this node")]
    PortForwarding { user: String },
    #[error("the roles of {user} do not allow file copies on this node")]
    FileCopy { user: String },
    #[error("no role of {user} allows remote port forwarding on this node")]
    RemoteForwarding { user: String },
    #[error("no role of {user} allows agent forwarding on this node")]
    AgentForwarding { user: String },
    #[error("environment variable {0:?} is not accepted")]
    Environment(String),
    #[error("subsystem {0:?} does not exist")]
    Subsystem(String),
    #[error("this node has no {0}")]
    Unsupported(&'static str),
}

/// Decides on `action` for the user who logged in with `access`, at `now`.
pub(super) fn authorize(
    access: Option<&Arc<SshAccess>>,
    action: Action<'_>,
    now: Timestamp,
) -> Result<Permit, Refusal> {
    let access = access.ok_or(Refusal::NotLoggedIn)?;
    if begins_something(action) && access.expires() <= now {
        return Err(Refusal::Expired(access.expires()));
    }
    match action {
        Action::OpenSession | Action::Pty | Action::Shell | Action::Exec | Action::Signal | Action::Resize => {}
        Action::Subsystem { name: "sftp" } | Action::CopyFiles if access.options().ssh_file_copy => {}
        Action::Subsystem { name: "sftp" } | Action::CopyFiles => {
            return Err(Refusal::FileCopy { user: access.user().identity().user.to_string() });
        }
        Action::Subsystem { name } => return Err(Refusal::Subsystem(name.chars().take(80).collect())),
        Action::Env { name, value } if environment::accepts(name, value) => {}
        Action::Env { name, .. } => return Err(Refusal::Environment(name.chars().take(80).collect())),
        Action::DirectTcpip if access.options().port_forwarding.local.allowed() => {}
        Action::DirectTcpip => {
            return Err(Refusal::PortForwarding { user: access.user().identity().user.to_string() });
        }
        Action::ForwardAgent if access.options().forward_agent => {}
        Action::ForwardAgent => {
            return Err(Refusal::AgentForwarding { user: access.user().identity().user.to_string() });
        }
        Action::X11 => return Err(Refusal::Unsupported("X11 forwarding")),
        Action::RemoteForward if access.options().port_forwarding.remote.allowed() => {}
        Action::RemoteForward => {
            return Err(Refusal::RemoteForwarding { user: access.user().identity().user.to_string() });
        }
        Action::ForwardedTcpip => return Err(Refusal::Unsupported("channels that only servers open")),
        Action::Streamlocal => return Err(Refusal::Unsupported("forwarding of Unix sockets")),
    }
    Ok(Permit { access: access.clone() })
}

/// Whether a command is the far end of a copy as OpenSSH's scp starts it with `-O`: `scp`, then `-t` or `-f` among its flags. Who has a shell
/// has other ways; this is for roles that give accounts without one, and so that nobody does it unawares.
pub(super) fn copies_files(command: &[u8]) -> bool {
    let mut words = command.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let named = words.next().is_some_and(|word| word == b"scp" || word.ends_with(b"/scp"));
    let mut flags = words.take_while(|word| word.starts_with(b"-") && *word != b"--");
    named && flags.any(|word| word.contains(&b't') || word.contains(&b'f'))
}

/// Whether the certificate must still be valid for it (I78: what runs goes on, nothing new begins).
fn begins_something(action: Action<'_>) -> bool {
    !matches!(action, Action::Signal | Action::Resize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_login_nothing_is_allowed() {
        let all = [
            Action::OpenSession,
            Action::DirectTcpip,
            Action::Pty,
            Action::Env { name: "LANG", value: "C" },
            Action::Shell,
            Action::Exec,
            Action::CopyFiles,
            Action::Subsystem { name: "sftp" },
            Action::Signal,
            Action::Resize,
            Action::ForwardAgent,
            Action::X11,
            Action::RemoteForward,
            Action::ForwardedTcpip,
            Action::Streamlocal,
        ];
        for action in all {
            let refused = authorize(None, action, Timestamp::from_unix_seconds(0)).unwrap_err();
            assert_eq!(refused, Refusal::NotLoggedIn, "{action:?}"); // I19
        }
    }

    #[test]
    fn the_far_end_of_an_old_copy_is_known_by_its_flags() {
        for copy in ["scp -t /tmp", "scp -f x", "/usr/bin/scp -p -r -t .", " scp  -rf a", "scp -v -d -t -- x"] {
            assert!(copies_files(copy.as_bytes()), "{copy}");
        }
        for other in ["scp a b", "scp -r a host:t", "ls -t", "scpx -t", "", "scp -- -t", "echo scp -t"] {
            assert!(!copies_files(other.as_bytes()), "{other}");
        }
    }
}
