//! What remains of a connection after an upgrade: two byte streams, joined until one of them ends, the certificate does, or the rules end it. And the answers
//! that go on for long, which end the same way.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use remoteler_core::{EndReason, LiveGuard, LiveSignal, Timestamp};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{
    body::BodyError,
    upstream::{Connection, Idle},
};

/// How long the second direction may take to end after the first has.
const LINGER: Duration = Duration::from_secs(5);
/// After the end of a login what has not been told and ended by then is cut.
const UNTOLD: Duration = Duration::from_secs(2);
const PIECE: usize = 8 * 1024;

/// When a certificate that ends at `expires` has ended, on the machine's monotonic clock. A clock that is set later does not move it.
pub(super) fn lifetime(now: Timestamp, expires: Timestamp) -> Instant {
    // A year is longer than any connection; further away the monotonic clock could overflow.
    const FAR: Duration = Duration::from_secs(365 * 86_400);
    Instant::now() + expires.since(now).min(FAR)
}

/// When work that began with a certificate is cut, if the table of live work did not end it at the end of the login, which is `expires`.
pub(super) fn cut_at(now: Timestamp, expires: Timestamp) -> Instant {
    lifetime(now, expires) + UNTOLD
}

/// Where a request leaves the work that begins when its connection has been upgraded. HTTP/1.1 upgrades a connection once, so one
/// place is enough; the connection's task does the work, and dropping that task ends both sides.
#[derive(Default)]
pub(super) struct RelaySlot(Mutex<Option<BoxFuture<'static, ()>>>);

impl RelaySlot {
    /// Leaves `work`.
    pub(super) fn put(&self, work: BoxFuture<'static, ()>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
    }

    /// Takes what was left.
    pub(super) fn take(&self) -> Option<BoxFuture<'static, ()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Copies both ways. When one direction ends, the other has a few seconds; at `deadline`, and when `live` says so, both are cut. Both streams are closed on return.
pub(super) async fn join<A, B>(client: A, upstream: B, deadline: Instant, live: &LiveSignal) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut upstream_read, mut upstream_write) = tokio::io::split(upstream);
    let mut up = std::pin::pin!(copy(&mut client_read, &mut upstream_write, live));
    let mut down = std::pin::pin!(copy(&mut upstream_read, &mut client_write, live));
    tokio::select! {
        reason = live.ended() => Err(io::Error::new(io::ErrorKind::PermissionDenied, reason)),
        ended = &mut up => { let _ = timeout(LINGER, &mut down).await; ended }
        ended = &mut down => { let _ = timeout(LINGER, &mut up).await; ended }
        () = sleep_until(deadline) => Err(io::Error::new(io::ErrorKind::TimedOut, "the certificate expired")),
    }
}

async fn copy<R, W>(from: &mut R, to: &mut W, live: &LiveSignal) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..count).unwrap_or_default()).await?;
        to.flush().await?;
        live.touch();
    }
}

/// An answer on its way. Holds the connection until its end, gives it back then, and ends with the certificate.
pub(super) struct Streamed {
    inner: Incoming,
    lease: Option<(Arc<Idle>, Connection)>,
    live: Arc<LiveGuard>,
    told: Option<BoxFuture<'static, EndReason>>,
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Streamed {
    pub(super) fn new(
        inner: Incoming,
        lease: Option<(Arc<Idle>, Connection)>,
        live: Arc<LiveGuard>,
        deadline: Instant,
    ) -> Self {
        let mut body = Self { inner, lease, live, told: None, deadline, timer: None };
        if body.inner.is_end_stream() {
            body.give_back();
        }
        body
    }

    fn give_back(&mut self) {
        if let Some((idle, connection)) = self.lease.take() {
            idle.give(connection);
        }
    }

    /// Whether the rules or the certificate have ended it. Timers are made only for answers that make somebody wait.
    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<String> {
        if let Some(reason) = self.live.reason() {
            return Poll::Ready(reason.to_string());
        }
        let signal = self.live.signal();
        let told = self.told.get_or_insert_with(|| async move { signal.ended().await }.boxed());
        if let Poll::Ready(reason) = told.as_mut().poll(context) {
            return Poll::Ready(reason.to_string());
        }
        let at = self.deadline;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        timer.as_mut().poll(context).map(|()| "the certificate expired".to_owned())
    }
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            return match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => continue,
                Poll::Ready(Some(Ok(frame))) if self.live.reason().is_none() && Instant::now() < self.deadline => {
                    self.live.touch();
                    if self.inner.is_end_stream() {
                        self.give_back();
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(Some(Err(cause))) => {
                    self.lease = None;
                    Poll::Ready(Some(Err(BodyError::new(cause))))
                }
                Poll::Ready(None) => {
                    self.give_back();
                    Poll::Ready(None)
                }
                // Broken off, so that nobody takes the part for the whole.
                ready @ (Poll::Ready(Some(Ok(_))) | Poll::Pending) => match self.poll_ended(context) {
                    Poll::Ready(reason) => {
                        self.lease = None;
                        Poll::Ready(Some(Err(BodyError::new(reason))))
                    }
                    // A frame that came is shown by its being past the deadline, of which the timer has not heard yet.
                    Poll::Pending if ready.is_ready() => {
                        self.lease = None;
                        Poll::Ready(Some(Err(BodyError::new("the certificate expired"))))
                    }
                    Poll::Pending => Poll::Pending,
                },
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
