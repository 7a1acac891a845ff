//! A link as the rest of the program holds it: the machine of [`crate::Mux`] over a connection, driven by one task. Owns
//! that task and the wake-ups. Decides nothing that the machine decides.

mod driver;
mod handle;
mod resumable;
mod state;
#[cfg(test)]
mod states;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use crate::mux::error::{Code, OpenError, ProtocolError};
use crate::mux::limits::Limits;
use crate::mux::{Mux, MuxEvent, Side};
use crate::stream::BoxedStream;

use state::State;

pub use handle::{IncomingStream, MuxStream};
pub use resumable::LinkCounters;
pub(crate) use resumable::{Hold, TakeUpError, read_body, refuse};

/// A connection that carries streams. Clones are handles of the same link; when the last one is dropped the link takes
/// no new streams and closes after the last stream has ended.
#[derive(Clone, Debug)]
pub struct Link {
    owner: Arc<Owner>,
}

/// How a link stands.
#[derive(Clone, Debug)]
pub enum LinkState {
    /// The peer's hello is awaited.
    Handshaking,
    /// Streams can be opened.
    Up,
    /// The connection is lost, and another one awaited: streams can be opened and written to, within bounds, and wait.
    Suspended {
        /// Since when.
        since: Instant,
    },
    /// The peer takes no new streams; those that are open go on.
    GoingAway {
        /// What the peer said.
        reason: Arc<str>,
    },
    /// Over.
    Closed(CloseReason),
}

/// Why a link ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it.
    #[error("closed here: {reason}")]
    Here {
        /// Why.
        reason: Arc<str>,
    },
    /// The peer closed it in order.
    #[error("closed by the peer: {reason}")]
    Peer {
        /// What the peer said.
        reason: Arc<str>,
    },
    /// The connection broke, and no other took its place.
    #[error("the connection was lost and could not be taken up again: {reason}")]
    Lost {
        /// Why not.
        reason: Arc<str>,
    },
    /// The connection broke.
    #[error("the connection broke: {message}")]
    Broken {
        /// What the system says.
        kind: io::ErrorKind,
        /// The same in words.
        message: Arc<str>,
    },
    /// The peer broke the protocol or fell silent.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

impl Link {
    /// Starts a link over `io` on the current runtime.
    ///
    /// TCP sockets below must have `TCP_NODELAY` set: frames are small and wait for nothing.
    pub fn start<S>(io: S, side: Side, limits: impl Into<Arc<Limits>>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::over(Box::new(io), Mux::new(side, limits, now()))
    }

    fn over(io: BoxedStream, mux: Mux) -> Self {
        let resume_within = mux.limits().resume_within;
        let shared = Arc::new(Shared {
            core: Mutex::new(Core {
                mux,
                wakers: BTreeMap::new(),
                draining: false,
                closing: None,
                replacement: None,
                suspend_wanted: false,
                held: false,
                lost: None,
                resumptions: 0,
                waited: Duration::ZERO,
            }),
            driver: AtomicWaker::new(),
            incoming: Notify::new(),
            doubt: Notify::new(),
            state: State::new(LinkState::Handshaking),
        });
        tokio::spawn(Box::new(driver::Driver::new(io, shared.clone(), resume_within, now())).run());
        Self { owner: Arc::new(Owner { shared }) }
    }

    /// Waits until streams can be opened.
    ///
    /// # Errors
    /// The link ended before.
    pub async fn ready(&self) -> Result<(), CloseReason> {
        let settled = |state: &LinkState| match state {
            LinkState::Closed(reason) => Some(Err(reason.clone())),
            LinkState::Up | LinkState::Suspended { .. } | LinkState::GoingAway { .. } => Some(Ok(())),
            LinkState::Handshaking => None,
        };
        self.shared().state.wait_for(settled).await
    }

    /// Opens a stream that the peer is told of by `metadata`. Octets may be written at once;
    /// [`MuxStream::accepted`] tells whether somebody takes them.
    ///
    /// # Errors
    /// The link is closed or going away, carries too many streams, or the metadata is too long.
    pub fn open(&self, metadata: impl Into<Bytes>) -> Result<MuxStream, OpenError> {
        let shared = self.shared();
        let mut core = shared.lock();
        let id = core.mux.open(metadata.into(), now())?;
        shared.after(core);
        Ok(MuxStream::new(shared.clone(), id))
    }

    /// The next stream that the peer opened; `None` when the link has ended.
    ///
    /// # Cancel safety
    /// Cancel safe: a stream that was not returned is returned by the next call.
    pub async fn accept(&self) -> Option<IncomingStream> {
        let shared = self.shared();
        loop {
            let notified = shared.incoming.notified();
            let next = {
                let mut core = shared.lock();
                let next = core.mux.next_incoming();
                shared.after(core);
                next
            };
            if let Some((id, metadata)) = next {
                return Some(IncomingStream::new(shared.clone(), id, metadata));
            }
            if matches!(*shared.state.lock(), LinkState::Closed(_)) {
                shared.incoming.notify_one(); // whoever else waits here
                return None;
            }
            notified.await;
        }
    }

    /// Waits for the end.
    pub async fn closed(&self) -> CloseReason {
        let closed = |state: &LinkState| match state {
            LinkState::Closed(reason) => Some(reason.clone()),
            LinkState::Up | LinkState::Suspended { .. } | LinkState::GoingAway { .. } | LinkState::Handshaking => None,
        };
        self.shared().state.wait_for(closed).await
    }

    /// How the link stands now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.shared().state.lock().clone()
    }

    /// Whether streams may be opened: up, and neither side is going away.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let core = self.shared().lock();
        core.mux.is_up() && core.mux.peer_going_away().is_none() && !core.draining && core.closing.is_none()
    }

    /// Waits until the peer takes no new streams or the link has ended. Says whether the peer had announced it: `false` for a link
    /// that ended without a word of that.
    pub async fn going_away(&self) -> bool {
        let ending =
            |state: &LinkState| matches!(state, LinkState::Closed(_) | LinkState::GoingAway { .. }).then_some(());
        self.shared().state.wait_for(ending).await;
        self.shared().lock().mux.peer_going_away().is_some()
    }

    /// Streams open now, of both sides.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.shared().lock().mux.stream_count()
    }

    /// Lowest round-trip time of late.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.shared().lock().mux.round_trip()
    }

    /// Takes no new streams; waits up to `deadline` for those that are open, then ends them.
    pub async fn shutdown(&self, reason: &str, deadline: Duration) {
        self.drain(reason);
        if tokio::time::timeout(deadline, self.closed()).await.is_err() {
            self.close(Code::GoingAway, reason);
            self.closed().await;
        }
    }

    /// Takes no new streams and says so to the peer; the link ends with its last stream.
    pub fn drain(&self, reason: &str) {
        let shared = self.shared();
        let mut core = shared.lock();
        core.mux.go_away(Code::GoingAway, reason);
        core.draining = true;
        drop(core);
        shared.driver.wake();
    }

    /// Ends the link and everything in it now. The peer is told why, if it listens.
    pub fn close(&self, code: Code, reason: &str) {
        let shared = self.shared();
        shared.lock().closing.get_or_insert_with(|| (code, reason.into()));
        shared.driver.wake();
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}

#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut core = self.shared.lock();
        core.mux.go_away(Code::GoingAway, "the peer is done");
        core.draining = true;
        drop(core);
        self.shared.driver.wake();
    }
}

/// What handles and the task have in common.
#[derive(Debug)]
struct Shared {
    core: Mutex<Core>,
    driver: AtomicWaker,
    incoming: Notify,
    /// Told when the connection has been silent for longer than it should.
    doubt: Notify,
    state: State,
}

#[derive(Debug)]
struct Core {
    mux: Mux,
    wakers: BTreeMap<u32, Box<Wakers>>,
    /// Close once no stream is left.
    draining: bool,
    /// Close now.
    closing: Option<(Code, Arc<str>)>,
    /// The connection that takes the place of the present one.
    replacement: Option<Replacement>,
    /// The connection shall be let go, as if it were lost.
    suspend_wanted: bool,
    /// What comes over the present connection stays unread, for the peer is being told how much there is.
    held: bool,
    /// A lost connection will have no successor.
    lost: Option<Arc<str>>,
    /// How often another connection has taken the place of one that was lost.
    resumptions: u64,
    /// How long it has been without a connection, up to its last one.
    waited: Duration,
}

/// Another connection for the same link.
struct Replacement {
    io: BoxedStream,
    /// Sequenced octets that its peer has.
    peer_received: u64,
    /// How long it took to be made; zero where the peer made it.
    took: Duration,
}

impl std::fmt::Debug for Replacement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replacement").field("peer_received", &self.peer_received).finish_non_exhaustive()
    }
}

/// Who waits for a stream.
#[derive(Debug, Default)]
struct Wakers {
    read: Option<Waker>,
    write: Option<Waker>,
    answer: Option<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic of another thread inside the machine leaves it consistent enough to be closed.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a change by a handle: passes events on and calls the task if there is something to send.
    fn after(&self, mut core: MutexGuard<'_, Core>) {
        let mut woken = Vec::new();
        core.dispatch(self, &mut woken);
        let wants_transmit = core.mux.wants_transmit() || (core.draining && core.mux.is_idle());
        drop(core);
        woken.into_iter().for_each(Waker::wake);
        if wants_transmit {
            self.driver.wake();
        }
    }
}

impl Core {
    /// Turns events of the machine into wake-ups, which the caller performs without the lock.
    fn dispatch(&mut self, shared: &Shared, woken: &mut Vec<Waker>) {
        while let Some(event) = self.mux.poll_event() {
            let (id, slot): (u32, fn(&mut Wakers) -> &mut Option<Waker>) = match event {
                MuxEvent::Up => {
                    shared.state.change(|state| {
                        let handshaking = matches!(state, LinkState::Handshaking);
                        if handshaking {
                            *state = LinkState::Up;
                        }
                        handshaking
                    });
                    continue;
                }
                MuxEvent::Incoming => {
                    shared.incoming.notify_one();
                    continue;
                }
                MuxEvent::GoingAway => {
                    let reason = self.mux.peer_going_away().cloned().unwrap_or_default();
                    shared.state.change(|state| {
                        let open = !matches!(state, LinkState::Closed(_));
                        if open {
                            *state = LinkState::GoingAway { reason };
                        }
                        open
                    });
                    continue;
                }
                MuxEvent::Answered(id) => (id, |wakers| &mut wakers.answer),
                MuxEvent::Readable(id) => (id, |wakers| &mut wakers.read),
                MuxEvent::Writable(id) => (id, |wakers| &mut wakers.write),
            };
            woken.extend(self.wakers.get_mut(&id).and_then(|wakers| slot(wakers).take()));
        }
    }
}

/// The runtime's clock, so that tests can stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
