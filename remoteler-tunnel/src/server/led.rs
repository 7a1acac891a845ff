//! The streams of one agent's link to the auth service. Owns their number, their pace, and how long they outlive the registration. Never looks into
//! one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::AuthStreams;
use crate::connection::IncomingStream;
use crate::mux::error::Code;
use crate::registration::MAX_AUTH_STREAMS;

/// Those of one link.
pub(super) struct Led {
    streams: JoinSet<()>,
    /// How many may be opened at once yet, each of which costs the proxy and the auth service a handshake.
    left: u32,
    /// Since when the next one is earned.
    since: Instant,
}

impl Led {
    pub(super) fn new() -> Self {
        Self { streams: JoinSet::new(), left: MOST_AT_ONCE, since: Instant::now() }
    }

    /// Leads a stream there that comes from `source`, unless there are too many of them.
    pub(super) fn lead(&mut self, incoming: IncomingStream, auth: &Arc<dyn AuthStreams>, source: SocketAddr) {
        if self.streams.len() >= MAX_AUTH_STREAMS {
            return incoming.reject(Code::Busy, "this agent has too many streams to the auth service");
        }
        if !self.take() {
            return incoming.reject(Code::Busy, "this agent opens streams to the auth service too often");
        }
        if let Ok(stream) = incoming.accept() {
            let auth = auth.clone();
            self.streams.spawn(async move { auth.serve(Box::new(stream), source).await });
        }
    }

    fn take(&mut self) -> bool {
        let earned = u32::try_from(self.since.elapsed().as_millis() / EACH.as_millis()).unwrap_or(u32::MAX);
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(MOST_AT_ONCE);
            self.since = Instant::now();
        }
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
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

/// An honest agent opens some in an hour, and a few at once when it starts.
const MOST_AT_ONCE: u32 = 10;
const EACH: Duration = Duration::from_secs(1);
/// An agent ends by itself what would wait for longer.
const ANSWERED: Duration = Duration::from_secs(60);
