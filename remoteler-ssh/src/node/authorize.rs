//! The one function that says yes or no to everything a client asks for after its login (I19). What is not named here is refused.

use std::sync::Arc;

use remoteler_core::{EndReason, SshAccess, Timestamp};

use crate::node::environment;

/// What a client asks for: a channel, or a request in one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action<'a> {
    OpenSession,
    DirectTcpip,
    Pty,
    Env { name: &'a str, value: &'a str },
    Shell,
    Exec,
    Subsystem { name: &'a str },
    Signal,
    Resize,
    ForwardAgent,
    X11,
    RemoteForward,
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
    #[error("no role of {user} allows port forwarding on this node")]
    PortForwarding { user: String },
    #[error("this node does not forward ssh-agents")]
    AgentForwarding,
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
        Action::Subsystem { name: "sftp" } => {}
        Action::Subsystem { name } => return Err(Refusal::Subsystem(name.chars().take(80).collect())),
        Action::Env { name, value } if environment::accepts(name, value) => {}
        Action::Env { name, .. } => return Err(Refusal::Environment(name.chars().take(80).collect())),
        Action::DirectTcpip if access.options().port_forwarding.local => {}
        Action::DirectTcpip => {
            return Err(Refusal::PortForwarding { user: access.user().identity().user.to_string() });
        }
        Action::ForwardAgent => return Err(Refusal::AgentForwarding),
        Action::X11 => return Err(Refusal::Unsupported("X11 forwarding")),
        Action::RemoteForward => return Err(Refusal::Unsupported("remote port forwarding")),
        Action::Streamlocal => return Err(Refusal::Unsupported("forwarding of Unix sockets")),
    }
    Ok(Permit { access: access.clone() })
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
            Action::Subsystem { name: "sftp" },
            Action::Signal,
            Action::Resize,
            Action::ForwardAgent,
            Action::X11,
            Action::RemoteForward,
            Action::Streamlocal,
        ];
        for action in all {
            let refused = authorize(None, action, Timestamp::from_unix_seconds(0)).unwrap_err();
            assert_eq!(refused, Refusal::NotLoggedIn, "{action:?}"); // I19
        }
    }
}
