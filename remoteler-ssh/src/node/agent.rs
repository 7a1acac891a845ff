//! `ssh -A`: programs of one session reach the user's ssh-agent through a socket of the session's own. Owns who may connect to it and that each
//! connection is recorded before the client hears of it. Never reads what is said: octets pass.

use std::{io, path::Path};

use nix::unistd::Uid;
use remoteler_core::{ForwardDirection, with_causes};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::DropGuard;

use crate::{
    node::{agent_socket::AgentSocket, authorize::Action, forward::Ends, report::Forwarded, reverse::Way},
    process::Account,
};

/// An agent that is forwarded to one session. Dropping it ends that and removes the socket.
pub(super) struct ForwardedAgent {
    socket: AgentSocket,
    _end: DropGuard,
}

impl ForwardedAgent {
    /// Makes the socket for `account`, which the session runs as, and serves it.
    ///
    /// # Errors
    /// What to tell the user; the session goes on without.
    pub(super) async fn begin(way: Way, account: &Account) -> Result<Self, String> {
        if let Err(error) = way.report.port(agent(None)).await {
            tracing::warn!(%error, "an agent is not forwarded: the audit log does not take events");
            return Err("the audit log does not take events, so the ssh-agent is not forwarded".into());
        }
        let node = way.shared.node.clone();
        let (socket, listener) = node.agent_sockets.open(account, &*node.entropy).map_err(|error| {
            tracing::warn!(error = with_causes(&error), "an agent is not forwarded: its socket cannot be made");
            "the ssh-agent is not forwarded: this node cannot make a socket for it; its log says why".to_owned()
        })?;
        // Ends with the session, and with the connection.
        let end = way.ends.gone.child_token();
        let way = Way { ends: Ends { gone: end.clone(), ..way.ends.clone() }, ..way };
        let owner = account.uid();
        node.tasks.spawn(async move { serve(&way, &listener, owner).await });
        Ok(Self { socket, _end: end.drop_guard() })
    }

    /// What `SSH_AUTH_SOCK` is.
    pub(super) fn path(&self) -> &Path {
        self.socket.path()
    }
}

async fn serve(way: &Way, listener: &UnixListener, owner: Uid) {
    while !way.is_over() {
        let Some(((stream, _), place)) = way.next(&way.shared.places.agents, listener.accept()).await else { continue };
        let way = way.clone();
        let node = way.shared.node.clone();
        node.tasks.spawn(async move {
            if let Some(stream) = admit(&way, stream, owner).await {
                let handle = way.shared.handle.clone();
                way.carry(stream.into_split(), async move { handle.channel_open_agent().await }, place).await;
            }
        });
    }
}

/// Lets the session's account in, and nobody else, and only on record.
async fn admit(way: &Way, stream: UnixStream, owner: Uid) -> Option<UnixStream> {
    let peer = stream.peer_cred();
    let process = peer.as_ref().ok().and_then(tokio::net::unix::UCred::pid).map(|pid| format!("process {pid}"));
    let refused = match may_connect(peer.map(|peer| peer.uid()), owner) {
        Ok(()) => way.still(Action::ForwardAgent).err().map(|refusal| refusal.to_string()),
        Err(reason) => Some(reason),
    };
    if let Some(refused) = refused {
        way.report.port_refused(agent(process), refused).await;
        return None;
    }
    match way.report.port(agent(process)).await {
        Ok(()) => Some(stream),
        Err(error) => {
            tracing::warn!(%error, "an agent is not asked: the audit log does not take events");
            None
        }
    }
}

/// The mode of the directory says the same; root, which no mode stops, is refused here as an agent of its own would not be.
fn may_connect(peer: io::Result<u32>, owner: Uid) -> Result<(), String> {
    match peer {
        Ok(uid) if uid == owner.as_raw() => Ok(()),
        Ok(uid) => Err(format!("user id {uid} connects to the agent of user id {owner}")),
        Err(error) => Err(format!("who connects to the agent is not known: {error}")),
    }
}

fn agent(originator: Option<String>) -> Forwarded {
    Forwarded { direction: ForwardDirection::Agent, addr: "ssh-agent".into(), originator }
}

#[cfg(test)]
mod tests {
    use super::*;

    // I74
    #[test]
    fn nobody_but_the_sessions_account_is_let_to_its_agent() {
        let owner = Uid::from_raw(1000);
        assert_eq!(may_connect(Ok(1000), owner), Ok(()));
        for other in [0, 1001, u32::MAX] {
            assert!(may_connect(Ok(other), owner).unwrap_err().contains(&other.to_string()));
        }
        assert!(may_connect(Err(io::ErrorKind::NotConnected.into()), owner).is_err());
    }
}
