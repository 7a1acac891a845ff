//! A link that goes on over another connection when it has lost the one it had. Owns the exchange of the two messages of a resumption;
//! the driver swaps the connections. Whose link it is, the caller has settled by the certificate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Link, LinkState, Replacement, now};
use crate::mux::limits::Limits;
use crate::mux::{Mux, Side};
use crate::replay::ReplayBudget;
use crate::resume::{self, Channel, MAX_RESUME_BODY_LEN, ResumeError, ResumeKeys, ResumeRequest};
use crate::stream::BoxedStream;

/// Why a connection was not taken for a link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeUpError {
    /// It broke; another one may do.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// The peer will not, on no connection.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The link is over.
    #[error("the tunnel has ended meanwhile")]
    Over,
}

/// What a link has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Octets of sequenced frames that were sent, headers included; what is sent again after a loss counts once.
    pub sent: u64,
    /// Octets of sequenced frames that arrived, headers included.
    pub received: u64,
    /// Streams that are open now.
    pub streams: usize,
    /// How often it went on over another connection.
    pub resumptions: u64,
    /// How long it has been without a connection in all.
    pub suspended: Duration,
}

impl Link {
    /// Like [`Link::start`], for a link that [`Limits::resume_within`] keeps when its connection is lost, if its peer does so too.
    #[must_use]
    pub fn start_resumable(io: BoxedStream, side: Side, limits: impl Into<Arc<Limits>>, budget: ReplayBudget) -> Self {
        let mut mux = Mux::new(side, limits, now());
        mux.make_resumable(budget);
        Self::over(io, mux)
    }

    /// Since when its connection is lost, and another one awaited.
    #[must_use]
    pub fn suspended_since(&self) -> Option<Instant> {
        match self.state() {
            LinkState::Suspended { since } => Some(since),
            LinkState::Handshaking | LinkState::Up | LinkState::GoingAway { .. } | LinkState::Closed(_) => None,
        }
    }

    /// Since when its connection, which it still has, has been silent, if that owes an answer for longer than one takes.
    pub(crate) fn silent_since(&self) -> Option<Instant> {
        match self.state() {
            LinkState::Up | LinkState::GoingAway { .. } => self.shared().lock().mux.silent_since(now()),
            LinkState::Handshaking | LinkState::Suspended { .. } | LinkState::Closed(_) => None,
        }
    }

    /// Waits until its connection is lost and another one awaited; false when the link has ended.
    pub async fn suspended(&self) -> bool {
        let settled = |state: &LinkState| match state {
            LinkState::Suspended { .. } => Some(true),
            LinkState::Closed(_) => Some(false),
            LinkState::Handshaking | LinkState::Up | LinkState::GoingAway { .. } => None,
        };
        self.shared().state.wait_for(settled).await
    }

    /// Since when its connection, which it still has, has been silent, if that is longer than it should be.
    pub(crate) fn doubted_since(&self) -> Option<Instant> {
        self.shared().lock().mux.doubted_since()
    }

    /// Waits until it doubts its connection; since when that has been silent. One task may wait.
    pub(crate) async fn doubted(&self) -> Instant {
        loop {
            if let Some(since) = self.doubted_since() {
                return since;
            }
            self.shared().doubt.notified().await;
        }
    }

    /// What an answer may take before its connection is doubted.
    pub(crate) fn patience(&self) -> Duration {
        self.shared().lock().mux.patience()
    }

    /// Waits until it has a connection, or has ended.
    pub async fn resumed(&self) {
        let settled = |state: &LinkState| (!matches!(state, LinkState::Suspended { .. })).then_some(());
        self.shared().state.wait_for(settled).await;
    }

    /// How often another connection has taken the place of one that was lost.
    #[must_use]
    pub fn resumptions(&self) -> u64 {
        self.shared().lock().resumptions
    }

    /// What it has carried, and how long it has been without a connection.
    #[must_use]
    pub fn counters(&self) -> LinkCounters {
        let since = self.suspended_since();
        let core = self.shared().lock();
        let waits = since.map(|since| since.elapsed()).unwrap_or_default();
        LinkCounters {
            sent: core.mux.sent_octets(),
            received: core.mux.received_octets(),
            streams: core.mux.stream_count(),
            resumptions: core.resumptions,
            suspended: core.waited + waits,
        }
    }

    /// Waits until another connection has taken its place more often than `before`, or it has ended. That one may be lost again by then.
    pub(crate) async fn taken_up_since(&self, before: u64) {
        let state = &self.shared().state;
        let settled = || (self.resumptions() != before || matches!(*state.lock(), LinkState::Closed(_))).then_some(());
        state.until(settled).await;
    }

    /// Lets its connection go, if it has one, and waits until that is done; false when the link has ended or cannot go on without.
    pub(crate) async fn suspend(&self) -> bool {
        if !self.shared().lock().mux.is_resumable() {
            return false;
        }
        self.shared().lock().suspend_wanted = true;
        self.shared().driver.wake();
        self.suspended().await
    }

    /// Holds its connection, if that has been silent since then: what comes over it stays unread until the hold is dropped, and it goes on there
    /// as if nothing had been, or [`take_up`](Self::take_up) has found it another one. `None` when something was heard.
    pub(crate) fn hold(&self, silent_since: Instant) -> Option<Hold> {
        let mut core = self.shared().lock();
        if core.mux.doubted_since() != Some(silent_since) {
            return None;
        }
        core.held = true;
        Some(Hold { link: self.clone() })
    }

    /// Ends it, if it waits for a connection: there will be none.
    pub(crate) fn give_up(&self, reason: &str) {
        self.shared().lock().lost = Some(reason.into());
        self.shared().driver.wake();
    }

    /// The client's part: asks the server on `io` to go on, and goes on when that agrees. `io` took so long to be made. The link must be suspended, or
    /// [held](Self::hold).
    pub(crate) async fn take_up(
        &self,
        mut io: BoxedStream,
        keys: &ResumeKeys,
        attempt: u32,
        channel: &Channel,
        took: Duration,
    ) -> Result<(), TakeUpError> {
        let received = self.shared().lock().mux.received_octets();
        io.write_all(&keys.request(attempt, received, channel)).await?;
        io.flush().await?;
        let mut prefix = [0; 8];
        io.read_exact(&mut prefix).await?;
        let answer = read_body(&mut io, &prefix).await?;
        let peer_received = keys.accepted(&answer, channel)?;
        self.replace(Replacement { io, peer_received, took })
    }

    /// The server's part, after the request was found good: says what it has, and goes on.
    pub(crate) async fn hand_over(
        &self,
        mut io: BoxedStream,
        keys: &ResumeKeys,
        request: &ResumeRequest,
        channel: &Channel,
    ) -> Result<(), TakeUpError> {
        // What was received must not grow any more once it is told.
        if !self.suspend().await {
            return Err(TakeUpError::Over);
        }
        let received = self.shared().lock().mux.received_octets();
        io.write_all(&keys.answer(received, channel)).await?;
        io.flush().await?;
        self.replace(Replacement { io, peer_received: request.received, took: Duration::ZERO })
    }

    fn replace(&self, replacement: Replacement) -> Result<(), TakeUpError> {
        let shared = self.shared();
        let mut core = shared.lock();
        if core.closing.is_some() || !core.mux.is_up() {
            return Err(TakeUpError::Over);
        }
        core.replacement = Some(replacement);
        drop(core);
        shared.driver.wake();
        Ok(())
    }
}

/// A link's connection is held, until dropped.
pub(crate) struct Hold {
    link: Link,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let shared = self.link.shared();
        shared.lock().held = false;
        shared.driver.wake();
    }
}

/// The body behind a prefix.
pub(crate) async fn read_body(io: &mut BoxedStream, prefix: &[u8; 8]) -> Result<Vec<u8>, TakeUpError> {
    let length = resume::body_length(prefix)?;
    debug_assert!(length <= MAX_RESUME_BODY_LEN);
    let mut body = vec![0; length];
    io.read_exact(&mut body).await?;
    Ok(body)
}

/// Tells the client that its link is not known here.
pub(crate) async fn refuse(mut io: BoxedStream, reason: &Arc<str>) {
    // The peer may be gone already.
    let _ = io.write_all(&resume::refusal(reason)).await;
    let _ = io.shutdown().await;
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::time::timeout;

    use super::*;

    fn pair(limits: Limits) -> (Link, Link) {
        let (near, far) = duplex(65_536);
        let start = |io, side| Link::start_resumable(Box::new(io), side, limits, ReplayBudget::default());
        (start(near, Side::Client), start(far, Side::Server))
    }

    #[tokio::test]
    async fn a_connection_that_is_lost_as_soon_as_it_is_taken_was_taken_all_the_same() {
        let (client, server) = pair(Limits::client());
        client.ready().await.unwrap();
        server.ready().await.unwrap();
        assert!(client.suspend().await);
        let (keys, channel) = (ResumeKeys::new(&[1; 48]), [7; 32]);
        let (near, mut far) = duplex(65_536);
        let answered = async {
            let mut request = [0; 68];
            far.read_exact(&mut request).await.unwrap();
            far.write_all(&keys.answer(0, &channel)).await.unwrap();
            drop(far);
        };

        let before = client.resumptions();
        let (taken, ()) = tokio::join!(client.take_up(Box::new(near), &keys, 1, &channel, Duration::ZERO), answered);
        taken.unwrap();

        // Its task sees the new connection and its end in one go.
        timeout(SOON, client.taken_up_since(before)).await.unwrap();
        assert!(timeout(SOON, client.suspended()).await.unwrap());
        assert_eq!(client.counters().resumptions, before + 1);
    }

    #[tokio::test]
    async fn counters_say_what_was_carried_and_that_both_sides_have_it() {
        let (client, server) = pair(Limits::client());
        client.ready().await.unwrap();
        let mut near = client.open(&b"{}"[..]).unwrap();
        near.write_all(b"four").await.unwrap();
        let mut far = server.accept().await.unwrap().accept().unwrap();
        far.read_exact(&mut [0; 4]).await.unwrap();

        let (ours, theirs) = (client.counters(), server.counters());
        // OPEN with two octets, DATA with four; each with a header of twelve.
        assert_eq!((ours.sent, theirs.received), (30, 30));
        assert_eq!((ours.streams, theirs.streams, ours.resumptions), (1, 1, 0));
        assert_eq!(ours.suspended, Duration::ZERO);
    }

    const SOON: Duration = Duration::from_secs(30);
}
