//! What comes to the client from this machine: connections to the socket of a forwarded agent and to forwarded ports. Owns how one of them is asked about
//! again, recorded, given a channel that the node opens, and ended. Never accepts one, and never decides whether a forward may begin.

use std::{future::Future, io, sync::Arc, time::Duration};

use russh::{
    Channel,
    server::{Handle, Msg},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::node::{
    Node,
    authorize::{Action, Permit, Refusal},
    forward::{self, Ends},
    report::SessionReport,
};

/// What all of them in one SSH connection share.
#[derive(Clone)]
pub(super) struct Reverse {
    pub(super) node: Arc<Node>,
    pub(super) handle: Handle,
    pub(super) places: Places,
}

/// Channels that the node may have open to the client. Anybody on this machine may fill those of ports: the agent's are not among them.
#[derive(Clone)]
pub(super) struct Places {
    pub(super) agents: Arc<Semaphore>,
    pub(super) ports: Arc<Semaphore>,
}

impl Places {
    /// `most` of each kind.
    pub(super) fn new(most: usize) -> Self {
        Self { agents: Arc::new(Semaphore::new(most)), ports: Arc::new(Semaphore::new(most)) }
    }
}

/// One forward that was allowed: to an agent, or of a port.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) shared: Reverse,
    pub(super) permit: Permit,
    pub(super) report: SessionReport,
    pub(super) ends: Ends,
}

impl Way {
    /// Waits until somebody connects, and until there is room in `places` for one more channel: a listener at which nobody connects takes none. Who connects
    /// meanwhile waits in the socket's queue.
    ///
    /// # Cancel safety
    /// With a dropped future the connection that waits for room is closed.
    pub(super) async fn next<T>(
        &self,
        places: &Arc<Semaphore>,
        accepting: impl Future<Output = io::Result<T>>,
    ) -> Option<(T, OwnedSemaphorePermit)> {
        let accepted = async {
            match accepting.await {
                Ok(accepted) => Some((accepted, places.clone().acquire_owned().await.ok()?)),
                Err(error) => {
                    tracing::warn!(%error, "a connection to be forwarded could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    None
                }
            }
        };
        tokio::select! {
            accepted = accepted => accepted,
            () = self.ends.ended() => None,
        }
    }

    /// Whether the forward is over.
    pub(super) fn is_over(&self) -> bool {
        self.ends.gone.is_cancelled() || self.ends.live.reason().is_some()
    }

    /// Asks again, by the locks, certificate and time of now (I78): `action` was allowed when the forward began, by the options of the connection's roles then.
    pub(super) fn still(&self, action: Action<'_>) -> Result<Permit, Refusal> {
        self.permit.renew(action, &self.ends.live, self.shared.node.clock.now())
    }

    /// Carries one connection over the channel that `opening` opens. The place is free when that has ended.
    pub(super) async fn carry<R, W>(
        self,
        (from, to): (R, W),
        opening: impl Future<Output = Result<Channel<Msg>, russh::Error>>,
        place: OwnedSemaphorePermit,
    ) where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let _place = place;
        tokio::pin!(opening);
        let opened = tokio::select! {
            opened = &mut opening => opened,
            () = self.ends.ended() => {
                drop((from, to));
                // The client answers or hangs up. A channel that nobody waits for would stay open as long as the connection.
                if let Ok(channel) = opening.await {
                    let _sent = channel.close().await;
                }
                return;
            }
        };
        match opened {
            Ok(channel) => {
                let _count = self.shared.node.session_began();
                forward::copy(&self.shared.node, channel, (from, to), self.ends).await;
            }
            Err(error) => tracing::debug!(%error, "the client takes no forwarded connection"),
        }
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
