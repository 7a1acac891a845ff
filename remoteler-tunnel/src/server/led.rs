//! The streams of one agent's link to the auth service. Owns their number, and how long they outlive the registration. Never looks into
//! one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::AuthStreams;
use crate::connection::IncomingStream;
use crate::mux::error::Code;
use crate::registration::MAX_AUTH_STREAMS;

/// Those of one link.
pub(super) struct Led {
    streams: JoinSet<()>,
}

impl Led {
    pub(super) fn new() -> Self {
        Self { streams: JoinSet::new() }
    }

    /// Leads a stream there that comes from `source`, unless there are too many of them.
    pub(super) fn lead(&mut self, incoming: IncomingStream, auth: &Arc<dyn AuthStreams>, source: SocketAddr) {
        if self.streams.len() >= MAX_AUTH_STREAMS {
            return incoming.reject(Code::Busy, "this agent has too many streams to the auth service");
        }
        if let Ok(stream) = incoming.accept() {
            let auth = auth.clone();
            self.streams.spawn(async move { auth.serve(Box::new(stream), source).await });
        }
    }

    /// Waits until one of them has ended; `None` when there is none.
    pub(super) async fn ended(&mut self) -> Option<()> {
        self.streams.join_next().await.map(drop)
    }

    /// Lets what is under way be answered when the registration is over, and ends the rest: who registers again has as many anew.
    pub(super) async fn run_out(&mut self) {
        let all = async { while self.ended().await.is_some() {} };
        if timeout(ANSWERED, all).await.is_err() {
            self.streams.shutdown().await;
        }
    }
}

/// An agent ends by itself what would wait for longer.
const ANSWERED: Duration = Duration::from_secs(60);
