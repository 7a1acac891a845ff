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
    /// Channels that the node may have open to the client.
    pub(super) places: Arc<Semaphore>,
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
    /// Waits until there is room for one more channel and somebody connects. Who connects meanwhile waits in the socket's queue.
    ///
    /// # Cancel safety
    /// Nothing is lost with a dropped future.
    pub(super) async fn next<T>(
        &self,
        accepting: impl Future<Output = io::Result<T>>,
    ) -> Option<(T, OwnedSemaphorePermit)> {
        let accepted = async {
            let place = self.shared.places.clone().acquire_owned().await.ok()?;
            match accepting.await {
                Ok(accepted) => Some((accepted, place)),
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

    /// Asks again, as rules and time are now (I78): `action` was allowed when the forward began.
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
            Err(error) => tracing::info!(%error, "the client takes no forwarded connection"),
        }
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
